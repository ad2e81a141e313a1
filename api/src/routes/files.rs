//! `/api/{tenant}/files`: files to be sent. One is uploaded once and can be sent as often as one likes, from any account.

use crate::{
    auth::{Caller, MessagesRead, MessagesSend},
    error::{Error, Kind, Problem, Result},
    extract::{Id, Params},
    state::App,
};
use axum::{
    Json as View,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use serde::Serialize;
use sha2::{Digest, Sha256};
use shared::{
    db::files::{self, File, NewFile},
    domain::{
        ids::{FileId, MediaId, TenantId},
        media::{HEAD_BYTES, Judgement, Linked, judge, object_key},
    },
    links::Links,
};
use std::time::Duration;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// No provider takes a larger file (WhatsApp: documents; providers/whatsapp section 9).
const MAX_BYTES: u64 = 100 * 1024 * 1024;
/// No piece of an upload lets wait longer for it, and no upload takes longer in all.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// With the time to store it.
pub(crate) const ANSWERED_WITHIN: Duration = Duration::from_secs(17 * 60);
/// Whoever finds the storage away may try again after this.
const TRY_AGAIN: Duration = Duration::from_secs(2);
const MAX_NAME_CHARACTERS: usize = 255;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(upload)).routes(routes!(show))
}

/// An uploaded file.
#[derive(Serialize, ToSchema)]
#[schema(as = UploadedFile)]
pub struct UploadedView {
    /// What messages name it by.
    id: Uuid,
    /// Its type, as its bytes say.
    #[serde(rename = "type")]
    content_type: String,
    filename: Option<String>,
    size_bytes: i64,
    /// SHA-256, in hexadecimal.
    sha256: String,
    created_at: DateTime<Utc>,
    /// Where it can be had, until `link_expires_at`: a path on this host. Needs no token.
    url: String,
    link_expires_at: DateTime<Utc>,
}

impl UploadedView {
    fn of(file: File, tenant_id: TenantId, links: &Links, now: DateTime<Utc>) -> Self {
        let (url, link_expires_at) = links.make(tenant_id, MediaId(file.id.0), Linked::Upload, now);
        Self {
            id: file.id.0,
            content_type: file.content_type,
            filename: file.filename,
            size_bytes: file.size_bytes,
            sha256: hex::encode(file.sha256),
            created_at: file.created_at,
            url,
            link_expires_at,
        }
    }
}

