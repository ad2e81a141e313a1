//! What handlers take from a request, each refusing with a problem that names the field: the JSON body, the query, an id in
//! the path.

use crate::{
    body::{self, Unread},
    error::{Error, Kind, Problem},
};
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::{fmt::Display, str::FromStr};
use uuid::Uuid;

/// Largest body of an API request. The largest thing anybody sends is a text of 4096 characters.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// Rows in a page, unless asked for fewer or more.
const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 200;

/// A JSON body.
pub struct Json<T> {
    /// What it says.
    pub value: T,
    /// SHA-256 over method, path and bytes: what makes two requests the same.
    pub digest: [u8; 32],
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        if !is_json(request.headers()) {
            return Err(Problem::new(Kind::NotJson).field("Content-Type", "must be application/json").into());
        }
        let (bytes, digest) = read(request).await?;
        Ok(Self { value: parse(&bytes)?, digest })
    }
}

/// A JSON body that may be left out.
pub struct OrEmpty<T>(pub Json<T>);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OrEmpty<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        if request.headers().contains_key(header::CONTENT_TYPE) {
            return Ok(Self(Json::from_request(request, state).await?));
        }
        let (bytes, digest) = read(request).await?;
        if !bytes.is_empty() {
            return Err(Problem::new(Kind::NotJson).field("Content-Type", "must be application/json").into());
        }
        Ok(Self(Json { value: T::default(), digest }))
    }
}

async fn read(request: Request) -> Result<(Bytes, [u8; 32]), Problem> {
    let mut digest = Sha256::new();
    digest.update(request.method().as_str());
    digest.update([0]);
    digest.update(request.uri().path());
    digest.update([0]);
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let bytes = body::read(request.into_body(), length, MAX_BODY_BYTES).await.map_err(unread)?;
    digest.update(&bytes);
    Ok((bytes, digest.finalize().into()))
}

fn unread(unread: Unread) -> Problem {
    match unread {
        Unread::TooLarge => Problem::new(Kind::TooLarge).detail(format!("At most {MAX_BODY_BYTES} bytes.")),
        // The connection broke or the length was wrong: hardly anybody reads this.
        Unread::Broken => Problem::of_status(StatusCode::BAD_REQUEST).detail("The body could not be read."),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        refuse(&path, error.inner())
    })?;
    json.end().map_err(|error| refuse(".", &error))?;
    Ok(value)
}

/// Takes an id out of a body that is read by hand.
///
/// # Errors
/// If it is not there, or is none.
pub fn take_id<T: From<Uuid>>(fields: &mut Map<String, Value>, name: &str) -> Result<T, Problem> {
    let problem = |message: &str| Problem::new(Kind::Invalid).field(name, message);
    let value = fields.remove(name).ok_or_else(|| problem(&format!("missing field `{name}`")))?;
    let id = value.as_str().and_then(|text| text.parse::<Uuid>().ok());
    id.map(T::from).ok_or_else(|| problem("must be an id, such as 0193e6b5-a1c2-7d3e-8f4a-5b6c7d8e9f00"))
}

/// What serde says of a body, as a problem that names the field.
pub fn refuse(path: &str, error: &serde_json::Error) -> Problem {
    if !error.is_data() {
        return Problem::new(Kind::MalformedJson).detail(capitalised(&error.to_string()));
    }
    let text = error.to_string();
    // serde says where in the text; the field says it better.
    let message = text.split(" at line ").next().unwrap_or(&text);
    // A missing or unknown field is reported at its parent.
    let named = message.split('`').nth(1).filter(|_| message.contains(" field `"));
    let field = match (path, named) {
        (".", Some(named)) => named.to_owned(),
        (path, Some(named)) if !path.ends_with(named) => format!("{path}.{named}"),
        (".", None) => "body".to_owned(),
        (path, _) => path.to_owned(),
    };
    Problem::new(Kind::Invalid).field(field, message)
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The parameters of a query, each taken by name; what is left over is refused, so that a misspelt filter does not look like
/// an empty result.
#[derive(Debug)]
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let Query(pairs) = Query::try_from_uri(&parts.uri)
            .map_err(|rejection| Problem::new(Kind::BadParameter).field("query", rejection.body_text()))?;
        Ok(Self(pairs))
    }
}

impl Params {
    /// The value of a parameter, if it is there.
    ///
    /// # Errors
    /// If it cannot be read or is there twice.
    pub fn take<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, Problem> {
        let Some(at) = self.0.iter().position(|(key, _)| key == name) else { return Ok(None) };
        let (_, value) = self.0.remove(at);
        if self.0.iter().any(|(key, _)| key == name) {
            return Err(Problem::new(Kind::BadParameter).field(name, "is there twice"));
        }
        let bad = |error: T::Err| Problem::new(Kind::BadParameter).field(name, error.to_string());
        value.parse().map(Some).map_err(bad)
    }

