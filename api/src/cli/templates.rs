//! `mijra templates`: providers' templates and a tenant's own. What concerns a provider is done there at once, as an operator waits for it;
//! the API leaves that to a job.

mod making;

use super::{
    output::{Output, complain, or_dash},
    settings::{self, Database},
};
use crate::routes::templates::{self as view, previewed};
use anyhow::Context;
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::Serialize;
use shared::{
    clock::Clock,
    config::{ProviderApis, SecretArgs},
    db::{
        self, Databases,
        channel_accounts::{Account, AccountSecrets, seal_context},
        templates::{Filter, Shown, sync},
        tenants::Tenant,
    },
    domain::{
        channel::{Channel, Provider},
        content,
        ids::{ContactId, TemplateId},
        templates::TemplateInfo,
    },
    providers::templates::{Owner, TemplateClient, has_templates},
    seal::Keyring,
};
use std::{collections::BTreeSet, process::ExitCode};
use uuid::Uuid;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// List templates, the newest first
    List(List),
    /// Show a template
    Show(Show),
    /// Fetch the templates of a tenant's accounts from WhatsApp and Twilio
    Sync(Sync),
    /// Make a template at a provider, or one of the tenant's own
    Create(making::Create),
    /// Delete a template: a provider's is deleted there
    Delete(making::Delete),
    /// Show what somebody would read, and what would be missing
    Preview(Preview),
}

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// Only of this account: its id here, or its provider's id of it.
    #[arg(long)]
    account: Option<String>,
    /// provider or local.
    #[arg(long, value_parser = ["provider", "local"])]
    kind: Option<String>,
    /// APPROVED, PENDING …
    #[arg(long)]
    status: Option<String>,
    /// MARKETING, greeting …
    #[arg(long)]
    category: Option<String>,
    /// Only of exactly this name.
    #[arg(long)]
    name: Option<String>,
    /// Only in exactly this language.
    #[arg(long)]
    language: Option<String>,
    /// No more than so many.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct Show {
    /// The template's id.
    id: TemplateId,
    /// Whose.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct Preview {
    /// The template's id.
    id: TemplateId,
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// Who would read it.
    #[arg(long)]
    contact: Option<ContactId>,
    /// Values: `Ada` for the next number, or `name=Ada`; repeat it.
    #[arg(long = "value")]
    values: Vec<String>,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct Sync {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// Only this account (its id here, or its provider's id of it), and those that share its templates.
    #[arg(long)]
    account: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

/// What asking a provider takes.
#[derive(clap::Args, Debug)]
pub(super) struct Asking {
    #[command(flatten)]
    apis: ProviderApis,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    secrets: SecretArgs,
}

/// An operator who asks providers for a tenant's accounts.
struct Desk {
    databases: Databases,
    tenant: Tenant,
    keyring: Keyring,
    client: TemplateClient,
}

#[derive(Serialize)]
struct Row {
    id: TemplateId,
    kind: String,
    account: Option<Uuid>,
    name: String,
    language: String,
    status: String,
    category: String,
    uses: i64,
    updated_at: DateTime<Utc>,
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(args) => list(args, out).await,
        Command::Show(args) => show(&args, out).await,
        Command::Sync(args) => synchronise(args, out).await,
        Command::Create(args) => making::create(args, out).await,
        Command::Delete(args) => making::delete(args, out).await,
        Command::Preview(args) => preview(args, out).await,
    }
}

