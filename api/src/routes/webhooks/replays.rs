//! `POST /api/{tenant}/webhooks/replay` and `/api/{tenant}/webhooks/replays/{id}`: webhooks of the log played again. A request writes
//! down what is wanted, or only counts it; a scheduler does it.

use super::check_names;
use crate::{
    auth::{Caller, WebhooksRead, WebhooksReplay},
    error::{Kind, Problem, Result},
    extract::{Id, Json},
    idempotency::{Answer, IdempotencyKey},
    state::App,
    words::{ReplayState, WebhookProvider},
};
use axum::{Json as View, extract::State, http::StatusCode, response::IntoResponse};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::{
    db::{
        TenantTx,
        inbound::log::Outcome,
        webhook_log::{
            self, Filter,
            replays::{self, Asked, MAX_NAMED, Replay, Wanted},
        },
    },
    domain::{
        channel::Provider,
        ids::{ChannelAccountId, ReplayId, WebhookId},
    },
};
use std::collections::HashSet;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(replay)).routes(routes!(show))
}

/// Counted in one statement.
const COUNT: u32 = 50_000;
/// So many statements, and no more, for a dry run: whoever asks waits for it.
const COUNTS: usize = 20;

/// Which webhooks are played again: those named by `ids`, or those of a time for which all else holds.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewReplay {
    /// These alone, 100 at most; nothing else but `dry_run` is given with them.
    #[schema(value_type = Option<Vec<Uuid>>, min_items = 1, max_items = 100)]
    ids: Option<Vec<WebhookId>>,
    /// Received at this time or later; needed unless there are `ids`.
    since: Option<DateTime<Utc>>,
    /// Received before this time; now, unless given.
    until: Option<DateTime<Utc>>,
    #[schema(value_type = Option<WebhookProvider>)]
    provider: Option<Provider>,
    /// Only what became this.
    outcome: Option<Outcome>,
    /// For this account.
    #[schema(value_type = Option<Uuid>)]
    account: Option<ChannelAccountId>,
    /// Only count them.
    #[serde(default)]
    dry_run: bool,
}

/// What would be played again.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookReplayDryRun)]
struct DryRunView {
    /// Always true.
    dry_run: bool,
    /// How many webhooks, as far as they are counted.
    selected: i64,
    /// Whether all of them are: of a log of more than a million webhooks the first million is looked at.
    counted_all: bool,
}

/// A replay.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookReplay)]
pub(crate) struct ReplayView {
    pub(crate) id: Uuid,
    #[schema(value_type = ReplayState)]
    pub(crate) state: &'static str,
    /// The webhooks, where they were named; then there is no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<Uuid>>,
    pub(crate) since: Option<DateTime<Utc>>,
    pub(crate) until: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Provider>)]
    provider: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Outcome>)]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<Uuid>,
    /// How many webhooks there are, as far as they are counted.
    pub(crate) selected: i64,
    /// How many have been published once more. What they lead to follows within moments.
    pub(crate) published: i64,
    /// How many could not be, because nothing is kept of them that could be read.
    pub(crate) unreadable: i64,
    /// When the last of those counted, or then published, had been received.
    at: Option<DateTime<Utc>>,
    /// In how many seconds all will be published, at the speed so far.
    pub(crate) eta_seconds: Option<i64>,
    pub(crate) asked_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
}

impl ReplayView {
    pub(crate) fn of(replay: Replay, now: DateTime<Utc>) -> Self {
        let eta_seconds = replay.eta_seconds(now);
        let (filter, ids) = match replay.wanted {
            Wanted::Stretch(filter) => (filter, None),
            Wanted::Named(places) => (Filter::default(), Some(places.into_iter().map(|(_, id)| id.0).collect())),
        };
        let Filter { since, until, provider, outcome, channel_account_id } = filter;
        Self {
            id: replay.id.0,
            state: replay.state.as_str(),
            ids,
            since,
            until,
            provider: provider.map(Provider::as_str),
            outcome: outcome.map(Outcome::as_str),
            account: channel_account_id.map(|id| id.0),
            selected: replay.selected,
            published: replay.published,
            unreadable: replay.unreadable,
            at: replay.behind.map(|(at, _)| at),
            eta_seconds,
            asked_at: replay.asked_at,
            started_at: replay.started_at,
            ended_at: replay.ended_at,
        }
    }
}

