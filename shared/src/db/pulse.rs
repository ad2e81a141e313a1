//! Whether the databases are there, found out by asking: a process with nothing to do would notice only with its next work, and
//! a pool takes seconds to say so. Asked on connections of their own, because those of the pool may all be busy: that is no absence.

use super::placements::{Databases, Placement};
use futures_util::future::join_all;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{collections::BTreeMap, fmt, time::Duration};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

/// Between two questions.
const EVERY: Duration = Duration::from_secs(1);
/// A database that is there answers within this. One that has vanished without a word answers neither yes nor no.
const WITHIN: Duration = Duration::from_secs(2);

/// The databases that do not answer, each with the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Away(BTreeMap<Placement, String>);

impl Away {
    /// Whether all are there.
    pub fn is_nobody(&self) -> bool {
        self.0.is_empty()
    }

    fn log_changes(&self, after: &Away) {
        for (placement, why) in after.0.iter().filter(|(placement, _)| !self.includes(placement)) {
            warn!(%placement, why, "the database is away");
        }
        for placement in self.0.keys().filter(|placement| !after.includes(placement)) {
            info!(%placement, "the database is back");
        }
    }

    /// Whether this one is away.
    pub fn includes(&self, placement: &Placement) -> bool {
        self.0.contains_key(placement)
    }
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (placement, why)) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "; " };
            write!(f, "{comma}database {placement} is away: {why}")?;
        }
        Ok(())
    }
}

impl Databases {
    /// Asks every database once which are away; within some seconds.
    pub async fn away(&self) -> Away {
        feel(&mut self.pulses()).await
    }

    /// Asks every database once a second, as long as this is polled, and tells each time which are away.
    pub async fn watch(&self, mut tell: impl FnMut(&Away)) {
        let (mut pulses, mut before) = (self.pulses(), Away::default());
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let away = feel(&mut pulses).await;
            before.log_changes(&away);
            tell(&away);
            before = away;
        }
    }

    fn pulses(&self) -> Vec<Pulse> {
        self.connect_options().map(|(placement, options)| Pulse { placement, options, connection: None }).collect()
    }
}

async fn feel(pulses: &mut [Pulse]) -> Away {
    let answers = join_all(pulses.iter_mut().map(Pulse::feel)).await;
    Away(answers.into_iter().flatten().collect())
}

/// One database, and our connection to it.
struct Pulse {
    placement: Placement,
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl Pulse {
    /// Why it is away; `None` if it is not.
    async fn feel(&mut self) -> Option<(Placement, String)> {
        let why = match tokio::time::timeout(WITHIN, self.ask()).await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {WITHIN:?}"),
        };
        // Whatever state it is in: the next question is asked on a new one.
        self.connection = None;
        Some((self.placement.clone(), why))
    }

    async fn ask(&mut self) -> sqlx::Result<()> {
        if let Some(connection) = &mut self.connection {
            // It may have been restarted since the last time, which is no absence.
            if connection.ping().await.is_ok() {
                return Ok(());
            }
        }
        self.connection = None;
        let connection = self.connection.insert(PgConnection::connect_with(&self.options).await?);
        connection.ping().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_away_is_named_with_the_reason() {
        assert!(Away::default().is_nobody());
        let away = [("eu", "no answer"), ("primary", "connection refused")];
        let away = Away(away.map(|(name, why)| (Placement::named(name), why.to_owned())).into());
        assert!(away.includes(&Placement::primary()) && !away.includes(&Placement::named("us")));
        assert_eq!(away.to_string(), "database eu is away: no answer; database primary is away: connection refused");
    }
}