/// Uploads a file: the body is its bytes.
#[utoipa::path(
    post, path = "/files", tag = "files",
    description = "Needs `messages:send`. The body is the file's bytes, no form (curl: `--data-binary @FILE`). At most 100 MiB; what a channel takes of it is said when it is sent.",
    params(
        ("tenant" = String, Path),
        ("filename" = Option<String>, Query, description = "The name it is shown with"),
        ("Content-Type" = Option<String>, Header, description = "What it is; its first bytes decide"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = CREATED, body = UploadedView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn upload(
    State(app): State<App>,
    caller: Caller<MessagesSend>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, View<UploadedView>)> {
    let filename = params.take::<String>("filename")?;
    params.finish()?;
    if filename.as_ref().is_some_and(|name| name.chars().count() > MAX_NAME_CHARACTERS || name.contains('\0')) {
        let message = format!("must have at most {MAX_NAME_CHARACTERS} characters, and no NUL");
        return Err(Problem::new(Kind::BadParameter).field("filename", message).into());
    }
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let of_type =
        |kind: &str| declared.is_some_and(|declared| declared.trim_start().to_ascii_lowercase().starts_with(kind));
    if of_type("multipart/") {
        let message = "must be the bytes of the file and nothing else, not a form (curl: --data-binary @FILE)";
        return Err(Problem::new(Kind::Invalid).field("body", message).into());
    }
    // What curl says of any bytes.
    let declared = declared.filter(|_| !of_type("application/x-www-form-urlencoded"));
    let received = tokio::time::timeout(UPLOAD_TIMEOUT, receive(body)).await;
    let Received { file, head, sha256, size_bytes } =
        received.map_err(|_| Problem::new(Kind::BodyBroken).detail("It took too long."))??;
    if size_bytes == 0 {
        return Err(Problem::new(Kind::Invalid).field("body", "must not be empty").into());
    }
    let content_type = match judge(declared, &head) {
        Judgement::Store(content_type) => content_type,
        Judgement::Refuse { declared, found } => {
            let message = format!("says that it is {declared} and is {found}, which could do harm");
            return Err(Problem::new(Kind::Invalid).field("body", message).into());
        }
    };
    let storage_key = object_key(caller.tenant_id, &sha256);
    let mut tx = caller.begin(&app).await?;
    let busy = files::announce(&mut tx, &storage_key).await?;
    tx.commit().await?;
    if let Some(left) = busy {
        let left = left.to_std().unwrap_or_default() + Duration::from_secs(1);
        return Err(Problem::new(Kind::Unavailable).detail("The same file is being deleted.").retry_after(left).into());
    }
    app.storage.put(&storage_key, file, size_bytes).await.map_err(|error| away(&error))?;
    let new = NewFile {
        id: FileId::new(),
        storage_key: &storage_key,
        sha256,
        size_bytes: i64::try_from(size_bytes).unwrap_or(i64::MAX),
        content_type: &content_type,
        filename: filename.as_deref(),
        created_by: caller.token_id,
    };
    let mut tx = caller.begin(&app).await?;
    if !files::insert(&mut tx, &new).await? {
        return Err(Problem::new(Kind::Unavailable).retry_after(TRY_AGAIN).into());
    }
    let stored = files::find(&mut tx, &[new.id]).await?.pop().ok_or_else(|| Problem::new(Kind::Internal))?;
    tx.commit().await?;
    let view = UploadedView::of(stored, caller.tenant_id, &app.links, app.clock.now());
    Ok((StatusCode::CREATED, View(view)))
}

/// Shows an uploaded file.
#[utoipa::path(
    get, path = "/files/{id}", tag = "files", description = "Needs `messages:read`.",
    params(("tenant" = String, Path), ("id" = Uuid, Path)),
    responses(
        (status = OK, body = UploadedView),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn show(State(app): State<App>, caller: Caller<MessagesRead>, Id(id): Id<FileId>) -> Result<View<UploadedView>> {
    let mut tx = caller.begin(&app).await?;
    let file = files::find(&mut tx, &[id]).await?.pop().ok_or_else(|| Problem::not_found("file"))?;
    tx.commit().await?;
    Ok(View(UploadedView::of(file, caller.tenant_id, &app.links, app.clock.now())))
}

struct Received {
    /// What has come, to be read from its beginning.
    file: tokio::fs::File,
    head: Vec<u8>,
    sha256: [u8; 32],
    size_bytes: u64,
}

/// Takes a body into a file without a name, piece by piece.
async fn receive(body: Body) -> Result<Received, Error> {
    let broken = || Problem::new(Kind::BodyBroken);
    let ours = |error: std::io::Error| {
        tracing::error!(%error, "an upload cannot be kept");
        Problem::new(Kind::Unavailable).retry_after(TRY_AGAIN)
    };
    let mut file = tokio::fs::File::from_std(tempfile::tempfile().map_err(ours)?);
    let (mut digest, mut head, mut size_bytes) = (Sha256::new(), Vec::new(), 0_u64);
    let mut pieces = body.into_data_stream();
    while let Some(piece) = tokio::time::timeout(PIECE_TIMEOUT, pieces.next()).await.map_err(|_| broken())? {
        let piece = piece.map_err(|_| broken())?;
        size_bytes += piece.len() as u64;
        if size_bytes > MAX_BYTES {
            return Err(Problem::new(Kind::TooLarge).detail(format!("At most {MAX_BYTES} bytes.")).into());
        }
        digest.update(&piece);
        let missing = HEAD_BYTES.saturating_sub(head.len()).min(piece.len());
        head.extend_from_slice(&piece[..missing]);
        file.write_all(&piece).await.map_err(ours)?;
    }
    file.flush().await.map_err(ours)?;
    file.rewind().await.map_err(ours)?;
    Ok(Received { file, head, sha256: digest.finalize().into(), size_bytes })
}

fn away(error: &shared::storage::Error) -> Problem {
    tracing::error!(%error, "files cannot be stored");
    Problem::new(Kind::Unavailable).retry_after(TRY_AGAIN)
}
