//! Media as the provider keeps them (contract page, section 9): uploads get an id, an id resolves to a URL that lives
//! five minutes, and the URL gives bytes only to who brings the token. Ids of messages people sent resolve, too.

use super::{graph::NodeCall, provider::Provider, refusal::Refusal, reply};
use axum::body::Body;
use base64::Engine;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Everything uploaded, by id.
#[derive(Debug, Default)]
pub(super) struct Media {
    files: Mutex<HashMap<String, File>>,
    /// Ids given so far.
    ids: AtomicU64,
}

#[derive(Debug, Clone)]
struct File {
    mime_type: String,
    bytes: Bytes,
    /// The number it was uploaded to; none for what people sent.
    number: Option<String>,
    uploaded_us: u64,
}

const URL_LIVES_S: i64 = 300;

/// `POST /{PNID}/media`, multipart.
pub(super) fn upload(provider: &Provider, number: &str, call: &NodeCall<'_>) -> Result<Response<Body>, Refusal> {
    let content_type = call.head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let boundary = boundary(content_type).ok_or_else(|| Refusal::invalid("The upload must be multipart/form-data."))?;
    let parts = multipart(&call.body, boundary);
    let part = |name: &str| parts.iter().find(|part| part.name == name);
    match part("messaging_product") {
        Some(product) if product.bytes.as_ref() == b"whatsapp" => {}
        Some(_) => return Err(Refusal::wrong("messaging_product must be whatsapp.")),
        None => return Err(Refusal::missing("messaging_product")),
    }
    let file = part("file").ok_or_else(|| Refusal::missing("file"))?;
    let declared = part("type").and_then(|part| std::str::from_utf8(&part.bytes).ok().map(str::to_owned));
    let mime_type = declared.or_else(|| file.mime_type.clone()).ok_or_else(|| Refusal::missing("type"))?;
    let most = largest(&mime_type).ok_or_else(|| Refusal::wrong(format!("{mime_type} is not supported.")))?;
    if file.bytes.len() > most {
        return Err(Refusal::wrong("The file is too large."));
    }
    let id = (880_200_000_000_001 + provider.media.ids.fetch_add(1, Ordering::Relaxed)).to_string();
    provider.handed.uploaded(number, &id, &file.bytes);
    provider.media.lock().insert(
        id.clone(),
        File {
            mime_type,
            bytes: file.bytes.clone(),
            number: Some(number.to_owned()),
            uploaded_us: provider.clock.now_us(),
        },
    );
    Ok(reply::json(StatusCode::OK, &json!({"id": id})))
}

/// `GET /{media-id}`: a URL for five minutes.
pub(super) fn resolve(provider: &Provider, id: &str, number: Option<&str>) -> Result<Response<Body>, Refusal> {
    let file = provider.media.find(id).ok_or_else(|| Refusal::invalid("There is no such object.").with_subcode(33))?;
    if let (Some(asked), Some(owner)) = (number, &file.number)
        && asked != owner
    {
        return Err(Refusal::invalid("The media belongs to another number."));
    }
    let expires = provider.clock.unix(provider.clock.now_us()) + URL_LIVES_S;
    let url = format!(
        "{}/whatsapp_business/attachments/?mid={id}&ext={expires}&hash={}",
        provider.own_url,
        hash(id, expires)
    );
    Ok(reply::json(
        StatusCode::OK,
        &json!({"messaging_product": "whatsapp", "url": url, "mime_type": file.mime_type,
            "sha256": hex::encode(Sha256::digest(&file.bytes)), "file_size": file.bytes.len().to_string(), "id": id}),
    ))
}

/// `GET {url}`: the bytes. 404 once the URL is too old.
pub(super) fn download(provider: &Provider, query: &str) -> Response<Body> {
    let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let id = parameter("mid").unwrap_or_default();
    let expires: i64 = parameter("ext").and_then(|ext| ext.parse().ok()).unwrap_or_default();
    let right = parameter("hash").is_some_and(|given| given == hash(id, expires));
    let current = provider.clock.unix(provider.clock.now_us()) <= expires;
    let mut response = Response::new(Body::empty());
    match provider.media.find(id).filter(|_| right && current) {
        Some(file) => {
            let mime_type = HeaderValue::from_str(&file.mime_type);
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                mime_type.unwrap_or(HeaderValue::from_static("application/octet-stream")),
            );
            *response.body_mut() = Body::from(file.bytes);
        }
        None => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    response
}

/// `DELETE /{media-id}`.
pub(super) fn delete(provider: &Provider, id: &str) -> Option<Response<Body>> {
    provider.media.lock().remove(id).map(|_| reply::json(StatusCode::OK, &json!({"success": true})))
}

impl Media {
    pub(super) fn knows(&self, id: &str) -> bool {
        self.find(id).is_some()
    }

    /// What was uploaded so far is gone.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    /// Whether this number has (still) what has this id: uploads belong to one number, and are kept for so long.
    pub(super) fn has(&self, id: &str, number: &str, now_us: u64, life_s: u64) -> bool {
        self.find(id).is_some_and(|file| match file.number {
            Some(owner) => {
                owner == number && now_us < file.uploaded_us.saturating_add(life_s.saturating_mul(1_000_000))
            }
            None => true,
        })
    }

