//! `mijra webhooks quarantine`: webhooks whose signature did not fit. Once the secret or the public address is right, those that are
//! genuine can be taken after all; what was forged stays refused.

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
    webhooks::{
        endpoints::Endpoint,
        platforms::{PlatformArgs, Platforms},
    },
};
use anyhow::Context;
use chrono::{DateTime, Utc};
use indicatif::ProgressBar;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::json;
use shared::{
    clock::Clock,
    config::{PublicUrlArgs, SecretArgs},
    db::{
        self, Databases,
        receiving::{Suspect, SuspectFilter},
    },
    domain::{channel::Provider, ids::WebhookId},
    jobs::inbound::{Meta, RawWebhook},
    providers::{self, SignedRequest},
    seal::Keyring,
};
use std::{collections::BTreeMap, process::ExitCode};

#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// List them, the newest first
    List(List),
    /// Show one with its body
    Show(Show),
    /// Verify them again with the secrets as they are now, and take those that are genuine as if they had just come
    Replay(Box<Replay>),
}

/// Which of them.
#[derive(clap::Args, Debug, Default)]
struct Select {
    /// Received at this time or later: RFC 3339, or how long ago (2h, 3d).
    #[arg(long)]
    since: Option<When>,
    /// Received before this time.
    #[arg(long)]
    until: Option<When>,
    /// Only of this provider.
    #[arg(long, value_parser = providers())]
    provider: Option<Provider>,
    /// Only those that came to this address: the last part of an account's own, as `channel-account show` shows it, or `platform`.
    #[arg(long)]
    endpoint: Option<String>,
}

impl Select {
    fn filter(&self, waiting: bool) -> SuspectFilter {
        let now = Clock::system().now();
        let endpoint = self.endpoint.as_deref().map(|key| if key == PLATFORM { String::new() } else { key.to_owned() });
        SuspectFilter {
            since: self.since.map(|when| when.before(now)),
            until: self.until.map(|when| when.before(now)),
            provider: self.provider,
            endpoint,
            waiting,
        }
    }
}

/// How the platform's address is called.
const PLATFORM: &str = "platform";
/// So many are verified again at most.
const REPLAY_AT_ONCE: i64 = 100_000;
/// Of more it is only said how many came to what.
const SAID_ONE_BY_ONE: usize = 50;

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct List {
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=20_000))]
    limit: i64,
    /// Only those that have not been taken yet.
    #[arg(long)]
    waiting: bool,
    #[command(flatten)]
    select: Select,
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
    /// Which; or, without any, --all or which of them.
    #[arg(required_unless_present_any = ["all", "since", "until", "provider", "endpoint"], conflicts_with_all = ["all", "since", "until", "provider", "endpoint"])]
    ids: Vec<WebhookId>,
    /// All that have not been taken yet.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    select: Select,
    /// Only say what would become of them.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    platforms: PlatformArgs,
    #[command(flatten)]
    public_url: PublicUrlArgs,
    #[command(flatten)]
    secrets: SecretArgs,
    #[command(flatten)]
    database: Database,
}

#[derive(Serialize)]
struct Row {
    id: WebhookId,
    received_at: DateTime<Utc>,
    provider: String,
    endpoint: String,
    source: String,
    reason: String,
    method: String,
    target: String,
    content_type: Option<String>,
    signature: Option<String>,
    body_bytes: i64,
    replayed_at: Option<DateTime<Utc>>,
    /// The first bytes, as text; for people who look for the mistake.
    body: String,
}

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It is genuine, and on its way.
    Replayed,
    /// It was taken before.
    ReplayedBefore,
    /// Its signature still does not fit.
    StillWrong,
    /// It was larger than what is kept: nobody can say whether it is genuine.
    Cut,
    /// The address it came to is nobody's any more.
    NobodysAddress,
    /// The secrets it would be verified with cannot be opened.
    Unusable,
    /// There is none with this id.
    NotThere,
}

impl Outcome {
    fn sentence(self, dry_run: bool) -> &'static str {
        match self {
            Outcome::Replayed if dry_run => "genuine: it would be taken",
            Outcome::Replayed => "genuine: it is taken",
            Outcome::ReplayedBefore => "taken before",
            Outcome::StillWrong => "its signature fits none of the secrets as they are now",
            Outcome::Cut => "larger than what is kept of it (64 KiB), so that it cannot be verified",
            Outcome::NobodysAddress => "the address it came to is nobody's any more",
            Outcome::Unusable => {
                "the secrets of its address cannot be opened here (MIJRA_SECRET_KEYS), or are not what they should be"
            }
            Outcome::NotThere => "not in quarantine",
        }
    }
}

