//! The raw log at the command line, and webhooks played again by the real programs: once or often, also by a scheduler that dies in
//! the middle, they change nothing that is there, and trigger nothing.

use crate::{CLOSING, SOON, quick, until};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use shared::{
    crash::CrashPoint,
    domain::{
        channel::Provider,
        ids::WebhookId,
        people::{Alias, AliasKind},
    },
    jobs::inbound::{self, Account, Meta, RawWebhook},
    lifecycle::Lifecycle,
    queue::{INBOUND, Outgoing, Target},
};
use sqlx::AssertSqlSafe;
use std::collections::BTreeMap;
use support::{
    books,
    fleet::Fleet,
    programs::Program,
    sandbox::{Incoming, Kind, Person, WABA},
};

/// One number of the database.
async fn count(fleet: &Fleet, question: &'static str) -> i64 {
    sqlx::query_scalar(question).fetch_one(&mut fleet.database.admin().await).await.unwrap()
}

/// Waits until so many messages of people are stored.
async fn stored(fleet: &Fleet, messages: i64) {
    let question = "SELECT count(*) FROM messages WHERE direction = 'in'";
    until("the messages are stored", SOON, async || count(fleet, question).await == messages).await;
}

/// Waits until what was published to `inbound` has been applied: several looks in a row find nothing waiting and nothing held.
async fn applied(fleet: &Fleet) {
    let (broker, inbound) = (fleet.broker(), fleet.process(Program::Inbound));
    let mut looks = 0;
    until("nothing is on its way", SOON, async || {
        let ready = broker.depth(&INBOUND).await.unwrap().ready;
        let metrics = inbound.metrics(&fleet.http).await;
        let held =
            metrics.lines().find_map(|line| line.strip_prefix("mijra_jobs_in_flight{")?.split_whitespace().next_back());
        looks = if ready == 0 && held == Some("0") { looks + 1 } else { 0 };
        looks >= 5
    })
    .await;
}

/// A tenant with a number, and a token that is not needed.
async fn tenant_with(fleet: &Fleet, slug: &str, number: &str) {
    fleet.mijra(&["tenant", "create", slug]).await;
    add_number(fleet, slug, number).await;
}

async fn add_number(fleet: &Fleet, slug: &str, number: &str) {
    let add = ["channel-account", "add", "whatsapp", "--tenant", slug, "--phone-number-id", number];
    // Each tenant has a business account of its own.
    let business_account_id = format!("9{number}");
    let arguments = [&add[..], &["--business-account-id", &business_account_id, "--rate", "80"]].concat();
    let added = fleet.try_mijra(&arguments, &[("ACCESS_TOKEN", "EAAG")]).await;
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
}

