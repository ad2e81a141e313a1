//! What was refused is kept with all that it takes to verify it again; once the mistake is mended, what is genuine is taken.

use super::{
    APP_SECRET, PUBLIC_URL, Stage,
    doors::{account_at, body_of, received, send},
    mijra, staged, until,
};
use serde_json::{Value, json};
use shared::{domain::channel::Provider, jobs::inbound::Meta};
use uuid::Uuid;

/// What is kept, in the order in which it came.
async fn kept(stage: &Stage, count: i64) -> Vec<Uuid> {
    until("they are kept", async || stage.count("SELECT count(*) FROM control.quarantine").await == count).await;
    sqlx::query_scalar("SELECT id FROM control.quarantine ORDER BY received_at, id")
        .fetch_all(&mut stage.database.admin().await)
        .await
        .unwrap()
}

/// What becomes of them, one after another.
async fn replay(stage: &Stage, ids: &[Uuid], more: &[&str], environment: &[(&str, &str)]) -> (bool, Vec<String>) {
    let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    let arguments: Vec<&str> = ids.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let (done, said) = mijra(stage, &[&["webhooks", "quarantine", "replay"], &*arguments].concat(), environment).await;
    let outcomes = said["webhooks"].as_array().unwrap_or_else(|| panic!("{said}"));
    (done, outcomes.iter().map(|webhook| webhook["outcome"].as_str().unwrap().to_owned()).collect())
}

async fn spilled(stage: &Stage) -> Vec<(Meta, Vec<u8>)> {
    let rows: Vec<(Value, Vec<u8>)> = sqlx::query_as("SELECT meta, body FROM control.spill ORDER BY id")
        .fetch_all(&mut stage.database.admin().await)
        .await
        .unwrap();
    rows.into_iter().map(|(meta, body)| (serde_json::from_value(meta).unwrap(), body)).collect()
}

#[tokio::test]
async fn of_each_scheme_the_stale_is_taken_once_its_secret_is_known_and_the_forged_never() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        for (turn, provider) in Provider::WITH_WEBHOOKS.iter().copied().enumerate() {
            let account = account_at(stage, &tenant, provider).await;
            let target = format!("/webhooks/{provider}/{}", account.key);
            // The provider signs with a secret that nobody has told us; and somebody with one of his own.
            for secret in ["changed at the provider", "forged"] {
                assert!(send(stage, provider, &target, secret).await.status.is_client_error());
            }
            let ids = kept(stage, 2).await;
            assert_eq!(replay(stage, &ids, &[], &[]).await, (false, vec!["still_wrong".into(), "still_wrong".into()]));
            stage.set_secrets(provider, &tenant, &account, &["changed at the provider"]).await;
            let dry = replay(stage, &ids, &["--dry-run"], &[]).await;
            assert_eq!(dry, (false, vec!["replayed".into(), "still_wrong".into()]));
            assert_eq!(spilled(stage).await.len(), turn, "nothing is done in a dry run");
            let all = ["--provider", provider.as_str(), "--since", "1h", "--dry-run"];
            assert_eq!(replay(stage, &[], &all, &[]).await, dry, "all of a provider's that wait");
            assert_eq!(replay(stage, &ids, &[], &[]).await.1, ["replayed", "still_wrong"]);
            assert_eq!(replay(stage, &[], &["--all", "--dry-run"], &[]).await.1, ["still_wrong"]);
            assert_eq!(replay(stage, &ids, &[], &[]).await.1, ["replayed_before", "still_wrong"]);
            let spilled = spilled(stage).await;
            assert_eq!(spilled.len(), turn + 1, "twice is once");
            let (meta, body) = spilled.last().unwrap();
            assert_eq!((meta.id.0, meta.provider, meta.replay), (ids[0], provider, false));
            assert_eq!(meta.account.map(|account| account.channel_account_id), Some(account.id));
            assert_eq!(body, body_of(provider).as_bytes());
            let came: chrono::DateTime<chrono::Utc> =
                sqlx::query_scalar("SELECT received_at FROM control.quarantine WHERE id = $1")
                    .bind(ids[0])
                    .fetch_one(&mut stage.database.admin().await)
                    .await
                    .unwrap();
            assert_eq!(meta.received_at.timestamp_micros(), came.timestamp_micros(), "its age is that of its coming");
            sqlx::query("DELETE FROM control.quarantine").execute(&mut stage.database.admin().await).await.unwrap();
        }
        assert!(received(stage).await.is_empty(), "the sweep publishes them");
    })
    .await;
}

