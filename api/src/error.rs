//! What a caller is told when something is not done: `application/problem+json` (RFC 9457), naming the field where there is
//! one. Every refusal of the API is made here, so that there is one list of their types.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;
use shared::{db, providers::FieldProblem};
use std::time::Duration;
use utoipa::{
    ToSchema,
    openapi::schema::{Object, ObjectBuilder, Type},
};
use uuid::Uuid;

/// The media type of every answer that is not a success.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field, as a path into the body or the name of a query parameter or header.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// A refusal (RFC 9457).
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// Which kind: stable, to be compared by programs.
    #[serde(rename = "type")]
    #[schema(schema_with = kinds)]
    pub kind: &'static str,
    /// The kind in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// This case in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The fields at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The resource that stands in the way, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing_id: Option<Uuid>,
    /// Of an import that broke off: contacts that are stored, new or known before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<u32>,
    /// For the header of this name, in whole seconds.
    #[serde(skip)]
    #[schema(ignore)]
    retry_after: Option<u32>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = ($status:ident, $kind:literal, $title:literal)),+ $(,)?) => {
        /// The kinds of refusal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $name),+ }

        impl Kind {
            /// All of them.
            const ALL: &'static [Kind] = &[$(Kind::$name),+];

            fn parts(self) -> (StatusCode, &'static str, &'static str) {
                match self { $(Kind::$name => (StatusCode::$status, concat!("urn:mijra:problem:", $kind), $title)),+ }
            }
        }
    };
}

