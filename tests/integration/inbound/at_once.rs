//! People who are merged, erased, written to and say something at the same time.

use super::{Stage, ada, message, person, said, second};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use shared::{
    clock::Clock,
    db::{audit::Actor, erasing, merging},
    domain::{
        channel::Provider,
        events::Event,
        messages::MessageKind,
        people::{Alias, AliasKind, Person},
    },
};
use std::sync::atomic::{AtomicBool, Ordering};
use workers::{inbound::InboundWorker, worker::Worker};

fn bob() -> Person {
    person(AliasKind::WhatsappId, "15557770999")
}

/// What `batch` does to somebody about whom `first` has not committed yet.
async fn meanwhile(stage: &Stage, batch: impl Future<Output = ()>, first: impl Future<Output = ()>) {
    let ended = AtomicBool::new(false);
    let batch = async {
        batch.await;
        ended.store(true, Ordering::Release);
    };
    let first = async {
        while !ended.load(Ordering::Acquire) && !stage.is_waited_for().await {
            tokio::task::yield_now().await;
        }
        first.await;
    };
    tokio::join!(batch, first);
}

#[tokio::test]
async fn who_is_erased_while_two_become_one_is_erased_whichever_was_named() {
    for names_who_stays in [false, true] {
        let mut stage = Stage::on(Provider::Whatsapp).await;
        let (winner, loser) = stage.two().await;
        let mut tx = stage.request().await;
        merging::merge(&mut tx, winner, loser, Actor::Operator).await.unwrap();
        let erased = async {
            assert!(stage.erase(if names_who_stays { winner } else { loser }).await);
        };
        let merged = async {
            tx.commit().await.unwrap();
        };
        Box::pin(meanwhile(&stage, erased, merged)).await;
        assert_eq!(stage.count("SELECT count(*) FROM contacts WHERE erased_at IS NULL").await, 0);
        assert_eq!(stage.count("SELECT count(*) FROM messages WHERE text IS NOT NULL").await, 0);
        assert_eq!(stage.count("SELECT count(*) FROM audit WHERE action = 'contact.erased'").await, 1);
    }
}

#[tokio::test]
async fn what_is_said_after_an_erasure_has_begun_is_said_by_somebody_new() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    stage.tell(vec![said(&ada(), "wamid.1", "Hello", second(1))]).await;
    let before = stage.contact(&ada()).await.unwrap();
    let mut tx = stage.request().await;
    erasing::erase(&mut tx, before, Actor::Operator).await.unwrap();
    let anew = [stage.webhook(vec![said(&ada(), "wamid.2", "I am new", Utc::now() + TimeDelta::seconds(2))])];
    let told = async {
        stage.apply(&anew).await;
    };
    let erased = async {
        tx.commit().await.unwrap();
    };
    Box::pin(meanwhile(&stage, told, erased)).await;
    stage.look_again().await;
    assert_eq!(
        stage.row("SELECT jsonb_agg(text) FILTER (WHERE text IS NOT NULL) FROM messages").await,
        json!(["I am new"])
    );
    assert_ne!(stage.contact(&ada()).await.unwrap(), before);
}

#[tokio::test]
async fn an_erasure_is_as_of_when_nobody_adds_anything_any_more() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    stage.tell(vec![said(&ada(), "wamid.1", "Hello", second(1))]).await;
    let id = stage.contact(&ada()).await.unwrap();
    let mut adding = stage.database.admin().await;
    sqlx::query("BEGIN").execute(&mut adding).await.unwrap();
    sqlx::query("SELECT FROM conversations FOR UPDATE").execute(&mut adding).await.unwrap();
    let erased = async {
        stage.erase(id).await;
    };
    let mut added_at: Option<DateTime<Utc>> = None;
    let added = async {
        added_at = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut adding).await.unwrap();
        sqlx::query("COMMIT").execute(&mut adding).await.unwrap();
    };
    Box::pin(meanwhile(&stage, erased, added)).await;
    let erased_at: Option<DateTime<Utc>> =
        sqlx::query_scalar("SELECT erased_at FROM contacts").fetch_one(&mut stage.admin).await.unwrap();
    let kept_at: Option<DateTime<Utc>> =
        sqlx::query_scalar("SELECT min(erased_at) FROM erased_people").fetch_one(&mut stage.admin).await.unwrap();
    assert!(erased_at > added_at && kept_at == erased_at, "{added_at:?} {erased_at:?} {kept_at:?}");
}

