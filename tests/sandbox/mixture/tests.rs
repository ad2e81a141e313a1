use super::*;
use crate::sandbox::{Config, instagram, messenger, twilio, twilio::sign as twilio_sign};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};

const URL: &str = "https://hooks.example.com/webhooks/twilio";

fn accounts() -> Accounts {
    let twilio = |id: &str| AccountSpec::new(Platform::Twilio, id).signed_with("token").at(URL);
    let meta = |platform, id: &str| AccountSpec::new(platform, id).signed_with("secret");
    Accounts {
        numbers: vec![(Config::default().numbers.remove(0), "secret".into())],
        others: vec![
            meta(Platform::Messenger, "100900000000001"),
            meta(Platform::Instagram, "17841400000000055"),
            twilio("+15035550199"),
            twilio("whatsapp:+15035550198"),
        ],
    }
}

fn generate(mixture: Mixture) -> Vec<InboundWebhook> {
    Generator::new(mixture, accounts()).collect()
}

#[test]
fn same_seed_makes_the_same_bytes() {
    let bodies = |seed| {
        let all = generate(Mixture { seed, webhooks: 300, ..Mixture::default() });
        all.into_iter().map(|webhook| webhook.parcel).collect::<Vec<_>>()
    };
    assert_eq!(bodies(1), bodies(1));
    assert_ne!(bodies(1), bodies(2));
}

#[test]
fn a_mixture_without_an_end_goes_on() {
    let endless = Generator::new(Mixture { webhooks: 0, ..Mixture::default() }, accounts());
    assert_eq!(endless.take(5_000).count(), 5_000);
}

#[test]
fn every_platform_and_every_kind_occurs() {
    let webhooks = generate(Mixture { webhooks: 10_000, ..Mixture::default() });
    assert_eq!(webhooks.len(), 10_000);
    let mut told: BTreeMap<Platform, BTreeSet<&str>> = BTreeMap::new();
    for message in webhooks.iter().flat_map(|webhook| &webhook.told) {
        told.entry(message.platform).or_default().insert(message.kind);
    }
    let messages = |kinds: usize, of: fn(usize) -> bool| (0..kinds).filter(|at| of(*at)).count();
    assert_eq!(
        told[&Platform::Messenger].len(),
        messages(messenger::Kind::ALL.len(), |at| messenger::Kind::ALL[at].is_message())
    );
    assert_eq!(
        told[&Platform::Instagram].len(),
        messages(instagram::Kind::ALL.len(), |at| instagram::Kind::ALL[at].is_message())
    );
    assert_eq!(told[&Platform::Twilio].len(), twilio::Kind::ALL.len());
    assert!(webhooks.iter().any(|webhook| webhook.flaw == Flaw::Repeated));
    let receipts = webhooks.iter().filter(|webhook| webhook.statuses > 0).count();
    assert!((2_500..4_000).contains(&receipts), "{receipts}");
    let events = |key: &str| webhooks.iter().filter(|webhook| text(webhook).contains(key)).count();
    for key in [
        "message_edit",
        "is_deleted",
        "is_echo",
        "\"action\":\"unreact\"",
        "story_mention",
        "watermark",
        "user_preferences",
        "quick_reply",
        "MediaUrl9",
    ] {
        assert!(events(key) > 0, "{key}");
    }
}

#[test]
fn what_is_edited_taken_back_or_received_was_there() {
    let mixture = Mixture { webhooks: 6_000, repeat_rate: 0.0, ..Mixture::default() };
    let known = mixture.known_sends(&accounts());
    let mut there: HashSet<String> = known.iter().map(|known| known.id.clone()).collect();
    let mut seen = 0;
    for webhook in generate(mixture) {
        let Ok(body) = serde_json::from_slice::<Value>(&webhook.parcel.body) else { continue };
        there.extend(webhook.told.iter().map(|told| told.id.to_string()));
        for event in body["entry"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|entry| entry["messaging"].as_array().into_iter().flatten())
        {
            if event["message"]["is_echo"] == true {
                there.insert(event["message"]["mid"].as_str().unwrap().into());
            }
            for about in [&event["message_edit"]["mid"], &event["reaction"]["mid"], &event["read"]["mid"]] {
                if let Some(about) = about.as_str() {
                    assert!(there.contains(about), "{event}");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 200, "{seen}");
}

#[test]
fn everything_is_signed_with_the_accounts_secret_and_what_is_forged_is_not() {
    for webhook in generate(Mixture { forge_rate: 0.1, ..Mixture::default() }) {
        let parcel = &webhook.parcel;
        let right = if webhook.platform == Platform::Twilio {
            let form: Vec<(String, String)> = url::form_urlencoded::parse(&parcel.body).into_owned().collect();
            twilio_sign::form("token", parcel.url.as_deref().unwrap(), &form)
        } else {
            assert!(parcel.body.is_ascii());
            sign::signature("secret", &parcel.body)
        };
        assert_eq!(parcel.signature == right, webhook.flaw != Flaw::Forged);
    }
}

#[test]
fn callbacks_give_back_what_was_sent_along() {
    let mixture = Mixture { status_rate: 1.0, webhooks: 200, ..Mixture::default() };
    let known = mixture.known_sends(&accounts()).len();
    let opaque = (0..known).map(|nth| format!("m1:{nth}")).collect();
    for webhook in Generator::new(mixture, accounts()).with_opaque(opaque) {
        match webhook.platform {
            Platform::Whatsapp => assert!(text(&webhook).contains("biz_opaque_callback_data\":\"m1:")),
            Platform::Twilio => assert!(webhook.parcel.url.unwrap().contains("?mid=m1:")),
            _ => {}
        }
    }
}

fn text(webhook: &InboundWebhook) -> String {
    String::from_utf8_lossy(&webhook.parcel.body).into_owned()
}
