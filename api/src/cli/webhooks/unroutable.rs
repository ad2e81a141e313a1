//! `mijra webhooks unroutable`: webhooks for accounts that nobody had. Once somebody has the account they are sent on, as ordinary
//! webhooks that come now: what they lead to is decided by how old they are by their provider's time.

use super::{
    NONE_MATCH,
    body::{harmless, readable},
    select::providers,
};
use crate::{
    cli::{
        output::{Output, note, or_dash},
        settings::Database,
        when::When,
    },
    routes::webhooks::BodyView,
};
use anyhow::Context;
use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};
use shared::{
    clock::Clock,
    db::{
        self, Databases, Placement,
        audit::{Actor, Entry},
        routing::{self, Route},
        unroutable::{self, Filter, Unroutable},
    },
    domain::{
        channel::Provider,
        events::{Part, RouteKey},
        ids::{ChannelAccountId, TenantId, WebhookId},
    },
    jobs::inbound::{MAX_INLINE_BYTES, Meta, RawWebhook},
    providers,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    process::ExitCode,
    time::Duration,
};

/// Read at a time, and sent on in one transaction: as many large ones fit into memory.
const PAGE: i64 = 16;
/// With so many on their way already, those to come wait: what is live goes first.
const ON_THEIR_WAY: i64 = 256;
const PAUSE: Duration = Duration::from_millis(200);

#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// List them, the oldest first, each with the accounts that nobody had, and what to do
    List(List),
    /// Show one with its body
    Show(Show),
    /// Send on those whose account somebody has now; the others stay
    Replay(Replay),
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Select {
    /// Received at this time or later: RFC 3339, or how long ago (2h, 3d).
    #[arg(long)]
    since: Option<When>,
    /// Received before this time.
    #[arg(long)]
    until: Option<When>,
    /// Only of this provider.
    #[arg(long, value_parser = providers())]
    provider: Option<Provider>,
    /// Only for this account, by the provider's id of it.
    #[arg(long)]
    external_id: Option<String>,
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    select: Select,
    /// So many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Show {
    /// Which.
    id: WebhookId,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Replay {
    /// Only this one.
    id: Option<WebhookId>,
    #[command(flatten)]
    select: Select,
    /// Only count them.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    database: Database,
}

#[derive(Serialize)]
struct Row {
    id: WebhookId,
    received_at: DateTime<Utc>,
    provider: String,
    external_id: String,
    other_ids: Value,
    others: i32,
    why: Why,
    what_to_do: String,
}

/// Why one of them still lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Why {
    /// Nobody has the account.
    NobodyHasIt,
    /// An account's own secret had signed it, and that account's tenant does not have the one it names.
    NotTheSigners,
    /// Somebody has the account by now.
    SomebodyHasIt,
    /// It is not known who had signed it.
    SignerUnknown,
    /// What is kept of it, or the part that is meant, cannot be read.
    Unreadable,
}

impl Why {
    fn of(webhook: &Unroutable, found: &Found) -> Self {
        match (found, &webhook.meta) {
            (Found::Somebody(..), _) => Why::SomebodyHasIt,
            (Found::Nobody, Some(Meta { account: Some(_), .. })) => Why::NotTheSigners,
            (Found::Nobody, _) => Why::NobodyHasIt,
            (Found::Unusable, None) => Why::SignerUnknown,
            (Found::Unusable, Some(_)) => Why::Unreadable,
        }
    }

    fn in_short(self) -> &'static str {
        match self {
            Why::NobodyHasIt => "nobody has it",
            Why::NotTheSigners => "not its signer's",
            Why::SomebodyHasIt => "somebody has it now",
            Why::SignerUnknown => "signer unknown",
            Why::Unreadable => "unreadable",
        }
    }

    /// A sentence for a person: why, and what to do.
    fn what_to_do(self, webhook: &Unroutable) -> String {
        let provider = harmless(&webhook.provider);
        match self {
            Why::NobodyHasIt => format!(
                "No tenant has the account: add it (mijra channel-account add {provider}), then mijra webhooks unroutable replay."
            ),
            Why::NotTheSigners => {
                let signer = webhook.meta.as_ref().and_then(|meta| meta.account);
                let signer = or_dash(signer.map(|account| account.tenant_id));
                format!(
                    "The secret of an account of tenant {signer} signed it, and that tenant does not have the account it names: add it \
                    there (mijra channel-account add {provider}), then mijra webhooks unroutable replay."
                )
            }
            Why::SomebodyHasIt => "A tenant has the account now: mijra webhooks unroutable replay.".to_owned(),
            Why::SignerUnknown => {
                "It is not known who had signed it, for another release kept it: it can only be looked at.".to_owned()
            }
            Why::Unreadable => {
                "For whom it is cannot be read: mijra webhooks unroutable replay, once a release reads it.".to_owned()
            }
        }
    }
}