impl From<Suspect> for Row {
    fn from(suspect: Suspect) -> Self {
        Self {
            id: suspect.id,
            received_at: suspect.received_at,
            provider: suspect.provider,
            endpoint: suspect.endpoint,
            source: suspect.source,
            reason: suspect.reason,
            method: suspect.method,
            target: suspect.target,
            content_type: suspect.content_type,
            signature: suspect.signature,
            body_bytes: suspect.body_bytes,
            replayed_at: suspect.replayed_at,
            body: String::from_utf8_lossy(&suspect.body).into_owned(),
        }
    }
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(args) => list(args, out).await,
        Command::Show(args) => show(args, out).await,
        Command::Replay(args) => replay(*args, out).await,
    }
}

async fn list(args: List, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let mut tx = databases.control().await?;
    let suspects = db::receiving::list_quarantine(&mut tx, &args.select.filter(args.waiting), args.limit).await?;
    tx.commit().await?;
    let rows: Vec<Row> = suspects.into_iter().map(Row::from).collect();
    let headers = ["received", "id", "provider", "endpoint", "source", "bytes", "reason", "replayed", "begins with"];
    out.list(&rows, &headers, |row| {
        let time = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S").to_string();
        let begins: String = row.body.chars().take(40).map(|c| if c.is_control() { ' ' } else { c }).collect();
        vec![
            time(row.received_at),
            row.id.to_string(),
            row.provider.clone(),
            address(&row.endpoint),
            harmless(&row.source),
            row.body_bytes.to_string(),
            row.reason.clone(),
            or_dash(row.replayed_at.map(time)),
            harmless(&begins),
        ]
    })?;
    if rows.is_empty() {
        note(NONE_MATCH);
    }
    Ok(ExitCode::SUCCESS)
}

fn address(endpoint: &str) -> String {
    if endpoint.is_empty() { PLATFORM.to_owned() } else { harmless(endpoint) }
}

async fn show(args: Show, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let mut tx = databases.control().await?;
    let suspect = db::receiving::lock_suspect(&mut tx, args.id).await?;
    tx.commit().await?;
    let suspect = suspect.with_context(|| format!("{} is not in quarantine", args.id))?;
    let body = suspect.body.clone();
    let row = Row::from(suspect);
    let kept = if is_cut(row.body_bytes, body.len()) { ", of which the first 64 KiB are kept" } else { "" };
    let text = format!(
        "received   {}\nprovider   {}\naddress    {}\nfrom       {}\nrefused    {}\nrequest    {} {}\ntype       {}\nsignature  {}\n\
        bytes      {}{kept}\nreplayed   {}\n\n{}",
        row.received_at.to_rfc3339(),
        row.provider,
        address(&row.endpoint),
        harmless(&row.source),
        row.reason,
        harmless(&row.method),
        harmless(&row.target),
        or_dash(row.content_type.as_deref().map(harmless)),
        or_dash(row.signature.as_deref().map(harmless)),
        row.body_bytes,
        or_dash(row.replayed_at.map(|at| at.to_rfc3339())),
        readable(&body),
    );
    let mut json = serde_json::to_value(&row)?;
    let shown = serde_json::to_value(BodyView::of(Some(body)))?;
    for (name, value) in shown.as_object().into_iter().flatten() {
        json[name] = value.clone();
    }
    out.say(&json, &text)?;
    Ok(ExitCode::SUCCESS)
}

