//! What a send looks like on the wire, by each way: the request of a text, the answer that takes it, and the id in that. For the
//! yardsticks, which call so, and for the responder, which answers so. A text takes as many bytes as the product's does.

use anyhow::{Context, Result};
use reqwest::RequestBuilder;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// By which way messages are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// WhatsApp's own API
    #[default]
    Whatsapp,
    /// A Page
    Messenger,
    /// A professional account, connected by its Page
    Instagram,
    /// A number at Twilio
    TwilioSms,
    /// A WhatsApp sender at Twilio
    TwilioWhatsapp,
    /// The gateway that is described beforehand
    Gateway,
}

/// Twilio's account.
pub(crate) const ACCOUNT_SID: &str = "AC71000000000000000000000000000a11";
/// Where Twilio is told to report: as the product says it, the token left out.
const STATUS_CALLBACK: &str = "http://127.0.0.1:8080/webhooks/twilio";
const ACCESS_TOKEN: &str = "stand-in-token";

impl Way {
    /// All of them.
    pub(crate) const ALL: [Way; 6] =
        [Way::Whatsapp, Way::Messenger, Way::Instagram, Way::TwilioSms, Way::TwilioWhatsapp, Way::Gateway];

    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::Whatsapp => "whatsapp",
            Way::Messenger => "messenger",
            Way::Instagram => "instagram",
            Way::TwilioSms => "twilio-sms",
            Way::TwilioWhatsapp => "twilio-whatsapp",
            Way::Gateway => "gateway",
        }
    }

    /// What people's addresses begin with; seven digits follow.
    pub(crate) fn address_prefix(self) -> &'static str {
        match self {
            Way::Messenger => "2400000000",
            Way::Instagram => "98000000",
            Way::Whatsapp | Way::TwilioSms | Way::TwilioWhatsapp | Way::Gateway => "+1555",
        }
    }

    /// The address of one person.
    pub(super) fn nobody(self) -> String {
        format!("{}0000000", self.address_prefix()).trim_start_matches('+').to_owned()
    }

    /// Where it is called.
    pub(super) fn path(self) -> String {
        match self {
            Way::Whatsapp => "/v23.0/330000000000000/messages".into(),
            Way::Messenger => "/v25.0/100900000000001/messages".into(),
            Way::Instagram => "/v25.0/me/messages".into(),
            Way::TwilioSms | Way::TwilioWhatsapp => format!("/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json"),
            Way::Gateway => "/api/v1/?action=send".into(),
        }
    }

    /// What is said. WhatsApp's is longer and its token shorter: so it was measured from the beginning.
    pub(super) fn text(self) -> &'static str {
        match self {
            Way::Whatsapp => {
                "Your order 20418 left our warehouse this morning and should reach you on Thursday before noon."
            }
            _ => "Your parcel left our warehouse.",
        }
    }

    /// The call with its body and its proof of who calls.
    pub(super) fn request(self, call: RequestBuilder, to: &str, text: &str, send: Uuid) -> RequestBuilder {
        let token = || format!("m1:{}:{}", send.simple(), send.simple());
        match self {
            Way::Whatsapp => call.bearer_auth(ACCESS_TOKEN).json(&WhatsappMessage {
                messaging_product: "whatsapp",
                recipient_type: "individual",
                to,
                r#type: "text",
                text: WhatsappText { body: text },
                biz_opaque_callback_data: send,
            }),
            Way::Messenger => call.bearer_auth(ACCESS_TOKEN).json(&MetaMessage {
                recipient: MetaRecipient { id: to },
                messaging_type: Some("RESPONSE"),
                message: MetaText { text, metadata: Some(token()) },
            }),
            Way::Instagram => call.bearer_auth(ACCESS_TOKEN).json(&MetaMessage {
                recipient: MetaRecipient { id: to },
                messaging_type: None,
                message: MetaText { text, metadata: None },
            }),
            Way::TwilioSms | Way::TwilioWhatsapp => {
                let is_sms = self == Way::TwilioSms;
                let to = if is_sms { to.to_owned() } else { format!("whatsapp:{to}") };
                let from = if is_sms { "+15035550199" } else { "whatsapp:+15035550198" };
                let callback = format!("{STATUS_CALLBACK}?mid={}#rc=5&rp=all&ct=3000", token());
                let form = [("From", from), ("To", &to), ("Body", text), ("StatusCallback", &callback)];
                call.basic_auth(ACCOUNT_SID, Some(ACCESS_TOKEN)).form(&form)
            }
            Way::Gateway => call.json(&GatewayMessage {
                sender_id: "919800000001",
                receiver_id: to.trim_start_matches('+'),
                message_text: text,
                auth_token: ACCESS_TOKEN,
            }),
        }
    }

    /// The id in an answer.
    pub(super) fn id(self, answer: &[u8]) -> Result<String> {
        let id = match self {
            Way::Whatsapp => {
                let answer: WhatsappAnswer = serde_json::from_slice(answer)?;
                answer.messages.into_iter().next().map(|sent| sent.id)
            }
            Way::Messenger | Way::Instagram => Some(serde_json::from_slice::<MetaAnswer>(answer)?.message_id),
            Way::TwilioSms | Way::TwilioWhatsapp => Some(serde_json::from_slice::<TwilioAnswer>(answer)?.sid),
            Way::Gateway => Some(serde_json::from_slice::<GatewayAnswer>(answer)?.message_id),
        };
        id.context("an answer without a message")
    }

    /// The id of the nth message.
    pub(super) fn nth_id(self, nth: u64) -> String {
        match self {
            Way::Whatsapp => format!("wamid.HBgLMTU1NTc3NzAxNDIVAgARGBJC{nth:014}AA=="),
            Way::Messenger => format!("m_Wq5iXZn0pE2b7Uu3dT8kR1cF6sLhYv9oJxA4mG{nth:020}"),
            Way::Instagram => format!("aWdfZAG1faXRlbToxOklHTWVzc2FnZAUlE{nth:040}"),
            Way::TwilioSms => format!("SM{nth:032x}"),
            Way::TwilioWhatsapp => format!("MM{nth:032x}"),
            Way::Gateway => format!("3EB0{nth:016X}"),
        }
    }

    /// The status and the body of the answer that takes the nth message.
    pub(super) fn answer(self, nth: u64) -> (u16, String) {
        let id = self.nth_id(nth);
        match self {
            Way::Whatsapp => (
                200,
                format!(
                    r#"{{"messaging_product":"whatsapp","contacts":[{{"input":"15550000000","wa_id":"15550000000"}}],"messages":[{{"id":"{id}"}}]}}"#
                ),
            ),
            Way::Messenger | Way::Instagram => {
                (200, format!(r#"{{"recipient_id":"24000000000000077","message_id":"{id}"}}"#))
            }
            Way::TwilioSms | Way::TwilioWhatsapp => (201, twilio_answer(&id)),
            Way::Gateway => (200, format!(r#"{{"success":true,"messageId":"{id}","message":"Message sent"}}"#)),
        }
    }
}

/// providers/twilio section 7.
fn twilio_answer(sid: &str) -> String {
    let uri = format!("/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{sid}");
    format!(
        r#"{{"sid":"{sid}","account_sid":"{ACCOUNT_SID}","api_version":"2010-04-01","body":"Your parcel left our warehouse.","date_created":"Thu, 19 Nov 2026 09:12:44 +0000","date_updated":"Thu, 19 Nov 2026 09:12:44 +0000","date_sent":null,"direction":"outbound-api","error_code":null,"error_message":null,"from":"+15035550199","messaging_service_sid":null,"num_media":"0","num_segments":"1","price":null,"price_unit":"USD","status":"queued","subresource_uris":{{"media":"{uri}/Media.json"}},"to":"+14155550188","uri":"{uri}.json"}}"#
    )
}

#[derive(Serialize)]
struct WhatsappMessage<'a> {
    messaging_product: &'static str,
    recipient_type: &'static str,
    to: &'a str,
    r#type: &'static str,
    text: WhatsappText<'a>,
    biz_opaque_callback_data: Uuid,
}

#[derive(Serialize)]
struct WhatsappText<'a> {
    body: &'a str,
}

#[derive(Serialize)]
struct MetaMessage<'a> {
    recipient: MetaRecipient<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messaging_type: Option<&'static str>,
    message: MetaText<'a>,
}

