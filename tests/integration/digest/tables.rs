//! What a database comes to, whatever ids it gave and whenever it wrote: every column of every tenant's table is either looked at,
//! looked at by the name of what it points to, or left out for the reason that stands beside it. A column that is in no list fails
//! the test: whoever adds one has to say which it is.

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use std::collections::{BTreeMap, BTreeSet};

/// A table and what of it counts.
pub(super) struct Table {
    name: &'static str,
    /// Which rows; all if it is empty.
    only: &'static str,
    /// Looked at as they are.
    columns: &'static [&'static str],
    /// Looked at by the name of what they point to.
    by_name: &'static [(&'static str, &'static str)],
    /// Column and reason.
    left_out: &'static [(&'static str, &'static str)],
}

const RANDOM: &str = "a random id";
const CLOCK: &str = "our clock";
const TENANT: &str = "there is one";

/// The tables that counts.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "contacts",
        // Who was met by two names becomes one: what is left of the other depends on the order, and nobody sees it.
        only: "merged_into IS NULL",
        columns: &["name", "name_key", "username", "phone", "phone_raw", "erased_at"],
        by_name: &[("id", "pg_temp.who(id)")],
        left_out: &[
            ("language", "only the API sets it"), ("named_at", "of whichever message brought the name: that a later one repeats it is not written"), ("tenant_id", TENANT),
            ("created_at", CLOCK),
            ("merged_into", "see which rows"),
            ("gone_at", CLOCK),
            ("settle_at", CLOCK),
        ],
    },
    Table {
        name: "contact_aliases",
        only: "",
        columns: &["kind", "value", "erased_before"],
        by_name: &[
            ("contact_id", "pg_temp.who(contact_id)"),
            ("channel_account_id", "pg_temp.account(channel_account_id)"),
        ],
        left_out: &[("tenant_id", TENANT), ("created_at", CLOCK)],
    },
    Table {
        name: "conversations",
        // As of contacts.
        only: "merged_into IS NULL",
        columns: &[

            "listed",
            "unread",
            "messages_in",
            "messages_out",
            "last_message_at",
            "last_message_text",
            "last_message_direction",
            "last_inbound_at",
            "window_expires_at",
            "last_send_seq",
            "resolved_at",
        ],
        by_name: &[
            // As origin: what the customer began is new, what somebody began elsewhere is open.
            ("state", "CASE state WHEN 'new' THEN 'open' ELSE state END"),
            ("contact_id", "pg_temp.who(contact_id)"),
            ("channel_account_id", "pg_temp.account(channel_account_id)"),
        ],
        left_out: &[
            ("tenant_id", TENANT),
            ("id", RANDOM),
            ("origin", "who spoke first, as far as we knew when it began: the customer, or somebody elsewhere"),
            ("merged_into", "see which rows"),
            ("window_opened_at", CLOCK),
            ("created_at", CLOCK),
        ],
    },
    Table {
        name: "messages",
        only: "",
        columns: &["direction", "kind", "text", "content", "media", "refers_to", "provider_message_id", "at", "author"],
        by_name: &[("id", "pg_temp.what(id)"), ("conversation_id", "pg_temp.talk(conversation_id)")],
        left_out: &[("tenant_id", TENANT), ("created_at", CLOCK)],
    },
    Table {
        name: "sends",
        only: "",
        columns: &[
            "seq",
            "lane",
            "recipient_kind",
            "recipient",
            "needs_window",
            "state",
            "wait_reason",
            "due_at",
            "attempts",
            "granted_at",
            "deadline",
            "unknown_at",
            "turn_released",
            "possibly_doubled",
            "provider_message_id",
            "code",
            "reason",
            "sent_at",
            "delivered_at",
            "read_at",
            "failed_at",
            "units",
            "heavy",
            "human_agent",
            "expires_at",
        ],
        by_name: &[
            ("message_id", "pg_temp.what(message_id)"),
            ("conversation_id", "pg_temp.talk(conversation_id)"),
            ("channel_account_id", "pg_temp.account(channel_account_id)"),
        ],
        left_out: &[
            ("tenant_id", TENANT),
            ("attempt_id", RANDOM),
            ("campaign_id", "nobody made a campaign"),
            ("retried_at", "nobody made a campaign"),
            ("retried_attempts", "nobody made a campaign"),
            ("created_at", CLOCK),
            ("updated_at", CLOCK),
        ],
    },
    Table {
        name: "trail",
        // Watermarks are written down as they move a send: one that a further one has overtaken moves nothing. What they come to
        // is in sends and watermarks.
        only: "(SELECT a.provider IN ('whatsapp', 'twilio') FROM sends s JOIN channel_accounts a ON a.id = s.channel_account_id
                WHERE s.message_id = trail.message_id)",
        columns: &["event", "at", "code", "reason"],
        by_name: &[("message_id", "pg_temp.what(message_id)")],
        left_out: &[("tenant_id", TENANT), ("recorded_at", CLOCK)],
    },
    Table {
        name: "provider_refs",
        only: "",
        columns: &["provider_message_id", "parked_state", "parked_at", "parked_code", "parked_reason", "revoked_at"],
        by_name: &[
            ("channel_account_id", "pg_temp.account(channel_account_id)"),
            ("message_id", "pg_temp.what(message_id)"),
            ("echo_message_id", "pg_temp.what(echo_message_id)"),
        ],
        left_out: &[("tenant_id", TENANT), ("created_at", CLOCK)],
    },
    Table {
        name: "parked_reports",
        only: "",
        columns: &["provider_message_id", "state", "event", "at", "code", "reason", "aftermath"],
        by_name: &[("channel_account_id", "pg_temp.account(channel_account_id)")],
        left_out: &[("tenant_id", TENANT), ("parked_at", CLOCK)],
    },
    Table {
        name: "watermarks",
        only: "",
        columns: &["delivered_through", "delivered_at", "read_through", "read_at"],
        by_name: &[
            ("contact_id", "pg_temp.who(contact_id)"),
            ("channel_account_id", "pg_temp.account(channel_account_id)"),
        ],
        left_out: &[("tenant_id", TENANT)],
    },
    Table {
        name: "suppressions",
        only: "",
        columns: &["channel", "purpose", "state", "since", "source", "token_id"],
        by_name: &[("contact_id", "pg_temp.who(contact_id)")],
        left_out: &[("tenant_id", TENANT), ("changed_at", CLOCK)],
    },
    Table {
        name: "channel_accounts",
        only: "",
        columns: &[
            "provider",
            "channel",
            "name",
            "external_id",
            "business_account_id",
            "display_address",
            "state",
            "down_code",
            "down_reason",
            "when_unknown",
            "quality",
            "quality_at",
            "alert_code",
            "alert_reason",
            "alert_at",
            "state_told_at",
            "human_agent",
        ],
        by_name: &[],
        left_out: &[
            ("tenant_id", TENANT),
            ("id", RANDOM),
            ("sealed_secrets", "sealed with a random number"),
            ("secret_key_id", "of the test's own key"),
            ("down_at", CLOCK),
            ("templates_synced_at", CLOCK),
            ("templates_asked_at", "nobody asks here"),
            ("templates_stale_at", CLOCK),
            ("templates_failure", "nobody asks here"),
            ("created_at", CLOCK),
            ("revision", "counts writes"),
            ("portfolio_id", "nobody made one"),
            ("gateway", "there is none"),
            ("webhook_key", "nobody made one"),
            ("down_by_report", "what reports lead to is a sender's"),
            ("probes", "nothing is sent here"),
            ("probe_at", "nothing is sent here"),
            ("probe_with", "nothing is sent here"),
            ("probe_brought_for", "nothing is sent here"),
            ("wake_after", "nothing is sent here"),
        ],
    },
    Table {
        name: "templates",
        only: "",
        columns: &[
            "name",
            "language",
            "status",
            "category",
            "body",
            "variables",
            "quality",
            "reason",
            "status_told_at",
            "quality_told_at",
            "category_told_at",
        ],
        by_name: &[("channel_account_id", "pg_temp.account(channel_account_id)")],
        left_out: &[
            ("tenant_id", TENANT),
            ("id", RANDOM),
            ("kind", "they are a provider's"),
            ("provider_id", "only a sync tells"),
            ("needs", "only a sync tells"),
            ("components", "only a sync tells"),
            ("request", "nothing is made here"),
            ("problem", "nothing is made here"),
            ("files", "they are a provider's"),
            ("synced_at", CLOCK),
            ("created_at", CLOCK),
        ],
    },
    Table {
        name: "limits",
        only: "",
        columns: &["scope", "rate", "current_rate", "burst", "inbound_cost", "wanted", "told_at", "cost", "used"],
        by_name: &[("key", "pg_temp.account(key)")],
        left_out: &[
            ("tenant_id", TENANT),
            ("next_at", "our clock: when the next message may go"),
            ("stopped_until", CLOCK),
            ("lowered_at", CLOCK),
            ("crept_at", CLOCK),
            ("answers_wait_until", CLOCK),
        ],
    },
    Table {
        name: "media",
        only: "",
        columns: &[
            "position",
            "provider",
            "channel",
            "kind",
            "provider_media_id",
            "url",
            "declared_type",
            "declared_sha256",
            "filename",
            "voice",
            "at",
            "state",
            "code",
            "reason",
            "attempts",
            "claims",
            "storage_key",
            "size_bytes",
            "sha256",
            "content_type",
            "width",
            "height",
            "duration_ms",
            "thumbnail_key",
            "keep_until",
        ],
        by_name: &[
            ("message_id", "pg_temp.what(message_id)"),
            ("channel_account_id", "pg_temp.account(channel_account_id)"),
        ],
        left_out: &[
            ("tenant_id", TENANT),
            ("id", RANDOM),
            ("claim", RANDOM),
            ("claimed_until", CLOCK),
            ("examining", RANDOM),
            ("asked_at", "nobody asked for any again"),
            ("created_at", CLOCK),
            ("settled_at", CLOCK),
        ],
    },
    Table {
        name: "contact_profiles",
        only: "",
        columns: &[
            "provider",
            "provider_person_id",
            "state",
            "code",
            "reason",
            "attempts",
            "storage_key",
            "content_type",
            "size_bytes",
        ],
        by_name: &[
            ("contact_id", "pg_temp.who(contact_id)"),
            ("channel_account_id", "pg_temp.account(channel_account_id)"),
        ],
        left_out: &[("tenant_id", TENANT), ("ask_again_at", CLOCK), ("created_at", CLOCK), ("answered_at", CLOCK)],
    },
];