    /// Whether what has this id can be sent as a message of this kind.
    pub(super) fn fits(&self, id: &str, kind: &str) -> bool {
        self.find(id).is_none_or(|file| file.number.is_none() || fits(kind, &file.mime_type, file.bytes.len() as u64))
    }

    /// An upload, or what a person sent: every id that inbound webhooks carry has a small picture behind it.
    fn find(&self, id: &str) -> Option<File> {
        let sent_by_a_person = || {
            (id.len() == 15 && id.starts_with("88000")).then(|| File {
                mime_type: "image/jpeg".into(),
                bytes: sent_by_a_person_bytes(id),
                number: None,
                uploaded_us: 0,
            })
        };
        self.lock().get(id).cloned().or_else(sent_by_a_person)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a person sent: the start of a picture, and its id.
fn sent_by_a_person_bytes(id: &str) -> Bytes {
    let mut bytes = b"\xff\xd8\xff\xe0\0\x10JFIF".to_vec();
    bytes.extend(format!(" stand-in for media {id}").bytes());
    bytes.into()
}

/// The digest of what a person sent, as webhooks declare it: in base64.
pub(super) fn declared_digest(id: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(Sha256::digest(sent_by_a_person_bytes(id)))
}

fn hash(id: &str, expires: i64) -> String {
    hex::encode(&Sha256::digest(format!("sandbox {id} {expires}"))[..8])
}

/// Whether a file can be sent as a message of this kind (contract page, section 9). A host that says nothing of its type is believed.
pub(super) fn fits(kind: &str, mime_type: &str, bytes: u64) -> bool {
    const KB: u64 = 1 << 10;
    let mime_type = mime_type.split(';').next().unwrap_or_default().trim();
    if mime_type.is_empty() || mime_type == "application/octet-stream" {
        return true;
    }
    let Some(most) = largest(mime_type) else { return false };
    let is_of_kind = match kind {
        "sticker" => mime_type == "image/webp" && bytes <= 500 * KB,
        "image" => matches!(mime_type, "image/jpeg" | "image/png"),
        "audio" | "video" => mime_type.split('/').next() == Some(kind),
        _ => mime_type.starts_with("application/") || mime_type == "text/plain",
    };
    is_of_kind && bytes <= most as u64
}

/// The provider's limits by type.
fn largest(mime_type: &str) -> Option<usize> {
    const MB: usize = 1 << 20;
    match mime_type.split(';').next().unwrap_or_default().trim() {
        "audio/aac" | "audio/amr" | "audio/mpeg" | "audio/mp4" | "audio/ogg" | "video/mp4" | "video/3gpp" => {
            Some(16 * MB)
        }
        "image/jpeg" | "image/png" => Some(5 * MB),
        "image/webp" => Some(MB / 2),
        "text/plain"
        | "application/pdf"
        | "application/msword"
        | "application/vnd.ms-excel"
        | "application/vnd.ms-powerpoint" => Some(100 * MB),
        office if office.starts_with("application/vnd.openxmlformats-officedocument.") => Some(100 * MB),
        _ => None,
    }
}

/// One part of a multipart body.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) mime_type: Option<String>,
    pub(super) bytes: Bytes,
}

/// What separates the parts, if the type is multipart.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let boundary = content_type.split(';').find_map(|part| part.trim().strip_prefix("boundary="))?;
    Some(boundary.trim_matches('"'))
}

/// The parts of a multipart body; what cannot be read is left out.
pub(super) fn multipart(body: &Bytes, boundary: &str) -> Vec<Part> {
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut from = find(body, delimiter.as_bytes(), 0);
    while let Some(start) = from {
        let content = start + delimiter.len();
        let Some(end) = find(body, delimiter.as_bytes(), content) else { break };
        parts.extend(part(body, content, end));
        from = Some(end);
    }
    parts
}

fn part(body: &Bytes, start: usize, end: usize) -> Option<Part> {
    let blank = find(body, b"\r\n\r\n", start).filter(|blank| *blank < end)?;
    let head = std::str::from_utf8(&body[start..blank]).ok()?;
    let name = head.split("name=\"").nth(1)?.split('"').next()?.to_owned();
    let mime_type = head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
    });
    // The line break before the delimiter belongs to it.
    Some(Part { name, mime_type, bytes: body.slice(blank + 4..end.saturating_sub(2).max(blank + 4)) })
}

fn find(body: &[u8], what: &[u8], from: usize) -> Option<usize> {
    body.get(from..)?.windows(what.len()).position(|window| window == what).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multipart_is_taken_apart() {
        let body = Bytes::from_static(
            b"--B\r\nContent-Disposition: form-data; name=\"messaging_product\"\r\n\r\nwhatsapp\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n\r\n--B--\r\n",
        );
        let parts = multipart(&body, "B");
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].bytes.as_ref(), b"whatsapp");
        assert_eq!(parts[1].mime_type.as_deref(), Some("image/png"));
        assert_eq!(parts[1].bytes.as_ref(), b"\x89PNG\r\n");
    }
}