async fn list(args: List, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let channel_account_id = settings::account_if_named(&databases, &tenant, args.account.as_deref()).await?;
    let List { kind, status, category, name, language, limit, .. } = args;
    let filter = Filter { id: None, channel_account_id, kind, status, category, name, language };
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let found = db::templates::list(&mut tx, &filter, None, limit.into()).await?;
    tx.commit().await?;
    let row = |t: Shown| Row {
        id: t.id,
        kind: t.kind,
        account: t.channel_account_id,
        name: t.name,
        language: t.language,
        status: t.status,
        category: t.category,
        uses: t.uses,
        updated_at: t.synced_at,
    };
    let rows: Vec<Row> = found.into_iter().map(row).collect();
    out.list(&rows, &["name", "language", "status", "category", "uses", "account", "updated", "id"], |row| {
        let updated = row.updated_at.format("%Y-%m-%d %H:%M").to_string();
        let account = row.account.map_or_else(|| "(own)".to_owned(), |id| id.to_string());
        let text = |text: &String| or_dash(Some(text).filter(|text| !text.is_empty()));
        vec![
            row.name.clone(),
            row.language.clone(),
            row.status.clone(),
            text(&row.category),
            row.uses.to_string(),
            account,
            updated,
            row.id.to_string(),
        ]
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn show(args: &Show, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let found = db::templates::show(&mut tx, args.id).await?;
    tx.commit().await?;
    let found = found.with_context(|| format!("{} has no template {}", tenant.slug, args.id))?;
    let view = view::TemplateView::from(found);
    // For people, too: it has parts in parts.
    out.say(&view, &serde_json::to_string_pretty(&view)?)?;
    Ok(ExitCode::SUCCESS)
}

async fn preview(args: Preview, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let found = db::templates::show(&mut tx, args.id).await?;
    let reader = db::templates::reader(&mut tx, args.contact).await?;
    tx.commit().await?;
    let found = found.with_context(|| format!("{} has no template {}", tenant.slug, args.id))?;
    let mut given = content::Template::default();
    for value in args.values {
        match value.split_once('=') {
            Some((name, value)) => drop(given.named_variables.insert(name.to_owned(), value.to_owned())),
            None => given.variables.push(value),
        }
    }
    let preview = previewed(found, given, &reader);
    let problems: Vec<String> = preview.problems().map(|(field, message)| format!("{field} {message}")).collect();
    let text = [vec![preview.text().to_owned()], problems.clone()].concat().join("\n");
    out.say(&preview, &text)?;
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn synchronise(args: Sync, out: &Output) -> anyhow::Result<ExitCode> {
    let desk = Desk::open(&args.asking, &args.tenant).await?;
    let wanted = desk.accounts(args.account.as_deref()).await?;
    anyhow::ensure!(!wanted.is_empty(), "tenant {} has no such account of WhatsApp or Twilio", desk.tenant.slug);
    let mut done: BTreeSet<(String, String)> = BTreeSet::new();
    let mut code = ExitCode::SUCCESS;
    for account in wanted {
        // Those that share their templates get them together.
        let owner = account.business_account_id.clone().unwrap_or_else(|| account.id.to_string());
        if !done.insert((account.provider.clone(), owner)) {
            continue;
        }
        let at = Clock::system().now();
        let found = match desk.list(&account).await {
            Ok(found) => found,
            Err(error) => {
                // The others' are fetched all the same.
                complain(&error.context(account.name.clone()));
                code = ExitCode::FAILURE;
                continue;
            }
        };
        let mut tx = desk.databases.fleet(&desk.tenant.placement, &[desk.tenant.id]).await?;
        sync::replace(&mut tx, desk.tenant.id, account.id, &found, at).await?;
        tx.commit().await?;
        let approved = found.iter().filter(|template| can_be_sent(template)).count();
        let value = serde_json::json!({"account": account.id, "templates": found.len(), "approved": approved});
        out.say(&value, &format!("{}: {} templates, {approved} can be sent", account.name, found.len()))?;
    }
    Ok(code)
}

fn can_be_sent(template: &TemplateInfo) -> bool {
    template.status == "APPROVED" && template.needs.beyond_us.is_none()
}

impl Desk {
    async fn open(asking: &Asking, tenant: &str) -> anyhow::Result<Self> {
        let keyring = Keyring::parse(&asking.secrets.secret_keys).context("MIJRA_SECRET_KEYS")?;
        let databases = asking.database.open().await?;
        let tenant = settings::tenant(&databases, tenant).await?;
        Ok(Self { databases, tenant, keyring, client: TemplateClient::new(asking.apis.clone())? })
    }

    /// The tenant's accounts whose providers have templates, or this one of them.
    async fn accounts(&self, only: Option<&str>) -> anyhow::Result<Vec<Account>> {
        let only = settings::account_if_named(&self.databases, &self.tenant, only).await?;
        let accounts = settings::accounts(&self.databases, &self.tenant).await?;
        let is_wanted = |account: &Account| {
            // Another provider's token is none of theirs.
            account.provider.parse::<Provider>().is_ok_and(has_templates) && only.is_none_or(|id| account.id == id)
        };
        Ok(accounts.into_iter().filter(is_wanted).collect())
    }

    /// What an account's provider has.
    async fn list(&self, account: &Account) -> anyhow::Result<Vec<TemplateInfo>> {
        let secrets = self.open_secrets(account)?;
        let token = SecretString::from(secrets.access_token.as_str());
        Ok(self.client.list(&owner_of(account, &secrets, &token)?).await?)
    }

    fn open_secrets(&self, account: &Account) -> anyhow::Result<AccountSecrets> {
        let opened = self.keyring.open(&account.secret_key_id, &seal_context(account.id), &account.sealed_secrets)?;
        // What serde says might quote them.
        serde_json::from_slice(&opened).map_err(|_| anyhow::anyhow!("the opened secrets are not of our form"))
    }
}

fn owner_of<'a>(
    account: &'a Account,
    secrets: &'a AccountSecrets,
    token: &'a SecretString,
) -> anyhow::Result<Owner<'a>> {
    Ok(Owner {
        provider: account.provider.parse().context("the account's provider")?,
        channel: Channel::from_name(&account.channel).context("the account's channel")?,
        business_account_id: Some(
            account.business_account_id.as_deref().context("the account has no business account")?,
        ),
        username: secrets.username.as_deref(),
        token,
    })
}
