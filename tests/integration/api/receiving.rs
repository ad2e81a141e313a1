//! Webhooks: verified, durable before they are answered, and what becomes of those that are wrong.

use super::{APP_SECRET, Answer, Stage, VERIFY_TOKEN, answer, signature, staged};
use reqwest::Method;
use shared::{
    jobs::inbound::{self, RawWebhook},
    queue::INBOUND,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const BODY: &str = r#"{"object":"whatsapp_business_account","entry":[{"id":"1","note":"\u00e5\/"}]}"#;

async fn received(stage: &Stage) -> Vec<RawWebhook> {
    stage.drain(&INBOUND).await.iter().flat_map(|job| inbound::from_job(job).unwrap()).collect()
}

async fn shake(stage: &Stage, path: &str, query: &str) -> Answer {
    answer(stage.request(Method::GET, &format!("{path}?{query}"))).await
}

#[tokio::test]
async fn a_signed_webhook_is_queued_byte_by_byte() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let own = format!("/webhooks/whatsapp/{}", account.key);
        assert_eq!(stage.webhook("/webhooks/whatsapp", APP_SECRET, BODY).await.status, 200);
        assert_eq!(stage.webhook("/webhooks/whatsapp", "the_secret_before", BODY).await.status, 200);
        assert_eq!(stage.webhook(&own, &account.secret, BODY).await.status, 200);
        // Truncated JSON, rightly signed, is the provider's word: kept, and judged by who reads it.
        assert_eq!(stage.webhook(&own, &account.secret, &BODY[..20]).await.status, 200);
        let received = received(stage).await;
        let bodies: Vec<&[u8]> = received.iter().map(|webhook| &webhook.body[..]).collect();
        assert_eq!(bodies, [BODY.as_bytes(), BODY.as_bytes(), BODY.as_bytes(), &BODY.as_bytes()[..20]]);
        let accounts: Vec<_> = received.iter().map(|w| w.meta.account.map(|a| a.channel_account_id)).collect();
        assert_eq!(accounts, [None, None, Some(account.id), Some(account.id)]);
        assert!(received.iter().all(|webhook| !webhook.meta.stored && !webhook.meta.replay));
    })
    .await;
}

#[tokio::test]
async fn a_wrong_signature_is_refused_and_kept_within_bounds() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let own = format!("/webhooks/whatsapp/{}", account.key);
        let long = vec![b'x'; 100_000];
        for (path, secret) in [("/webhooks/whatsapp", account.secret.as_str()), (own.as_str(), APP_SECRET)] {
            let refused = stage.webhook(path, secret, long.clone()).await;
            assert_eq!(refused.problem(), (401, "bad_signature", vec![]), "{path}");
        }
        for header in ["", "sha1=0011", "sha256=00", "sha256=zz"] {
            let request = stage.request(Method::POST, "/webhooks/whatsapp").header("X-Hub-Signature-256", header);
            assert_eq!(answer(request.body(BODY)).await.problem(), (401, "bad_signature", vec![]), "{header}");
        }
        let unsigned = answer(stage.request(Method::POST, "/webhooks/whatsapp").body(BODY)).await;
        assert_eq!(unsigned.problem(), (401, "bad_signature", vec![]));
        super::until("they are kept", async || stage.count("SELECT count(*) FROM control.quarantine").await == 7).await;
        let cut = "SELECT count(*) FROM control.quarantine WHERE octet_length(body) = 65536 AND body_bytes = 100000";
        assert_eq!(stage.count(cut).await, 2);
        assert!(received(stage).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn of_one_source_only_the_newest_suspects_are_kept() {
    staged(async |stage| {
        let put = async |source: &str| {
            let request = stage.request(Method::POST, "/webhooks/whatsapp").header("X-Forwarded-For", source);
            assert_eq!(answer(request.body(BODY)).await.status, 401);
        };
        put("198.51.100.7").await;
        for _ in 0..25 {
            put("203.0.113.9").await;
        }
        let of = |source: &'static str| async move {
            sqlx::query_scalar::<_, i64>("SELECT count(*) FROM control.quarantine WHERE source = $1")
                .bind(source)
                .fetch_one(&mut stage.database.admin().await)
                .await
                .unwrap()
        };
        super::until("twenty are kept", async || of("203.0.113.9").await == 20).await;
        assert_eq!(of("198.51.100.7").await, 1);
        // A signature may be right once a secret is.
        for _ in 0..25 {
            let request = stage.request(Method::POST, "/webhooks/whatsapp").header("X-Forwarded-For", "203.0.113.10");
            let signed = request.header("X-Hub-Signature-256", format!("sha256={}", "0".repeat(64)));
            assert_eq!(answer(signed.body(BODY)).await.status, 401);
        }
        super::until("all are kept", async || of("203.0.113.10").await == 25).await;
    })
    .await;
}

