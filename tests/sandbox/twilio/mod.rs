//! What people do towards a sender at Twilio, as parameters of a webhook (twilio contract page, sections 2 and 11): text
//! messages, files, and WhatsApp by way of Twilio.

mod api;
mod check;
mod content;
mod errors;
mod messages;
mod overrides;
mod queue;
mod segments;
mod send;
pub mod sign;
pub mod status;

pub(super) use api::{Call, handle, names};
pub(super) use content::Desk;
pub(super) use errors::documented;
pub(super) use messages::callback;
pub(super) use overrides::Overrides;
pub(super) use queue::Queue;

use super::{
    dice::mix,
    platform::{AccountSpec, Way},
    webhooks::Parcel,
};
use bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

super::kinds! {
    /// What the contract page documents as arriving in an incoming webhook, and what integrators have seen.
    Kind {
        Text = "text",
        Empty = "empty",
        Segments = "segments",
        Stop = "stop",
        Start = "start",
        Help = "help",
        Mms = "mms",
        MmsOfTen = "mms_of_ten",
        MmsWithText = "mms_with_text",
        ShortCodeSender = "short_code_sender",
        // From here on WhatsApp alone.
        Image = "image",
        Voice = "voice",
        Document = "document",
        Sticker = "sticker",
        Location = "location",
        Contacts = "contacts",
        ButtonTap = "button_tap",
        ListTap = "list_tap",
        Flow = "flow",
        Quote = "quote",
        Forwarded = "forwarded",
        AdReply = "ad_reply",
        Unheard = "unheard",
    }
}

impl Kind {
    /// Whether it comes to a sender of this channel.
    pub fn comes_by(self, whatsapp: bool) -> bool {
        match self {
            Self::Text | Self::Empty | Self::Stop | Self::Start => true,
            Self::Segments | Self::Help | Self::Mms | Self::MmsOfTen | Self::MmsWithText | Self::ShortCodeSender => {
                !whatsapp
            }
            _ => whatsapp,
        }
    }

    /// Whether its text is the person's own and comes as it was written.
    pub fn carries_text(self) -> bool {
        matches!(
            self,
            Self::Text
                | Self::Segments
                | Self::MmsWithText
                | Self::Image
                | Self::Quote
                | Self::Forwarded
                | Self::AdReply
        )
    }

    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Mms | Self::Image => &["image/jpeg"],
            Self::MmsWithText => &["image/png", "video/3gpp"],
            Self::MmsOfTen => &[
                "image/jpeg",
                "image/png",
                "image/gif",
                "video/mp4",
                "audio/amr",
                "text/vcard",
                "application/pdf",
                "image/jpeg",
                "image/jpeg",
                "image/jpeg",
            ],
            Self::Voice => &["audio/ogg"],
            Self::Document => &["application/pdf"],
            Self::Sticker => &["image/webp"],
            Self::Contacts => &["text/vcard"],
            _ => &[],
        }
    }
}

/// Somebody who writes to a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texter {
    /// As in `From`.
    pub address: String,
    /// WhatsApp: digits of the phone, if it is shared.
    pub wa_id: Option<String>,
    /// WhatsApp: the business-scoped id, without its prefix.
    pub user_id: Option<String>,
    /// WhatsApp: the profile's name.
    pub name: String,
}

/// One incoming message in the making.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) kind: Kind,
    pub(super) account: &'a AccountSpec,
    pub(super) texter: &'a Texter,
    /// `SM…` or `MM…`.
    pub(super) sid: &'a str,
    /// A message it refers to.
    pub(super) about: &'a str,
    pub(super) text: &'a str,
    /// Whether the messaging service reads opt-out words itself.
    pub(super) advanced_opt_out: bool,
}

/// A request as it leaves: everything but how often it is tried.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) url: String,
    pub(super) body: Bytes,
    pub(super) content_type: Option<&'static str>,
    pub(super) signature: String,
}

/// Names and values, in the order in which they are sent.
pub(super) type Parameters = Vec<(String, String)>;