/// Tables that do not count, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("webhook_log", "every delivery is logged, repeated ones, too: that is what it is for"),
    ("outbox", "jobs by random ids, as many as there were batches; what they are for is in media and contact_profiles"),
    ("received_seconds", "what arrived in the last sixteen seconds of our clock"),
    ("pair_meters", "nothing is sent here"),
    ("portfolios", "nobody made one"),
    ("portfolio_people", "nothing is sent here"),
    ("send_attempts", "nothing is sent here"),
    ("template_uses", "nothing is sent here"),
    ("undecided", "nothing is sent here"),
    ("files", "nothing is sent here"),
    ("provider_files", "nothing is sent here"),
    ("campaigns", "nobody made one"),
    ("campaign_recipients", "nobody made a campaign"),
    ("campaign_counts", "nobody made a campaign"),
    ("audit", "nobody of ours did anything"),
    ("events", "what is told of depends on when it came, and is told once"),
    ("clocks", "no tenant's"),
    ("api_tokens", "nobody made one"),
    ("tenant_settings", "nobody changed them"),
    ("idempotency_keys", "nobody asked for anything"),
    ("erased_people", "nobody was erased"),
    ("media_objects", "nothing was fetched"),
    ("webhook_replays", "nothing was played again"),
];

/// Names for what ids point to. Temporary: gone with the connection.
const NAMES: &str = "
    CREATE FUNCTION pg_temp.who(contact uuid) RETURNS text LANGUAGE sql STABLE AS $$
        SELECT string_agg(kind || ' ' || value, ', ' ORDER BY kind, value) FROM contact_aliases WHERE contact_id = contact
    $$;
    CREATE FUNCTION pg_temp.account(account uuid) RETURNS text LANGUAGE sql STABLE AS $$
        SELECT provider || ' ' || external_id FROM channel_accounts WHERE id = account
    $$;
    CREATE FUNCTION pg_temp.talk(conversation uuid) RETURNS text LANGUAGE sql STABLE AS $$
        SELECT pg_temp.who(contact_id) || ' with ' || pg_temp.account(channel_account_id)
        FROM conversations WHERE id = conversation
    $$;
    CREATE FUNCTION pg_temp.what(message uuid) RETURNS text LANGUAGE sql STABLE AS $$
        SELECT coalesce(m.provider_message_id, s.provider_message_id)
        FROM messages m LEFT JOIN sends s ON s.message_id = m.id WHERE m.id = message
    $$;
    ANALYZE contact_aliases, conversations, messages, sends, channel_accounts;
    -- The names are looked up row by row.
    CREATE INDEX IF NOT EXISTS digest_aliases ON contact_aliases (contact_id);
    CREATE INDEX IF NOT EXISTS digest_conversations ON conversations (id);
    CREATE INDEX IF NOT EXISTS digest_messages ON messages (id);
    CREATE INDEX IF NOT EXISTS digest_sends ON sends (message_id);
