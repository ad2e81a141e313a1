//! Files that people sent, in a fleet: accounts at every provider, messages with files, and what became of these, held against the
//! books of who served them.

use crate::{
    database::Role,
    fleet::{Builder, Fleet},
    programs::Program,
    sandbox::files::{Files, META_TOKEN, TWILIO_SID, TWILIO_TOKEN},
};
use chrono::Utc;
use secrecy::SecretString;
use serde_json::json;
use sha2::{Digest, Sha256};
use shared::{
    db::{
        Placement, channel_accounts,
        media::{self, NewMedia, profiles::Nameless},
    },
    domain::{
        channel::{Channel, Provider},
        ids::{ChannelAccountId, ContactId, ConversationId, MessageId, TenantId},
        messages::{MediaRef, MessageKind},
    },
    seal::Keyring,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The key that every fleet's secrets are sealed with.
pub const SECRET_KEYS: &str = "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A tenant with an account at every provider, and somebody who writes to each.
pub struct Stage {
    tenant_id: TenantId,
    accounts: BTreeMap<Provider, (ChannelAccountId, ConversationId, ContactId)>,
}

/// A file as the database has it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Row {
    /// The provider's id of its message.
    pub provider_message_id: String,
    /// waiting, stored, failed, refused or expired.
    pub state: String,
    /// A word why.
    pub code: Option<String>,
    /// A sentence why.
    pub reason: Option<String>,
    /// Attempts that failed.
    pub attempts: i32,
    /// Its key in storage.
    pub storage_key: Option<String>,
    /// Its size.
    pub size_bytes: Option<i64>,
    /// Its digest.
    pub sha256: Option<Vec<u8>>,
    /// Its type.
    pub content_type: Option<String>,
    /// Its width.
    pub width: Option<i32>,
    /// The key of its thumbnail.
    pub thumbnail_key: Option<String>,
}

/// Somebody's file, by reference.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Who has it.
    pub provider: Provider,
    /// The provider's id of its message.
    pub message: String,
    /// What the message is.
    pub kind: MessageKind,
    /// The file.
    pub file: MediaRef,
}

/// A fleet of what fetches files, from these hosts and nowhere else. `localhost` counts as a provider's host, so that it can be seen
/// what becomes of a name that leads to this machine.
pub fn fleet(files: &Files) -> Builder {
    [Program::Outbound, Program::Campaign, Program::Inbound]
        .into_iter()
        .fold(Fleet::builder(), |builder, program| builder.count(program, 0))
        .env_of(Program::Media, "WHATSAPP_BASE_URL", files.api_url())
        .env_of(Program::Media, "MESSENGER_BASE_URL", files.api_url())
        .env_of(Program::Media, "INSTAGRAM_BASE_URL", files.api_url())
        .env_of(Program::Media, "TWILIO_BASE_URL", files.api_url())
        .env_of(Program::Media, "MEDIA_ALLOWED_HOSTS", format!("{},localhost", files.cdn_url()))
}

impl Stage {
    /// Makes the accounts, with the secrets that the hosts want.
    ///
    /// # Panics
    /// If the database refuses.
    pub async fn new(fleet: &Fleet) -> Self {
        let tenant_id = fleet.tenant.id;
        let keyring = Keyring::parse(&SecretString::from(SECRET_KEYS)).expect("a key");
        let mut admin = fleet.database.admin().await;
        let mut accounts = BTreeMap::new();
        for provider in Provider::WITH_WEBHOOKS.iter().copied() {
            let (account, contact, conversation) = (ChannelAccountId::new(), ContactId::new(), ConversationId::new());
            let token = if provider == Provider::Twilio { TWILIO_TOKEN } else { META_TOKEN };
            let secrets = json!({"access_token": token}).to_string();
            let sealed = keyring.seal(&channel_accounts::seal_context(account), secrets.as_bytes());
            sqlx::query(
                "INSERT INTO channel_accounts
                    (tenant_id, id, provider, name, external_id, business_account_id, sealed_secrets, secret_key_id)
                VALUES ($1, $2, $3, $3, $4, $5, $6, $7)",
            )
            .bind(tenant_id.0)
            .bind(account.0)
            .bind(provider.as_str())
            .bind(format!("99{}", provider as u8))
            .bind((provider == Provider::Twilio).then_some(TWILIO_SID))
            .bind(&sealed.bytes)
            .bind(&sealed.key_id)
            .execute(&mut admin)
            .await
            .expect("an account");
            sqlx::query("INSERT INTO contacts (tenant_id, id) VALUES ($1, $2)")
                .bind(tenant_id.0)
                .bind(contact.0)
                .execute(&mut admin)
                .await
                .expect("a contact");
            sqlx::query(
                "INSERT INTO conversations
                    (tenant_id, id, contact_id, channel_account_id, state, origin, last_message_at, last_message_direction)
                VALUES ($1, $2, $3, $4, 'open', 'inbound', now(), 'in')",
            )
            .bind(tenant_id.0)
            .bind(conversation.0)
            .bind(contact.0)
            .bind(account.0)
            .execute(&mut admin)
            .await
            .expect("a conversation");
            accounts.insert(provider, (account, conversation, contact));
        }
        Self { tenant_id, accounts }
    }

