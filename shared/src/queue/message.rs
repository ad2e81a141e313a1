//! A [`Job`] as what lapin sends and receives: properties, headers and a body.

use crate::{
    domain::ids::JobId,
    jobs::{Headers, Job},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, MAX_SHORT_STRING_LENGTH},
};

/// On disk before it is confirmed, also where a queue is not a quorum queue.
const PERSISTENT: u8 = 2;
/// All headers must fit into one frame (128 KiB by default), and an error's first words say enough.
const MAX_ERROR_BYTES: usize = 2048;
/// What a job is called whose own kind cannot be read.
const UNREADABLE: &str = "unreadable";

/// The properties and headers of a job.
pub(super) fn properties(job: &Job) -> BasicProperties {
    let Headers { version, tenant, attempt, traceparent, created_at, first_error, last_error } = &job.headers;
    let mut headers = FieldTable::default();
    headers.insert("version".into(), AMQPValue::LongInt(i32::from(*version)));
    headers.insert("attempt".into(), AMQPValue::LongLongInt(i64::from(*attempt)));
    let texts = [
        ("tenant", tenant.map(|tenant| tenant.to_string())),
        ("traceparent", traceparent.clone()),
        ("first_error", first_error.clone()),
        ("last_error", last_error.clone()),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            headers.insert(name.into(), AMQPValue::LongString(shortened(&value, MAX_ERROR_BYTES).into()));
        }
    }
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(job.id.to_string().into())
        .with_type(shortened(&job.kind, MAX_SHORT_STRING_LENGTH).into())
        .with_timestamp(u64::try_from(created_at.timestamp()).unwrap_or(0))
        .with_headers(headers)
}

/// The job, or what is wrong with its headers.
pub(super) fn job(properties: &BasicProperties, body: Bytes) -> Result<Job, String> {
    let id = id(properties).ok_or("no message_id, or not a UUID")?;
    let kind = kind(properties).ok_or("no type")?;
    let created_at = timestamp(properties).ok_or("no timestamp")?;
    let version = number(properties, "version").and_then(|n| u16::try_from(n).ok()).ok_or("no version")?;
    let tenant = match text(properties, "tenant") {
        Some(tenant) => Some(tenant.parse().map_err(|_| "the tenant is not a UUID")?),
        None => None,
    };
    let headers = Headers { version, tenant, created_at, ..lenient(properties, created_at) };
    Ok(Job { id, kind, headers, body })
}

/// What can be saved of a job whose headers cannot be read, so that it can lie among the dead letters with its bytes.
pub(super) fn salvage(properties: &BasicProperties, body: Bytes, now: DateTime<Utc>) -> Job {
    Job {
        id: id(properties).unwrap_or_else(JobId::new),
        kind: kind(properties).unwrap_or_else(|| UNREADABLE.to_owned()),
        headers: lenient(properties, timestamp(properties).unwrap_or(now)),
        body,
    }
}

/// The id of the job that these properties name.
pub(super) fn id(properties: &BasicProperties) -> Option<JobId> {
    properties.message_id().as_ref()?.as_str().parse().ok()
}

/// How often the broker has handed it out before.
pub(super) fn returns(properties: &BasicProperties) -> u32 {
    number(properties, "x-delivery-count").and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

/// What the broker itself noted when it moved a delivery to the dead letters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Death {
    /// Its reason, e.g. `delivery_limit`.
    pub reason: String,
    /// When.
    pub at: Option<DateTime<Utc>>,
}

/// The latest entry of `x-death`, where there is one.
pub(super) fn death(properties: &BasicProperties) -> Option<Death> {
    let AMQPValue::FieldArray(deaths) = properties.headers().as_ref()?.inner().get("x-death")? else { return None };
    let AMQPValue::FieldTable(latest) = deaths.as_slice().first()? else { return None };
    let at = match latest.inner().get("time") {
        Some(AMQPValue::Timestamp(at)) => date(*at),
        _ => None,
    };
    Some(Death { reason: latest.inner().get("reason").and_then(as_text)?, at })
}