/// A webhook of a message to a number, as WhatsApp would put it.
fn message(number: &str, person: &Person, id: &str, at: i64) -> Value {
    json!({"object": "whatsapp_business_account", "entry": [{"id": WABA, "changes": [{"field": "messages", "value": {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550002", "phone_number_id": number},
        "contacts": [{"profile": {"name": person.name}, "wa_id": person.wa_id}],
        "messages": [{"from": person.wa_id, "id": id, "timestamp": at.to_string(), "type": "text", "text": {"body": "anybody there?"}}],
    }}]}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_whose_scheduler_dies_in_the_middle_goes_on_and_counts_each_once() {
    let point = CrashPoint::SchedulerAfterPublishBeforeDelete;
    let fleet = quick().crash(Program::Scheduler, point.as_str(), &[2]).start().await;
    for index in 0..150 {
        fleet.tell(&Person::nth(61, index % 10), format!("message {index}")).await;
    }
    stored(&fleet, 150).await;
    let replay = fleet.mijra(&["webhooks", "replay", "--tenant", &fleet.tenant.slug, "--since", "1h"]).await;
    assert_eq!(
        (&replay["state"], &replay["selected"], &replay["published"], &replay["unreadable"]),
        (&json!("completed"), &json!(150), &json!(150), &json!(0)),
        "{replay}"
    );
    let exits = fleet.process(Program::Scheduler).exits();
    assert_eq!(exits.iter().filter(|exit| exit.is_crash()).count(), 1, "{exits:?}");
    applied(&fleet).await;
    for (question, expected) in [
        ("SELECT count(*) FROM messages", 150),
        ("SELECT count(*) FROM webhook_log", 150),
        ("SELECT sum(unread)::bigint FROM conversations", 150),
        ("SELECT sum(messages_in)::bigint FROM conversations", 150),
        ("SELECT count(*) FROM audit WHERE action = 'replay.completed' AND details->>'published' = '150'", 1),
    ] {
        assert_eq!(count(&fleet, question).await, expected, "{question}");
    }
    assert!(fleet.dead_letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_searches_looks_and_counts() {
    let fleet = quick().start().await;
    let slug = fleet.tenant.slug.as_str();
    for index in 0..7 {
        fleet.tell(&Person::nth(62, index), format!("message {index}")).await;
    }
    stored(&fleet, 7).await;
    let list = async |more: &[&str]| -> Vec<String> {
        let rows = fleet.mijra(&[&["webhooks", "list", "--tenant", slug], more].concat()).await;
        rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let all = list(&[]).await;
    assert_eq!(all.len(), 7);
    let first = list(&["--limit", "3"]).await;
    let second = list(&["--limit", "3", "--before", &first[2]]).await;
    let third = list(&["--limit", "3", "--before", &second[2]]).await;
    assert_eq!([first, second, third].concat(), all, "page by page");
    let account = fleet.tenant.account.to_string();
    assert_eq!(
        list(&["--since", "10m", "--outcome", "stored", "--provider", "whatsapp", "--account", &account]).await,
        all
    );
    for nothing in [["--until", "10m"], ["--provider", "twilio"], ["--outcome", "partly_bad"]] {
        assert!(list(&nothing).await.is_empty(), "{nothing:?}");
    }
    let shown = fleet.mijra(&["webhooks", "show", &all[6], "--tenant", slug]).await;
    let body: Value = serde_json::from_str(shown["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["object"], "whatsapp_business_account");
    assert_eq!((&shown["outcome"], &shown["channel_account_id"]), (&json!("stored"), &json!(account)));

    let would = fleet.mijra(&["webhooks", "replay", "--tenant", slug, "--since", "10m", "--dry-run"]).await;
    assert_eq!(would, json!({"dry_run": true, "selected": 7}));
    assert_eq!(count(&fleet, "SELECT count(*) FROM webhook_replays").await, 0);
    for wrong in [["--since", "yesterday"], ["--until", "1h"]] {
        let arguments = [&["webhooks", "replay", "--tenant", slug], &wrong[..]].concat();
        assert!(!fleet.try_mijra(&arguments, &[]).await.status.success(), "{wrong:?}");
    }
    let begun = fleet.mijra(&["webhooks", "replay", "--tenant", slug, "--since", "10m", "--detach"]).await;
    let id = begun["id"].as_str().unwrap();
    let watched = fleet.mijra(&["webhooks", "replays", "watch", id, "--tenant", slug]).await;
    assert_eq!((&watched["state"], &watched["published"]), (&json!("completed"), &json!(7)));
    let replays = fleet.mijra(&["webhooks", "replays", "list", "--tenant", slug]).await;
    assert_eq!((replays.as_array().map(Vec::len), &replays[0]["id"]), (Some(1), &json!(id)));
    let stopped = fleet.mijra(&["webhooks", "replays", "stop", id, "--tenant", slug]).await;
    assert_eq!(stopped["state"], "completed", "what has ended stays so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_could_be_given_is_sent_on_once_somebody_has_the_account() {
    const NUMBER: &str = "990000000000077";
    let fleet = quick().start().await;
    let slug = fleet.tenant.slug.clone();
    let (now, person) = (Utc::now(), Person::nth(63, 0));
    for (id, at) in [("wamid.new", now), ("wamid.old", now - TimeDelta::days(2))] {
        let payload = message(NUMBER, &person, id, at.timestamp());
        fleet.sandbox.send_webhook(&fleet.tenant.number, &payload).await.unwrap();
    }
    until("both are kept", SOON, async || count(&fleet, "SELECT count(*) FROM control.unroutable").await == 2).await;
    let list = fleet.mijra(&["webhooks", "unroutable", "list", "--external-id", NUMBER]).await;
    assert_eq!((list.as_array().map(Vec::len), &list[0]["external_id"]), (Some(2), &json!(NUMBER)));
    let shown = fleet.mijra(&["webhooks", "unroutable", "show", list[0]["id"].as_str().unwrap()]).await;
    assert!(shown["body"].as_str().unwrap().contains("anybody there?"), "{shown}");
    let nobody = fleet.mijra(&["webhooks", "unroutable", "replay"]).await;
    assert_eq!((&nobody["published"], &nobody["nobodys"]), (&json!(0), &json!(2)), "{nobody}");
    assert_eq!(count(&fleet, "SELECT count(*) FROM control.unroutable").await, 2, "they stay");

    // They have lain there for a while.
    sqlx::query(
        "UPDATE control.unroutable
        SET received_at = received_at - interval '3 hours',
            meta = jsonb_set(meta, '{received_at}', to_jsonb(received_at - interval '3 hours'))",
    )
    .execute(&mut fleet.database.admin().await)
    .await
    .unwrap();
    add_number(&fleet, &slug, NUMBER).await;
    let would = fleet.mijra(&["webhooks", "unroutable", "replay", "--dry-run"]).await;
    assert_eq!((&would["published"], &would["dry_run"]), (&json!(2), &json!(true)), "{would}");
    assert_eq!(count(&fleet, "SELECT count(*) FROM control.unroutable").await, 2);
    let sent = fleet.mijra(&["webhooks", "unroutable", "replay"]).await;
    assert_eq!((&sent["published"], &sent["nobodys"]), (&json!(2), &json!(0)), "{sent}");
    stored(&fleet, 2).await;
    for (question, expected) in [
        ("SELECT count(*) FROM control.unroutable", 0),
        ("SELECT sum(unread)::bigint FROM conversations", 1),
        ("SELECT count(*) FROM webhook_log WHERE outcome = 'stored'", 2),
        ("SELECT (details->>'webhooks')::bigint FROM audit WHERE action = 'webhooks.sent_on'", 2),
    ] {
        assert_eq!(count(&fleet, question).await, expected, "{question}");
    }
    let logged = fleet.mijra(&["webhooks", "list", "--tenant", &slug]).await;
    for webhook in logged.as_array().unwrap() {
        let shown = fleet.mijra(&["webhooks", "show", webhook["id"].as_str().unwrap(), "--tenant", &slug]).await;
        assert_eq!(shown["id"], webhook["id"], "each is found by the time in its id");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_of_a_webhook_cannot_be_read_is_kept_whole_beside_what_was_stored() {
    let fleet = quick().start().await;
    let number = fleet.tenant.number.clone();
    let mut payload = message(&number, &Person::nth(65, 0), "wamid.good", Utc::now().timestamp());
    let unreadable = json!({"field": "messages", "value": {"messages": [{"id": "wamid.whose"}]}});
    payload["entry"][0]["changes"].as_array_mut().unwrap().push(unreadable);
    payload["entry"][0]["id"] = json!(null);
    fleet.sandbox.send_webhook(&number, &payload).await.unwrap();
    stored(&fleet, 1).await;
    until("all of it is kept", SOON, async || count(&fleet, "SELECT count(*) FROM control.unroutable").await == 1)
        .await;
    let list = fleet.mijra(&["webhooks", "unroutable", "list"]).await;
    assert_eq!(list[0]["external_id"], "");
    let shown = fleet.mijra(&["webhooks", "unroutable", "show", list[0]["id"].as_str().unwrap()]).await;
    assert!(shown["body"].as_str().unwrap().contains("wamid.whose"), "{shown}");
    let still = fleet.mijra(&["webhooks", "unroutable", "replay"]).await;
    assert_eq!((&still["published"], &still["unusable"]), (&json!(0), &json!(1)), "until it can be read: {still}");
    // As a later release would find it, which reads that part.
    let readable = message(&number, &Person::nth(65, 1), "wamid.whose", Utc::now().timestamp()).to_string();
    sqlx::query("UPDATE control.unroutable SET body_lz4 = $1")
        .bind(lz4_flex::compress_prepend_size(readable.as_bytes()))
        .execute(&mut fleet.database.admin().await)
        .await
        .unwrap();
    let sent = fleet.mijra(&["webhooks", "unroutable", "replay"]).await;
    assert_eq!(sent["published"], 1, "{sent}");
    stored(&fleet, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_webhook_that_is_played_again_leaves_no_copy_and_one_whose_copy_is_gone_was_done() {
    let fleet = quick().start().await;
    let number = fleet.tenant.number.clone();
    let mut payload = message(&number, &Person::nth(66, 0), "wamid.large", Utc::now().timestamp());
    payload["entry"][0]["pad"] = json!("x".repeat(200_000));
    fleet.sandbox.send_webhook(&number, &payload).await.unwrap();
    stored(&fleet, 1).await;
    let slug = fleet.tenant.slug.clone();
    fleet.mijra(&["webhooks", "replay", "--tenant", &slug, "--since", "10m"]).await;
    applied(&fleet).await;
    // What came at first may be wanted by a dead letter, and is kept for that.
    let bodies = "SELECT count(*) FROM control.large_bodies";
    until("the copy is dropped", SOON, async || count(&fleet, bodies).await == 1).await;
    sqlx::query("DELETE FROM control.large_bodies").execute(&mut fleet.database.admin().await).await.unwrap();
    let meta = Meta {
        id: WebhookId::new(),
        provider: Provider::Whatsapp,
        received_at: Utc::now(),
        account: Some(Account { tenant_id: fleet.tenant.id, channel_account_id: fleet.tenant.account }),
        query: None,
        stored: true,
        replay: true,
    };
    let job = inbound::to_job(&[RawWebhook { meta, body: Default::default() }], Utc::now());
    let life = Lifecycle::new(SOON);
    let publisher = fleet.broker().publisher(&life);
    publisher.ready().await;
    publisher.publish(vec![Outgoing { to: Target::Queue(&INBOUND), job }]).await.unwrap();
    life.stop();
    life.drained().await;
    applied(&fleet).await;
    assert!(fleet.dead_letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_signed_with_an_accounts_own_secret_is_sent_on_to_its_tenant_alone() {
    let fleet = quick().start().await;
    let other = "990000000000088";
    tenant_with(&fleet, "other", other).await;
    let person = Person::nth(64, 0);
    // Kept for the tenant whose secret had signed it, though it names another's number: forged, or a mistake.
    let meta = json!({
        "id": "01936f5e-3c00-7000-8000-000000000001", "provider": "whatsapp", "received_at": Utc::now(),
        "account": {"tenant_id": fleet.tenant.id, "channel_account_id": fleet.tenant.account},
    });
    let body = message(other, &person, "wamid.forged", Utc::now().timestamp()).to_string();
    for (id, meta) in
        [("01936f5e-3c00-7000-8000-000000000001", Some(meta)), ("01936f5e-3c00-7000-8000-000000000002", None)]
    {
        sqlx::query(
            "INSERT INTO control.unroutable (webhook_id, provider, external_id, received_at, body_lz4, meta)
            VALUES ($1::uuid, 'whatsapp', $2, now(), $3, $4)",
        )
        .bind(id)
        .bind(other)
        .bind(lz4_flex::compress_prepend_size(body.as_bytes()))
        .bind(meta)
        .execute(&mut fleet.database.admin().await)
        .await
        .unwrap();
    }
    let sent = fleet.mijra(&["webhooks", "unroutable", "replay"]).await;
    // Of one of before it is not known who had signed it.
    let of = |name: &str| sent[name].as_i64().unwrap();
    assert_eq!(["published", "nobodys", "unusable"].map(of), [0, 1, 1], "{sent}");
    assert_eq!(count(&fleet, "SELECT count(*) FROM control.unroutable").await, 2);
}

/// What a replay itself writes, and what goes with time.
const NOT_COMPARED: [&str; 4] = ["webhook_replays", "audit", "idempotency_keys", "media_objects"];
/// When a row was written, and ids that are made anew with a message that is restored.
const NOT_NATURAL: [(&str, &[&str]); 3] = [
    ("messages", &["created_at"]),
    ("media", &["created_at", "id", "claim", "claimed_until", "claims", "attempts", "settled_at"]),
    ("sends", &["updated_at"]),
];

/// Every table of tenants, by name: how many rows it has and a digest of all that is natural of them.
async fn natural(fleet: &Fleet) -> BTreeMap<String, (i64, String)> {
    // Files that are restored are fetched once more.
    let waiting = async || count(fleet, "SELECT count(*) FROM media WHERE state = 'waiting'").await;
    until("no file waits", SOON, async || waiting().await == 0).await;
    let mut admin = fleet.database.admin().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text
        FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    let mut natural = BTreeMap::new();
    for table in tables.into_iter().filter(|table| !NOT_COMPARED.contains(&table.as_str())) {
        let left_out = NOT_NATURAL.iter().find(|(name, _)| *name == table).map_or(&[][..], |(_, columns)| columns);
        let question = format!(
            "SELECT count(*), md5(coalesce(string_agg(row, E'\\n' ORDER BY row), ''))
            FROM (SELECT (to_jsonb(t) - $1::text[])::text AS row FROM {table} t) AS rows"
        );
        let digest = sqlx::query_as(AssertSqlSafe(question)).bind(left_out).fetch_one(&mut admin).await.unwrap();
        natural.insert(table, digest);
    }
    natural
}

/// The tables that are not as they were.
fn changed(before: &BTreeMap<String, (i64, String)>, after: &BTreeMap<String, (i64, String)>) -> Vec<String> {
    before.keys().filter(|table| before.get(*table) != after.get(*table)).cloned().collect()
}

/// Plays everything again, and waits until all of it has been applied.
async fn replay_all(fleet: &Fleet) -> Value {
    let replay = fleet.mijra(&["webhooks", "replay", "--tenant", &fleet.tenant.slug, "--since", "1d"]).await;
    assert_eq!(replay["state"], "completed", "{replay}");
    assert_eq!(replay["selected"], replay["published"], "{replay}");
    applied(fleet).await;
    replay
}

/// The names by which a person is known.
fn names(person: &Person) -> Vec<Alias> {
    let phone = format!("+{}", person.wa_id);
    [(AliasKind::WhatsappId, &person.wa_id), (AliasKind::WhatsappBsuid, &person.user_id), (AliasKind::Phone, &phone)]
        .map(|(kind, value)| Alias { kind, value: value.clone() })
        .into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_lost_is_restored_and_nothing_else_changes_and_nothing_is_triggered() {
    let fleet = quick().start().await;
    let [lost, quiet, erased] = [0, 1, 2].map(|index| Person::nth(65, index));
    let mut accepted = Vec::new();
    for person in [&lost, &quiet, &erased] {
        for text in ["hello", "are you there?"] {
            fleet.tell(person, text).await;
        }
        let picture = Incoming::of(Kind::Image, person);
        fleet.sandbox.tell(&fleet.tenant.number, vec![picture]).await.unwrap();
        let conversation = fleet.conversation_with(person).await;
        accepted.push(fleet.reply(conversation, "we are").await);
    }
    fleet.tell(&quiet, "STOP").await;
    books::close(&fleet, &accepted, CLOSING).await.assert_agree();
    applied(&fleet).await;
    let (all, sent) = (natural(&fleet).await, fleet.sandbox.ledger().counts());
    let webhooks = count(&fleet, "SELECT count(*) FROM webhook_log").await;
    assert!(webhooks >= 13, "messages and reports: {webhooks}");

    let replay = replay_all(&fleet).await;
    assert_eq!(replay["selected"], webhooks);
    assert_eq!(changed(&all, &natural(&fleet).await), Vec::<String>::new(), "what is there stays as it is");

    // All that a person said, with the files of it.
    let gone: Vec<uuid::Uuid> = sqlx::query_scalar(
        "DELETE FROM messages m
        USING conversations c, contact_aliases a
        WHERE c.tenant_id = m.tenant_id AND c.id = m.conversation_id AND m.direction = 'in'
            AND a.tenant_id = c.tenant_id AND a.contact_id = c.contact_id AND a.value IN ($1, $2)
        RETURNING m.id",
    )
    .bind(&lost.wa_id)
    .bind(&lost.user_id)
    .fetch_all(&mut fleet.database.admin().await)
    .await
    .unwrap();
    assert_eq!(gone.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    assert_eq!(changed(&all, &natural(&fleet).await), ["media", "messages"]);
    replay_all(&fleet).await;
    assert_eq!(changed(&all, &natural(&fleet).await), Vec::<String>::new(), "it is as it was");

    erase(&fleet, &erased).await;
    let without = natural(&fleet).await;
    assert!(changed(&all, &without).contains(&"messages".to_owned()));
    replay_all(&fleet).await;
    assert_eq!(changed(&without, &natural(&fleet).await), Vec::<String>::new(), "who was erased stays so");

    assert_eq!(fleet.sandbox.ledger().counts(), sent, "nothing was sent");
    assert_eq!(count(&fleet, "SELECT count(*) FROM outbox").await, 0);
    assert!(fleet.dead_letters().await.is_empty());
}

/// Erases a person: what they said, and their names but for digests.
async fn erase(fleet: &Fleet, person: &Person) {
    let mut admin = fleet.database.admin().await;
    let contact: uuid::Uuid =
        sqlx::query_scalar("SELECT contact_id FROM contact_aliases WHERE value = $1 OR value = $2 LIMIT 1")
            .bind(&person.wa_id)
            .bind(&person.user_id)
            .fetch_one(&mut admin)
            .await
            .unwrap();
    sqlx::query("DELETE FROM messages m USING conversations c WHERE c.id = m.conversation_id AND m.direction = 'in' AND c.contact_id = $1")
        .bind(contact)
        .execute(&mut admin)
        .await
        .unwrap();
    sqlx::query("DELETE FROM contact_aliases WHERE contact_id = $1").bind(contact).execute(&mut admin).await.unwrap();
    for alias in names(person) {
        sqlx::query("INSERT INTO erased_people (tenant_id, digest, erased_at) VALUES ($1, $2, now())")
            .bind(fleet.tenant.id)
            .bind(alias.digest(fleet.tenant.id).to_vec())
            .execute(&mut admin)
            .await
            .unwrap();
    }
}
