//! Releasing: as many as the account hands over in five seconds, by weight, nobody twice, into the right conversation.

use super::{Stage, make_conversation};
use chrono::{TimeDelta, Utc};
use shared::{
    db::{
        Placement,
        campaigns::{due, release::release},
        inbound::conversations::{RollUp, roll_up},
    },
    domain::{
        campaigns::{Action, Audience},
        ids::{MessageId, TenantId},
        messages::Direction,
    },
};
use sqlx::Row;
use std::collections::BTreeSet;

#[tokio::test]
async fn an_account_is_topped_up_to_five_seconds_of_its_rate() {
    let mut stage = Stage::new().await;
    stage.people(250).await;
    let id = stage.running("Hello {{name}}").await;
    let led = stage.release().await;
    let sizes: Vec<usize> = led.slices.iter().map(|slice| slice.message_ids.len()).collect();
    assert_eq!(sizes, [20; 5], "a slice for each second");
    assert!(led.slices.iter().all(|slice| slice.account == stage.account && slice.tenant_id == stage.tenant));
    assert!(stage.release().await.messages().is_empty(), "there is no credit left");
    stage.end(&led.messages()[..30], "sent").await;
    assert_eq!(stage.release().await.messages().len(), 30);
    let shown = stage.show(id).await;
    assert_eq!((shown.waiting, shown.in_flight, shown.sent), (120, 100, 30));
    stage.expect_books_to_agree(id).await;

    let wrong = stage.count(
        "SELECT count(*)
        FROM sends s
        JOIN messages m ON m.tenant_id = s.tenant_id AND m.id = s.message_id
        JOIN conversations v ON v.tenant_id = s.tenant_id AND v.id = s.conversation_id
        JOIN contacts c ON c.tenant_id = v.tenant_id AND c.id = v.contact_id
        JOIN campaign_recipients r ON r.tenant_id = s.tenant_id AND r.message_id = s.message_id
        WHERE NOT (s.lane = 1 AND s.seq = 1 AND s.campaign_id = r.campaign_id AND s.needs_window AND s.recipient_kind = 'phone'
            AND s.recipient = c.phone AND r.contact_id = c.id AND m.text = 'Hello ' || c.name
            AND m.content = jsonb_build_object('type', 'text', 'text', m.text, 'preview_url', false) AND m.direction = 'out'
            AND v.state = 'resolved' AND v.origin = 'campaign' AND NOT v.listed AND v.messages_out = 1 AND v.last_send_seq = 1
            AND v.unread = 0 AND v.last_message_text = m.text AND v.resolved_at IS NOT NULL)",
    );
    assert_eq!(wrong.await, 0);
    assert_eq!(stage.count("SELECT count(*) FROM sends").await, 130);
}

#[tokio::test]
async fn campaigns_share_an_account_by_weight() {
    let mut stage = Stage::new().await;
    let people = stage.people(160).await;
    let light = stage.draft_to("Hello", &Audience::Contacts(people[..80].to_vec()), 1).await;
    let heavy = stage.draft_to("Hello", &Audience::Contacts(people[80..].to_vec()), 3).await;
    for id in [light, heavy] {
        stage.started(id).await;
    }
    stage.release().await;
    assert_eq!((stage.show(light).await.in_flight, stage.show(heavy).await.in_flight), (25, 75));
    // With five left the heavy one still has its share; then the light one has all.
    stage.execute("UPDATE campaign_counts SET sent = sent + in_flight, in_flight = 0").await;
    stage.release().await;
    assert_eq!((stage.show(light).await.in_flight, stage.show(heavy).await.in_flight), (25, 5));
    assert_eq!(stage.release().await.messages().len(), 30, "the light one gets what is left of it");
}