fn lenient(properties: &BasicProperties, created_at: DateTime<Utc>) -> Headers {
    Headers {
        version: number(properties, "version").and_then(|n| u16::try_from(n).ok()).unwrap_or(0),
        tenant: text(properties, "tenant").and_then(|tenant| tenant.parse().ok()),
        attempt: number(properties, "attempt").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        traceparent: text(properties, "traceparent"),
        created_at,
        first_error: text(properties, "first_error"),
        last_error: text(properties, "last_error"),
    }
}

fn kind(properties: &BasicProperties) -> Option<String> {
    properties.kind().as_ref().map(|kind| kind.as_str().to_owned())
}

pub(super) fn timestamp(properties: &BasicProperties) -> Option<DateTime<Utc>> {
    properties.timestamp().and_then(date)
}

fn date(seconds: u64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

fn text(properties: &BasicProperties, name: &str) -> Option<String> {
    header(properties, name).and_then(as_text)
}

fn as_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// Any of the broker's integers: other clients, and the broker itself, choose other widths than we do.
fn number(properties: &BasicProperties, name: &str) -> Option<i64> {
    match header(properties, name)? {
        AMQPValue::ShortShortInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortShortUInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortUInt(n) => Some(i64::from(*n)),
        AMQPValue::LongInt(n) => Some(i64::from(*n)),
        AMQPValue::LongUInt(n) => Some(i64::from(*n)),
        AMQPValue::LongLongInt(n) => Some(*n),
        _ => None,
    }
}

fn shortened(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::TenantId;
    use lapin::types::FieldArray;

    fn full() -> Job {
        let now = DateTime::from_timestamp(1_795_000_000, 0).unwrap();
        let mut job = Job::new("outbound.send", 3, Some(TenantId::new()), now, "{}");
        job.headers.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        job.charged("first").charged("last")
    }

    #[test]
    fn a_job_comes_back_as_it_went() {
        for sent in [full(), Job::new("inbound.bundle", 1, None, DateTime::UNIX_EPOCH, "x")] {
            assert_eq!(job(&properties(&sent), sent.body.clone()), Ok(sent));
        }
    }

    #[test]
    fn it_is_persistent() {
        assert_eq!(properties(&full()).delivery_mode(), &Some(2));
    }

    #[test]
    fn a_very_long_error_is_cut_at_a_character() {
        let sent = full().charged(&"é".repeat(5000));
        let read = job(&properties(&sent), Bytes::new()).unwrap();
        let kept = read.headers.last_error.unwrap();
        assert!(kept.len() <= MAX_ERROR_BYTES && kept.chars().all(|c| c == 'é'));
    }

    #[test]
    fn unreadable_headers_say_what_is_missing_and_the_rest_is_saved() {
        let broken = BasicProperties::default().with_type("outbound.send".into());
        assert_eq!(job(&broken, Bytes::new()), Err("no message_id, or not a UUID".into()));
        let saved = salvage(&broken, "body".into(), DateTime::UNIX_EPOCH);
        assert_eq!((saved.kind.as_str(), &saved.body[..], saved.headers.attempt), ("outbound.send", &b"body"[..], 0));
    }

    #[test]
    fn the_brokers_own_notes_are_read() {
        let mut entry = FieldTable::default();
        entry.insert("reason".into(), AMQPValue::LongString("delivery_limit".into()));
        entry.insert("time".into(), AMQPValue::Timestamp(7));
        let mut headers = FieldTable::default();
        headers.insert("x-death".into(), AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::FieldTable(entry)])));
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(4));
        let properties = BasicProperties::default().with_headers(headers);
        assert_eq!(death(&properties), Some(Death { reason: "delivery_limit".into(), at: date(7) }));
        assert_eq!(returns(&properties), 4);
    }
}
