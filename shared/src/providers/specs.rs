//! Holds what we write against what providers publish for machines: Twilio's OpenAPI document (`twilio_api_v2010.json`) and Meta's of
//! the WhatsApp Business API (`meta_business-messaging-api_v23.0.json`, its YAML as JSON). Both are large and change; they are no part
//! of this repository:
//!
//! ```text
//! MIJRA_SPECS_DIR=… cargo test -p mijra-shared --lib specs -- --ignored
//! ```
//!
//! Where a document is behind what is documented for people, the difference is listed here; a new one fails.

#[cfg(test)]
mod tests {
    use crate::{
        domain::channel::{Channel, Provider},
        providers::{
            testing::sending::{Example, SHARED, UPLOADED, content},
            twilio, whatsapp,
        },
    };
    use serde_json::{Map, Value, json};
    use std::collections::BTreeSet;

    #[allow(clippy::disallowed_methods, reason = "where the documents are is no setting of ours")]
    fn document(name: &str) -> Value {
        let folder = std::env::var("MIJRA_SPECS_DIR").expect("MIJRA_SPECS_DIR names the folder of the documents");
        let path = std::path::Path::new(&folder).join(name);
        serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))).unwrap()
    }

    /// Something of every kind that WhatsApp carries, by a name.
    fn whatsapp_kinds() -> Vec<(&'static str, Value)> {
        let (uploaded, linked) = (json!({"id": UPLOADED}), json!({"id": SHARED}));
        let template = |more: Value| {
            let mut said = json!({"type": "template", "name": "n", "language": "en_US"});
            said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            said
        };
        let reply = json!({"type": "reply", "id": "a", "title": "A"});
        vec![
            ("text", json!({"type": "text", "text": "x", "preview_url": true})),
            ("image by id", json!({"type": "image", "file": uploaded, "caption": "x"})),
            ("image by link", json!({"type": "image", "file": linked})),
            ("video", json!({"type": "video", "file": uploaded})),
            ("audio", json!({"type": "audio", "file": linked})),
            ("voice", json!({"type": "audio", "file": uploaded, "voice": true})),
            ("document", json!({"type": "document", "file": uploaded, "filename": "a.pdf", "caption": "x"})),
            ("sticker", json!({"type": "sticker", "file": uploaded})),
            ("location", json!({"type": "location", "latitude": 41.5, "longitude": 2.0, "name": "x", "address": "y"})),
            (
                "contacts",
                json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "A B", "first_name": "A", "last_name": "B",
                    "middle_name": "C", "suffix": "D", "prefix": "E"}, "phones": [{"phone": "+15557770101", "type": "WORK",
                    "wa_id": "15557770101"}], "emails": [{"email": "a@b.example", "type": "WORK"}], "urls": [{"url": "https://a.example",
                    "type": "WORK"}], "addresses": [{"street": "a", "city": "b", "state": "c", "zip": "d", "country": "e",
                    "country_code": "gb", "type": "HOME"}], "organization": {"company": "a", "department": "b", "title": "c"},
                    "birthday": "1984-02-29"}]}),
            ),
            ("reaction", json!({"type": "reaction", "message_id": uuid::Uuid::from_u128(1), "emoji": "👍"})),
            (
                "reply buttons",
                json!({"type": "buttons", "text": "x", "header": {"type": "image", "file": uploaded}, "footer": "y", "buttons": [reply]}),
            ),
            (
                "button to an address",
                json!({"type": "buttons", "text": "x", "buttons": [{"type": "url", "title": "A", "url": "https://a.example"}]}),
            ),
            (
                "list",
                json!({"type": "list", "text": "x", "header": "h", "button": "b", "sections": [{"title": "t", "rows": [
                    {"id": "a", "title": "A", "description": "d"}]}]}),
            ),
            (
                "flow",
                json!({"type": "flow", "text": "x", "flow_id": "1", "button": "b", "token": "t", "screen": "S", "data": {"a": 1}}),
            ),
            ("product", json!({"type": "product", "catalog_id": "1", "product_id": "a", "text": "x"})),
            (
                "product list",
                json!({"type": "product_list", "text": "x", "header": "h", "catalog_id": "1", "sections": [{"title": "t",
                    "product_ids": ["a"]}]}),
            ),
            ("catalogue", json!({"type": "catalog", "text": "x", "thumbnail_product_id": "a"})),
            ("location request", json!({"type": "location_request", "text": "x"})),
            ("contact request", json!({"type": "contact_request", "text": "x"})),
            ("plain template", template(json!({}))),
            (
                "template in its places",
                template(json!({"header": {"type": "image", "file": uploaded}, "variables": ["a"], "buttons": [
                    {"type": "quick_reply", "index": 0, "payload": "a"}, {"type": "url", "index": 1, "text": "b"}]})),
            ),
            ("template by names", template(json!({"named_variables": {"a": "b"}}))),
        ]
    }

    #[test]
    #[ignore = "needs the published documents"]
    fn whatsapps_requests_are_of_the_published_form() {
        let spec = document("meta_business-messaging-api_v23.0.json");
        let found: Vec<(&str, BTreeSet<String>)> = whatsapp_kinds()
            .into_iter()
            .map(|(name, said)| {
                let mut example = Example::new(Provider::Whatsapp, Channel::Whatsapp, content(said));
                example.refers_to = Some("wamid.1");
                let request = example.written(whatsapp::request);
                let kind = format!("{}Message", capital(request["type"].as_str().unwrap()));
                let of_kind = json!({"$ref": format!("#/components/schemas/{kind}")});
                (name, differences(&spec, &of_kind, &request))
            })
            .filter(|(_, differences)| !differences.is_empty())
            .collect();
        let expected: Vec<(&str, BTreeSet<String>)> = KNOWN
            .iter()
            .map(|(name, differences)| (*name, differences.iter().map(|text| (*text).to_owned()).collect()))
            .collect();
        assert_eq!(found, expected);
    }

    /// Where the published document is behind Meta's guides (providers/whatsapp sections 7.1 to 7.4); `biz_opaque_callback_data`, which
    /// it has nowhere, is left out of the comparison.
    const KNOWN: &[(&str, &[&str])] = &[
        ("image by id", &[".image has no caption"]),
        ("voice", &[".audio has no voice"]),
        ("document", &[".document has no caption", ".document has no filename"]),
        (
            "button to an address",
            &[
                ".interactive.action has no parameters",
                ".interactive.action.name may not be \"cta_url\"",
                ".interactive.type may not be \"cta_url\"",
            ],
        ),
        (
            "location request",
            &[
                ".interactive.action.name may not be \"send_location\"",
                ".interactive.type may not be \"location_request_message\"",
            ],
        ),
        (
            "contact request",
            &[
                ".interactive.action.name may not be \"request_contact_info\"",
                ".interactive.type may not be \"contact_request\"",
            ],
        ),
        ("plain template", &[".template.language needs \"policy\""]),
        ("template in its places", &[".template.language needs \"policy\""]),
        ("template by names", &[".template.language needs \"policy\""]),
    ];

    #[test]
    #[ignore = "needs the published documents"]
    fn twilios_parameters_are_published() {
        let spec = document("twilio_api_v2010.json");
        let path = &spec["paths"]["/2010-04-01/Accounts/{AccountSid}/Messages.json"]["post"];
        let schema = &path["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"];
        let sid = "HX0123456789abcdef0123456789abcdef";
        for (channel, said) in [
            (Channel::Sms, json!({"type": "text", "text": "x"})),
            (Channel::Sms, json!({"type": "album", "files": [{"id": SHARED}, {"id": SHARED}], "text": "x"})),
            (Channel::Whatsapp, json!({"type": "image", "file": {"id": SHARED}, "caption": "x"})),
            (Channel::Whatsapp, json!({"type": "location", "latitude": 1.0, "longitude": 2.0, "name": "x"})),
            (Channel::Whatsapp, json!({"type": "template", "name": sid, "language": "en", "variables": ["a"]})),
        ] {
            let mut example = Example::new(Provider::Twilio, channel, content(said.clone()));
            example.sender.status_url = Some("https://hooks.example/s".parse().unwrap());
            if channel == Channel::Sms {
                example.sender.external_id = "MG2c000000000000000000000000000001".into();
            }
            // A name that may be repeated is a list there.
            let mut form = Map::new();
            for pair in example.written(twilio::request).as_array().unwrap() {
                let (name, value) = (pair[0].as_str().unwrap(), pair[1].clone());
                match (&schema["properties"][name]["type"], form.get_mut(name)) {
                    (_, Some(Value::Array(values))) => values.push(value),
                    (kind, None) if kind == "array" => drop(form.insert(name.to_owned(), json!([value]))),
                    _ => drop(form.insert(name.to_owned(), value)),
                }
            }
            assert_eq!(differences(&spec, schema, &Value::Object(form)), BTreeSet::new(), "{said}");
        }
    }

    fn capital(name: &str) -> String {
        name[..1].to_uppercase() + &name[1..]
    }

    /// Where a value is not of a schema, as far as these documents use JSON Schema. What several parts say together (`allOf`) is
    /// closed only as a whole: as they are written, each would forbid what the others demand.
    fn differences(spec: &Value, schema: &Value, value: &Value) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        check(spec, schema, value, "", &mut found);
        found
    }

    fn check(spec: &Value, schema: &Value, value: &Value, path: &str, found: &mut BTreeSet<String>) {
        let schema = flat(spec, schema);
        if let Some(kind) = schema.get("type").and_then(Value::as_str) {
            let is_so = match kind {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                _ => true,
            };
            if !is_so {
                found.insert(format!("{path} is no {kind}"));
            }
        }
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
            && !allowed.contains(value)
        {
            found.insert(format!("{path} may not be {value}"));
        }
        for needed in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if value.is_object() && value.get(needed.as_str().unwrap()).is_none() {
                found.insert(format!("{path} needs {needed}"));
            }
        }
        if let (Some(text), Some(most)) = (value.as_str(), schema.get("maxLength").and_then(Value::as_u64))
            && text.chars().count() as u64 > most
        {
            found.insert(format!("{path} is longer than {most}"));
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, value) in value.as_object().into_iter().flatten() {
            match properties.and_then(|properties| properties.get(key)) {
                Some(schema) => check(spec, schema, value, &format!("{path}.{key}"), found),
                None if key == "biz_opaque_callback_data" => {}
                None if properties.is_some() && !schema.contains_key("oneOf") => {
                    found.insert(format!("{path} has no {key}"));
                }
                None => {}
            }
        }
        for item in value.as_array().into_iter().flatten() {
            if let Some(items) = schema.get("items") {
                check(spec, items, item, &format!("{path}[]"), found);
            }
        }
        if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
            // What is nearest to any of them.
            let nearest = choices.iter().map(|choice| {
                let mut found = BTreeSet::new();
                check(spec, choice, value, path, &mut found);
                found
            });
            found.extend(nearest.min_by_key(BTreeSet::len).into_iter().flatten());
        }
    }

    /// A schema with what it refers to and consists of put together.
    fn flat(spec: &Value, schema: &Value) -> Map<String, Value> {
        if let Some(pointer) = schema.get("$ref").and_then(Value::as_str) {
            return flat(spec, spec.pointer(&pointer[1..]).unwrap_or_else(|| panic!("{pointer}")));
        }
        let mut whole = schema.as_object().cloned().unwrap_or_default();
        for part in whole.remove("allOf").and_then(|parts| parts.as_array().cloned()).into_iter().flatten() {
            for (key, value) in flat(spec, &part) {
                match (whole.get_mut(&key), value) {
                    (Some(Value::Object(has)), Value::Object(more)) => has.extend(more),
                    (Some(Value::Array(has)), Value::Array(more)) => has.extend(more),
                    (_, value) => drop(whole.insert(key, value)),
                }
            }
        }
        whole
    }
}