#[derive(Serialize)]
struct MetaRecipient<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct MetaText<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GatewayMessage<'a> {
    sender_id: &'a str,
    receiver_id: &'a str,
    message_text: &'a str,
    auth_token: &'a str,
}

#[derive(Deserialize)]
struct WhatsappAnswer {
    messages: Vec<WhatsappSent>,
}

#[derive(Deserialize)]
struct WhatsappSent {
    id: String,
}

#[derive(Deserialize)]
struct MetaAnswer {
    message_id: String,
}

#[derive(Deserialize)]
struct TwilioAnswer {
    sid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GatewayAnswer {
    message_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_the_id_that_is_read_from_it() {
        for way in Way::ALL {
            let (status, answer) = way.answer(20_418);
            assert!((200..300).contains(&status));
            assert_eq!(way.id(answer.as_bytes()).unwrap(), way.nth_id(20_418), "{}", way.name());
            assert!(way.id(b"{}").is_err(), "{}", way.name());
        }
    }

    #[test]
    fn a_request_is_of_its_providers_form() {
        let client = reqwest::Client::new();
        let body = |way: Way| {
            let call =
                way.request(client.post(format!("http://127.0.0.1{}", way.path())), "+15550000001", "Hi", Uuid::nil());
            String::from_utf8(call.build().unwrap().body().unwrap().as_bytes().unwrap().to_vec()).unwrap()
        };
        assert!(body(Way::Messenger).starts_with(
            r#"{"recipient":{"id":"+15550000001"},"messaging_type":"RESPONSE","message":{"text":"Hi","metadata":"m1:0"#
        ));
        assert_eq!(body(Way::Instagram), r#"{"recipient":{"id":"+15550000001"},"message":{"text":"Hi"}}"#);
        assert!(
            body(Way::TwilioWhatsapp)
                .starts_with("From=whatsapp%3A%2B15035550198&To=whatsapp%3A%2B15550000001&Body=Hi&StatusCallback=http")
        );
        assert_eq!(
            body(Way::Gateway),
            r#"{"senderId":"919800000001","receiverId":"15550000001","messageText":"Hi","authToken":"stand-in-token"}"#
        );
    }
}
