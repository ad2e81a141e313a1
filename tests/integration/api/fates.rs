//! What became of a message, what a person decides about it, and files that are uploaded to be sent.

use super::{Stage, Tenant, answer, mijra, staged, text};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use shared::{
    domain::ids::{CampaignId, ConversationId, MessageId},
    jobs::outbound::{Decision, OutboundJob, Task},
    queue::OUTBOUND_NOW,
};

impl Stage {
    /// A message that was accepted, and whose send is now as `set` says.
    async fn message(&self, tenant: &Tenant, conversation: ConversationId, set: &'static str) -> MessageId {
        let accepted = self.post(tenant, &format!("/conversations/{conversation}/messages"), &text("Hello")).await;
        assert_eq!(accepted.status, 202, "{}", accepted.body);
        let id: MessageId = accepted.id();
        sqlx::query(set).bind(id).execute(&mut self.database.admin().await).await.unwrap();
        id
    }
}

#[tokio::test]
async fn a_trace_shows_the_send_its_attempts_what_it_waits_for_and_the_webhooks_that_name_it() {
    staged(async |stage| {
        let (tenant, other) = (stage.tenant("demo").await, stage.tenant("other").await);
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        let set = "UPDATE sends SET state = 'sent', provider_message_id = 'wamid.TRACED', sent_at = now() WHERE message_id = $1";
        let first = stage.message(&tenant, conversation, set).await;
        sqlx::query(
            "WITH attempt AS (
                INSERT INTO send_attempts (tenant_id, message_id, id, number, outcome, granted_at, ended_at)
                VALUES ($1, $2, gen_random_uuid(), 1, 'accepted', now(), now())
            ), told AS (
                INSERT INTO trail (tenant_id, message_id, event, at) VALUES ($1, $2, 'delivered', now())
            )
            INSERT INTO webhook_log (tenant_id, received_at, webhook_id, provider, channel_account_id, outcome, body_lz4, body_bytes)
            SELECT $1, now(), gen_random_uuid(), 'whatsapp', $3, 'stored', body, bytes
            FROM (VALUES ($4::bytea, 21), ($5::bytea, 21)) AS logged (body, bytes)",
        )
        .bind(tenant.id)
        .bind(first)
        .bind(account.id)
        .bind(lz4_flex::compress_prepend_size(br#"{"id":"wamid.TRACED"}"#))
        .bind(lz4_flex::compress_prepend_size(br#"{"id":"wamid.OTHERS"}"#))
        .execute(&mut stage.database.admin().await)
        .await
        .unwrap();
        let trace = stage.get(&tenant, &format!("/messages/{first}/trace")).await;
        assert_eq!(trace.status, 200, "{}", trace.body);
        let lengths = ["attempts", "trail", "webhooks"].map(|list| trace.body[list].as_array().unwrap().len());
        assert_eq!(lengths, [1, 1, 1], "{}", trace.body);
        assert_eq!(trace.body["send"]["account_state"], "active");
        assert_eq!(stage.get(&other, &format!("/messages/{first}/trace")).await.status, 404);

        let waits = "UPDATE sends SET state = 'waiting', wait_reason = 'rate' WHERE message_id = $1";
        let second = stage.message(&tenant, conversation, waits).await;
        let third = stage.message(&tenant, conversation, "UPDATE sends SET state = 'queued' WHERE message_id = $1").await;
        let trace = stage.get(&tenant, &format!("/messages/{third}/trace")).await;
        assert_eq!(trace.body["send"]["waits_for"], json!(second), "{}", trace.body);

        // A timer that has outlived what it was for brings nobody anything.
        for (id, kind) in [(first, "outbound.release_turn"), (second, "outbound.send"), (first, "outbound.send_anew")] {
            sqlx::query(
                "INSERT INTO outbox (tenant_id, id, queue, job, body, publish_after)
                VALUES ($1, gen_random_uuid(), 'outbound.now', jsonb_build_object('kind', $3), convert_to($2::uuid::text, 'UTF8'), now())",
            )
            .bind(tenant.id)
            .bind(id)
            .bind(kind)
            .execute(&mut stage.database.admin().await)
            .await
            .unwrap();
        }
        for (id, kind) in [(first, "outbound.send_anew"), (second, "outbound.send")] {
            let trace = stage.get(&tenant, &format!("/messages/{id}/trace")).await;
            let kinds: Vec<&Value> = trace.body["jobs"].as_array().unwrap().iter().map(|job| &job["kind"]).collect();
            assert_eq!(kinds, [kind], "{}", trace.body);
        }

        let (content, said) = mijra(stage, &["trace", "--tenant", "demo", &first.to_string()], &[]).await;
        assert!(content, "{said}");
        let whats: Vec<&str> =
            said["happenings"].as_array().unwrap().iter().filter_map(|happening| happening["what"].as_str()).collect();
        for what in ["accepted", "attempt 1 granted", "attempt 1: accepted", "delivered", "webhook"] {
            assert!(whats.contains(&what), "{what}: {whats:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_decision_is_asked_for_where_there_is_something_to_decide() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        let held = "WITH listed AS (
                INSERT INTO undecided (tenant_id, message_id, channel_account_id, since)
                SELECT tenant_id, message_id, channel_account_id, now() FROM sends WHERE message_id = $1
            )
            UPDATE sends SET state = 'held' WHERE message_id = $1";
        let (held, failed) = (
            stage.message(&tenant, conversation, held).await,
            stage
                .message(
                    &tenant,
                    conversation,
                    "UPDATE sends SET state = 'failed', code = '131026' WHERE message_id = $1",
                )
                .await,
        );
        stage.drain(&OUTBOUND_NOW).await;
        let listed = stage.get(&tenant, "/undecided?state=held").await;
        assert_eq!(listed.body["data"][0]["message_id"], json!(held), "{}", listed.body);
        assert_eq!(stage.get(&tenant, "/undecided?state=lost").await.problem(), (400, "bad_parameter", vec!["state"]));

        let decide = |id: MessageId| format!("/messages/{id}/decide");
        let resend = json!({"decision": "resend"});
        assert_eq!(stage.post(&tenant, &decide(failed), &resend).await.problem().1, "wrong_state");
        assert_eq!(stage.post(&tenant, &decide(held), &json!({"decision": "maybe"})).await.problem().2, ["decision"]);
        assert_eq!(stage.post(&tenant, &decide(held), &resend).await.status, 202);
        assert_eq!(
            stage.post(&tenant, &format!("/messages/{held}/retry"), &Value::Null).await.problem().1,
            "wrong_state"
        );
        assert_eq!(stage.post(&tenant, &format!("/messages/{failed}/retry"), &Value::Null).await.status, 202);
        let tasks: Vec<(MessageId, Task)> = stage
            .drain(&OUTBOUND_NOW)
            .await
            .iter()
            .map(|job| OutboundJob::from_job(job).map(|job| (job.message_id, job.task)).unwrap())
            .collect();
        assert_eq!(tasks, [(held, Task::Decide(Decision::Resend)), (failed, Task::Retry)]);
        let (content, said) = mijra(stage, &["undecided", "list", "--tenant", "demo"], &[]).await;
        assert!(content && said[0]["message_id"] == json!(held), "{said}");
    })
    .await;
}

#[tokio::test]
async fn what_would_lead_to_nothing_is_refused() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        let expired = "UPDATE sends SET state = 'failed', code = 'expired', expires_at = now() - interval '1 second' WHERE message_id = $1";
        let expired = stage.message(&tenant, conversation, expired).await;
        let refused = stage.post(&tenant, &format!("/messages/{expired}/retry"), &Value::Null).await;
        assert_eq!(refused.problem().1, "wrong_state", "{}", refused.body);

        for (state, expected) in [("running", 202), ("completed", 409), ("cancelled", 409)] {
            let held = stage.message(&tenant, conversation, "UPDATE sends SET state = 'held' WHERE message_id = $1").await;
            sqlx::query(
                "WITH campaign AS (
                    INSERT INTO campaigns (tenant_id, id, name, channel_account_id, state, content, audience)
                    VALUES ($1, $2, 'spring', $3, $4, '{}', '{}')
                )
                UPDATE sends SET campaign_id = $2, lane = 1 WHERE message_id = $5",
            )
            .bind(tenant.id)
            .bind(CampaignId::new())
            .bind(account.id)
            .bind(state)
            .bind(held)
            .execute(&mut stage.database.admin().await)
            .await
            .unwrap();
            let decided = stage.post(&tenant, &format!("/messages/{held}/decide"), &json!({"decision": "resend"})).await;
            assert_eq!(decided.status, expected, "{state}: {}", decided.body);
        }
    })
    .await;
}

#[tokio::test]
async fn a_file_is_uploaded_once_shown_and_named_in_messages() {
    staged(async |stage| {
        let (tenant, other) = (stage.tenant("demo").await, stage.tenant("other").await);
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0".to_vec();
        let upload_as = |tenant: &Tenant, kind: &'static str, bytes: Vec<u8>| {
            let path = format!("/api/{}/files?filename=map.png", tenant.slug);
            let request = stage.request(Method::POST, &path).bearer_auth(&tenant.token);
            answer(request.header("Content-Type", kind).body(bytes))
        };
        let upload = |tenant: &Tenant, bytes: Vec<u8>| upload_as(tenant, "image/png", bytes);
        let uploaded = upload(&tenant, png.clone()).await;
        assert_eq!(uploaded.status, 201, "{}", uploaded.body);
        assert_eq!((&uploaded.body["type"], &uploaded.body["size_bytes"]), (&json!("image/png"), &json!(png.len())));
        let id = uploaded.body["id"].as_str().unwrap().to_owned();
        let link = stage.request(Method::GET, uploaded.body["url"].as_str().unwrap()).send().await.unwrap();
        assert_eq!((link.status().as_u16(), link.headers()["content-type"].to_str().unwrap()), (200, "image/png"));
        assert_eq!(link.bytes().await.unwrap(), png);
        assert_eq!(stage.get(&other, &format!("/files/{id}")).await.status, 404, "another tenant's is not there");
        assert_eq!(upload(&tenant, Vec::new()).await.problem().2, ["body"]);
        let script = b"<html><script>alert(1)</script></html>".to_vec();
        assert_eq!(upload(&tenant, script).await.problem().2, ["body"], "a page in a picture's clothes");
        let form = upload_as(&tenant, "Multipart/form-data; boundary=x", b"--x\r\n".to_vec()).await;
        assert_eq!(form.problem(), (422, "invalid", vec!["body"]), "the envelope is not the file");
        let by_curl = upload_as(&tenant, "application/x-www-form-urlencoded", png.clone()).await;
        assert_eq!(by_curl.body["type"], "image/png", "{}", by_curl.body);
        let unknown = upload_as(&tenant, "application/x-www-form-urlencoded", b"a,b\n".to_vec()).await;
        assert_ne!(unknown.body["type"], "application/x-www-form-urlencoded", "{}", unknown.body);

        let path = format!("/conversations/{conversation}/messages");
        let image = |id: &str| json!({"type": "image", "file": {"id": id}, "caption": "The way"});
        let sent = stage.post(&tenant, &path, &image(&id)).await;
        assert_eq!((sent.status.as_u16(), &sent.body["kind"]), (202, &json!("image")), "{}", sent.body);
        let stranger = MessageId::new().to_string();
        assert_eq!(stage.post(&tenant, &path, &image(&stranger)).await.problem(), (422, "invalid", vec!["file.id"]));
    })
    .await;
}

