//! `POST /api/{tenant}/webhooks/replay` and `/api/{tenant}/webhooks/replays/{id}`: webhooks of the log played again. A request writes
//! down what is wanted; a scheduler does it.

use super::checked_outcome;
use crate::{
    auth::{Caller, WebhooksRead, WebhooksReplay},
    error::{Kind, Problem, Result},
    extract::{Id, Json},
    idempotency::{Answer, IdempotencyKey},
    state::App,
    words::{ReplayState, WebhookOutcome},
};
use axum::{Json as View, extract::State, http::StatusCode, response::IntoResponse};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::{
    db::{
        TenantTx,
        webhook_log::{
            Filter,
            replays::{self, Asked, Replay},
        },
    },
    domain::{
        channel::Provider,
        ids::{ChannelAccountId, ReplayId},
    },
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(replay)).routes(routes!(show))
}

/// Which webhooks are played again: those of a time for which all of this holds.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewReplay {
    /// Received at this time or later.
    since: DateTime<Utc>,
    /// Received before this time; now, unless given.
    until: Option<DateTime<Utc>>,
    provider: Option<Provider>,
    #[schema(value_type = Option<WebhookOutcome>)]
    outcome: Option<String>,
    /// For this account.
    #[schema(value_type = Option<Uuid>)]
    account: Option<ChannelAccountId>,
}

/// A replay.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookReplay)]
pub(crate) struct ReplayView {
    pub(crate) id: Uuid,
    #[schema(value_type = ReplayState)]
    pub(crate) state: &'static str,
    pub(crate) since: Option<DateTime<Utc>>,
    pub(crate) until: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Provider>)]
    provider: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<WebhookOutcome>)]
    outcome: Option<String>,
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
        let Filter { since, until, provider, outcome, channel_account_id } = replay.filter;
        Self {
            id: replay.id.0,
            state: replay.state.as_str(),
            since,
            until,
            provider: provider.map(Provider::as_str),
            outcome,
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
    description = "Needs `webhooks:replay`. What is missing is restored, what is there stays as it is; nothing is sent, nobody is notified, nothing counts as unread, and who was erased stays so. One replay of a tenant at a time: during another it is 409 `wrong_state` with its id. Slow on purpose: what comes live goes first. With an `Idempotency-Key` a request that is repeated is never a second one.",
    params(
        ("tenant" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request again get the same answer and change nothing"),
    ),
    request_body = NewReplay,
    responses(
        (status = ACCEPTED, body = ReplayView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn replay(
    State(app): State<App>,
    caller: Caller<WebhooksReplay>,
    key: IdempotencyKey,
    Json { value: new, digest }: Json<NewReplay>,
) -> Result<impl IntoResponse> {
    let filter = checked(new, app.clock.now())?;
    let mut tx = caller.begin(&app).await?;
    if let Some(answer) = key.answered(&mut tx, &digest).await? {
        return Ok(answer);
    }
    let id = match replays::ask(&mut tx, &filter, caller.actor()).await? {
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

fn checked(new: NewReplay, now: DateTime<Utc>) -> Result<Filter, Problem> {
    let NewReplay { since, until, provider, outcome, account } = new;
    // What comes from now on is not for it.
    let until = until.map_or(now, |until| until.min(now));
    if since >= until {
        return Err(Problem::new(Kind::Invalid).field("since", "must be before until, and in the past"));
    }
    if let Some(Err(why)) = outcome.as_deref().map(checked_outcome) {
        return Err(Problem::new(Kind::Invalid).field("outcome", why));
    }
    Ok(Filter { since: Some(since), until: Some(until), provider, outcome, channel_account_id: account })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use serde_json::{Value, json};

    fn read(json: Value) -> Result<Filter, String> {
        let new = serde_json::from_value(json).expect("known fields");
        let now = DateTime::from_timestamp(1_795_000_000, 0).unwrap();
        checked(new, now).map_err(|problem| problem.errors[0].field.clone())
    }

    #[test]
    fn it_ends_now_at_the_latest() {
        let now = DateTime::from_timestamp(1_795_000_000, 0).unwrap();
        let since = now - TimeDelta::hours(1);
        assert_eq!(read(json!({"since": since})).unwrap().until, Some(now));
        assert_eq!(read(json!({"since": since, "until": now + TimeDelta::hours(1)})).unwrap().until, Some(now));
        for (since, until) in [(now, now), (now + TimeDelta::hours(1), now + TimeDelta::hours(2)), (since, since)] {
            assert_eq!(read(json!({"since": since, "until": until})), Err("since".into()));
        }
        assert_eq!(read(json!({"since": since, "outcome": "Bad"})), Err("outcome".into()));
    }
}