/// The parameters of an incoming message.
pub(super) fn parameters(incoming: &Incoming<'_>) -> Parameters {
    let Incoming { kind, account, texter, sid, about, text, .. } = *incoming;
    let whatsapp = account.is_twilio_whatsapp();
    let mut all = Parameters::new();
    let mut add = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
    if !whatsapp {
        for (name, value) in [("ToCountry", "US"), ("ToState", "OR"), ("ToCity", ""), ("ToZip", "")] {
            add(name, value);
        }
        for (name, value) in
            [("FromCountry", "US"), ("FromState", "OR"), ("FromCity", "PORTLAND"), ("FromZip", "97201")]
        {
            add(name, value);
        }
    }
    for name in ["SmsMessageSid", "SmsSid", "MessageSid"] {
        add(name, sid);
    }
    add("AccountSid", &account.account_sid);
    if let Some(service) = &account.messaging_service_sid {
        add("MessagingServiceSid", service);
    }
    add("SmsStatus", "received");
    let body = match kind {
        Kind::Stop => "STOP",
        Kind::Start => "Start",
        Kind::Help => "HELP",
        Kind::ButtonTap => "Track my parcel",
        Kind::ListTap => "Express",
        kind if kind.carries_text() => text,
        _ => "",
    };
    let opt_out = match kind {
        Kind::Stop => Some("STOP"),
        Kind::Start => Some("START"),
        Kind::Help => Some("HELP"),
        _ => None,
    };
    if let (Some(word), true) = (opt_out, incoming.advanced_opt_out) {
        add("OptOutType", word);
    }
    let files = kind.files();
    add("NumMedia", &files.len().to_string());
    add("NumSegments", if kind == Kind::Segments { "4" } else { "1" });
    for (at, file) in files.iter().enumerate() {
        let account = &account.account_sid;
        let url =
            format!("https://api.twilio.com/2010-04-01/Accounts/{account}/Messages/{sid}/Media/{}", media_sid(sid, at));
        add(&format!("MediaUrl{at}"), &url);
        add(&format!("MediaContentType{at}"), file);
    }
    if kind == Kind::Segments {
        add("Body", &format!("{text} ").repeat(8));
    } else {
        add("Body", body);
    }
    add("From", &texter.address);
    add("To", &account.id);
    if whatsapp {
        of_whatsapp(kind, texter, about, &mut add, &account.id);
    }
    add("ApiVersion", "2010-04-01");
    all
}

