//! What adding an account is at every provider: its routes are claimed, its secrets sealed, its limits set. What there is to say of an
//! account is its provider's file.

use super::{rate, record, wake};
use crate::cli::{
    output::{Output, note},
    settings::{self, Database},
};
use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use shared::{
    config::{PublicUrlArgs, SecretArgs},
    db::{
        self,
        channel_accounts::{AccountSecrets, EndpointSecrets, NewAccount, endpoint_seal_context, seal_context},
        tenants::Tenant,
    },
    domain::{
        channel::{InstagramLogin, Provider},
        ids::ChannelAccountId,
        limits::{LimitChange, Scope},
    },
    providers,
    seal::Keyring,
};
use std::process::ExitCode;

/// What is said of an account at any provider.
#[derive(clap::Args, Debug)]
pub(super) struct Common {
    /// Whose.
    #[arg(long)]
    pub(super) tenant: String,
    /// What its owner calls it; the provider's id unless given. An update without it leaves it as it is.
    #[arg(long)]
    name: Option<String>,
    /// With what its webhooks are signed: the secret of the account's own app, or Twilio's auth token; several, comma-separated, while
    /// it is changed or where another account's signs as well. Gives the account a webhook address of its own; without it, a new one's
    /// webhooks come to the platform's.
    #[arg(long, env = "APP_SECRET", hide_env_values = true, value_delimiter = ',')]
    app_secret: Vec<SecretString>,
    /// Messages a second. What the provider documents unless given; an update without it leaves it as it is.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Be content if the tenant has the account already; nothing is changed.
    #[arg(long, conflicts_with = "update")]
    if_missing: bool,
    /// If the tenant has the account already, give it what is said here; what is not said stays as it is.
    #[arg(long)]
    update: bool,
    #[command(flatten)]
    public_url: PublicUrlArgs,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    secrets: SecretArgs,
}

/// What its provider needs to know of an account.
pub(super) struct Wanted<'a> {
    pub(super) provider: Provider,
    /// The provider's id of it.
    pub(super) external_id: &'a str,
    /// By which ids its webhooks find it: kind and id.
    pub(super) routes: Vec<(&'static str, &'a str)>,
    pub(super) business_account_id: Option<&'a str>,
    pub(super) display_address: Option<&'a str>,
    pub(super) secrets: GivenSecrets<'a>,
    /// What a new account cannot do without, besides its access token, and was not given.
    pub(super) lacks: Option<&'static str>,
    /// The word of the handshake at its own address, where it was given.
    pub(super) verify_token: Option<&'a SecretString>,
    pub(super) portfolio: Option<&'a str>,
    /// Limits that were given besides its rate.
    pub(super) further_limits: Vec<(Scope, LimitChange)>,
    /// What a new account is allowed by its own description, rather than by what its provider documents.
    pub(super) described_limits: Vec<(Scope, LimitChange)>,
    /// Documented limits that it is not to have.
    pub(super) without: &'a [Scope],
    /// How a gateway is called.
    pub(super) gateway: Option<Value>,
    /// Whether its app may send a person's answers for seven days, if that was said.
    pub(super) human_agent: Option<bool>,
    /// What was given, for the audit: without secrets.
    pub(super) shown: Value,
}

impl Wanted<'_> {
    /// Whether something was given for whose lack an account can be down.
    fn may_mend(&self) -> bool {
        let GivenSecrets { access_token, username, login } = &self.secrets;
        let secrets = access_token.is_some() || username.is_some() || login.is_some();
        secrets || self.business_account_id.is_some() || self.gateway.is_some()
    }
}

/// A secret that was given. A variable that is set and empty says nothing.
pub(super) fn given(secret: Option<&SecretString>) -> Option<&SecretString> {
    secret.filter(|secret| !secret.expose_secret().trim().is_empty())
}

/// What was given of an account's secrets.
#[derive(Default)]
pub(super) struct GivenSecrets<'a> {
    pub(super) access_token: Option<&'a SecretString>,
    /// Twilio: the API key whose secret the token is, or that it is none's.
    pub(super) username: Option<Option<&'a str>>,
    /// Instagram: by which login it was connected.
    pub(super) login: Option<InstagramLogin>,
}