kinds! {
    /// The body is not JSON.
    MalformedJson = (BAD_REQUEST, "malformed_json", "The body is not JSON"),
    /// The body ended before it should, or took too long.
    BodyBroken = (BAD_REQUEST, "body_broken", "The body broke off"),
    /// The body is not text.
    NotText = (BAD_REQUEST, "not_text", "The body is not UTF-8 text"),
    /// The columns of a table are not those that can be used.
    BadColumns = (BAD_REQUEST, "bad_columns", "The columns are not as they must be"),
    /// A parameter of the URL cannot be read.
    BadParameter = (BAD_REQUEST, "bad_parameter", "A parameter cannot be read"),
    /// No token, or not one for this tenant.
    Unauthorized = (UNAUTHORIZED, "unauthorized", "A valid token for this tenant is needed"),
    /// A webhook that its provider did not sign.
    BadSignature = (UNAUTHORIZED, "bad_signature", "The signature is not the provider's"),
    /// A handshake without our word.
    HandshakeRefused = (FORBIDDEN, "handshake_refused", "The verify token is not ours"),
    /// The token may not do this.
    Forbidden = (FORBIDDEN, "permission_missing", "The token lacks a permission"),
    /// There is no such thing, or not for this tenant.
    NotFound = (NOT_FOUND, "not_found", "There is no such thing"),
    /// A link whose time is over.
    LinkOver = (GONE, "link_over", "The link's time is over: ask for the message again"),
    /// The path exists, the method does not.
    MethodNotAllowed = (METHOD_NOT_ALLOWED, "method_not_allowed", "This path does not take that method"),
    /// It exists already.
    Exists = (CONFLICT, "exists", "It exists already"),
    /// It cannot be done in the state the thing is in.
    WrongState = (CONFLICT, "wrong_state", "This cannot be done now"),
    /// There is nobody to be tried again.
    NobodyFailed = (CONFLICT, "nobody_failed", "Nobody is there to be tried again"),
    /// The body is larger than allowed.
    TooLarge = (PAYLOAD_TOO_LARGE, "too_large", "The body is too large"),
    /// A part of a file that lies beyond its end.
    RangeBeyond = (RANGE_NOT_SATISFIABLE, "range_beyond", "The range lies beyond the end"),
    /// The body is not declared as JSON.
    NotJson = (UNSUPPORTED_MEDIA_TYPE, "not_json", "The body must be application/json"),
    /// The body is not declared as something that can be imported.
    NotImportable = (UNSUPPORTED_MEDIA_TYPE, "not_importable", "The body must be text/csv or application/x-ndjson"),
    /// A field is missing or wrong.
    Invalid = (UNPROCESSABLE_ENTITY, "invalid", "A field is not as it must be"),
    /// Free words outside the customer service window.
    NeedsTemplate = (UNPROCESSABLE_ENTITY, "needs_template", "Only a template can be sent now"),
    /// A template that cannot be sent.
    TemplateUnusable = (UNPROCESSABLE_ENTITY, "template_unusable", "This template cannot be sent"),
    /// The account cannot send.
    AccountDisabled = (UNPROCESSABLE_ENTITY, "account_disabled", "This channel account is disabled"),
    /// This release cannot hand messages over to the account's provider.
    CannotSend = (UNPROCESSABLE_ENTITY, "cannot_send", "Nothing can be sent from this channel account yet"),
    /// The person wants nothing at all on this channel.
    OptedOut = (UNPROCESSABLE_ENTITY, "opted_out", "This person does not want to be written to"),
    /// The same key came with another request.
    IdempotencyKeyReused = (UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The Idempotency-Key belongs to another request"),
    /// Too many requests with this token.
    RateLimited = (TOO_MANY_REQUESTS, "rate_limited", "Too many requests"),
    /// A fault of ours.
    Internal = (INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side"),
    /// Something of ours is away; the same request may succeed soon.
    Unavailable = (SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable"),
}

/// All kinds with their statuses, for the description of the API.
fn kinds() -> Object {
    let parts = Kind::ALL.iter().map(|kind| kind.parts());
    let listed = parts.clone().map(|(status, kind, title)| format!("- `{kind}` ({}): {title}", status.as_u16()));
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(parts.map(|(_, kind, _)| kind)))
        .description(Some(format!(
            "Which kind: stable, to be compared by programs.\n\n{}",
            listed.collect::<Vec<_>>().join("\n")
        )))
        .build()
}

impl Problem {
    /// A refusal without particulars.
    pub fn new(kind: Kind) -> Self {
        let (status, kind, title) = kind.parts();
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail: None,
            errors: Vec::new(),
            existing_id: None,
            stored: None,
            retry_after: None,
        }
    }

    /// With this case in words.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With one more field at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.errors.push(FieldError { field: field.into(), message: message.into() });
        self
    }

    /// With every field at fault as one of this field.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Self {
        for error in &mut self.errors {
            error.field = format!("{parent}.{}", error.field);
        }
        self
    }

    /// With what stands in the way.
    #[must_use]
    pub fn existing(mut self, id: impl Into<Uuid>) -> Self {
        self.existing_id = Some(id.into());
        self
    }

    /// With how many contacts are stored although it was not done.
    #[must_use]
    pub fn stored(mut self, contacts: u64) -> Self {
        self.stored = Some(u32::try_from(contacts).unwrap_or(u32::MAX));
        self
    }

    /// With the time after which to try again, in whole seconds, at least one.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.retry_after = Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1));
        self
    }

    /// There is no such thing for this tenant. (That another tenant has it is nobody's business.)
    pub fn not_found(what: &str) -> Self {
        Self::new(Kind::NotFound).detail(format!("This tenant has no such {what}."))
    }

    /// Fields at fault.
    pub fn invalid(problems: impl IntoIterator<Item = FieldProblem>) -> Self {
        let start = Self::new(Kind::Invalid);
        problems.into_iter().fold(start, |problem, FieldProblem { field, message }| problem.field(field, message))
    }

    /// The refusal for what the database could not, which is logged here.
    pub fn of_database(error: &db::Error) -> Self {
        match error.kind() {
            db::Kind::Ours => {
                tracing::error!(%error, "a request could not be done");
                Self::new(Kind::Unavailable)
                    .detail("Send the same request again; with the same Idempotency-Key nothing is done twice.")
                    .retry_after(Duration::from_secs(2))
            }
            db::Kind::Contention => {
                tracing::warn!(%error, "a request lost against others");
                Self::new(Kind::Unavailable)
                    .detail(
                        "Others changed the same things at the same time. Nothing was done; send the request again.",
                    )
                    .retry_after(Duration::from_secs(1))
            }
            db::Kind::Data => {
                tracing::warn!(%error, "a request held what the database cannot keep");
                Self::new(Kind::Invalid).detail("The request holds something that cannot be stored.")
            }
        }
    }

    /// The refusal for a status that something below us answered with.
    pub fn of_status(status: StatusCode) -> Self {
        let kind = match status {
            StatusCode::BAD_REQUEST => Kind::BadParameter,
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Kind::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Kind::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Kind::NotJson,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT => Kind::Unavailable,
            _ => Kind::Internal,
        };
        Self::new(kind)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).expect("strings and lists are always JSON");
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.kind == Kind::Unauthorized.parts().1 {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Why a handler did not do what it was asked.
#[derive(Debug)]
pub enum Error {
    /// The caller is told why.
    Problem(Box<Problem>),
    /// The database could not, or not now.
    Database(db::Error),
}

/// What a handler returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Error::Problem(Box::new(problem))
    }
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        Error::Database(error)
    }
}

impl Error {
    /// Whether the same again at once may succeed.
    pub fn is_contention(&self) -> bool {
        matches!(self, Error::Database(error) if error.kind() == db::Kind::Contention)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response<Body> {
        match self {
            Error::Problem(problem) => problem.into_response(),
            Error::Database(error) => Problem::of_database(&error).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_what_rfc_9457_asks_for_and_no_more() {
        let problem = Problem::new(Kind::Invalid).field("variables[1]", "is missing");
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"type":"urn:mijra:problem:invalid","title":"A field is not as it must be","status":422,"errors":[{"field":"variables[1]","message":"is missing"}]}"#
        );
    }

    #[test]
    fn waiting_times_are_rounded_up_to_whole_seconds() {
        for (after, expected) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")] {
            let problem = Problem::new(Kind::RateLimited).retry_after(Duration::from_millis(after));
            let response = problem.into_response();
            assert_eq!(response.headers()[header::RETRY_AFTER], expected, "{after} ms");
            assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        }
    }
}
