//! Accepting messages: what is committed, what is published, and that nothing is done twice.

use super::{answer, phone, staged, text};
use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::json;
use shared::{
    jobs::outbound::{OutboundJob, Task},
    queue::OUTBOUND_NOW,
};
use std::{collections::BTreeSet, time::Instant};

#[tokio::test]
async fn an_accepted_message_is_stored_with_its_send_and_its_job_is_published() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        let path = format!("/conversations/{conversation}/messages");
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let accepted = answer(stage.posting(&tenant, &path, &text("Good morning")).header("traceparent", trace)).await;
        assert_eq!(accepted.status, 202, "{}", accepted.body);
        assert_eq!(accepted.body["send"]["state"], "queued");
        let jobs = stage.drain(&OUTBOUND_NOW).await;
        assert_eq!(jobs.len(), 1);
        let job = OutboundJob::from_job(&jobs[0]).unwrap();
        assert_eq!((job.tenant_id, job.message_id, job.task), (tenant.id, accepted.id(), Task::Send));
        let carried = jobs[0].headers.traceparent.as_deref().unwrap();
        assert!(carried.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && carried != trace, "{carried}");
        super::until("the outbox is empty", async || stage.count("SELECT count(*) FROM outbox").await == 0).await;
        let row = "SELECT (recipient_kind = 'phone' AND recipient LIKE '+49151%' AND needs_window AND seq = 1)::int::bigint FROM sends";
        assert_eq!(stage.count(row).await, 1);
    })
    .await;
}

#[tokio::test]
async fn only_the_head_of_a_conversation_has_a_job_however_many_come_at_once() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        let path = format!("/conversations/{conversation}/messages");
        let sends = (0..20).map(|number| {
            let request = stage.posting(&tenant, &path, &text(&format!("number {number}")));
            async move { answer(request).await.status }
        });
        assert!(join_all(sends).await.iter().all(|status| *status == 202));
        assert_eq!(stage.drain(&OUTBOUND_NOW).await.len(), 1);
        assert_eq!(stage.count("SELECT count(DISTINCT seq) FROM sends WHERE seq BETWEEN 1 AND 20").await, 20);
        assert_eq!(stage.count("SELECT last_send_seq FROM conversations").await, 20);
        assert_eq!(stage.count("SELECT messages_out::bigint FROM conversations").await, 20);
    })
    .await;
}

#[tokio::test]
async fn a_message_behind_a_settled_one_is_the_head_again() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        let path = format!("/conversations/{conversation}/messages");
        let mut jobs = 0;
        for (state, released, head) in [
            ("sent", false, true),
            ("failed", false, true),
            ("held", false, true),
            ("unknown", true, true),
            ("unknown", false, false),
            ("sending", false, false),
        ] {
            sqlx::query("UPDATE sends SET state = $1, turn_released = $2")
                .bind(state)
                .bind(released)
                .execute(&mut stage.database.admin().await)
                .await
                .unwrap();
            assert_eq!(stage.post(&tenant, &path, &text("Next")).await.status, 202);
            jobs += i64::from(head);
            assert_eq!(i64::try_from(stage.drain(&OUTBOUND_NOW).await.len()).unwrap(), i64::from(head), "{state}");
        }
        assert_eq!(jobs, 4);
    })
    .await;
}

#[tokio::test]
async fn the_same_key_and_request_get_the_same_answer_and_send_once() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        let path = format!("/conversations/{conversation}/messages");
        let with_key = |words: &str| {
            let request = stage.posting(&tenant, &path, &text(words)).header("Idempotency-Key", "order-7781");
            answer(request)
        };
        // All at once: one acts, the others wait for it and repeat its answer.
        let answers = join_all((0..8).map(|_| with_key("Hello"))).await;
        assert!(answers.iter().all(|a| a.status == 202), "{:?}", answers.iter().map(|a| &a.body).collect::<Vec<_>>());
        let ids: BTreeSet<&str> = answers.iter().map(|a| a.body["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 1);
        let replayed = answers.iter().filter(|a| a.headers.contains_key("idempotency-replayed")).count();
        assert_eq!(replayed, 7);
        let again = with_key("Hello").await;
        assert_eq!((again.status.as_u16(), &again.body), (202, &answers[0].body));
        assert_eq!(with_key("Another").await.problem(), (422, "idempotency_key_reused", vec!["Idempotency-Key"]));
        assert_eq!(stage.count("SELECT count(*) FROM messages").await, 1);
        assert_eq!(stage.drain(&OUTBOUND_NOW).await.len(), 1);
        // Keys are each tenant's own.
        let other = stage.tenant("other").await;
        let made =
            stage.posting(&other, "/contacts", &json!({"phone": phone()})).header("Idempotency-Key", "order-7781");
        assert_eq!(answer(made).await.status, 201);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_not_kept_under_the_key() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(25)).await;
        let path = format!("/conversations/{conversation}/messages");
        let send = || answer(stage.posting(&tenant, &path, &text("Hello")).header("Idempotency-Key", "k"));
        assert_eq!(send().await.problem(), (422, "needs_template", vec!["type"]));
        sqlx::query("UPDATE conversations SET window_expires_at = now() + interval '1 hour'")
            .execute(&mut stage.database.admin().await)
            .await
            .unwrap();
        assert_eq!(send().await.status, 202);
    })
    .await;
}

