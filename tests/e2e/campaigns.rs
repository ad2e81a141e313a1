//! A campaign through everything: each person once, through a pause and through crashes of who steers it; our books agree with
//! themselves and, person by person, with the provider's.

use crate::{CLOSING, SOON, quick, until};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use support::{fleet::Fleet, programs::Program};

const PEOPLE: i64 = 500;
/// They cannot be written to.
const WITHOUT_ADDRESS: i64 = 7;

async fn show(fleet: &Fleet, id: &str) -> Value {
    let path = format!("{}/api/acme/campaigns/{id}", fleet.api);
    let answer = fleet.http.get(path).bearer_auth(&fleet.tenant.token).send().await.unwrap();
    answer.json().await.unwrap()
}

async fn act(fleet: &Fleet, id: &str, action: &str) {
    let (status, campaign) = fleet.post(&format!("/campaigns/{id}/{action}"), action, &json!({})).await.unwrap();
    assert_eq!(status, 200, "{action}: {campaign}");
}

fn shown(campaign: &Value, state: &str) -> i64 {
    campaign["counts"][state].as_i64().unwrap()
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
    sqlx::query(
        "INSERT INTO contacts (tenant_id, id, name, phone)
        SELECT $1, gen_random_uuid(), 'Ada', CASE WHEN n > $3 THEN '+4915' || lpad(n::text, 9, '0') END
        FROM generate_series(1, $2) AS n",
    )
    .bind(fleet.tenant.id)
    .bind(PEOPLE)
    .bind(WITHOUT_ADDRESS)
    .execute(&mut fleet.database.admin().await)
    .await
    .unwrap();
    let content = json!({"type": "template", "name": "cart_nudge", "language": "en_US", "variables": ["{{name}}"]});
    let account = fleet.tenant.account;
    let new = json!({"name": "Spring", "channel_account_id": account, "content": content, "audience": {"all": true}});
    let (status, campaign) = fleet.post("/campaigns", "new", &new).await.unwrap();
    assert_eq!(status, 201, "{campaign}");
    let id = campaign["id"].as_str().unwrap();
    act(&fleet, id, "start").await;

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
    until("it is completed", CLOSING, async || show(&fleet, id).await["state"] == "completed").await;

    let reached = usize::try_from(PEOPLE - WITHOUT_ADDRESS).unwrap();
    let taken = taken(&fleet);
    let twice: Vec<_> = taken.iter().filter(|(_, times)| **times > 1).collect();
    assert_eq!((taken.len(), twice), (reached, vec![]), "each person once");
    until("every report is in", SOON, async || {
        let campaign = show(&fleet, id).await;
        shown(&campaign, "delivered") + shown(&campaign, "read") == PEOPLE - WITHOUT_ADDRESS
    })
    .await;
    let campaign = show(&fleet, id).await;
    assert_eq!((campaign["frozen_count"].as_i64(), shown(&campaign, "skipped")), (Some(PEOPLE), WITHOUT_ADDRESS));
    let books = fleet.mijra(&["campaign", "ledger", id, "--tenant", "acme"]).await;
    assert_eq!((&books["disagreements"], &books["frozen"]), (&json!([]), &json!(PEOPLE)), "{books}");
    let audit = fleet.mijra(&["audit", "--tenant", "acme", "--target", id]).await;
    let actions: Vec<_> = audit.as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["campaign.resumed", "campaign.paused", "campaign.started", "campaign.created"]);
    let token = fleet.tenant.token.split('_').nth(1).unwrap();
    let granted = fleet.mijra(&["token", "grant", "acme", token, "--permission", "audit:read"]).await;
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
    sqlx::query(
        "INSERT INTO contacts (tenant_id, id, name, phone)
        SELECT $1, gen_random_uuid(), 'Ada', '+4915' || lpad(n::text, 9, '0') FROM generate_series(1, 200) AS n",
    )
    .bind(fleet.tenant.id)
    .execute(&mut fleet.database.admin().await)
    .await
    .unwrap();
    let content = json!({"type": "template", "name": "cart_nudge", "language": "en_US", "variables": ["{{name}}"]});
    let account = fleet.tenant.account;
    let new = json!({"name": "Spring", "channel_account_id": account, "content": content, "audience": {"all": true}});
    let (_, campaign) = fleet.post("/campaigns", "new", &new).await.unwrap();
    let id = campaign["id"].as_str().unwrap();
    act(&fleet, id, "start").await;
    let everybody_has_an_end = async || {
        let campaign = show(&fleet, id).await;
        let ended: i64 = ["delivered", "read", "failed"].iter().map(|state| shown(&campaign, state)).sum();
        campaign["state"] == "completed" && ended == 200
    };
    until("it is completed", CLOSING, &everybody_has_an_end).await;
    let failed = shown(&show(&fleet, id).await, "failed");
    assert!((50..150).contains(&failed), "about half: {failed}");
    let first = fleet.sandbox.ledger().sends_from(1, usize::MAX).len();

    fleet.sandbox.behave(|b| b.fail_later_rate = 0.0);
    let retry = async |key: &str| {
        let path = format!("/campaigns/{id}/retry-failed");
        fleet.post(&path, key, &json!({"codes": [131026]})).await.unwrap()
    };
    let (status, campaign) = retry("retry").await;
    assert_eq!((status.as_u16(), &campaign["state"]), (200, &json!("running")), "{campaign}");
    fleet.process(Program::Campaign).signal("KILL");
    retry("again").await;
    until("it is completed anew", CLOSING, &everybody_has_an_end).await;
    let campaign = show(&fleet, id).await;
    assert_eq!((shown(&campaign, "failed"), &campaign["retrying_since"]), (0, &Value::Null), "{campaign}");
    let calls = fleet.sandbox.ledger().sends_from(1, usize::MAX).len() - first;
    assert_eq!(calls, usize::try_from(failed).unwrap(), "each once more");
    let books = fleet.mijra(&["campaign", "ledger", id, "--tenant", "acme"]).await;
    assert_eq!(books["disagreements"], json!([]), "{books}");
    assert!(fleet.dead_letters().await.is_empty());
}