";

/// Every row of every table that counts, by table, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content(BTreeMap<&'static str, Vec<String>>);

impl Content {
    /// Reads it all.
    pub(super) async fn of(admin: &mut PgConnection) -> Self {
        sqlx::raw_sql(NAMES).execute(&mut *admin).await.unwrap();
        let mut content = BTreeMap::new();
        for table in TABLES {
            let rows = sqlx::query(AssertSqlSafe(table.query())).fetch_all(&mut *admin).await;
            let rows = rows.unwrap_or_else(|error| panic!("{}: {error}", table.name));
            content.insert(table.name, rows.iter().map(|row| row.get(0)).collect());
        }
        Self(content)
    }

    /// One number for all of it.
    pub(super) fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for (table, rows) in &self.0 {
            digest.update(table);
            for row in rows {
                digest.update(row);
                digest.update("\n");
            }
        }
        hex::encode(digest.finalize())
    }

    /// How many rows a table has.
    pub(super) fn rows(&self, table: &str) -> usize {
        self.0[table].len()
    }

    /// What only one of the two has, a few rows of each table.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (table, rows) in &self.0 {
            let (ours, theirs) = (rows.iter().collect::<BTreeSet<_>>(), other.0[table].iter().collect::<BTreeSet<_>>());
            let (only_ours, only_theirs): (Vec<_>, Vec<_>) =
                (ours.difference(&theirs).collect(), theirs.difference(&ours).collect());
            if rows.len() != other.0[table].len() || !only_ours.is_empty() || !only_theirs.is_empty() {
                differences.push(format!(
                    "{table}: {} rows and {}, {} and {} of them alone",
                    rows.len(),
                    other.0[table].len(),
                    only_ours.len(),
                    only_theirs.len()
                ));
                differences.extend(only_ours.into_iter().take(3).map(|row| format!("  in order:  {row}")));
                differences.extend(only_theirs.into_iter().take(3).map(|row| format!("  shuffled: {row}")));
            }
        }
        differences
    }
}

