//! Which private servers a measurement uses, and which processes those are. It creates nothing on them: each side of a
//! measurement makes its own database and queues and removes them.

use std::path::Path;

use anyhow::{Context, Result};
use url::Url;

use crate::measure::accounts::Watched;
use crate::measure::proc;

/// Servers that nobody else uses meanwhile: their processor time is charged to the run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Services {
    /// Postgres, with a role that may create databases and checkpoint
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: Url,
    /// RabbitMQ
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    pub(crate) amqp_url: Url,
    /// Redis, for Mijra's API
    #[arg(long, env = "REDIS_URL", hide_env_values = true, default_value = "redis://127.0.0.1:6379")]
    pub(crate) redis_url: Url,
    /// Process id of the postmaster, if it cannot be found by its port
    #[arg(long)]
    postgres_pid: Option<u32>,
    /// Process id of RabbitMQ's beam.smp, if it cannot be found by its port
    #[arg(long)]
    rabbitmq_pid: Option<u32>,
}

/// How RabbitMQ and Postgres are called in the accounts.
pub(crate) const RABBITMQ: &str = "RabbitMQ";
pub(crate) const POSTGRES: &str = "Postgres";

impl Services {
    /// RabbitMQ's process.
    pub(crate) fn rabbitmq(&self) -> Result<Watched> {
        let port = self.amqp_url.port().unwrap_or(5672);
        let pid = self.rabbitmq_pid.or_else(|| proc::listener_on_port(port));
        let pid = pid.with_context(|| format!("find the process that listens on port {port}; give --rabbitmq-pid"))?;
        Ok(Watched::server(RABBITMQ, pid))
    }

    /// The postmaster, which stands for all its backends.
    pub(crate) fn postgres(&self) -> Result<Watched> {
        let port = self.database_url.port().unwrap_or(5432);
        let socket_folder =
            self.database_url.query_pairs().find(|(key, value)| key == "host" && value.starts_with('/'));
        let pid = self.postgres_pid.or_else(|| match &socket_folder {
            Some((_, folder)) => proc::listener_on_path(&Path::new(folder.as_ref()).join(format!(".s.PGSQL.{port}"))),
            None => proc::listener_on_port(port),
        });
        let pid = pid.with_context(|| format!("find the process that listens on port {port}; give --postgres-pid"))?;
        Ok(Watched::server(POSTGRES, pid))
    }
}