async fn replay(args: Replay, out: &Output) -> anyhow::Result<ExitCode> {
    let with = Verifier {
        databases: args.database.open().await?,
        keyring: Keyring::parse(&args.secrets.secret_keys).context("MIJRA_SECRET_KEYS")?,
        platforms: args.platforms.platforms(),
        public_url: args.public_url.public_url,
    };
    let (mut said, mut lines, mut all_taken) = (Vec::new(), Vec::new(), true);
    let ids = if args.ids.is_empty() {
        let mut tx = with.databases.control().await?;
        let ids = db::receiving::find_quarantined(&mut tx, &args.select.filter(true), REPLAY_AT_ONCE).await?;
        tx.commit().await?;
        ids
    } else {
        args.ids
    };
    let many = ids.len() > SAID_ONE_BY_ONE;
    let progress = if many && !out.is_json() { ProgressBar::new(ids.len() as u64) } else { ProgressBar::hidden() };
    let mut outcomes = BTreeMap::<&str, usize>::new();
    for id in ids {
        progress.inc(1);
        let outcome = with.replay(id, args.dry_run).await?;
        all_taken &= outcome == Outcome::Replayed;
        said.push(json!({"id": id, "outcome": outcome}));
        let sentence = outcome.sentence(args.dry_run);
        *outcomes.entry(sentence).or_default() += 1;
        lines.push(format!("{id}  {sentence}"));
    }
    progress.finish_and_clear();
    if many {
        lines = outcomes.into_iter().map(|(sentence, webhooks)| format!("{webhooks}  {sentence}")).collect();
    } else if lines.is_empty() {
        lines.push("none of them waits in quarantine".to_owned());
    }
    out.say(&json!({"dry_run": args.dry_run, "webhooks": said}), &lines.join("\n"))?;
    Ok(if all_taken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What it takes to verify a webhook again.
struct Verifier {
    databases: Databases,
    keyring: Keyring,
    platforms: Platforms,
    public_url: String,
}

impl Verifier {
    /// A genuine one goes the way of those that came while the broker was away: kept and marked in one transaction, and published by
    /// the sweep. Its time is that at which it came: what is triggered by it depends on its age.
    async fn replay(&self, id: WebhookId, dry_run: bool) -> anyhow::Result<Outcome> {
        let mut tx = self.databases.control().await?;
        let Some(suspect) = db::receiving::lock_suspect(&mut tx, id).await? else { return Ok(Outcome::NotThere) };
        if suspect.replayed_at.is_some() {
            return Ok(Outcome::ReplayedBefore);
        }
        if is_cut(suspect.body_bytes, suspect.body.len()) {
            return Ok(Outcome::Cut);
        }
        let provider: Provider = suspect.provider.parse()?;
        let (account, secrets) = if suspect.endpoint.is_empty() {
            (None, self.platforms.of(provider).secrets.clone())
        } else {
            match db::receiving::find_endpoint(&mut tx, &suspect.endpoint).await? {
                Some(row) => {
                    // Those of one account keep nobody else's from being played again.
                    let Ok(endpoint) = Endpoint::open(&row, &self.keyring) else { return Ok(Outcome::Unusable) };
                    (Some(endpoint.account), endpoint.secrets)
                }
                None => return Ok(Outcome::NobodysAddress),
            }
        };
        if !self.is_genuine(provider, &suspect, &secrets) {
            return Ok(Outcome::StillWrong);
        }
        if !dry_run {
            let query = suspect.target.split_once('?').map(|(_, query)| query.to_owned());
            let query = query.filter(|_| providers::signs_url(provider));
            let received_at = suspect.received_at;
            let meta = Meta { id, provider, received_at, account, query, stored: false, replay: false };
            db::receiving::spill(&mut tx, &[RawWebhook { meta, body: suspect.body.into() }]).await?;
            db::receiving::mark_replayed(&mut tx, id, Clock::system().now()).await?;
        }
        tx.commit().await?;
        Ok(Outcome::Replayed)
    }

    fn is_genuine(&self, provider: Provider, suspect: &Suspect, secrets: &[SecretString]) -> bool {
        let is_signed_for = |url: &str| {
            let request = SignedRequest {
                signature: suspect.signature.as_deref(),
                url,
                content_type: suspect.content_type.as_deref(),
                body: &suspect.body,
            };
            providers::verify_any(provider, secrets.iter().map(ExposeSecret::expose_secret), &request).is_ok()
        };
        let target = suspect.target.as_str();
        // A path stands alone unless a proxy of ours had said of what host it is.
        let path = target.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
        let path = path.filter(|_| !target.starts_with('/'));
        is_signed_for(&format!("{}{}", self.public_url, path.unwrap_or(target)))
            || path.is_some() && is_signed_for(target)
    }
}

fn is_cut(bytes: i64, kept: usize) -> bool {
    usize::try_from(bytes).is_ok_and(|bytes| bytes > kept)
}
