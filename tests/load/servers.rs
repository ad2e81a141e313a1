//! Taking a server away and bringing it back: stopped and started with `deploy/dev`, or out of reach behind a relay.

use anyhow::{Context, Result, ensure};
use std::{path::Path, process::Stdio};
use support::fleet::{Fleet, Server};

/// How a server goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Away<'a> {
    /// `deploy/dev stop`, then `start`; this is where it lies.
    Stopped(&'a Path),
    /// The fleet's connections to it are cut, and no new ones are let through.
    OutOfReach,
}

impl Away<'_> {
    pub(crate) async fn take(self, fleet: &Fleet, server: Server) -> Result<()> {
        match self {
            Away::Stopped(dev) => deploy(dev, "stop", server).await,
            Away::OutOfReach => {
                fleet.relay(server).close();
                Ok(())
            }
        }
    }

    pub(crate) async fn bring_back(self, fleet: &Fleet, server: Server) -> Result<()> {
        match self {
            Away::Stopped(dev) => deploy(dev, "start", server).await,
            Away::OutOfReach => {
                fleet.relay(server).restore();
                Ok(())
            }
        }
    }
}

/// As `deploy/dev` calls it.
pub(crate) fn name(server: Server) -> &'static str {
    match server {
        Server::Postgres => "postgres",
        Server::Broker => "rabbitmq",
        Server::Redis => "redis",
    }
}

async fn deploy(dev: &Path, verb: &str, server: Server) -> Result<()> {
    let output = tokio::process::Command::new(dev)
        .args([verb, name(server)])
        // What we were given would tell it that these servers are not its own.
        .env_remove("DATABASE_URL")
        .env_remove("AMQP_URL")
        .env_remove("REDIS_URL")
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("run {}", dev.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} {verb} {}: {}\n{said}", dev.display(), name(server), output.status);
    Ok(())
}
