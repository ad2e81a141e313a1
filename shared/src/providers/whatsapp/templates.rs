//! An account's templates (contract, section 10): where they are listed, made and deleted, what of an answer we keep, and what a refusal
//! says.

use crate::{
    domain::templates::{ButtonKind, ButtonNeed, HeaderNeed, Needs, TemplateInfo, placeholders},
    providers::templates::{Failed, Form, Made, NewTemplate, TemplatePage},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

/// A page is asked for with so many.
pub const PAGE_SIZE: u32 = 100;
/// What is asked of each.
pub const FIELDS: &str = "id,name,language,status,category,parameter_format,components,rejected_reason";

/// The path of the list, with its leading slash. The ids are WhatsApp's; anything but digits, letters, dots and dashes is
/// left out, so that none leads elsewhere.
pub fn path(version: &str, business_account_id: &str) -> String {
    let plain = |text: &str| -> String {
        text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')).collect()
    };
    format!("/{}/{}/message_templates", plain(version), plain(business_account_id))
}

/// Reads a page.
///
/// # Errors
/// If the answer is not a list.
pub fn parse_page(body: &[u8]) -> Result<TemplatePage, serde_json::Error> {
    let answer: Answer = serde_json::from_slice(body)?;
    let all = answer.data.len();
    let templates: Vec<TemplateInfo> = answer
        .data
        .into_iter()
        .filter_map(|element| serde_json::from_value::<Element>(element).ok())
        .filter(|element| !element.name.is_empty() && !element.language.is_empty())
        .map(Element::info)
        .collect();
    // `next` is an address; we build our own from the cursor, so that a token is sent nowhere else.
    let next = answer.paging.filter(|paging| paging.next.is_some()).and_then(|paging| paging.cursors?.after);
    Ok(TemplatePage { unreadable: all - templates.len(), templates, next })
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<serde_json::Value>,
    #[serde(default)]
    paging: Option<Paging>,
}

#[derive(Deserialize)]
struct Paging {
    #[serde(default)]
    cursors: Option<Cursors>,
    #[serde(default)]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Cursors {
    #[serde(default)]
    after: Option<String>,
}

#[derive(Deserialize)]
struct Element {
    name: String,
    language: String,
    status: String,
    #[serde(default)]
    category: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameter_format: Option<String>,
    #[serde(default)]
    rejected_reason: Option<String>,
    #[serde(default)]
    components: Vec<Value>,
}

/// Type and format are written in either case.
#[derive(Deserialize)]
struct Component {
    r#type: String,
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    buttons: Vec<Button>,
    #[serde(default)]
    cards: Vec<Card>,
    #[serde(default)]
    limited_time_offer: Option<Offer>,
}

/// A card of a carousel.
#[derive(Deserialize)]
struct Card {
    #[serde(default)]
    components: Vec<Component>,
}

/// A limited-time offer.
#[derive(Deserialize)]
struct Offer {
    #[serde(default)]
    has_expiration: bool,
}

#[derive(Deserialize)]
struct Button {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    url: Option<String>,
}

impl Element {
    fn info(self) -> TemplateInfo {
        let named = self.parameter_format.as_deref().is_some_and(|format| format.eq_ignore_ascii_case("NAMED"));
        // One that cannot be read is as one that is new: what it needs is not known, and said so.
        let read: Vec<Option<Component>> =
            self.components.iter().map(|component| serde_json::from_value(component.clone()).ok()).collect();
        let is_whole = read.iter().all(Option::is_some);
        let read: Vec<Component> = read.into_iter().flatten().collect();
        let mut needs = needs(&read, named);
        if !is_whole && needs.beyond_us.is_none() {
            needs.beyond_us = Some("one of its components cannot be read".to_owned());
        }
        let body = component(&read, "BODY").and_then(|body| body.text.clone()).unwrap_or_default();
        let count = i32::try_from(needs.variables + needs.named.len()).unwrap_or(i32::MAX);
        TemplateInfo {
            name: self.name,
            language: self.language,
            status: self.status,
            category: self.category,
            body,
            variables: count,
            needs,
            provider_id: self.id,
            components: Some(Value::Array(self.components)),
            reason: self.rejected_reason.filter(|reason| !reason.is_empty() && reason != "NONE"),
        }
    }
}

/// What is posted to [`path`] to make a template (contract, section 10.2).
pub fn creation(new: &NewTemplate) -> Value {
    let (components, named) = match &new.form {
        Form::Raw(components) => (components.clone(), new.is_named),
        Form::Words { body, examples, footer } => {
            let names = placeholders(body);
            let named = names.iter().any(|name| name.parse::<u32>().is_err());
            let example = |name: &&str| examples.get(*name).cloned().unwrap_or_default();
            let mut said = json!({"type": "BODY", "text": body});
            if named {
                let of = |name: &&str| json!({"param_name": name, "example": example(name)});
                said["example"] = json!({"body_text_named_params": names.iter().map(of).collect::<Vec<_>>()});
            } else if !names.is_empty() {
                said["example"] = json!({"body_text": [names.iter().map(example).collect::<Vec<_>>()]});
            }
            let footer = footer.as_ref().map(|footer| json!({"type": "FOOTER", "text": footer}));
            (Value::Array([said].into_iter().chain(footer).collect()), named)
        }
    };
    json!({"name": new.name, "language": new.language, "category": new.category,
        "parameter_format": if named { "NAMED" } else { "POSITIONAL" }, "components": components})
}

/// What the answer to a creation says.
///
/// # Errors
/// What went wrong.
pub fn made(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Result<Made, Failed> {
    succeeded(status, retry_after, body)?;
    #[derive(Deserialize)]
    struct Wire {
        id: String,
        status: String,
        #[serde(default)]
        category: Option<String>,
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|_| Failed::unreadable())?;
    Ok(Made { provider_id: wire.id, status: wire.status, category: wire.category })
}

/// Whether a call was taken.
///
/// # Errors
/// What its refusal says.
pub fn succeeded(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Result<(), Failed> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    #[derive(Deserialize)]
    struct Wire {
        error: Refusal,
    }
    #[derive(Default, Deserialize)]
    struct Refusal {
        #[serde(default)]
        code: u32,
        #[serde(default)]
        error_subcode: Option<u32>,
        #[serde(default)]
        message: String,
        #[serde(default)]
        error_user_msg: Option<String>,
        #[serde(default)]
        error_data: Option<Details>,
    }
    #[derive(Deserialize)]
    struct Details {
        #[serde(default)]
        details: Option<String>,
    }
    let Refusal { code, error_subcode, message, error_user_msg, error_data } =
        serde_json::from_slice::<Wire>(body).map(|wire| wire.error).unwrap_or_default();
    // The particular one stands in either place.
    let code = error_subcode.filter(|subcode| (2_388_000..2_389_000).contains(subcode)).unwrap_or(code);
    let words = error_user_msg.or_else(|| error_data.and_then(|data| data.details)).unwrap_or(message);
    Err(match (code, status) {
        (4 | 17 | 32 | 613 | 80_007 | 80_008 | 130_429, _) | (_, 429) => {
            Failed::away("WhatsApp asks us to come back later.", retry_after)
        }
        (3 | 10 | 104 | 190 | 200..=299 | 368 | 131_005, _) | (0, 401 | 403) => Failed::not_permitted(code, &words),
        (0..=2, _) | (_, 500..) => Failed::away(&format!("WhatsApp failed (status {status})."), retry_after),
        _ => Failed::refused(code, field(code, &words), &words),
    })
}

/// Which field of ours a refusal is about (contract, section 13).
fn field(code: u32, words: &str) -> Option<&'static str> {
    match code {
        2_388_019 => Some("channel_account_id"),
        2_388_072 | 2_388_293 | 2_388_299 => Some("body"),
        2_388_047 => Some("components"),
        2_388_073 => Some("footer"),
        _ => {
            let words = words.to_ascii_lowercase();
            ["name", "language", "category", "body", "footer", "components"]
                .into_iter()
                .find(|field| words.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == *field))
        }
    }
}

