//! A campaign through everything: each person once, through a pause and through crashes of who steers it; our books agree with
//! themselves and, person by person, with the provider's.

use crate::{CLOSING, SOON, quick, until};
use serde_json::json;
use shared::domain::ids::CampaignId;
use std::{collections::BTreeMap, time::Duration};
use support::{books, fleet::Fleet, programs::Program};

const PEOPLE: usize = 500;
/// They cannot be written to.
const WITHOUT_ADDRESS: usize = 7;

async fn act(fleet: &Fleet, id: CampaignId, action: &str) {
    let (status, campaign) = fleet.post(&format!("/campaigns/{id}/{action}"), action, &json!({})).await.unwrap();
    assert_eq!(status, 200, "{action}: {campaign}");
}

/// How often the provider took something for each person.
fn taken(fleet: &Fleet) -> BTreeMap<String, usize> {
    let mut taken = BTreeMap::new();
    for entry in fleet.sandbox.ledger().sends_from(1, usize::MAX).iter().filter(|entry| entry.wamid().is_some()) {
        *taken.entry(entry.recipient.to_string()).or_default() += 1;
    }
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_reaches_each_person_once_through_a_pause_and_crashes() {
    let fleet = quick().rate(60.0).behaviour(|b| (b.duplicate_rate, b.skip_delivered_rate) = (0.1, 0.0)).start().await;
    let audience = fleet.audience(PEOPLE, WITHOUT_ADDRESS).await;
    let campaign = fleet.campaign("Spring", &audience).await;
    let id = campaign.id;

    until("some are sent to", SOON, async || taken(&fleet).len() > 60).await;
    act(&fleet, id, "pause").await;
    fleet.process(Program::Campaign).signal("KILL");
    // What was granted before may still be called.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let at_the_pause = taken(&fleet).len();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(taken(&fleet).len(), at_the_pause, "nobody is sent to while it is paused");

    act(&fleet, id, "resume").await;
    until("it goes on", SOON, async || taken(&fleet).len() > at_the_pause + 60).await;
    for program in [Program::Campaign, Program::Scheduler] {
        fleet.process(program).signal("KILL");
    }
    let books = books::close_with_campaigns(&fleet, &[], &[campaign], CLOSING).await;
    books.assert_agree();

    let reached = PEOPLE - WITHOUT_ADDRESS;
    let taken = taken(&fleet);
    let twice: Vec<_> = taken.iter().filter(|(_, times)| **times > 1).collect();
    assert_eq!((taken.len(), twice), (reached, vec![]), "each person once");
    assert_eq!((books.people, books.skipped), (PEOPLE, WITHOUT_ADDRESS));
    let campaign = fleet.show_campaign(id).await.unwrap();
    let shown = |state: &str| campaign["counts"][state].as_u64().unwrap();
    assert_eq!(shown("delivered") + shown("read"), reached as u64, "every report is in: {campaign}");
    let ledger = fleet.mijra(&["campaign", "ledger", &id.to_string(), "--tenant", "acme"]).await;
    assert_eq!((&ledger["disagreements"], &ledger["frozen"]), (&json!([]), &json!(PEOPLE)), "{ledger}");
}
