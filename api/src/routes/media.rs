//! `/media/…`: files of messages, to whoever has a link to one. The bytes are a stranger's, so a browser is told to take them for
//! nothing else than they are, and to open only what cannot run anything.

use crate::{
    error::{Error, Kind, Problem},
    extract::Params,
    state::App,
};
use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::{
    db::{
        self, files,
        media::{profiles, reading},
    },
    domain::{
        ids::{ContactId, FileId, MediaId, TenantId},
        media::{Linked, MediaState, is_safe_inline},
    },
    links::{Links, Shut},
    storage::Reading,
};
use std::{ops::Range, time::Duration};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show))
}

/// A file of a message.
#[derive(Serialize, ToSchema)]
#[schema(as = File)]
pub struct FileView {
    id: Uuid,
    #[schema(value_type = MediaState)]
    state: String,
    /// Why it is not stored, or not yet, or what is odd about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// The same, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Its type: as its bytes say if it is stored, else as declared.
    #[serde(rename = "type")]
    content_type: Option<String>,
    filename: Option<String>,
    /// Whether it is a voice note.
    voice: bool,
    size_bytes: Option<i64>,
    /// SHA-256, in hexadecimal.
    sha256: Option<String>,
    /// Of a picture, in pixels.
    width: Option<i32>,
    height: Option<i32>,
    /// Of a recording or film.
    duration_ms: Option<i64>,
    /// Where it can be had, until `link_expires_at`: a path on this host. Needs no token.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Where a small JPEG of a picture can be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    thumbnail_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_expires_at: Option<DateTime<Utc>>,
    /// It may be kept until then only.
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_until: Option<DateTime<Utc>>,
}

impl FileView {
    /// A file with links to it.
    pub fn of(file: reading::Shown, tenant_id: TenantId, links: &Links, now: DateTime<Utc>) -> Self {
        let link = |linked| links.make(tenant_id, file.id, linked, now);
        let whole = file.storage_key.is_some().then(|| link(Linked::File));
        let (url, link_expires_at) = whole.unzip();
        Self {
            id: file.id.0,
            url,
            link_expires_at,
            thumbnail_url: file.thumbnail_key.is_some().then(|| link(Linked::Thumbnail).0),
            state: file.state,
            code: file.code,
            reason: file.reason,
            content_type: file.content_type,
            filename: file.filename,
            voice: file.voice,
            size_bytes: file.size_bytes,
            sha256: file.sha256.map(hex::encode),
            width: file.width,
            height: file.height,
            duration_ms: file.duration_ms,
            keep_until: file.keep_until,
        }
    }
}

