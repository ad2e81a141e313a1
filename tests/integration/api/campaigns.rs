//! Campaigns by way of the API: what is accepted and refused, what is said of them, and the jobs that follow.

use super::{Account, Stage, Tenant, answer, phone, staged, text};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use shared::{
    db::{Placement, templates::sync},
    domain::{
        ids::{CampaignId, ContactId},
        permissions::Permission,
        templates::{Needs, TemplateInfo},
    },
    jobs::campaign::{CampaignJob, Task},
    queue::{CAMPAIGN, OUTBOUND_NOW},
};

fn campaign(account: &Account) -> Value {
    json!({
        "name": "Spring",
        "channel_account_id": account.id,
        "content": {"type": "text", "text": "Hello {{name}}"},
        "audience": {"all": true},
    })
}

/// The same with one field changed.
fn with(account: &Account, field: &str, value: Value) -> Value {
    let mut body = campaign(account);
    body[field] = value;
    body
}

async fn made(stage: &Stage, tenant: &Tenant, account: &Account) -> String {
    let made = stage.post(tenant, "/campaigns", &campaign(account)).await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.body["id"].as_str().unwrap().to_owned()
}

/// A person of a campaign who has failed with a code.
async fn failed(stage: &Stage, tenant: &Tenant, account: &Account, campaign: &str, code: &str) {
    let conversation = stage.conversation(tenant, account, TimeDelta::hours(1)).await;
    sqlx::query(
        "WITH message AS (
            INSERT INTO messages (tenant_id, id, conversation_id, direction, kind, text, content, at)
            SELECT tenant_id, gen_random_uuid(), id, 'out', 'text', 'Hello', '{}', now() FROM conversations WHERE id = $1
            RETURNING tenant_id, id, conversation_id
        ), send AS (
            INSERT INTO sends (tenant_id, message_id, conversation_id, channel_account_id, seq, lane, recipient_kind, recipient,
                needs_window, state, code, reason, attempts, failed_at, campaign_id)
            SELECT tenant_id, id, conversation_id, $2, 1, 1, 'phone', '+4915123456789', true, 'failed', $4, 'not there', 1, now(), $3
            FROM message
        ), person AS (
            INSERT INTO campaign_recipients (tenant_id, campaign_id, contact_id, state, message_id)
            SELECT c.tenant_id, $3, c.contact_id, 'released', m.id
            FROM message m
            JOIN conversations c ON c.id = m.conversation_id
        )
        UPDATE campaign_counts SET failed = failed + 1 WHERE campaign_id = $3",
    )
    .bind(conversation)
    .bind(account.id)
    .bind(campaign.parse::<CampaignId>().unwrap())
    .bind(code)
    .execute(&mut stage.database.admin().await)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_campaigns_people_are_listed_with_where_they_stand_and_why() {
    staged(async |stage| {
        let (tenant, other) = (stage.tenant("demo").await, stage.tenant("other").await);
        let account = stage.account(&tenant).await;
        let id = made(stage, &tenant, &account).await;
        let path = format!("/campaigns/{id}/recipients");
        assert_eq!(stage.get(&tenant, &path).await.body, json!({"data": []}));
        for code in ["131026", "131026", "470"] {
            failed(stage, &tenant, &account, &id, code).await;
        }
        let skipped = stage.contact(&tenant, &phone()).await;
        sqlx::query(
            "INSERT INTO campaign_recipients (tenant_id, campaign_id, contact_id, state, skip_reason)
            SELECT tenant_id, id, $2, 'skipped', 'no_name' FROM campaigns WHERE id = $1",
        )
        .bind(id.parse::<CampaignId>().unwrap())
        .bind(skipped)
        .execute(&mut stage.database.admin().await)
        .await
        .unwrap();

        let all = stage.get(&tenant, &path).await.body;
        assert_eq!((all["data"].as_array().unwrap().len(), &all["next"]), (4, &Value::Null), "{all}");
        let mut pages = Vec::new();
        let mut cursor = String::new();
        for _ in 0..all["data"].as_array().unwrap().len() {
            let page = stage.get(&tenant, &format!("{path}?limit=1{cursor}")).await.body;
            pages.extend(page["data"].as_array().unwrap().clone());
            cursor = page["next"].as_str().map(|next| format!("&cursor={next}")).unwrap_or_default();
        }
        assert_eq!(cursor, "", "the last page");
        assert_eq!(json!(pages), all["data"], "page by page");
        let of = async |wish: &str| stage.get(&tenant, &format!("{path}?{wish}")).await.body["data"].clone();
        let one = of("code=470").await;
        assert_eq!(
            (one.as_array().unwrap().len(), &one[0]["state"], &one[0]["code"]),
            (1, &json!("failed"), &json!("470"))
        );
        assert_eq!((&one[0]["reason"], &one[0]["attempts"]), (&json!("not there"), &json!(1)));
        assert_eq!((&one[0]["name"], &one[0]["address"]), (&json!("Ada"), &json!("+4915123456789")));
        assert_eq!(of("state=failed").await.as_array().unwrap().len(), 3);
        assert_eq!(of("state=failed&code=131026").await.as_array().unwrap().len(), 2);
        let one = of("state=skipped").await;
        assert_eq!((&one[0]["contact_id"], &one[0]["reason"]), (&json!(skipped), &json!("no_name")), "{one}");
        assert_eq!((&one[1], &one[0]["message_id"]), (&Value::Null, &Value::Null));

        let books = stage.get(&tenant, &format!("/campaigns/{id}/ledger")).await.body;
        assert_eq!(
            books["causes"],
            json!([
                {"state": "failed", "code": "131026", "reason": "not there", "people": 2},
                {"state": "failed", "code": "470", "reason": "not there", "people": 1},
                {"state": "skipped", "code": null, "reason": "no_name", "people": 1},
            ])
        );

        for (wish, field) in
            [("state=fialed", "state"), ("code=a%00", "code"), ("limit=0", "limit"), ("codes=1", "codes")]
        {
            assert_eq!(
                stage.get(&tenant, &format!("{path}?{wish}")).await.problem(),
                (400, "bad_parameter", vec![field])
            );
        }
        for (tenant, id) in [(&other, id), (&tenant, CampaignId::new().to_string())] {
            let hidden = stage.get(tenant, &format!("/campaigns/{id}/recipients")).await;
            assert_eq!(hidden.problem(), (404, "not_found", vec![]));
        }
        let token = stage.token(tenant.id, &[Permission::CampaignsWrite], None).await;
        let writer = Tenant { token, ..tenant };
        assert_eq!(stage.get(&writer, &path).await.problem(), (403, "permission_missing", vec![]));
    })
    .await;
}

