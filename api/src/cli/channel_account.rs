//! `mijra channel-account`: a tenant's numbers at their providers, with sealed secrets, their rate, and the routes by which
//! webhooks find them.

use super::{
    output::{Output, or_dash},
    settings::{self, Database},
};
use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use shared::{
    config::SecretArgs,
    db::{
        self, Databases, FleetTx,
        audit::{Actor, Entry, record_for},
        channel_accounts::{AccountSecrets, EndpointSecrets, NewAccount, endpoint_seal_context, seal_context},
        tenants::Tenant,
    },
    domain::{
        channel::Provider,
        ids::ChannelAccountId,
        limits::{LimitChange, Scope},
    },
    providers::whatsapp,
    seal::Keyring,
};
use std::process::ExitCode;
use uuid::Uuid;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Add an account
    #[command(subcommand)]
    Add(Add),
    /// List accounts
    List(List),
    /// Bring an account back that is down, once what its provider complained about is mended; what waited for it is sent
    Resume(Resume),
}

#[derive(clap::Subcommand, Debug)]
pub(super) enum Add {
    /// A WhatsApp number
    Whatsapp(Box<Whatsapp>),
}

#[derive(clap::Args, Debug)]
pub(super) struct Whatsapp {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// What its owner calls it; the number's id unless given.
    #[arg(long)]
    name: Option<String>,
    /// Meta's id of the number.
    #[arg(long, value_parser = provider_id)]
    phone_number_id: String,
    /// Meta's id of the WhatsApp business account.
    #[arg(long, value_parser = provider_id)]
    business_account_id: String,
    /// The number as customers see it.
    #[arg(long)]
    display_number: Option<String>,
    /// With what WhatsApp is called. Better in the environment than here.
    #[arg(long, env = "ACCESS_TOKEN", hide_env_values = true)]
    access_token: SecretString,
    /// The secret of the account's own app. Gives the account a webhook address of its own; without it, webhooks come to
    /// the platform's.
    #[arg(long, env = "APP_SECRET", hide_env_values = true)]
    app_secret: Option<SecretString>,
    /// The word of the handshake at the account's own address; made up unless given.
    #[arg(long, env = "VERIFY_TOKEN", hide_env_values = true)]
    verify_token: Option<SecretString>,
    /// Messages a second (providers/whatsapp section 11: 80 by default, 20 for coexistence numbers, 1000 after an upgrade).
    /// Messages received count, too. 80 unless given; an update without it leaves it as it is.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Write to one person as fast as to any other. Unless given, each person gets a message in 6 seconds, with up to 45 at
    /// once (providers/whatsapp section 11).
    #[arg(long, conflicts_with = "update")]
    no_pair_limit: bool,
    /// Meta's id of the business portfolio, whose numbers share its messaging limit.
    #[arg(long, value_parser = provider_id)]
    portfolio_id: Option<String>,
    /// How many people the portfolio may reach outside their 24-hour window in a day (250, 2000, 10000, 100000).
    #[arg(long, requires = "portfolio_id", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    messaging_limit: Option<u32>,
    /// Be content if the tenant has the number already; nothing is changed.
    #[arg(long, conflicts_with = "update")]
    if_missing: bool,
    /// If the tenant has the number already, give it what is said here.
    #[arg(long)]
    update: bool,
    /// Where Mijra is reached from outside.
    #[arg(long, env = "PUBLIC_URL", default_value = "http://127.0.0.1:8080")]
    public_url: String,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    secrets: SecretArgs,
}

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// Only of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct Resume {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// Meta's id of the number.
    #[arg(long, value_parser = provider_id)]
    phone_number_id: String,
    #[command(flatten)]
    database: Database,
}

