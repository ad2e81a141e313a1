//! Channel accounts with their opened secrets, remembered until an operator changes them.

use moka::sync::Cache;
use secrecy::SecretString;
use shared::{
    clock::Clock,
    db::{
        self, Databases, Placement,
        channel_accounts::{self, AccountSecrets},
        files::{self, KeptFile, Wanted},
        outbound::accounts,
    },
    domain::{
        channel::Provider,
        ids::{ChannelAccountId, FileId, MediaId, TenantId},
        media::Linked,
        retrying::Policy,
    },
    links::Links,
    providers::{
        gateway::GatewayConfig,
        http::{self, Endpoint, ProviderClient},
        twilio,
    },
    seal::{CannotOpen, Keyring},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// One that nothing is sent from is forgotten after this time.
const REMEMBERED: Duration = Duration::from_secs(60);

/// An account ready to be called for.
#[derive(Debug)]
pub(super) struct Account {
    /// Which state of it this is: it counts up with each change.
    pub(super) revision: i32,
    pub(super) endpoint: Endpoint,
    /// Its configured rate per second, if limited.
    pub(super) rate: Option<f64>,
    /// When its tenant wants what was not sent tried again.
    pub(super) retry: Policy,
}

type Key = (TenantId, ChannelAccountId);

/// Why an account cannot be called for.
#[derive(Clone, Debug)]
pub(super) enum Unusable {
    /// This process lacks the key of its secrets: no fault of the account.
    NoKey(String),
    /// Its secrets are not what they should be.
    Secrets(String),
}

/// Accounts by id. One whose secrets cannot be opened is an error to be shown, not a reason to stop the others.
pub(super) struct Accounts {
    databases: Databases,
    keyring: Keyring,
    client: ProviderClient,
    public_url: String,
    links: Links,
    clock: Clock,
    known: Cache<Key, Arc<Account>>,
}

impl Accounts {
    pub(super) fn new(databases: Databases, keyring: Keyring, client: ProviderClient, public_url: String) -> Self {
        let known = Cache::builder().max_capacity(10_000).time_to_idle(REMEMBERED).build();
        let links = Links::new(keyring.clone());
        Self { databases, keyring, client, public_url, links, clock: Clock::system(), known }
    }

    /// The accounts asked for, of the revision asked for or a later one, in one question for all that are not remembered;
    /// each with what is wrong with it, if so.
    pub(super) async fn load(
        &self,
        placement: &Placement,
        wanted: &BTreeMap<Key, i32>,
    ) -> Result<HashMap<Key, Result<Arc<Account>, Unusable>>, db::Error> {
        let mut found = HashMap::with_capacity(wanted.len());
        let mut unknown = Vec::new();
        for (key, revision) in wanted {
            match self.known.get(key) {
                Some(account) if account.revision >= *revision => drop(found.insert(*key, Ok(account))),
                _ => unknown.push(*key),
            }
        }
        if unknown.is_empty() {
            return Ok(found);
        }
        let mut tenants: Vec<TenantId> = unknown.iter().map(|(tenant_id, _)| *tenant_id).collect();
        tenants.sort_unstable();
        tenants.dedup();
        let mut tx = self.databases.fleet(placement, &tenants).await?;
        for row in accounts::load(&mut tx, &unknown).await? {
            let key = (row.tenant_id, row.id);
            let account = self.open(row).map(Arc::new);
            if let Ok(account) = &account {
                self.known.insert(key, account.clone());
            }
            found.insert(key, account);
        }
        tx.commit().await?;
        Ok(found)
    }

    /// By which ids the accounts' providers keep these files.
    pub(super) async fn kept_files(
        &self,
        placement: &Placement,
        wanted: &[Wanted],
    ) -> db::Result<HashMap<Wanted, KeptFile>> {
        let mut tenants: Vec<TenantId> = wanted.iter().map(|(tenant_id, ..)| *tenant_id).collect();
        tenants.dedup();
        let mut tx = self.databases.fleet(placement, &tenants).await?;
        let kept = files::kept(&mut tx, wanted).await?;
        tx.commit().await?;
        Ok(kept)
    }

    /// Where a provider can fetch a file for the next quarter of an hour at least.
    pub(super) fn link(&self, tenant_id: TenantId, id: FileId) -> String {
        let (path, _) = self.links.make(tenant_id, MediaId(id.0), Linked::Upload, self.clock.now());
        format!("{}{path}", self.public_url)
    }

    /// Where the provider is told to report what becomes of each message, where it has to be told: the account's own address, or the
    /// platform's.
    fn status_url(&self, row: &accounts::Account) -> Option<String> {
        let Provider::Twilio = row.provider else { return None };
        let key = row.webhook_key.as_ref().map(|key| format!("/{key}")).unwrap_or_default();
        Some(format!("{}/webhooks/{}{key}{}", self.public_url, row.provider, twilio::OVERRIDES))
    }

    fn open(&self, row: accounts::Account) -> Result<Account, Unusable> {
        let context = channel_accounts::seal_context(row.id);
        let bytes = match self.keyring.open(&row.secret_key_id, &context, &row.sealed_secrets) {
            Ok(bytes) => bytes,
            Err(error @ CannotOpen::UnknownKey(_)) => return Err(Unusable::NoKey(error.to_string())),
            Err(error) => return Err(Unusable::Secrets(format!("its secrets cannot be opened: {error}"))),
        };
        // What serde says might quote them.
        let secrets: AccountSecrets =
            serde_json::from_slice(&bytes).map_err(|_| Unusable::Secrets("its secrets are not readable".into()))?;
        let gateway = match row.gateway.as_ref().map(|described| GatewayConfig::read(&described.to_string())) {
            None => None,
            Some(Ok(gateway)) => Some(gateway),
            Some(Err(error)) => {
                return Err(Unusable::Secrets(format!("its gateway's description is not readable: {error}")));
            }
        };
        // An address that makes no URL is one that nothing can be reported to.
        let status_url = self.status_url(&row).and_then(|url| url.parse().ok());
        let endpoint = self
            .client
            .endpoint(&http::Account {
                provider: row.provider,
                external_id: &row.external_id,
                business_account_id: row.business_account_id.as_deref(),
                username: secrets.username.as_deref(),
                token: &SecretString::from(secrets.access_token),
                login: secrets.login,
                status_url: status_url.as_ref(),
                gateway: gateway.as_ref(),
            })
            .map_err(|error| Unusable::Secrets(error.to_string()))?;
        Ok(Account { revision: row.revision, endpoint, rate: row.rate, retry: row.retry })
    }
}
