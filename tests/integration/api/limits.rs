//! Limits by way of the API.

use super::{Stage, Tenant, answer, staged};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::permissions::Permission;

async fn put(stage: &Stage, tenant: &Tenant, path: &str, body: &Value) -> super::Answer {
    let path = format!("/api/{}{path}", tenant.slug);
    answer(stage.request(Method::PUT, &path).bearer_auth(&tenant.token).json(body)).await
}

async fn delete(stage: &Stage, tenant: &Tenant, path: &str) -> u16 {
    let path = format!("/api/{}{path}", tenant.slug);
    answer(stage.request(Method::DELETE, &path).bearer_auth(&tenant.token)).await.status.as_u16()
}

#[tokio::test]
async fn limits_are_listed_set_and_removed() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let listed = stage.get(&tenant, "/limits").await;
        assert_eq!(listed.status, 200, "{}", listed.body);
        let limits = listed.body["data"].as_array().unwrap();
        assert_eq!(limits.len(), 1, "{}", listed.body);
        assert_eq!((&limits[0]["scope"], &limits[0]["rate"]), (&json!("account"), &json!(80.0)));
        assert_eq!((&limits[0]["name"], &limits[0]["reserved"]), (&json!("Harbour Clinic"), &json!(2.0)));
        let path = format!("/limits/account/{}", account.id);
        let set = put(stage, &tenant, &path, &json!({"rate": 20.0, "inbound_cost": 1.0})).await;
        assert_eq!((set.status.as_u16(), &set.body["current_rate"]), (200, &json!(20.0)), "{}", set.body);
        let pair = format!("/limits/pair/{}", account.id);
        let set = put(stage, &tenant, &pair, &json!({"rate": 0.1667, "burst": 45})).await;
        assert_eq!((set.status.as_u16(), &set.body["burst"]), (200, &json!(45)), "{}", set.body);
        assert_eq!(stage.get(&tenant, "/limits").await.body["data"].as_array().unwrap().len(), 2);
        assert_eq!(delete(stage, &tenant, &pair).await, 204);
        assert_eq!(delete(stage, &tenant, &pair).await, 404);
        let audit = stage.get(&tenant, &format!("/audit?target={}", account.id)).await.body;
        let actions = audit["data"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap());
        assert_eq!(actions.collect::<Vec<_>>(), ["limit.removed", "limit.set", "limit.set"], "{audit}");
        assert_eq!(audit["data"][2]["details"]["before"]["rate"], 80.0);
    })
    .await;
}

#[tokio::test]
async fn limits_that_make_no_sense_and_those_of_others_are_refused() {
    staged(async |stage| {
        let (tenant, other) = (stage.tenant("demo").await, stage.tenant("other").await);
        let account = stage.account(&tenant).await;
        let path = format!("/limits/account/{}", account.id);
        for (body, field) in [
            (json!({"rate": 0}), "rate"),
            (json!({"rate": 80, "burst": 60}), "burst"),
            (json!({"rate": 80, "inbound_cost": -1}), "inbound_cost"),
            (json!({"rate": "fast"}), "rate"),
            (json!({}), "rate"),
        ] {
            let refused = put(stage, &tenant, &path, &body).await;
            assert_eq!((refused.status.as_u16(), &refused.body["errors"][0]["field"]), (422, &json!(field)), "{body}");
        }
        let fine = json!({"rate": 20.0});
        for (tenant, path) in [
            (&other, path.as_str()),
            (&tenant, "/limits/account/x"),
            (&tenant, &format!("/limits/planet/{}", account.id)),
            (&tenant, &format!("/limits/portfolio/{}", account.id)),
        ] {
            assert_eq!(put(stage, tenant, path, &fine).await.status, 404, "{path}");
        }
        assert_eq!(stage.get(&other, "/limits").await.body["data"], json!([]));
        assert_eq!(stage.get(&tenant, "/limits").await.body["data"][0]["rate"], 80.0);
        let token = stage.token(tenant.id, &[Permission::LimitsRead], None).await;
        let path = format!("/api/{}{path}", tenant.slug);
        let refused = answer(stage.request(Method::PUT, &path).bearer_auth(token).json(&fine)).await;
        assert_eq!(refused.status, 403, "{}", refused.body);
    })
    .await;
}
