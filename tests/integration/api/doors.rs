//! The doors of every provider: what is genuine comes in, whatever signs it; what is forged, stale or wrongly proxied does not, and is
//! kept.

use super::{
    APP_SECRET, Account, Answer, PUBLIC_URL, Stage, Tenant, VERIFY_TOKEN, answer, mijra, mijra_output, platform, rate,
    required, serve, staged, until,
};
use api::{
    server::Services,
    webhooks::{self, platforms::Platforms, proxies::Proxies},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use sha1::Sha1;
use shared::{
    clock::Clock,
    db::channel_accounts::seal_context,
    domain::channel::Provider,
    jobs::inbound::{self, RawWebhook},
    queue::INBOUND,
};
use support::database::Role;
use url::Url;

const META: [Provider; 3] = [Provider::Whatsapp, Provider::Messenger, Provider::Instagram];
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// In the order of their names, as they are signed.
const SMS: [(&str, &str); 4] =
    [("Body", "Is size 42 back?"), ("From", "+15035550142"), ("MessageSid", "SM01"), ("To", "+15035550199")];

pub(super) async fn received(stage: &Stage) -> Vec<RawWebhook> {
    stage.drain(&INBOUND).await.iter().flat_map(|job| inbound::from_job(job).unwrap()).collect()
}

/// Twilio's signature of a form with the parameters of [`SMS`].
fn sms_signature(token: &str, url: &str) -> String {
    let data = SMS.iter().fold(url.to_owned(), |data, (name, value)| data + name + value);
    url_signature(token, &data)
}

fn url_signature(token: &str, data: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).unwrap();
    mac.update(data.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

fn sms() -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(SMS).finish()
}

/// The SMS, signed with this token for this URL, about to be sent to the door.
pub(super) fn by_twilio(
    base: &Url,
    client: &reqwest::Client,
    target: &str,
    token: &str,
    signed: &str,
) -> RequestBuilder {
    let request = client.post(base.join(target).unwrap()).header("Content-Type", FORM);
    request.header("X-Twilio-Signature", sms_signature(token, signed)).body(sms())
}

/// A webhook of this provider, signed with this secret.
pub(super) async fn send(stage: &Stage, provider: Provider, target: &str, secret: &str) -> Answer {
    match provider {
        Provider::Whatsapp | Provider::Messenger | Provider::Instagram => {
            stage.webhook(target, secret, body_of(provider)).await
        }
        Provider::Gateway => unreachable!("it calls nobody"),
        Provider::Twilio => {
            let signed = format!("{PUBLIC_URL}{target}");
            answer(by_twilio(&stage.base, &stage.client, target, secret, &signed)).await
        }
    }
}

pub(super) fn body_of(provider: Provider) -> String {
    match provider {
        Provider::Whatsapp => r#"{"object":"whatsapp_business_account","entry":[]}"#.to_owned(),
        Provider::Messenger => r#"{"object":"page","entry":[]}"#.to_owned(),
        Provider::Instagram => r#"{"object":"instagram","entry":[]}"#.to_owned(),
        Provider::Twilio => sms(),
        Provider::Gateway => unreachable!("it calls nobody"),
    }
}

/// An account with an address of its own at this provider.
pub(super) async fn account_at(stage: &Stage, tenant: &Tenant, provider: Provider) -> Account {
    let mut account = stage.account(tenant).await;
    account.key = format!("{provider}{}", account.id.0.simple());
    stage.set_secrets(provider, tenant, &account, &[&account.secret]).await;
    account
}

/// Another receiver of the same platform, that trusts these proxies and thinks it is there.
async fn another(stage: &Stage, proxies: Proxies, public_url: &str) -> Url {
    let services = Services {
        databases: stage.database.databases(Role::Api),
        publisher: stage.publisher.clone(),
        redis_url: Some(required("REDIS_URL").into()),
        namespace: stage.namespace.clone(),
        rate: rate(1000),
        keyring: stage.keyring.clone(),
        storage: stage.storage.clone(),
        platforms: Platforms::new([(Provider::Twilio, platform())]),
        bodies_bytes: webhooks::BODIES_BYTES,
        proxies,
        public_url: public_url.to_owned(),
        clock: Clock::system(),
    };
    serve(services, &stage.life).await
}

#[tokio::test]
async fn every_provider_has_two_doors_and_is_answered_as_it_wants() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        for provider in Provider::WITH_WEBHOOKS.iter().copied() {
            let account = account_at(stage, &tenant, provider).await;
            let (platforms, own) = (format!("/webhooks/{provider}"), format!("/webhooks/{provider}/{}", account.key));
            for (target, secret) in
                [(&platforms, APP_SECRET), (&platforms, "the_secret_before"), (&own, account.secret.as_str())]
            {
                let answer = send(stage, provider, target, secret).await;
                assert_eq!(answer.status, 200, "{target}: {}", answer.body);
                if provider == Provider::Twilio {
                    assert_eq!(answer.headers["content-type"], "text/xml");
                    assert_eq!(answer.body, r#"<?xml version="1.0" encoding="UTF-8"?><Response/>"#);
                } else {
                    assert_eq!(answer.body, "");
                }
            }
            let received = received(stage).await;
            let accounts: Vec<_> = received.iter().map(|w| w.meta.account.map(|a| a.channel_account_id)).collect();
            assert_eq!(accounts, [None, None, Some(account.id)]);
            for webhook in received {
                assert_eq!((webhook.meta.provider, &webhook.body[..]), (provider, body_of(provider).as_bytes()));
                assert_eq!((webhook.meta.query, webhook.meta.replay), (None, false));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_opens_its_own_providers_door_alone() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = account_at(stage, &tenant, Provider::Messenger).await;
        for provider in [Provider::Whatsapp, Provider::Instagram, Provider::Twilio] {
            let target = format!("/webhooks/{provider}/{}", account.key);
            let refused = send(stage, provider, &target, &account.secret).await;
            assert_eq!(refused.problem(), (404, "not_found", vec![]), "{target}");
        }
        let unknown = stage.webhook("/webhooks/email", APP_SECRET, "{}").await;
        assert_eq!(unknown.status, 404);
        assert!(received(stage).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn every_door_of_metas_shakes_hands() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let shake = async |target: &str, word: &str| {
            let query = format!("hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={word}");
            answer(stage.request(Method::GET, &format!("{target}?{query}"))).await
        };
        for provider in META {
            let account = account_at(stage, &tenant, provider).await;
            let (platforms, own) = (format!("/webhooks/{provider}"), format!("/webhooks/{provider}/{}", account.key));
            for (target, word) in [(&platforms, VERIFY_TOKEN), (&own, "its+own+token")] {
                let shaken = shake(target, word).await;
                assert_eq!(
                    (shaken.status.as_u16(), shaken.body.to_string()),
                    (200, "1158201444".to_owned()),
                    "{target}"
                );
                assert_eq!(shake(target, "wrong").await.problem(), (403, "handshake_refused", vec![]), "{target}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn twilio_signs_the_url_whatever_way_it_comes() {
    staged(async |stage| {
        let target = "/webhooks/twilio?mid=m1%3A7%3A8&x=";
        let sent = async |signed: String| {
            answer(by_twilio(&stage.base, &stage.client, target, APP_SECRET, &signed)).await.status.as_u16()
        };
        assert_eq!(sent(format!("{PUBLIC_URL}{target}")).await, 200);
        assert_eq!(sent(format!("{PUBLIC_URL}:443{target}")).await, 200);
        assert_eq!(sent(format!("{PUBLIC_URL}/webhooks/twilio?mid=m1:7:8&x=")).await, 403, "decoded on the way");
        assert_eq!(sent(format!("{PUBLIC_URL}/webhooks/twilio")).await, 403);
        // By GET, with everything in the query.
        let get = format!("/webhooks/twilio?{}", sms());
        let signed = url_signature(APP_SECRET, &format!("{PUBLIC_URL}{get}"));
        let got = answer(stage.request(Method::GET, &get).header("X-Twilio-Signature", signed)).await;
        assert_eq!(got.status, 200);
        // JSON, with its hash in the URL.
        let json = r#"{"MessageSid":"SM1"}"#;
        let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(json));
        let hashed = format!("/webhooks/twilio?bodySHA256={hash}");
        let signed = url_signature(APP_SECRET, &format!("{PUBLIC_URL}{hashed}"));
        let post = async |body: &'static str| {
            let request = stage.request(Method::POST, &hashed).header("Content-Type", "application/json");
            answer(request.header("X-Twilio-Signature", &signed).body(body)).await.status.as_u16()
        };
        assert_eq!((post(json).await, post("{}").await), (200, 403));
        let queries: Vec<_> = received(stage).await.into_iter().map(|webhook| webhook.meta.query.unwrap()).collect();
        assert_eq!(queries, ["mid=m1%3A7%3A8&x=", "mid=m1%3A7%3A8&x=", &*sms(), &*format!("bodySHA256={hash}")]);
        // Without a signature it is told apart from a wrong one.
        for (header, status) in [(None, 400), (Some("nonsense"), 400), (Some("SSOYDt4T1cUTdK1PDd93/VVr8B8="), 403)] {
            let request = stage.request(Method::POST, target).header("Content-Type", FORM).body(sms());
            let request = header.into_iter().fold(request, |request, it| request.header("X-Twilio-Signature", it));
            assert_eq!(answer(request).await.problem(), (status, "bad_signature", vec![]), "{header:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_proxy_says_of_the_url_is_believed_from_ours_alone() {
    staged(async |stage| {
        let trusting =
            another(stage, Proxies::new(vec!["127.0.0.1".parse().unwrap()]), "https://elsewhere.example").await;
        let wary =
            another(stage, Proxies::new(vec!["192.0.2.0/24".parse().unwrap()]), "https://elsewhere.example").await;
        let sent = async |base: &Url, forwarded: &[(&str, &str)]| {
            let signed = "https://hooks.example.com:8443/webhooks/twilio";
            let request = by_twilio(base, &stage.client, "/webhooks/twilio", APP_SECRET, signed);
            let request = forwarded.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            answer(request).await.status.as_u16()
        };
        let forwarded = [
            ("X-Forwarded-For", "203.0.113.9"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "hooks.example.com"),
            ("X-Forwarded-Port", "8443"),
        ];
        assert_eq!(sent(&trusting, &forwarded).await, 200);
        assert_eq!(sent(&trusting, &[("Host", "hooks.example.com:8443")]).await, 403, "anybody can say so");
        assert_eq!(sent(&wary, &forwarded).await, 403, "it is no proxy of ours that says so");
        assert_eq!(received(stage).await.len(), 1);
        until("both are kept", async || stage.count("SELECT count(*) FROM control.quarantine").await == 2).await;
        let sources: Vec<String> = sqlx::query_scalar("SELECT source FROM control.quarantine")
            .fetch_all(&mut stage.database.admin().await)
            .await
            .unwrap();
        assert!(sources.iter().all(|source| source == "127.0.0.1"), "{sources:?}");
    })
    .await;
}

#[tokio::test]
async fn any_of_several_secrets_of_an_account_may_have_signed() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        for provider in Provider::WITH_WEBHOOKS.iter().copied() {
            let account = account_at(stage, &tenant, provider).await;
            let target = format!("/webhooks/{provider}/{}", account.key);
            stage.set_secrets(provider, &tenant, &account, &["new", "old", "another account's"]).await;
            for secret in ["new", "old", "another account's"] {
                assert_eq!(send(stage, provider, &target, secret).await.status, 200, "{target} {secret}");
            }
            assert!(send(stage, provider, &target, "none of them").await.status.is_client_error());
        }
        assert_eq!(received(stage).await.len(), 12);
    })
    .await;
}

const TWILIO_ACCOUNT: &str = "AC71000000000000000000000000000001";

#[tokio::test]
async fn an_operator_adds_accounts_of_every_provider_and_each_id_has_one_owner() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        stage.tenant("other").await;
        let add = async |tenant: &str, arguments: &[&str], more: &[(&str, &str)]| {
            let arguments = [&["channel-account", "add"], arguments, &["--tenant", tenant]].concat();
            mijra(stage, &arguments, &[&[("ACCESS_TOKEN", "token")], more].concat()).await
        };
        let cases: [(&[&str], &str, f64, Option<f64>); 6] = [
            (&["messenger", "--page-id", "100900000000001"], "/webhooks/messenger", 40.0, None),
            (&["instagram", "--account-id", "17841400000000055", "--login", "page"], "/webhooks/instagram", 20.0, None),
            (&["twilio", "--sender", "+15035550199", "--account-sid", TWILIO_ACCOUNT], "/webhooks/twilio", 1.0, None),
            (
                &["twilio", "--sender", "whatsapp:+15035550199", "--account-sid", TWILIO_ACCOUNT],
                "/webhooks/twilio",
                80.0,
                Some(1.0 / 6.0),
            ),
            (
                &["twilio", "--sender", "24246", "--account-sid", TWILIO_ACCOUNT, "--rate", "30"],
                "/webhooks/twilio",
                30.0,
                None,
            ),
            (
                &["whatsapp", "--phone-number-id", "330", "--business-account-id", "210"],
                "/webhooks/whatsapp",
                80.0,
                Some(1.0 / 6.0),
            ),
        ];
        for (arguments, path, rate, pair) in cases {
            let (done, added) = add("demo", arguments, &[]).await;
            assert!(done, "{arguments:?}: {added}");
            let url = added["webhook_url"].as_str().unwrap();
            assert_eq!(url.split('#').next(), Some(&*format!("{PUBLIC_URL}{path}")), "{added}");
            assert_eq!(url.contains("#rc=5&rp=all"), path.ends_with("twilio"), "{url}");
            let id: uuid::Uuid = added["id"].as_str().unwrap().parse().unwrap();
            let limits: Vec<(String, f64)> =
                sqlx::query_as("SELECT scope, rate FROM limits WHERE tenant_id = $1 AND key = $2 ORDER BY scope")
                    .bind(tenant.id)
                    .bind(id)
                    .fetch_all(&mut stage.database.admin().await)
                    .await
                    .unwrap();
            let heavy = matches!(arguments[0], "messenger" | "instagram").then_some(("heavy", 10.0));
            let expected = [Some(("account", rate)), heavy, pair.map(|rate| ("pair", rate))].into_iter().flatten();
            assert_eq!(
                limits,
                expected.map(|(scope, rate)| (scope.to_owned(), rate)).collect::<Vec<_>>(),
                "{arguments:?}"
            );
            let (again, _) = add("demo", arguments, &[]).await;
            assert!(!again, "it is there");
            let (others, said) = add("other", arguments, &[]).await;
            assert!(!others && said.to_string().contains("belongs to another account"), "{said}");
        }
        // Several numbers of a business account, but not of two tenants: it is told of all of them.
        let number = |id| ["whatsapp", "--phone-number-id", id, "--business-account-id", "210"];
        let (others, said) = add("other", &number("331"), &[]).await;
        assert!(!others && said.to_string().contains("belongs to another account"), "{said}");
        assert!(add("demo", &number("331"), &[]).await.0);
        // An address of its own, with two secrets; and an API key instead of the auth token.
        let arguments = [
            "twilio",
            "--sender",
            "MG2c000000000000000000000000000001",
            "--account-sid",
            TWILIO_ACCOUNT,
            "--api-key",
            "SK01",
        ];
        let (done, added) = add("demo", &arguments, &[("APP_SECRET", "primary,secondary")]).await;
        assert!(done, "{added}");
        let target = format!("/webhooks/twilio/{}", added["webhook_key"].as_str().unwrap());
        for (secret, status) in [("primary", 200), ("secondary", 200), ("token", 403)] {
            assert_eq!(send(stage, Provider::Twilio, &target, secret).await.status, status, "{secret}");
        }
        assert!(added["verify_token"].is_null(), "Twilio shakes no hands");
        let (_, listed) = mijra(stage, &["channel-account", "list", "--provider", "twilio"], &[]).await;
        assert_eq!(listed.as_array().unwrap().len(), 4, "{listed}");
        // What an update does not say stays as it was; the word of a handshake that was arranged, too.
        let page = ["messenger", "--page-id", "100900000000002", "--name", "Shop"];
        let (_, first) = add("demo", &page, &[("APP_SECRET", "first")]).await;
        let update = ["messenger", "--page-id", "100900000000002", "--update"];
        let (done, second) = add("demo", &update, &[("APP_SECRET", "second")]).await;
        assert!(done, "{second}");
        assert!(first["verify_token"].is_string());
        assert_eq!((&second["verify_token"], &second["webhook_url"]), (&first["verify_token"], &first["webhook_url"]));
        let show = ["channel-account", "show", "--tenant", "demo", "--account", "100900000000002"];
        let (_, shown) = mijra(stage, &show, &[]).await;
        assert_eq!((&shown["name"], &shown["webhook_url"]), (&json!("Shop"), &first["webhook_url"]), "{shown}");
        assert!(shown["verify_token"].is_null(), "{shown}");
        let (_, shown) = mijra(stage, &[&show[..], &["--reveal"]].concat(), &[]).await;
        assert_eq!(shown["verify_token"], first["verify_token"]);
        for account in ["100900000000001", added["id"].as_str().unwrap()] {
            let resume = ["channel-account", "resume", "--tenant", "demo", "--account", account];
            let (done, resumed) = mijra(stage, &resume, &[]).await;
            assert!(done && resumed["before"] == "active", "{resumed}");
        }
    })
    .await;
}

/// Of an account what an update could lose: name, business account, and what is sealed.
async fn kept(stage: &Stage, id: &serde_json::Value) -> serde_json::Value {
    let id: uuid::Uuid = id.as_str().unwrap().parse().unwrap();
    let (name, business, sealed, key_id, gateway): (
        String,
        Option<String>,
        Vec<u8>,
        String,
        Option<serde_json::Value>,
    ) = sqlx::query_as(
        "SELECT name, business_account_id, sealed_secrets, secret_key_id, gateway FROM channel_accounts WHERE id = $1",
    )
    .bind(id)
    .fetch_one(&mut stage.database.admin().await)
    .await
    .unwrap();
    let opened = stage.keyring.open(&key_id, &seal_context(id.into()), &sealed).unwrap();
    let secrets: serde_json::Value = serde_json::from_slice(&opened).unwrap();
    json!({"name": name, "business": business, "secrets": secrets, "gateway": gateway.map(|gateway| gateway["url"].clone())})
}

#[tokio::test]
async fn an_update_changes_what_is_given_and_keeps_the_rest() {
    staged(async |stage| {
        stage.tenant("demo").await;
        let add = async |arguments: &[&str], environment: &[(&str, &str)]| {
            let arguments = [&["channel-account", "add"], arguments, &["--tenant", "demo"]].concat();
            mijra(stage, &arguments, environment).await
        };
        let token = |token| [("ACCESS_TOKEN", token)];
        let cases: [(&[&str], &[&str], serde_json::Value); 5] = [
            (
                &["twilio", "--sender", "+15035550199"],
                &["--account-sid", TWILIO_ACCOUNT, "--api-key", "SK01"],
                json!({"access_token": "first", "username": "SK01"}),
            ),
            (
                &["instagram", "--account-id", "178"],
                &["--login", "page"],
                json!({"access_token": "first", "login": "page"}),
            ),
            (
                &["whatsapp", "--phone-number-id", "330"],
                &["--business-account-id", "210"],
                json!({"access_token": "first"}),
            ),
            (&["messenger", "--page-id", "100"], &[], json!({"access_token": "first"})),
            (
                &["gateway", "--sender", "whatsapp:+919800000001"],
                &["--preset", "botmaster"],
                json!({"access_token": "first"}),
            ),
        ];
        for (which, more, secrets) in cases {
            // Without all of it there is no new account.
            let (done, said) = add(&[which, &["--update"]].concat(), &[]).await;
            let needs = said.to_string();
            assert!(!done && needs.contains("a new one needs --access-token"), "{needs}");
            assert!(more.first().is_none_or(|option| needs.contains(option)), "{needs}");
            let (done, added) = add(&[which, more].concat(), &token("first")).await;
            assert!(done, "{added}");
            let before = kept(stage, &added["id"]).await;
            assert_eq!(before["secrets"], secrets);
            let (done, said) = add(&[which, &["--update", "--name", "Renamed"]].concat(), &[]).await;
            assert!(done, "{said}");
            let mut after = before;
            after["name"] = json!("Renamed");
            assert_eq!(kept(stage, &added["id"]).await, after, "only its name");
            let (done, said) = add(&[which, &["--update"]].concat(), &token("second")).await;
            assert!(done, "{said}");
            after["secrets"]["access_token"] = json!("second");
            assert_eq!(kept(stage, &added["id"]).await, after, "only its token");
        }
        // Back to the auth token, in so many words.
        let sender = ["twilio", "--sender", "+15035550199", "--update"];
        let (done, said) = add(&[&sender[..], &["--no-api-key"]].concat(), &token("auth token")).await;
        assert!(done, "{said}");
        assert_eq!(kept(stage, &said["id"]).await["secrets"], json!({"access_token": "auth token"}));
    })
    .await;
}

#[tokio::test]
async fn an_update_with_another_word_of_the_handshake_keeps_what_signs() {
    staged(async |stage| {
        stage.tenant("demo").await;
        let page = ["channel-account", "add", "messenger", "--tenant", "demo", "--page-id", "100"];
        let (done, added) = mijra(stage, &page, &[("ACCESS_TOKEN", "token"), ("APP_SECRET", "one,two")]).await;
        assert!(done, "{added}");
        let update = [&page[..], &["--update"]].concat();
        let (done, said) = mijra(stage, &update, &[("VERIFY_TOKEN", "another word")]).await;
        assert!(done, "{said}");
        assert_eq!((&said["verify_token"], &said["webhook_key"]), (&json!("another word"), &added["webhook_key"]));
        let target = format!("/webhooks/messenger/{}", added["webhook_key"].as_str().unwrap());
        for (secret, status) in [("one", 200), ("two", 200), ("three", 401)] {
            assert_eq!(send(stage, Provider::Messenger, &target, secret).await.status, status, "{secret}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_account_that_is_down_is_back_when_what_may_mend_it_was_given() {
    staged(async |stage| {
        stage.tenant("demo").await;
        let page = ["channel-account", "add", "messenger", "--tenant", "demo", "--page-id", "100"];
        let (done, said) = mijra(stage, &page, &[("ACCESS_TOKEN", "token")]).await;
        assert!(done, "{said}");
        sqlx::query("UPDATE channel_accounts SET state = 'down', down_code = '190'")
            .execute(&mut stage.database.admin().await)
            .await
            .unwrap();
        let update = [&page[..], &["--update", "--name", "Shop"]].concat();
        // What is set and empty is not given.
        for (environment, state) in
            [(vec![("ACCESS_TOKEN", ""), ("VERIFY_TOKEN", "")], "down"), (vec![("ACCESS_TOKEN", "new")], "active")]
        {
            let (done, said) = mijra(stage, &update, &environment).await;
            assert!(done, "{said}");
            let is: String = sqlx::query_scalar("SELECT state FROM channel_accounts")
                .fetch_one(&mut stage.database.admin().await)
                .await
                .unwrap();
            assert_eq!(is, state, "{environment:?}");
        }
        let resumed = sqlx::query_scalar("SELECT count(*) FROM audit WHERE action = 'channel_account.resumed'");
        let resumed: i64 = resumed.fetch_one(&mut stage.database.admin().await).await.unwrap();
        assert_eq!(resumed, 1);
        let (done, said) = mijra(stage, &page, &[("ACCESS_TOKEN", "")]).await;
        assert!(!done, "{said}");
    })
    .await;
}

#[tokio::test]
async fn an_account_is_named_by_its_id_here_or_its_providers_in_every_command() {
    staged(async |stage| {
        stage.tenant("demo").await;
        let token = [("ACCESS_TOKEN", "token")];
        let add = async |arguments: &[&str]| {
            let arguments = [&["channel-account", "add"], arguments, &["--tenant", "demo"]].concat();
            let (done, added) = mijra(stage, &arguments, &token).await;
            assert!(done, "{added}");
            added["id"].as_str().unwrap().to_owned()
        };
        let number = add(&["whatsapp", "--phone-number-id", "330", "--business-account-id", "210"]).await;
        // Two providers may use the same id.
        add(&["messenger", "--page-id", "777"]).await;
        add(&["instagram", "--account-id", "777", "--login", "page"]).await;
        let commands: [&[&str]; 7] = [
            &["media", "retry", "--tenant", "demo", "--account"],
            &["templates", "list", "--tenant", "demo", "--account"],
            &["undecided", "list", "--tenant", "demo", "--account"],
            &["undecided", "decide", "--tenant", "demo", "sent", "--account"],
            &["channel-account", "show", "--tenant", "demo", "--account"],
            &["channel-account", "resume", "--tenant", "demo", "--account"],
            &["limits", "set", "--tenant", "demo", "--rate", "20", "account"],
        ];
        for command in commands {
            for account in [&*number, "330"] {
                let (_, said) = mijra(stage, &[command, &[account]].concat(), &[]).await;
                assert!(!said.is_string(), "{command:?} {account}: {said}");
            }
            let (done, said) = mijra(stage, &[command, &["404"]].concat(), &[]).await;
            assert!(!done && said.to_string().contains("demo has no account 404"), "{command:?}: {said}");
            let (done, said) = mijra(stage, &[command, &["777"]].concat(), &[]).await;
            assert!(!done && said.to_string().contains("both have the provider's id 777"), "{command:?}: {said}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_account_is_shown_with_what_its_provider_has_and_why_its_templates_could_not_be_fetched() {
    staged(async |stage| {
        stage.tenant("demo").await;
        let own = ["--tenant", "demo"];
        let environment = [("ACCESS_TOKEN", "token"), ("APP_SECRET", "secret")];
        for arguments in [
            ["twilio", "--sender", "24246", "--account-sid", TWILIO_ACCOUNT],
            ["whatsapp", "--phone-number-id", "330", "--business-account-id", "210"],
        ] {
            let arguments = [&["channel-account", "add"], &arguments[..], &own].concat();
            let (done, added) = mijra(stage, &arguments, &environment).await;
            assert!(done, "{added}");
        }
        let text =
            async |arguments: &[&str]| String::from_utf8(mijra_output(stage, arguments, &[]).await.stdout).unwrap();
        let show = ["channel-account", "show", "--tenant", "demo", "--account"];
        for reveal in [&[][..], &["--reveal"]] {
            let said = text(&[&show[..], &["24246"], reveal].concat()).await;
            assert!(said.contains("webhook URL") && !said.contains("verify token"), "{said}");
            let said = text(&[&show[..], &["330"], reveal].concat()).await;
            assert!(said.contains("verify token") && !said.contains("templates"), "{said}");
        }
        sqlx::query(
            "UPDATE channel_accounts SET templates_failure = 'the token has expired' WHERE external_id = '330'",
        )
        .execute(&mut stage.database.admin().await)
        .await
        .unwrap();
        let said = text(&[&show[..], &["330"]].concat()).await;
        assert!(said.contains("could not be fetched the last time: the token has expired"), "{said}");
        let said = text(&["channel-account", "list", "--tenant", "demo"]).await;
        assert_eq!(said.matches("failed since").count(), 1, "{said}");
    })
    .await;
}