#[tokio::test]
async fn two_releases_at_once_release_nobody_twice() {
    let mut stage = Stage::new().await;
    stage.people(300).await;
    let id = stage.running("Hello").await;
    let one = async || {
        let mut tx = stage.fleet().await;
        release(&mut tx, stage.tenant, stage.account).await.unwrap();
        // The other is there before we are done.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        tx.commit().await.unwrap();
    };
    tokio::join!(one(), one(), one());
    assert_eq!(stage.slices().await.len(), 5, "slices of one release");
    assert_eq!(stage.show(id).await.in_flight, 100);
    assert_eq!(stage.count("SELECT count(*) FROM sends").await, 100);
    assert_eq!(stage.count("SELECT count(DISTINCT message_id) FROM campaign_recipients").await, 100);
    stage.expect_books_to_agree(id).await;
}

#[tokio::test]
async fn a_message_joins_the_latest_conversation_and_leaves_it_as_it_is() {
    let mut stage = Stage::new().await;
    let people = stage.people(2).await;
    let open = make_conversation(&mut stage, people[0], "pending").await;
    // The latest of two.
    let older = make_conversation(&mut stage, people[1], "resolved").await;
    let resolved = make_conversation(&mut stage, people[1], "resolved").await;
    sqlx::query("UPDATE conversations SET resolved_at = now() - interval '1 day' WHERE id = $1")
        .bind(older)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    stage.running("Hello").await;
    assert_eq!(stage.release().await.messages().len(), 2);
    for (id, state, added) in [(open, "pending", 1), (resolved, "resolved", 1), (older, "resolved", 0)] {
        let row = sqlx::query(
            "SELECT state, unread, messages_in, messages_out, last_send_seq, last_message_text, listed,
                (SELECT seq FROM sends s WHERE s.conversation_id = v.id), last_message_at < now() - interval '30 minutes'
            FROM conversations v
            WHERE id = $1",
        )
        .bind(id)
        .fetch_one(&mut stage.admin)
        .await
        .unwrap();
        assert_eq!(row.get::<String, _>(0), state);
        assert_eq!([1, 2, 3].map(|at| row.get::<i32, _>(at)), [2, 3, 4 + added], "{state}");
        assert_eq!(row.get::<i64, _>(4), 4 + i64::from(added));
        assert_eq!(row.get::<String, _>(5), "Hello?", "the inbox shows what it showed");
        assert!(row.get::<bool, _>(6) && row.get::<bool, _>(8));
        assert_eq!(row.get::<Option<i64>, _>(7), (added == 1).then_some(5));
    }
}

#[tokio::test]
async fn two_campaigns_to_one_person_take_their_places_in_one_conversation() {
    let mut stage = Stage::new().await;
    stage.people(1).await;
    let campaigns = [stage.running("One").await, stage.running("Two").await];
    assert_eq!(stage.release().await.messages().len(), 2);
    let seqs: Vec<i64> =
        sqlx::query_scalar("SELECT seq FROM sends ORDER BY seq").fetch_all(&mut stage.admin).await.unwrap();
    assert_eq!(seqs, [1, 2]);
    assert_eq!(stage.count("SELECT count(*) FROM conversations WHERE messages_out = 2 AND last_send_seq = 2").await, 1);
    for id in campaigns {
        stage.expect_books_to_agree(id).await;
    }
}

#[tokio::test]
async fn an_account_that_is_down_or_a_person_without_a_name_by_now_is_not_written_to() {
    let mut stage = Stage::new().await;
    stage.people(3).await;
    let id = stage.running("Hello {{name}}").await;
    stage.execute("UPDATE channel_accounts SET state = 'down'").await;
    assert!(stage.release().await.messages().is_empty());
    stage.execute("UPDATE channel_accounts SET state = 'active'").await;
    stage.execute("UPDATE contacts SET name = NULL WHERE name = 'Ada 2'").await;
    assert_eq!(stage.release().await.messages().len(), 2);
    let shown = stage.show(id).await;
    assert_eq!((shown.skipped, shown.waiting, shown.in_flight), (1, 0, 2));
    stage.expect_books_to_agree(id).await;
}

#[tokio::test]
async fn an_account_without_a_limit_has_two_thousand_in_flight() {
    let mut stage = Stage::new().await;
    stage.people(2_100).await;
    stage.execute("DELETE FROM limits").await;
    stage.running("Hello").await;
    let messages: BTreeSet<MessageId> = stage.release().await.messages().into_iter().collect();
    assert_eq!(messages.len(), 2_000);
}

