//! What the batch tells of accounts and templates. First of all, because limits and accounts are locked before anything else.

use super::{Inbound, heard};
use shared::{
    db::{
        self, FleetTx,
        inbound::news::{self, AccountTold, TemplateTold},
    },
    domain::events::{AccountNews, Event},
    telemetry::names,
};

pub(super) async fn apply(tx: &mut FleetTx, effects: &[Inbound]) -> Result<(), db::Error> {
    let of_accounts = heard(effects, |event| if let Event::Account(change) = event { Some(change) } else { None });
    let of_templates = heard(effects, |event| if let Event::Template(change) = event { Some(change) } else { None });
    let accounts: Vec<AccountTold<'_>> = of_accounts
        .iter()
        .map(|told| AccountTold {
            tenant_id: told.tenant_id(),
            channel_account_id: told.channel_account_id,
            display_address: told.what.display_address.as_deref(),
            news: &told.what.change,
            // A provider's clock ahead of ours must not keep out what comes after it.
            at: told.what.at.min(told.webhook.meta.received_at),
        })
        .collect();
    let templates: Vec<TemplateTold<'_>> = of_templates
        .iter()
        .map(|told| TemplateTold {
            tenant_id: told.tenant_id(),
            channel_account_id: told.channel_account_id,
            change: told.what,
        })
        .collect();
    news::apply(tx, &accounts).await?;
    news::apply_to_templates(tx, &templates).await?;
    for told in &accounts {
        metrics::counter!(names::INBOUND_NEWS_TOTAL, "kind" => kind(told.news)).increment(1);
    }
    if !templates.is_empty() {
        metrics::counter!(names::INBOUND_NEWS_TOTAL, "kind" => "template").increment(templates.len() as u64);
    }
    Ok(())
}

fn kind(news: &AccountNews) -> &'static str {
    match news {
        AccountNews::Quality(_) => "quality",
        AccountNews::Throughput(_) => "throughput",
        AccountNews::MessagingLimit(_) => "messaging_limit",
        AccountNews::Down { .. } => "down",
        AccountNews::Up => "up",
        AccountNews::Alert { .. } => "alert",
    }
}