    /// Who writes to the account at this provider.
    pub fn contact(&self, provider: Provider) -> ContactId {
        self.accounts[&provider].2
    }

    /// The account at this provider.
    pub fn account(&self, provider: Provider) -> ChannelAccountId {
        self.accounts[&provider].0
    }

    /// Messages with these files, a message each, stored as an inbound batch stores them: with a job for every file.
    ///
    /// # Panics
    /// If the database refuses.
    pub async fn receive(&self, fleet: &Fleet, references: &[Reference]) {
        let mut admin = fleet.database.admin().await;
        for reference in references {
            let (account, conversation, _) = self.accounts[&reference.provider];
            let id = MessageId::new();
            sqlx::query(
                "INSERT INTO messages (tenant_id, id, conversation_id, direction, kind, content, media, provider_message_id, at)
                VALUES ($1, $2, $3, 'in', $4, '{}', $6, $5, now())",
            )
            .bind(self.tenant_id.0)
            .bind(id.0)
            .bind(conversation.0)
            .bind(reference.kind.as_str())
            .bind(&reference.message)
            .bind(json!([&reference.file]))
            .execute(&mut admin)
            .await
            .expect("a message");
            sqlx::query(
                "INSERT INTO provider_refs (tenant_id, channel_account_id, provider_message_id, message_id)
                VALUES ($1, $2, $3, $4)",
            )
            .bind(self.tenant_id.0)
            .bind(account.0)
            .bind(&reference.message)
            .bind(id.0)
            .execute(&mut admin)
            .await
            .expect("a reference");
        }
        let new: Vec<NewMedia<'_>> = references
            .iter()
            .map(|reference| NewMedia {
                tenant_id: self.tenant_id,
                channel_account_id: self.account(reference.provider),
                provider: reference.provider,
                channel: match reference.provider {
                    Provider::Whatsapp => Channel::Whatsapp,
                    Provider::Messenger => Channel::Messenger,
                    Provider::Instagram => Channel::Instagram,
                    // WhatsApp by way of Twilio, which takes larger files than MMS.
                    Provider::Twilio | Provider::Gateway => Channel::Whatsapp,
                },
                kind: reference.kind,
                provider_message_id: &reference.message,
                at: Utc::now(),
                media: std::slice::from_ref(&reference.file),
            })
            .collect();
        let databases = fleet.databases(Role::Worker);
        let mut tx = databases.fleet(&Placement::primary(), &[self.tenant_id]).await.expect("a transaction");
        media::insert(&mut tx, &new).await.expect("files");
        // What is not published now, the scheduler finds in a moment.
        tx.commit().await.expect("a commit");
    }

    /// Somebody writes whose name this provider tells only who asks; how the provider calls them.
    ///
    /// # Panics
    /// If the database refuses.
    pub async fn meet(&self, fleet: &Fleet, provider: Provider, person_id: &str) {
        let (channel_account_id, _, contact_id) = self.accounts[&provider];
        let tenant_id = self.tenant_id;
        let nameless =
            Nameless { tenant_id, contact_id, channel_account_id, provider, person_id: person_id.to_owned() };
        let databases = fleet.databases(Role::Worker);
        let mut tx = databases.fleet(&Placement::primary(), &[tenant_id]).await.expect("a transaction");
        media::profiles::ask(&mut tx, &[nameless]).await.expect("a question");
        tx.commit().await.expect("a commit");
    }

