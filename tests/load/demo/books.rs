//! The books: what Postgres holds, beside the stand-in's ledger, person by person.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions, Row};
use url::Url;
use uuid::Uuid;

use super::campaign::{Campaign, Ledger};
use super::stand_in::{StandIn, Told};
use super::verdict::{Ours, Theirs, difference, is_open};

pub(super) struct Books {
    pool: PgPool,
    tenant: String,
}

/// Both sides, and where they differ.
pub(super) struct Comparison {
    pub(super) told: u64,
    pub(super) stored: u64,
    /// Told and stored, by platform.
    pub(super) platforms: BTreeMap<String, (u64, u64)>,
    pub(super) people: u64,
    pub(super) replies: Tally,
    pub(super) campaign: Tally,
    pub(super) taken_twice: u64,
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) quarantined: Counted,
    pub(super) duplicates: Counted,
    /// The campaign's own.
    pub(super) ledger: Ledger,
    pub(super) disagreements: Vec<String>,
}

/// How many rows there are of something.
#[derive(Clone, Copy)]
pub(super) struct Counted {
    /// Made since this run began.
    pub(super) this_run: u64,
    /// In all: earlier runs are in the same database.
    pub(super) in_all: u64,
}

/// The same messages by state, each side in its own words.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) ours: BTreeMap<String, u64>,
    pub(super) theirs: BTreeMap<String, u64>,
}

