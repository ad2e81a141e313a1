//! From a message to the request for `POST /{version}/{number}/messages` (contract, section 7). Makes no call; what the
//! answer means is [`answer`](super::answer)'s.

use crate::{
    domain::{
        content::{
            Album, Audio, Button, Buttons, Catalog, ContactCard, ContactRequest, Document, Flow, Header, Image, List,
            LocationRequest, OutboundContent, Product, ProductList, Reaction, Sticker, Text, Video,
        },
        people::{Recipient, RecipientKind},
    },
    providers::{
        http::Signal,
        meta::template::{components, file, place, product_sections},
        sending::{Body, Outgoing, Unsendable},
    },
};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// The path of the call, with its leading slash. The id is opaque and cannot leave its segment.
pub fn path(version: &str, phone_number_id: &str) -> String {
    let mut path = String::with_capacity(64);
    for segment in [version, phone_number_id] {
        path.push('/');
        for byte in segment.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => path.push(byte.into()),
                _ => write!(path, "%{byte:02X}").expect("writing to a string"),
            }
        }
    }
    path + "/messages"
}

/// The body of the call. The token comes back in every status: it is the evidence of an attempt whose answer was lost, for the call has
/// no idempotency key.
///
/// # Errors
/// If WhatsApp has nothing of the kind, or a file of it is not at hand.
pub fn request(message: &Outgoing<'_>) -> Result<Body, Unsendable> {
    let Recipient { kind, address } = message.recipient;
    let (name, content) = content(message)?;
    let mut request = Map::new();
    let mut put = |key: &str, value: Value| drop(request.insert(key.to_owned(), value));
    put("messaging_product", "whatsapp".into());
    put("recipient_type", "individual".into());
    put(if kind == RecipientKind::Bsuid { "recipient" } else { "to" }, address.into());
    // A reaction names its message itself and quotes none.
    let quoted = message.refers_to.filter(|_| !matches!(message.content, OutboundContent::Reaction(_)));
    if let Some(message_id) = quoted {
        put("context", json!({"message_id": message_id}));
    }
    put("biz_opaque_callback_data", message.token.encode().into());
    put("type", name.into());
    put(name, content);
    Ok(Body::Json(serde_json::to_vec(&request).expect("strings and lists always serialise")))
}

/// The body of a call to the same path that marks as read, and says that an answer is being written (contract, section 7.5).
pub(in crate::providers) fn signal(signal: Signal<'_>) -> Body {
    let (message_id, typing) = match signal {
        Signal::Read { message_id } => (message_id, None),
        Signal::Typing { message_id } => (message_id, Some(json!({"type": "text"}))),
    };
    let mut body = json!({"messaging_product": "whatsapp", "status": "read", "message_id": message_id});
    if let Some(typing) = typing {
        body["typing_indicator"] = typing;
    }
    Body::Json(body.to_string().into_bytes())
}

/// WhatsApp's name of the type, and what stands under it.
fn content(message: &Outgoing<'_>) -> Result<(&'static str, Value), Unsendable> {
    use OutboundContent as Is;
    let with = |at, more: &[(&str, Option<&str>)]| -> Result<Value, Unsendable> {
        let mut object = file(message, at)?;
        object.extend(more.iter().filter_map(|(key, words)| Some(((*key).to_owned(), Value::from((*words)?)))));
        Ok(Value::Object(object))
    };
    Ok(match message.content {
        Is::Text(Text { text, preview_url, .. }) => ("text", json!({"preview_url": preview_url, "body": text})),
        Is::Template(template) => {
            let mut filled = json!({"name": template.name, "language": {"code": template.language}});
            let components = components(message, template)?;
            if !components.is_empty() {
                filled["components"] = components.into();
            }
            ("template", filled)
        }
        Is::Image(Image { file, caption }) => ("image", with(file, &[("caption", caption.as_deref())])?),
        Is::Video(Video { file, caption }) => ("video", with(file, &[("caption", caption.as_deref())])?),
        Is::Audio(Audio { file, voice }) => {
            let mut audio = with(file, &[])?;
            if *voice {
                audio["voice"] = true.into();
            }
            ("audio", audio)
        }
        Is::Document(Document { file, caption, filename }) => {
            let more = [("caption", caption.as_deref()), ("filename", filename.as_deref())];
            ("document", with(file, &more)?)
        }
        Is::Sticker(Sticker { file }) => ("sticker", with(file, &[])?),
        Is::Location(location) => ("location", place(location)),
        Is::Contacts(contacts) => ("contacts", contacts.contacts.iter().map(card).collect()),
        Is::Reaction(Reaction { emoji, .. }) => ("reaction", json!({"message_id": message.target()?, "emoji": emoji})),
        Is::Buttons(_)
        | Is::List(_)
        | Is::Flow(_)
        | Is::Product(_)
        | Is::ProductList(_)
        | Is::Catalog(_)
        | Is::LocationRequest(_)
        | Is::ContactRequest(_) => ("interactive", interactive(message)?),
        Is::Album(Album { .. }) | Is::Cards(_) | Is::Heart(_) | Is::Post(_) => return Err(Unsendable::kind(message)),
    })
}

