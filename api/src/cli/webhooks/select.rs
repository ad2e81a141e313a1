//! Which webhooks of a log, as the command line says it.

use crate::{cli::when::When, routes::webhooks::checked_outcome};
use chrono::{DateTime, Utc};
use shared::{
    db::webhook_log::Filter,
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
    /// Only what became this: stored, duplicate, notice, partly_bad or erased.
    #[arg(long, value_parser = outcome)]
    pub(super) outcome: Option<String>,
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
            outcome: self.outcome.clone(),
            channel_account_id: self.account,
        }
    }
}

fn outcome(text: &str) -> Result<String, String> {
    checked_outcome(text).map(|()| text.to_owned())
}
