//! `POST /api/{tenant}/contacts/import`: many contacts at once, read as they come.

use crate::{
    auth::{Caller, ContactsWrite},
    body::{self, Unread},
    error::{Kind, Problem, Result},
    imports::Turn,
    state::App,
};
use axum::{
    Json as View,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, header},
};
use serde::Serialize;
use shared::import::{self, Format, Report, RowError, Stopped, Target, Unreadable, Why};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Largest import: as many rows as are read, of a number and a name, need less.
const MAX_BODY_BYTES: usize = 512 * 1024 * 1024;
/// What takes longer to come is sent by a line too slow for it, or holds its turn on purpose.
const TIME_LIMIT: Duration = Duration::from_secs(3600);
/// The last batch, too, is written or given up by then: that is bounded by the database's own limits.
pub(crate) const ANSWERED_WITHIN: Duration = TIME_LIMIT.saturating_add(Duration::from_secs(300));
const CONTENT_TYPE: &str = "Content-Type";

/// The route.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(import))
}

/// What became of an import's rows. Every row is one of created, existing, duplicate and rejected.
#[derive(Serialize, ToSchema)]
pub(super) struct ImportReport {
    /// All rows, without the header and empty lines.
    rows: u64,
    /// Contacts made.
    created: u64,
    /// Numbers that were a contact's already. It has taken the name if it had none.
    existing: u64,
    /// Rows whose number an earlier row had: the first one counts.
    duplicates: u64,
    /// Rows that could not be used.
    rejected: u64,
    /// The first 100 of those.
    errors: Vec<ImportError>,
    /// Rows rejected that are not among `errors`.
    errors_left_out: u64,
}

/// Why a row was rejected.
#[derive(Serialize, ToSchema)]
pub(super) struct ImportError {
    /// Counted as a spreadsheet does: the first row of the file is 1, the header and empty lines count.
    row: u64,
    /// The field at fault; null if it is the whole row.
    field: Option<String>,
    /// What is wrong with it.
    detail: String,
}

impl From<Report> for ImportReport {
    fn from(report: Report) -> Self {
        let Report { rows, created, existing, duplicates, rejected, errors, errors_left_out } = report;
        let error = |RowError { row, field, detail }| ImportError { row, field, detail };
        let errors = errors.into_iter().map(error).collect();
        Self { rows, created, existing, duplicates, rejected, errors, errors_left_out }
    }
}

/// Imports contacts from CSV or newline-delimited JSON.
#[utoipa::path(
    post, path = "/contacts/import", tag = "contacts",
    description = "Needs `contacts:write`. The columns or fields are `phone`, which is needed, and `name`. The body is read as it \
        comes, at most 512 MiB, 3,500,000 rows and an hour, and stored in batches. A row that cannot be used is reported and stops \
        nothing. An import that ends early says in `stored` how many contacts are stored; it can be sent again as it is, for a \
        number that is known makes no second contact.",
    params(("tenant" = String, Path)),
    request_body(content(
        (String = "text/csv", example = "phone,name\n+1 555 777 0142,Ada\n"),
        (String = "application/x-ndjson", example = "{\"phone\":\"+1 555 777 0142\",\"name\":\"Ada\"}\n"),
    )),
    responses(
        (status = OK, body = ImportReport),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn import(State(app): State<App>, caller: Caller<ContactsWrite>, request: Request) -> Result<View<ImportReport>> {
    let format = format(request.headers());
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = body::pieces(request.into_body(), length, MAX_BODY_BYTES, TIME_LIMIT).await;
    let body = body
        .map_err(|unread| problem(Stopped { report: Report::default(), why: Why::Broken(Broken::Unread(unread)) }))?;
    let turn = format.and_then(|format| match app.imports.begin(caller.tenant_id) {
        Some(turn) => Ok((format, turn)),
        None => Err(busy()),
    });
    let (format, turn) = match turn {
        Ok(begun) => begun,
        Err(problem) => {
            body.hear_out().await;
            return Err(problem.into());
        }
    };
    let target = Target {
        databases: &app.databases,
        placement: &caller.placement,
        tenant_id: caller.tenant_id,
        actor: caller.actor(),
    };
    let mut pieces = Pieces { body, turn };
    match import::contacts(target, format, &mut pieces, |_| {}).await {
        Ok(report) => Ok(View(report.into())),
        Err(stopped) => {
            let problem = problem(stopped);
            // The turn is for importing.
            let Pieces { body, turn } = pieces;
            drop(turn);
            body.hear_out().await;
            Err(problem.into())
        }
    }
}

fn format(headers: &HeaderMap) -> Result<Format, Problem> {
    let refuse = |header, message| Err(Problem::new(Kind::NotImportable).field(header, message));
    if headers.get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity") {
        return refuse("Content-Encoding", "must be identity: compressed bodies are not read");
    }
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = value.split(';').map(str::trim);
    let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "text/csv" => Format::Csv,
        "application/x-ndjson" => Format::Ndjson,
        _ => return refuse(CONTENT_TYPE, "must be text/csv or application/x-ndjson"),
    };
    let charset = parts.find_map(|part| part.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("charset")));
    match charset.map(|(_, charset)| charset.trim_matches('"')) {
        Some(charset) if !["utf-8", "us-ascii"].iter().any(|known| known.eq_ignore_ascii_case(charset)) => {
            refuse(CONTENT_TYPE, "must have the charset utf-8")
        }
        _ => Ok(format),
    }
}