#[tokio::test]
async fn a_handshake_is_answered_to_our_word_only() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let own = format!("/webhooks/whatsapp/{}", account.key);
        let query = |token: &str| format!("hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={token}");
        let shaken = shake(stage, "/webhooks/whatsapp", &query(VERIFY_TOKEN)).await;
        assert_eq!((shaken.status.as_u16(), shaken.body.to_string()), (200, "1158201444".to_owned()));
        assert_eq!(shake(stage, &own, &query("its+own+token")).await.status, 200);
        for (path, query) in [
            ("/webhooks/whatsapp", query("wrong")),
            ("/webhooks/whatsapp", query("")),
            ("/webhooks/whatsapp", String::new()),
            (own.as_str(), query(VERIFY_TOKEN)),
        ] {
            assert_eq!(
                shake(stage, path, &query).await.problem(),
                (403, "handshake_refused", vec![]),
                "{path} {query}"
            );
        }
        let unknown = shake(stage, "/webhooks/whatsapp/0123456789abcdef", &query(VERIFY_TOKEN)).await;
        assert_eq!(unknown.problem(), (404, "not_found", vec![]));
    })
    .await;
}

#[tokio::test]
async fn a_body_too_large_for_the_broker_is_stored_and_referred_to() {
    staged(async |stage| {
        let body = format!(r#"{{"entry":[],"pad":"{}"}}"#, "x".repeat(2_900_000));
        assert_eq!(stage.webhook("/webhooks/whatsapp", APP_SECRET, body.clone()).await.status, 200);
        let received = received(stage).await;
        assert_eq!((received.len(), received[0].meta.stored, received[0].body.len()), (1, true, 0));
        let stored: Vec<u8> = sqlx::query_scalar("SELECT body FROM control.large_bodies WHERE webhook_id = $1")
            .bind(received[0].meta.id)
            .fetch_one(&mut stage.database.admin().await)
            .await
            .unwrap();
        assert!(stored == body.as_bytes());
    })
    .await;
}

#[tokio::test]
async fn a_known_endpoint_is_served_while_the_database_is_away() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let (known, unmet) = (stage.account(&tenant).await, stage.account(&tenant).await);
        let (known_path, unmet_path) =
            (format!("/webhooks/whatsapp/{}", known.key), format!("/webhooks/whatsapp/{}", unmet.key));
        let unknown = stage.webhook("/webhooks/whatsapp/0123456789abcdef", APP_SECRET, BODY).await;
        assert_eq!(unknown.problem(), (404, "not_found", vec![]));
        assert_eq!(stage.webhook(&known_path, &known.secret, BODY).await.status, 200);

        stage.database_relay.close();
        assert_eq!(stage.webhook(&known_path, &known.secret, BODY).await.status, 200);
        assert_eq!(stage.webhook("/webhooks/whatsapp", APP_SECRET, BODY).await.status, 200);
        let refused = stage.webhook(&unmet_path, &unmet.secret, BODY).await;
        assert_eq!(refused.problem(), (503, "unavailable", vec![]));
        assert_eq!(refused.headers["retry-after"], "5");
        // What can never be a key is nobody's, database or not.
        let nonsense = stage.webhook("/webhooks/whatsapp/short", APP_SECRET, BODY).await;
        assert_eq!(nonsense.problem(), (404, "not_found", vec![]));
        stage.database_relay.restore();
        assert_eq!(received(stage).await.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn strangers_keys_take_a_few_connections_and_no_more() {
    staged(async |stage| {
        let mut admin = stage.database.admin().await;
        let mut looking = stage.database.admin().await;
        // Whoever looks a key up waits.
        sqlx::raw_sql("BEGIN; LOCK TABLE control.webhook_endpoints IN ACCESS EXCLUSIVE MODE")
            .execute(&mut admin)
            .await
            .unwrap();
        let paths: Vec<String> = (0..12).map(|nth| format!("/webhooks/whatsapp/0123456789abcdef{nth:02}")).collect();
        let refused = AtomicUsize::new(0);
        let asking = futures_util::future::join_all(paths.iter().map(async |path| {
            let answer = stage.webhook(path, APP_SECRET, BODY).await;
            refused.fetch_add(1, Ordering::Relaxed);
            answer.status
        }));
        let watching = async {
            let waiting = "SELECT count(*) FROM pg_locks
                WHERE NOT granted AND relation = 'control.webhook_endpoints'::regclass";
            let mut most = 0;
            while refused.load(Ordering::Relaxed) < 9 {
                most = most.max(sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut looking).await.unwrap());
                tokio::task::yield_now().await;
            }
            sqlx::raw_sql("COMMIT").execute(&mut admin).await.unwrap();
            most
        };
        let (answers, most) = tokio::join!(asking, watching);
        assert_eq!(most, 3, "the others are refused");
        assert_eq!(answers.iter().filter(|status| **status == 404).count(), 3, "{answers:?}");
        assert_eq!(answers.iter().filter(|status| **status == 503).count(), 9, "{answers:?}");
    })
    .await;
}

#[tokio::test]
async fn a_changed_secret_is_known_with_the_first_webhook_signed_by_it() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let path = format!("/webhooks/whatsapp/{}", account.key);
        assert_eq!(stage.webhook(&path, &account.secret, BODY).await.status, 200);
        stage.set_secret(&tenant, &account, "another secret").await;
        assert_eq!(stage.webhook(&path, "another secret", BODY).await.status, 200);
        assert_eq!(stage.webhook(&path, &account.secret, BODY).await.status, 401);
    })
    .await;
}

