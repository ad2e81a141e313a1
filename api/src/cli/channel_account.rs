//! `mijra channel-account`: a tenant's accounts at their providers, with sealed secrets, their rate, and the routes by which
//! webhooks find them.

mod add;
mod gateway;
mod instagram;
mod messenger;
mod twilio;
mod whatsapp;

use super::{
    output::{Output, or_dash},
    settings::{self, Database},
};
use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use shared::{
    config::{PublicUrlArgs, SecretArgs},
    db::{
        self, Databases, FleetTx,
        audit::{Actor, Entry, record_for},
        channel_accounts::Account,
        tenants::Tenant,
    },
    domain::{channel::Provider, ids::ChannelAccountId},
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
    /// Show one: where its webhooks are to be sent, and with what word its handshake is answered
    Show(Show),
    /// Bring an account back that is down, once what its provider complained about is mended; what waited for it is sent
    Resume(Resume),
}

#[derive(clap::Subcommand, Debug)]
pub(super) enum Add {
    /// A WhatsApp number
    Whatsapp(Box<whatsapp::Whatsapp>),
    /// A Facebook Page
    Messenger(Box<messenger::Messenger>),
    /// An Instagram professional account
    Instagram(Box<instagram::Instagram>),
    /// A Twilio sender: a number, a short code, a WhatsApp sender or a messaging service
    Twilio(Box<twilio::Twilio>),
    /// A number at a gateway: something with an endpoint to send by and nothing else, described by a file
    Gateway(Box<gateway::Gateway>),
}

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// Only of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Only at this provider.
    #[arg(long)]
    provider: Option<Provider>,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct Show {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// Which: its id here, or its provider's id of it.
    #[arg(long, visible_alias = "phone-number-id")]
    account: String,
    /// Show the word of its handshake, too, which is a secret.
    #[arg(long)]
    reveal: bool,
    #[command(flatten)]
    public_url: PublicUrlArgs,
    #[command(flatten)]
    secrets: SecretArgs,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct Resume {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// Which: its id here, or its provider's id of it.
    #[arg(long, visible_alias = "phone-number-id")]
    account: String,
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
struct Shown {
    #[serde(flatten)]
    row: Row,
    webhook_url: String,
    /// The last part of its own address; absent if its webhooks come to the platform's.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify_token: Option<String>,
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
    down_code: Option<String>,
    down_reason: Option<String>,
    channel: String,
    quality: Option<String>,
    alert: Option<String>,
    alert_at: Option<chrono::DateTime<chrono::Utc>>,
    rate: Option<f64>,
    current_rate: Option<f64>,
    templates_synced_at: Option<chrono::DateTime<chrono::Utc>>,
    /// Why they could not be fetched the last time.
    templates_failure: Option<String>,
}

impl Row {
    fn of(tenant: &str, a: Account) -> Self {
        Self {
            tenant: tenant.to_owned(),
            id: a.id.0,
            provider: a.provider,
            name: a.name,
            external_id: a.external_id,
            business_account_id: a.business_account_id,
            state: a.state,
            down_code: a.down_code,
            down_reason: a.down_reason,
            channel: a.channel,
            quality: a.quality,
            alert: a.alert,
            alert_at: a.alert_at,
            rate: a.rate,
            current_rate: a.current_rate,
            templates_synced_at: a.templates_synced_at,
            templates_failure: a.templates_failure,
        }
    }
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Add(Add::Whatsapp(args)) => args.add(out).await,
        Command::Add(Add::Messenger(args)) => args.add(out).await,
        Command::Add(Add::Instagram(args)) => args.add(out).await,
        Command::Add(Add::Twilio(args)) => args.add(out).await,
        Command::Add(Add::Gateway(args)) => args.add(out).await,
        Command::List(args) => list(&args, out).await,
        Command::Show(args) => show(&args, out).await,
        Command::Resume(args) => resume(&args, out).await,
    }
}

async fn show(args: &Show, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let id = settings::account(&databases, &tenant, &args.account).await?;
    let account = settings::accounts(&databases, &tenant).await?.into_iter().find(|account| account.id == id);
    let row = Row::of(&tenant.slug, account.context("the account is gone")?);
    let provider: Provider = row.provider.parse()?;
    let mut control = databases.control().await?;
    db::channel_accounts::scope_routes(&mut control, tenant.id).await?;
    let webhook_key = db::channel_accounts::endpoint_key(&mut control, id).await?;
    let keyring = Keyring::parse(&args.secrets.secret_keys).context("MIJRA_SECRET_KEYS")?;
    let verify_token = match webhook_key.as_deref().filter(|_| args.reveal) {
        Some(key) => add::verify_token(&mut control, key, &keyring).await?,
        None => None,
    };
    control.commit().await?;
    let webhook_url = add::webhook_url(&args.public_url, provider, webhook_key.as_deref());
    let why = row.down_reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let mut text = format!(
        "account       {} ({} {})\nname          {}\nstate         {}{why}\nwebhook URL   {webhook_url}",
        row.id, row.provider, row.external_id, row.name, row.state,
    );
    if let Some(failure) = &row.templates_failure {
        text.push_str(&format!("\ntemplates     could not be fetched the last time: {failure}"));
    }
    match (&webhook_key, &verify_token) {
        (Some(_), _) if !add::has_handshake(provider) => {}
        (None, _) => text.push_str(&format!("\n              (the platform's: {})", add::platform_settings(provider))),
        (Some(_), Some(token)) => text.push_str(&format!("\nverify token  {token}")),
        (Some(_), None) => text.push_str("\nverify token  (--reveal shows it)"),
    }
    out.say(&Shown { row, webhook_url, webhook_key, verify_token }, &text)?;
    Ok(ExitCode::SUCCESS)
}

async fn resume(args: &Resume, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let id = settings::account(&databases, &tenant, &args.account).await?;
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
        let wanted = |provider: &str| args.provider.is_none_or(|only| only.as_str() == provider);
        rows.extend(accounts.into_iter().filter(|account| wanted(&account.provider)).map(|a| Row::of(&tenant.slug, a)));
    }
    let headers = ["tenant", "provider", "name", "provider's id", "state", "quality", "rate", "templates", "id"];
    out.list(&rows, &headers, |row| {
        let rate = match (row.current_rate, row.rate) {
            (Some(now), Some(rate)) if now < rate => format!("{now:.1} of {rate}/s"),
            (_, rate) => or_dash(rate.map(|rate| format!("{rate}/s"))),
        };
        let down = [row.down_code.as_deref(), row.down_reason.as_deref()].into_iter().flatten();
        let state = std::iter::once(row.state.as_str()).chain(down).collect::<Vec<_>>().join(": ");
        let fetched = or_dash(row.templates_synced_at.map(|at| at.format("%Y-%m-%d %H:%M").to_string()));
        let templates = if row.templates_failure.is_some() { format!("{fetched} (failed since)") } else { fetched };
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
    good.then(|| text.to_owned()).ok_or_else(|| "must be an id as its provider shows it: letters and digits".to_owned())
}

/// An address as Twilio writes it: a number with its plus, a short code, letters, or any of these after a channel's prefix.
fn sender(text: &str) -> Result<String, String> {
    let good = (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b':' | b'_' | b'.' | b'-'));
    let address = text.rsplit_once(':').map_or(text, |(_, address)| address);
    // Longer than any short code, so it is a number, and nothing comes from one that is written so.
    if address.len() > 6 && address.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("must be an address as Twilio writes it: numbers begin with +, as in +{address}"));
    }
    good.then(|| text.to_owned()).ok_or_else(|| "must be an address as Twilio writes it".to_owned())
}

/// The SID of an account: AC and 32 hexadecimal digits (providers/twilio section 1).
fn account_sid(text: &str) -> Result<String, String> {
    let good = text.len() == 34 && text.starts_with("AC") && text[2..].bytes().all(|b| b.is_ascii_hexdigit());
    good.then(|| text.to_owned()).ok_or_else(|| "must be an account's SID: AC and 32 hexadecimal digits".to_owned())
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
        for wrong in ["", "ACxyz", "AC0000000000000000000000000000000g", "SK00000000000000000000000000000001"] {
            assert!(account_sid(wrong).is_err(), "{wrong}");
        }
        assert!(account_sid("AC00000000000000000000000000000001").is_ok());
        for wrong in ["", "+1 503", "whatsapp:+1/..", "a?b", "15035550199", "whatsapp:15035550199"] {
            assert!(sender(wrong).is_err(), "{wrong}");
        }
        for right in ["+15035550199", "whatsapp:+15035550199", "24246", "MYBRAND", "MG2c000000000000000000000000000001"]
        {
            assert!(sender(right).is_ok(), "{right}");
        }
        assert_eq!((provider_id("330000000000009").is_ok(), rate("0.5")), (true, Ok(0.5)));
    }
}
