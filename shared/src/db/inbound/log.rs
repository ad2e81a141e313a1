//! The raw log: every webhook as it came, with what became of it.

use crate::{
    db::{error::Result, scope::FleetTx},
    domain::{
        channel::Provider,
        ids::{ChannelAccountId, TenantId, WebhookId},
    },
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use std::{fmt, str::FromStr};
use utoipa::ToSchema;
use uuid::Uuid;

/// What can become of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookOutcome)]
pub enum Outcome {
    /// Something of it was stored.
    Stored,
    /// All of it was known.
    Duplicate,
    /// Nothing in it was about a message.
    Notice,
    /// Some of it could not be read.
    PartlyBad,
    /// It told of somebody who was erased: its body is not kept.
    Erased,
}

impl Outcome {
    /// All of them, in the order in which they are shown.
    pub const ALL: &'static [Outcome] =
        &[Outcome::Stored, Outcome::Duplicate, Outcome::Notice, Outcome::PartlyBad, Outcome::Erased];

    /// The name in SQL and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Stored => "stored",
            Outcome::Duplicate => "duplicate",
            Outcome::Notice => "notice",
            Outcome::PartlyBad => "partly_bad",
            Outcome::Erased => "erased",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that no outcome is called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an outcome; there are {}", Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownOutcome;

impl FromStr for Outcome {
    type Err = UnknownOutcome;
    fn from_str(text: &str) -> std::result::Result<Self, UnknownOutcome> {
        Self::ALL.iter().copied().find(|outcome| outcome.as_str() == text).ok_or(UnknownOutcome)
    }
}

/// One webhook of one tenant.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose.
    pub tenant_id: TenantId,
    /// When it was received.
    pub received_at: DateTime<Utc>,
    /// Which.
    pub webhook_id: WebhookId,
    /// From whom.
    pub provider: Provider,
    /// For which account, if it was one.
    pub channel_account_id: Option<ChannelAccountId>,
    /// What became of it.
    pub outcome: Outcome,
    /// More, for a person.
    pub detail: Option<String>,
    /// The query of the URL it was sent to, where that is kept.
    pub query: Option<String>,
    /// The body, LZ4 with its size before it.
    pub body_lz4: Vec<u8>,
    /// How large the body was.
    pub body_bytes: usize,
}

/// Writes the log. A webhook that is in it already stays as it is.
///
/// # Errors
/// If the database does not answer.
pub async fn insert(tx: &mut FleetTx, entries: &[Entry]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = entries.iter().map(|e| e.tenant_id.0).collect();
    let times: Vec<DateTime<Utc>> = entries.iter().map(|e| e.received_at).collect();
    let ids: Vec<Uuid> = entries.iter().map(|e| e.webhook_id.0).collect();
    let providers: Vec<String> = entries.iter().map(|e| e.provider.as_str().to_owned()).collect();
    let accounts: Vec<Option<Uuid>> = entries.iter().map(|e| e.channel_account_id.map(|id| id.0)).collect();
    let outcomes: Vec<String> = entries.iter().map(|e| e.outcome.as_str().to_owned()).collect();
    let details: Vec<Option<String>> = entries.iter().map(|e| e.detail.clone()).collect();
    let queries: Vec<Option<String>> = entries.iter().map(|e| e.query.clone()).collect();
    let bodies: Vec<&[u8]> = entries.iter().map(|e| e.body_lz4.as_slice()).collect();
    let sizes: Vec<i32> = entries.iter().map(|e| i32::try_from(e.body_bytes).unwrap_or(i32::MAX)).collect();
    sqlx::query!(
        "INSERT INTO webhook_log
            (tenant_id, received_at, webhook_id, provider, channel_account_id, outcome, detail, query, body_lz4, body_bytes)
        SELECT * FROM unnest(
            $1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::bytea[],
            $10::int[]
        )
        ON CONFLICT (tenant_id, received_at, webhook_id) DO NOTHING",
        &tenants,
        &times,
        &ids,
        &providers,
        &accounts as &[Option<Uuid>],
        &outcomes,
        &details as &[Option<String>],
        &queries as &[Option<String>],
        &bodies as &[&[u8]],
        &sizes,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_has_one_name_everywhere() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.as_str().parse(), Ok(*outcome));
            let in_json = serde_json::Value::from(outcome.as_str());
            assert_eq!(serde_json::from_value::<Outcome>(in_json).unwrap(), *outcome);
        }
        for wrong in ["", "Stored", "a\0", "accepted"] {
            let why = wrong.parse::<Outcome>().unwrap_err().to_string();
            assert_eq!(why, "is not an outcome; there are stored, duplicate, notice, partly_bad, erased", "{wrong}");
        }
    }
}
