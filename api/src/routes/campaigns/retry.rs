//! `POST /api/{tenant}/campaigns/{id}/retry-failed`: who failed is tried again.

use super::{CampaignView, find};
use crate::{
    auth::{Caller, CampaignsWrite},
    error::{Kind, Problem, Result},
    extract::{Id, Json, OrEmpty},
    idempotency::{Answer, IdempotencyKey},
    state::App,
};
use axum::{extract::State, http::StatusCode, response::IntoResponse};
use serde::Deserialize;
use shared::{
    db::campaigns::retry::{Asked, ask},
    domain::ids::CampaignId,
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// A provider has a few dozen codes in all.
const MAX_CODES: usize = 50;
const MAX_CODE_CHARACTERS: usize = 64;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(retry_failed))
}

/// Who is to be tried again; everybody who failed, unless it says more.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryFailed {
    /// Only who failed with one of these codes, 1 to 50: the provider's (`131026`) or ours (`"window_closed"`).
    codes: Option<Vec<FailureCode>>,
}

/// A code as it is written: most are numbers.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum FailureCode {
    /// The provider's.
    Number(u64),
    /// The same, or one of ours.
    Text(String),
}

/// Tries again who has failed by now: the same message once more to each, at the pace of the account. A completed campaign runs
/// again; of a paused one people wait until it is resumed.
#[utoipa::path(
    post, path = "/campaigns/{id}/retry-failed", tag = "campaigns",
    description = "Needs `campaigns:write`. Doing it again while it is under way (`retrying_since`) changes nothing; later it tries again who has failed since. With an `Idempotency-Key` a request that is repeated is never a second one.",
    params(
        ("tenant" = String, Path),
        ("id" = Uuid, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request again get the same answer and change nothing"),
    ),
    request_body(content = Option<RetryFailed>, description = "May be left out"),
    responses(
        (status = OK, body = CampaignView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn retry_failed(
    State(app): State<App>,
    caller: Caller<CampaignsWrite>,
    Id(id): Id<CampaignId>,
    key: IdempotencyKey,
    OrEmpty(Json { value, digest }): OrEmpty<RetryFailed>,
) -> Result<impl IntoResponse> {
    let codes = value.codes.map(checked_codes).transpose()?;
    let mut tx = caller.begin(&app).await?;
    if let Some(answer) = key.answered(&mut tx, &digest).await? {
        return Ok(answer);
    }
    let refuse = |detail: String| Err(Problem::new(Kind::WrongState).detail(detail).into());
    match ask(&mut tx, id, codes.as_deref(), caller.actor()).await? {
        Some(Asked::Begun | Asked::UnderWay | Asked::NobodyFailed) => {}
        Some(Asked::OthersUnderWay) => {
            return refuse(
                "Others of the campaign's failed people are being tried again: ask when that is done.".into(),
            );
        }
        Some(Asked::NotFrom(state)) => {
            return refuse(format!("The campaign is {state}: who failed cannot be tried again."));
        }
        None => return Err(Problem::not_found("campaign").into()),
    }
    let body = serde_json::to_value(find(&mut tx, id).await?).expect("plain fields are always JSON");
    let answer = Answer::new(StatusCode::OK, body);
    key.keep(&mut tx, &digest, &answer).await?;
    let due = tx.commit().await?;
    app.relay.publish(caller.placement.clone(), due).await;
    Ok(answer)
}

/// As they are kept: as text, in order, none twice.
fn checked_codes(codes: Vec<FailureCode>) -> Result<Vec<String>, Problem> {
    let refuse = |message: String| Err(Problem::new(Kind::Invalid).field("codes", message));
    if codes.is_empty() || codes.len() > MAX_CODES {
        return refuse(format!("must be 1 to {MAX_CODES} codes; leave it out for all"));
    }
    let text = |code| match code {
        FailureCode::Number(number) => number.to_string(),
        FailureCode::Text(text) => text,
    };
    let mut codes: Vec<String> = codes.into_iter().map(text).collect();
    let fits = |code: &String| (1..=MAX_CODE_CHARACTERS).contains(&code.chars().count()) && !code.contains('\0');
    if !codes.iter().all(fits) {
        return refuse(format!("must each have 1 to {MAX_CODE_CHARACTERS} characters"));
    }
    codes.sort_unstable();
    codes.dedup();
    Ok(codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(json: &str) -> Result<Vec<String>, String> {
        let codes = serde_json::from_str(json).expect("numbers and texts");
        checked_codes(codes).map_err(|problem| problem.errors[0].field.clone())
    }

    #[test]
    fn codes_are_numbers_or_words_in_order_and_none_twice() {
        assert_eq!(
            checked(r#"["window_closed", 131026, "131026", 470]"#),
            Ok(vec!["131026".into(), "470".into(), "window_closed".into()])
        );
        for wrong in [
            "[]",
            r#"[""]"#,
            r#"["a\u0000"]"#,
            &format!("[{}1]", "1,".repeat(50)),
            &format!(r#"["{}"]"#, "x".repeat(65)),
        ] {
            assert_eq!(checked(wrong), Err("codes".to_owned()), "{wrong}");
        }
    }
}
