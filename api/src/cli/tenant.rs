//! `mijra tenant`: makes and lists tenants.

use super::{
    output::Output,
    settings::{self, Database},
};
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::{
    db::{
        self, Placement,
        audit::{self, Actor, Entry},
    },
    domain::{languages, outcome::Class, retrying::Rule, tenants::Slug},
};
use std::process::ExitCode;
use uuid::Uuid;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Make a tenant
    Create(Create),
    /// List tenants
    List(List),
    /// When a message that was not sent is tried again: shows the rules, or sets the one of a class
    Retry(Retry),
    /// In which language a template is said to whoever has none of their own: shows it, or sets it
    Language(Language),
}

#[derive(clap::Args, Debug)]
pub(super) struct Create {
    /// Its name in URLs.
    slug: Slug,
    /// Its name for people; the slug unless given.
    #[arg(long)]
    name: Option<String>,
    /// Assumed for telephone numbers written without a country code (ISO 3166-1 alpha-2).
    #[arg(long, value_parser = region)]
    region: Option<String>,
    /// In which database its data lives.
    #[arg(long, default_value = "primary")]
    placement: String,
    /// Be content if there is one of this name.
    #[arg(long)]
    if_missing: bool,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct List {
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct Retry {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// The class whose rule is set: unreachable, transient, once, file, account, pair, provider_account, day or thread.
    #[arg(long, value_parser = class)]
    class: Option<Class>,
    /// Seconds to wait before each further try, comma-separated.
    #[arg(long, value_delimiter = ',', requires = "class", conflicts_with = "usual")]
    delays: Vec<u32>,
    /// It is tried on and on, at the last delay, while the message is of use.
    #[arg(long, requires = "delays")]
    endless: bool,
    /// The rule is as usual again.
    #[arg(long, requires = "class")]
    usual: bool,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct Language {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// The language's code, such as en or pt_BR.
    #[arg(value_parser = language)]
    language: Option<String>,
    /// There is none any more.
    #[arg(long, conflicts_with = "language")]
    none: bool,
    #[command(flatten)]
    database: Database,
}

#[derive(Serialize)]
struct RuleRow {
    class: &'static str,
    delays: Vec<u32>,
    endless: bool,
}

#[derive(Serialize)]
struct Row {
    id: Uuid,
    slug: String,
    name: String,
    placement: String,
    created_at: DateTime<Utc>,
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(args) => create(args, out).await,
        Command::List(args) => list(&args, out).await,
        Command::Retry(args) => retry(args, out).await,
        Command::Language(args) => set_language(args, out).await,
    }
}

async fn create(args: Create, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let placement = Placement::named(&args.placement);
    if !databases.placements().any(|known| *known == placement) {
        anyhow::bail!("placement {placement} is not among PLACEMENTS");
    }
    let name = args.name.as_deref().unwrap_or(args.slug.as_str());
    let mut tx = databases.control().await?;
    db::tenants::ensure_placement(&mut tx, &placement).await?;
    let created = db::tenants::create(&mut tx, &args.slug, name, &placement).await?;
    let tenant = db::tenants::find(&mut tx, args.slug.as_str()).await?.expect("it was made, or was there, just now");
    tx.commit().await?;
    // Also if it was there: a run that was broken off in between is made whole by the next.
    let mut fleet = databases.fleet(&tenant.placement, &[tenant.id]).await?;
    db::tenants::create_settings(&mut fleet, tenant.id, args.region.as_deref()).await?;
    fleet.commit().await?;
    let is_new = created.is_some();
    let value = serde_json::json!({"id": tenant.id, "slug": tenant.slug, "created": is_new});
    let text = if is_new { "created" } else { "exists already" };
    out.say(&value, &format!("tenant {} {text} ({})", tenant.slug, tenant.id))?;
    Ok(if is_new || args.if_missing { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn list(args: &List, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let mut tx = databases.control().await?;
    let tenants = db::tenants::list(&mut tx).await?;
    tx.commit().await?;
    let rows: Vec<Row> = tenants
        .into_iter()
        .map(|t| Row {
            id: t.id.0,
            slug: t.slug,
            name: t.name,
            placement: t.placement.to_string(),
            created_at: t.created_at,
        })
        .collect();
    out.list(&rows, &["slug", "name", "placement", "since", "id"], |row| {
        let since = row.created_at.format("%Y-%m-%d").to_string();
        vec![row.slug.clone(), row.name.clone(), row.placement.clone(), since, row.id.to_string()]
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn retry(args: Retry, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut tx = databases.fleet(&tenant.placement, &[tenant.id]).await?;
    let mut policy =
        db::tenants::retry_policy(&mut tx, tenant.id).await?.context("the tenant has no settings: create it again")?;
    if let Some(class) = args.class {
        anyhow::ensure!(args.usual || !args.delays.is_empty(), "say --delays, or --usual");
        let before = policy.rule(class);
        policy.set(class, (!args.usual).then_some(Rule { delays: args.delays, endless: args.endless }));
        policy.check().map_err(|(class, why)| anyhow::anyhow!("{} {why}", class.as_str()))?;
        db::tenants::set_retry_policy(&mut tx, tenant.id, &policy).await?;
        let details = serde_json::json!({"class": class, "before": before, "after": policy.rule(class)});
        let (action, target_kind) = ("tenant.retry_set", "tenant");
        let entry = Entry { actor: Actor::Operator, action, target_kind, target_id: tenant.id.0, details };
        audit::record_for(&mut tx, tenant.id, &entry).await?;
    }
    tx.commit().await?;
    let rows: Vec<RuleRow> = Class::ALL
        .into_iter()
        .map(|class| {
            let Rule { delays, endless } = policy.rule(class);
            RuleRow { class: class.as_str(), delays, endless }
        })
        .collect();
    out.list(&rows, &["class", "again after seconds", "then"], |row| {
        let delays: Vec<String> = row.delays.iter().map(u32::to_string).collect();
        let then = if row.endless { "on and on" } else { "failed" };
        vec![row.class.to_owned(), delays.join(", "), then.to_owned()]
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn set_language(args: Language, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut tx = databases.tenant(&tenant.placement, tenant.id).await?;
    let before = db::tenants::default_language(&mut tx).await?;
    let after = if args.none { None } else { args.language.or(before.clone()) };
    if after != before {
        let done = db::tenants::set_default_language(&mut tx, after.as_deref()).await?;
        anyhow::ensure!(done, "the tenant has no settings: create it again");
        let details = serde_json::json!({"before": before, "after": after});
        let (action, target_kind) = ("tenant.language_set", "tenant");
        let entry = Entry { actor: Actor::Operator, action, target_kind, target_id: tenant.id.0, details };
        audit::record(&mut tx, &entry).await?;
    }
    tx.commit().await?;
    let text = after.clone().unwrap_or_else(|| "none".to_owned());
    out.say(&serde_json::json!({"default_language": after}), &text)?;
    Ok(ExitCode::SUCCESS)
}

fn language(text: &str) -> Result<String, String> {
    languages::typed(text).map(str::to_owned).map_err(|error| error.to_string())
}

fn class(text: &str) -> Result<Class, String> {
    Class::from_name(text).ok_or_else(|| {
        format!("must be one of {}", Class::ALL.iter().map(|class| class.as_str()).collect::<Vec<_>>().join(", "))
    })
}

fn region(text: &str) -> Result<String, String> {
    let region = text.to_ascii_uppercase();
    let good = region.len() == 2 && region.bytes().all(|b| b.is_ascii_uppercase());
    good.then_some(region).ok_or_else(|| "must be two letters, such as DE".to_owned())
}
