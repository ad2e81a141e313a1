//! The resources of the API, each in a file of one order: router, bodies, views, handlers, unit tests.

pub mod accounts;
pub mod audit;
pub mod campaigns;
pub mod contacts;
pub mod conversations;
pub mod events;
pub mod files;
pub mod limits;
pub mod media;
pub mod messages;
pub mod templates;
pub mod webhooks;

use serde::Serialize;
use utoipa::ToSchema;

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Where the next page begins; pass it as `cursor`. Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Of at most `limit` rows out of `limit + 1` asked for: one more says that there is another page.
    fn of<R>(mut rows: Vec<R>, limit: i64, cursor: impl Fn(&R) -> String, view: impl FnMut(R) -> T) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(cursor);
        Self { data: rows.into_iter().map(view).collect(), next }
    }
}
