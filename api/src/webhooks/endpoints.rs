//! Which account an URL's key belongs to, with its opened secrets. Once known, a key is served while the database is away;
//! that a key is unknown is remembered only for a moment.

use moka::future::Cache;
use secrecy::{ExposeSecret, SecretString};
use shared::{
    db::{
        self, Databases,
        channel_accounts::{EndpointSecrets, endpoint_seal_context},
    },
    domain::channel::Provider,
    jobs::inbound::Account,
    lifecycle::Lifecycle,
    seal::Keyring,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, Semaphore};

/// How old an entry may be before it is asked for again, behind the answer.
const FRESH: Duration = Duration::from_secs(30);
/// What is older says nothing of now (a secret may have been taken back because it was stolen): it is asked for first, and serves
/// only while the database is away.
const OLDEST: Duration = Duration::from_secs(120);
/// How long a key stays unknown; also how often a wrong signature may ask whether the secret was changed.
const UNKNOWN: Duration = Duration::from_secs(2);
/// A webhook does not wait longer for the database to say whose it is.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Keys that are not known are asked for so many at a time, so that strangers who make them up take no connections from who needs them;
/// who comes meanwhile waits for this long at most.
const ASKED_AT_ONCE: usize = 3;
const TURN_TIMEOUT: Duration = Duration::from_millis(500);
const KNOWN_KEYS: u64 = 100_000;
const UNKNOWN_KEYS: u64 = 10_000;
/// The table's own bounds: nothing else can be a key (and no text of Postgres' has a NUL).
const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 16..=64;

/// An account with an URL of its own.
pub struct Endpoint {
    /// Which.
    pub account: Account,
    /// At which provider.
    pub provider: Provider,
    /// With what its webhooks may be signed.
    pub secrets: Vec<SecretString>,
    /// The word of its handshake.
    pub verify_token: Option<SecretString>,
    loaded_at: Instant,
    renewing: AtomicBool,
    /// When the database was last away as it was asked before the answer.
    away_at: Mutex<Option<Instant>>,
}

impl Endpoint {
    /// With its secrets opened.
    ///
    /// # Errors
    /// If they do not open, or the row is a newer release's.
    pub fn open(row: &db::receiving::Endpoint, keyring: &Keyring) -> anyhow::Result<Self> {
        let context = endpoint_seal_context(row.channel_account_id);
        let opened = keyring.open(&row.secret_key_id, &context, &row.sealed_secrets)?;
        // A mistake in the JSON must not show its text.
        let secrets: EndpointSecrets =
            serde_json::from_slice(&opened).map_err(|_| anyhow::anyhow!("the opened secrets are not of our form"))?;
        let all = std::iter::once(secrets.app_secret).chain(secrets.further_secrets);
        Ok(Self {
            account: Account { tenant_id: row.tenant_id, channel_account_id: row.channel_account_id },
            provider: row.provider.parse()?,
            secrets: all.map(Into::into).collect(),
            verify_token: secrets.verify_token.map(Into::into),
            loaded_at: Instant::now(),
            renewing: AtomicBool::new(false),
            away_at: Mutex::default(),
        })
    }

    fn has_secrets_of(&self, other: &Endpoint) -> bool {
        let exposed = |endpoint: &Endpoint| -> Vec<String> {
            endpoint.secrets.iter().map(|secret| secret.expose_secret().to_owned()).collect()
        };
        exposed(self) == exposed(other)
    }
}

/// What came of looking for a key.
pub enum Lookup {
    /// It is an account's.
    Found(Arc<Endpoint>),
    /// It is nobody's.
    Unknown,
    /// It is not known here and the database cannot be asked, or too many strangers ask.
    Away,
}

/// What is known of keys. Cheap to clone.
#[derive(Clone)]
pub struct Endpoints {
    known: Cache<String, Arc<Endpoint>>,
    unknown: Cache<String, ()>,
    asked_again: Cache<String, Arc<Mutex<()>>>,
    asking: Arc<Semaphore>,
    databases: Databases,
    keyring: Keyring,
    life: Lifecycle,
}

enum Loaded {
    Endpoint(Arc<Endpoint>),
    Nobody,
    Failed,
}

impl Endpoints {
    /// Nothing is known yet.
    pub fn new(databases: Databases, keyring: Keyring, life: Lifecycle) -> Self {
        Self {
            known: Cache::builder().max_capacity(KNOWN_KEYS).build(),
            unknown: Cache::builder().max_capacity(UNKNOWN_KEYS).time_to_live(UNKNOWN).build(),
            asked_again: Cache::builder().max_capacity(UNKNOWN_KEYS).time_to_live(UNKNOWN).build(),
            asking: Arc::new(Semaphore::new(ASKED_AT_ONCE)),
            databases,
            keyring,
            life,
        }
    }

