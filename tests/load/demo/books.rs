//! The books: what Postgres holds, beside the stand-in's ledger, person by person.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use anyhow::{Context, Result};
use comfy_table::Table;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Row};
use url::Url;
use uuid::Uuid;

use super::stand_in::{StandIn, Told};
use super::{Received, Sent};

pub(super) struct Books {
    pool: PgPool,
}

/// Both sides, and where they differ.
pub(super) struct Comparison {
    told: u64,
    stored: u64,
    people: u64,
    sends: BTreeMap<String, u64>,
    taken: u64,
    taken_twice: u64,
    refused: BTreeMap<String, u64>,
    quarantined: u64,
    duplicates: u64,
    pub(super) disagreements: Vec<String>,
}

impl Books {
    pub(super) async fn open(url: &Url) -> Result<Self> {
        let options = PgConnectOptions::from_str(url.as_str())?.disable_statement_logging();
        let pool = PgPoolOptions::new().max_connections(2).connect_with(options).await.context("open the books")?;
        Ok(Self { pool })
    }

    /// Ids that were told and acknowledged but are not stored.
    pub(super) async fn missing(&self, told: &[Told]) -> Result<Vec<String>> {
        let ids: BTreeSet<&str> = told.iter().map(|t| t.id.as_str()).collect();
        let ids: Vec<&str> = ids.into_iter().collect();
        Ok(sqlx::query_scalar(
            "SELECT id FROM unnest($1::text[]) AS told (id)
            WHERE NOT EXISTS (SELECT FROM messages m WHERE m.direction = 'in' AND m.provider_message_id = told.id)",
        )
        .bind(&ids)
        .fetch_all(&self.pool)
        .await?)
    }