#[tokio::test]
async fn a_campaign_is_made_shown_and_listed_and_made_once_by_one_key() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let make = || {
            let request = stage.posting(&tenant, "/campaigns", &with(&account, "weight", json!(3)));
            answer(request.header("Idempotency-Key", "spring"))
        };
        let made = make().await;
        assert_eq!(made.status, 201, "{}", made.body);
        assert_eq!((&made.body["state"], &made.body["weight"]), (&json!("draft"), &json!(3)));
        assert_eq!(made.body["content"]["text"], "Hello {{name}}");
        assert_eq!(made.body["counts"]["waiting"], 0);
        assert_eq!(make().await.body, made.body);
        let second = self::made(stage, &tenant, &account).await;
        let id = made.body["id"].as_str().unwrap();
        assert_eq!(stage.get(&tenant, &format!("/campaigns/{id}")).await.body, made.body);
        let page = stage.get(&tenant, "/campaigns?limit=1").await.body;
        assert_eq!(page["data"][0]["id"], second, "the newest first");
        let path = format!("/campaigns?limit=1&cursor={}", page["next"].as_str().unwrap());
        let page = stage.get(&tenant, &path).await.body;
        assert_eq!((&page["data"][0], &page["next"]), (&made.body, &Value::Null));
        assert!(stage.drain(&CAMPAIGN).await.is_empty(), "nothing happens before it is started");
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_campaign_is_named() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let (account, stranger) = (stage.account(&tenant).await, ContactId::new());
        let contact = stage.contact(&tenant, &phone()).await;
        let text = |words: &str| json!({"type": "text", "text": words});
        for (field, value, expected) in [
            ("name", json!(" "), (422, "invalid", vec!["name"])),
            ("weight", json!(101), (422, "invalid", vec!["weight"])),
            ("content", text("Hi {{city}}"), (422, "invalid", vec!["content.text"])),
            ("content", text(""), (422, "invalid", vec!["content.text"])),
            ("content", json!({"type": "template"}), (422, "invalid", vec!["content.name", "content.language"])),
            ("content", json!({"type": "text", "txt": "a"}), (422, "invalid", vec!["content.txt"])),
            (
                "content",
                json!({"type": "reaction", "emoji": "👍", "message_id": stranger}),
                (422, "invalid", vec!["content.type"]),
            ),
            (
                "content",
                json!({"type": "template", "name": "a", "language": "en", "variables": ["x", "{{1}}"]}),
                (422, "invalid", vec!["content.variables[1]"]),
            ),
            ("audience", json!({}), (422, "invalid", vec!["audience"])),
            ("audience", json!({"all": false}), (422, "invalid", vec!["audience"])),
            ("audience", json!({"contact_ids": []}), (422, "invalid", vec!["audience"])),
            ("audience", json!({"contact_ids": [contact, stranger]}), (422, "invalid", vec!["audience.contact_ids"])),
            ("channel_account_id", json!(stranger), (404, "not_found", vec!["channel_account_id"])),
        ] {
            let refused = stage.post(&tenant, "/campaigns", &with(&account, field, value.clone())).await;
            assert_eq!(refused.problem(), expected, "{field}: {value}: {}", refused.body);
        }
        assert_eq!(stage.count("SELECT count(*) FROM campaigns").await, 0);
        let fine = with(&account, "audience", json!({"contact_ids": [contact]}));
        assert_eq!(stage.post(&tenant, "/campaigns", &fine).await.body["audience_contacts"], 1);
    })
    .await;
}

