//! Channel accounts: how they are, and bringing one back.

use super::{Tenant, staged};
use serde_json::{Value, json};
use shared::domain::permissions::Permission;

#[tokio::test]
async fn an_account_that_is_down_says_why_and_is_brought_back_by_who_may() {
    staged(async |stage| {
        let (tenant, other) = (stage.tenant("demo").await, stage.tenant("other").await);
        let account = stage.account(&tenant).await;
        sqlx::query(
            "UPDATE channel_accounts
            SET state = 'down', down_code = '190', down_reason = 'The token is over.', down_at = now(), probe_at = now()
            WHERE id = $1",
        )
        .bind(account.id)
        .execute(&mut stage.database.admin().await)
        .await
        .unwrap();
        let listed = stage.get(&tenant, "/channel-accounts").await;
        assert_eq!(listed.status, 200, "{}", listed.body);
        let shown = &listed.body["data"][0];
        let said = ["state", "down_code", "down_reason", "receipts"].map(|field| shown[field].clone());
        assert_eq!(said, [json!("down"), json!("190"), json!("The token is over."), json!(true)]);
        assert!(shown["probe_at"].is_string() && shown.get("sealed_secrets").is_none(), "{shown}");
        assert_eq!(stage.get(&other, "/channel-accounts").await.body["data"], json!([]));

        let resume = format!("/channel-accounts/{}/resume", account.id);
        assert_eq!(stage.post(&other, &resume, &Value::Null).await.status, 404);
        let may_look = stage.token(tenant.id, &[Permission::AccountsRead], None).await;
        let looking = Tenant { id: tenant.id, slug: tenant.slug.clone(), token: may_look };
        let denied = stage.post(&looking, &resume, &Value::Null).await;
        assert_eq!(denied.status, 403, "{}", denied.body);
        for _ in 0..2 {
            assert_eq!(stage.post(&tenant, &resume, &Value::Null).await.status, 204);
        }
        let shown = stage.get(&tenant, "/channel-accounts").await.body["data"][0].clone();
        assert_eq!((&shown["state"], shown.get("down_code")), (&json!("active"), None));
        assert_eq!(
            stage.count("SELECT count(*) FROM channel_accounts WHERE wake_after IS NOT NULL").await,
            1,
            "what waits is woken"
        );
        assert_eq!(stage.count("SELECT count(*) FROM audit WHERE action = 'channel_account.resumed'").await, 1, "once");
        sqlx::query("UPDATE channel_accounts SET state = 'disabled'")
            .execute(&mut stage.database.admin().await)
            .await
            .unwrap();
        assert_eq!(stage.post(&tenant, &resume, &Value::Null).await.problem().1, "wrong_state");
    })
    .await;
}