#[tokio::test]
async fn without_the_broker_webhooks_are_spilled_and_without_both_refused() {
    staged(async |stage| {
        let body = |number: usize| format!(r#"{{"number":{number}}}"#);
        stage.without_broker().await;
        let sends = (0..100).map(|number| stage.webhook("/webhooks/whatsapp", APP_SECRET, body(number)));
        let answers = futures_util::future::join_all(sends).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!(stage.count("SELECT count(DISTINCT body) FROM control.spill").await, 100);

        stage.database_relay.close();
        let refused = stage.webhook("/webhooks/whatsapp", APP_SECRET, BODY).await;
        assert_eq!(refused.problem(), (503, "unavailable", vec![]));
        assert_eq!(refused.headers["retry-after"], "5");

        stage.database_relay.restore();
        stage.broker_relay.restore();
        super::until("it is accepted again", async || {
            stage.webhook("/webhooks/whatsapp", APP_SECRET, BODY).await.status == 200
        })
        .await;
        let kept =
            stage.count(r#"SELECT count(*) FROM control.spill WHERE convert_from(body, 'UTF8') LIKE '{"number":%'"#);
        assert_eq!(kept.await, 100);
    })
    .await;
}

#[tokio::test]
async fn a_body_in_pieces_without_a_length_is_taken_as_well() {
    staged(async |stage| {
        let address = format!("{}:{}", stage.base.host_str().unwrap(), stage.base.port().unwrap());
        let mut socket = TcpStream::connect(address).await.unwrap();
        let signature = signature(APP_SECRET, BODY.as_bytes());
        let head = format!(
            "POST /webhooks/whatsapp HTTP/1.1\r\nhost: x\r\nx-hub-signature-256: {signature}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        for piece in [&BODY[..10], &BODY[10..], ""] {
            socket.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await.unwrap();
        }
        let mut answer = [0; 15];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        assert_eq!(received(stage).await[0].body, BODY);
    })
    .await;
}
