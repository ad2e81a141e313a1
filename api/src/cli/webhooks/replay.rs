//! `mijra webhooks replay`: webhooks of the log played again. A scheduler does it; this writes down what is wanted and watches.

use super::{NONE_MATCH, select::Select};
use crate::{
    cli::{
        output::{Output, note},
        settings::{self, Database},
    },
    routes::webhooks::ReplayView,
};
use anyhow::Context;
use chrono::TimeDelta;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use shared::{
    clock::Clock,
    db::{
        Databases,
        audit::Actor,
        tenants::Tenant,
        webhook_log::{
            self, Filter,
            replays::{self, Asked, MAX_NAMED, State, Wanted},
        },
    },
    domain::ids::{ReplayId, WebhookId},
};
use std::{process::ExitCode, time::Duration};

/// Counted in one statement.
const COUNT: u32 = 50_000;
const TICK: Duration = Duration::from_millis(500);
/// If nobody has gone on with it for so long, there may be nobody who could.
const ALONE: TimeDelta = TimeDelta::seconds(15);

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Replay {
    /// Which, as `mijra webhooks list` shows them; or, without any, those of a time.
    #[arg(conflicts_with_all = ["since", "until", "provider", "outcome", "account"])]
    ids: Vec<WebhookId>,
    /// Whose.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    select: Select,
    /// Only count them.
    #[arg(long, conflicts_with = "detach")]
    dry_run: bool,
    /// Do not watch it; `mijra webhooks replays list` shows how far it is.
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    database: Database,
}

pub(super) async fn run(args: Replay, out: &Output) -> anyhow::Result<ExitCode> {
    let now = Clock::system().now();
    let (since, until) = args.select.stretch(now);
    // What comes from now on is not for it.
    let until = until.map_or(now, |until| until.min(now));
    if args.ids.is_empty() {
        let since = since
            .context("say which webhooks, by their ids, or from when on: --since 2h, --since 2026-11-21T10:00:00Z")?;
        anyhow::ensure!(since < until, "--since must be before --until, and in the past");
    }
    anyhow::ensure!(args.ids.len() <= MAX_NAMED, "at most {MAX_NAMED} webhooks can be named at a time");
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let wanted = if args.ids.is_empty() {
        let filter = args.select.filter(&databases, &tenant, now).await?;
        Wanted::Stretch(Filter { until: Some(until), ..filter })
    } else {
        find(&databases, &tenant, &args.ids).await?
    };
    if args.dry_run {
        return dry_run(&databases, &tenant, &wanted, out).await;
    }
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let asked = replays::ask(&mut tx, &wanted, Actor::Operator).await?;
    tx.commit().await?;
    let id = match asked {
        Asked::Begun(id) => id,
        Asked::UnderWay(id) => anyhow::bail!(
            "replay {id} of the tenant is under way: wait for it (mijra webhooks replays watch {id} --tenant {slug}), or end it \
            (mijra webhooks replays stop {id} --tenant {slug})",
            slug = tenant.slug
        ),
    };
    if args.detach {
        let state = if args.ids.is_empty() { State::Counting } else { State::Running };
        out.say(&json!({"id": id, "state": state.as_str()}), &format!("replay {id} begins"))?;
        return Ok(ExitCode::SUCCESS);
    }
    watch(&databases, &tenant, id, out).await
}

/// Where those with these ids are, if all are there.
async fn find(databases: &Databases, tenant: &Tenant, ids: &[WebhookId]) -> anyhow::Result<Wanted> {
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let places = webhook_log::places(&mut tx, ids).await?;
    tx.commit().await?;
    let is_missing = |id: &&WebhookId| places.iter().all(|(_, there)| there != *id);
    let missing: Vec<String> = ids.iter().filter(is_missing).map(ToString::to_string).collect();
    anyhow::ensure!(missing.is_empty(), "tenant {} has no webhook {} in its log", tenant.slug, missing.join(", "));
    Ok(Wanted::Named(places))
}

async fn dry_run(databases: &Databases, tenant: &Tenant, wanted: &Wanted, out: &Output) -> anyhow::Result<ExitCode> {
    let webhooks = match wanted {
        Wanted::Stretch(filter) => count(databases, tenant, filter).await?,
        Wanted::Named(places) => i64::try_from(places.len())?,
    };
    if webhooks == 0 {
        note(NONE_MATCH);
    }
    out.say(&json!({"dry_run": true, "selected": webhooks}), &format!("{webhooks} webhooks would be played again"))?;
    Ok(ExitCode::SUCCESS)
}

async fn count(databases: &Databases, tenant: &Tenant, filter: &Filter) -> anyhow::Result<i64> {
    let (mut webhooks, mut behind) = (0, None);
    loop {
        let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
        let counted = webhook_log::count(&mut tx, filter, behind, COUNT).await?;
        tx.commit().await?;
        webhooks += counted.webhooks;
        behind = counted.next;
        if behind.is_none() {
            return Ok(webhooks);
        }
    }
}

/// Shows how far a replay is until it has ended. It goes on whether somebody watches or not.
pub(super) async fn watch(
    databases: &Databases,
    tenant: &Tenant,
    id: ReplayId,
    out: &Output,
) -> anyhow::Result<ExitCode> {
    let clock = Clock::system();
    let template = "[{elapsed_precise}] {bar:24} {pos}/{len}: {wide_msg}";
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(template)?);
    bar.enable_steady_tick(TICK);
    let replay = loop {
        let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
        let replay = replays::find(&mut tx, id).await?;
        tx.commit().await?;
        let replay = replay.with_context(|| format!("tenant {} has no replay {id}", tenant.slug))?;
        if !replay.state.is_under_way() {
            break replay;
        }
        bar.set_length(u64::try_from(replay.selected).unwrap_or_default());
        bar.set_position(u64::try_from(replay.published + replay.unreadable).unwrap_or_default());
        bar.set_message(message(&replay, &clock));
        tokio::time::sleep(TICK).await;
    };
    bar.finish_and_clear();
    let text = ended(&replay);
    let completed = replay.state == State::Completed;
    if completed && replay.selected == 0 {
        note(NONE_MATCH);
    }
    out.say(&ReplayView::of(replay, clock.now()), &text)?;
    Ok(if completed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn message(replay: &replays::Replay, clock: &Clock) -> String {
    let now = clock.now();
    if now - replay.worked_at > ALONE {
        return "it waits: for a scheduler, or for the queue of what comes live".to_owned();
    }
    match (replay.state, replay.eta_seconds(now)) {
        (State::Counting, _) => "counting".to_owned(),
        (_, Some(left)) => format!("{left} s left"),
        (_, None) => "begins".to_owned(),
    }
}

/// What became of it, and how far it came.
pub(super) fn ended(replay: &replays::Replay) -> String {
    let replays::Replay { id, state, selected, published, unreadable, behind, .. } = replay;
    let mut text = format!("replay {id} is {}: {published} of {selected} webhooks published", state.as_str());
    if *unreadable > 0 {
        text.push_str(&format!(", of {unreadable} nothing is kept that could be read"));
    }
    if let (Some((at, _)), State::Stopped) = (behind, state) {
        text.push_str(&format!("; the last was received at {}", at.to_rfc3339()));
    }
    text
}