fn of_whatsapp(kind: Kind, texter: &Texter, about: &str, add: &mut impl FnMut(&str, &str), to: &str) {
    add("ProfileName", &texter.name);
    if let Some(wa_id) = &texter.wa_id {
        add("WaId", wa_id);
    }
    if let Some(user_id) = &texter.user_id {
        add("ExternalUserId", &format!("whatsapp:{user_id}"));
    }
    let kind_of_message = match kind {
        Kind::Image => "image",
        Kind::Voice => "audio",
        Kind::Document => "document",
        Kind::Sticker => "sticker",
        Kind::Location => "location",
        Kind::Contacts => "contacts",
        Kind::ButtonTap => "button",
        Kind::ListTap | Kind::Flow => "interactive",
        Kind::Unheard => "hologram",
        _ => "text",
    };
    add("MessageType", kind_of_message);
    let replied = |add: &mut dyn FnMut(&str, &str)| {
        add("OriginalRepliedMessageSid", about);
        add("OriginalRepliedMessageSender", to);
    };
    match kind {
        Kind::ButtonTap => {
            for (name, value) in
                [("ButtonText", "Track my parcel"), ("ButtonPayload", "track:8812"), ("ButtonType", "REPLY")]
            {
                add(name, value);
            }
            replied(add);
        }
        Kind::ListTap => {
            add("ListId", "ship-express");
            add("ListTitle", "Express");
            replied(add);
        }
        Kind::Flow => {
            add("InteractiveData", r#"{"type":"nfm_reply"}"#);
            add("FlowData", r#"{"flow_token":"ft-551","party_size":"4"}"#);
        }
        Kind::Location => {
            for (name, value) in [
                ("Latitude", "41.38792"),
                ("Longitude", "2.16992"),
                ("Address", "12 Harbour Walk"),
                ("Label", "North Pier Cafe"),
            ] {
                add(name, value);
            }
        }
        Kind::Quote => replied(add),
        Kind::AdReply => {
            for (name, value) in [
                ("ReferralSourceId", "120000000000000042"),
                ("ReferralSourceType", "ad"),
                ("ReferralSourceUrl", "https://fb.me/xYz12"),
                ("ReferralHeadline", "Autumn teas"),
                ("ReferralBody", "Two for one until Sunday"),
                ("ReferralCtwaClid", "ARx-invented-click-id"),
            ] {
                add(name, value);
            }
        }
        _ => {}
    }
    add("ReferralNumMedia", "0");
    add("Forwarded", if kind == Kind::Forwarded { "true" } else { "false" });
    add("FrequentlyForwarded", "false");
    let context = serde_json::json!({"type": "whatsapp", "data": {"context": {"ProfileName": texter.name, "WaId": texter.wa_id}}});
    add("ChannelMetadata", &context.to_string());
}

/// The request that carries these parameters to `url`, signed.
pub(super) fn request(account: &AccountSpec, token: &str, url: &str, parameters: &Parameters) -> Request {
    // What is overridden for the connection is not part of the address.
    let (url, fragment) = match url.split_once('#') {
        Some((url, fragment)) => (url, format!("#{fragment}")),
        None => (url, String::new()),
    };
    let with_query = |more: &str| format!("{url}{}{more}", if url.contains('?') { '&' } else { '?' });
    let (url, body, content_type, signature) = match account.way {
        Way::Form | Way::FormWithPort => {
            let signed = if account.way == Way::FormWithPort { sign::with_default_port(url) } else { url.to_owned() };
            let signature = sign::form(token, &signed, parameters);
            (
                url.to_owned(),
                form(parameters).into(),
                Some("application/x-www-form-urlencoded; charset=utf-8"),
                signature,
            )
        }
        Way::Get => {
            let url = with_query(&form(parameters));
            let signature = sign::url(token, &url);
            (url, Bytes::new(), None, signature)
        }
        Way::Json => {
            let object: Map<String, Value> =
                parameters.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
            let body = Value::from(object).to_string();
            let url = with_query(&format!("bodySHA256={}", sign::digest(body.as_bytes())));
            let signature = sign::url(token, &url);
            (url, body.into(), Some("application/json"), signature)
        }
    };
    Request { url: url + &fragment, body, content_type, signature }
}

/// The same for the fallback, with what became of the first address.
pub(super) fn to_fallback(parameters: &Parameters, first: &str) -> Parameters {
    let mut parameters = parameters.clone();
    parameters.push(("ErrorCode".into(), "11200".into()));
    parameters.push(("ErrorUrl".into(), first.split('#').next().unwrap_or_default().into()));
    parameters
}

impl Request {
    pub(super) fn into_parcel(self, idempotency_token: Uuid) -> Parcel {
        let Self { url, body, content_type, signature } = self;
        Parcel { url: Some(url), content_type, body, signature, idempotency_token: Some(idempotency_token.to_string()) }
    }
}

fn form(parameters: &Parameters) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

/// The n-th SID of a seed with this prefix.
pub(super) fn sid(prefix: &str, seed: u64, n: u64) -> String {
    format!("{prefix}{:016x}{n:016x}", mix(seed))
}

fn media_sid(message: &str, at: usize) -> String {
    let of_message = message.bytes().fold(at as u64, |sum, byte| mix(sum ^ u64::from(byte)));
    format!("ME{of_message:016x}{at:016x}")
}

#[cfg(test)]
mod tests {
    use super::super::platform::Platform;
    use super::*;

    fn sms() -> AccountSpec {
        AccountSpec::new(Platform::Twilio, "+15035550199")
    }

    fn texter() -> Texter {
        Texter { address: "+15035550142".into(), wa_id: None, user_id: None, name: String::new() }
    }

    fn value<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
        parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn made(kind: Kind, account: &AccountSpec) -> Parameters {
        let texter = texter();
        let sid = sid("SM", 1, 7);
        parameters(&Incoming {
            kind,
            account,
            texter: &texter,
            sid: &sid,
            about: "SM1",
            text: "Is size 42 back?",
            advanced_opt_out: true,
        })
    }

    #[test]
    fn text_message_has_the_documented_parameters() {
        let made = made(Kind::Text, &sms());
        for name in [
            "MessageSid",
            "SmsSid",
            "SmsMessageSid",
            "AccountSid",
            "From",
            "To",
            "Body",
            "NumMedia",
            "NumSegments",
            "SmsStatus",
            "ApiVersion",
        ] {
            assert!(value(&made, name).is_some(), "{name}");
        }
        assert_eq!(value(&made, "MessageSid").unwrap().len(), 34);
        assert_eq!((value(&made, "ToCity"), value(&made, "MessageStatus")), (Some(""), None));
        assert!(form(&made).contains("Body=Is+size+42+back%3F&From=%2B15035550142"));
    }

    #[test]
    fn ten_files_are_numbered_from_nought() {
        let made = made(Kind::MmsOfTen, &sms());
        assert_eq!(value(&made, "NumMedia"), Some("10"));
        assert!(value(&made, "MediaUrl9").is_some_and(|url| url.starts_with("https://api.twilio.com/")));
        assert_eq!((value(&made, "MediaContentType9"), value(&made, "MediaUrl10")), (Some("image/jpeg"), None));
    }

    #[test]
    fn each_way_carries_the_same_parameters() {
        let parameters = made(Kind::Stop, &sms());
        assert_eq!(value(&parameters, "OptOutType"), Some("STOP"));
        let url = "https://hooks.example.com/in?k=1#rc=5&rp=all";
        let sent = |way| request(&AccountSpec { way, ..sms() }, "token", url, &parameters);
        let get = sent(Way::Get);
        assert!(
            get.body.is_empty()
                && get.url.starts_with("https://hooks.example.com/in?k=1&ToCountry=US")
                && get.url.ends_with("#rc=5&rp=all")
        );
        let json = sent(Way::Json);
        let body: Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(body["Body"], "STOP");
        assert!(json.url.contains(&format!("&bodySHA256={}", sign::digest(&json.body))));
        assert_ne!(sent(Way::Form).signature, sent(Way::FormWithPort).signature);
        assert_eq!(sent(Way::Form).url, url);
    }
}
