//! The list of an account's templates (contract, section 10): where to ask, and what of the answer we keep.

use serde::Deserialize;

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
    /// WhatsApp's word for its state; only `APPROVED` can be sent. A template that needs what we cannot give yet (a file in
    /// its header, named variables, variables in buttons) says `UNSUPPORTED: …` here instead.
    pub status: String,
    /// MARKETING, UTILITY, AUTHENTICATION.
    pub category: String,
    /// The body with its variables.
    pub body: String,
    /// How many values the body needs.
    pub variables: i32,
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
        let body = self.component("BODY").and_then(|body| body.text.clone()).unwrap_or_default();
        let variables = variables(&body);
        let status = match self.beyond_us(&variables) {
            Some(need) if self.status == "APPROVED" => format!("UNSUPPORTED: {need}"),
            _ => self.status,
        };
        let count = i32::try_from(variables.len()).unwrap_or(i32::MAX);
        TemplateInfo {
            name: self.name,
            language: self.language,
            status,
            category: self.category,
            body,
            variables: count,
        }
    }

    fn component(&self, kind: &str) -> Option<&Component> {
        self.components.iter().find(|component| component.r#type.eq_ignore_ascii_case(kind))
    }

    /// What it needs at each send that [`Template`](crate::domain::content::Template) cannot say.
    fn beyond_us(&self, variables: &[&str]) -> Option<&'static str> {
        let named = self.parameter_format.as_deref().is_some_and(|format| format.eq_ignore_ascii_case("NAMED"));
        if !variables.is_empty() && (named || variables.iter().any(|v| v.parse::<u32>().is_err())) {
            return Some("its variables are named");
        }
        if let Some(header) = self.component("HEADER") {
            match header.format.as_deref().map(str::to_ascii_uppercase).as_deref() {
                None | Some("TEXT") if self::variables(header.text.as_deref().unwrap_or_default()).is_empty() => {}
                None | Some("TEXT") => return Some("its header has a variable"),
                Some(_) => return Some("its header is a file or a place"),
            }
        }
        let dynamic = |button: &Button| {
            button.url.as_deref().is_some_and(|url| url.contains("{{"))
                || ["COPY_CODE", "OTP", "FLOW", "MPM"].iter().any(|kind| button.r#type.eq_ignore_ascii_case(kind))
        };
        if self.components.iter().flat_map(|component| &component.buttons).any(dynamic) {
            return Some("one of its buttons needs a value");
        }
        ["CAROUSEL", "LIMITED_TIME_OFFER"]
            .iter()
            .any(|kind| self.component(kind).is_some())
            .then_some("it is a carousel or an offer")
    }
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
                ("picture", "UNSUPPORTED: its header is a file or a place", 0),
                ("named", "UNSUPPORTED: its variables are named", 1),
                ("details", "UNSUPPORTED: one of its buttons needs a value", 0),
                ("paused", "PAUSED", 0),
            ]
        );
        assert_eq!((page.unreadable, page.next.as_deref()), (2, Some("MjQZD")));
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
