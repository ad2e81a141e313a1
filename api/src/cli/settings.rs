//! The settings that commands share.

use anyhow::Context;
use clap::Args;
use shared::{
    config::{BrokerArgs, DatabaseArgs},
    db::{self, Databases, channel_accounts::Account, tenants::Tenant},
    domain::ids::ChannelAccountId,
    queue::{self, Broker},
};

/// How to reach Postgres, in the role of the operator.
#[derive(Args, Debug)]
pub(super) struct Database {
    #[command(flatten)]
    args: DatabaseArgs,
}

impl Database {
    /// The databases, checked: the schema fits and the role cannot bypass row-level security.
    pub(super) async fn open(&self) -> anyhow::Result<Databases> {
        let databases = self.unchecked()?;
        databases.check().await?;
        Ok(databases)
    }

    /// The databases, not asked yet.
    pub(super) fn unchecked(&self) -> anyhow::Result<Databases> {
        Ok(Databases::new(&db::Settings {
            control: self.args.database_url.secret().clone(),
            placements: self.args.placements.by_name("PLACEMENTS")?,
            max_connections: 2,
            application_name: "mijra".to_owned(),
        })?)
    }
}

/// The tenant of that name.
pub(super) async fn tenant(databases: &Databases, slug: &str) -> anyhow::Result<Tenant> {
    let mut tx = databases.control().await?;
    let tenant = db::tenants::find(&mut tx, slug).await?;
    tx.commit().await?;
    tenant.with_context(|| format!("there is no tenant {slug}; `mijra tenant list` shows those there are"))
}

/// The tenant's channel accounts.
pub(super) async fn accounts(databases: &Databases, tenant: &Tenant) -> anyhow::Result<Vec<Account>> {
    let mut fleet = databases.fleet(&tenant.placement, &[tenant.id]).await?;
    let accounts = db::channel_accounts::list(&mut fleet).await?;
    fleet.commit().await?;
    Ok(accounts)
}

/// The tenant's account with this id of ours, or of its provider's.
pub(super) async fn account(databases: &Databases, tenant: &Tenant, wanted: &str) -> anyhow::Result<ChannelAccountId> {
    let id = wanted.parse::<ChannelAccountId>().ok();
    let named = |account: &Account| id == Some(account.id) || account.external_id == wanted;
    let mut found = accounts(databases, tenant).await?.into_iter().filter(named);
    let slug = &tenant.slug;
    match (found.next(), found.next()) {
        (Some(account), None) => Ok(account.id),
        (None, _) => anyhow::bail!(
            "{slug} has no account {wanted}, neither by its id here nor by its provider's; `mijra channel-account list` shows those there are"
        ),
        (Some(one), Some(other)) => {
            anyhow::bail!("{} and {} both have the provider's id {wanted}: use their ids here", one.id, other.id)
        }
    }
}

/// The same, where one need not be named.
pub(super) async fn account_if_named(
    databases: &Databases,
    tenant: &Tenant,
    wanted: Option<&str>,
) -> anyhow::Result<Option<ChannelAccountId>> {
    match wanted {
        Some(wanted) => account(databases, tenant, wanted).await.map(Some),
        None => Ok(None),
    }
}

/// How to reach RabbitMQ.
#[derive(Args, Debug)]
pub(super) struct BrokerSettings {
    #[command(flatten)]
    args: BrokerArgs,
    /// Prefix of the queues, as the processes have it.
    #[arg(long, env = "MIJRA_NAMESPACE", default_value = "mijra")]
    namespace: String,
}

impl BrokerSettings {
    /// The broker, with the queues declared: on a new one there is then nothing in them rather than nothing at all.
    pub(super) async fn open(&self) -> anyhow::Result<Broker> {
        let broker = self.broker();
        broker.declare().await?;
        Ok(broker)
    }

    /// The broker, not asked yet.
    pub(super) fn broker(&self) -> Broker {
        Broker::new(queue::Settings {
            url: self.args.amqp_url.secret().clone(),
            namespace: self.namespace.clone(),
            process: "mijra".to_owned(),
        })
    }
}
