//! `/api/{tenant}/contacts/{id}/suppressions`: what a person does not want to be written to about, and on which channel.

use crate::{
    auth::{Caller, ContactsRead, ContactsWrite},
    error::{Kind, Problem, Result},
    extract::{Id, Json, Params},
    state::App,
};
use axum::{Json as View, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::{
    db::{self, TenantTx, suppressions::Suppression},
    domain::{
        channel::Channel,
        consent::{Consent, Purpose},
        ids::ContactId,
    },
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// The routes.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, put))
}

/// What a person wants from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSuppression {
    #[schema(value_type = Channel)]
    channel: String,
    #[schema(value_type = Purpose)]
    purpose: String,
    #[schema(value_type = Consent)]
    state: String,
}

/// What a person wants.
#[derive(Serialize, ToSchema)]
#[schema(as = Suppression)]
pub(in crate::routes) struct SuppressionView {
    #[schema(value_type = Channel)]
    channel: String,
    #[schema(value_type = Purpose)]
    purpose: String,
    #[schema(value_type = Consent)]
    state: String,
    /// Since when, by the provider's time.
    since: DateTime<Utc>,
    /// keyword, by hand, erased, or the provider's word for how it was said.
    source: String,
    /// By hand: the token of the API that was used, if it was one.
    token_id: Option<Uuid>,
}

/// All that is known of what a person wants.
#[derive(Serialize, ToSchema)]
pub(super) struct Suppressions {
    data: Vec<SuppressionView>,
}

impl From<Vec<Suppression>> for Suppressions {
    fn from(rows: Vec<Suppression>) -> Self {
        Self { data: rows.into_iter().map(SuppressionView::from).collect() }
    }
}

impl From<Suppression> for SuppressionView {
    fn from(row: Suppression) -> Self {
        let Suppression { channel, purpose, state, since, source, token_id } = row;
        Self { channel, purpose, state, since, source, token_id }
    }
}

/// Lists what a person does not want, and what they want again.
#[utoipa::path(
    get, path = "/contacts/{id}/suppressions", tag = "contacts", description = "Needs `contacts:read`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = Suppressions),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list(
    State(app): State<App>,
    caller: Caller<ContactsRead>,
    Id(id): Id<ContactId>,
    params: Params,
) -> Result<View<Suppressions>> {
    params.finish()?;
    let mut tx = caller.begin(&app).await?;
    let id = found(&mut tx, id).await?;
    let rows = db::suppressions::list(&mut tx, id).await?;
    tx.commit().await?;
    Ok(View(rows.into()))
}

/// Sets by hand what a person wants. From now on no campaign's message is granted to who has opted out; what the person says later
/// counts more: who writes a word like START is opted in again for everything on the channel, who taps one for what STOP ends there:
/// everything on SMS, marketing elsewhere.
#[utoipa::path(
    put, path = "/contacts/{id}/suppressions", tag = "contacts", description = "Needs `contacts:write`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    request_body = NewSuppression,
    responses(
        (status = OK, body = Suppressions),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn put(
    State(app): State<App>,
    caller: Caller<ContactsWrite>,
    Id(id): Id<ContactId>,
    Json { value: new, .. }: Json<NewSuppression>,
) -> Result<View<Suppressions>> {
    let (channel, purpose, consent) = checked(&new)?;
    let mut tx = caller.begin(&app).await?;
    let id = found(&mut tx, id).await?;
    db::suppressions::set_by_hand(&mut tx, id, channel, purpose, consent, caller.actor()).await?;
    let rows = db::suppressions::list(&mut tx, id).await?;
    tx.commit().await?;
    Ok(View(rows.into()))
}

/// The contact, or who it was merged into.
async fn found(tx: &mut TenantTx, id: ContactId) -> Result<ContactId> {
    Ok(db::contacts::find(tx, id).await?.ok_or_else(|| Problem::not_found("contact"))?.id)
}

fn checked(new: &NewSuppression) -> Result<(Channel, Purpose, Consent), Problem> {
    let one_of = |names: Vec<&str>| format!("must be one of {}", names.join(", "));
    let (channel, purpose, consent) =
        (Channel::from_name(&new.channel), Purpose::from_name(&new.purpose), Consent::from_name(&new.state));
    let mut problem = Problem::new(Kind::Invalid);
    if channel.is_none() {
        problem = problem.field("channel", one_of(Channel::ALL.iter().map(|channel| channel.as_str()).collect()));
    }
    if purpose.is_none() {
        problem = problem.field("purpose", one_of(Purpose::ALL.iter().map(|purpose| purpose.as_str()).collect()));
    }
    if consent.is_none() {
        problem = problem.field("state", one_of(Consent::ALL.iter().map(|consent| consent.as_str()).collect()));
    }
    match (channel, purpose, consent) {
        (Some(channel), Some(purpose), Some(consent)) => Ok((channel, purpose, consent)),
        _ => Err(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_that_is_none_is_named() {
        let new = |channel: &str, purpose: &str, state: &str| NewSuppression {
            channel: channel.into(),
            purpose: purpose.into(),
            state: state.into(),
        };
        assert!(checked(&new("sms", "all", "opted_in")).is_ok());
        let problem = checked(&new("pigeon", "some", "out")).unwrap_err();
        let fields: Vec<&str> = problem.errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["channel", "purpose", "state"]);
    }
}
