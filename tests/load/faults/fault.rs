//! What goes wrong: each fault by its name, and making it happen on a fleet under load.

use crate::servers::{self, Away};
use anyhow::{Result, bail, ensure};
use shared::crash::CrashPoint;
use std::time::{Duration, Instant};
use support::{
    fleet::{Fleet, Server},
    programs::Program,
};

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A program ends itself at one of its worst moments.
    Crash(CrashPoint),
    /// kill -9.
    Kill(Program),
    /// The sender's machine stands still for a while.
    SigStop,
    /// Every connection to the broker is cut.
    Cut,
    /// A server is away for a while.
    Stop(Server),
}

/// How long what goes on for a while does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spells<'a> {
    pub(super) standstill: Duration,
    pub(super) away: Duration,
    pub(super) way: Away<'a>,
}

/// A program that is told to end, or passes a point that is armed, does so within this time.
const SOON: Duration = Duration::from_secs(30);
/// Everything is ready again by then.
const READY_WITHIN: Duration = Duration::from_secs(60);

impl Fault {
    pub(super) fn name(self) -> String {
        match self {
            Fault::Crash(point) => point.as_str().to_owned(),
            Fault::Kill(program) => format!("kill.{}", program.name()),
            Fault::SigStop => "sigstop".to_owned(),
            Fault::Cut => "cut".to_owned(),
            Fault::Stop(server) => format!("stop.{}", servers::name(server)),
        }
    }

    pub(super) fn all() -> Vec<Fault> {
        let crashes = CrashPoint::ALL.iter().copied().map(Fault::Crash);
        let kills = Program::ALL.into_iter().map(Fault::Kill);
        let stops = Server::ALL.into_iter().map(Fault::Stop);
        crashes.chain(kills).chain([Fault::SigStop, Fault::Cut]).chain(stops).collect()
    }

    /// Those of these names, or of these groups: `outbound` means all of `outbound.…`.
    pub(super) fn named(names: &[String]) -> Result<Vec<Fault>> {
        if names.iter().any(|name| name == "all") {
            return Ok(Fault::all());
        }
        let mut faults = Vec::new();
        for name in names {
            let meant = |fault: &Fault| fault.name() == *name || fault.name().starts_with(&format!("{name}."));
            let found: Vec<Fault> = Fault::all().into_iter().filter(meant).collect();
            if found.is_empty() {
                let known: Vec<String> = Fault::all().into_iter().map(Fault::name).collect();
                bail!("there is no fault {name}; there are {}", known.join(", "));
            }
            faults.extend(found);
        }
        Ok(faults)
    }

    /// How many passes of its point there are about a second and a half under load; other faults have none.
    pub(super) fn passes(self) -> u64 {
        match self {
            Fault::Crash(point) => match Program::of(point) {
                // One step of a campaign, one sweep that finds something, some pictures a second.
                Program::Campaign | Program::Scheduler | Program::Media => 2,
                Program::Api | Program::Inbound | Program::Outbound => 20,
            },
            Fault::Kill(_) | Fault::SigStop | Fault::Cut | Fault::Stop(_) => 1,
        }
    }

    /// Makes it happen, a crash at this pass of its point, and waits until all are ready again: how long that took.
    pub(super) async fn strike(self, fleet: &Fleet, pass: u64, spells: Spells<'_>) -> Result<Duration> {
        let began = match self {
            Fault::Crash(point) => crash(fleet, point, pass).await?,
            Fault::Kill(program) => {
                let process = fleet.process(program);
                let before = process.exits().len();
                process.signal("KILL");
                let Some(exit) = process.ended(before, SOON).await else {
                    bail!("{} cannot be killed", process.name())
                };
                exit.at
            }
            Fault::SigStop => {
                let process = fleet.process(Program::Outbound);
                process.signal("STOP");
                tokio::time::sleep(spells.standstill).await;
                process.signal("CONT");
                Instant::now()
            }
            Fault::Cut => {
                let cut = Instant::now();
                fleet.relay(Server::Broker).cut();
                // It takes a moment to be noticed.
                tokio::time::sleep(Duration::from_millis(200)).await;
                cut
            }
            Fault::Stop(server) => {
                spells.way.take(fleet, server).await?;
                tokio::time::sleep(spells.away).await;
                spells.way.bring_back(fleet, server).await?;
                Instant::now()
            }
        };
        let late = fleet.ready_within(READY_WITHIN).await;
        ensure!(late.is_empty(), "not ready again a minute after {}: {}", self.name(), late.join(", "));
        Ok(began.elapsed())
    }
}

/// Starts a program anew with its point armed, under load, and waits for its end: when that was.
async fn crash(fleet: &Fleet, point: CrashPoint, pass: u64) -> Result<Instant> {
    let process = fleet.process(Program::of(point));
    let before = process.exits().len();
    process.arm(point.as_str(), pass);
    ensure!(process.restart(SOON).await.is_some(), "{} does not end when it is told to", process.name());
    match process.ended(before + 1, SOON).await {
        Some(exit) if exit.is_crash() => Ok(exit.at),
        Some(exit) => bail!("{} ended otherwise: {exit:?}", process.name()),
        None => {
            // Or it would happen later, in the middle of something else.
            process.restart(SOON).await;
            bail!("{} did not come to {} {pass} times", process.name(), point.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_chosen_by_name_or_by_group() {
        let named = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Fault::named(&names).map(|faults| faults.into_iter().map(Fault::name).collect::<Vec<_>>())
        };
        assert_eq!(named(&["cut", "kill.api"]).unwrap(), ["cut", "kill.api"]);
        assert_eq!(named(&["campaign"]).unwrap(), ["campaign.mid_chunk", "campaign.after_release"]);
        assert_eq!(named(&["stop"]).unwrap(), ["stop.postgres", "stop.rabbitmq", "stop.redis"]);
        assert_eq!(named(&["all"]).unwrap().len(), Fault::all().len());
        assert!(named(&["kil"]).unwrap_err().to_string().contains("there is no fault kil"));
    }
}