/// Words with something to tap on (contract, section 7.3).
fn interactive(message: &Outgoing<'_>) -> Result<Value, Unsendable> {
    use OutboundContent as Is;
    let titled = |text: Option<&str>| text.map(|text| json!({"type": "text", "text": text}));
    let (kind, header, text, footer, action) = match message.content {
        Is::Buttons(Buttons { text, header, footer, buttons }) => {
            let (kind, action) = tapped(buttons).ok_or_else(|| Unsendable::kind(message))?;
            (kind, headed(message, header.as_ref())?, Some(text), footer, action)
        }
        Is::List(List { text, header, footer, button, sections }) => {
            let section = |section: &crate::domain::content::ListSection| {
                let mut listed = json!({"rows": section.rows});
                if let Some(title) = &section.title {
                    listed["title"] = title.as_str().into();
                }
                listed
            };
            let sections: Vec<Value> = sections.iter().map(section).collect();
            let action = json!({"button": button, "sections": sections});
            ("list", titled(header.as_deref()), Some(text), footer, action)
        }
        Is::Flow(flow @ Flow { text, header, footer, .. }) => {
            ("flow", headed(message, header.as_ref())?, Some(text), footer, form(flow))
        }
        Is::Product(Product { catalog_id, product_id, text, footer }) => {
            let action = json!({"catalog_id": catalog_id, "product_retailer_id": product_id});
            ("product", None, text.as_ref(), footer, action)
        }
        Is::ProductList(ProductList { text, header, footer, catalog_id, sections }) => {
            let action = json!({"catalog_id": catalog_id, "sections": product_sections(sections)});
            ("product_list", titled(Some(header)), Some(text), footer, action)
        }
        Is::Catalog(Catalog { text, footer, thumbnail_product_id }) => {
            let mut action = json!({"name": "catalog_message"});
            if let Some(product) = thumbnail_product_id {
                action["parameters"] = json!({"thumbnail_product_retailer_id": product});
            }
            ("catalog_message", None, Some(text), footer, action)
        }
        Is::LocationRequest(LocationRequest { text }) => {
            ("location_request_message", None, Some(text), &None, json!({"name": "send_location"}))
        }
        Is::ContactRequest(ContactRequest { text }) => {
            ("contact_request", None, Some(text), &None, json!({"name": "request_contact_info"}))
        }
        _ => return Err(Unsendable::kind(message)),
    };
    let mut interactive = json!({"type": kind, "action": action});
    if let Some(header) = header {
        interactive["header"] = header;
    }
    if let Some(text) = text {
        interactive["body"] = json!({"text": text});
    }
    if let Some(footer) = footer {
        interactive["footer"] = json!({"text": footer});
    }
    Ok(interactive)
}

/// Buttons to answer with, or the one that leads to an address; `None` of any other mixture.
fn tapped(buttons: &[Button]) -> Option<(&'static str, Value)> {
    if let [Button::Url { title, url }] = buttons {
        let parameters = json!({"display_text": title, "url": url});
        return Some(("cta_url", json!({"name": "cta_url", "parameters": parameters})));
    }
    let reply = |button: &Button| match button {
        Button::Reply { title, id } => Some(json!({"type": "reply", "reply": {"id": id, "title": title}})),
        Button::Url { .. } | Button::Call { .. } => None,
    };
    let buttons: Option<Vec<Value>> = buttons.iter().map(reply).collect();
    Some(("button", json!({"buttons": buttons?})))
}

