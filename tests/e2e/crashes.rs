//! Processes that die at the worst moment: at every named point, and whenever somebody kills them, while people write, agents
//! answer and campaigns run. Nothing is lost, nothing is done twice, and what nobody can know ends by evidence or is held.

use crate::{CLOSING, SOON, quick, soon_again};
use shared::crash::CrashPoint;
use std::time::Duration;
use support::{
    books::{self, Books},
    campaigns::Started,
    fleet::{Accepted, Fleet},
    lateness::lateness,
    programs::Program,
    traffic::Traffic,
};
use tokio_util::sync::CancellationToken;

const SMALL: Traffic =
    Traffic { webhooks_per_second: 20.0, replies_per_second: 20.0, lasts: Duration::from_secs(4), seed: 11 };

/// Traffic, and one campaign after the other as long as it lasts; what was accepted of both.
async fn load(fleet: &Fleet, seed: u64, traffic: Traffic) -> (Vec<Accepted>, Vec<Started>) {
    let parties = fleet.acquaint(seed, 10).await;
    let audience = fleet.audience(60, 3).await;
    let stop = CancellationToken::new();
    let traffic = async {
        let accepted = traffic.run(fleet, &parties).await;
        stop.cancel();
        accepted
    };
    tokio::join!(traffic, fleet.campaigns(&audience, &stop))
}

/// A small load over a fleet in which these points are armed.
async fn crash_at(points: &[CrashPoint]) -> Result<Books, String> {
    // Some refusals that are tried again, so that the scheduler has something to sweep.
    let mut builder = quick().behaviour(|b| b.unavailable_rate = 0.08);
    for point in points {
        builder = builder.crash(Program::of(*point), point.as_str(), &[3]);
    }
    let fleet = builder.start().await;
    soon_again(&fleet).await;
    let (accepted, campaigns) = load(&fleet, 11, SMALL).await;
    let books = books::close_with_campaigns(&fleet, &accepted, &campaigns, CLOSING).await;
    let names: Vec<&str> = points.iter().map(|point| point.as_str()).collect();
    let mut complaints = Vec::new();
    for point in points {
        let exits = fleet.process(Program::of(*point)).exits();
        if exits.iter().filter(|exit| exit.is_crash()).count() != 1 {
            complaints.push(format!("{} did not crash once: {exits:?}", point.as_str()));
        }
    }
    if !books.agree() {
        complaints.push(format!("after {names:?} the books do not agree\n{books}\n{}", fleet.logs(10)));
    }
    if complaints.is_empty() { Ok(books) } else { Err(complaints.join("\n")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_loses_nothing_and_doubles_nothing() {
    use CrashPoint::*;
    // Several at a time where they do not hide one another: one in each program.
    let rounds: [&[CrashPoint]; 4] = [
        &[ApiAfterConfirm, InboundAfterCommit, OutboundAfterClaim, CampaignMidChunk],
        &[ApiAfterCommitBeforePublish, InboundBeforeAck, OutboundAfterCall, CampaignAfterRelease],
        &[SchedulerAfterPublishBeforeDelete, OutboundBeforeCommit, MediaAfterStore],
        &[OutboundAfterCommit, MediaAfterCommit],
    ];
    let covered: Vec<CrashPoint> = rounds.concat();
    let forgotten: Vec<&CrashPoint> = CrashPoint::ALL.iter().filter(|point| !covered.contains(point)).collect();
    assert!(forgotten.is_empty(), "points without a crash: {forgotten:?}");
    // Two fleets at a time: most of it is waiting.
    let mut wrong = Vec::new();
    for pair in rounds.chunks(2) {
        let results = futures_util::future::join_all(pair.iter().map(|points| crash_at(points))).await;
        wrong.extend(results.into_iter().filter_map(Result::err));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_each_process_in_turn() {
    let fleet = quick().start().await;
    let killing = async {
        for program in Program::ALL {
            tokio::time::sleep(Duration::from_millis(900)).await;
            let process = fleet.process(program);
            let before = process.exits().len();
            process.signal("KILL");
            assert!(process.ended(before, SOON).await.is_some(), "{} ends", process.name());
        }
    };
    let traffic = Traffic { lasts: Duration::from_secs(5), ..SMALL };
    let ((accepted, campaigns), ()) = tokio::join!(load(&fleet, 12, traffic), killing);
    let books = books::close_with_campaigns(&fleet, &accepted, &campaigns, CLOSING).await;
    books.assert_agree();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_machine_gives_its_old_grants_back() {
    let fleet: Fleet = quick().count(Program::Outbound, 2).start().await;
    let parties = fleet.acquaint(13, 10).await;
    let stopping = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let process = fleet.process(Program::Outbound);
        process.signal("STOP");
        tokio::time::sleep(Duration::from_secs(8)).await;
        process.signal("CONT");
    };
    let (accepted, ()) = tokio::join!(SMALL.run(&fleet, &parties), stopping);
    let books = books::close(&fleet, &accepted, CLOSING).await;
    books.assert_agree();
    let late = lateness(&fleet).await.late;
    assert!(late.is_empty(), "called with grants of before it stood still: {late:?}");
}
