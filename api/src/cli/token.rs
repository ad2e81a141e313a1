//! `mijra token`: makes, lists, extends and revokes tokens of the API.

use super::{
    output::{Output, or_dash},
    settings::{self, Database},
};
use crate::auth::BearerToken;
use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use shared::{
    clock::Clock,
    db::{
        self, FleetTx,
        audit::{Actor, Entry, record_for},
    },
    domain::{
        ids::{ApiTokenId, TenantId},
        permissions::Permission,
    },
};
use std::process::ExitCode;
use uuid::Uuid;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Make a token; it is shown once
    Create(Create),
    /// List a tenant's tokens
    List(List),
    /// Let a token do more (within 10 s)
    Grant(Grant),
    /// Refuse a token from now on (within 10 s)
    Revoke(Revoke),
}

#[derive(clap::Args, Debug)]
pub(super) struct Create {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// What its owner calls it.
    #[arg(long)]
    name: String,
    /// What it may do; repeat it, or separate with commas. Everything unless given.
    #[arg(long = "permission", value_delimiter = ',')]
    permissions: Vec<Permission>,
    /// It is refused after so many days.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    expires_in_days: Option<u16>,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// Whose.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct Grant {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// The token's id: what stands between the first two underscores.
    id: ApiTokenId,
    /// What it may do besides; repeat it, or separate with commas.
    #[arg(long = "permission", value_delimiter = ',', required = true)]
    permissions: Vec<Permission>,
    #[command(flatten)]
    database: Database,
}

#[derive(clap::Args, Debug)]
pub(super) struct Revoke {
    /// Whose.
    #[arg(long)]
    tenant: String,
    /// The token's id: what stands between the first two underscores.
    id: ApiTokenId,
    #[command(flatten)]
    database: Database,
}

#[derive(Serialize)]
struct Row {
    id: Uuid,
    name: String,
    permissions: Vec<Permission>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(args) => create(args, out).await,
        Command::List(args) => list(&args, out).await,
        Command::Grant(args) => grant(&args, out).await,
        Command::Revoke(args) => revoke(&args, out).await,
    }
}

async fn create(args: Create, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let permissions = if args.permissions.is_empty() { Permission::ALL.to_vec() } else { args.permissions };
    let expires_at = args.expires_in_days.map(|days| Clock::system().now() + TimeDelta::days(days.into()));
    let (token, text) = BearerToken::generate();
    let mut tx = databases.fleet(&tenant.placement, &[tenant.id]).await?;
    db::tokens::insert(&mut tx, tenant.id, token.id, &args.name, &token.digest, &permissions, expires_at).await?;
    let details = serde_json::json!({"name": args.name, "permissions": permissions, "expires_at": expires_at});
    record(&mut tx, tenant.id, token.id, "token.created", details).await?;
    tx.commit().await?;
    let value =
        serde_json::json!({"id": token.id, "token": text, "permissions": permissions, "expires_at": expires_at});
    out.say(&value, &text)?;
    Ok(ExitCode::SUCCESS)
}

async fn list(args: &List, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut tx = databases.fleet(&tenant.placement, &[tenant.id]).await?;
    let tokens = db::tokens::list(&mut tx, tenant.id).await?;
    tx.commit().await?;
    let rows: Vec<Row> = tokens
        .into_iter()
        .map(|t| Row {
            id: t.id.0,
            name: t.name,
            permissions: t.permissions,
            created_at: t.created_at,
            expires_at: t.expires_at,
            revoked_at: t.revoked_at,
        })
        .collect();
    let day = |at: DateTime<Utc>| at.format("%Y-%m-%d").to_string();
    out.list(&rows, &["id", "name", "since", "expires", "revoked", "permissions"], |row| {
        let permissions: Vec<&str> = row.permissions.iter().map(|p| p.as_str()).collect();
        vec![
            row.id.simple().to_string(),
            row.name.clone(),
            day(row.created_at),
            or_dash(row.expires_at.map(day)),
            or_dash(row.revoked_at.map(day)),
            permissions.join(" "),
        ]
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn grant(args: &Grant, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut tx = databases.fleet(&tenant.placement, &[tenant.id]).await?;
    let granted = db::tokens::grant(&mut tx, tenant.id, args.id, &args.permissions).await?;
    if let Some((permissions, true)) = &granted {
        let details = serde_json::json!({"granted": args.permissions, "permissions": permissions});
        record(&mut tx, tenant.id, args.id, "token.granted", details).await?;
    }
    tx.commit().await?;
    let (permissions, _) = granted.with_context(|| format!("tenant {} has no token {}", tenant.slug, args.id))?;
    let names: Vec<&str> = permissions.iter().map(|p| p.as_str()).collect();
    out.say(
        &serde_json::json!({"id": args.id, "permissions": permissions}),
        &format!("token {} may: {}", args.id, names.join(" ")),
    )?;
    Ok(ExitCode::SUCCESS)
}

async fn record(tx: &mut FleetTx, tenant: TenantId, id: ApiTokenId, action: &str, details: Value) -> db::Result<()> {
    let entry = Entry { actor: Actor::Operator, action, target_kind: "token", target_id: id.0, details };
    record_for(tx, tenant, &entry).await
}

async fn revoke(args: &Revoke, out: &Output) -> anyhow::Result<ExitCode> {
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, &args.tenant).await?;
    let mut tx = databases.fleet(&tenant.placement, &[tenant.id]).await?;
    let revoked = db::tokens::revoke(&mut tx, tenant.id, args.id).await?;
    if revoked == Some(true) {
        record(&mut tx, tenant.id, args.id, "token.revoked", serde_json::json!({})).await?;
    }
    tx.commit().await?;
    anyhow::ensure!(revoked.is_some(), "tenant {} has no token {}", tenant.slug, args.id);
    out.say(
        &serde_json::json!({"id": args.id, "revoked": true}),
        &format!("token {} is refused from now on", args.id),
    )?;
    Ok(ExitCode::SUCCESS)
}
