//! As whom a provider is asked.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use shared::{
    db::{self, Databases, Placement, channel_accounts, media::fetching},
    domain::{
        channel::Provider,
        ids::{ChannelAccountId, TenantId},
    },
    providers::download::{Credentials, Failure, Next},
    seal::{CannotOpen, Keyring},
};

/// An account with its opened secrets.
pub(super) struct Account {
    /// The provider's id of it.
    pub(super) external_id: String,
    /// What a call of it carries.
    pub(super) credentials: Credentials,
    /// Whether it is reached at Instagram's own API instead of by a Page.
    pub(super) by_instagram_login: bool,
}

/// What is sealed in `channel_accounts.sealed_secrets`, as far as it concerns us.
#[derive(Deserialize)]
struct Secrets {
    access_token: String,
    /// Twilio: the SID of the API key whose secret that is.
    #[serde(default)]
    username: Option<String>,
    /// Instagram: by which login it was connected.
    #[serde(default)]
    login: Option<String>,
}

/// The account with this id; why it cannot ask, if it cannot.
pub(super) async fn load(
    databases: &Databases,
    keyring: &Keyring,
    placement: &Placement,
    tenant_id: TenantId,
    id: ChannelAccountId,
) -> db::Result<Result<Account, Failure>> {
    let mut tx = databases.fleet(placement, &[tenant_id]).await?;
    let row = fetching::account(&mut tx, tenant_id, id).await?;
    tx.commit().await?;
    Ok(row.map_or_else(|| Err(unusable("Its account is not there any more.")), |row| open(keyring, id, row)))
}

fn open(keyring: &Keyring, id: ChannelAccountId, row: fetching::Account) -> Result<Account, Failure> {
    let context = channel_accounts::seal_context(id);
    let bytes = keyring.open(&row.secret_key_id, &context, &row.sealed_secrets).map_err(|error| {
        let reason = format!("The account's secrets cannot be opened: {error}.");
        match error {
            // A key that we were not given: no file is to blame for that.
            CannotOpen::UnknownKey(_) => Failure::new("sealing_key_missing", Next::Ours, reason),
            CannotOpen::Tampered => unusable(&reason),
        }
    })?;
    // What serde says might quote them.
    let secrets: Secrets =
        serde_json::from_slice(&bytes).map_err(|_| unusable("The account's secrets are not readable."))?;
    let value = match row.provider {
        Provider::Whatsapp | Provider::Messenger | Provider::Instagram | Provider::Gateway => {
            format!("Bearer {}", secrets.access_token)
        }
        Provider::Twilio => {
            let user = secrets.username.or(row.business_account_id).unwrap_or_default();
            format!("Basic {}", STANDARD.encode(format!("{user}:{}", secrets.access_token)))
        }
    };
    let credentials = Credentials::new(&value).ok_or_else(|| unusable("The account's access token cannot be sent."))?;
    let by_instagram_login = secrets.login.as_deref() == Some("instagram");
    Ok(Account { external_id: row.external_id, credentials, by_instagram_login })
}

fn unusable(reason: &str) -> Failure {
    Failure::new("account_unusable", Next::Again(None), reason)
}