    /// Conversations in which free words may be sent now.
    pub(super) async fn open_conversations(&self) -> Result<Vec<Uuid>> {
        Ok(sqlx::query_scalar(
            "SELECT id FROM conversations WHERE window_expires_at > now() + interval '5 minutes' ORDER BY last_message_at DESC, id",
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// How many of these sends are still under way.
    pub(super) async fn unsettled(&self, ids: &[Uuid]) -> Result<u64> {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM sends WHERE message_id = ANY ($1) AND state IN ('waiting', 'queued', 'sending', 'unknown')",
        )
        .bind(ids)
        .fetch_one(&self.pool)
        .await?;
        Ok(u64::try_from(count)?)
    }

    pub(super) async fn compare(&self, stand_in: &StandIn, sent: &[Uuid]) -> Result<Comparison> {
        let mut disagreements = Vec::new();
        let told = stand_in.told().await?;
        let stored = self.compare_inbound(&told, &mut disagreements).await?;

        let taken = stand_in.taken().await?;
        let mut times: BTreeMap<Uuid, u64> = BTreeMap::new();
        for t in &taken {
            *times.entry(t.message_id).or_default() += 1;
        }
        let rows = sqlx::query("SELECT message_id, state, recipient FROM sends WHERE message_id = ANY ($1)")
            .bind(sent)
            .fetch_all(&self.pool)
            .await?;
        let mut sends: BTreeMap<String, u64> = BTreeMap::new();
        let mut by_person: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for row in &rows {
            let (id, state): (Uuid, String) = (row.try_get("message_id")?, row.try_get("state")?);
            let recipient: String = row.try_get("recipient")?;
            *sends.entry(state.clone()).or_default() += 1;
            let at_provider = times.get(&id).copied().unwrap_or(0);
            let person = by_person.entry(recipient.trim_start_matches('+').to_owned()).or_default();
            person.0 += u64::from(matches!(state.as_str(), "sent" | "delivered" | "read"));
            person.1 += u64::from(at_provider > 0);
            let fits = match state.as_str() {
                "sent" | "delivered" | "read" => at_provider == 1,
                // Refused at the call, or taken and reported as failed later.
                "failed" => at_provider == 0 || taken.iter().any(|t| t.message_id == id && t.failed),
                // Held: the line broke, no evidence came, a person decides; the provider knows that it did not take it.
                "cancelled" | "held" => at_provider == 0,
                // What was not finished in time.
                _ => false,
            };
            if !fits {
                disagreements
                    .push(format!("message {id} to {recipient} is {state}, the provider took it {at_provider} times"));
            }
        }
        if rows.len() != sent.len() {
            disagreements.push(format!("{} replies were accepted, {} sends are stored", sent.len(), rows.len()));
        }
        let known: BTreeSet<Uuid> = sent.iter().copied().collect();
        for t in taken.iter().filter(|t| !known.contains(&t.message_id)) {
            disagreements.push(format!("the provider took {} for {}, which nobody sent", t.message_id, t.recipient));
        }
        for (person, (ours, theirs)) in by_person.iter().filter(|(_, (ours, theirs))| ours > theirs) {
            disagreements.push(format!("{person}: {ours} sent by our books, {theirs} by the provider's"));
        }
        let count = async |query: &'static str| -> Result<u64> {
            let count: i64 = sqlx::query_scalar(query).fetch_one(&self.pool).await?;
            Ok(u64::try_from(count)?)
        };
        Ok(Comparison {
            told: told.iter().map(|t| &t.id).collect::<BTreeSet<_>>().len() as u64,
            stored,
            people: told.iter().map(|t| &t.person).collect::<BTreeSet<_>>().len() as u64,
            sends,
            taken: times.len() as u64,
            taken_twice: times.values().filter(|count| **count > 1).count() as u64,
            refused: stand_in.refused().await?,
            quarantined: count("SELECT count(*) FROM control.quarantine").await?,
            duplicates: count("SELECT count(*) FROM webhook_log WHERE outcome = 'duplicate'").await?,
            disagreements,
        })
    }

    /// Every message told and acknowledged is stored once, for the person who wrote it, and nothing else is.
    async fn compare_inbound(&self, told: &[Told], disagreements: &mut Vec<String>) -> Result<u64> {
        let ids: Vec<&str> = told.iter().map(|t| t.id.as_str()).collect::<BTreeSet<_>>().into_iter().collect();
        let rows = sqlx::query(
            "SELECT m.provider_message_id, array_agg(DISTINCT a.value) AS names, count(DISTINCT m.id) AS times
            FROM messages m
            JOIN conversations c ON c.tenant_id = m.tenant_id AND c.id = m.conversation_id
            JOIN contact_aliases a ON a.tenant_id = c.tenant_id AND a.contact_id = c.contact_id
            WHERE m.direction = 'in' AND m.provider_message_id = ANY ($1)
            GROUP BY m.provider_message_id",
        )
        .bind(&ids)
        .fetch_all(&self.pool)
        .await?;
        let mut stored: BTreeMap<String, (Vec<String>, i64)> = BTreeMap::new();
        for row in rows {
            let id: String = row.try_get("provider_message_id")?;
            stored.insert(id, (row.try_get("names")?, row.try_get("times")?));
        }
        for t in told {
            match stored.get(&t.id) {
                None => disagreements.push(format!("{} of {} was acknowledged and is not stored", t.id, t.person)),
                Some((_, times)) if *times != 1 => {
                    disagreements.push(format!("{} of {} is stored {times} times", t.id, t.person));
                }
                Some((names, _))
                    if t.names_the_person() && !names.iter().any(|name| name.trim_start_matches('+') == t.person) =>
                {
                    disagreements.push(format!("{} of {} is stored for {names:?}", t.id, t.person));
                }
                Some(_) => {}
            }
        }
        Ok(stored.len() as u64)
    }
}

impl Comparison {
    pub(super) fn table(&self, received: &Received, sent: &Sent) -> Table {
        let answered = |status: &str| -> u64 { received.answers.values().filter_map(|a| a.get(status)).sum() };
        let mut table = Table::new();
        table.set_header(["", "Mijra", "the provider's stand-in"]);
        let mut row = |what: &str, ours: String, theirs: String| {
            table.add_row([what.to_owned(), ours, theirs]);
        };
        let refused: u64 = received.webhooks - answered("200");
        row("webhooks accepted", String::new(), answered("200").to_string());
        row("webhooks refused", format!("{} kept in quarantine", self.quarantined), refused.to_string());
        row("webhooks that were only duplicates", self.duplicates.to_string(), String::new());
        row("messages from people", self.stored.to_string(), self.told.to_string());
        row("people", String::new(), self.people.to_string());
        let rate = format!(
            "{:.0}/s, p50 {:.1} ms, p99 {:.1} ms",
            received.webhooks as f64 / received.seconds,
            received.p50_ms,
            received.p99_ms
        );
        row("webhooks, rate and answer", String::new(), rate);
        row("replies accepted", sent.ids.len().to_string(), String::new());
        let (p50, p99) = (sent.latency_us.value_at_quantile(0.5), sent.latency_us.value_at_quantile(0.99));
        let rate = format!(
            "{:.0}/s, p50 {:.1} ms, p99 {:.1} ms",
            sent.ids.len() as f64 / sent.seconds,
            p50 as f64 / 1e3,
            p99 as f64 / 1e3
        );
        row("replies, rate and answer", rate, String::new());
        for (state, count) in &self.sends {
            row(&format!("sends {state}"), count.to_string(), String::new());
        }
        row("messages taken", String::new(), self.taken.to_string());
        row("taken twice", String::new(), self.taken_twice.to_string());
        for (code, count) in &self.refused {
            row(&format!("refusals, code {code}"), String::new(), count.to_string());
        }
        table
    }
}
