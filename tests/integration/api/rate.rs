//! How often a token may ask: one clock for all processes, and no outage when Redis is away.

use super::{rate, required, serve, staged_with};
use api::{
    server::Services,
    webhooks::{self, platforms::Platforms, proxies::Proxies},
};
use reqwest::Method;
use secrecy::SecretString;
use shared::{clock::Clock, db::Databases};
use support::database::Role;

fn services(stage: &super::Stage, databases: Databases, redis_url: SecretString) -> Services {
    Services {
        databases,
        publisher: stage.publisher.clone(),
        redis_url: Some(redis_url),
        namespace: stage.namespace.clone(),
        rate: rate(3),
        keyring: stage.keyring.clone(),
        storage: stage.storage.clone(),
        platforms: Platforms::default(),
        bodies_bytes: webhooks::BODIES_BYTES,
        proxies: Proxies::default(),
        public_url: "http://127.0.0.1:8080".to_owned(),
        clock: Clock::system(),
    }
}

#[tokio::test]
async fn a_token_is_limited_over_all_processes_and_told_when_to_come_again() {
    staged_with(rate(3), async |stage| {
        let tenant = stage.tenant("demo").await;
        let databases = stage.database.databases(Role::Api);
        let second = serve(services(stage, databases, required("REDIS_URL").into()), &stage.life).await;
        let mut refused = None;
        for turn in 0..20 {
            let base = if turn % 2 == 0 { &stage.base } else { &second };
            let request = stage.client.get(base.join("/api/demo/contacts").unwrap()).bearer_auth(&tenant.token);
            let answer = super::answer(request).await;
            if answer.status == 429 {
                refused = Some(answer);
                break;
            }
        }
        let refused = refused.expect("three at once and three a second for both together");
        assert_eq!(refused.problem(), (429, "rate_limited", vec![]));
        assert_eq!(refused.headers["retry-after"], "1");
        // Another token has its own rate; webhooks have none.
        let other = stage.tenant("other").await;
        assert_eq!(stage.get(&other, "/contacts").await.status, 200);
        for _ in 0..10 {
            assert_eq!(stage.webhook("/webhooks/whatsapp", super::APP_SECRET, "{}").await.status, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn without_redis_requests_go_on_limited_by_each_process() {
    staged_with(rate(3), async |stage| {
        let tenant = stage.tenant("demo").await;
        let databases = stage.database.databases(Role::Api);
        // Port 9 (discard) on loopback: nobody listens.
        let base = serve(services(stage, databases, "redis://127.0.0.1:9".into()), &stage.life).await;
        let mut statuses = Vec::new();
        for _ in 0..8 {
            let request = stage.client.request(Method::GET, base.join("/api/demo/contacts").unwrap());
            statuses.push(super::answer(request.bearer_auth(&tenant.token)).await.status.as_u16());
        }
        assert_eq!(statuses[..3], [200, 200, 200]);
        assert!(statuses.contains(&429), "{statuses:?}");
    })
    .await;
}
