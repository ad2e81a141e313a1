//! A message to be sent, for the tables of every provider's `send` and `answer`.

use crate::{
    domain::{
        channel::{Channel, Provider},
        content::OutboundContent,
        events::SendToken,
        ids::FileId,
        people::{Recipient, RecipientKind},
    },
    providers::sending::{Body, Handle, Handles, Outgoing, Sender, Unsendable},
};
use serde_json::{Value, json};
use uuid::Uuid;

/// What comes back of a send, as text.
pub(in crate::providers) const TOKEN: &str = "m1:0193e6b5a1c27d3e8f4a5b6c7d8e9f00:0193e6b5a1c27d3e8f4a5b6c7d8e9f01";
/// A file that the provider has.
pub(in crate::providers) const UPLOADED: FileId = FileId(Uuid::from_u128(7));
/// A file that the provider can fetch.
pub(in crate::providers) const SHARED: FileId = FileId(Uuid::from_u128(8));

/// One message and everything it refers to.
pub(in crate::providers) struct Example {
    pub(in crate::providers) sender: Sender,
    pub(in crate::providers) recipient: (RecipientKind, &'static str),
    pub(in crate::providers) content: OutboundContent,
    pub(in crate::providers) files: Handles,
    pub(in crate::providers) refers_to: Option<&'static str>,
    pub(in crate::providers) human_agent: bool,
    /// For how long it is of use.
    pub(in crate::providers) valid_for: Option<std::time::Duration>,
    pub(in crate::providers) token: SendToken,
}

impl Example {
    /// From an account of this provider's to a person of the channel's.
    pub(in crate::providers) fn new(provider: Provider, channel: Channel, content: OutboundContent) -> Self {
        let recipient = match channel {
            Channel::Messenger => (RecipientKind::Psid, "24000000000000077"),
            Channel::Instagram => (RecipientKind::Igsid, "980000000000066"),
            Channel::Whatsapp | Channel::Sms => (RecipientKind::Phone, "+14155550188"),
        };
        let external_id = match (provider, channel) {
            (Provider::Twilio, Channel::Whatsapp) => "whatsapp:+15035550199",
            (Provider::Twilio, _) => "+15035550199",
            _ => "100900000000001",
        };
        let sender = Sender { provider, channel, external_id: external_id.into(), status_url: None, gateway: None };
        let files = [
            (UPLOADED, Handle::Id("770000000000031".into())),
            (SHARED, Handle::Link("https://files.shop.example/map.png".into())),
        ];
        let token = SendToken::decode(TOKEN).unwrap();
        let files = Handles::from(files);
        Self { sender, recipient, content, files, refers_to: None, human_agent: false, valid_for: None, token }
    }

    /// As a provider is given it.
    pub(in crate::providers) fn outgoing(&self) -> Outgoing<'_> {
        let (kind, address) = self.recipient;
        Outgoing {
            sender: &self.sender,
            recipient: Recipient { kind, address },
            content: &self.content,
            files: &self.files,
            token: &self.token,
            refers_to: self.refers_to,
            human_agent: self.human_agent,
            valid_for: self.valid_for,
        }
    }

    /// The request's body: JSON as it is, a form as the list of its pairs, what cannot be sent as its reason.
    pub(in crate::providers) fn written(&self, request: fn(&Outgoing<'_>) -> Result<Body, Unsendable>) -> Value {
        match request(&self.outgoing()) {
            Ok(Body::Json(body)) => serde_json::from_slice(&body).unwrap(),
            Ok(Body::Form(body)) => {
                url::form_urlencoded::parse(body.as_bytes()).map(|(name, value)| json!([name, value])).collect()
            }
            Err(unsendable) => Value::String(unsendable.to_string()),
        }
    }
}

/// Content as the API is given it.
pub(in crate::providers) fn content(content: Value) -> OutboundContent {
    serde_json::from_value(content.clone()).unwrap_or_else(|error| panic!("{error}: {content}"))
}

/// An answer of Meta's that refuses; subcode 0 for none.
pub(in crate::providers) fn error(code: u32, subcode: u32) -> String {
    let mut error =
        json!({"message": format!("(#{code}) no"), "type": "OAuthException", "code": code, "fbtrace_id": "B0"});
    if subcode != 0 {
        error["error_subcode"] = subcode.into();
    }
    json!({"error": error}).to_string()
}