#[derive(Serialize)]
struct Resumed {
    id: ChannelAccountId,
    /// The state it was in.
    before: String,
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

#[derive(Serialize)]
struct Row {
    tenant: String,
    id: Uuid,
    provider: String,
    name: String,
    external_id: String,
    business_account_id: Option<String>,
    state: String,
    down_reason: Option<String>,
    channel: String,
    quality: Option<String>,
    alert: Option<String>,
    alert_at: Option<chrono::DateTime<chrono::Utc>>,
    rate: Option<f64>,
    current_rate: Option<f64>,
    templates_synced_at: Option<chrono::DateTime<chrono::Utc>>,
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Add(Add::Whatsapp(args)) => add_whatsapp(*args, out).await,
        Command::List(args) => list(&args, out).await,
        Command::Resume(args) => resume(&args, out).await,
    }
}

async fn add_whatsapp(args: Whatsapp, out: &Output) -> anyhow::Result<ExitCode> {
    let keyring = Keyring::parse(&args.secrets.secret_keys).context("MIJRA_SECRET_KEYS")?;
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let existing = existing(&databases, &tenant, &args.phone_number_id).await?;
    let id = existing.unwrap_or_else(ChannelAccountId::new);
    let created = existing.is_none();
    // The routes are claimed first and committed last: a number that is another's is found out before anything is kept, and
    // no webhook is routed to an account that is not there.
    let mut control = databases.control().await?;
    db::channel_accounts::scope_routes(&mut control, tenant.id).await?;
    for (kind, external_id) in
        [("phone_number_id", &args.phone_number_id), ("business_account_id", &args.business_account_id)]
    {
        let routed = db::channel_accounts::route(&mut control, tenant.id, id, Provider::Whatsapp, kind, external_id);
        anyhow::ensure!(routed.await?, "{kind} {external_id} belongs to another account");
    }
    let (webhook_key, verify_token) = endpoint(&mut control, &args, &keyring, &tenant, id, created).await?;
    if created || args.update {
        let mut fleet = databases.fleet(&tenant.placement, &[tenant.id]).await?;
        let secrets = AccountSecrets { access_token: args.access_token.expose_secret().to_owned() };
        let limits = limits(&args, created);
        let account = NewAccount {
            id,
            provider: Provider::Whatsapp,
            name: args.name.as_deref().unwrap_or(&args.phone_number_id),
            external_id: &args.phone_number_id,
            business_account_id: Some(&args.business_account_id),
            display_address: args.display_number.as_deref(),
            secrets: &keyring.seal(&seal_context(id), &serde_json::to_vec(&secrets)?),
            portfolio: args.portfolio_id.as_deref(),
            limits: &limits,
        };
        if created {
            let inserted = db::channel_accounts::insert(&mut fleet, tenant.id, &account).await?;
            anyhow::ensure!(inserted, "somebody else added this number at the same moment; run this again");
            record(&mut fleet, &tenant, id, "channel_account.added", shown(&args)).await?;
        } else {
            db::channel_accounts::update(&mut fleet, tenant.id, &account).await?;
            // Senders notice that it has changed.
            db::outbound::accounts::resume(&mut fleet, tenant.id, id).await?;
            record(&mut fleet, &tenant, id, "channel_account.changed", shown(&args)).await?;
        }
        fleet.commit().await?;
    }
    if args.update {
        wake(&databases, &tenant, id).await?;
    }
    control.commit().await?;
    let path = webhook_key.as_ref().map(|key| format!("/{key}")).unwrap_or_default();
    let webhook_url = format!("{}/webhooks/whatsapp{path}", args.public_url.trim_end_matches('/'));
    // Its templates are not known yet.
    let next = created.then(|| format!("mijra templates sync --tenant {} --account {id}", tenant.slug));
    let said = Added { id, created, webhook_url, webhook_key, verify_token, next };
    out.say(&said, &text(&said, args.update))?;
    Ok(if created || args.if_missing || args.update { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What WhatsApp allows a number, as far as it is known: of one that is there already, only what was given.
fn limits(args: &Whatsapp, created: bool) -> Vec<(Scope, LimitChange)> {
    let limit = |rate| LimitChange { rate, burst: None, inbound_cost: None };
    let mut limits = Vec::new();
    let rate = args.rate.or(created.then_some(whatsapp::MESSAGES_PER_SECOND));
    limits.extend(rate.map(|rate| (Scope::Account, limit(rate))));
    if created && !args.no_pair_limit {
        limits.push((Scope::Pair, whatsapp::PAIR_LIMIT));
    }
    limits.extend(args.messaging_limit.map(|people| (Scope::Portfolio, limit(f64::from(people)))));
    limits
}

async fn resume(args: &Resume, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let id = existing(&databases, &tenant, &args.phone_number_id).await?;
    let id = id.with_context(|| format!("{} has no account with number {}", args.tenant, args.phone_number_id))?;
    let mut fleet = databases.fleet(&tenant.placement, &[tenant.id]).await?;
    let before = db::outbound::accounts::resume(&mut fleet, tenant.id, id).await?.context("the account is gone")?;
    if before == "down" {
        record(&mut fleet, &tenant, id, "channel_account.resumed", serde_json::json!({"before": before})).await?;
    }
    fleet.commit().await?;
    wake(&databases, &tenant, id).await?;
    let text = match before.as_str() {
        "down" => format!("account {id} is active again; what waited for it is sent"),
        state => format!("account {id} was not down: it is {state}"),
    };
    out.say(&Resumed { id, before }, &text)?;
    Ok(ExitCode::SUCCESS)
}

async fn record(
    fleet: &mut FleetTx,
    tenant: &Tenant,
    id: ChannelAccountId,
    action: &str,
    details: Value,
) -> db::Result<()> {
    let entry = Entry { actor: Actor::Operator, action, target_kind: "channel_account", target_id: id.0, details };
    record_for(fleet, tenant.id, &entry).await
}

/// What an operator gave, without the secrets; that of its own webhook address is named if it was given.
fn shown(args: &Whatsapp) -> Value {
    serde_json::json!({
        "after": {
            "name": args.name,
            "phone_number_id": args.phone_number_id,
            "business_account_id": args.business_account_id,
            "display_number": args.display_number,
            "rate": args.rate,
            "portfolio_id": args.portfolio_id,
            "messaging_limit": args.messaging_limit,
        },
        "secrets": if args.app_secret.is_some() { vec!["access_token", "app_secret"] } else { vec!["access_token"] },
    })
}

/// What waited for the account goes on; the scheduler publishes its jobs.
async fn wake(databases: &Databases, tenant: &Tenant, id: ChannelAccountId) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let mut fleet = databases.fleet(&tenant.placement, &[tenant.id]).await?;
        after = db::outbound::accounts::wake(&mut fleet, tenant.id, id, after).await?;
        fleet.commit().await?;
        if after.is_none() {
            return Ok(());
        }
    }
}

async fn existing(databases: &Databases, tenant: &Tenant, number: &str) -> anyhow::Result<Option<ChannelAccountId>> {
    let mut fleet = databases.fleet(&tenant.placement, &[tenant.id]).await?;
    let accounts = db::channel_accounts::list(&mut fleet).await?;
    fleet.commit().await?;
    Ok(accounts.into_iter().find(|account| account.external_id == number).map(|account| account.id))
}

/// The account's own address, if it has one or is to have one; and the word of its handshake, if that was set now.
async fn endpoint(
    control: &mut db::ControlTx,
    args: &Whatsapp,
    keyring: &Keyring,
    tenant: &Tenant,
    id: ChannelAccountId,
    created: bool,
) -> anyhow::Result<(Option<String>, Option<String>)> {
    let key = db::channel_accounts::endpoint_key(control, id).await?;
    let Some(app_secret) = args.app_secret.as_ref().filter(|_| created || args.update) else {
        return Ok((key, None));
    };
    let key = key.unwrap_or_else(random_word);
    let verify_token = args.verify_token.as_ref().map_or_else(random_word, |token| token.expose_secret().to_owned());
    let secrets =
        EndpointSecrets { app_secret: app_secret.expose_secret().to_owned(), verify_token: Some(verify_token.clone()) };
    let sealed = keyring.seal(&endpoint_seal_context(id), &serde_json::to_vec(&secrets)?);
    db::channel_accounts::upsert_endpoint(control, tenant.id, id, Provider::Whatsapp, &key, &sealed).await?;
    Ok((Some(key), Some(verify_token)))
}

fn random_word() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

fn text(said: &Added, update: bool) -> String {
    let done = match (said.created, update) {
        (true, _) => "added",
        (false, true) => "updated",
        (false, false) => "exists already; --update changes it",
    };
    let mut text = format!("account {} {done}\nwebhook URL   {}", said.id, said.webhook_url);
    if let Some(token) = &said.verify_token {
        text.push_str(&format!("\nverify token  {token}"));
    } else if said.webhook_key.is_none() {
        text.push_str(
            "\n              (the platform's: signed with WHATSAPP_APP_SECRET, verified with WHATSAPP_VERIFY_TOKEN)",
        );
    }
    if let Some(next) = &said.next {
        text.push_str(&format!(
            "\nnext          {next}\n              (until then no template is checked before it is sent)"
        ));
    }
    text
}

async fn list(args: &List, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenants = match &args.tenant {
        Some(slug) => vec![settings::tenant(&databases, slug).await?],
        None => {
            let mut tx = databases.control().await?;
            let tenants = db::tenants::list(&mut tx).await?;
            tx.commit().await?;
            tenants
        }
    };
    let mut rows = Vec::new();
    for tenant in tenants {
        let mut tx = databases.fleet(&tenant.placement, &[tenant.id]).await?;
        let accounts = db::channel_accounts::list(&mut tx).await?;
        tx.commit().await?;
        rows.extend(accounts.into_iter().map(|a| Row {
            tenant: tenant.slug.clone(),
            id: a.id.0,
            provider: a.provider,
            name: a.name,
            external_id: a.external_id,
            business_account_id: a.business_account_id,
            state: a.state,
            down_reason: a.down_reason,
            channel: a.channel,
            quality: a.quality,
            alert: a.alert,
            alert_at: a.alert_at,
            rate: a.rate,
            current_rate: a.current_rate,
            templates_synced_at: a.templates_synced_at,
        }));
    }
    let headers = ["tenant", "provider", "name", "number id", "state", "quality", "rate", "templates", "id"];
    out.list(&rows, &headers, |row| {
        let rate = match (row.current_rate, row.rate) {
            (Some(now), Some(rate)) if now < rate => format!("{now:.1} of {rate}/s"),
            (_, rate) => or_dash(rate.map(|rate| format!("{rate}/s"))),
        };
        let state = row.down_reason.as_ref().map_or_else(|| row.state.clone(), |why| format!("{}: {why}", row.state));
        let templates = or_dash(row.templates_synced_at.map(|at| at.format("%Y-%m-%d %H:%M").to_string()));
        let quality = match (&row.quality, &row.alert) {
            (quality, Some(alert)) => format!("{} ({alert})", or_dash(quality.as_ref())),
            (quality, None) => or_dash(quality.as_ref()),
        };
        let (provider, number) = (row.provider.clone(), row.external_id.clone());
        vec![
            row.tenant.clone(),
            provider,
            row.name.clone(),
            number,
            state,
            quality,
            rate,
            templates,
            row.id.to_string(),
        ]
    })?;
    Ok(ExitCode::SUCCESS)
}

fn provider_id(text: &str) -> Result<String, String> {
    let good = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    good.then(|| text.to_owned()).ok_or_else(|| "must be an id as Meta shows it: digits".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && (0.001..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("must be 0.001 to 100000 messages a second".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_rates_that_make_no_sense_are_refused() {
        for wrong in ["", "12 34", "../x", "1?x=y"] {
            assert!(provider_id(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0", "-1", "NaN", "inf", "x"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!((provider_id("330000000000009").is_ok(), rate("0.5")), (true, Ok(0.5)));
    }
}
