//! The settings that commands share.

use anyhow::Context;
use clap::Args;
use shared::{
    config::{BrokerArgs, DatabaseArgs},
    db::{self, Databases, tenants::Tenant},
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