impl Table {
    fn query(&self) -> String {
        let plain = self.columns.iter().map(|column| (*column).to_owned());
        let named = self.by_name.iter().map(|(column, name)| format!("{name} AS {column}"));
        let columns: Vec<String> = plain.chain(named).collect();
        let only = if self.only.is_empty() { "true" } else { self.only };
        format!(
            "SELECT to_jsonb(counted)::text COLLATE \"C\" FROM (SELECT {} FROM {} WHERE {only}) counted ORDER BY 1",
            columns.join(", "),
            self.name
        )
    }

    fn named(&self) -> BTreeSet<String> {
        let by_name = self.by_name.iter().map(|(column, _)| *column);
        let left_out = self.left_out.iter().map(|(column, _)| *column);
        self.columns.iter().copied().chain(by_name).chain(left_out).map(str::to_owned).collect()
    }
}

/// Columns that are in no list, and names in lists that are no columns.
pub(super) async fn unaccounted(admin: &mut PgConnection) -> Vec<String> {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT c.relname::text, a.attname::text
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            AND EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = c.oid AND t.attname = 'tenant_id')",
    )
    .fetch_all(admin)
    .await
    .unwrap();
    let mut there: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (table, column) in columns {
        there.entry(table).or_default().insert(column);
    }
    let mut wrong = Vec::new();
    for (table, columns) in &there {
        let left_out = LEFT_OUT.iter().any(|(name, _)| name == table);
        match TABLES.iter().find(|known| known.name == table) {
            Some(known) => {
                let named = known.named();
                wrong.extend(columns.difference(&named).map(|column| format!("{table}.{column} is in no list")));
                wrong.extend(named.difference(columns).map(|column| format!("{table} has no {column}")));
            }
            None if !left_out => wrong.push(format!("{table} is in no list")),
            None => {}
        }
    }
    wrong
}