#[tokio::test]
async fn a_release_is_asked_for_once_a_second_however_many_ask() {
    let mut stage = Stage::new().await;
    stage.people(1).await;
    stage.running("One").await;
    let second = stage.running("Two").await;
    let ask = async || {
        let mut tx = stage.workers.fleet(&Placement::primary(), &[stage.tenant]).await.unwrap();
        let asked = due::ask(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        asked.len()
    };
    let (a, b, c) = tokio::join!(ask(), ask(), ask());
    // Two may have got one campaign each: a release more does no harm.
    assert!((1..=2).contains(&(a + b + c)), "{a} {b} {c}");
    assert_eq!(ask().await, 0, "the second is not over");
    stage.act(second, Action::Pause).await;
    stage.execute("UPDATE campaigns SET release_asked_at = now() - interval '1 second'").await;
    let mut tx = stage.workers.fleet(&Placement::primary(), &[stage.tenant]).await.unwrap();
    assert_eq!(due::ask(&mut tx).await.unwrap().into_iter().collect::<Vec<_>>(), [(stage.tenant, stage.account)]);
    tx.commit().await.unwrap();
    stage.execute("DELETE FROM limits").await;
    stage.execute("UPDATE campaigns SET release_asked_at = now() - interval '0.3 seconds'").await;
    let mut tx = stage.workers.fleet(&Placement::primary(), &[stage.tenant]).await.unwrap();
    assert_eq!(due::ask(&mut tx).await.unwrap().len(), 1, "without a limit sooner");
}

#[tokio::test]
async fn another_tenants_worker_sees_nothing_of_it() {
    let mut stage = Stage::new().await;
    stage.people(3).await;
    let id = stage.running("Hello").await;
    let other = TenantId::new();
    let mut tx = stage.workers.fleet(&Placement::primary(), &[other]).await.unwrap();
    release(&mut tx, stage.tenant, stage.account).await.unwrap();
    assert!(due::ask(&mut tx).await.unwrap().is_empty());
    tx.commit().await.unwrap();
    let mut tx = stage.api.tenant(&Placement::primary(), other).await.unwrap();
    assert!(shared::db::campaigns::find(&mut tx, id).await.unwrap().is_none());
    assert!(shared::db::campaigns::ledger::ledger(&mut tx, id).await.unwrap().is_none());
    assert!(
        shared::db::campaigns::change(&mut tx, id, Action::Cancel, shared::db::audit::Actor::Operator)
            .await
            .unwrap()
            .is_none()
    );
    tx.commit().await.unwrap();
    assert_eq!(stage.count("SELECT count(*) FROM sends").await, 0);
    assert_eq!(stage.show(id).await.state, "running");
}

#[tokio::test]
async fn an_answer_to_a_campaign_is_in_the_inbox_however_late_it_comes() {
    let mut stage = Stage::new().await;
    let people = stage.people(1).await;
    stage.running("Hello").await;
    stage.release().await;
    assert_eq!(stage.count("SELECT count(*) FROM conversations WHERE listed").await, 0);
    // So late that it neither is unread nor reopens anything.
    let at = Utc::now() - TimeDelta::hours(30);
    let answer = RollUp {
        pair: (stage.tenant, people[0], stage.account),
        messages_in: 1,
        messages_out: 0,
        inbound: true,
        unread: 0,
        reopens: false,
        said: true,
        last_at: at,
        last_text: Some("Thank you".into()),
        last_direction: Direction::In,
        last_said_at: Some(at),
        window_expires_at: Some(at + TimeDelta::hours(24)),
        opens: false,
    };
    let mut tx = stage.fleet().await;
    roll_up(&mut tx, &[answer]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stage.count("SELECT count(*) FROM conversations").await, 1);
    assert_eq!(stage.count("SELECT count(*) FROM conversations WHERE listed AND messages_in = 1").await, 1);
}
