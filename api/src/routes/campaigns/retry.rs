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
/// So many codes that people have failed with are named to who asks for another.
const CODES_NAMED: usize = 10;

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
    description = "Needs `campaigns:write`. The answer says how many they are (`retrying_count`); if nobody has failed, or with none of the codes, it is 409 `nobody_failed` and nothing is changed. Doing it again while it is under way (`retrying_since`) changes nothing; later it tries again who has failed since. With an `Idempotency-Key` a request that is repeated is never a second one.",
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
        Some(Asked::Begun { .. } | Asked::UnderWay { .. }) => {}
        Some(Asked::NobodyFailed) => {
            let detail = "Nobody of the campaign has failed. Nothing is changed.";
            return Err(Problem::new(Kind::NobodyFailed).detail(detail).into());
        }
        Some(Asked::NobodyFailedSo { failed }) => {
            return Err(Problem::new(Kind::NobodyFailed).detail(nobody_failed_so(&failed)).into());
        }
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

/// That nobody has failed with the codes asked for, and with which who did.
pub(crate) fn nobody_failed_so(failed: &[(String, i64)]) -> String {
    let named: Vec<String> =
        failed.iter().take(CODES_NAMED).map(|(code, people)| format!("{people} with {code}")).collect();
    let instead = match named.as_slice() {
        [] => "nor with any other".to_owned(),
        named if failed.len() > named.len() => format!("but {} and some with others", named.join(", ")),
        named => format!("but {}", named.join(", ")),
    };
    format!("Nobody of the campaign has failed with one of these codes, {instead}. Nothing is changed.")
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
    fn a_code_that_nobody_failed_with_is_answered_with_those_there_are() {
        let begin = "Nobody of the campaign has failed with one of these codes, ";
        let failed = [("131026".to_owned(), 12), ("470".to_owned(), 1)];
        assert_eq!(nobody_failed_so(&failed), format!("{begin}but 12 with 131026, 1 with 470. Nothing is changed."));
        assert_eq!(nobody_failed_so(&[]), format!("{begin}nor with any other. Nothing is changed."));
        let many = vec![("1".to_owned(), 1); 11];
        assert!(nobody_failed_so(&many).ends_with("1 with 1 and some with others. Nothing is changed."));
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