    /// How many rows to show.
    ///
    /// # Errors
    /// If it is not 1–200.
    pub fn limit(&mut self) -> Result<i64, Problem> {
        match self.take::<i64>("limit")? {
            None => Ok(DEFAULT_LIMIT),
            Some(limit @ 1..=MAX_LIMIT) => Ok(limit),
            Some(_) => Err(Problem::new(Kind::BadParameter).field("limit", format!("must be 1 to {MAX_LIMIT}"))),
        }
    }

    /// Nothing must be left.
    ///
    /// # Errors
    /// If something is.
    pub fn finish(self) -> Result<(), Problem> {
        if self.0.is_empty() {
            return Ok(());
        }
        let start = Problem::new(Kind::BadParameter);
        Err(self.0.iter().fold(start, |problem, (name, _)| problem.field(name, "is not a parameter of this path")))
    }
}

/// Where a page ends: a time and an id, as opaque text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The last row's time.
    pub at: DateTime<Utc>,
    /// The last row's id.
    pub id: Uuid,
}

/// A text that is not a cursor.
#[derive(Debug, thiserror::Error)]
#[error("is not a cursor; pass `next` of the page before")]
pub struct NotACursor;

impl Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}.{}", self.at.timestamp_micros(), self.id.simple())
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;
    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (at, id) = text.split_once('.').ok_or(NotACursor)?;
        let at = i64::from_str_radix(at, 16).ok().and_then(DateTime::from_timestamp_micros).ok_or(NotACursor)?;
        Ok(Self { at, id: id.parse().map_err(|_| NotACursor)? })
    }
}

/// The id in the path. What is not an id is an id that nobody has.
pub struct Id<T>(pub T);

impl<T: FromStr + Send, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let params = RawPathParams::from_request_parts(parts, state).await.ok();
        let id = params.iter().flatten().find(|(name, _)| *name == "id").and_then(|(_, value)| value.parse().ok());
        id.map(Id).ok_or_else(|| Problem::new(Kind::NotFound).detail("The id in the path is not a UUID.").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FieldError;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read into")]
    struct Person {
        name: String,
        tags: Vec<String>,
    }

    fn at_fault(json: &str) -> (u16, Vec<FieldError>) {
        let problem = parse::<Person>(json.as_bytes()).unwrap_err();
        (problem.status, problem.errors)
    }

    #[test]
    fn a_wrong_body_names_the_field() {
        for (json, field, message) in [
            (r#"{"tags":[]}"#, "name", "missing field `name`"),
            (r#"{"name":"a","tags":[1]}"#, "tags[0]", "invalid type: integer `1`, expected a string"),
            (r#"{"name":"a","tags":[],"nmae":1}"#, "nmae", "unknown field `nmae`, expected `name` or `tags`"),
            (r#"{"name":null,"tags":[]}"#, "name", "invalid type: null, expected a string"),
            ("[1]", "body", "invalid type: integer `1`, expected a string"),
        ] {
            let (status, errors) = at_fault(json);
            assert_eq!(status, 422);
            if json != "[1]" {
                assert_eq!(errors, [FieldError { field: field.into(), message: message.into() }], "{json}");
            }
        }
    }

    #[test]
    fn what_is_not_json_is_a_bad_request() {
        for json in ["", "{", r#"{"name":"a","tags":[]"#, r#"{"name":"a","tags":[]} x"#, "\u{0}"] {
            assert_eq!(at_fault(json), (400, vec![]), "{json:?}");
        }
    }

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let cursor = Cursor { at: DateTime::from_timestamp_micros(1_794_830_400_123_456).unwrap(), id: Uuid::now_v7() };
        assert_eq!(cursor.to_string().parse::<Cursor>().ok(), Some(cursor));
        for text in ["", ".", "1", "x.y", "-.", "1.1"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn parameters_are_taken_once_and_nothing_is_left() {
        let params = |text: &[(&str, &str)]| Params(text.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect());
        assert_eq!(params(&[]).limit(), Ok(50));
        assert_eq!(params(&[("limit", "200")]).limit(), Ok(200));
        for bad in ["0", "201", "-1", "x", ""] {
            assert!(params(&[("limit", bad)]).limit().is_err(), "{bad}");
        }
        assert!(params(&[("limit", "1"), ("limit", "2")]).limit().is_err());
        assert!(params(&[("unraed", "true")]).finish().is_err());
    }
}
