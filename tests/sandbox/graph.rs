//! The Graph API's front: from a path to the call it means.

use super::{
    nodes,
    provider::Provider,
    refusal::Refusal,
    reply::{self, Answered, Cut},
    send,
};
use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use std::sync::Arc;

/// Larger than any upload the provider takes.
const BODY_MOST: usize = 110 << 20;

/// A call to a node, with its body read.
pub(super) struct NodeCall<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a [&'a str],
    pub(super) head: &'a Parts,
    pub(super) body: Bytes,
}

/// Answers one request.
pub(super) async fn handle(provider: Arc<Provider>, request: Request<Incoming>, at_us: u64) -> Answered {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_MOST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => {
            provider.ledger.cut_short();
            return Err(Cut);
        }
    };
    let mut segments = head.uri.path().split('/').filter(|segment| !segment.is_empty());
    let mut path = [""; 3];
    let mut depth = 0;
    let mut version = OLDEST_VERSION;
    for segment in segments.by_ref() {
        if depth == 0
            && path[0].is_empty()
            && let Some(given) = parse_version(segment)
        {
            version = given;
        } else if depth < path.len() {
            path[depth] = segment;
            depth += 1;
        } else {
            return Ok(not_found(&head));
        }
    }
    let path = &path[..depth];
    match path {
        [number_id, call @ ("messages" | "marketing_messages")] if head.method == Method::POST => {
            let request = send::Request {
                at_us,
                number_id,
                version,
                token: bearer(&head),
                marketing_only: *call == "marketing_messages",
                body,
            };
            send::handle(&provider, request).await
        }
        _ => {
            let call = NodeCall { method: &head.method, path, head: &head, body };
            Ok(nodes::handle(&provider, &call).await.unwrap_or_else(|refusal| refused(&refusal, at_us)))
        }
    }
}

/// An unversioned call uses the oldest version there is.
const OLDEST_VERSION: u32 = 21;

fn parse_version(segment: &str) -> Option<u32> {
    segment.strip_prefix('v')?.split_once('.')?.0.parse().ok()
}

/// The token of `Authorization: Bearer`, or of `?access_token=`.
pub(super) fn bearer(head: &Parts) -> Option<&str> {
    let from_header = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match from_header.and_then(|value| value.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Some(token.trim()),
        _ => head.uri.query()?.split('&').find_map(|pair| pair.strip_prefix("access_token=")),
    }
}

pub(super) fn refused(refusal: &Refusal, trace: u64) -> http::Response<Body> {
    let body: Value = serde_json::from_str(&refusal.body(trace)).unwrap_or_default();
    reply::json(refusal.status, &body)
}

fn not_found(head: &Parts) -> http::Response<Body> {
    refused(&Refusal::invalid(format!("Unknown path components: {}", head.uri.path())), 0)
}
