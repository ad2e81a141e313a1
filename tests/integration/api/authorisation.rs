//! Who may do what: tokens, permissions, two tenants.

use super::{Tenant, answer, staged, text};
use chrono::{TimeDelta, Utc};
use reqwest::Method;
use serde_json::json;
use shared::{
    db::{self, Placement},
    domain::{ids::ApiTokenId, permissions::Permission},
};

#[tokio::test]
async fn nobody_learns_from_a_401_which_tenants_and_tokens_exist() {
    staged(async |stage| {
        let (ours, theirs) = (stage.tenant("ours").await, stage.tenant("theirs").await);
        let expired = stage.token(ours.id, Permission::ALL, Some(Utc::now() - TimeDelta::seconds(1))).await;
        let forged =
            format!("{}{}", &ours.token[..ours.token.len() - 1], if ours.token.ends_with('0') { "1" } else { "0" });
        let mut bodies = Vec::new();
        for (slug, token) in [
            ("theirs", ours.token.as_str()),
            ("ours", theirs.token.as_str()),
            ("nobody", ours.token.as_str()),
            ("ours", forged.as_str()),
            ("ours", expired.as_str()),
            ("%ff", ours.token.as_str()),
            ("a%00b", ours.token.as_str()),
            ("OURS", ours.token.as_str()),
            ("ours", "mj_nonsense"),
            ("ours", ""),
        ] {
            let refused = answer(stage.request(Method::GET, &format!("/api/{slug}/contacts")).bearer_auth(token)).await;
            assert_eq!(refused.problem(), (401, "unauthorized", vec![]), "{slug} {token}");
            assert_eq!(refused.headers["www-authenticate"], "Bearer");
            bodies.push(refused.body);
        }
        let without = answer(stage.request(Method::GET, "/api/ours/contacts")).await;
        assert!(bodies.iter().all(|body| *body == without.body));
        assert_eq!(stage.get(&ours, "/contacts").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_name_that_nobody_can_have_is_not_asked_for() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        stage.database_relay.close();
        for slug in ["%ff", "a%00b", "-demo", "Demo", "de%6do%2f"] {
            let request = stage.request(Method::GET, &format!("/api/{slug}/contacts"));
            assert_eq!(
                answer(request.bearer_auth(&tenant.token)).await.problem(),
                (401, "unauthorized", vec![]),
                "{slug}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_does_only_what_it_may_and_is_told_what_it_lacks() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let token = stage.token(tenant.id, &[Permission::ContactsRead], None).await;
        let reader = Tenant { token, ..tenant };
        assert_eq!(stage.get(&reader, "/contacts").await.status, 200);
        for (path, permission) in [
            ("/conversations", "conversations:read"),
            ("/conversations/01936f5e-3c00-7000-8000-000000000001/messages", "messages:read"),
            ("/messages/01936f5e-3c00-7000-8000-000000000001", "messages:read"),
        ] {
            let refused = stage.get(&reader, path).await;
            assert_eq!(refused.problem(), (403, "permission_missing", vec![]), "{path}");
            assert_eq!(refused.body["detail"], format!("This needs the permission {permission}."));
        }
        for (path, permission) in [
            ("/contacts", "contacts:write"),
            ("/messages", "messages:send"),
            ("/conversations/01936f5e-3c00-7000-8000-000000000001/messages", "messages:send"),
        ] {
            let refused = stage.post(&reader, path, &json!({})).await;
            assert_eq!(refused.body["detail"], format!("This needs the permission {permission}."), "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_revoked_token_is_refused_within_ten_seconds() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let id: ApiTokenId = tenant.token.split('_').nth(1).unwrap().parse().unwrap();
        let operator = stage.operator();
        let mut tx = operator.fleet(&Placement::primary(), &[tenant.id]).await.unwrap();
        assert_eq!(db::tokens::revoke(&mut tx, tenant.id, id).await.unwrap(), Some(true));
        tx.commit().await.unwrap();
        super::until("the token is refused", async || stage.get(&tenant, "/contacts").await.status == 401).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_another_tenants_does_not_exist() {
    staged(async |stage| {
        let (ours, theirs) = (stage.tenant("ours").await, stage.tenant("theirs").await);
        let (account, foreign) = (stage.account(&ours).await, stage.account(&theirs).await);
        let foreign_contact = stage.contact(&theirs, "+49 151 23456789").await;
        let foreign_conversation = stage.conversation(&theirs, &foreign, TimeDelta::hours(1)).await;
        let sent = stage.post(&theirs, &format!("/conversations/{foreign_conversation}/messages"), &text("Hi")).await;
        let foreign_message = sent.body["id"].as_str().unwrap();
        for path in [
            format!("/contacts/{foreign_contact}"),
            format!("/conversations/{foreign_conversation}"),
            format!("/conversations/{foreign_conversation}/messages"),
            format!("/messages/{foreign_message}"),
        ] {
            assert_eq!(stage.get(&theirs, &path).await.status, 200, "{path}");
            assert_eq!(stage.get(&ours, &path).await.problem(), (404, "not_found", vec![]), "{path}");
        }
        let into = format!("/conversations/{foreign_conversation}/messages");
        assert_eq!(stage.post(&ours, &into, &text("Hi")).await.problem(), (404, "not_found", vec![]));
        let contact = stage.contact(&ours, "+49 151 23456789").await;
        for (contact, account) in [(foreign_contact, account.id), (contact, foreign.id)] {
            let body = json!({"contact_id": contact, "channel_account_id": account, "type": "text", "text": "Hi"});
            let refused = stage.post(&ours, "/messages", &body).await;
            assert_eq!(refused.problem(), (404, "not_found", vec!["contact_id", "channel_account_id"]));
        }
        assert_eq!(stage.get(&ours, "/conversations").await.body["data"], json!([]));
    })
    .await;
}
