//! Which webhooks of a log, as the command line says it.

use crate::cli::when::When;
use chrono::{DateTime, Utc};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use shared::{
    db::{inbound::log::Outcome, webhook_log::Filter},
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
    #[arg(long)]
    pub(super) provider: Option<Provider>,
    /// Only what became this.
    #[arg(long, value_parser = outcomes())]
    pub(super) outcome: Option<Outcome>,
    /// Only for this channel account, as `mijra channel-account list` shows it.
    #[arg(long)]
    pub(super) account: Option<ChannelAccountId>,
}

impl Select {
    pub(super) fn filter(&self, now: DateTime<Utc>) -> Filter {
        Filter {
            since: self.since.map(|when| when.before(now)),
            until: self.until.map(|when| when.before(now)),
            provider: self.provider,
            outcome: self.outcome,
            channel_account_id: self.account,
        }
    }
}

fn outcomes() -> impl TypedValueParser<Value = Outcome> {
    PossibleValuesParser::new(Outcome::ALL.iter().map(|outcome| outcome.as_str())).try_map(|name| name.parse())
}
