//! Templates as a WABA owns them: how one is defined (contract page, section 10.2) and which parameters it wants.
//! Whether a send fills them rightly is `template_check`.

use super::refusal::Refusal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A template in one language.
#[derive(Debug, Clone)]
pub struct Template {
    /// Given by the sandbox.
    pub id: String,
    /// The WhatsApp business account it belongs to.
    pub waba_id: String,
    /// What was created.
    pub definition: Definition,
    pub(super) shape: Shape,
}

/// The creation body; `status` is the sandbox's addition, so that a test can start from any of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Definition {
    /// Lower-case letters, digits and `_`.
    pub name: String,
    /// For instance `en_US`.
    pub language: String,
    /// `MARKETING`, `UTILITY` or `AUTHENTICATION`.
    pub category: String,
    /// `POSITIONAL` (the default) or `NAMED`.
    #[serde(default = "positional")]
    pub parameter_format: String,
    /// Header, body, footer and buttons as the provider's API takes them.
    pub components: Vec<Value>,
    /// `APPROVED` unless said otherwise; only this one is sendable.
    #[serde(default = "approved")]
    pub status: String,
}

/// The only status that can be sent.
pub(super) const APPROVED: &str = "APPROVED";

/// What a send has to fill in.
#[derive(Debug, Clone, Default)]
pub(super) struct Shape {
    pub(super) header: Header,
    pub(super) body: Vec<String>,
    pub(super) body_text: String,
    pub(super) buttons: Vec<Button>,
    pub(super) cards: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Header {
    #[default]
    None,
    Text(Vec<String>),
    /// `image`, `video`, `document` or `location`: always supplied at send time.
    Supplied(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Button {
    /// The `sub_type` a send uses for it.
    pub(super) sub_type: String,
    /// Whether a send must fill it.
    pub(super) wants_parameter: bool,
}

impl Definition {
    /// A template of only a body, approved.
    pub fn text(name: &str, language: &str, category: &str, body: &str) -> Self {
        Self {
            name: name.into(),
            language: language.into(),
            category: category.into(),
            parameter_format: positional(),
            components: vec![json!({"type": "BODY", "text": body})],
            status: approved(),
        }
    }

    /// The same in another status.
    pub fn with_status(mut self, status: &str) -> Self {
        self.status = status.into();
        self
    }

    /// Checks the rules of creation and works out what a send must fill in.
    pub(super) fn shape(&self) -> Result<Shape, Refusal> {
        let named = self.parameter_format.eq_ignore_ascii_case("NAMED");
        if self.name.is_empty()
            || self.name.len() > 512
            || !self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            return Err(Refusal::invalid("name may only have lower-case letters, digits and underscores."));
        }
        let mut shape = Shape::default();
        for component in &self.components {
            let text = component["text"].as_str().unwrap_or_default();
            match component["type"].as_str().unwrap_or_default().to_ascii_uppercase().as_str() {
                "HEADER" => shape.header = header(component, text, named)?,
                "BODY" => {
                    shape.body = variables(text, named)?;
                    if text.chars().count() > 1024 {
                        return Err(Refusal::new(2_388_047, "The body may have at most 1024 characters."));
                    }
                    if text.trim().starts_with("{{") || text.trim().ends_with("}}") {
                        return Err(Refusal::new(2_388_299, "Variables can't be at the start or end."));
                    }
                    shape.body_text = text.to_owned();
                }
                "FOOTER" => {}
                "BUTTONS" => {
                    shape.buttons = component["buttons"].as_array().into_iter().flatten().map(button).collect();
                }
                "CAROUSEL" => shape.cards = component["cards"].as_array().map_or(0, Vec::len),
                "LIMITED_TIME_OFFER" => {}
                other => return Err(Refusal::invalid(format!("Unknown component type {other}."))),
            }
        }
        if self.category.eq_ignore_ascii_case("AUTHENTICATION") && shape.body.is_empty() {
            shape.body = vec!["1".into()];
        }
        Ok(shape)
    }
}

impl Template {
    /// Whether the parameters are given by name.
    pub(super) fn is_named(&self) -> bool {
        self.definition.parameter_format.eq_ignore_ascii_case("NAMED")
    }

    /// As `GET /{WABA}/message_templates` lists it.
    pub(super) fn view(&self) -> Value {
        json!({
            "name": self.definition.name,
            "parameter_format": self.definition.parameter_format,
            "components": self.definition.components,
            "language": self.definition.language,
            "status": self.definition.status,
            "category": self.definition.category,
            "id": self.id,
        })
    }
}

/// What every sandbox starts with.
pub fn defaults() -> Vec<Definition> {
    let mut named = Definition::text("visit_followup", "en_US", "UTILITY", "Hi {{first_name}}, your slot is {{slot}}.");
    named.parameter_format = "NAMED".into();
    let mut pictured = Definition::text("picture_reminder", "en_US", "UTILITY", "Hi {{1}}, see you on {{2}}.");
    pictured.components.push(json!({"type": "HEADER", "format": "IMAGE"}));
    pictured.components.push(json!({"type": "BUTTONS", "buttons": [
        {"type": "QUICK_REPLY", "text": "Confirm"},
        {"type": "URL", "text": "Details", "url": "https://clinic.example/b/{{1}}"}
    ]}));
    vec![
        Definition::text("booking_reminder", "en_US", "UTILITY", "Hi {{1}}, see you on {{2}}."),
        Definition::text("booking_reminder", "de", "UTILITY", "Hallo {{1}}, bis {{2}}."),
        Definition::text("hello", "en_US", "UTILITY", "Hello from Harbour Clinic."),
        Definition::text("cart_nudge", "en_US", "MARKETING", "Hi {{1}}, your cart is waiting."),
        named,
        pictured,
        Definition::text("paused_offer", "en_US", "MARKETING", "Hi {{1}}, today only.").with_status("PAUSED"),
        Definition::text("disabled_offer", "en_US", "MARKETING", "Hi {{1}}, today only.").with_status("DISABLED"),
        Definition::text("pending_news", "en_US", "MARKETING", "Hi {{1}}, there is news.").with_status("PENDING"),
    ]
}

fn positional() -> String {
    "POSITIONAL".into()
}

fn approved() -> String {
    APPROVED.into()
}

fn header(component: &Value, text: &str, named: bool) -> Result<Header, Refusal> {
    match component["format"].as_str().unwrap_or("TEXT").to_ascii_uppercase().as_str() {
        "TEXT" => variables(text, named).map(Header::Text),
        format @ ("IMAGE" | "VIDEO" | "DOCUMENT" | "LOCATION") => Ok(Header::Supplied(format.to_ascii_lowercase())),
        other => Err(Refusal::invalid(format!("Unknown header format {other}."))),
    }
}

fn button(button: &Value) -> Button {
    let kind = button["type"].as_str().unwrap_or_default().to_ascii_uppercase();
    let (sub_type, wants_parameter) = match kind.as_str() {
        "URL" => ("url", button["url"].as_str().is_some_and(|url| url.contains("{{"))),
        // One-tap, zero-tap and copy-code buttons are all filled as a URL button.
        "OTP" => ("url", true),
        "COPY_CODE" => ("copy_code", true),
        "QUICK_REPLY" => ("quick_reply", false),
        "FLOW" => ("flow", false),
        "CATALOG" => ("catalog", false),
        "MPM" => ("mpm", true),
        _ => ("none", false),
    };
    Button { sub_type: sub_type.into(), wants_parameter }
}

/// The variables of a text in order of appearance: `{{1}}`, or `{{first_name}}` in named templates.
fn variables(text: &str, named: bool) -> Result<Vec<String>, Refusal> {
    let mut found: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let Some(length) = rest[start..].find("}}") else { break };
        let name = rest[start + 2..start + length].trim();
        let fits = if named {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        } else {
            name.parse::<usize>().is_ok()
        };
        if !fits {
            return Err(Refusal::invalid(format!("Variable {{{{{name}}}}} does not fit the parameter format.")));
        }
        if !found.iter().any(|known| known == name) {
            found.push(name.to_owned());
        }
        rest = &rest[start + length + 2..];
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_follows_from_the_definition() {
        let shapes: Vec<_> = defaults().iter().map(|d| (d.name.clone(), d.shape().unwrap())).collect();
        assert_eq!(shapes[0].1.body, ["1", "2"]);
        let pictured = &shapes.iter().find(|(name, _)| name == "picture_reminder").unwrap().1;
        assert_eq!(pictured.header, Header::Supplied("image".into()));
        assert!(pictured.buttons[1].wants_parameter);
    }

    #[test]
    fn variables_at_the_edge_are_refused_at_creation() {
        let refused = Definition::text("x", "en_US", "UTILITY", "{{1}} hello").shape().unwrap_err();
        assert_eq!(refused.code, 2_388_299);
    }
}
