//! What goes back to a caller: the answer, a part of it, or nothing.

use super::{
    behaviour::Behaviour, dice::Roll, gateway, ledger::Answer, platform::Api, provider::Provider, refusal::Refusal,
};
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use std::{io, time::Duration};

/// An answer, or the connection is cut without one.
pub(super) type Answered = Result<Response<Body>, Cut>;

/// The connection is to be cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut;

/// Status, body and headers, before it is decided what the caller gets to see of them.
#[derive(Debug)]
pub(super) struct Draft {
    status: StatusCode,
    body: String,
    retry_after_s: Option<u32>,
    is_throttled: bool,
    headers: Vec<(&'static str, String)>,
}

pub(super) fn success(body: String) -> Draft {
    Draft { status: StatusCode::OK, body, retry_after_s: None, is_throttled: false, headers: Vec::new() }
}

impl Draft {
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(super) fn with_headers(mut self, headers: Vec<(&'static str, String)>) -> Self {
        self.headers.extend(headers);
        self
    }
}

pub(super) fn refused(refusal: &Refusal, behaviour: &Behaviour, roll: &mut Roll) -> Draft {
    if refusal.api == Api::Botmaster {
        let (status, body) = gateway::refused(refusal, behaviour);
        return success(body).with_status(status);
    }
    let throttled = refusal.is_throttle();
    Draft {
        status: refusal.status,
        body: refusal.body(roll.bits()),
        retry_after_s: behaviour.retry_after_s.filter(|_| throttled),
        is_throttled: throttled,
        headers: Vec::new(),
    }
}

/// Lets the caller see of the draft what `answer` says.
pub(super) async fn finish(
    provider: &Provider,
    behaviour: &Behaviour,
    answer: Answer,
    draft: Draft,
    api: Api,
    account: &str,
) -> Answered {
    match answer {
        Answer::Success | Answer::Error => Ok(whole(draft, behaviour, api, account)),
        Answer::Cut => Err(Cut),
        Answer::GatewayError => Ok(gateway_error()),
        Answer::Truncated => Ok(truncated(draft)),
        Answer::Withheld => {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(behaviour.hang_ms)) => {}
                () = provider.stopping.cancelled() => {}
            }
            Err(Cut)
        }
    }
}

/// A JSON answer outside of any play with faults.
pub(super) fn json(status: StatusCode, body: &Value) -> Response<Body> {
    plain(success(body.to_string()).with_status(status))
}

fn whole(draft: Draft, behaviour: &Behaviour, api: Api, account: &str) -> Response<Body> {
    let (retry_after_s, throttled) = (draft.retry_after_s, draft.is_throttled);
    let mut response = plain(draft);
    let headers = response.headers_mut();
    if let Some(seconds) = retry_after_s {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    let kind = match api {
        Api::Whatsapp => Some("whatsapp"),
        Api::Messenger => Some("messenger"),
        Api::Instagram => Some("instagram"),
        Api::Twilio | Api::Botmaster => None,
    };
    if let Some(kind) = kind.filter(|_| behaviour.usage_headers) {
        let busy = if throttled { 100 } else { 28 };
        let app = json!({"call_count": busy, "total_time": 12, "total_cputime": 9}).to_string();
        let business = json!({account: [{"type": kind, "call_count": busy, "total_cputime": 3, "total_time": 5,
            "estimated_time_to_regain_access": u32::from(throttled)}]})
        .to_string();
        for (name, value) in [("x-app-usage", app), ("x-business-use-case-usage", business)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
    response
}

fn plain(draft: Draft) -> Response<Body> {
    let mut response = Response::new(Body::from(draft.body));
    *response.status_mut() = draft.status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    for (name, value) in draft.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Half of the body under the length of the whole, then a cut.
fn truncated(draft: Draft) -> Response<Body> {
    let length = draft.body.len();
    let half = Bytes::from(draft.body).slice(..length / 2);
    let parts = [Ok(half), Err(io::Error::other("cut on purpose"))];
    let mut response = Response::new(Body::from_stream(stream::iter(parts)));
    *response.status_mut() = draft.status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    response
}

/// What the edge in front of the provider says when it knows nothing.
fn gateway_error() -> Response<Body> {
    let page = "<!DOCTYPE html><html><head><title>Error</title></head><body><h1>Sorry, something went wrong.</h1></body></html>";
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}
