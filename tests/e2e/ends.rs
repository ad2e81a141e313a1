//! Orderly ends: SIGTERM under load.

use crate::{CLOSING, quick};
use std::time::Duration;
use support::{books, programs::Program, traffic::Traffic};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_of_each_process_under_load_ends_well_and_charges_nobody() {
    let fleet =
        quick().behaviour(|b| b.latency_ms = support::sandbox::behaviour::Span { min: 20, max: 300 }).start().await;
    let parties = fleet.acquaint(21, 10).await;
    let ending = async {
        let mut ends = Vec::new();
        for _ in 0..2 {
            for program in Program::ALL {
                tokio::time::sleep(Duration::from_millis(700)).await;
                let process = fleet.process(program);
                let (began, end) = (std::time::Instant::now(), process.restart(Duration::from_secs(15)).await);
                ends.push((process.name(), end.map(|exit| (exit.code, exit.signal)), began.elapsed()));
                let late = fleet.ready_within(Duration::from_secs(20)).await;
                assert!(late.is_empty(), "{late:?} came back");
            }
        }
        ends
    };
    let traffic =
        Traffic { webhooks_per_second: 25.0, replies_per_second: 40.0, lasts: Duration::from_secs(10), seed: 21 };
    let (accepted, ends) = tokio::join!(traffic.run(&fleet, &parties), ending);
    let bad: Vec<_> = ends.iter().filter(|(_, end, _)| *end != Some((Some(0), None))).collect();
    assert!(bad.is_empty(), "not exit 0 within the grace period: {bad:?}\n{}", fleet.logs(20));

    let books = books::close(&fleet, &accepted, CLOSING).await;
    books.assert_agree();
    assert_eq!(books.held, 0, "nothing was cut off: {books}");
    // Each send was tried exactly as often as the provider was asked.
    let mut requests = std::collections::BTreeMap::new();
    for entry in fleet.sandbox.ledger().sends_from(1, usize::MAX) {
        *requests.entry(entry.message().unwrap_or_default().replace('-', "")).or_insert(0_i32) += 1;
    }
    let mut admin = fleet.database.admin().await;
    let counted: Vec<(String, i32)> = sqlx::query_as("SELECT replace(message_id::text, '-', ''), attempts FROM sends")
        .fetch_all(&mut admin)
        .await
        .unwrap();
    let differ: Vec<_> = counted.iter().filter(|(id, attempts)| requests.get(id) != Some(attempts)).collect();
    assert!(differ.is_empty(), "attempts and requests differ: {differ:?}");
}