impl Books {
    pub(super) async fn open_for(url: &Url, tenant: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url.as_str())?.disable_statement_logging();
        let pool = PgPoolOptions::new().max_connections(2).connect_with(options).await.context("open the books")?;
        Ok(Self { pool, tenant: tenant.to_owned() })
    }

    /// What the database's clock says.
    pub(super) async fn now(&self) -> Result<DateTime<Utc>> {
        Ok(sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&self.pool).await?)
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

    /// Conversations in which free words may be sent now, by an account that can send, to people who have not forbidden all of it: this
    /// release's only do on WhatsApp.
    pub(super) async fn open_conversations(&self) -> Result<Vec<Uuid>> {
        Ok(sqlx::query_scalar(
            "SELECT c.id
            FROM conversations c
            JOIN channel_accounts a ON a.tenant_id = c.tenant_id AND a.id = c.channel_account_id
            WHERE c.window_expires_at > now() + interval '5 minutes' AND a.provider = 'whatsapp' AND a.state = 'active' AND c.merged_into IS NULL
                AND NOT EXISTS (
                    SELECT FROM suppressions x
                    WHERE x.tenant_id = c.tenant_id AND x.contact_id = c.contact_id AND x.channel = 'whatsapp' AND x.purpose = 'all'
                        AND x.state = 'opted_out'
                )
            ORDER BY c.last_message_at DESC, c.id",
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The tenant's account and the tenant.
    pub(super) async fn account(&self) -> Result<(Uuid, Uuid)> {
        let row = sqlx::query(
            "SELECT a.id, a.tenant_id
            FROM channel_accounts a
            JOIN control.tenants t ON t.id = a.tenant_id
            WHERE t.slug = $1 AND a.state = 'active' AND a.provider = 'whatsapp'
            ORDER BY a.id
            LIMIT 1",
        )
        .bind(&self.tenant)
        .fetch_optional(&self.pool)
        .await?
        .with_context(|| format!("{} has no active account", self.tenant))?;
        Ok((row.try_get("id")?, row.try_get("tenant_id")?))
    }

    /// The contacts of these numbers.
    pub(super) async fn contacts(&self, tenant: Uuid, phones: &[String]) -> Result<Vec<Uuid>> {
        Ok(sqlx::query_scalar("SELECT id FROM contacts WHERE tenant_id = $1 AND phone = ANY ($2)")
            .bind(tenant)
            .bind(phones)
            .fetch_all(&self.pool)
            .await?)
    }

    /// So many contacts without an address, the same ones each time. The API makes none without a number. Their ids are lower than
    /// anybody's, so that a list of contacts, which begins with the newest, does not begin with them.
    pub(super) async fn contacts_without_address(&self, tenant: Uuid, count: usize) -> Result<Vec<Uuid>> {
        Ok(sqlx::query_scalar(
            "WITH person AS (
                SELECT overlay(md5($1::text || ' has no address ' || n) PLACING '0000' FROM 1)::uuid AS id
                FROM generate_series(1, $2::bigint) AS n
            ),
            made AS (
                INSERT INTO contacts (tenant_id, id, name)
                SELECT $1, id, 'Nobody can reach me' FROM person
                ON CONFLICT DO NOTHING
            )
            SELECT id FROM person",
        )
        .bind(tenant)
        .bind(i64::try_from(count)?)
        .fetch_all(&self.pool)
        .await?)
    }

    /// These replies, as our books have them.
    async fn replies(&self, ids: &[Uuid]) -> Result<Vec<Ours>> {
        let rows = sqlx::query("SELECT message_id, recipient, state, code FROM sends WHERE message_id = ANY ($1)")
            .bind(ids)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(ours).collect()
    }

    /// The campaign's people who were written to, as our books have them.
    async fn people(&self, campaign: &Campaign) -> Result<Vec<Ours>> {
        let rows = sqlx::query(
            "SELECT s.message_id, s.recipient, s.state, s.code
            FROM campaign_recipients r
            JOIN sends s ON s.tenant_id = r.tenant_id AND s.message_id = r.message_id
            WHERE r.campaign_id = $1",
        )
        .bind(campaign.id)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(ours).collect()
    }

    /// How many of the campaign's people have opted out of what it sends.
    async fn opted_out(&self, campaign: &Campaign) -> Result<usize> {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(DISTINCT r.contact_id)
            FROM campaign_recipients r
            JOIN suppressions x ON x.tenant_id = r.tenant_id AND x.contact_id = r.contact_id
            WHERE r.campaign_id = $1 AND x.channel = 'whatsapp' AND x.state = 'opted_out'",
        )
        .bind(campaign.id)
        .fetch_one(&self.pool)
        .await?;
        Ok(usize::try_from(count)?)
    }

    /// How many messages are under way, or have been reported on what the books do not hold yet.
    pub(super) async fn open(&self, stand_in: &StandIn, sent: &[Uuid], campaign: &Campaign) -> Result<u64> {
        let theirs = stand_in.messages().await?;
        let ours = [self.replies(sent).await?, self.people(campaign).await?].concat();
        let none = Theirs::default();
        let open = ours.iter().filter(|ours| is_open(ours, theirs.get(&ours.message_id).unwrap_or(&none)));
        Ok(open.count() as u64)
    }

    pub(super) async fn compare(
        &self,
        stand_in: &StandIn,
        sent: &[Uuid],
        campaign: &Campaign,
        ledger: Ledger,
        began: DateTime<Utc>,
    ) -> Result<Comparison> {
        let mut disagreements = Vec::new();
        let told = stand_in.told().await?;
        let stored = self.compare_inbound(&told, &mut disagreements).await?;
        let mut platforms: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for t in &told {
            let (told, both) = platforms.entry(t.platform.clone()).or_default();
            *told += 1;
            *both += u64::from(stored.contains(&t.id));
        }
        let stored = stored.len() as u64;

        let theirs = stand_in.messages().await?;
        let (replies, people) = (self.replies(sent).await?, self.people(campaign).await?);
        let none = Theirs::default();
        let of = |ours: &Ours| theirs.get(&ours.message_id).unwrap_or(&none);
        disagreements.extend(replies.iter().chain(&people).filter_map(|ours| difference(ours, of(ours))));
        if replies.len() != sent.len() {
            disagreements.push(format!("{} replies were accepted, {} sends are stored", sent.len(), replies.len()));
        }
        let frozen = ledger.frozen_count.unwrap_or(0);
        if frozen != campaign.people as u64 {
            disagreements.push(format!("the campaign is to {} people, {frozen} are frozen", campaign.people));
        }
        let reachable = campaign.people - campaign.without_address - self.opted_out(campaign).await?;
        let persons: BTreeSet<&str> = people.iter().map(|ours| ours.recipient.as_str()).collect();
        if persons.len() != reachable || people.len() != reachable {
            disagreements.push(format!(
                "{reachable} people can be written to; {} messages are for {} of them",
                people.len(),
                persons.len()
            ));
        }
        disagreements.extend(ledger.disagreements.iter().map(|wrong| format!("the campaign's ledger: {wrong}")));
        let known: BTreeSet<Uuid> = replies.iter().chain(&people).map(|ours| ours.message_id).collect();
        for (id, stray) in theirs.iter().filter(|(id, theirs)| theirs.taken > 0 && !known.contains(id)) {
            disagreements.push(format!("the provider took {id} for {}, which nobody sent", stray.recipient));
        }
        let count = async |query: &'static str| -> Result<Counted> {
            let (this_run, in_all): (i64, i64) = sqlx::query_as(query).bind(began).fetch_one(&self.pool).await?;
            Ok(Counted { this_run: u64::try_from(this_run)?, in_all: u64::try_from(in_all)? })
        };
        let tally = |ours: &[Ours]| {
            let mut tally = Tally::default();
            for ours in ours {
                *tally.ours.entry(ours.state.clone()).or_default() += 1;
                *tally.theirs.entry(of(ours).state().to_owned()).or_default() += 1;
            }
            tally
        };
        Ok(Comparison {
            told: told.iter().map(|t| &t.id).collect::<BTreeSet<_>>().len() as u64,
            stored,
            platforms,
            people: told.iter().map(|t| &t.person).collect::<BTreeSet<_>>().len() as u64,
            replies: tally(&replies),
            campaign: tally(&people),
            taken_twice: theirs.values().filter(|theirs| theirs.taken > 1).count() as u64,
            refused: stand_in.refused().await?,
            quarantined: count(
                "SELECT count(*) FILTER (WHERE received_at >= $1), count(*) FROM control.quarantine",
            ).await?,
            duplicates: count(
                "SELECT count(*) FILTER (WHERE received_at >= $1), count(*) FROM webhook_log WHERE outcome = 'duplicate'",
            ).await?,
            ledger,
            disagreements,
        })
    }

    /// Every message told and acknowledged is stored once, for the person who wrote it, and nothing else is. Returns the stored.
    async fn compare_inbound(&self, told: &[Told], disagreements: &mut Vec<String>) -> Result<BTreeSet<String>> {
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
                    if t.names_the_person()
                        && !names
                            .iter()
                            .any(|name| name.trim_start_matches('+') == t.person.trim_start_matches('+')) =>
                {
                    disagreements.push(format!("{} of {} is stored for {names:?}", t.id, t.person));
                }
                Some(_) => {}
            }
        }
        Ok(stored.into_keys().collect())
    }
}

fn ours(row: &PgRow) -> Result<Ours> {
    Ok(Ours {
        message_id: row.try_get("message_id")?,
        recipient: row.try_get("recipient")?,
        state: row.try_get("state")?,
        code: row.try_get("code")?,
    })
}