fn component<'a>(components: &'a [Component], kind: &str) -> Option<&'a Component> {
    components.iter().find(|component| component.r#type.eq_ignore_ascii_case(kind))
}

/// What is needed at each sending (contract, sections 7.4 and 10.2).
fn needs(components: &[Component], named: bool) -> Needs {
    let mut needs = Needs::default();
    let text = |kind: &str| component(components, kind).and_then(|found| found.text.as_deref()).unwrap_or_default();
    let body = placeholders(text("BODY"));
    // Also where the format is not told, what is no number is a name.
    if named || body.iter().any(|name| name.parse::<u32>().is_err()) {
        needs.named = body.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    } else {
        needs.variables = body.len();
    }
    if let Some(header) = component(components, "HEADER") {
        let format = header.format.as_deref().unwrap_or("TEXT").to_ascii_uppercase();
        needs.header = match format.as_str() {
            "TEXT" => {
                let name = placeholders(header.text.as_deref().unwrap_or_default()).first().copied();
                name.map(|name| HeaderNeed::Text(name.parse::<u32>().is_err().then(|| name.to_owned())))
            }
            "IMAGE" => Some(HeaderNeed::Image),
            "VIDEO" => Some(HeaderNeed::Video),
            "DOCUMENT" => Some(HeaderNeed::Document),
            "LOCATION" => Some(HeaderNeed::Location),
            other => {
                needs.beyond_us = Some(format!("its header is a {}", other.to_ascii_lowercase()));
                None
            }
        };
    }
    let buttons = components.iter().flat_map(|component| &component.buttons);
    for (index, button) in buttons.enumerate() {
        let index = u8::try_from(index).unwrap_or(u8::MAX);
        let need = |kind, optional| Some(ButtonNeed { index, kind, optional });
        let dynamic = button.url.as_deref().is_some_and(|url| url.contains("{{"));
        let need = match button.r#type.to_ascii_uppercase().as_str() {
            "QUICK_REPLY" => need(ButtonKind::QuickReply, true),
            // The button of a one-time password takes the password once more, as a link's end.
            "URL" | "OTP" if dynamic || button.r#type.eq_ignore_ascii_case("OTP") => need(ButtonKind::Url, false),
            "COPY_CODE" => need(ButtonKind::CopyCode, false),
            "FLOW" => need(ButtonKind::Flow, true),
            "CATALOG" => need(ButtonKind::Catalog, true),
            "MPM" => need(ButtonKind::Products, false),
            "URL" | "PHONE_NUMBER" | "VOICE_CALL" | "SPM" | "REQUEST_CONTACT_INFO" => None,
            other => {
                needs.beyond_us = Some(format!("one of its buttons is a {other}"));
                None
            }
        };
        needs.buttons.extend(need);
    }
    if let Some(carousel) = component(components, "CAROUSEL") {
        needs.cards = carousel.cards.iter().map(|card| self::needs(&card.components, named)).collect();
        needs.beyond_us = needs.beyond_us.or_else(|| needs.cards.iter().find_map(|card| card.beyond_us.clone()));
    }
    let offer = component(components, "LIMITED_TIME_OFFER").and_then(|offer| offer.limited_time_offer.as_ref());
    needs.offer = offer.is_some_and(|offer| offer.has_expiration);
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"{"data":[
        {"name":"booking_reminder","parameter_format":"POSITIONAL","language":"en_US","status":"APPROVED","category":"UTILITY","id":"1",
         "components":[{"type":"BODY","text":"Hi {{1}}, see you on {{2}}. Bye {{1}}"},{"type":"FOOTER","text":"Harbour Clinic"},
                       {"type":"BUTTONS","buttons":[{"type":"QUICK_REPLY","text":"Confirm"},{"type":"URL","text":"Site","url":"https://clinic.example"}]}]},
        {"name":"picture","language":"en","status":"APPROVED","category":"MARKETING","components":[{"type":"HEADER","format":"IMAGE"},{"type":"body","text":"Look"}]},
        {"name":"named","parameter_format":"NAMED","language":"en","status":"APPROVED","components":[{"type":"BODY","text":"Hi {{first_name}}"}]},
        {"name":"details","language":"en","status":"APPROVED","components":[{"type":"BODY","text":"x"},{"type":"BUTTONS","buttons":[{"type":"URL","url":"https://clinic.example/b/{{1}}"}]}]},
        {"name":"paused","language":"de","status":"PAUSED","category":"UTILITY","components":[{"type":"BODY","text":"Hallo"}]},
        {"language":"de"}, 7
        ],"paging":{"cursors":{"before":"MAZ","after":"MjQZD"},"next":"https://graph.facebook.com/v25.0/21/message_templates?after=MjQZD"}}"#;

    #[test]
    fn a_page_is_read_and_its_variables_are_counted_once_each() {
        let page = parse_page(PAGE.as_bytes()).unwrap();
        let shown: Vec<_> = page.templates.iter().map(|t| (t.name.as_str(), t.status.as_str(), t.variables)).collect();
        assert_eq!(
            shown,
            [
                ("booking_reminder", "APPROVED", 2),
                ("picture", "APPROVED", 0),
                ("named", "APPROVED", 1),
                ("details", "APPROVED", 0),
                ("paused", "PAUSED", 0),
            ]
        );
        assert_eq!((page.unreadable, page.next.as_deref()), (2, Some("MjQZD")));
        let button = |index, kind, optional| ButtonNeed { index, kind, optional };
        let needs: Vec<&Needs> = page.templates.iter().map(|template| &template.needs).collect();
        assert_eq!(needs[0].buttons, [button(0, ButtonKind::QuickReply, true)]);
        assert_eq!(needs[1].header, Some(HeaderNeed::Image));
        assert_eq!((needs[2].variables, &needs[2].named), (0, &["first_name".to_owned()].into()));
        assert_eq!(needs[3].buttons, [button(0, ButtonKind::Url, false)]);
    }

    #[test]
    fn carousels_offers_and_codes_are_known_and_what_is_new_is_not() {
        let of = |components: &str| {
            let page =
                format!(r#"{{"data":[{{"name":"x","language":"en","status":"APPROVED","components":{components}}}]}}"#);
            parse_page(page.as_bytes()).unwrap().templates.pop().unwrap().needs
        };
        let carousel = of(r#"[{"type":"BODY","text":"Hi {{1}}"},{"type":"CAROUSEL","cards":[
                {"components":[{"type":"HEADER","format":"IMAGE"},{"type":"BODY","text":"{{1}} off"},{"type":"BUTTONS","buttons":[{"type":"URL","url":"https://x.example/{{1}}"}]}]},
                {"components":[{"type":"HEADER","format":"VIDEO"}]}]}]"#);
        assert_eq!((carousel.variables, carousel.cards.len(), carousel.cards[0].variables), (1, 2, 1));
        assert_eq!(carousel.cards[0].buttons[0].kind, ButtonKind::Url);
        assert_eq!(carousel.cards[1].header, Some(HeaderNeed::Video));
        let offer = of(r#"[{"type":"LIMITED_TIME_OFFER","limited_time_offer":{"text":"Soon","has_expiration":true}},
                {"type":"BUTTONS","buttons":[{"type":"COPY_CODE"},{"type":"OTP"}]}]"#);
        assert!(offer.offer);
        let kinds: Vec<ButtonKind> = offer.buttons.iter().map(|button| button.kind).collect();
        assert_eq!(kinds, [ButtonKind::CopyCode, ButtonKind::Url]);
        let new = of(r#"[{"type":"BUTTONS","buttons":[{"type":"HOLOGRAM"}]}]"#);
        assert_eq!(new.beyond_us.as_deref(), Some("one of its buttons is a HOLOGRAM"));
    }

    #[test]
    fn the_last_page_has_no_next() {
        let page = parse_page(br#"{"data":[],"paging":{"cursors":{"before":"a","after":"b"}}}"#).unwrap();
        assert_eq!(page, TemplatePage { templates: vec![], unreadable: 0, next: None });
        assert!(parse_page(br#"{"error":{"code":190}}"#).is_err());
    }

    #[test]
    fn no_id_leads_elsewhere() {
        assert_eq!(path("v25.0", "210000000000007"), "/v25.0/210000000000007/message_templates");
        assert_eq!(path("v25.0", "../me?x=#"), "/v25.0/..mex/message_templates");
    }

    #[test]
    fn a_template_is_made_of_words_with_their_examples() {
        let new = |body: &str, examples: &[(&str, &str)]| NewTemplate {
            name: "reminder".into(),
            language: "en_US".into(),
            category: "UTILITY".into(),
            is_named: false,
            form: Form::Words {
                body: body.into(),
                examples: examples.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
                footer: Some("Harbour Clinic".into()),
            },
        };
        let made = creation(&new("Hi {{1}}, see you on {{2}}.", &[("1", "Ada"), ("2", "4 Dec")]));
        assert_eq!(
            (&made["parameter_format"], &made["components"][1]["text"]),
            (&json!("POSITIONAL"), &json!("Harbour Clinic"))
        );
        assert_eq!(made["components"][0]["example"], json!({"body_text": [["Ada", "4 Dec"]]}));
        let made = creation(&new("Hi {{first_name}}.", &[("first_name", "Ada")]));
        assert_eq!(made["parameter_format"], "NAMED");
        let example = json!({"body_text_named_params": [{"param_name": "first_name", "example": "Ada"}]});
        assert_eq!(made["components"][0]["example"], example);
    }

    #[test]
    fn a_refusal_names_its_field() {
        let refusal = |status, body: Value| succeeded(status, None, body.to_string().as_bytes()).unwrap_err();
        let of =
            |code: u32, words: &str| json!({"error": {"code": code, "message": "x", "error_data": {"details": words}}});
        for (body, expected) in [
            (of(2_388_299, "Variables can't be at the start or end."), Some("body")),
            (of(2_388_073, "x"), Some("footer")),
            (of(2_388_019, "x"), Some("channel_account_id")),
            (of(100, "name may only have lower-case letters."), Some("name")),
            (of(100, "Something else."), None),
            (json!({"error": {"code": 100, "error_subcode": 2_388_072, "error_user_msg": "Too long"}}), Some("body")),
        ] {
            let Failed::Refused { field, .. } = refusal(400, body.clone()) else { panic!("refused: {body}") };
            assert_eq!(field, expected, "{body}");
        }
        assert!(matches!(refusal(401, of(190, "x")), Failed::NotPermitted { .. }));
        assert!(matches!(refusal(403, of(80_007, "x")), Failed::Away { .. }));
        assert!(matches!(refusal(503, json!("gone")), Failed::Away { .. }));
        let answer = br#"{"id":"71","status":"PENDING","category":"MARKETING"}"#;
        let made = made(200, None, answer).unwrap();
        assert_eq!(
            (made.provider_id.as_str(), made.status.as_str(), made.category.as_deref()),
            ("71", "PENDING", Some("MARKETING"))
        );
    }
}