#[tokio::test]
async fn a_campaigns_template_is_checked_as_a_messages_is() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let known = TemplateInfo {
            name: "reminder".into(),
            language: "en_US".into(),
            status: "APPROVED".into(),
            category: "MARKETING".into(),
            body: "Hi {{1}}.".into(),
            variables: 1,
            needs: Needs { variables: 1, ..Needs::default() },
            provider_id: None,
            components: None,
            reason: None,
        };
        let mut tx = stage.operator().fleet(&Placement::primary(), &[tenant.id]).await.unwrap();
        sync::replace(&mut tx, tenant.id, account.id, &[known], Utc::now()).await.unwrap();
        tx.commit().await.unwrap();
        for (name, variables, expected) in [
            ("unknown", vec!["{{name}}"], (422, "template_unusable", vec!["content.name"])),
            ("reminder", vec![], (422, "invalid", vec!["content.variables[0]"])),
        ] {
            let content = json!({"type": "template", "name": name, "language": "en_US", "variables": variables});
            let refused = stage.post(&tenant, "/campaigns", &with(&account, "content", content)).await;
            assert_eq!(refused.problem(), expected);
        }
        let content = json!({"type": "template", "name": "reminder", "language": "en_US", "variables": ["{{name}}"]});
        let fine = stage.post(&tenant, "/campaigns", &with(&account, "content", content.clone())).await;
        assert_eq!((fine.status.as_u16(), &fine.body["warnings"]), (201, &Value::Null), "{}", fine.body);

        let unsynced = stage.account(&tenant).await;
        let taken = stage.post(&tenant, "/campaigns", &with(&unsynced, "content", content)).await;
        assert_eq!(taken.status, 201, "the provider decides");
        let warning = taken.body["warnings"][0].as_str().unwrap();
        assert!(
            warning.starts_with("The template is not checked") && warning.contains("mijra templates sync"),
            "{warning}"
        );
        let words = stage.post(&tenant, "/campaigns", &campaign(&unsynced)).await;
        assert_eq!(words.body["warnings"], Value::Null, "it has no template");
    })
    .await;
}

#[tokio::test]
async fn a_campaign_is_started_paused_resumed_and_cancelled_and_each_twice_is_once() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let id = made(stage, &tenant, &account).await;
        let campaign_id = id.parse().unwrap();
        let act = |action: &str| {
            let path = format!("/campaigns/{id}/{action}");
            let request = stage.posting(&tenant, &path, &json!({}));
            answer(request)
        };
        for (action, state, task) in [
            ("start", "running", Some(Task::Freeze { campaign_id, after: None })),
            ("pause", "paused", None),
            ("resume", "running", Some(Task::Wake { campaign_id, before: None })),
            ("cancel", "cancelled", Some(Task::Cancel { campaign_id, before: None })),
        ] {
            for _ in 0..2 {
                let done = act(action).await;
                assert_eq!((done.status.as_u16(), &done.body["state"]), (200, &json!(state)), "{action}");
            }
            let jobs: Vec<CampaignJob> =
                stage.drain(&CAMPAIGN).await.iter().map(|job| CampaignJob::from_job(job).unwrap()).collect();
            assert_eq!(jobs.iter().map(|job| job.task).collect::<Vec<_>>(), Vec::from_iter(task), "{action}");
            assert!(jobs.iter().all(|job| job.tenant_id == tenant.id));
        }
        let refused = act("resume").await;
        assert_eq!(refused.problem(), (409, "wrong_state", vec![]));
        assert_eq!(refused.body["detail"], "The campaign is cancelled: it cannot be resumed.");
        let unknown = stage.post(&tenant, &format!("/campaigns/{}/start", ContactId::new()), &json!({})).await;
        assert_eq!(unknown.problem(), (404, "not_found", vec![]));
    })
    .await;
}

