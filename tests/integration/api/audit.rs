//! Who changed what: what is recorded, once, with whose hands, and who may see it.

use super::{Account, Stage, Tenant, answer, staged};
use serde_json::{Value, json};
use shared::domain::permissions::Permission;

async fn campaign(stage: &Stage, tenant: &Tenant, account: &Account) -> String {
    let new = json!({
        "name": "Spring", "channel_account_id": account.id, "content": {"type": "text", "text": "Hello"}, "audience": {"all": true},
    });
    let made = stage.post(tenant, "/campaigns", &new).await;
    made.body["id"].as_str().expect("it is made").to_owned()
}

async fn actions(stage: &Stage, tenant: &Tenant, query: &str) -> Vec<String> {
    let page = stage.get(tenant, &format!("/audit{query}")).await.body;
    page["data"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_changes_a_campaign_is_recorded_once_and_what_changes_nothing_is_not() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let id = campaign(stage, &tenant, &account).await;
        let act = |action: &str| {
            let path = format!("/campaigns/{id}/{action}");
            answer(stage.posting(&tenant, &path, &json!({})))
        };
        for action in
            ["resume", "start", "start", "pause", "pause", "resume", "retry-failed", "cancel", "cancel", "start"]
        {
            act(action).await;
        }
        let expected =
            ["campaign.cancelled", "campaign.resumed", "campaign.paused", "campaign.started", "campaign.created"];
        assert_eq!(actions(stage, &tenant, &format!("?target={id}")).await, expected, "the newest first");
        let page = stage.get(&tenant, "/audit?limit=1").await.body;
        let entry = &page["data"][0];
        let token = tenant.token.split('_').nth(1).unwrap().parse::<uuid::Uuid>().unwrap();
        assert_eq!((&entry["actor"], &entry["token_id"]), (&json!("token"), &json!(token)));
        assert_eq!((&entry["target_kind"], &entry["target_id"]), (&json!("campaign"), &json!(id)));
        assert_eq!(entry["details"], json!({"before": "running", "after": "cancelled"}));

        let other = campaign(stage, &tenant, &account).await;
        sqlx::raw_sql(
            "UPDATE campaigns SET state = 'completed' WHERE state = 'draft'; UPDATE campaign_counts SET failed = 2",
        )
        .execute(&mut stage.database.admin().await)
        .await
        .unwrap();
        let path = format!("/campaigns/{other}/retry-failed");
        for _ in 0..2 {
            assert_eq!(stage.post(&tenant, &path, &json!({})).await.status, 200);
        }
        let page = stage.get(&tenant, &format!("/audit?target={other}")).await.body;
        assert_eq!(page["data"].as_array().unwrap().len(), 2, "{page}");
        let details = json!({"before": "completed", "after": "running", "failed": 2, "people": 2, "codes": null});
        assert_eq!(
            (&page["data"][0]["action"], &page["data"][0]["details"]),
            (&json!("campaign.retry_failed"), &details)
        );
    })
    .await;
}

#[tokio::test]
async fn the_audit_is_read_page_by_page_by_its_tenant_with_its_permission() {
    staged(async |stage| {
        let (ours, theirs) = (stage.tenant("ours").await, stage.tenant("theirs").await);
        let account = stage.account(&ours).await;
        let ids = [campaign(stage, &ours, &account).await, campaign(stage, &ours, &account).await];
        let mut seen = Vec::new();
        let mut path = "/audit?limit=1".to_owned();
        loop {
            let page = stage.get(&ours, &path).await.body;
            seen.extend(page["data"].as_array().unwrap().iter().map(|entry| entry["target_id"].clone()));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/audit?limit=1&cursor={next}");
        }
        assert_eq!(seen, [json!(ids[1]), json!(ids[0])]);
        let page = stage.get(&ours, &format!("/audit?target={}", ids[0])).await.body;
        assert_eq!((page["data"].as_array().unwrap().len(), &page["next"]), (1, &Value::Null));
        assert!(actions(stage, &theirs, &format!("?target={}", ids[0])).await.is_empty());
        assert_eq!(stage.get(&ours, "/audit?target=x").await.problem(), (400, "bad_parameter", vec!["target"]));
        let token = stage.token(ours.id, &[Permission::CampaignsRead], None).await;
        let refused = stage.get(&Tenant { token, ..ours }, "/audit").await;
        assert_eq!(refused.problem(), (403, "permission_missing", vec![]));
        assert_eq!(refused.body["detail"], "This needs the permission audit:read.");
    })
    .await;
}

#[tokio::test]
async fn an_import_is_recorded_when_it_begins_to_make_contacts_and_when_it_ends() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let import = async || {
            let path = format!("/api/{}/contacts/import", tenant.slug);
            let request = stage.request(reqwest::Method::POST, &path).bearer_auth(&tenant.token);
            let body = "phone,name\n+1 555 777 0142,Ada\nx,Bea\n";
            assert_eq!(answer(request.header("Content-Type", "text/csv").body(body)).await.status, 200);
        };
        import().await;
        import().await;
        assert_eq!(actions(stage, &tenant, "").await, ["contacts.imported", "contacts.import_started"], "none are new");
        let entry = stage.get(&tenant, &format!("/audit?target={}", tenant.id)).await.body["data"][0].clone();
        let details = json!({"created": 1, "existing": 0, "duplicates": 0, "rejected": 1, "complete": true});
        assert_eq!(entry["details"], details);
    })
    .await;
}

#[tokio::test]
async fn a_token_is_let_do_more_and_keeps_what_it_could() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let token = stage.token(tenant.id, &[Permission::ContactsRead], None).await;
        let id = token.split('_').nth(1).unwrap().parse().unwrap();
        let operator = stage.operator();
        let grant = async |may: &[Permission]| {
            let mut tx = operator.fleet(&shared::db::Placement::primary(), &[tenant.id]).await.unwrap();
            let granted = shared::db::tokens::grant(&mut tx, tenant.id, id, may).await.unwrap();
            tx.commit().await.unwrap();
            granted.expect("it is there")
        };
        let (may, changed) = grant(&[Permission::AuditRead, Permission::ContactsRead]).await;
        assert_eq!((may.as_slice(), changed), (&[Permission::ContactsRead, Permission::AuditRead][..], true));
        assert!(!grant(&[Permission::AuditRead]).await.1, "nothing new");
        assert_eq!(stage.get(&Tenant { token, ..tenant }, "/audit").await.status, 200);
    })
    .await;
}
