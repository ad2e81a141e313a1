//! From a message to the request for `POST /2010-04-01/Accounts/{account}/Messages.json` (contract, section 7). Makes no call; what
//! the answer means is [`answer`](super::answer)'s.

use super::{is_messaging_service, parse::TOKEN_PARAMETER};
use crate::{
    domain::{
        channel::{Channel, TWILIO_WHATSAPP_PREFIX},
        content::{Album, Audio, Document, FileRef, Image, Location, OutboundContent, Sticker, Template, Text, Video},
    },
    providers::{
        http::Signal,
        sending::{Body, Outgoing, Unsendable},
    },
};
use serde_json::{Map, Value, json};
use std::time::Duration;
use url::form_urlencoded::Serializer;

/// The path of the call, with its leading slash: of the account, even where an API key of its signs in.
pub fn path(account_sid: &str) -> String {
    let plain: String = account_sid.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("/2010-04-01/Accounts/{plain}/Messages.json")
}

/// The path of the call that shows that an answer is being written; it is another API's (contract, section 15).
pub(in crate::providers) const TYPING_PATH: &str = "/v3/Indicators/Typing.json";

/// Its body. It marks as read, too, and there is no way to do that alone; on WhatsApp only.
pub(in crate::providers) fn signal(channel: Channel, signal: Signal<'_>) -> Option<Body> {
    match signal {
        Signal::Typing { message_id } if channel == Channel::Whatsapp => {
            let body = json!({"channel": "WHATSAPP", "messageId": message_id});
            Some(Body::Json(body.to_string().into_bytes()))
        }
        Signal::Typing { .. } | Signal::Read { .. } => None,
    }
}

/// What is of use for longer stays in Twilio's queue for as long as anything does; shorter than five seconds is advised against
/// (contract, section 7).
const LONGEST_VALIDITY: Duration = Duration::from_secs(36_000);
const SHORTEST_VALIDITY: Duration = Duration::from_secs(6);

/// The body of the call. The token comes back with every report, in the query of the address it is sent to: it is the evidence of an
/// attempt whose answer was lost, for the call has no idempotency key.
///
/// # Errors
/// If Twilio has nothing of the kind on the channel, or a file of it is not at hand.
pub fn request(message: &Outgoing<'_>) -> Result<Body, Unsendable> {
    let mut form = Serializer::new(String::new());
    let sender = &message.sender.external_id;
    form.append_pair(if is_messaging_service(sender) { "MessagingServiceSid" } else { "From" }, sender);
    form.append_pair("To", &address(message));
    for (name, value) in said(message)? {
        form.append_pair(name, &value);
    }
    if let Some(url) = &message.sender.status_url {
        let mut url = url.clone();
        url.query_pairs_mut().append_pair(TOKEN_PARAMETER, &message.token.encode());
        form.append_pair("StatusCallback", url.as_str());
    }
    if let Some(valid_for) = message.valid_for.filter(|valid_for| *valid_for < LONGEST_VALIDITY) {
        form.append_pair("ValidityPeriod", &valid_for.max(SHORTEST_VALIDITY).as_secs().to_string());
    }
    Ok(Body::Form(form.finish()))
}

/// On WhatsApp every address says so, a number's as well as a user id's (contract, section 1).
fn address(message: &Outgoing<'_>) -> String {
    let address = message.recipient.address;
    match message.sender.channel {
        Channel::Whatsapp if !address.starts_with(TWILIO_WHATSAPP_PREFIX) => {
            format!("{TWILIO_WHATSAPP_PREFIX}{address}")
        }
        _ => address.to_owned(),
    }
}

fn said(message: &Outgoing<'_>) -> Result<Vec<(&'static str, String)>, Unsendable> {
    use OutboundContent as Is;
    let with = |file: &FileRef, words: Option<&String>| -> Result<Vec<_>, Unsendable> {
        let words = words.map(|words| ("Body", words.clone()));
        Ok(words.into_iter().chain([("MediaUrl", message.link(file)?)]).collect())
    };
    let is_whatsapp = message.sender.channel == Channel::Whatsapp;
    match message.content {
        Is::Text(Text { text, .. }) => Ok(vec![("Body", text.clone())]),
        Is::Template(template) => Ok(filled(template)),
        Is::Image(Image { file, caption })
        | Is::Video(Video { file, caption })
        | Is::Document(Document { file, caption, .. }) => with(file, caption.as_ref()),
        Is::Audio(Audio { file, .. }) | Is::Sticker(Sticker { file }) => with(file, None),
        Is::Album(Album { files, text }) => {
            let mut said: Vec<_> = text.iter().map(|words| ("Body", words.clone())).collect();
            for file in files {
                said.push(("MediaUrl", message.link(file)?));
            }
            Ok(said)
        }
        Is::Location(location) if is_whatsapp => Ok(place(location)),
        _ => Err(Unsendable::kind(message)),
    }
}