#[tokio::test]
async fn who_says_stop_while_they_are_erased_has_said_it_when_they_come_back() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    stage.tell(vec![said(&ada(), "wamid.1", "Hello", second(1))]).await;
    let id = stage.contact(&ada()).await.unwrap();
    let mut tx = stage.request().await;
    erasing::erase(&mut tx, id, Actor::Operator).await.unwrap();
    let stop = [stage.webhook(vec![said(&ada(), "wamid.stop", "STOP", second(2))])];
    let told = async {
        stage.apply(&stop).await;
    };
    let erased = async {
        tx.commit().await.unwrap();
    };
    Box::pin(meanwhile(&stage, told, erased)).await;
    stage.tell(vec![said(&ada(), "wamid.new", "I am back", Utc::now() + TimeDelta::seconds(2))]).await;
    let back = stage.contact(&ada()).await.unwrap();
    assert_ne!(back, id);
    assert_eq!(stage.wish_of(back).await.as_deref(), Some("opted_out"));
}

#[tokio::test]
async fn what_an_erased_person_had_said_last_holds_in_whatever_order_it_comes() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let stop = |at| said(&ada(), "wamid.stop", "STOP", second(at));
    stage.tell(vec![stop(1), said(&ada(), "wamid.start", "START", second(2))]).await;
    let id = stage.contact(&ada()).await.unwrap();
    stage.erase(id).await;
    stage.tell(vec![said(&ada(), "wamid.new", "I am back", Utc::now() + TimeDelta::seconds(2))]).await;
    let back = stage.contact(&ada()).await.unwrap();
    stage.apply(&[stage.replay(vec![stop(1)])]).await;
    assert_eq!(stage.wish_of(back).await, None, "an old one is no news");
    stage.tell(vec![said(&ada(), "wamid.stop.2", "STOP", second(3))]).await;
    assert_eq!(stage.wish_of(back).await.as_deref(), Some("opted_out"), "a late one is theirs who has the name now");
}

#[tokio::test]
async fn a_campaign_that_is_frozen_while_two_become_one_writes_to_one() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let (winner, loser) = stage.two().await;
    let mut freezing = stage.database.admin().await;
    sqlx::query("BEGIN").execute(&mut freezing).await.unwrap();
    sqlx::query("SELECT FROM contacts WHERE id = $1 FOR KEY SHARE").bind(loser).execute(&mut freezing).await.unwrap();
    let merged = async {
        stage.merge(winner, loser).await;
    };
    let frozen = async {
        stage.campaign().await;
        sqlx::query("COMMIT").execute(&mut freezing).await.unwrap();
    };
    Box::pin(meanwhile(&stage, merged, frozen)).await;
    let people = "SELECT jsonb_agg(coalesce(skip_reason, state) ORDER BY state) FROM campaign_recipients";
    assert_eq!(stage.row(people).await, json!(["merged", "waiting"]));
}

#[tokio::test]
async fn who_is_one_with_somebody_who_is_just_merged_is_one_with_who_stays() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let (winner, loser) = stage.two().await;
    let carol = person(AliasKind::WhatsappId, "15557770777");
    stage.tell(vec![said(&carol, "wamid.3", "Hello", second(3))]).await;
    let mut tx = stage.request().await;
    merging::merge(&mut tx, winner, loser, Actor::Operator).await.unwrap();
    let mut changed = message(&bob(), "wamid.4", MessageKind::System, None, second(4));
    changed.new_aliases = vec![Alias { kind: AliasKind::WhatsappId, value: "15557770777".into() }];
    let batch = [stage.webhook(vec![Event::Message(Box::new(changed))])];
    let told = async {
        stage.apply(&batch).await;
    };
    let merged = async {
        tx.commit().await.unwrap();
    };
    Box::pin(meanwhile(&stage, told, merged)).await;
    assert_eq!(stage.contact(&carol).await, Some(winner));
}

#[tokio::test]
async fn two_batches_start_one_conversation_that_nobody_sees() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    stage.tell(vec![said(&ada(), "wamid.1", "Hello", second(1))]).await;
    stage.execute("DELETE FROM messages").await;
    stage.execute("DELETE FROM conversations").await;
    let reaction = |id| {
        let reaction = message(&ada(), id, MessageKind::Reaction, Some("👍"), second(2));
        stage.webhook(vec![Event::Message(Box::new(reaction))])
    };
    let (first, other) = ([reaction("wamid.2")], [reaction("wamid.3")]);
    let mut tx = stage.fleet().await;
    InboundWorker::new(stage.workers.clone(), Clock::system()).apply(&mut tx, &first).await.unwrap();
    let told = async {
        stage.apply(&other).await;
    };
    let applied = async {
        tx.commit().await.unwrap();
    };
    Box::pin(meanwhile(&stage, told, applied)).await;
    let conversations = "SELECT jsonb_agg(jsonb_build_array(state, listed, messages_in)) FROM conversations";
    assert_eq!(stage.row(conversations).await, json!([["resolved", false, 2]]));
}