    /// Whose key this is, among this provider's accounts.
    pub async fn find(&self, provider: Provider, key: &str) -> Lookup {
        match self.find_any(key).await {
            Lookup::Found(endpoint) if endpoint.provider != provider => Lookup::Unknown,
            found => found,
        }
    }

    async fn find_any(&self, key: &str) -> Lookup {
        if let Some(endpoint) = self.known.get(key).await {
            if endpoint.loaded_at.elapsed() > OLDEST {
                return self.asked_first(key, endpoint).await;
            }
            if endpoint.loaded_at.elapsed() > FRESH && !endpoint.renewing.swap(true, Ordering::Relaxed) {
                self.renew_behind(key.to_owned(), endpoint.clone());
            }
            return Lookup::Found(endpoint);
        }
        if !KEY_LENGTHS.contains(&key.len()) || key.contains('\0') || self.unknown.contains_key(key) {
            return Lookup::Unknown;
        }
        let Ok(Ok(_turn)) = tokio::time::timeout(TURN_TIMEOUT, self.asking.acquire()).await else {
            return Lookup::Away;
        };
        match self.load(key).await {
            Loaded::Endpoint(endpoint) => Lookup::Found(endpoint),
            Loaded::Nobody => Lookup::Unknown,
            Loaded::Failed => Lookup::Away,
        }
    }

    /// The endpoint as it is now; as it was, if the database is away. One asks, those who come meanwhile wait for that; and once it was
    /// away nobody waits for a while.
    async fn asked_first(&self, key: &str, old: Arc<Endpoint>) -> Lookup {
        let mut away_at = old.away_at.lock().await;
        if away_at.is_some_and(|at| at.elapsed() < FRESH) {
            drop(away_at);
            return Lookup::Found(old);
        }
        match self.known.get(key).await {
            Some(known) if Arc::ptr_eq(&known, &old) => {}
            Some(newer) => return Lookup::Found(newer),
            None if self.unknown.contains_key(key) => return Lookup::Unknown,
            None => {}
        }
        match self.load(key).await {
            Loaded::Endpoint(endpoint) => Lookup::Found(endpoint),
            Loaded::Nobody => Lookup::Unknown,
            Loaded::Failed => {
                *away_at = Some(Instant::now());
                drop(away_at);
                Lookup::Found(old)
            }
        }
    }

    /// The endpoint as it is now, if its secrets have changed since `before`. Asks at most once in a while for each key.
    pub async fn renewed(&self, key: &str, before: &Arc<Endpoint>) -> Option<Arc<Endpoint>> {
        let changed = |now: Arc<Endpoint>| (!now.has_secrets_of(before)).then_some(now);
        let mut first = false;
        let turn = self
            .asked_again
            .get_with(key.to_owned(), async {
                first = true;
                Arc::default()
            })
            .await;
        let _turn = turn.lock().await;
        if first && matches!(self.load(key).await, Loaded::Failed) {
            return None;
        }
        self.known.get(key).await.and_then(changed)
    }

    fn renew_behind(&self, key: String, endpoint: Arc<Endpoint>) {
        let endpoints = self.clone();
        self.life.spawn(async move {
            if matches!(endpoints.load(&key).await, Loaded::Failed) {
                // The database is away: what is known stays, and is asked for again with the next webhook.
                endpoint.renewing.store(false, Ordering::Relaxed);
            }
        });
    }

    async fn load(&self, key: &str) -> Loaded {
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.ask(key)).await;
        match asked.unwrap_or_else(|_| Err(db::Error::timed_out("looking up a webhook endpoint"))) {
            Ok(Some(row)) => match Endpoint::open(&row, &self.keyring) {
                Ok(endpoint) => {
                    let endpoint = Arc::new(endpoint);
                    self.known.insert(key.to_owned(), endpoint.clone()).await;
                    Loaded::Endpoint(endpoint)
                }
                Err(error) => {
                    tracing::error!(error = %error, "the secrets of a webhook endpoint do not open");
                    Loaded::Failed
                }
            },
            Ok(None) => {
                self.known.invalidate(key).await;
                self.unknown.insert(key.to_owned(), ()).await;
                Loaded::Nobody
            }
            Err(error) => {
                tracing::warn!(%error, "webhook endpoints cannot be looked up");
                Loaded::Failed
            }
        }
    }

    async fn ask(&self, key: &str) -> db::Result<Option<db::receiving::Endpoint>> {
        let mut tx = self.databases.control().await?;
        let endpoint = db::receiving::find_endpoint(&mut tx, key).await?;
        tx.commit().await?;
        Ok(endpoint)
    }
}
