//! What every request to the API has around it: an id, a span in its trace, a time limit, metrics by route, and an answer
//! in our form whatever happens below. Webhooks do not pass here.

use crate::{
    error::{Kind, PROBLEM_JSON, Problem},
    routes::{contacts::import, files},
};
use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use shared::telemetry::{TraceContext, names};
use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};
use tracing::Instrument;
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Nothing an API request does takes longer; what does is cut off, and its transaction with it.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// The routes that may take longer: they take streams, and bound their own time.
const LONG: &[(&str, Duration)] =
    &[("/api/{tenant}/contacts/import", import::ANSWERED_WITHIN), ("/api/{tenant}/files", files::ANSWERED_WITHIN)];
const MAX_REQUEST_ID_CHARACTERS: usize = 64;

pub(crate) async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    // The route, never the path: a label must not hold ids.
    let path = request.extensions().get::<MatchedPath>().map_or("none", |path| path.as_str()).to_owned();
    let trace = TraceContext::from_request(request.headers());
    let id = request_id(&request);
    if let Ok(value) = HeaderValue::from_str(&trace.to_string()) {
        // What follows from this request belongs to its trace, also where it began here.
        request.headers_mut().insert("traceparent", value);
    }
    let span = tracing::info_span!("request", %method, path, trace_id = %trace.trace_id(), request_id = id);
    let time_limit = LONG.iter().find(|(long, _)| *long == path).map_or(TIME_LIMIT, |(_, limit)| *limit);
    let answered = tokio::time::timeout(time_limit, AssertUnwindSafe(next.run(request)).catch_unwind());
    let response = match answered.instrument(span.clone()).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            let _entered = span.enter();
            tracing::error!(panic = panic_text(&*panic), "a request panicked");
            Problem::new(Kind::Internal).into_response()
        }
        Err(_) => {
            let _entered = span.enter();
            tracing::warn!("a request took more than {time_limit:?}");
            Problem::new(Kind::Unavailable).retry_after(Duration::from_secs(1)).into_response()
        }
    };
    let mut response = in_our_form(response);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let elapsed = started.elapsed();
    let status = response.status();
    span.in_scope(|| tracing::debug!(status = status.as_u16(), ms = elapsed.as_millis(), "answered"));
    let method = method_label(&method);
    let labels = [("method", method.to_owned()), ("path", path.clone()), ("status", status.as_str().to_owned())];
    metrics::counter!(names::HTTP_REQUESTS_TOTAL, &labels).increment(1);
    metrics::histogram!(names::HTTP_REQUEST_SECONDS, "method" => method, "path" => path).record(elapsed);
    response
}

/// The caller's own id, if it is presentable, so that both sides' logs can be laid side by side.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        (1..=MAX_REQUEST_ID_CHARACTERS).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    given.filter(plain).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// Refusals of the framework (an unknown path, a wrong method) become problems; what they say in headers stays.
fn in_our_form(response: Response) -> Response {
    let status = response.status();
    let ours = response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == PROBLEM_JSON);
    if ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let mut response = Problem::of_status(status).into_response();
    if let Some(allow) = allow.filter(|_| status == StatusCode::METHOD_NOT_ALLOWED) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// A label has few values, whatever a client invents.
fn method_label(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_may_take_longer_are_there() {
        let (_, api) = crate::openapi::router();
        for (path, limit) in LONG {
            assert!(api.paths.paths.contains_key(*path), "{path}");
            assert!(*limit > TIME_LIMIT);
        }
    }
}
