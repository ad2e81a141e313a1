//! From a message to a gateway's call, as its [description](super::config) says. Makes no call; what the answer means is
//! [`answer`](super::answer)'s.

use super::config::{GatewayConfig, Method, Place, WHATSAPP_PREFIX};
use crate::{
    domain::content::{Audio, Document, FileRef, Image, OutboundContent, Text, Video},
    providers::sending::{Body, Outgoing, Unsendable},
};
use serde_json::{Map, Value};
use url::{Url, form_urlencoded::Serializer};

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// By which method.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// With these headers.
    pub headers: Vec<(String, String)>,
    /// With this body.
    pub body: Option<Body>,
}

/// What is put in the places.
struct Values<'a> {
    sender: &'a str,
    recipient: &'a str,
    text: Option<&'a str>,
    media_url: Option<String>,
    token: &'a str,
}

/// The call for a message. `token` is the account's secret.
///
/// # Errors
/// If the gateway carries nothing of the kind, or a file of it is not at hand.
pub fn request(config: &GatewayConfig, token: &str, message: &Outgoing<'_>) -> Result<Request, Unsendable> {
    let kind = message.content.type_name();
    if !config.carries.iter().any(|carried| carried == kind) {
        return Err(Unsendable::kind(message));
    }
    let (text, file) = said(message.content).ok_or_else(|| Unsendable::kind(message))?;
    let sender = &message.sender.external_id;
    let values = Values {
        sender: sender.strip_prefix(WHATSAPP_PREFIX).unwrap_or(sender).trim_start_matches('+'),
        recipient: message.recipient.address,
        text,
        media_url: file.map(|file| message.link(file)).transpose()?,
        token,
    };
    let mut url = Url::parse(&config.url).map_err(|_| Unsendable("the gateway's address is none".to_owned()))?;
    let fields = values.object(&config.fields);
    let body = match config.body {
        Place::Json => Some(Body::Json(serde_json::to_vec(&fields).expect("a JSON object serialises"))),
        Place::Form => {
            let mut form = Serializer::new(String::new());
            form.extend_pairs(fields.iter().map(|(name, value)| (name, plain(value))));
            Some(Body::Form(form.finish()))
        }
        Place::Query => {
            url.query_pairs_mut().extend_pairs(fields.iter().map(|(name, value)| (name, plain(value))));
            None
        }
    };
    let header = |(name, value): (&String, &String)| Some((name.clone(), values.fill(value)?));
    let headers = config.headers.iter().filter_map(header).collect();
    Ok(Request { method: config.method, url, headers, body })
}

