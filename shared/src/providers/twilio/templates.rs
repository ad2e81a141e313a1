//! Content templates (contract, section 14): where they are listed, made, put before WhatsApp and deleted, what of an answer we keep, and
//! what a refusal says.

use crate::{
    domain::templates::{Needs, TemplateInfo, placeholders},
    providers::templates::{Failed, Form, Made, NewTemplate, TemplatePage},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use url::Url;

/// Where contents are made.
pub const PATH: &str = "/v1/Content";
/// A page is asked for with so many.
const PAGE_SIZE: u32 = 100;
/// The status of what WhatsApp was never asked about: it can be sent inside of the window, and by text message.
pub const UNSUBMITTED: &str = "UNSUBMITTED";

/// The path of the list with how each stands with WhatsApp; the page after, by what the page before said of it.
pub fn list_path(next: Option<&str>) -> String {
    let query = next.map_or_else(|| format!("PageSize={PAGE_SIZE}"), str::to_owned);
    format!("/v1/ContentAndApprovals?{query}")
}

/// The path of a content. Anything but letters and digits is left out, so that none leads elsewhere.
pub fn content_path(sid: &str) -> String {
    format!("{PATH}/{}", sid.chars().filter(char::is_ascii_alphanumeric).collect::<String>())
}

/// The path by which a content is put before WhatsApp.
pub fn approval_path(sid: &str) -> String {
    format!("{}/ApprovalRequests/whatsapp", content_path(sid))
}

/// Reads a page.
///
/// # Errors
/// If the answer is not a list.
pub fn parse_page(body: &[u8]) -> Result<TemplatePage, serde_json::Error> {
    let answer: Answer = serde_json::from_slice(body)?;
    let all = answer.contents.len();
    let templates: Vec<TemplateInfo> = answer
        .contents
        .into_iter()
        .filter_map(|element| serde_json::from_value::<Element>(element).ok())
        .filter(|element| !element.sid.is_empty() && !element.language.is_empty())
        .map(Element::info)
        .collect();
    // Of the next page's address the query alone: credentials go nowhere else.
    let next = answer.meta.next_page_url.and_then(|url| Some(url.parse::<Url>().ok()?.query()?.to_owned()));
    Ok(TemplatePage { unreadable: all - templates.len(), templates, next })
}

/// Contents of the same name and language as another are known by their SID: the one that can be sent keeps the name, of several the
/// first.
pub fn distinguish(templates: &mut [TemplateInfo]) {
    let mut best: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (index, template) in templates.iter().enumerate() {
        let key = (template.name.clone(), template.language.clone());
        let kept = best.entry(key).or_insert(index);
        if template.status == "APPROVED" && templates[*kept].status != "APPROVED" {
            *kept = index;
        }
    }
    let kept: BTreeSet<usize> = best.into_values().collect();
    for (_, template) in templates.iter_mut().enumerate().filter(|(index, _)| !kept.contains(index)) {
        template.name = template.provider_id.clone().unwrap_or_default();
    }
}

/// What is posted to [`PATH`] to make a content.
pub fn creation(new: &NewTemplate) -> Value {
    let (types, examples) = match &new.form {
        Form::Raw(types) => (types.clone(), BTreeMap::new()),
        Form::Words { body, examples, .. } => (json!({"twilio/text": {"body": body}}), examples.clone()),
    };
    json!({"friendly_name": new.name, "language": new.language, "variables": examples, "types": types})
}

/// What is posted to [`approval_path`].
pub fn submission(new: &NewTemplate) -> Value {
    json!({"name": new.name, "category": new.category})
}

/// What the answer to a creation says.
///
/// # Errors
/// What went wrong.
pub fn made(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Result<Made, Failed> {
    succeeded(status, retry_after, body)?;
    #[derive(Deserialize)]
    struct Wire {
        sid: String,
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|_| Failed::unreadable())?;
    Ok(Made { provider_id: wire.sid, status: UNSUBMITTED.to_owned(), category: Some(String::new()) })
}

/// How a content stands that was just put before WhatsApp: status and category.
///
/// # Errors
/// What went wrong.
pub fn submitted(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Result<(String, Option<String>), Failed> {
    succeeded(status, retry_after, body)?;
    let approval: Approval = serde_json::from_slice(body).map_err(|_| Failed::unreadable())?;
    Ok((approval.status.to_ascii_uppercase(), approval.category))
}

/// Whether a call was taken.
///
/// # Errors
/// What its refusal says.
pub fn succeeded(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Result<(), Failed> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    #[derive(Default, Deserialize)]
    struct Refusal {
        #[serde(default)]
        code: u32,
        #[serde(default)]
        message: String,
    }
    let Refusal { code, message } = serde_json::from_slice(body).unwrap_or_default();
    Err(match (code, status) {
        (20_429, _) | (_, 429) => Failed::away("Twilio asks us to come back later.", retry_after),
        (20_003 | 20_005, _) | (_, 401 | 403) => Failed::not_permitted(code, &message),
        (_, 500..) => Failed::away(&format!("Twilio failed (status {status})."), retry_after),
        _ => Failed::refused(code, field(&message), &message),
    })
}

/// Whether there is no such content any more.
pub fn is_gone(status: u16) -> bool {
    status == 404
}

/// Which field of ours a refusal is about.
fn field(words: &str) -> Option<&'static str> {
    let words = words.to_ascii_lowercase();
    [
        ("name", "name"),
        ("language", "language"),
        ("category", "category"),
        ("variables", "examples"),
        ("types", "components"),
    ]
    .into_iter()
    .find(|(word, _)| words.split(|c: char| !c.is_ascii_alphanumeric()).any(|found| found == *word))
    .map(|(_, field)| field)
}

#[derive(Deserialize)]
struct Answer {
    contents: Vec<Value>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Default, Deserialize)]
struct Meta {
    #[serde(default)]
    next_page_url: Option<String>,
}

#[derive(Deserialize)]
struct Element {
    sid: String,
    #[serde(default)]
    friendly_name: Option<String>,
    language: String,
    #[serde(default)]
    types: Map<String, Value>,
    #[serde(default)]
    approval_requests: Option<Approval>,
}

#[derive(Default, Deserialize)]
struct Approval {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    category: Option<String>,
    #[serde(default)]
    status: String,
    #[serde(default)]
    rejection_reason: Option<String>,
}

impl Element {
    fn info(self) -> TemplateInfo {
        let Approval { name, category, status, rejection_reason } = self.approval_requests.unwrap_or_default();
        let some = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
        let status = if status.is_empty() { UNSUBMITTED.to_owned() } else { status.to_ascii_uppercase() };
        let body = self.types.values().find_map(|of_type| of_type["body"].as_str()).unwrap_or_default().to_owned();
        let needs = needs(&self.types);
        TemplateInfo {
            name: some(name).or_else(|| some(self.friendly_name)).unwrap_or_else(|| self.sid.clone()),
            language: self.language,
            status,
            category: category.unwrap_or_default(),
            body,
            variables: i32::try_from(needs.variables + needs.named.len()).unwrap_or(i32::MAX),
            needs,
            provider_id: Some(self.sid),
            components: Some(Value::Object(self.types)),
            reason: some(rejection_reason),
        }
    }
}

/// A value for every variable, wherever it stands. (Twilio would take its own sample for one that is missing, which nobody should read.)
fn needs(types: &Map<String, Value>) -> Needs {
    let mut names = BTreeSet::new();
    types.values().for_each(|of_type| gather(of_type, &mut names));
    let is_counted = (1..=names.len()).all(|number| names.contains(&number.to_string()));
    match is_counted {
        true => Needs { variables: names.len(), ..Needs::default() },
        false => Needs { named: names, ..Needs::default() },
    }
}

fn gather(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => names.extend(placeholders(text).into_iter().map(str::to_owned)),
        Value::Array(items) => items.iter().for_each(|item| gather(item, names)),
        Value::Object(members) => members.values().for_each(|member| gather(member, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"{"contents":[
        {"sid":"HX1","account_sid":"AC1","friendly_name":"parcel","language":"en","variables":{"1":"Mara"},
         "types":{"twilio/quick-reply":{"body":"Hi {{1}}, parcel {{2}}.","actions":[{"type":"QUICK_REPLY","title":"Track","id":"track:{{2}}"}]}},
         "approval_requests":{"name":"parcel_v2","category":"UTILITY","content_type":"twilio/quick-reply","status":"approved","rejection_reason":""}},
        {"sid":"HX2","friendly_name":"parcel","language":"de","types":{"twilio/text":{"body":"Hallo {{name}}"}},
         "approval_requests":{"name":"","category":"","status":"unsubmitted"}},
        {"sid":"HX3","friendly_name":null,"language":"en","types":{"twilio/media":{"body":null,"media":["https://a.example/{{3}}"]}},
         "approval_requests":{"name":"offer","category":"MARKETING","status":"rejected","rejection_reason":"Too loud"}},
        {"friendly_name":"x"}, 7],
        "meta":{"page":0,"next_page_url":"https://content.twilio.com/v1/ContentAndApprovals?PageSize=100&Page=1&PageToken=PT1"}}"#;

    #[test]
    fn a_page_is_read_with_how_each_stands() {
        let page = parse_page(PAGE.as_bytes()).unwrap();
        let shown: Vec<_> = page
            .templates
            .iter()
            .map(|t| (t.name.as_str(), t.language.as_str(), t.status.as_str(), t.variables))
            .collect();
        assert_eq!(
            shown,
            [("parcel_v2", "en", "APPROVED", 2), ("parcel", "de", "UNSUBMITTED", 1), ("offer", "en", "REJECTED", 1)]
        );
        assert_eq!(page.templates[1].needs.named, ["name".to_owned()].into());
        assert_eq!(page.templates[2].needs.named, ["3".to_owned()].into(), "numbers that are not counted are names");
        assert_eq!(page.templates[2].reason.as_deref(), Some("Too loud"));
        assert_eq!((page.unreadable, page.next.as_deref()), (2, Some("PageSize=100&Page=1&PageToken=PT1")));
        assert_eq!(list_path(page.next.as_deref()), "/v1/ContentAndApprovals?PageSize=100&Page=1&PageToken=PT1");
    }

    #[test]
    fn of_the_same_name_the_one_that_can_be_sent_keeps_it() {
        let mut all = parse_page(PAGE.as_bytes()).unwrap().templates;
        let mut again = all[0].clone();
        (again.provider_id, again.status) = (Some("HX9".into()), "PENDING".into());
        all.insert(0, again);
        distinguish(&mut all);
        let names: Vec<&str> = all.iter().map(|template| template.name.as_str()).collect();
        assert_eq!(names, ["HX9", "parcel_v2", "parcel", "offer"]);
    }

    #[test]
    fn a_content_is_made_then_submitted() {
        let new = NewTemplate {
            name: "parcel".into(),
            language: "en".into(),
            category: "UTILITY".into(),
            is_named: false,
            form: Form::Words {
                body: "Hi {{1}}.".into(),
                examples: [("1".to_owned(), "Mara".to_owned())].into(),
                footer: None,
            },
        };
        let expected = json!({"friendly_name": "parcel", "language": "en", "variables": {"1": "Mara"},
            "types": {"twilio/text": {"body": "Hi {{1}}."}}});
        assert_eq!(creation(&new), expected);
        assert_eq!(submission(&new), json!({"name": "parcel", "category": "UTILITY"}));
        assert_eq!(made(201, None, br#"{"sid":"HX1"}"#).unwrap().provider_id, "HX1");
        let answer = br#"{"name":"parcel","category":"UTILITY","status":"received"}"#;
        assert_eq!(submitted(201, None, answer).unwrap(), ("RECEIVED".to_owned(), Some("UTILITY".to_owned())));
        assert_eq!(content_path("HX1/../x?y"), "/v1/Content/HX1xy");
    }

    #[test]
    fn a_refusal_names_its_field() {
        let refusal = |status, body: &str| succeeded(status, None, body.as_bytes()).unwrap_err();
        for (words, expected) in [
            ("language is required", Some("language")),
            ("name may only have lower-case letters", Some("name")),
            ("variables must be at most 100 texts", Some("examples")),
            ("There is no type twilio/nothing", None),
        ] {
            let body = json!({"code": 20_001, "message": words, "status": 400}).to_string();
            let Failed::Refused { field, .. } = refusal(400, &body) else { panic!("refused: {body}") };
            assert_eq!(field, expected, "{words}");
        }
        assert!(matches!(refusal(401, r#"{"code":20003}"#), Failed::NotPermitted { .. }));
        assert!(matches!(refusal(429, ""), Failed::Away { .. }));
        assert!(matches!(refusal(502, "<html>"), Failed::Away { .. }));
    }
}