/// What became of sending on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Sent {
    /// So many are on their way.
    published: usize,
    /// The account is still nobody's.
    nobodys: usize,
    /// Kept by a release that did not note who had signed it, or not readable, still: they can only be looked at.
    unusable: usize,
}

impl Select {
    fn filter(&self, webhook_id: Option<WebhookId>) -> Filter {
        let now = Clock::system().now();
        Filter {
            webhook_id,
            since: self.since.map(|when| when.before(now)),
            until: self.until.map(|when| when.before(now)),
            provider: self.provider,
            external_id: self.external_id.clone(),
        }
    }
}

impl Row {
    fn new(webhook: Unroutable, found: &Found) -> Self {
        let why = Why::of(&webhook, found);
        let what_to_do = why.what_to_do(&webhook);
        let Unroutable { id, received_at, provider, external_id, other_ids, others, .. } = webhook;
        Self { id, received_at, provider, external_id, other_ids, others, why, what_to_do }
    }

    /// The ids that nobody had, and how many more of them there are than are kept.
    fn for_whom(&self) -> String {
        let others: Vec<&str> = self.other_ids.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let more = usize::try_from(self.others).unwrap_or_default().saturating_sub(others.len());
        let ids = std::iter::once(self.external_id.as_str()).chain(others).map(for_whom);
        let more = (more > 0).then(|| format!("{more} more"));
        ids.chain(more).collect::<Vec<_>>().join(", ")
    }
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(args) => list(args, out).await,
        Command::Show(args) => show(args, out).await,
        Command::Replay(args) => replay(args, out).await,
    }
}