/// The words and the file of a content.
fn said(content: &OutboundContent) -> Option<(Option<&str>, Option<&FileRef>)> {
    use OutboundContent as Is;
    match content {
        Is::Text(Text { text, .. }) => Some((Some(text), None)),
        Is::Image(Image { file, caption })
        | Is::Video(Video { file, caption })
        | Is::Document(Document { file, caption, .. }) => Some((caption.as_deref(), Some(file))),
        Is::Audio(Audio { file, .. }) => Some((None, Some(file))),
        _ => None,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Values<'_> {
    fn object(&self, fields: &Map<String, Value>) -> Map<String, Value> {
        fields.iter().filter_map(|(name, value)| Some((name.clone(), self.value(value)?))).collect()
    }

    fn value(&self, value: &Value) -> Option<Value> {
        Some(match value {
            Value::String(text) => self.fill(text)?.into(),
            Value::Object(fields) => self.object(fields).into(),
            Value::Array(items) => items.iter().filter_map(|item| self.value(item)).collect(),
            other => other.clone(),
        })
    }

    /// A text with its places filled, each once: what is put in is not looked through again. `None` if nothing is left of it because
    /// the message has no such thing.
    fn fill(&self, text: &str) -> Option<String> {
        let (mut filled, mut rest, mut is_missing) = (String::with_capacity(text.len()), text, false);
        while let Some(start) = rest.find('{') {
            filled.push_str(&rest[..start]);
            rest = &rest[start..];
            let place = rest.find('}').map(|end| &rest[..=end]);
            match place.and_then(|place| Some((place, self.of(place)?))) {
                Some((place, value)) => {
                    is_missing |= value.is_none();
                    filled.push_str(value.unwrap_or_default());
                    rest = &rest[place.len()..];
                }
                None => {
                    filled.push('{');
                    rest = &rest[1..];
                }
            }
        }
        filled.push_str(rest);
        (!(is_missing && filled.trim().is_empty())).then_some(filled)
    }

    /// What belongs in a place; `None` if it is none of ours.
    fn of(&self, place: &str) -> Option<Option<&str>> {
        Some(match place {
            "{sender}" => Some(self.sender),
            "{recipient}" => Some(self.recipient),
            "{recipient_digits}" => Some(self.recipient.trim_start_matches('+')),
            "{text}" => self.text,
            "{media_url}" => self.media_url.as_deref(),
            "{token}" => Some(self.token),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::channel::{Channel, Provider},
        providers::{
            gateway::preset,
            testing::sending::{Example, SHARED, content},
        },
    };
    use serde_json::json;

    fn example(said: Value) -> Example {
        let mut example = Example::new(Provider::Gateway, Channel::Whatsapp, content(said));
        example.sender.external_id = "whatsapp:+919800000001".into();
        example
    }

    fn json_of(request: &Request) -> Value {
        match &request.body {
            Some(Body::Json(body)) => serde_json::from_slice(body).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_to_botmaster_is_what_its_clients_send() {
        let config = preset("botmaster").unwrap();
        let hello = example(json!({"type": "text", "text": "Hello {token} {Mara}"}));
        let request = super::request(&config, "tok_1", &hello.outgoing()).unwrap();
        assert_eq!((request.method, request.url.as_str()), (Method::Post, config.url.as_str()));
        let expected = json!({"senderId": "919800000001", "receiverId": "14155550188", "messageText": "Hello {token} {Mara}", "authToken": "tok_1"});
        assert_eq!(json_of(&request), expected, "what a person wrote is not looked through for places");
        let picture = example(json!({"type": "image", "file": {"id": SHARED}, "caption": "Here"}));
        let refused = super::request(&config, "tok_1", &picture.outgoing()).unwrap_err().to_string();
        assert_eq!(refused, "gateway has no messages of the type image");
        let config = GatewayConfig { carries: vec!["text".into(), "image".into()], ..config };
        let request = super::request(&config, "tok_1", &picture.outgoing()).unwrap();
        let expected = json!({"senderId": "919800000001", "receiverId": "14155550188", "messageText": "Here",
            "mediaurl": "https://files.shop.example/map.png", "authToken": "tok_1"});
        assert_eq!(json_of(&request), expected);
    }

    #[test]
    fn fields_go_where_the_description_says() {
        let mut config = preset("botmaster").unwrap();
        let Value::Object(fields) = json!({"to": "{recipient}", "text": "{text}!", "from": "{sender}", "flash": 0})
        else {
            panic!("an object")
        };
        config.fields = fields;
        config.headers = [("Authorization".to_owned(), "Key {token}".to_owned())].into();
        let hello = example(json!({"type": "text", "text": "a&b=c + é"}));
        config.body = Place::Form;
        let request = super::request(&config, "tok_1", &hello.outgoing()).unwrap();
        let form = "flash=0&from=919800000001&text=a%26b%3Dc+%2B+%C3%A9%21&to=%2B14155550188";
        assert_eq!(request.body, Some(Body::Form(form.into())));
        assert_eq!(request.headers, [("Authorization".to_owned(), "Key tok_1".to_owned())]);
        (config.body, config.method) = (Place::Query, Method::Get);
        let request = super::request(&config, "tok_1", &hello.outgoing()).unwrap();
        assert_eq!((request.method, request.body), (Method::Get, None));
        assert_eq!(request.url.query(), Some(format!("action=send&{form}").as_str()));
        config.body = Place::Json;
        config.fields = json!({"a": [{"to": "{recipient}"}, "{media_url}"], "b": {"text": "{text}", "c": "{open"}})
            .as_object()
            .unwrap()
            .clone();
        let request = super::request(&config, "tok_1", &hello.outgoing()).unwrap();
        assert_eq!(json_of(&request), json!({"a": [{"to": "+14155550188"}], "b": {"text": "a&b=c + é", "c": "{open"}}));
    }
}