fn headed(message: &Outgoing<'_>, header: Option<&Header>) -> Result<Option<Value>, Unsendable> {
    Ok(Some(match header {
        None => return Ok(None),
        Some(Header::Text { text }) => json!({"type": "text", "text": text}),
        Some(Header::Image { file: picture }) => json!({"type": "image", "image": file(message, picture)?}),
        Some(Header::Video { file: film }) => json!({"type": "video", "video": file(message, film)?}),
        Some(Header::Document { file: document, filename }) => {
            let mut document = file(message, document)?;
            document.extend(filename.as_ref().map(|name| ("filename".to_owned(), name.as_str().into())));
            json!({"type": "document", "document": document})
        }
    }))
}

/// What opens a form: at a screen of it, or where its own server says.
fn form(flow: &Flow) -> Value {
    let mut parameters = json!({
        "flow_message_version": "3",
        "flow_id": flow.flow_id,
        "flow_cta": flow.button,
        "flow_action": if flow.screen.is_some() { "navigate" } else { "data_exchange" },
    });
    if flow.draft {
        parameters["mode"] = "draft".into();
    }
    if let Some(token) = &flow.token {
        parameters["flow_token"] = token.as_str().into();
    }
    if let Some(screen) = &flow.screen {
        let mut payload = json!({"screen": screen});
        // An empty object is refused.
        if let Some(data) = flow.data.as_ref().filter(|data| !data.is_empty()) {
            payload["data"] = Value::Object(data.clone());
        }
        parameters["flow_action_payload"] = payload;
    }
    json!({"name": "flow", "parameters": parameters})
}