impl GivenSecrets<'_> {
    /// Whether nothing of what an account has is left. So one can be mended whose secrets nobody can open any more.
    fn replace_all(&self, provider: Provider) -> bool {
        let further = match provider {
            Provider::Whatsapp | Provider::Messenger | Provider::Gateway => true,
            Provider::Instagram => self.login.is_some(),
            Provider::Twilio => self.username.is_some(),
        };
        self.access_token.is_some() && further
    }

    /// Those of before with what was given.
    fn over(&self, before: AccountSecrets) -> AccountSecrets {
        AccountSecrets {
            access_token: self.access_token.map_or(before.access_token, |token| token.expose_secret().to_owned()),
            username: self.username.map_or(before.username, |key| key.map(str::to_owned)),
            login: self.login.or(before.login),
        }
    }
}

#[derive(Serialize)]
struct Added {
    id: ChannelAccountId,
    created: bool,
    webhook_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify_token: Option<String>,
    /// What is to be done next; absent unless something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Adds the account, or changes it.
pub(super) async fn add(args: &Common, wanted: &Wanted<'_>, out: &Output) -> anyhow::Result<ExitCode> {
    let Wanted { provider, external_id, .. } = *wanted;
    let keyring = Keyring::parse(&args.secrets.secret_keys).context("MIJRA_SECRET_KEYS")?;
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut existing = settings::accounts(&databases, &tenant).await?.into_iter();
    let existing = existing.find(|account| account.provider == provider.as_str() && account.external_id == external_id);
    let (id, created) =
        existing.as_ref().map_or_else(|| (ChannelAccountId::new(), true), |account| (account.id, false));
    if created {
        let token = wanted.secrets.access_token.is_none().then_some("--access-token");
        let lacks: Vec<_> = token.into_iter().chain(wanted.lacks).collect();
        let no_account = format!("{} has no account {external_id} at {provider}, and a new one needs", tenant.slug);
        anyhow::ensure!(lacks.is_empty(), "{no_account} {}", lacks.join(" and "));
    }
    // The routes are claimed first and committed last: an id that is another's is found out before anything is kept, and
    // no webhook is routed to an account that is not there.
    let mut control = databases.control().await?;
    db::channel_accounts::scope_routes(&mut control, tenant.id).await?;
    let mut routes = wanted.routes.clone();
    routes.sort_unstable();
    for (kind, external_id) in &routes {
        let routed = db::channel_accounts::route(&mut control, tenant.id, id, provider, kind, external_id);
        anyhow::ensure!(routed.await?, "{kind} {external_id} belongs to another account");
    }
    let Endpoint { webhook_key, verify_token, set } =
        endpoint(&mut control, args, wanted, &keyring, &tenant, id, created).await?;
    if created || args.update {
        let mut fleet = databases.fleet(&tenant.placement, &[tenant.id]).await?;
        let (given, defaults) = limits(args, wanted, created);
        let secrets = wanted.secrets.over(match &existing {
            Some(account) if !wanted.secrets.replace_all(provider) => {
                let opened = keyring.open(&account.secret_key_id, &seal_context(id), &account.sealed_secrets);
                read_secrets(&opened.context("what the account has of secrets, of which not all was given anew")?)?
            }
            _ => AccountSecrets::default(),
        });
        let account = NewAccount {
            id,
            provider,
            name: args.name.as_deref(),
            external_id,
            business_account_id: wanted.business_account_id,
            display_address: wanted.display_address,
            secrets: &keyring.seal(&seal_context(id), &serde_json::to_vec(&secrets)?),
            portfolio: wanted.portfolio,
            limits: &given,
            defaults: &defaults,
            webhook_key: webhook_key.as_deref(),
            human_agent: wanted.human_agent,
            gateway: wanted.gateway.as_ref(),
        };
        if let Some(before) = &existing {
            let updated = db::channel_accounts::update(&mut fleet, tenant.id, &account, &before.sealed_secrets).await?;
            anyhow::ensure!(updated, "somebody else changed this account at the same moment; run this again");
            record(&mut fleet, &tenant, id, "channel_account.changed", shown(args, wanted, &set)).await?;
            if wanted.may_mend() {
                let before = db::outbound::accounts::resume(&mut fleet, tenant.id, id).await?;
                if before.as_deref() == Some("down") {
                    let details = serde_json::json!({"before": "down"});
                    record(&mut fleet, &tenant, id, "channel_account.resumed", details).await?;
                }
            }
        } else {
            let inserted = db::channel_accounts::insert(&mut fleet, tenant.id, &account).await?;
            anyhow::ensure!(inserted, "somebody else added this account at the same moment; run this again");
            record(&mut fleet, &tenant, id, "channel_account.added", shown(args, wanted, &set)).await?;
        }
        fleet.commit().await?;
    }
    if args.update && wanted.may_mend() {
        wake(&databases, &tenant, id).await?;
    }
    control.commit().await?;
    let webhook_url = webhook_url(&args.public_url, provider, webhook_key.as_deref());
    // Its templates are not known yet.
    let next = (created && shared::providers::templates::has_templates(provider))
        .then(|| format!("mijra templates sync --tenant {} --account {id}", tenant.slug));
    let said = Added { id, created, webhook_url, webhook_key, verify_token, next };
    out.say(&said, &text(&said, provider, args.update))?;
    Ok(if created || args.if_missing || args.update { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

type Limits = Vec<(Scope, LimitChange)>;

/// What was given that the account is allowed; and of a new one what its provider documents, where there is nothing yet.
fn limits(args: &Common, wanted: &Wanted<'_>, created: bool) -> (Limits, Limits) {
    let mut given = wanted.further_limits.clone();
    given.extend(args.rate.map(|rate| (Scope::Account, LimitChange { rate, burst: None, inbound_cost: None })));
    if !created {
        return (given, Vec::new());
    }
    let documented = providers::limits::documented(wanted.provider, wanted.external_id);
    // The first of a kind holds.
    let described = wanted.described_limits.iter().copied();
    let defaults = described.chain(documented.into_iter().map(|limit| (limit.scope, limit.change)));
    (given, defaults.filter(|(scope, _)| !wanted.without.contains(scope)).collect())
}

/// What an operator gave; secrets are only named, `set` being those of the account's own address.
fn shown(args: &Common, wanted: &Wanted<'_>, set: &[&'static str]) -> Value {
    let mut after = wanted.shown.clone();
    after["name"] = args.name.as_deref().into();
    after["rate"] = args.rate.into();
    // What was not given is not changed.
    after.as_object_mut().into_iter().for_each(|after| after.retain(|_, given| !given.is_null()));
    let token = wanted.secrets.access_token.map(|_| "access_token");
    let secrets: Vec<_> = token.into_iter().chain(set.iter().copied()).collect();
    serde_json::json!({"after": after, "secrets": secrets})
}

/// An account's own address.
struct Endpoint {
    /// The last part of it, if the account has one.
    webhook_key: Option<String>,
    /// The word of its handshake, if the address was changed now.
    verify_token: Option<String>,
    /// Which of its secrets were given and are its now.
    set: Vec<&'static str>,
}

/// The account's own address, if it has one or is to have one, with what was given for it.
async fn endpoint(
    control: &mut db::ControlTx,
    args: &Common,
    wanted: &Wanted<'_>,
    keyring: &Keyring,
    tenant: &Tenant,
    id: ChannelAccountId,
    created: bool,
) -> anyhow::Result<Endpoint> {
    let key = db::channel_accounts::endpoint_key(control, id).await?;
    let given = args.app_secret.iter().map(|secret| secret.expose_secret().trim().to_owned());
    let mut given = given.filter(|secret| !secret.is_empty()).peekable();
    let shakes = has_handshake(wanted.provider);
    let given_token = wanted.verify_token.filter(|_| shakes).map(|token| token.expose_secret().to_owned());
    // A word alone changes the address that there is; it makes none.
    let is_told = given.peek().is_some() || (key.is_some() && given_token.is_some());
    if !is_told || !(created || args.update) {
        if given_token.is_some() && key.is_none() {
            note("VERIFY_TOKEN is not used: without an APP_SECRET the account has no webhook address of its own");
        }
        return Ok(Endpoint { webhook_key: key, verify_token: None, set: Vec::new() });
    }
    let set = [given.peek().map(|_| "app_secret"), given_token.as_ref().map(|_| "verify_token")];
    let set = set.into_iter().flatten().collect();
    // A handshake that was arranged with the provider goes on as it was.
    let all_is_given = given.peek().is_some() && (given_token.is_some() || !shakes);
    let before = match key.as_ref().filter(|_| !all_is_given) {
        // Never with an empty secret: anybody could sign with that.
        Some(key) => endpoint_secrets(control, key, keyring).await?.context("the account's own address is gone")?,
        None => EndpointSecrets::default(),
    };
    let key = key.unwrap_or_else(random_word);
    let verify_token = shakes.then(|| given_token.or(before.verify_token).unwrap_or_else(random_word));
    let (app_secret, further_secrets) = match given.next() {
        Some(app_secret) => (app_secret, given.collect()),
        None => (before.app_secret, before.further_secrets),
    };
    let secrets = EndpointSecrets { app_secret, further_secrets, verify_token: verify_token.clone() };
    let sealed = keyring.seal(&endpoint_seal_context(id), &serde_json::to_vec(&secrets)?);
    db::channel_accounts::upsert_endpoint(control, tenant.id, id, wanted.provider, &key, &sealed).await?;
    Ok(Endpoint { webhook_key: Some(key), verify_token, set })
}

/// The word of the handshake at an account's own address.
pub(super) async fn verify_token(
    control: &mut db::ControlTx,
    key: &str,
    keyring: &Keyring,
) -> anyhow::Result<Option<String>> {
    Ok(endpoint_secrets(control, key, keyring).await?.and_then(|secrets| secrets.verify_token))
}

/// The secrets of an account's own address.
async fn endpoint_secrets(
    control: &mut db::ControlTx,
    key: &str,
    keyring: &Keyring,
) -> anyhow::Result<Option<EndpointSecrets>> {
    let Some(row) = db::receiving::find_endpoint(control, key).await? else { return Ok(None) };
    let opened =
        keyring.open(&row.secret_key_id, &endpoint_seal_context(row.channel_account_id), &row.sealed_secrets)?;
    Ok(Some(read_secrets(&opened)?))
}

/// A mistake in the JSON must not show its text.
fn read_secrets<T: DeserializeOwned>(opened: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(opened).map_err(|_| anyhow::anyhow!("the opened secrets are not of our form"))
}

/// Where its webhooks come to: its own address if it has a key, else the platform's.
pub(super) fn webhook_url(public_url: &PublicUrlArgs, provider: Provider, key: Option<&str>) -> String {
    let path = key.map(|key| format!("/{key}")).unwrap_or_default();
    format!("{}/webhooks/{provider}{path}{}", public_url.public_url, overrides(provider))
}

fn random_word() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

pub(super) fn has_handshake(provider: Provider) -> bool {
    match provider {
        Provider::Whatsapp | Provider::Messenger | Provider::Instagram => true,
        Provider::Twilio | Provider::Gateway => false,
    }
}

/// What is to stand behind the address at the provider: Twilio repeats a webhook only if it says so (providers/twilio section 5).
fn overrides(provider: Provider) -> &'static str {
    match provider {
        Provider::Whatsapp | Provider::Messenger | Provider::Instagram | Provider::Gateway => "",
        Provider::Twilio => providers::twilio::OVERRIDES,
    }
}

/// Which settings the platform's own address has.
pub(super) fn platform_settings(provider: Provider) -> &'static str {
    match provider {
        Provider::Whatsapp => "signed with WHATSAPP_APP_SECRET, verified with WHATSAPP_VERIFY_TOKEN",
        Provider::Messenger => "signed with MESSENGER_APP_SECRET, verified with MESSENGER_VERIFY_TOKEN",
        Provider::Instagram => "signed with INSTAGRAM_APP_SECRET, verified with INSTAGRAM_VERIFY_TOKEN",
        Provider::Twilio => "signed with TWILIO_AUTH_TOKEN",
        Provider::Gateway => "never called",
    }
}

fn text(said: &Added, provider: Provider, update: bool) -> String {
    let done = match (said.created, update) {
        (true, _) => "added",
        (false, true) => "updated",
        (false, false) => "exists already; --update changes it",
    };
    let mut text = format!("account {} {done}\nwebhook URL   {}", said.id, said.webhook_url);
    if provider == Provider::Twilio {
        text.push_str("\n              (with all of it: what follows # has Twilio try again, and is not signed)");
    }
    if let Some(token) = &said.verify_token {
        text.push_str(&format!("\nverify token  {token}"));
    } else if said.webhook_key.is_none() {
        text.push_str(&format!("\n              (the platform's: {})", platform_settings(provider)));
    }
    if !provider.can_send() {
        text.push_str("\n              (what people write is received; this release cannot send by it yet)");
    }
    if let Some(next) = &said.next {
        text.push_str(&format!(
            "\nnext          {next}\n              (or wait: they are fetched within a minute; until then no template is checked before it is sent)"
        ));
    }
    text
}