#[tokio::test]
async fn who_failed_is_tried_again_once_however_often_it_is_asked_for() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let id = made(stage, &tenant, &account).await;
        let retry = Task::Retry { campaign_id: id.parse().unwrap(), before: None };
        let path = format!("/campaigns/{id}/retry-failed");
        let ask = |body: Value| answer(stage.posting(&tenant, &path, &body));
        let refused = ask(json!({})).await;
        assert_eq!(refused.problem(), (409, "wrong_state", vec![]));
        assert_eq!(refused.body["detail"], "The campaign is draft: who failed cannot be tried again.");
        let mut admin = stage.database.admin().await;
        sqlx::raw_sql("UPDATE campaigns SET state = 'completed', ended_at = now(), frozen_at = now()")
            .execute(&mut admin)
            .await
            .unwrap();
        let refused = ask(json!({})).await;
        assert_eq!(refused.problem(), (409, "nobody_failed", vec![]));
        assert_eq!(refused.body["detail"], "Nobody of the campaign has failed. Nothing is changed.");
        for code in ["131026", "131026", "1"] {
            failed(stage, &tenant, &account, &id, code).await;
        }
        let refused = ask(json!({"codes": [999]})).await;
        assert_eq!(refused.problem(), (409, "nobody_failed", vec![]));
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.ends_with(", but 2 with 131026, 1 with 1. Nothing is changed."), "{detail}");
        assert_eq!(stage.get(&tenant, &format!("/campaigns/{id}")).await.body["state"], "completed");
        assert!(stage.drain(&CAMPAIGN).await.is_empty());

        for (body, field) in
            [(json!({"codes": []}), "codes"), (json!({"codes": [true]}), "codes[0]"), (json!({"code": [1]}), "code")]
        {
            assert_eq!(ask(body.clone()).await.problem(), (422, "invalid", vec![field]), "{body}");
        }
        let codes = json!({"codes": [131026, "470"]});
        let with_key = || answer(stage.posting(&tenant, &path, &codes).header("Idempotency-Key", "once more"));
        let first = with_key().await;
        assert_eq!((first.status.as_u16(), &first.body["state"]), (200, &json!("running")), "{}", first.body);
        assert_eq!(first.body["retrying_count"], 2, "so many are tried again");
        assert!(first.body["retrying_since"].is_string() && first.body["ended_at"].is_null(), "{}", first.body);
        for again in [ask(json!({"codes": ["470", "131026"]})).await, with_key().await] {
            assert_eq!(again.body, first.body);
        }
        assert_eq!(ask(json!({})).await.problem(), (409, "wrong_state", vec![]), "others are under way");
        let jobs = stage.drain(&CAMPAIGN).await;
        let tasks: Vec<Task> = jobs.iter().map(|job| CampaignJob::from_job(job).unwrap().task).collect();
        assert_eq!(tasks, [retry, retry], "asking again takes up what may be lost");

        sqlx::raw_sql("UPDATE campaigns SET state = 'completed', retry_asked_at = NULL")
            .execute(&mut admin)
            .await
            .unwrap();
        assert_eq!(with_key().await.body, first.body, "answered before");
        assert!(stage.drain(&CAMPAIGN).await.is_empty());
        let url = stage.posting(&tenant, &path, &json!({})).build().unwrap().url().clone();
        let bare = reqwest::Client::new().post(url).bearer_auth(&tenant.token);
        assert_eq!(answer(bare).await.body["state"], "running", "a body is not needed");
        assert_eq!(stage.drain(&CAMPAIGN).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_running_campaign_says_how_fast_it_goes_and_when_it_will_be_done_and_its_books_can_be_read() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let (id, other) = (made(stage, &tenant, &account).await, made(stage, &tenant, &account).await);
        sqlx::raw_sql(
            "UPDATE campaigns
            SET state = 'running', started_at = now(), frozen_at = now(), frozen_count = 1000, sampled_at = now() - interval '5 seconds',
                sampled_handed_over = 900, sampled_before_at = now() - interval '15 seconds', sampled_before_handed_over = 200;
            UPDATE campaign_counts SET waiting = 700, in_flight = 100, sent = 200, handed_over = 800",
        )
        .execute(&mut stage.database.admin().await)
        .await
        .unwrap();
        let shown = stage.get(&tenant, &format!("/campaigns/{id}")).await.body;
        // 600 in a little more than 15 s.
        let (rate, eta) = (shown["rate_per_second"].as_f64().unwrap(), shown["eta_seconds"].as_i64().unwrap());
        assert!((20.0..=40.0).contains(&rate), "{rate}");
        assert!((20..=40).contains(&eta), "800 are left: {eta}");
        assert_eq!((&shown["frozen_count"], &shown["counts"]["sent"]), (&json!(1000), &json!(200)));
        stage.post(&tenant, &format!("/campaigns/{other}/pause"), &json!({})).await;
        let paused = stage.get(&tenant, &format!("/campaigns/{other}")).await.body;
        assert_eq!((&paused["rate_per_second"], &paused["eta_seconds"]), (&json!(0.0), &Value::Null));

        let books = stage.get(&tenant, &format!("/campaigns/{id}/ledger")).await.body;
        assert_eq!((&books["agrees"], &books["frozen_count"]), (&json!(false), &json!(1000)));
        assert_eq!(books["disagreements"][0], "1000 people were frozen, and 0 are there");
        let line = books["lines"].as_array().unwrap().iter().find(|line| line["state"] == "sent").unwrap();
        assert_eq!(*line, json!({"state": "sent", "people": 0, "attempts": 0, "shown": 200}));
    })
    .await;
}