/// A contact card; the words are ours but for one (contract, section 3.1).
fn card(card: &ContactCard) -> Value {
    let mut written = serde_json::to_value(card).expect("a card always serialises");
    if let Some(organization) = written.as_object_mut().and_then(|card| card.remove("organization")) {
        written["org"] = organization;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            channel::{Channel, Provider},
            content::Template,
            events::SendToken,
            ids::FileId,
        },
        providers::sending::{Handle, Handles, Sender},
    };
    use uuid::Uuid;

    const UPLOADED: FileId = FileId(Uuid::from_u128(7));
    const TOKEN: &str = "m1:0193e6b5a1c27d3e8f4a5b6c7d8e9f00:0193e6b5a1c27d3e8f4a5b6c7d8e9f01";

    fn sent(content: OutboundContent, recipient: Recipient<'_>, refers_to: Option<&str>) -> Value {
        let sender = Sender {
            provider: Provider::Whatsapp,
            channel: Channel::Whatsapp,
            external_id: "330000000000009".into(),
            status_url: None,
            gateway: None,
        };
        let token = SendToken::decode(TOKEN).unwrap();
        let files = Handles::from([(UPLOADED, Handle::Id("880200000000001".into()))]);
        let message = Outgoing {
            sender: &sender,
            recipient,
            content: &content,
            files: &files,
            token: &token,
            refers_to,
            human_agent: false,
            valid_for: None,
        };
        match request(&message) {
            Ok(Body::Json(body)) => serde_json::from_slice(&body).unwrap(),
            Ok(other) => panic!("{other:?}"),
            Err(unsendable) => Value::String(unsendable.to_string()),
        }
    }

    fn read(content: Value) -> OutboundContent {
        serde_json::from_value(content).unwrap()
    }

    #[test]
    fn a_request_is_what_the_contract_shows() {
        let phone = Recipient { kind: RecipientKind::Phone, address: "+15557770142" };
        let text =
            |text: &str, preview_url| OutboundContent::Text(Text { text: text.into(), preview_url, ..Text::default() });
        let template = |variables: &[&str]| {
            OutboundContent::Template(Template {
                name: "booking_reminder".into(),
                language: "en_US".into(),
                variables: variables.iter().map(|value| (*value).to_owned()).collect(),
                ..Template::default()
            })
        };
        for (content, to, quoted, expected) in [
            (
                text("Your parcel left our warehouse.", false),
                phone,
                None,
                json!({"messaging_product":"whatsapp","recipient_type":"individual","to":"+15557770142","biz_opaque_callback_data":TOKEN,
                    "type":"text","text":{"preview_url":false,"body":"Your parcel left our warehouse."}}),
            ),
            (
                text("„see“ https://x.example \\ 👍", true),
                Recipient { kind: RecipientKind::Bsuid, address: "US.70311904455821" },
                Some("wamid.U0JYLUlOLVRYVA=="),
                json!({"messaging_product":"whatsapp","recipient_type":"individual","recipient":"US.70311904455821","biz_opaque_callback_data":TOKEN,
                    "context":{"message_id":"wamid.U0JYLUlOLVRYVA=="},"type":"text","text":{"preview_url":true,"body":"„see“ https://x.example \\ 👍"}}),
            ),
            (
                template(&["Ada", "4 Dec, 09:30"]),
                phone,
                None,
                json!({"messaging_product":"whatsapp","recipient_type":"individual","to":"+15557770142","biz_opaque_callback_data":TOKEN,
                    "type":"template","template":{"name":"booking_reminder","language":{"code":"en_US"},
                    "components":[{"type":"body","parameters":[{"type":"text","text":"Ada"},{"type":"text","text":"4 Dec, 09:30"}]}]}}),
            ),
            (
                template(&[]),
                phone,
                None,
                json!({"messaging_product":"whatsapp","recipient_type":"individual","to":"+15557770142","biz_opaque_callback_data":TOKEN,
                    "type":"template","template":{"name":"booking_reminder","language":{"code":"en_US"}}}),
            ),
        ] {
            assert_eq!(sent(content, to, quoted), expected);
        }
    }

    /// What stands under the type's name, of every kind (contract, sections 7.2 to 7.4).
    #[test]
    fn every_kind_is_written_as_the_contract_shows() {
        let uploaded = || json!({"id": UPLOADED});
        let linked = || json!({"link": "https://files.shop.example/inv-77.pdf"});
        for (content, kind, expected) in [
            (
                json!({"type": "image", "file": uploaded(), "caption": "Here it is"}),
                "image",
                json!({"id": "880200000000001", "caption": "Here it is"}),
            ),
            (
                json!({"type": "document", "file": linked(), "filename": "inv-77.pdf", "caption": "Invoice 77"}),
                "document",
                json!({"link": "https://files.shop.example/inv-77.pdf", "filename": "inv-77.pdf", "caption": "Invoice 77"}),
            ),
            (
                json!({"type": "audio", "file": uploaded(), "voice": true}),
                "audio",
                json!({"id": "880200000000001", "voice": true}),
            ),
            (json!({"type": "audio", "file": uploaded()}), "audio", json!({"id": "880200000000001"})),
            (
                json!({"type": "video", "file": uploaded(), "caption": "How to descale"}),
                "video",
                json!({"id": "880200000000001", "caption": "How to descale"}),
            ),
            (json!({"type": "sticker", "file": uploaded()}), "sticker", json!({"id": "880200000000001"})),
            (
                json!({"type": "location", "latitude": 41.38792, "longitude": 2.16992, "name": "North Pier Cafe", "address": "12 Harbour Walk"}),
                "location",
                json!({"latitude": "41.38792", "longitude": "2.16992", "name": "North Pier Cafe", "address": "12 Harbour Walk"}),
            ),
            (
                json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "Support desk", "first_name": "Support"},
                    "phones": [{"phone": "+15557770101", "type": "WORK", "wa_id": "15557770101"}],
                    "organization": {"company": "Mehta Clinic"}}]}),
                "contacts",
                json!([{"name": {"formatted_name": "Support desk", "first_name": "Support"},
                    "phones": [{"phone": "+15557770101", "type": "WORK", "wa_id": "15557770101"}],
                    "org": {"company": "Mehta Clinic"}}]),
            ),
            (
                json!({"type": "buttons", "text": "Which slot suits you?", "header": {"type": "text", "text": "Appointment"},
                    "footer": "Reply any time", "buttons": [{"type": "reply", "id": "slot-0930", "title": "09:30"},
                    {"type": "reply", "id": "slot-1400", "title": "14:00"}]}),
                "interactive",
                json!({"type":"button","header":{"type":"text","text":"Appointment"},"body":{"text":"Which slot suits you?"},
                    "footer":{"text":"Reply any time"},"action":{"buttons":[{"type":"reply","reply":{"id":"slot-0930","title":"09:30"}},
                    {"type":"reply","reply":{"id":"slot-1400","title":"14:00"}}]}}),
            ),
            (
                json!({"type": "buttons", "text": "Track your order", "header": {"type": "document", "file": linked(), "filename": "a.pdf"},
                    "buttons": [{"type": "url", "title": "Track", "url": "https://shop.example/t/77"}]}),
                "interactive",
                json!({"type":"cta_url","header":{"type":"document","document":{"link":"https://files.shop.example/inv-77.pdf","filename":"a.pdf"}},
                    "body":{"text":"Track your order"},
                    "action":{"name":"cta_url","parameters":{"display_text":"Track","url":"https://shop.example/t/77"}}}),
            ),
            (
                json!({"type": "list", "text": "Choose a method", "header": "Shipping", "footer": "Prices include tax",
                    "button": "See methods", "sections": [
                    {"title": "Fast", "rows": [{"id": "ship-express", "title": "Express", "description": "Next working day"}]},
                    {"title": "Saver", "rows": [{"id": "ship-std", "title": "Standard"}]}]}),
                "interactive",
                json!({"type":"list","header":{"type":"text","text":"Shipping"},"body":{"text":"Choose a method"},
                    "footer":{"text":"Prices include tax"},"action":{"button":"See methods","sections":[
                    {"title":"Fast","rows":[{"id":"ship-express","title":"Express","description":"Next working day"}]},
                    {"title":"Saver","rows":[{"id":"ship-std","title":"Standard"}]}]}}),
            ),
            (
                json!({"type": "flow", "text": "Book a table", "flow_id": "550000000000021", "button": "Book", "token": "ft-551",
                    "screen": "WELCOME", "data": {"shop": "harbour"}}),
                "interactive",
                json!({"type":"flow","body":{"text":"Book a table"},"action":{"name":"flow","parameters":{"flow_message_version":"3",
                    "flow_id":"550000000000021","flow_cta":"Book","flow_token":"ft-551","flow_action":"navigate",
                    "flow_action_payload":{"screen":"WELCOME","data":{"shop":"harbour"}}}}}),
            ),
            (
                json!({"type": "flow", "text": "Book", "flow_id": "55", "button": "Book", "draft": true}),
                "interactive",
                json!({"type":"flow","body":{"text":"Book"},"action":{"name":"flow","parameters":{"flow_message_version":"3",
                    "flow_id":"55","flow_cta":"Book","flow_action":"data_exchange","mode":"draft"}}}),
            ),
            (
                json!({"type": "product", "catalog_id": "640000000000003", "product_id": "tea-green-100", "footer": "While stocks last"}),
                "interactive",
                json!({"type":"product","footer":{"text":"While stocks last"},
                    "action":{"catalog_id":"640000000000003","product_retailer_id":"tea-green-100"}}),
            ),
            (
                json!({"type": "product_list", "text": "Our picks", "header": "Teas", "catalog_id": "640000000000003",
                    "sections": [{"title": "Green", "product_ids": ["tea-green-100"]}]}),
                "interactive",
                json!({"type":"product_list","header":{"type":"text","text":"Teas"},"body":{"text":"Our picks"},
                    "action":{"catalog_id":"640000000000003","sections":[{"title":"Green","product_items":[{"product_retailer_id":"tea-green-100"}]}]}}),
            ),
            (
                json!({"type": "catalog", "text": "Our teas", "thumbnail_product_id": "tea-green-100"}),
                "interactive",
                json!({"type":"catalog_message","body":{"text":"Our teas"},"action":{"name":"catalog_message",
                    "parameters":{"thumbnail_product_retailer_id":"tea-green-100"}}}),
            ),
            (
                json!({"type": "catalog", "text": "Our teas"}),
                "interactive",
                json!({"type":"catalog_message","body":{"text":"Our teas"},"action":{"name":"catalog_message"}}),
            ),
            (
                json!({"type": "location_request", "text": "Where are you?"}),
                "interactive",
                json!({"type":"location_request_message","body":{"text":"Where are you?"},"action":{"name":"send_location"}}),
            ),
            (
                json!({"type": "contact_request", "text": "Your number, please"}),
                "interactive",
                json!({"type":"contact_request","body":{"text":"Your number, please"},"action":{"name":"request_contact_info"}}),
            ),
        ] {
            let phone = Recipient { kind: RecipientKind::Phone, address: "+15557770142" };
            let request = sent(read(content.clone()), phone, None);
            assert_eq!(request["type"], kind, "{content} {request}");
            assert_eq!(request[kind], expected, "{content}");
        }
    }

    #[test]
    fn a_template_is_filled_in_all_its_places() {
        for (content, expected) in [
            (
                json!({"header": {"type": "image", "file": {"id": UPLOADED}}, "variables": ["Ada", "4 Dec, 09:30"],
                    "buttons": [{"type": "quick_reply", "index": 0, "payload": "CONFIRM-7781"}, {"type": "url", "index": 1, "text": "7781"}]}),
                json!([{"type":"header","parameters":[{"type":"image","image":{"id":"880200000000001"}}]},
                    {"type":"body","parameters":[{"type":"text","text":"Ada"},{"type":"text","text":"4 Dec, 09:30"}]},
                    {"type":"button","sub_type":"quick_reply","index":"0","parameters":[{"type":"payload","payload":"CONFIRM-7781"}]},
                    {"type":"button","sub_type":"url","index":"1","parameters":[{"type":"text","text":"7781"}]}]),
            ),
            (
                json!({"named_variables": {"first_name": "Ada", "slot": "09:30"}, "header": {"type": "text", "text": "4", "name": "day"}}),
                json!([{"type":"header","parameters":[{"type":"text","parameter_name":"day","text":"4"}]},
                    {"type":"body","parameters":[{"type":"text","parameter_name":"first_name","text":"Ada"},
                    {"type":"text","parameter_name":"slot","text":"09:30"}]}]),
            ),
            // An authentication template: the code in its two places.
            (
                json!({"variables": ["123456"], "buttons": [{"type": "url", "index": 0, "text": "123456"}]}),
                json!([{"type":"body","parameters":[{"type":"text","text":"123456"}]},
                    {"type":"button","sub_type":"url","index":"0","parameters":[{"type":"text","text":"123456"}]}]),
            ),
            (
                json!({"header": {"type": "video", "file": {"link": "https://a.example/v"}}, "offer_expires_at": "2026-11-17T12:00:00Z",
                    "buttons": [{"type": "copy_code", "index": 0, "code": "TEA20"}]}),
                json!([{"type":"header","parameters":[{"type":"video","video":{"link":"https://a.example/v"}}]},
                    {"type":"limited_time_offer","parameters":[{"type":"limited_time_offer","limited_time_offer":{"expiration_time_ms":1_794_916_800_000_i64}}]},
                    {"type":"button","sub_type":"copy_code","index":"0","parameters":[{"type":"coupon_code","coupon_code":"TEA20"}]}]),
            ),
            (
                json!({"header": {"type": "document", "file": {"id": UPLOADED}, "filename": "a.pdf"},
                    "buttons": [{"type": "flow", "index": 0, "token": "t", "data": {"a": 1}}]}),
                json!([{"type":"header","parameters":[{"type":"document","document":{"id":"880200000000001","filename":"a.pdf"}}]},
                    {"type":"button","sub_type":"flow","index":"0","parameters":[{"type":"action","action":{"flow_token":"t","flow_action_data":{"a":1}}}]}]),
            ),
            (
                json!({"header": {"type": "location", "location": {"latitude": 41.5, "longitude": -2.0, "name": "Pier"}},
                    "buttons": [{"type": "catalog", "index": 0, "thumbnail_product_id": "tea"}]}),
                json!([{"type":"header","parameters":[{"type":"location","location":{"latitude":"41.5","longitude":"-2","name":"Pier"}}]},
                    {"type":"button","sub_type":"catalog","index":"0","parameters":[{"type":"action","action":{"thumbnail_product_retailer_id":"tea"}}]}]),
            ),
            (
                json!({"buttons": [{"type": "products", "index": 0, "thumbnail_product_id": "tea", "sections": [{"title": "Green", "product_ids": ["a", "b"]}]}]}),
                json!([{"type":"button","sub_type":"mpm","index":"0","parameters":[{"type":"action","action":{"thumbnail_product_retailer_id":"tea",
                    "sections":[{"title":"Green","product_items":[{"product_retailer_id":"a"},{"product_retailer_id":"b"}]}]}}]}]),
            ),
            (
                json!({"cards": [{"header": {"type": "image", "file": {"id": UPLOADED}}, "variables": ["Kettle"],
                    "buttons": [{"type": "quick_reply", "index": 0, "payload": "K"}]}, {"header": {"type": "image", "file": {"id": UPLOADED}}}]}),
                json!([{"type":"carousel","cards":[
                    {"card_index":0,"components":[{"type":"header","parameters":[{"type":"image","image":{"id":"880200000000001"}}]},
                        {"type":"body","parameters":[{"type":"text","text":"Kettle"}]},
                        {"type":"button","sub_type":"quick_reply","index":"0","parameters":[{"type":"payload","payload":"K"}]}]},
                    {"card_index":1,"components":[{"type":"header","parameters":[{"type":"image","image":{"id":"880200000000001"}}]}]}]}]),
            ),
        ] {
            let mut template = json!({"type": "template", "name": "n", "language": "en_US"});
            template.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
            let phone = Recipient { kind: RecipientKind::Phone, address: "+15557770142" };
            assert_eq!(sent(read(template), phone, None)["template"]["components"], expected, "{content}");
        }
    }

    #[test]
    fn a_reaction_names_its_message_and_quotes_none() {
        let phone = Recipient { kind: RecipientKind::Phone, address: "+15557770142" };
        for emoji in ["👍", ""] {
            let content = read(json!({"type": "reaction", "message_id": Uuid::from_u128(1), "emoji": emoji}));
            let request = sent(content.clone(), phone, Some("wamid.U0JYLUlOLVRYVA=="));
            assert_eq!(request["reaction"], json!({"message_id": "wamid.U0JYLUlOLVRYVA==", "emoji": emoji}));
            assert_eq!(request.get("context"), None);
            assert!(sent(content, phone, None).as_str().unwrap().contains("no id"));
        }
    }

    #[test]
    fn a_person_is_told_that_they_are_read_and_answered() {
        let written = |said| match signal(said) {
            Body::Json(body) => serde_json::from_slice::<Value>(&body).unwrap(),
            other @ Body::Form(_) => panic!("{other:?}"),
        };
        let message_id = "wamid.U0JYLUlOLVRYVA==";
        let read = json!({"messaging_product": "whatsapp", "status": "read", "message_id": message_id});
        assert_eq!(written(Signal::Read { message_id }), read);
        let mut typing = read;
        typing["typing_indicator"] = json!({"type": "text"});
        assert_eq!(written(Signal::Typing { message_id }), typing);
    }

    #[test]
    fn what_whatsapp_has_not_is_not_written() {
        let phone = Recipient { kind: RecipientKind::Phone, address: "+15557770142" };
        for (content, words) in [
            (json!({"type": "album", "files": []}), "whatsapp has no messages of the type album"),
            (json!({"type": "cards", "cards": []}), "whatsapp has no messages of the type cards"),
            (json!({"type": "heart"}), "whatsapp has no messages of the type heart"),
            (json!({"type": "post", "post_id": "1"}), "whatsapp has no messages of the type post"),
            (
                json!({"type": "buttons", "text": "x", "buttons": [{"type": "call", "title": "Call", "phone": "+15557770142"}]}),
                "whatsapp has no messages of the type buttons",
            ),
            (
                json!({"type": "image", "file": {"id": Uuid::from_u128(8)}}),
                "a file of the message has not been handed over",
            ),
            (json!({"type": "image", "file": {}}), "a file of the message has not been handed over"),
        ] {
            assert_eq!(sent(read(content.clone()), phone, None), words, "{content}");
        }
    }

    #[test]
    fn a_path_has_three_segments_whatever_the_id() {
        for (version, id, expected) in [
            ("v25.0", "330000000000009", "/v25.0/330000000000009/messages"),
            ("v25.0", "../33?a=b", "/v25.0/..%2F33%3Fa%3Db/messages"),
        ] {
            assert_eq!(path(version, id), expected);
        }
    }
}
