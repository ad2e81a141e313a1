//! Freezing: everybody once, through crashes, each left out with a reason.

use super::Stage;
use serde_json::json;
use shared::{
    db::campaigns::freeze::CHUNK,
    domain::{
        campaigns::{Action, Audience},
        ids::ContactId,
    },
    jobs::campaign::Task,
};
use workers::{campaign::CampaignWorker, worker::Worker};

#[tokio::test]
async fn an_audience_is_frozen_chunk_by_chunk_through_a_crash_and_redelivery() {
    let mut stage = Stage::new().await;
    let all = i64::try_from(CHUNK).unwrap() + 3;
    let people = stage.people(all).await;
    let id = stage.draft("Hello").await;
    let (_, steps) = stage.act(id, Action::Start).await;
    let [first] = steps[..] else { panic!("{steps:?}") };
    // Who comes after the start is not meant.
    stage.execute("INSERT INTO contacts (tenant_id, id, phone) SELECT tenant_id, 'ffffffff-0000-7000-8000-000000000000', '+15557770100' FROM contacts LIMIT 1").await;

    // It crashes before the commit: nothing has happened.
    let mut crashed = stage.fleet().await;
    CampaignWorker::new(stage.workers.clone()).apply(&mut crashed, &[first]).await.unwrap();
    drop(crashed);
    assert_eq!(stage.recipients(id).await, json!({}));

    let led = stage.step(first).await;
    let second = stage.job(Task::Freeze { campaign_id: id, after: Some(people[CHUNK - 1]) });
    assert_eq!(led.steps, [second]);
    assert_eq!(stage.recipients(id).await, json!({"waiting": CHUNK}));
    assert_eq!(stage.show(id).await.frozen_count, None, "not all are frozen yet");
    // It comes again: it freezes nobody, and writes no second job.
    assert!(stage.step(first).await.steps.is_empty());
    assert!(stage.step(second).await.steps.is_empty());
    assert!(stage.step(second).await.steps.is_empty());
    assert_eq!(stage.recipients(id).await, json!({"waiting": all}));
    let shown = stage.show(id).await;
    assert_eq!((shown.frozen_count, shown.waiting, shown.frozen_at.is_some()), (Some(all), all, true));
    stage.expect_books_to_agree(id).await;
}

#[tokio::test]
async fn who_cannot_be_written_to_is_skipped_with_the_reason() {
    let mut stage = Stage::new().await;
    stage
        .execute(
            "INSERT INTO channel_accounts (tenant_id, id, provider, name, external_id, sealed_secrets, secret_key_id)
            SELECT tenant_id, gen_random_uuid(), 'whatsapp', 'Other', 'other', '', '' FROM channel_accounts",
        )
        .await;
    for (name, phone, alias) in [
        (Some("Ada"), Some("+15557770101"), None),
        (Some("Bo"), None, Some(("whatsapp_id", "15557770102"))),
        (Some("Cy"), None, Some(("phone", "+15557770103"))),
        (Some("Di"), None, Some(("whatsapp_bsuid", "US.4"))),
        (Some("Ed"), None, None),
        (None, Some("+15557770106"), None),
        (Some("  "), Some("+15557770107"), None),
    ] {
        let contact = ContactId::new();
        sqlx::query("INSERT INTO contacts (tenant_id, id, name, phone) VALUES ($1, $2, $3, $4)")
            .bind(stage.tenant)
            .bind(contact)
            .bind(name)
            .bind(phone)
            .execute(&mut stage.admin)
            .await
            .unwrap();
        if let Some((kind, value)) = alias {
            sqlx::query("INSERT INTO contact_aliases (tenant_id, contact_id, kind, value) VALUES ($1, $2, $3, $4)")
                .bind(stage.tenant)
                .bind(contact)
                .bind(kind)
                .bind(value)
                .execute(&mut stage.admin)
                .await
                .unwrap();
        }
    }
    for (words, expected) in [
        ("Hello", json!({"waiting": 6, "no_address": 1})),
        ("Hello {{name}}", json!({"waiting": 4, "no_address": 1, "no_name": 2})),
        ("You are {{phone}}", json!({"waiting": 5, "no_address": 1, "no_phone": 1})),
    ] {
        let id = stage.running(words).await;
        assert_eq!(stage.recipients(id).await, expected, "{words}");
        let shown = stage.show(id).await;
        assert_eq!((shown.frozen_count, shown.skipped + shown.waiting), (Some(7), 7), "{words}");
        stage.expect_books_to_agree(id).await;
    }
}

#[tokio::test]
async fn a_list_of_people_is_frozen_and_nobody_else() {
    let mut stage = Stage::new().await;
    let people = stage.people(9).await;
    let id = stage.draft_to("Hello", &Audience::Contacts(vec![people[2], people[7]]), 1).await;
    stage.started(id).await;
    let frozen: Vec<ContactId> = sqlx::query_scalar("SELECT contact_id FROM campaign_recipients ORDER BY contact_id")
        .fetch_all(&mut stage.admin)
        .await
        .unwrap();
    assert_eq!(frozen, [people[2], people[7]]);
    assert_eq!(stage.show(id).await.audience_contacts, Some(2));
}

#[tokio::test]
async fn nobody_is_an_audience_too_and_the_campaign_is_over() {
    let stage = Stage::new().await;
    let id = stage.running("Hello").await;
    assert_eq!(stage.show(id).await.frozen_count, Some(0));
    assert_eq!(stage.release().await.tasks(), [Task::Check { campaign_id: id }]);
    assert_eq!(stage.show(id).await.state, "completed");
    stage.expect_books_to_agree(id).await;
}