    /// All files.
    ///
    /// # Panics
    /// If the database does not answer.
    pub async fn rows(&self, fleet: &Fleet) -> Vec<Row> {
        let mut admin = fleet.database.admin().await;
        let rows = sqlx::query_as(
            "SELECT m.provider_message_id, f.state, f.code, f.reason, f.attempts, f.storage_key, f.size_bytes, f.sha256,
                f.content_type, f.width, f.thumbnail_key
            FROM media f
            JOIN messages m ON m.tenant_id = f.tenant_id AND m.id = f.message_id
            WHERE f.tenant_id = $1
            ORDER BY m.provider_message_id, f.position",
        );
        rows.bind(self.tenant_id.0).fetch_all(&mut admin).await.expect("the files")
    }

    /// Waits until so many files are settled, and returns all.
    ///
    /// # Panics
    /// If they are not in time.
    pub async fn settled(&self, fleet: &Fleet, files: usize, within: Duration) -> Vec<Row> {
        let deadline = Instant::now() + within;
        loop {
            let rows = self.rows(fleet).await;
            let waiting: Vec<&Row> = rows.iter().filter(|row| row.state == "waiting").collect();
            if rows.len() >= files && waiting.is_empty() {
                return rows;
            }
            assert!(Instant::now() < deadline, "of {} files these wait: {waiting:#?}", rows.len());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// What is wrong with files that should all be stored: with each row, and with each object in storage, against what was sent.
///
/// # Panics
/// If the storage cannot be read.
pub async fn disagreements(fleet: &Fleet, files: &Files, rows: &[Row]) -> Vec<String> {
    let storage = fleet.storage();
    let mut wrong = Vec::new();
    for sent in files.sent() {
        let Some(row) = rows.iter().find(|row| row.provider_message_id == sent.id) else {
            wrong.push(format!("{}: no row", sent.id));
            continue;
        };
        let digest = row.sha256.as_ref().map(hex::encode).unwrap_or_default();
        if row.state != "stored" || digest != sent.sha256 || row.size_bytes != i64::try_from(sent.size).ok() {
            wrong.push(format!("{}: {row:?}, not {} bytes with {}", sent.id, sent.size, sent.sha256));
            continue;
        }
        let key = row.storage_key.as_deref().unwrap_or_default();
        let Some(reading) = storage.read(key, None).await.expect("the storage answers") else {
            wrong.push(format!("{}: nothing at {key}", sent.id));
            continue;
        };
        let pieces: Vec<_> = futures_util::TryStreamExt::try_collect(reading.bytes).await.expect("the storage answers");
        let there = pieces.iter().fold(Sha256::new(), |digest, piece| digest.chain_update(piece)).finalize();
        if hex::encode(there) != sent.sha256 {
            wrong.push(format!("{}: other bytes in storage", sent.id));
        }
    }
    wrong
}

/// The most memory that a process has had resident since it started, in bytes.
///
/// # Panics
/// If there is no such process.
pub fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.map_or(0, |kib: u64| kib * 1024)
}

/// So many files of all kinds and sizes, a third at each way of fetching them; by size from 1 KiB to `most`, on a scale of powers.
pub fn many(files: &Files, count: usize, most: u64) -> Vec<Reference> {
    use crate::sandbox::files::Kind;
    (0..count)
        .map(|number| {
            let share = number as f64 / (count.max(2) - 1) as f64;
            let size = (1024.0 * (most as f64 / 1024.0).powf(share)) as u64;
            let id = format!("9{number:014}");
            let kind = Kind::HARMLESS[number % 4];
            let sent = files.send(&id, kind, size);
            let provider =
                [Provider::Whatsapp, Provider::Twilio, Provider::Whatsapp, Provider::Messenger][(number / 4) % 4];
            let (provider_media_id, url) = match provider {
                Provider::Whatsapp => (Some(id.clone()), None),
                Provider::Twilio => (Some(id.clone()), Some(files.twilio_link(&id))),
                // For as long as anybody tries.
                _ => (None, Some(files.meta_link(&id, 3_600_000))),
            };
            let sha256 = (provider == Provider::Whatsapp).then_some(sent.sha256);
            let mime_type = Some(kind.content_type().to_owned());
            let file = MediaRef { provider_media_id, url, mime_type, sha256, ..MediaRef::default() };
            // What MMS may carry is less: as WhatsApp by way of Twilio, a file.
            Reference { provider, message: id, kind: MessageKind::Document, file }
        })
        .collect()
}
