//! `POST /api/{tenant}/messages/{id}/files/{file}/fetch`: a file that was given up is fetched once more.

use crate::{
    auth::{Caller, MessagesSend},
    error::{Kind, Problem, Result},
    extract::Id,
    routes::media::FileView,
    state::App,
};
use axum::{
    Json as View,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use serde::Deserialize;
use shared::{
    db::media::{
        again::{self, Which},
        reading,
    },
    domain::{
        ids::{MediaId, MessageId},
        media::MediaState,
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(fetch_file))
}

#[derive(Deserialize)]
struct File {
    file: String,
}

/// Has a file fetched once more that failed, or was no longer to be had.
#[utoipa::path(
    post, path = "/messages/{id}/files/{file}/fetch", tag = "messages",
    description = "Needs `messages:send`. Only of a file that is `failed` or `expired` and may still be kept; otherwise it is 409 `wrong_state`. One that is fetched at this moment stays so: doing it again changes nothing.",
    params(("tenant" = String, Path), ("id" = Uuid, Path, description = "The message"), ("file" = Uuid, Path, description = "The file")),
    responses(
        (status = ACCEPTED, body = FileView, description = "It is fetched"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn fetch_file(
    State(app): State<App>,
    caller: Caller<MessagesSend>,
    Id(id): Id<MessageId>,
    Path(File { file }): Path<File>,
) -> Result<impl IntoResponse> {
    let nothing = || Problem::not_found("file");
    let file: MediaId = file.parse().map_err(|_| nothing())?;
    let mut tx = caller.begin(&app).await?;
    let which = Which { file: Some((id, file)), ..Which::default() };
    let asked = again::fetch_again(&mut tx, &which, None, caller.actor()).await?;
    let shown = reading::find(&mut tx, file).await?.filter(|shown| shown.message_id == id).ok_or_else(nothing)?;
    if asked.is_empty() && shown.state != MediaState::Waiting.as_str() {
        let detail = format!("The file is {} and cannot be fetched once more. Nothing is changed.", shown.state);
        return Err(Problem::new(Kind::WrongState).detail(detail).into());
    }
    let due = tx.commit().await?;
    app.relay.publish(caller.placement.clone(), due).await;
    Ok((StatusCode::ACCEPTED, View(FileView::of(shown, caller.tenant_id, &app.links, app.clock.now()))))
}