fn busy() -> Problem {
    let detail = "As many imports are under way as can be. Nothing was read; send it again when one has ended.";
    Problem::new(Kind::Unavailable).detail(detail).retry_after(Duration::from_secs(10))
}

/// The body, as long as the process goes on.
struct Pieces {
    body: body::Pieces,
    turn: Turn,
}

/// Why there is no more of a body.
enum Broken {
    Unread(Unread),
    Stopping,
}

impl import::Pieces for Pieces {
    type Broken = Broken;

    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        tokio::select! {
            biased;
            () = self.turn.stopping() => Err(Broken::Stopping),
            piece = self.body.next() => piece.map_err(Broken::Unread),
        }
    }
}

fn problem(stopped: Stopped<Broken>) -> Problem {
    let (problem, why) = match stopped.why {
        // Nothing can be stored yet.
        Why::Unreadable(Unreadable::Columns(wrong)) => {
            let detail = "Nothing is stored: mend the header row, then send the file again. It names the columns phone and, if there \
                          are names, name, with commas between them.";
            let start = Problem::new(Kind::BadColumns).detail(detail);
            return wrong.into_iter().fold(start, |problem, wrong| problem.field(wrong.column, wrong.message));
        }
        Why::Unreadable(why @ Unreadable::NotUtf8 { .. }) => (Problem::new(Kind::NotText), why.to_string()),
        Why::Unreadable(why @ Unreadable::TooManyRows) => (Problem::new(Kind::TooLarge), why.to_string()),
        Why::Broken(Broken::Unread(unread)) => self::unread(unread),
        Why::Broken(Broken::Stopping) => {
            let problem = Problem::new(Kind::Unavailable).retry_after(Duration::from_secs(2));
            (problem, "this process is being stopped".to_owned())
        }
        Why::Database(error) => (Problem::of_database(&error), "the database did not take the next batch".to_owned()),
    };
    let stored = stopped.report.stored();
    let detail = format!(
        "The import ended early: {why}. So far {stored} contacts are stored; a number that is stored makes no second contact \
         when the import is sent again."
    );
    problem.detail(detail).stored(stored)
}

fn unread(unread: Unread) -> (Problem, String) {
    match unread {
        Unread::TooLarge => (Problem::new(Kind::TooLarge), format!("it has more than {MAX_BODY_BYTES} bytes")),
        Unread::Broken => (Problem::new(Kind::BodyBroken), "the rest of the body did not come".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn what_can_be_imported_is_known_by_its_type() {
        for (value, expected) in [
            ("text/csv", Some(Format::Csv)),
            ("Text/CSV; charset=UTF-8; header=present", Some(Format::Csv)),
            ("text/csv; Charset=\"utf-8\"", Some(Format::Csv)),
            ("application/x-ndjson", Some(Format::Ndjson)),
            ("text/csv; charset=iso-8859-1", None),
            ("application/json", None),
            ("text/csvx", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]);
            let read = format(&headers);
            assert_eq!(read.as_ref().ok(), expected.as_ref(), "{value}");
            assert!(read.is_ok() || read.is_err_and(|problem| problem.errors[0].field == CONTENT_TYPE));
        }
    }

    #[test]
    fn what_is_compressed_is_refused() {
        let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("text/csv"))]);
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(format(&headers).unwrap_err().errors[0].field, "Content-Encoding");
    }

    #[test]
    fn the_report_is_shown_as_the_command_line_shows_it() {
        let errors = vec![RowError { row: 17, field: Some("phone".into()), detail: "is missing".into() }];
        let report = Report { rows: 1, rejected: 1, errors, ..Report::default() };
        let shown = serde_json::to_value(ImportReport::from(report.clone())).unwrap();
        assert_eq!(shown, serde_json::to_value(report).unwrap());
        assert_eq!(shown["errors"][0], serde_json::json!({"row": 17, "field": "phone", "detail": "is missing"}));
    }
}