#[tokio::test]
async fn free_text_outside_the_window_needs_a_template() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let closed = stage.conversation(&tenant, &account, TimeDelta::hours(24)).await;
        let refused = stage.post(&tenant, &format!("/conversations/{closed}/messages"), &text("Hello")).await;
        assert_eq!(refused.problem(), (422, "needs_template", vec!["type"]));
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.ends_with("Send a template."), "{detail}");
        let stranger = stage.contact(&tenant, &phone()).await;
        let to = json!({"contact_id": stranger, "channel_account_id": account.id, "type": "text", "text": "Hello"});
        assert_eq!(stage.post(&tenant, "/messages", &to).await.problem(), (422, "needs_template", vec!["type"]));
        assert_eq!(stage.count("SELECT count(*) FROM messages").await, 0);
        assert_eq!(stage.count("SELECT count(*) FROM conversations").await, 1, "the refused one is not made");
    })
    .await;
}

#[tokio::test]
async fn a_message_to_a_contact_finds_or_makes_one_conversation() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let contact = stage.contact(&tenant, &phone()).await;
        let body = json!({"contact_id": contact, "channel_account_id": account.id, "type": "template",
            "name": "reminder", "language": "en"});
        let sends = join_all((0..6).map(|_| stage.post(&tenant, "/messages", &body))).await;
        assert!(sends.iter().all(|a| a.status == 202), "{:?}", sends.iter().map(|a| &a.body).collect::<Vec<_>>());
        let into: BTreeSet<&str> = sends.iter().map(|a| a.body["conversation_id"].as_str().unwrap()).collect();
        assert_eq!(into.len(), 1);
        assert_eq!(stage.drain(&OUTBOUND_NOW).await.len(), 1);
        let conversation = stage.get(&tenant, &format!("/conversations/{}", into.first().unwrap())).await.body;
        assert_eq!((&conversation["origin"], &conversation["state"]), (&json!("agent"), &json!("open")));

        // Resolved a moment ago: reopened. Long ago: a new one, with the window that the contact's last message opened.
        let resolve = async |ago: &str| {
            sqlx::query(
                "UPDATE conversations SET state = 'resolved', resolved_at = now() - $1::interval,
                    window_expires_at = '2100-01-01'",
            )
            .bind(ago)
            .execute(&mut stage.database.admin().await)
            .await
            .unwrap();
            stage.post(&tenant, "/messages", &body).await.body["conversation_id"].as_str().unwrap().to_owned()
        };
        assert_eq!(resolve("1 hour").await, *into.first().unwrap().to_owned());
        let new = resolve("8 days").await;
        assert_ne!(new, *into.first().unwrap().to_owned());
        let new = stage.get(&tenant, &format!("/conversations/{new}")).await.body;
        assert_eq!(new["window_expires_at"], "2100-01-01T00:00:00Z");
    })
    .await;
}

#[tokio::test]
async fn an_account_that_is_disabled_is_refused() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        sqlx::query("UPDATE channel_accounts SET state = 'disabled'")
            .execute(&mut stage.database.admin().await)
            .await
            .unwrap();
        let refused = stage.post(&tenant, &format!("/conversations/{conversation}/messages"), &text("Hello")).await;
        assert_eq!(refused.problem(), (422, "account_disabled", vec![]));
    })
    .await;
}

#[tokio::test]
async fn a_contact_without_a_number_is_reached_by_user_id_or_not_at_all() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        let path = format!("/conversations/{conversation}/messages");
        let mut admin = stage.database.admin().await;
        sqlx::query("UPDATE contacts SET phone = NULL").execute(&mut admin).await.unwrap();
        sqlx::query("DELETE FROM contact_aliases").execute(&mut admin).await.unwrap();
        let refused = stage.post(&tenant, &path, &text("Hello")).await;
        assert_eq!(refused.problem(), (422, "invalid", vec!["contact_id"]));
        sqlx::query(
            "INSERT INTO contact_aliases (tenant_id, kind, value, contact_id)
            SELECT tenant_id, 'whatsapp_bsuid', 'US.70311904455821', id FROM contacts",
        )
        .execute(&mut admin)
        .await
        .unwrap();
        assert_eq!(stage.post(&tenant, &path, &text("Hello")).await.status, 202);
        let by_id = "SELECT (recipient_kind = 'bsuid' AND recipient = 'US.70311904455821')::int::bigint FROM sends";
        assert_eq!(stage.count(by_id).await, 1);
    })
    .await;
}

#[tokio::test]
async fn without_the_broker_a_message_is_accepted_soon_and_waits_in_the_outbox() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        stage.without_broker().await;
        let started = Instant::now();
        let accepted = stage.post(&tenant, &format!("/conversations/{conversation}/messages"), &text("Hello")).await;
        assert_eq!(accepted.status, 202);
        assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
        assert_eq!(stage.count("SELECT count(*) FROM outbox WHERE queue = 'outbound.now'").await, 1);
    })
    .await;
}

#[tokio::test]
async fn without_the_database_a_request_is_told_to_come_again() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        assert_eq!(stage.get(&tenant, "/contacts").await.status, 200);
        stage.database_relay.close();
        let refused = stage.get(&tenant, "/contacts").await;
        assert_eq!(refused.problem(), (503, "unavailable", vec![]));
        assert!(refused.headers.contains_key("retry-after"));
        stage.database_relay.restore();
        super::until("it works again", async || stage.get(&tenant, "/contacts").await.status == 200).await;
    })
    .await;
}
