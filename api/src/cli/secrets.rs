//! `mijra secrets rotate`: seals every secret at rest anew with the first key, after which the others can go.

use super::{output::Output, settings::Database};
use anyhow::Context;
use shared::{
    config::SecretArgs,
    db::{
        self, Databases,
        audit::{Actor, Entry, record_for},
        channel_accounts::{endpoint_seal_context, seal_context},
        tenants::Tenant,
    },
    domain::channel::Provider,
    seal::Keyring,
};
use std::process::ExitCode;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Seal all secrets with the first key of MIJRA_SECRET_KEYS
    Rotate(Rotate),
}

#[derive(clap::Args, Debug)]
pub(super) struct Rotate {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    secrets: SecretArgs,
}

#[derive(Default)]
struct Count {
    sealed: usize,
    as_they_were: usize,
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    let Command::Rotate(args) = command;
    let keyring = Keyring::parse(&args.secrets.secret_keys).context("MIJRA_SECRET_KEYS")?;
    let databases = args.database.open().await?;
    let mut tx = databases.control().await?;
    let tenants = db::tenants::list(&mut tx).await?;
    tx.commit().await?;
    let mut count = Count::default();
    for tenant in &tenants {
        rotate(&databases, &keyring, tenant, &mut count).await.with_context(|| tenant.slug.clone())?;
    }
    let key = keyring.sealing_key_id();
    let value = serde_json::json!({"key": key, "sealed": count.sealed, "as_they_were": count.as_they_were});
    let text = format!("{} secrets sealed with key {key}, {} were already", count.sealed, count.as_they_were);
    out.say(&value, &text)?;
    Ok(ExitCode::SUCCESS)
}

async fn rotate(databases: &Databases, keyring: &Keyring, tenant: &Tenant, count: &mut Count) -> anyhow::Result<()> {
    let mut fleet = databases.fleet(&tenant.placement, &[tenant.id]).await?;
    for account in db::channel_accounts::list(&mut fleet).await? {
        if account.secret_key_id == keyring.sealing_key_id() {
            count.as_they_were += 1;
            continue;
        }
        let context = seal_context(account.id);
        let opened = keyring.open(&account.secret_key_id, &context, &account.sealed_secrets).context(account.name)?;
        let sealed = keyring.seal(&context, &opened);
        let before = &account.sealed_secrets;
        // If it was changed meanwhile, it was sealed with a key of whoever changed it; the next run sees to it.
        if db::channel_accounts::reseal(&mut fleet, tenant.id, account.id, before, &sealed).await? {
            let entry = Entry {
                actor: Actor::Operator,
                action: "channel_account.secret_rotated",
                target_kind: "channel_account",
                target_id: account.id.0,
                details: serde_json::json!({"before": account.secret_key_id, "after": sealed.key_id}),
            };
            record_for(&mut fleet, tenant.id, &entry).await?;
            count.sealed += 1;
        }
    }
    fleet.commit().await?;
    let mut control = databases.control().await?;
    db::channel_accounts::scope_routes(&mut control, tenant.id).await?;
    for (key, account_id, before) in db::channel_accounts::list_endpoints(&mut control).await? {
        if before.key_id == keyring.sealing_key_id() {
            count.as_they_were += 1;
            continue;
        }
        let context = endpoint_seal_context(account_id);
        let opened = keyring.open(&before.key_id, &context, &before.bytes).context("webhook endpoint")?;
        let sealed = keyring.seal(&context, &opened);
        let provider = Provider::Whatsapp;
        db::channel_accounts::upsert_endpoint(&mut control, tenant.id, account_id, provider, &key, &sealed).await?;
        count.sealed += 1;
    }
    control.commit().await?;
    Ok(())
}
