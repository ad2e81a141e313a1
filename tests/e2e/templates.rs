//! Templates from their making to their end, by the real programs: fetched by the clock, made and deleted at their provider, sent by name.

use crate::{SOON, until};
use reqwest::Method;
use serde_json::{Value, json};
use support::{
    channels::{self, Stage, Way},
    fleet::Fleet,
};

async fn call(fleet: &Fleet, method: Method, path: &str, body: &Value) -> (u16, Value) {
    let url = format!("{}/api/{}{path}", fleet.api, fleet.tenant.slug);
    let request = fleet.http.request(method, url).bearer_auth(&fleet.tenant.token).json(body);
    let response = request.send().await.expect("the API answers");
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

async fn template(fleet: &Fleet, query: &str) -> Value {
    let found = fleet.get(&format!("/templates?{query}")).await.expect("the API answers");
    found["data"][0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn templates_are_fetched_made_sent_and_deleted() {
    let fleet = channels::fleet().env("TEMPLATES_MAX_AGE_MINUTES", 60).start().await;
    let stage = Stage::new(&fleet).await;
    let of = |way: Way| format!("channel_account_id={}", stage.account(way));

    // Nobody asks: what the provider has is fetched by the clock.
    let known = format!("{}&name=booking_reminder&language=de", of(Way::Whatsapp));
    until("WhatsApp's templates are known", SOON, async || template(&fleet, &known).await["status"] == "APPROVED")
        .await;

    for (way, name, more) in [
        (Way::Whatsapp, "parcel_sent", json!({"footer": "Harbour Clinic"})),
        (Way::TwilioWhatsapp, "parcel_sent", json!({})),
    ] {
        let mut new = json!({"channel_account_id": stage.account(way), "name": name, "language": "en", "category": "UTILITY",
            "body": "Hi {{1}}, parcel {{2}} is on its way.", "examples": {"1": "Mara", "2": "8812"}});
        new.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, made) = call(&fleet, Method::POST, "/templates", &new).await;
        assert_eq!((status, &made["status"]), (202, &json!("QUEUED")), "{way:?}: {made}");
        let query = format!("{}&name={name}", of(way));
        // WhatsApp tells by webhook that it is approved; Twilio is asked.
        until(&format!("{way:?}: it is made and approved"), SOON, async || {
            if way != Way::Whatsapp {
                call(&fleet, Method::POST, "/templates/sync", &json!({})).await;
            }
            template(&fleet, &query).await["status"] == "APPROVED"
        })
        .await;
        let party = stage.meet(&fleet, way, 1).await;
        let said = json!({"type": "template", "name": name, "variables": ["Mara", "8812"]});
        let id = stage.accepted(&fleet, &party, &said).await;
        let message = fleet.message_when(id, "it is sent", |message| message["send"]["sent_at"].is_string()).await;
        assert_eq!(message["content"]["language"], "en", "{way:?}: {message}");
        let is_by_id = message["content"]["provider_ids"]["en"].as_str().is_some_and(|sid| sid.starts_with("HX"));
        assert_eq!(is_by_id, way == Way::TwilioWhatsapp, "{message}");
        assert_eq!(fleet.entries_of(&message)[0].kind, "template");
        assert_eq!(template(&fleet, &query).await["uses"], 1);
    }

    // What its provider refuses is told with the field, and can be put right.
    let new = json!({"channel_account_id": stage.account(Way::TwilioWhatsapp), "name": "menu", "language": "en", "category": "UTILITY",
        "components": {"twilio/nothing": {"body": "Hi"}}});
    let (status, made) = call(&fleet, Method::POST, "/templates", &new).await;
    assert_eq!(status, 202, "{made}");
    let query = format!("{}&name=menu", of(Way::TwilioWhatsapp));
    until("it is refused", SOON, async || template(&fleet, &query).await["status"] == "REFUSED").await;
    let refused = template(&fleet, &query).await;
    assert_eq!(refused["problem"]["code"], "20001", "{refused}");

    // Deleted there, and here for all that share it.
    for way in [Way::Whatsapp, Way::TwilioWhatsapp] {
        let query = format!("{}&name=parcel_sent", of(way));
        let id = template(&fleet, &query).await["id"].as_str().unwrap().to_owned();
        let (status, _) = call(&fleet, Method::DELETE, &format!("/templates/{id}"), &Value::Null).await;
        assert_eq!(status, 202);
        until("it is deleted", SOON, async || template(&fleet, &query).await.is_null()).await;
    }
    let whatsapp = stage.account(Way::Whatsapp).to_string();
    let found = fleet.mijra(&["templates", "sync", "--tenant", &fleet.tenant.slug, "--account", &whatsapp]).await;
    assert!(found["templates"].as_i64().is_some(), "{found}");
    assert!(template(&fleet, "name=parcel_sent").await.is_null(), "not there any more either");
    assert_eq!(fleet.dead_letters().await.len(), 0);
}
