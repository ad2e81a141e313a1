//! Which webhooks of a log, as the command line says it.

use crate::cli::{settings, when::When};
use chrono::{DateTime, Utc};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use shared::{
    db::{Databases, inbound::log::Outcome, tenants::Tenant, webhook_log::Filter},
    domain::channel::Provider,
};

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Select {
    /// Received at this time or later: RFC 3339, or how long ago (2h, 3d).
    #[arg(long)]
    pub(super) since: Option<When>,
    /// Received before this time.
    #[arg(long)]
    pub(super) until: Option<When>,
    /// Only of this provider.
    #[arg(long, value_parser = providers())]
    pub(super) provider: Option<Provider>,
    /// Only what became this.
    #[arg(long, value_parser = outcomes())]
    pub(super) outcome: Option<Outcome>,
    /// Only for this channel account, by its id here or its provider's.
    #[arg(long)]
    account: Option<String>,
}

impl Select {
    /// Received from when on, and until when.
    pub(super) fn stretch(&self, now: DateTime<Utc>) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        (self.since.map(|when| when.before(now)), self.until.map(|when| when.before(now)))
    }

    /// For this tenant, whose account it is if it names one: of another there is nothing, which would look like an empty log.
    pub(super) async fn filter(
        &self,
        databases: &Databases,
        tenant: &Tenant,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Filter> {
        let channel_account_id = settings::account_if_named(databases, tenant, self.account.as_deref()).await?;
        let (since, until) = self.stretch(now);
        Ok(Filter { since, until, provider: self.provider, outcome: self.outcome, channel_account_id })
    }
}

/// Those that send webhooks.
pub(super) fn providers() -> impl TypedValueParser<Value = Provider> {
    PossibleValuesParser::new(Provider::WITH_WEBHOOKS.iter().map(|provider| provider.as_str()))
        .try_map(|name| name.parse())
}

fn outcomes() -> impl TypedValueParser<Value = Outcome> {
    PossibleValuesParser::new(Outcome::ALL.iter().map(|outcome| outcome.as_str())).try_map(|name| name.parse())
}