/// A template by its SID, with values by the names of its variables: `1`, `2` … of numbered ones.
fn filled(template: &Template) -> Vec<(&'static str, String)> {
    let Template { variables, named_variables, .. } = template;
    let numbered = variables.iter().enumerate().map(|(index, value)| ((index + 1).to_string(), value));
    let named = named_variables.iter().map(|(name, value)| (name.clone(), value));
    let values: Map<String, Value> = numbered.chain(named).map(|(name, value)| (name, value.as_str().into())).collect();
    let values = (!values.is_empty()).then(|| ("ContentVariables", Value::Object(values).to_string()));
    [("ContentSid", template.provider_name().to_owned())].into_iter().chain(values).collect()
}

/// A place, with what it is called, and the words beside it.
fn place(location: &Location) -> Vec<(&'static str, String)> {
    let Location { latitude, longitude, name, address } = location;
    let at = format!("{latitude},{longitude}");
    let label = name.as_ref().or(address.as_ref());
    let action = label.map_or_else(|| format!("geo:{at}"), |label| format!("geo:{at}|{label}"));
    let words = address.as_ref().or(name.as_ref()).unwrap_or(&at);
    vec![("Body", words.clone()), ("PersistentAction", action)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{channel::Provider, people::RecipientKind},
        providers::testing::sending::{Example, SHARED, UPLOADED, content},
    };

    const SERVICE: &str = "MG2c000000000000000000000000000001";

    fn example(channel: Channel, said: Value) -> Example {
        Example::new(Provider::Twilio, channel, content(said))
    }

    #[test]
    fn what_is_of_use_for_a_while_waits_at_twilio_for_no_longer() {
        for (seconds, expected) in [(None, None), (Some(600), Some("600")), (Some(2), Some("6")), (Some(36_000), None)]
        {
            let valid_for = seconds.map(Duration::from_secs);
            let text = example(Channel::Sms, json!({"type": "text", "text": "x"}));
            let written = Example { valid_for, ..text }.written(request);
            let found = written.as_array().unwrap().iter().find(|pair| pair[0] == "ValidityPeriod");
            assert_eq!(found.map(|pair| pair[1].as_str().unwrap()), expected, "{seconds:?}");
        }
    }

    #[test]
    fn a_request_is_what_the_contract_says() {
        let text = || json!({"type": "text", "text": "Your parcel left + 50 % off, é"});
        let body = json!(["Body", "Your parcel left + 50 % off, é"]);
        let sms = example(Channel::Sms, text());
        assert_eq!(sms.written(request), json!([["From", "+15035550199"], ["To", "+14155550188"], body]));
        let mut service = example(Channel::Sms, text());
        service.sender.external_id = SERVICE.into();
        service.recipient = (RecipientKind::Address, "24246");
        assert_eq!(service.written(request), json!([["MessagingServiceSid", SERVICE], ["To", "24246"], body]));
        let mut whatsapp = example(Channel::Whatsapp, text());
        let from = json!(["From", "whatsapp:+15035550199"]);
        assert_eq!(whatsapp.written(request), json!([from, ["To", "whatsapp:+14155550188"], body]));
        whatsapp.recipient = (RecipientKind::Bsuid, "US.1234567890");
        assert_eq!(whatsapp.written(request), json!([from, ["To", "whatsapp:US.1234567890"], body]));
        for (url, expected) in [
            ("https://hooks.example/webhooks/twilio/status", "https://hooks.example/webhooks/twilio/status?mid="),
            ("https://hooks.example/s?tenant=7#rc=5&rp=all", "https://hooks.example/s?tenant=7&mid="),
        ] {
            whatsapp.sender.status_url = Some(url.parse().unwrap());
            let callback = whatsapp.written(request)[3][1].as_str().unwrap().to_owned();
            assert!(callback.starts_with(expected), "{callback}");
            // What comes back in the query is read as ours.
            let query = url::Url::parse(&callback).unwrap();
            let (_, token) = query.query_pairs().find(|(name, _)| name == TOKEN_PARAMETER).unwrap();
            assert!(crate::domain::events::SendToken::decode(&token).is_some(), "{callback}");
            assert_eq!(callback.ends_with("#rc=5&rp=all"), url.contains('#'));
        }
        assert_eq!(path("AC71/../x?y"), "/2010-04-01/Accounts/AC71xy/Messages.json");
    }

    #[test]
    fn every_kind_is_written_as_the_contract_says() {
        let sid = "HX0123456789abcdef0123456789abcdef";
        let map = "https://files.shop.example/map.png";
        for (channel, said, expected) in [
            (
                Channel::Sms,
                json!({"type": "image", "file": {"id": SHARED}, "caption": "Here"}),
                json!([["Body", "Here"], ["MediaUrl", map]]),
            ),
            (
                Channel::Sms,
                json!({"type": "video", "file": {"link": "https://a.example/v"}}),
                json!([["MediaUrl", "https://a.example/v"]]),
            ),
            (
                Channel::Whatsapp,
                json!({"type": "audio", "file": {"id": SHARED}, "voice": true}),
                json!([["MediaUrl", map]]),
            ),
            (
                Channel::Whatsapp,
                json!({"type": "document", "file": {"id": SHARED}, "filename": "a.pdf"}),
                json!([["MediaUrl", map]]),
            ),
            (Channel::Whatsapp, json!({"type": "sticker", "file": {"id": SHARED}}), json!([["MediaUrl", map]])),
            (
                Channel::Sms,
                json!({"type": "album", "files": [{"id": SHARED}, {"link": "https://a.example/b"}], "text": "Both"}),
                json!([["Body", "Both"], ["MediaUrl", map], ["MediaUrl", "https://a.example/b"]]),
            ),
            (
                Channel::Whatsapp,
                json!({"type": "template", "name": sid, "language": "en", "variables": ["Mara", "#1042"]}),
                json!([["ContentSid", sid], ["ContentVariables", r##"{"1":"Mara","2":"#1042"}"##]]),
            ),
            (
                Channel::Sms,
                json!({"type": "template", "name": sid, "language": "en", "named_variables": {"name": "Mara"}}),
                json!([["ContentSid", sid], ["ContentVariables", r#"{"name":"Mara"}"#]]),
            ),
            (Channel::Sms, json!({"type": "template", "name": sid, "language": "en"}), json!([["ContentSid", sid]])),
            (
                Channel::Whatsapp,
                json!({"type": "template", "name": "parcel", "language": "en", "provider_ids": {"en": sid}}),
                json!([["ContentSid", sid]]),
            ),
            (
                Channel::Whatsapp,
                json!({"type": "location", "latitude": 45.52, "longitude": -122.68, "name": "Pick-up point", "address": "12 Harbour Walk"}),
                json!([["Body", "12 Harbour Walk"], ["PersistentAction", "geo:45.52,-122.68|Pick-up point"]]),
            ),
            (
                Channel::Whatsapp,
                json!({"type": "location", "latitude": 45.52, "longitude": -122.68}),
                json!([["Body", "45.52,-122.68"], ["PersistentAction", "geo:45.52,-122.68"]]),
            ),
        ] {
            let written = example(channel, said.clone()).written(request);
            assert_eq!(Value::from(&written.as_array().unwrap()[2..]), expected, "{said}");
        }
    }

    #[test]
    fn typing_is_shown_on_whatsapp_alone() {
        let typing = Signal::Typing { message_id: "SM1" };
        let body = Body::Json(br#"{"channel":"WHATSAPP","messageId":"SM1"}"#.to_vec());
        assert_eq!(signal(Channel::Whatsapp, typing), Some(body));
        assert_eq!(signal(Channel::Sms, typing), None);
        assert_eq!(signal(Channel::Whatsapp, Signal::Read { message_id: "SM1" }), None);
    }

    #[test]
    fn what_twilio_has_not_is_not_written() {
        for (channel, said, words) in [
            (
                Channel::Sms,
                json!({"type": "location", "latitude": 1.0, "longitude": 1.0}),
                "twilio has no messages of the type location",
            ),
            (
                Channel::Whatsapp,
                json!({"type": "buttons", "text": "x", "buttons": []}),
                "twilio has no messages of the type buttons",
            ),
            (
                Channel::Whatsapp,
                json!({"type": "image", "file": {"id": UPLOADED}}),
                "a file of the message has to be given by its address",
            ),
            (
                Channel::Whatsapp,
                json!({"type": "reaction", "message_id": uuid::Uuid::from_u128(1), "emoji": "❤"}),
                "twilio has no messages of the type reaction",
            ),
        ] {
            assert_eq!(example(channel, said.clone()).written(request), words, "{said}");
        }
    }
}
