//! Which webhooks of a log, as the command line says it.

use crate::cli::when::When;
use chrono::{DateTime, Utc};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use shared::{
    db::{Databases, channel_accounts, inbound::log::Outcome, tenants::Tenant, webhook_log::Filter},
    domain::{channel::Provider, ids::ChannelAccountId},
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
    /// Only for this channel account, as `mijra channel-account list` shows it.
    #[arg(long)]
    pub(super) account: Option<ChannelAccountId>,
}

impl Select {
    /// Without looking whether there is what it names.
    pub(super) fn unchecked(&self, now: DateTime<Utc>) -> Filter {
        Filter {
            since: self.since.map(|when| when.before(now)),
            until: self.until.map(|when| when.before(now)),
            provider: self.provider,
            outcome: self.outcome,
            channel_account_id: self.account,
        }
    }

    /// For this tenant, whose account it is if it names one: of another there is nothing, which would look like an empty log.
    pub(super) async fn filter(
        &self,
        databases: &Databases,
        tenant: &Tenant,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Filter> {
        if let Some(id) = self.account {
            let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
            let exists = channel_accounts::exists(&mut tx, id).await?;
            tx.commit().await?;
            anyhow::ensure!(
                exists,
                "tenant {slug} has no channel account {id}; `mijra channel-account list --tenant {slug}` shows those there are",
                slug = tenant.slug
            );
        }
        Ok(self.unchecked(now))
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
