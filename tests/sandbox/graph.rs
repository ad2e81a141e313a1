//! The Graph API's front: from a path to the call it means.

use super::{
    messaging, nodes,
    provider::Provider,
    refusal::Refusal,
    reply::{self, Answered},
    send, server,
};
use axum::body::Body;
use bytes::Bytes;
use http::{Method, header, request::Parts};
use serde_json::Value;
use std::sync::Arc;

/// A call to a node, with its body read.
pub(super) struct NodeCall<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a [&'a str],
    pub(super) head: &'a Parts,
    pub(super) body: Bytes,
}

/// Answers one request.
pub(super) async fn handle(provider: Arc<Provider>, head: Parts, body: Bytes, at_us: u64) -> Answered {
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
    let is_number = path.first().is_some_and(|node| provider.registry.number(node).is_some());
    let decoded: Vec<String> = path.iter().map(|part| decoded(part)).collect();
    if !is_number && messaging::names(&provider, &decoded) {
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let call = messaging::Call {
            at_us,
            version,
            method: head.method.clone(),
            path: decoded,
            query: head.uri.query().unwrap_or_default().to_owned(),
            token: bearer(&head).map(str::to_owned).or_else(|| token_in(&body)),
            content_type: content_type.unwrap_or_default().to_owned(),
            body,
        };
        return server::detached(&provider, messaging::handle(provider.clone(), call)).await;
    }
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

/// The token as a parameter of the body.
fn token_in(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body["access_token"].as_str().map(str::to_owned)
}

/// The token of `Authorization: Bearer`, or of `?access_token=`.
pub(super) fn bearer(head: &Parts) -> Option<&str> {
    let from_header = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match from_header.and_then(|value| value.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Some(token.trim()),
        _ => head.uri.query()?.split('&').find_map(|pair| pair.strip_prefix("access_token=")),
    }
}

/// A part of a path without its percent signs.
pub(super) fn decoded(part: &str) -> String {
    // In a path a plus is a plus.
    let escaped = format!("x={}", part.replace('+', "%2B"));
    url::form_urlencoded::parse(escaped.as_bytes()).next().map_or_else(String::new, |(_, value)| value.into_owned())
}

pub(super) fn refused(refusal: &Refusal, trace: u64) -> http::Response<Body> {
    let body: Value = serde_json::from_str(&refusal.body(trace)).unwrap_or_default();
    reply::json(refusal.status, &body)
}

fn not_found(head: &Parts) -> http::Response<Body> {
    refused(&Refusal::invalid(format!("Unknown path components: {}", head.uri.path())), 0)
}
