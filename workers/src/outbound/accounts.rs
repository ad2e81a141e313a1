//! Channel accounts with their opened secrets, remembered until an operator changes them.

use moka::sync::Cache;
use secrecy::SecretString;
use shared::{
    db::{
        self, Databases, Placement,
        channel_accounts::{self, AccountSecrets},
        outbound::accounts,
    },
    domain::ids::{ChannelAccountId, TenantId},
    providers::http::{self, Endpoint, ProviderClient},
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
    known: Cache<Key, Arc<Account>>,
}

impl Accounts {
    pub(super) fn new(databases: Databases, keyring: Keyring, client: ProviderClient) -> Self {
        let known = Cache::builder().max_capacity(10_000).time_to_idle(REMEMBERED).build();
        Self { databases, keyring, client, known }
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
        let endpoint = self
            .client
            .endpoint(&http::Account {
                provider: row.provider,
                external_id: &row.external_id,
                business_account_id: row.business_account_id.as_deref(),
                username: secrets.username.as_deref(),
                token: &SecretString::from(secrets.access_token),
                login: secrets.login,
                status_url: None,
                gateway: None,
            })
            .map_err(|error| Unusable::Secrets(error.to_string()))?;
        Ok(Account { revision: row.revision, endpoint, rate: row.rate })
    }
}
