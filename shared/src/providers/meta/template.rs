//! A template's `components`: what fills its places, the same on WhatsApp (providers/whatsapp section 7.4) and in Messenger's
//! utility messages (providers/messenger section 3.3). A component that needs nothing is left out.

use crate::{
    domain::content::{FileRef, Location, ProductSection, Template, TemplateButton, TemplateHeader},
    providers::sending::{Handle, Outgoing, Unsendable},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The components, in the order in which they are shown. Of an authentication template the code stands in two places, the body's
/// variable and the button's end of the address; both are the sender's to give.
///
/// # Errors
/// If a file is not at hand.
pub(in crate::providers) fn components(message: &Outgoing<'_>, template: &Template) -> Result<Vec<Value>, Unsendable> {
    let mut components = Vec::new();
    components.extend(template.header.as_ref().map(|header| self::header(message, header)).transpose()?);
    components.extend(body(&template.variables, &template.named_variables));
    if let Some(end) = template.offer_expires_at {
        let offer = json!({"expiration_time_ms": end.timestamp_millis()});
        let parameter = json!({"type": "limited_time_offer", "limited_time_offer": offer});
        components.push(json!({"type": "limited_time_offer", "parameters": [parameter]}));
    }
    if !template.cards.is_empty() {
        let card = |(index, card): (usize, &crate::domain::content::TemplateCard)| {
            let mut inside = Vec::new();
            inside.extend(card.header.as_ref().map(|header| self::header(message, header)).transpose()?);
            inside.extend(body(&card.variables, &BTreeMap::new()));
            inside.extend(card.buttons.iter().map(button));
            Ok(json!({"card_index": index, "components": inside}))
        };
        let cards: Result<Vec<Value>, Unsendable> = template.cards.iter().enumerate().map(card).collect();
        components.push(json!({"type": "carousel", "cards": cards?}));
    }
    components.extend(template.buttons.iter().map(button));
    Ok(components)
}

/// A file by the provider's id or by its address.
///
/// # Errors
/// If it is not at hand.
pub(in crate::providers) fn file(message: &Outgoing<'_>, file: &FileRef) -> Result<Map<String, Value>, Unsendable> {
    let (key, value) = match message.file(file)? {
        Handle::Id(id) | Handle::NewId(id) => ("id", id),
        Handle::Link(link) => ("link", link),
    };
    Ok(Map::from_iter([(key.to_owned(), value.into())]))
}

/// Products by section, as interactive messages and templates list them.
pub(in crate::providers) fn product_sections(sections: &[ProductSection]) -> Vec<Value> {
    let items = |ids: &[String]| -> Vec<Value> { ids.iter().map(|id| json!({"product_retailer_id": id})).collect() };
    sections
        .iter()
        .map(|section| json!({"title": section.title, "product_items": items(&section.product_ids)}))
        .collect()
}

fn header(message: &Outgoing<'_>, header: &TemplateHeader) -> Result<Value, Unsendable> {
    let parameter = match header {
        TemplateHeader::Text { text, name } => variable(name.as_deref(), text),
        TemplateHeader::Image { file } => json!({"type": "image", "image": self::file(message, file)?}),
        TemplateHeader::Video { file } => json!({"type": "video", "video": self::file(message, file)?}),
        TemplateHeader::Document { file, filename } => {
            let mut document = self::file(message, file)?;
            document.extend(filename.as_ref().map(|name| ("filename".to_owned(), name.as_str().into())));
            json!({"type": "document", "document": document})
        }
        TemplateHeader::Location { location } => json!({"type": "location", "location": place(location)}),
    };
    Ok(json!({"type": "header", "parameters": [parameter]}))
}

/// A place. Coordinates are strings, as Meta's guide has them.
pub(in crate::providers) fn place(location: &Location) -> Value {
    let mut place = json!({"latitude": location.latitude.to_string(), "longitude": location.longitude.to_string()});
    for (key, words) in [("name", &location.name), ("address", &location.address)] {
        if let Some(words) = words {
            place[key] = words.as_str().into();
        }
    }
    place
}

fn body(variables: &[String], named: &BTreeMap<String, String>) -> Option<Value> {
    let numbered = variables.iter().map(|text| variable(None, text));
    let parameters: Vec<Value> = numbered.chain(named.iter().map(|(name, text)| variable(Some(name), text))).collect();
    (!parameters.is_empty()).then(|| json!({"type": "body", "parameters": parameters}))
}

fn variable(name: Option<&str>, text: &str) -> Value {
    match name {
        Some(name) => json!({"type": "text", "parameter_name": name, "text": text}),
        None => json!({"type": "text", "text": text}),
    }
}

fn button(button: &TemplateButton) -> Value {
    let (sub_type, parameter) = match button {
        TemplateButton::QuickReply { payload, .. } => ("quick_reply", json!({"type": "payload", "payload": payload})),
        TemplateButton::Url { text, .. } => ("url", json!({"type": "text", "text": text})),
        TemplateButton::CopyCode { code, .. } => ("copy_code", json!({"type": "coupon_code", "coupon_code": code})),
        TemplateButton::Flow { token, data, .. } => {
            let mut action = Map::new();
            action.extend(token.as_ref().map(|token| ("flow_token".to_owned(), token.as_str().into())));
            action.extend(data.as_ref().map(|data| ("flow_action_data".to_owned(), Value::Object(data.clone()))));
            ("flow", json!({"type": "action", "action": action}))
        }
        TemplateButton::Catalog { thumbnail_product_id, .. } => {
            let mut action = Map::new();
            let thumbnail = thumbnail_product_id.as_deref();
            action.extend(thumbnail.map(|id| ("thumbnail_product_retailer_id".to_owned(), id.into())));
            ("catalog", json!({"type": "action", "action": action}))
        }
        TemplateButton::Products { thumbnail_product_id, sections, .. } => {
            let sections = product_sections(sections);
            let action = json!({"thumbnail_product_retailer_id": thumbnail_product_id, "sections": sections});
            ("mpm", json!({"type": "action", "action": action}))
        }
    };
    json!({"type": "button", "sub_type": sub_type, "index": button.index().to_string(), "parameters": [parameter]})
}
