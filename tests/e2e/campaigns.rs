//! A campaign through everything: each person once, through a pause and through crashes of who steers it; our books agree with
//! themselves and, person by person, with the provider's.

use crate::{CLOSING, SOON, quick, until};
use serde_json::{Value, json};
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
    let audit = fleet.mijra(&["audit", "--tenant", "acme", "--target", &id.to_string()]).await;
    let actions: Vec<_> = audit.as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["campaign.resumed", "campaign.paused", "campaign.started", "campaign.created"]);
    let token = fleet.tenant.token.split('_').nth(1).unwrap();
    let granted = fleet.mijra(&["token", "grant", token, "--tenant", "acme", "--permission", "audit:read"]).await;
    assert!(granted["permissions"].as_array().unwrap().contains(&json!("audit:read")), "{granted}");
    assert!(fleet.dead_letters().await.is_empty());
}

/// The statuses of the first attempts go on coming, some twice, while the second are under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_failed_is_tried_again_once_through_a_crash_and_the_books_agree() {
    let failing = |b: &mut support::sandbox::behaviour::Behaviour| {
        (b.fail_later_rate, b.duplicate_rate, b.skip_delivered_rate) = (0.5, 0.3, 0.0);
        b.fail_later_codes = vec![131026];
    };
    let fleet = quick().rate(60.0).behaviour(failing).start().await;
    let audience = fleet.audience(200, 0).await;
    let id = fleet.campaign("Spring", &audience).await.id;
    let show = async || fleet.show_campaign(id).await.unwrap();
    let shown = |campaign: &Value, state: &str| campaign["counts"][state].as_i64().unwrap();
    let everybody_has_an_end = async || {
        let campaign = show().await;
        let ended: i64 = ["delivered", "read", "failed"].iter().map(|state| shown(&campaign, state)).sum();
        campaign["state"] == "completed" && ended == 200
    };
    until("it is completed", CLOSING, &everybody_has_an_end).await;
    let failed = shown(&show().await, "failed");
    assert!((50..150).contains(&failed), "about half: {failed}");
    let first = fleet.sandbox.ledger().sends_from(1, usize::MAX).len();

    let name = id.to_string();
    let people = async |wish: &[&str]| {
        let arguments = [&["campaign", "recipients", &name, "--tenant", "acme"], wish].concat();
        let output = fleet.try_mijra(&arguments, &[]).await;
        assert!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    assert_eq!(people(&[]).await.len(), 200);
    let who = people(&["--state", "failed", "--code", "131026"]).await;
    assert_eq!(who.len(), usize::try_from(failed).unwrap());
    assert!(
        who.iter().all(|p| p["code"] == "131026" && p["attempts"] == 1 && p["failed_at"].is_string()),
        "{}",
        who[0]
    );
    assert!(people(&["--code", "470"]).await.is_empty());
    let listed = fleet.mijra(&["campaign", "list", "--tenant", "acme"]).await;
    assert_eq!((&listed[0]["id"], &listed[0]["failed"], &listed[1]), (&json!(id), &json!(failed), &Value::Null));
    let ledger = fleet.mijra(&["campaign", "ledger", &name, "--tenant", "acme"]).await;
    let cause = &ledger["causes"][0];
    assert_eq!(
        (&cause["state"], &cause["code"], &cause["people"]),
        (&json!("failed"), &json!("131026"), &json!(failed))
    );
    let nobody = ["campaign", "retry-failed", &name, "--tenant", "acme", "--code", "470"];
    let refused = fleet.try_mijra(&nobody, &[]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(&format!("but {failed} with 131026")), "{said}");
    assert_eq!(show().await["state"], "completed", "nothing is changed");

    fleet.sandbox.behave(|b| b.fail_later_rate = 0.0);
    let retry = async |key: &str| {
        let path = format!("/campaigns/{id}/retry-failed");
        fleet.post(&path, key, &json!({"codes": [131026]})).await.unwrap()
    };
    let (status, campaign) = retry("retry").await;
    assert_eq!((status.as_u16(), &campaign["state"]), (200, &json!("running")), "{campaign}");
    assert_eq!(campaign["retrying_count"], json!(failed), "{campaign}");
    fleet.process(Program::Campaign).signal("KILL");
    retry("again").await;
    until("it is completed anew", CLOSING, &everybody_has_an_end).await;
    let campaign = show().await;
    assert_eq!((shown(&campaign, "failed"), &campaign["retrying_since"]), (0, &Value::Null), "{campaign}");
    let calls = fleet.sandbox.ledger().sends_from(1, usize::MAX).len() - first;
    assert_eq!(calls, usize::try_from(failed).unwrap(), "each once more");
    let ledger = fleet.mijra(&["campaign", "ledger", &id.to_string(), "--tenant", "acme"]).await;
    assert_eq!(ledger["disagreements"], json!([]), "{ledger}");
    assert!(fleet.dead_letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_what_a_campaign_waits_for_and_how_long_it_will_take() {
    let fleet = quick().rate(5.0).start().await;
    let audience = fleet.audience(400, 0).await;
    let id = fleet.campaign("Spring", &audience).await.id;
    let bulk = async || {
        let queues = fleet.mijra(&["queues"]).await["queues"].clone();
        queues.as_array().unwrap().iter().find(|queue| queue["queue"] == "outbound.bulk").unwrap().clone()
    };
    let kept = |bulk: &Value, why: &str| -> i64 {
        let kept = bulk["in_postgres"].as_array().unwrap().iter().filter(|kept| kept["why"] == why);
        kept.map(|kept| kept["count"].as_i64().unwrap()).sum()
    };
    until("its account's limit bounds it", SOON, async || {
        let bulk = bulk().await;
        bulk["bound"].as_str().unwrap().starts_with("limit of acme/") && kept(&bulk, "account_limit") > 300
    })
    .await;
    // From the beginning by what the account may send, 4 or 5 a second beside what is kept free for messages in.
    let shown = fleet.show_campaign(id).await.unwrap();
    let left = shown["counts"]["waiting"].as_i64().unwrap() + shown["counts"]["in_flight"].as_i64().unwrap();
    let eta = shown["eta_seconds"].as_i64().unwrap_or_default();
    assert!((left / 6..=left / 3).contains(&eta), "{left} are left: {shown}");

    act(&fleet, id, "pause").await;
    until("it is seen to be paused", SOON, async || {
        let bulk = bulk().await;
        bulk["bound"].as_str().unwrap().starts_with("a pause") && kept(&bulk, "paused") > 300
    })
    .await;
    act(&fleet, id, "resume").await;
    let account = fleet.tenant.account.to_string();
    fleet.mijra(&["limits", "set", "account", &account, "--tenant", "acme", "--rate", "50"]).await;
    let shown = fleet.show_campaign(id).await.unwrap();
    let eta = shown["eta_seconds"].as_i64().unwrap_or_default();
    assert!((1..=14).contains(&eta), "at 50 a second from now on: {shown}");
}