/// The type of every thumbnail.
const THUMBNAIL_TYPE: &str = "image/jpeg";
/// Whoever finds the storage away may try again after this.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Gives a file, or a part of it, to who has a link.
#[utoipa::path(
    get, path = "/media/{tenant_id}/{id}/{what}/{expires}/{signature}", tag = "media", security(()),
    description = "Needs no token: the link opens it, as a message's `files` give it. One range is served (206), several are not; \
        answers may be kept by anybody until the link is over.",
    params(
        ("tenant_id" = Uuid, Path), ("id" = Uuid, Path),
        ("what" = String, Path, description = "file, thumbnail, upload or avatar"),
        ("expires" = i64, Path, description = "Unix seconds"), ("signature" = String, Path),
        ("Range" = Option<String>, Header), ("If-None-Match" = Option<String>, Header), ("If-Range" = Option<String>, Header),
    ),
    responses(
        (status = OK, description = "All of it", content_type = "application/octet-stream"),
        (status = PARTIAL_CONTENT, description = "A part of it", content_type = "application/octet-stream"),
        (status = NOT_MODIFIED, description = "It is as it was"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn show(
    State(app): State<App>,
    Path((tenant_id, id, what, expires, signature)): Path<(String, String, String, String, String)>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response<Body>, Error> {
    params.finish()?;
    let nothing = || Problem::not_found("file");
    let linked = Linked::from_name(&what).ok_or_else(nothing)?;
    let (Ok(tenant_id), Ok(id), Ok(expires)) = (tenant_id.parse::<TenantId>(), id.parse::<MediaId>(), expires.parse())
    else {
        return Err(nothing().into());
    };
    let left_s = match app.links.check((tenant_id, id, linked), expires, &signature, app.clock.now()) {
        Ok(left_s) => left_s,
        Err(Shut::NotOurs) => return Err(nothing().into()),
        Err(Shut::Over) => return Err(Problem::new(Kind::LinkOver).into()),
    };
    if linked == Linked::Avatar {
        let found = find_avatar(&app, tenant_id, ContactId(id.0)).await?.and_then(Served::avatar);
        return serve(&app, found.ok_or_else(nothing)?, left_s, &headers).await;
    }
    if linked == Linked::Upload {
        let file = find_upload(&app, tenant_id, FileId(id.0)).await?.ok_or_else(nothing)?;
        return serve(&app, Served::upload(file), left_s, &headers).await;
    }
    let file = find(&app, tenant_id, id).await?.filter(|file| file.state == MediaState::Stored.as_str());
    let file = file.ok_or_else(nothing)?;
    // What may not be kept for longer is gone then, whoever is late to remove it, and from caches, too.
    let kept_s = file.keep_until.map(|until| (until - app.clock.now()).num_seconds());
    if kept_s.is_some_and(|left_s| left_s <= 0) {
        return Err(nothing().into());
    }
    let left_s = kept_s.map_or(left_s, |kept_s| kept_s.min(left_s));
    let served = match linked {
        Linked::File | Linked::Upload | Linked::Avatar => Served::file(file),
        Linked::Thumbnail => Served::thumbnail(file),
    };
    serve(&app, served.ok_or_else(nothing)?, left_s, &headers).await
}

/// All of something, or the part that is asked for.
async fn serve(app: &App, served: Served, left_s: i64, headers: &HeaderMap) -> Result<Response<Body>, Error> {
    let nothing = || Problem::not_found("file");
    if matches_etag(headers.get(header::IF_NONE_MATCH), &served.etag) {
        return Ok(served.head(StatusCode::NOT_MODIFIED, left_s).body(Body::empty()).expect("a whole answer"));
    }
    let size = app.storage.size_bytes(&served.key).await.map_err(|error| away(&error))?;
    let Some(size) = size else {
        tracing::error!(key = served.key, "a file is not where it should be");
        return Err(nothing().into());
    };
    // A part of what it is no more is no part of what it is.
    let current = headers.get(header::IF_RANGE).is_none_or(|etag| etag.as_bytes() == served.etag.as_bytes());
    let range = headers.get(header::RANGE).filter(|_| current).and_then(|value| value.to_str().ok());
    let asked = range.map_or(Asked::All, |range| Asked::of(range, size));
    let part = match asked {
        Asked::All => None,
        Asked::Part(range) => Some(range),
        Asked::Beyond => {
            let mut refused = Problem::new(Kind::RangeBeyond).into_response();
            let content_range = HeaderValue::try_from(format!("bytes */{size}")).expect("digits");
            refused.headers_mut().insert(header::CONTENT_RANGE, content_range);
            return Ok(refused);
        }
    };
    let reading = app.storage.read(&served.key, part.clone()).await.map_err(|error| away(&error))?;
    let Reading { size_bytes, range, bytes } = reading.ok_or_else(nothing)?;
    let status = if part.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut head = served.head(status, left_s).header(header::CONTENT_LENGTH, range.end - range.start);
    if part.is_some() {
        let content_range = format!("bytes {}-{}/{size_bytes}", range.start, range.end - 1);
        head = head.header(header::CONTENT_RANGE, content_range);
    }
    Ok(head.body(Body::from_stream(bytes)).expect("a whole answer"))
}

async fn find(app: &App, tenant_id: TenantId, id: MediaId) -> Result<Option<reading::Shown>, Error> {
    let Some(placement) = app.placements.find(tenant_id).await? else { return Ok(None) };
    let mut tx = app.tenant(&placement, tenant_id).await?;
    let file = reading::find(&mut tx, id).await?;
    tx.commit().await?;
    Ok(file)
}

async fn find_upload(app: &App, tenant_id: TenantId, id: FileId) -> Result<Option<files::File>, Error> {
    let Some(placement) = app.placements.find(tenant_id).await? else { return Ok(None) };
    let mut tx = app.tenant(&placement, tenant_id).await?;
    let file = files::find(&mut tx, &[id]).await?.pop();
    tx.commit().await?;
    Ok(file)
}

async fn find_avatar(app: &App, tenant_id: TenantId, id: ContactId) -> Result<Option<(String, String)>, Error> {
    let Some(placement) = app.placements.find(tenant_id).await? else { return Ok(None) };
    let mut tx = app.tenant(&placement, tenant_id).await?;
    let avatar = profiles::avatar(&mut tx, id).await?;
    tx.commit().await?;
    Ok(avatar)
}

fn away(error: &shared::storage::Error) -> Problem {
    tracing::error!(%error, "files cannot be read");
    Problem::new(Kind::Unavailable).retry_after(TRY_AGAIN)
}

/// What is served.
struct Served {
    key: String,
    content_type: String,
    etag: String,
    disposition: String,
}

impl Served {
    fn file(file: reading::Shown) -> Option<Self> {
        let content_type = file.content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
        let how = if is_safe_inline(&content_type) { "inline" } else { "attachment" };
        Some(Self {
            key: file.storage_key?,
            etag: format!("\"{}\"", hex::encode(file.sha256?)),
            disposition: disposition(how, file.filename.as_deref()),
            content_type,
        })
    }

    fn upload(file: files::File) -> Self {
        let how = if is_safe_inline(&file.content_type) { "inline" } else { "attachment" };
        Self {
            key: file.storage_key,
            etag: format!("\"{}\"", hex::encode(file.sha256)),
            disposition: disposition(how, file.filename.as_deref()),
            content_type: file.content_type,
        }
    }

    fn thumbnail(file: reading::Shown) -> Option<Self> {
        let key = file.thumbnail_key?;
        // Its key ends with its own digest.
        let digest = key.rsplit('/').next()?.to_owned();
        let disposition = disposition("inline", None);
        Some(Self { etag: format!("\"{digest}\""), content_type: THUMBNAIL_TYPE.to_owned(), disposition, key })
    }

    fn avatar((key, content_type): (String, String)) -> Option<Self> {
        let digest = key.rsplit('/').next()?.to_owned();
        Some(Self { etag: format!("\"{digest}\""), content_type, disposition: disposition("inline", None), key })
    }

    /// What goes before the bytes, whichever of them.
    fn head(&self, status: StatusCode, left_s: i64) -> axum::http::response::Builder {
        let text =
            |text: &str| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("application/octet-stream"));
        Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, text(&self.content_type))
            .header(header::ETAG, text(&self.etag))
            .header(header::CONTENT_DISPOSITION, text(&self.disposition))
            .header(header::ACCEPT_RANGES, "bytes")
            // What a link leads to never changes, and is nobody's in particular: whoever has the link may have it.
            .header(header::CACHE_CONTROL, format!("public, max-age={left_s}, immutable"))
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox")
            .header("cross-origin-resource-policy", "cross-origin")
            .header(header::REFERRER_POLICY, "no-referrer")
    }
}

/// `Content-Disposition` with a name that every client understands (RFC 6266, RFC 5987).
fn disposition(how: &str, filename: Option<&str>) -> String {
    let Some(name) = filename.map(str::trim).filter(|name| !name.is_empty()) else { return how.to_owned() };
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || " ._-()+,=@".contains(c) { c } else { '_' }).collect();
    let encoded: String = name
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    format!("{how}; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

/// Whether a list of tags, or `*`, holds this one.
fn matches_etag(header: Option<&HeaderValue>, etag: &str) -> bool {
    let Some(list) = header.and_then(|value| value.to_str().ok()) else { return false };
    list.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// How much somebody wants.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// All: nothing else was said, or nothing that we serve.
    All,
    /// A part.
    Part(Range<u64>),
    /// What lies behind the end.
    Beyond,
}

impl Asked {
    /// Of a `Range` header (RFC 9110 section 14). Several ranges at once are answered with all of it, as a server may.
    fn of(header: &str, size: u64) -> Self {
        let Some((first, last)) = header
            .trim()
            .strip_prefix("bytes=")
            .filter(|ranges| !ranges.contains(','))
            .and_then(|range| range.trim().split_once('-'))
        else {
            return Asked::All;
        };
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let range = match (first.trim().is_empty(), last.trim().is_empty()) {
            (false, false) => number(first).zip(number(last)).filter(|(first, last)| first <= last),
            (false, true) => number(first).map(|first| (first, u64::MAX)),
            // The last so many.
            (true, false) => match number(last) {
                Some(0) => return Asked::Beyond,
                last => last.map(|last| (size.saturating_sub(last), u64::MAX)),
            },
            (true, true) => None,
        };
        match range {
            Some((first, _)) if first >= size => Asked::Beyond,
            Some((first, last)) => Asked::Part(first..last.saturating_add(1).min(size)),
            None => Asked::All,
        }
    }
}

/// Where tenants' data lives, by their ids, for who comes with a link instead of a name.
pub struct Placements {
    databases: db::Databases,
    known: moka::future::Cache<TenantId, db::Placement>,
}

impl Placements {
    /// Nothing is known yet. A move is noticed within a minute.
    pub fn new(databases: db::Databases) -> Self {
        let known = moka::future::Cache::builder().max_capacity(100_000).time_to_live(Duration::from_secs(60)).build();
        Self { databases, known }
    }

    async fn find(&self, tenant_id: TenantId) -> db::Result<Option<db::Placement>> {
        if let Some(placement) = self.known.get(&tenant_id).await {
            return Ok(Some(placement));
        }
        let mut tx = self.databases.control().await?;
        let placement = db::routing::find_placement(&mut tx, tenant_id).await?;
        tx.commit().await?;
        if let Some(placement) = &placement {
            self.known.insert(tenant_id, placement.clone()).await;
        }
        Ok(placement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_served_and_anything_else_is_all() {
        for (header, expected) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=2-4", Asked::Part(2..5)),
            ("bytes=2-", Asked::Part(2..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-99", Asked::Part(0..10)),
            ("bytes=4-99", Asked::Part(4..10)),
            ("bytes=4-18446744073709551615", Asked::Part(4..10)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=99-100", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=5-4", Asked::All),
            ("bytes=0-1,4-5", Asked::All),
            ("bytes=-", Asked::All),
            ("bytes=a-b", Asked::All),
            ("lines=1-2", Asked::All),
        ] {
            assert_eq!(Asked::of(header, 10), expected, "{header}");
        }
        assert_eq!(Asked::of("bytes=0-", 0), Asked::Beyond);
    }

    #[test]
    fn a_files_name_cannot_end_its_header() {
        assert_eq!(disposition("attachment", None), "attachment");
        assert_eq!(
            disposition("attachment", Some("Größe\".exe\r\nX: y")),
            "attachment; filename=\"Gr__e_.exe__X_ y\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%22.exe%0D%0AX%3A%20y"
        );
    }

    #[test]
    fn tags_are_compared_weakly() {
        let matches = |list: &'static str| matches_etag(Some(&HeaderValue::from_static(list)), "\"a\"");
        assert!(matches("\"a\"") && matches("\"b\", W/\"a\"") && matches("*"));
        assert!(!matches("\"b\"") && !matches_etag(None, "\"a\""));
    }
}
