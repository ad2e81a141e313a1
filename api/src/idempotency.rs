//! `Idempotency-Key`: of several requests with one key, one acts, and every other gets its answer. Key, answer and what was
//! done are committed together. Refusals are not kept: they did nothing, and the same request may fit later.

use crate::error::{Error, Kind, Problem, Result};
use axum::{
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use shared::db::{TenantTx, idempotency};

const HEADER: &str = "Idempotency-Key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const MAX_KEY_CHARACTERS: usize = 255;

/// The key of a request, if it has one.
pub struct IdempotencyKey(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let mut values = parts.headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let key = value.to_str().ok().filter(|key| (1..=MAX_KEY_CHARACTERS).contains(&key.len()));
        match key {
            Some(key) if values.next().is_none() => Ok(Self(Some(key.to_owned()))),
            _ => {
                let message = format!("must be 1 to {MAX_KEY_CHARACTERS} visible ASCII characters, once");
                Err(Problem::new(Kind::BadParameter).field(HEADER, message).into())
            }
        }
    }
}

/// An answer that can be kept.
#[derive(Debug)]
pub struct Answer {
    status: u16,
    body: Value,
    replayed: bool,
}

impl Answer {
    /// A new answer.
    pub fn new(status: StatusCode, body: Value) -> Self {
        Self { status: status.as_u16(), body, replayed: false }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = (status, axum::Json(self.body)).into_response();
        if self.replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

impl IdempotencyKey {
    /// The answer that was given to this key before, if there was one. From here on until the transaction ends, nobody else
    /// acts with this key.
    ///
    /// # Errors
    /// If the key came with another request before, or the database does not answer.
    pub async fn answered(&self, tx: &mut TenantTx, digest: &[u8; 32]) -> Result<Option<Answer>> {
        let Some(key) = &self.0 else { return Ok(None) };
        match idempotency::hold(tx, key).await? {
            None => Ok(None),
            Some(before) if before.request_digest == digest => {
                Ok(Some(Answer { status: before.status, body: before.response, replayed: true }))
            }
            Some(_) => {
                let problem = Problem::new(Kind::IdempotencyKeyReused)
                    .detail("A request with this key and another path or body was answered before. Use a new key.")
                    .field(HEADER, "belongs to another request");
                Err(problem.into())
            }
        }
    }

    /// Keeps the answer with what the transaction did.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn keep(&self, tx: &mut TenantTx, digest: &[u8; 32], answer: &Answer) -> Result<()> {
        let Some(key) = &self.0 else { return Ok(()) };
        let answered = idempotency::Answered {
            request_digest: digest.to_vec(),
            status: answer.status,
            response: answer.body.clone(),
        };
        Ok(idempotency::keep(tx, key, &answered).await?)
    }
}