#[tokio::test]
async fn what_was_proxied_wrongly_is_taken_once_the_public_url_is_right() {
    staged(async |stage| {
        let target = "/webhooks/twilio?mid=m1%3A7";
        // Twilio has another address of ours than we think.
        let signed = format!("https://mijra.example/in{target}");
        let request = super::doors::by_twilio(&stage.base, &stage.client, target, APP_SECRET, &signed);
        assert_eq!(super::answer(request).await.status, 403);
        let ids = kept(stage, 1).await;
        let with = |url: &'static str| [("TWILIO_AUTH_TOKEN", APP_SECRET), ("PUBLIC_URL", url)];
        assert_eq!(replay(stage, &ids, &[], &with(PUBLIC_URL)).await.1, ["still_wrong"]);
        let (_, shown) = mijra(stage, &["webhooks", "quarantine", "show", &ids[0].to_string()], &[]).await;
        assert_eq!((&shown["target"], &shown["method"]), (&json!(target), &json!("POST")));
        assert_eq!(shown["content_type"], "application/x-www-form-urlencoded; charset=utf-8");
        assert_eq!(replay(stage, &ids, &[], &with("https://mijra.example/in")).await, (true, vec!["replayed".into()]));
        let (meta, _) = spilled(stage).await.pop().unwrap();
        assert_eq!((meta.query.as_deref(), meta.account), (Some("mid=m1%3A7"), None));
        let (_, listed) = mijra(stage, &["webhooks", "quarantine", "list"], &[]).await;
        assert!(listed[0]["replayed_at"].is_string(), "{listed}");
    })
    .await;
}

#[tokio::test]
async fn what_a_proxy_said_of_its_host_is_kept_for_whoever_verifies_it_again() {
    staged(async |stage| {
        let target = "/webhooks/twilio?mid=m1%3A7";
        let signed = format!("https://hooks.example.com{target}");
        let request = super::doors::by_twilio(&stage.base, &stage.client, target, "changed at the provider", &signed);
        let request = request.header("X-Forwarded-Host", "hooks.example.com").header("X-Forwarded-Proto", "https");
        assert_eq!(super::answer(request).await.status, 403);
        let ids = kept(stage, 1).await;
        let with = |token: &'static str| [("TWILIO_AUTH_TOKEN", token), ("PUBLIC_URL", PUBLIC_URL)];
        assert_eq!(replay(stage, &ids, &[], &with("forged")).await.1, ["still_wrong"]);
        assert_eq!(replay(stage, &ids, &[], &with("changed at the provider")).await.1, ["replayed"]);
        let (meta, _) = spilled(stage).await.pop().unwrap();
        assert_eq!(meta.query.as_deref(), Some("mid=m1%3A7"));
    })
    .await;
}

#[tokio::test]
async fn of_what_is_cut_or_gone_nobody_can_say_whether_it_is_genuine() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = account_at(stage, &tenant, Provider::Messenger).await;
        let target = format!("/webhooks/messenger/{}", account.key);
        assert_eq!(stage.webhook(&target, "another", vec![b' '; 70_000]).await.status, 401);
        assert_eq!(send(stage, Provider::Messenger, &target, "another").await.status, 401);
        let ids = kept(stage, 2).await;
        sqlx::query("DELETE FROM control.webhook_endpoints").execute(&mut stage.database.admin().await).await.unwrap();
        let nobody = Uuid::now_v7();
        let outcomes = replay(stage, &[ids[0], ids[1], nobody], &[], &[]).await;
        assert_eq!(outcomes, (false, vec!["cut".into(), "nobodys_address".into(), "not_there".into()]));
        assert!(spilled(stage).await.is_empty());
    })
    .await;
}
