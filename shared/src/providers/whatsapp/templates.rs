//! The list of an account's templates (contract, section 10): where to ask, and what of the answer we keep.

use crate::domain::templates::{ButtonKind, ButtonNeed, HeaderNeed, Needs};
use serde::Deserialize;
use std::collections::BTreeSet;

/// A page is asked for with so many.
pub const PAGE_SIZE: u32 = 100;
/// What is asked of each.
pub const FIELDS: &str = "name,language,status,category,parameter_format,components";

/// A template in one language, as far as we can send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateInfo {
    /// Its name.
    pub name: String,
    /// The language's code.
    pub language: String,
    /// WhatsApp's word for its state; only `APPROVED` can be sent.
    pub status: String,
    /// MARKETING, UTILITY, AUTHENTICATION.
    pub category: String,
    /// The body with its variables.
    pub body: String,
    /// How many values the body needs.
    pub variables: i32,
    /// All that it needs at each sending.
    pub needs: Needs,
}

/// One page of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplatePage {
    /// The templates that could be read.
    pub templates: Vec<TemplateInfo>,
    /// Elements without a name or a language.
    pub unreadable: usize,
    /// Pass it as `after` for the next page; none on the last.
    pub next: Option<String>,
}

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
    parameter_format: Option<String>,
    #[serde(default)]
    components: Vec<Component>,
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
        let needs = needs(&self.components, named);
        let body = component(&self.components, "BODY").and_then(|body| body.text.clone()).unwrap_or_default();
        let count = i32::try_from(needs.variables + needs.named.len()).unwrap_or(i32::MAX);
        TemplateInfo {
            name: self.name,
            language: self.language,
            status: self.status,
            category: self.category,
            body,
            variables: count,
            needs,
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
    let body = variables(text("BODY"));
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
                let name = variables(header.text.as_deref().unwrap_or_default()).first().copied();
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

/// The names between `{{` and `}}`, each once.
fn variables(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for part in text.split("{{").skip(1) {
        if let Some((name, _)) = part.split_once("}}")
            && !name.trim().is_empty()
            && !names.contains(&name.trim())
        {
            names.push(name.trim());
        }
    }
    names
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
}