async fn list(args: List, out: &Output) -> anyhow::Result<ExitCode> {
    let (databases, filter) = (args.database.open().await?, args.select.filter(None));
    let limit = usize::from(args.limit);
    let mut rows: Vec<Row> = Vec::new();
    while rows.len() < limit {
        let behind = rows.last().map(|row| (row.received_at, row.id));
        let mut tx = databases.control().await?;
        let page = unroutable::list(&mut tx, &filter, behind, PAGE).await?;
        tx.commit().await?;
        if page.is_empty() {
            break;
        }
        let found = find(&databases, &page).await?;
        rows.extend(page.into_iter().zip(&found).map(|(webhook, found)| Row::new(webhook, found)));
    }
    rows.truncate(limit);
    out.list(&rows, &["received", "provider", "for", "why", "id"], |row| {
        let received = row.received_at.format("%Y-%m-%d %H:%M:%S").to_string();
        vec![received, row.provider.clone(), row.for_whom(), row.why.in_short().to_owned(), row.id.to_string()]
    })?;
    if rows.is_empty() {
        note(NONE_MATCH);
    } else if !out.is_json() {
        let sentences: BTreeSet<String> =
            rows.iter().map(|row| format!("{}: {}", row.why.in_short(), row.what_to_do)).collect();
        out.line(&format!("\n{}", sentences.into_iter().collect::<Vec<_>>().join("\n")))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(args: Show, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let mut tx = databases.control().await?;
    let filter = Filter { webhook_id: Some(args.id), ..Filter::default() };
    let mut found = unroutable::list(&mut tx, &filter, None, 1).await?;
    tx.commit().await?;
    let webhook = found.pop().with_context(|| format!("there is no webhook {} that nobody could be given", args.id))?;
    let found = find(&databases, std::slice::from_ref(&webhook)).await?;
    let why = Why::of(&webhook, found.first().expect("of each it is found out"));
    let what_to_do = why.what_to_do(&webhook);
    let body = webhook.body();
    let query = webhook.meta.as_ref().and_then(|meta| meta.query.clone());
    let ids: Vec<&str> = ids(&webhook).collect();
    let text = format!(
        "received  {}\nprovider  {}\nfor       {}\nquery     {}\n\n{what_to_do}\n\n{}",
        webhook.received_at.to_rfc3339(),
        webhook.provider,
        ids.iter().map(|id| for_whom(id)).collect::<Vec<_>>().join(", "),
        or_dash(query.as_deref().map(harmless)),
        body.as_deref().map_or_else(|| "(what is kept of the body cannot be read)".to_owned(), readable),
    );
    let mut json = json!({
        "id": webhook.id, "received_at": webhook.received_at, "provider": webhook.provider, "external_ids": ids,
        "others": webhook.others, "query": query, "why": why, "what_to_do": what_to_do,
    });
    let shown = serde_json::to_value(BodyView::of(body))?;
    for (name, value) in shown.as_object().into_iter().flatten() {
        json[name] = value.clone();
    }
    out.say(&json, &text)?;
    Ok(ExitCode::SUCCESS)
}

/// An id that nobody had; that of a part that could not be read is empty.
fn for_whom(id: &str) -> String {
    if id.is_empty() { "(unreadable)".to_owned() } else { harmless(id) }
}

/// The ids that nobody had, as far as they are kept.
fn ids(webhook: &Unroutable) -> impl Iterator<Item = &str> {
    let others = webhook.other_ids.as_array().into_iter().flatten().filter_map(Value::as_str);
    std::iter::once(webhook.external_id.as_str()).chain(others)
}

async fn replay(args: Replay, out: &Output) -> anyhow::Result<ExitCode> {
    let (databases, filter) = (args.database.open().await?, args.select.filter(args.id));
    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template("[{elapsed_precise}] {pos} sent on")?);
    let (mut sent, mut behind, mut found_any) = (Sent::default(), None, false);
    loop {
        let mut whose: BTreeMap<(Placement, TenantId, ChannelAccountId), usize> = BTreeMap::new();
        let mut tx = databases.control().await?;
        let page = unroutable::list(&mut tx, &filter, behind, PAGE).await?;
        tx.commit().await?;
        behind = page.last().map(|webhook| (webhook.received_at, webhook.id));
        if behind.is_none() {
            break;
        }
        found_any = true;
        let mut on = Vec::with_capacity(page.len());
        for (webhook, found) in page.iter().zip(find(&databases, &page).await?) {
            match found {
                Found::Unusable => sent.unusable += 1,
                Found::Nobody => sent.nobodys += 1,
                Found::Somebody(raw, routes) => {
                    for route in routes {
                        *whose.entry((route.placement, route.tenant_id, route.channel_account_id)).or_default() += 1;
                    }
                    on.push((webhook.id, raw));
                }
            }
        }
        if args.dry_run {
            sent.published += on.len();
        } else {
            // Before they go: whatever ends this meanwhile, what was sent on is on record.
            record(&databases, &whose).await?;
            sent.published += send_on(&databases, &on).await?;
        }
        bar.set_position(sent.published as u64);
    }
    bar.finish_and_clear();
    match args.id {
        _ if found_any => {}
        Some(id) => anyhow::bail!("there is no webhook {id} that nobody could be given"),
        None => note(NONE_MATCH),
    }
    let would = if args.dry_run { "would be " } else { "" };
    let mut text = format!("{} webhooks {would}sent on, {} are still nobody's", sent.published, sent.nobodys);
    if sent.unusable > 0 {
        text.push_str(&format!(", {} can only be looked at", sent.unusable));
    }
    let mut json = serde_json::to_value(sent)?;
    json["dry_run"] = args.dry_run.into();
    out.say(&json, &text)?;
    Ok(if args.id.is_some() && sent.published == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What is found out about one of them.
enum Found {
    /// It cannot be sent on.
    Unusable,
    /// Its accounts are still nobody's.
    Nobody,
    /// It can be sent on as this, and is then for these.
    Somebody(RawWebhook, Vec<Route>),
}

/// Whose they are now.
async fn find(databases: &Databases, page: &[Unroutable]) -> anyhow::Result<Vec<Found>> {
    let mut read = Vec::with_capacity(page.len());
    let mut keys: BTreeMap<Provider, Vec<RouteKey>> = BTreeMap::new();
    for webhook in page {
        let parsed = webhook.to_webhook().and_then(|raw| providers::parse(&raw).ok().map(|parsed| (raw, parsed)));
        if let Some((raw, parsed)) = &parsed {
            keys.entry(raw.meta.provider).or_default().extend(parsed.parts.iter().flat_map(keys_of).cloned());
        }
        read.push(parsed);
    }
    let mut routes: HashMap<(Provider, RouteKey), Route> = HashMap::new();
    let mut tx = databases.control().await?;
    for (provider, keys) in keys {
        let found = routing::find_routes(&mut tx, provider, &keys).await?;
        routes.extend(found.into_iter().map(|(key, route)| ((provider, key), route)));
    }
    tx.commit().await?;
    let found = page.iter().zip(read).map(|(webhook, read)| {
        let Some((raw, parsed)) = read else { return Found::Unusable };
        // A webhook signed with an account's own secret speaks for that account's tenant alone.
        let may = |route: &&Route| raw.meta.account.is_none_or(|account| account.tenant_id == route.tenant_id);
        let of = |key: &RouteKey| routes.get(&(raw.meta.provider, key.clone()));
        // What could not be read may have been anybody's: it goes to everybody whom the webhook names, once all of it can be read.
        let unread = ids(webhook).any(str::is_empty);
        if unread && !parsed.bad.is_empty() && ids(webhook).all(str::is_empty) {
            return Found::Unusable;
        }
        let missed = |part: &&Part| unread || ids(webhook).any(|id| id == part.route.external_id());
        let found: Vec<Route> = parsed
            .parts
            .iter()
            .filter(missed)
            .filter_map(|part| keys_of(part).find_map(of).filter(may).cloned())
            .collect();
        if found.is_empty() { Found::Nobody } else { Found::Somebody(as_new(raw), found) }
    });
    Ok(found.collect())
}

fn keys_of(part: &Part) -> impl Iterator<Item = &RouteKey> {
    [Some(&part.route), part.fallback.as_ref()].into_iter().flatten()
}

/// As if it were another, received when it was: of some providers that is the time of what it tells, and by the time in its id it is
/// found in the log.
fn as_new(webhook: RawWebhook) -> RawWebhook {
    let stored = webhook.body.len() > MAX_INLINE_BYTES;
    let id = WebhookId::received(webhook.meta.received_at);
    let meta = Meta { id, stored, replay: false, ..webhook.meta };
    RawWebhook { meta, body: webhook.body }
}

/// Once there is room. How many were still there.
async fn send_on(databases: &Databases, webhooks: &[(WebhookId, RawWebhook)]) -> db::Result<usize> {
    if webhooks.is_empty() {
        return Ok(0);
    }
    loop {
        let mut tx = databases.control().await?;
        if unroutable::spilled(&mut tx, ON_THEIR_WAY).await? < ON_THEIR_WAY {
            let sent = unroutable::send_on(&mut tx, webhooks).await?;
            tx.commit().await?;
            return Ok(sent);
        }
        tx.commit().await?;
        tokio::time::sleep(PAUSE).await;
    }
}

/// In the audit of each tenant that was given something: to which account, how many.
async fn record(
    databases: &Databases,
    whose: &BTreeMap<(Placement, TenantId, ChannelAccountId), usize>,
) -> anyhow::Result<()> {
    for ((placement, tenant, account), webhooks) in whose {
        let mut tx = databases.tenant(placement, *tenant).await?;
        let entry = Entry {
            actor: Actor::Operator,
            action: "webhooks.sent_on",
            target_kind: "channel_account",
            target_id: account.0,
            details: json!({"webhooks": webhooks}),
        };
        db::audit::record(&mut tx, &entry).await?;
        tx.commit().await?;
    }
    Ok(())
}