/// Plays webhooks again: what of them was lost is restored, what is there stays as it is. Nothing is sent, nobody is notified,
/// nothing counts as unread.
#[utoipa::path(
    post, path = "/webhooks/replay", tag = "webhooks", operation_id = "replay_webhooks",
    description = "Needs `webhooks:replay`. What is missing is restored, what is there stays as it is; nothing is sent, nobody is notified, nothing counts as unread, and who was erased stays so. One replay of a tenant at a time: during another it is 409 `wrong_state` with its id. Slow on purpose: what comes live goes first. With an `Idempotency-Key` a request that is repeated is never a second one. With `dry_run` nothing is played: it is said how many webhooks would be, the key is ignored, and another replay does not matter.",
    params(
        ("tenant" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request again get the same answer and change nothing"),
    ),
    request_body = NewReplay,
    responses(
        (status = ACCEPTED, body = ReplayView),
        (status = OK, body = DryRunView, description = "With `dry_run`: what would be played again"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn replay(
    State(app): State<App>,
    caller: Caller<WebhooksReplay>,
    key: IdempotencyKey,
    Json { value: new, digest }: Json<NewReplay>,
) -> Result<impl IntoResponse> {
    let dry_run = new.dry_run;
    let asked = checked(new, app.clock.now())?;
    let mut tx = caller.begin(&app).await?;
    if dry_run {
        let wanted = find_wanted(&mut tx, asked).await?;
        let view = count(&mut tx, &wanted).await?;
        tx.commit().await?;
        return Ok(Answer::new(StatusCode::OK, serde_json::to_value(view).expect("plain fields are always JSON")));
    }
    if let Some(answer) = key.answered(&mut tx, &digest).await? {
        return Ok(answer);
    }
    let wanted = find_wanted(&mut tx, asked).await?;
    let id = match replays::ask(&mut tx, &wanted, caller.actor()).await? {
        Asked::Begun(id) => id,
        Asked::UnderWay(id) => {
            let detail = "Other webhooks of this tenant are being played again: ask when that is done.";
            return Err(Problem::new(Kind::WrongState).detail(detail).existing(id).into());
        }
    };
    let view = find(&mut tx, id, app.clock.now()).await?;
    let body = serde_json::to_value(view).expect("plain fields are always JSON");
    let answer = Answer::new(StatusCode::ACCEPTED, body);
    key.keep(&mut tx, &digest, &answer).await?;
    tx.commit().await?;
    Ok(answer)
}

/// Shows how far a replay is.
#[utoipa::path(
    get, path = "/webhooks/replays/{id}", tag = "webhooks", operation_id = "show_webhook_replay",
    description = "Needs `webhooks:read`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = ReplayView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn show(State(app): State<App>, caller: Caller<WebhooksRead>, Id(id): Id<ReplayId>) -> Result<View<ReplayView>> {
    let mut tx = caller.begin(&app).await?;
    let view = find(&mut tx, id, app.clock.now()).await?;
    tx.commit().await?;
    Ok(View(view))
}

async fn find(tx: &mut TenantTx, id: ReplayId, now: DateTime<Utc>) -> Result<ReplayView> {
    let replay = replays::find(tx, id).await?.ok_or_else(|| Problem::not_found("replay"))?;
    Ok(ReplayView::of(replay, now))
}

/// What a request asks for, as far as it can be read without the database.
#[derive(Debug)]
enum Request {
    Stretch(Filter),
    Named(Vec<WebhookId>),
}

fn checked(new: NewReplay, now: DateTime<Utc>) -> Result<Request, Problem> {
    let NewReplay { ids, since, until, provider, outcome, account, dry_run: _ } = new;
    let invalid = |field: &str, why: &str| Problem::new(Kind::Invalid).field(field, why);
    if let Some(ids) = ids {
        let given = [
            ("since", since.is_some()),
            ("until", until.is_some()),
            ("provider", provider.is_some()),
            ("outcome", outcome.is_some()),
            ("account", account.is_some()),
        ];
        if let Some((field, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
            return Err(invalid(field, "cannot be given with ids: they say which webhooks"));
        }
        if ids.is_empty() || ids.len() > MAX_NAMED {
            return Err(invalid("ids", &format!("must be 1 to {MAX_NAMED} webhooks")));
        }
        return Ok(Request::Named(ids));
    }
    let since = since.ok_or_else(|| invalid("since", "is missing: from when on, unless ids say which webhooks"))?;
    // What comes from now on is not for it.
    let until = until.map_or(now, |until| until.min(now));
    if since >= until {
        return Err(invalid("since", "must be before until, and in the past"));
    }
    Ok(Request::Stretch(Filter {
        since: Some(since),
        until: Some(until),
        provider,
        outcome,
        channel_account_id: account,
    }))
}

/// What is asked for, all that it names being there.
async fn find_wanted(tx: &mut TenantTx, request: Request) -> Result<Wanted> {
    match request {
        Request::Stretch(filter) => {
            check_names(tx, &filter, Kind::Invalid).await?;
            Ok(Wanted::Stretch(filter))
        }
        Request::Named(ids) => {
            let places = webhook_log::places(tx, &ids).await?;
            let there: HashSet<WebhookId> = places.iter().map(|(_, id)| *id).collect();
            let problem = ids.iter().enumerate().filter(|(_, id)| !there.contains(id)).fold(
                Problem::new(Kind::Invalid),
                |problem, (at, id)| {
                    problem.field(format!("ids[{at}]"), format!("this tenant has no webhook {id} in its log"))
                },
            );
            if problem.errors.is_empty() { Ok(Wanted::Named(places)) } else { Err(problem.into()) }
        }
    }
}

async fn count(tx: &mut TenantTx, wanted: &Wanted) -> Result<DryRunView> {
    let filter = match wanted {
        Wanted::Named(places) => {
            let selected = i64::try_from(places.len()).unwrap_or(i64::MAX);
            return Ok(DryRunView { dry_run: true, selected, counted_all: true });
        }
        Wanted::Stretch(filter) => filter,
    };
    let (mut selected, mut behind) = (0, None);
    for _ in 0..COUNTS {
        let counted = webhook_log::count(tx, filter, behind, COUNT).await?;
        selected += counted.webhooks;
        behind = counted.next;
        if behind.is_none() {
            break;
        }
    }
    Ok(DryRunView { dry_run: true, selected, counted_all: behind.is_none() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use serde_json::{Value, json};

    fn read(json: Value) -> Result<Request, String> {
        let new = serde_json::from_value(json).expect("known fields");
        let now = DateTime::from_timestamp(1_795_000_000, 0).unwrap();
        checked(new, now).map_err(|problem| problem.errors[0].field.clone())
    }

    #[test]
    fn it_ends_now_at_the_latest() {
        let now = DateTime::from_timestamp(1_795_000_000, 0).unwrap();
        let since = now - TimeDelta::hours(1);
        let until = |json: Value| match read(json).unwrap() {
            Request::Stretch(filter) => filter.until,
            Request::Named(ids) => panic!("{ids:?}"),
        };
        assert_eq!(until(json!({"since": since})), Some(now));
        assert_eq!(until(json!({"since": since, "until": now + TimeDelta::hours(1)})), Some(now));
        for (since, until) in [(now, now), (now + TimeDelta::hours(1), now + TimeDelta::hours(2)), (since, since)] {
            assert_eq!(read(json!({"since": since, "until": until})).unwrap_err(), "since");
        }
    }

    #[test]
    fn webhooks_are_named_or_filtered() {
        let ids = |many: usize| vec![WebhookId::new(); many];
        assert!(matches!(read(json!({"ids": ids(100)})), Ok(Request::Named(ids)) if ids.len() == 100));
        for (wrong, field) in [
            (json!({}), "since"),
            (json!({"dry_run": true}), "since"),
            (json!({"ids": []}), "ids"),
            (json!({"ids": ids(101)}), "ids"),
            (json!({"ids": ids(1), "since": "2026-01-01T00:00:00Z"}), "since"),
            (json!({"ids": ids(1), "until": "2026-01-01T00:00:00Z"}), "until"),
            (json!({"ids": ids(1), "provider": "whatsapp"}), "provider"),
            (json!({"ids": ids(1), "outcome": "stored"}), "outcome"),
            (json!({"ids": ids(1), "account": WebhookId::new()}), "account"),
        ] {
            assert_eq!(read(wrong.clone()).unwrap_err(), field, "{wrong}");
        }
    }
}