#[tokio::test]
async fn an_answer_names_a_message_that_its_provider_knows() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        let elsewhere = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        let sent = "UPDATE sends SET state = 'sent', provider_message_id = 'wamid.QUOTED' WHERE message_id = $1";
        let (known, unknown) = (
            stage.message(&tenant, conversation, sent).await,
            stage.message(&tenant, conversation, "UPDATE sends SET state = 'failed' WHERE message_id = $1").await,
        );
        let path = |conversation: ConversationId| format!("/conversations/{conversation}/messages");
        let quoting =
            |id: MessageId| json!({"type": "text", "text": "This one", "reply_to": id, "expires_in_seconds": 60});
        let reacting = |id: MessageId| json!({"type": "reaction", "message_id": id, "emoji": "👍"});
        for body in [quoting(known), reacting(known)] {
            let answered = stage.post(&tenant, &path(conversation), &body).await;
            assert_eq!(
                (answered.status.as_u16(), &answered.body["refers_to"]),
                (202, &json!("wamid.QUOTED")),
                "{}",
                answered.body
            );
        }
        assert_eq!(stage.post(&tenant, &path(conversation), &quoting(unknown)).await.problem().2, ["reply_to"]);
        assert_eq!(stage.post(&tenant, &path(elsewhere), &quoting(known)).await.problem().2, ["reply_to"]);
        assert_eq!(stage.post(&tenant, &path(conversation), &reacting(unknown)).await.problem().2, ["message_id"]);
        assert_eq!(stage.count("SELECT count(*) FROM sends WHERE expires_at > now() + interval '50 seconds'").await, 1);
    })
    .await;
}