#[tokio::test]
async fn a_campaign_is_its_tenants_alone_and_needs_its_permissions() {
    staged(async |stage| {
        let (ours, theirs) = (stage.tenant("ours").await, stage.tenant("theirs").await);
        let account = stage.account(&ours).await;
        let id = made(stage, &ours, &account).await;
        for path in ["", "/ledger", "/recipients"] {
            let hidden = stage.get(&theirs, &format!("/campaigns/{id}{path}")).await;
            assert_eq!(hidden.problem(), (404, "not_found", vec![]));
        }
        let hidden = stage.post(&theirs, &format!("/campaigns/{id}/start"), &json!({})).await;
        assert_eq!(hidden.problem(), (404, "not_found", vec![]));
        assert_eq!(stage.get(&theirs, "/campaigns").await.body["data"], json!([]));
        let refused = stage.post(&theirs, "/campaigns", &campaign(&account)).await;
        assert_eq!(refused.problem(), (404, "not_found", vec!["channel_account_id"]));

        let token = stage.token(ours.id, &[Permission::CampaignsRead], None).await;
        let reader = Tenant { token, ..ours };
        assert_eq!(stage.get(&reader, &format!("/campaigns/{id}")).await.status, 200);
        for path in [
            "/campaigns".to_owned(),
            format!("/campaigns/{id}/start"),
            format!("/campaigns/{id}/cancel"),
            format!("/campaigns/{id}/retry-failed"),
        ] {
            let refused = stage.post(&reader, &path, &campaign(&account)).await;
            assert_eq!(refused.problem(), (403, "permission_missing", vec![]), "{path}");
            assert_eq!(refused.body["detail"], "This needs the permission campaigns:write.");
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_waits_for_no_message_of_a_campaign() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        let path = format!("/conversations/{conversation}/messages");
        assert_eq!(stage.post(&tenant, &path, &text("Spring is here")).await.status, 202);
        sqlx::query("UPDATE sends SET lane = 1").execute(&mut stage.database.admin().await).await.unwrap();
        assert_eq!(stage.drain(&OUTBOUND_NOW).await.len(), 1);
        assert_eq!(stage.post(&tenant, &path, &text("How can I help?")).await.status, 202);
        assert_eq!(stage.drain(&OUTBOUND_NOW).await.len(), 1, "it is the head");
    })
    .await;
}
