//! A provider's template: how it is described, what it needs at each sending, and whether that is given.

use super::content::{Template, TemplateButton, TemplateHeader};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// A template in one language, as its provider describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateInfo {
    /// Its name.
    pub name: String,
    /// The language's code.
    pub language: String,
    /// The provider's word for its state, in upper case.
    pub status: String,
    /// MARKETING, UTILITY, AUTHENTICATION; empty: nobody has said.
    pub category: String,
    /// The body with its variables.
    pub body: String,
    /// How many values it needs.
    pub variables: i32,
    /// All that it needs at each sending.
    pub needs: Needs,
    /// The provider's id of it.
    pub provider_id: Option<String>,
    /// As the provider describes it.
    pub components: Option<Value>,
    /// Why it has its status.
    pub reason: Option<String>,
}

/// What a template needs at each sending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Its header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderNeed>,
    /// The names of its body's variables, if they are named.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub named: BTreeSet<String>,
    /// How many values its body needs, if they are numbered.
    #[serde(default)]
    pub variables: usize,
    /// The buttons that need something, by place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buttons: Vec<ButtonNeed>,
    /// What each card of a carousel needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<Needs>,
    /// Whether the end of an offer has to be said.
    #[serde(default)]
    pub offer: bool,
    /// What it needs that nobody can say here: then it cannot be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond_us: Option<String>,
}

/// What a header needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderNeed {
    /// The value of its variable, and the variable's name if it has one.
    Text(Option<String>),
    /// A picture.
    Image,
    /// A film.
    Video,
    /// A file.
    Document,
    /// A place.
    Location,
}

/// What a button needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ButtonNeed {
    /// Its place, from 0.
    pub index: u8,
    /// What it is.
    pub kind: ButtonKind,
    /// Whether it works without anything.
    #[serde(default)]
    pub optional: bool,
}

/// What a button is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ButtonKind {
    /// A quick reply, whose payload can be given.
    QuickReply,
    /// A link whose end is given.
    Url,
    /// A code to copy.
    CopyCode,
    /// A form.
    Flow,
    /// A catalogue.
    Catalog,
    /// Products.
    Products,
}

impl ButtonKind {
    fn of(button: &TemplateButton) -> Self {
        match button {
            TemplateButton::QuickReply { .. } => ButtonKind::QuickReply,
            TemplateButton::Url { .. } => ButtonKind::Url,
            TemplateButton::CopyCode { .. } => ButtonKind::CopyCode,
            TemplateButton::Flow { .. } => ButtonKind::Flow,
            TemplateButton::Catalog { .. } => ButtonKind::Catalog,
            TemplateButton::Products { .. } => ButtonKind::Products,
        }
    }

    fn word(self) -> &'static str {
        match self {
            ButtonKind::QuickReply => "quick_reply",
            ButtonKind::Url => "url",
            ButtonKind::CopyCode => "copy_code",
            ButtonKind::Flow => "flow",
            ButtonKind::Catalog => "catalog",
            ButtonKind::Products => "products",
        }
    }
}

/// What is missing, or one too many: field and sentence.
pub type Lack = (String, String);

/// The names between `{{` and `}}`, each once, in the order in which they stand.
pub fn placeholders(text: &str) -> Vec<&str> {
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

/// A template's words as somebody reads them; a variable without a value stays as it is written.
pub fn filled(text: &str, given: &Template) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{")
        && let Some((name, after)) = after.split_once("}}")
    {
        filled.push_str(before);
        let name = name.trim();
        let by_number = name.parse::<usize>().ok().and_then(|number| given.variables.get(number.checked_sub(1)?));
        match given.named_variables.get(name).or(by_number) {
            Some(value) => filled.push_str(value),
            None => filled.extend(["{{", name, "}}"]),
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}

impl Needs {
    /// What a sending lacks or has too much of.
    pub fn lacks(&self, given: &Template) -> Vec<Lack> {
        let mut lacks = Vec::new();
        self.body("", &given.variables, &mut lacks);
        let mut lack = |field: String, words: String| lacks.push((field, words));
        for name in self.named.iter().filter(|name| !given.named_variables.contains_key(*name)) {
            lack(format!("named_variables.{name}"), format!("is missing: the value of {{{{{name}}}}}"));
        }
        for name in given.named_variables.keys().filter(|name| !self.named.contains(*name)) {
            lack(format!("named_variables.{name}"), "is no variable of this template".to_owned());
        }
        self.header("header", given.header.as_ref(), &mut lacks);
        self.buttons("buttons", &given.buttons, &mut lacks);
        if self.offer != given.offer_expires_at.is_some() {
            let words = if self.offer { "is needed: when the offer ends" } else { "is not a part of this template" };
            lacks.push(("offer_expires_at".to_owned(), words.to_owned()));
        }
        if self.cards.len() != given.cards.len() {
            let words = format!("must be {} cards, as the template has", self.cards.len());
            lacks.push(("cards".to_owned(), words));
        }
        for (index, (needs, card)) in self.cards.iter().zip(&given.cards).enumerate() {
            let at = format!("cards[{index}]");
            needs.body(&format!("{at}."), &card.variables, &mut lacks);
            needs.header(&format!("{at}.header"), card.header.as_ref(), &mut lacks);
            needs.buttons(&format!("{at}.buttons"), &card.buttons, &mut lacks);
        }
        lacks
    }

    fn body(&self, under: &str, given: &[String], lacks: &mut Vec<Lack>) {
        for missing in given.len()..self.variables {
            let words = format!("is missing: the value of {{{{{}}}}}", missing + 1);
            lacks.push((format!("{under}variables[{missing}]"), words));
        }
        for surplus in self.variables..given.len() {
            lacks.push((format!("{under}variables[{surplus}]"), "is one too many".to_owned()));
        }
    }

    fn header(&self, field: &str, given: Option<&TemplateHeader>, lacks: &mut Vec<Lack>) {
        let word = |need: &HeaderNeed| match need {
            HeaderNeed::Text(_) => "a text",
            HeaderNeed::Image => "an image",
            HeaderNeed::Video => "a video",
            HeaderNeed::Document => "a document",
            HeaderNeed::Location => "a location",
        };
        let fits = match (&self.header, given) {
            (None, None) => return,
            (None, Some(_)) => {
                lacks.push((field.to_owned(), "is nothing that this template needs".to_owned()));
                return;
            }
            (Some(HeaderNeed::Text(name)), Some(TemplateHeader::Text { name: given, .. })) => name == given,
            (Some(HeaderNeed::Image), Some(TemplateHeader::Image { .. }))
            | (Some(HeaderNeed::Video), Some(TemplateHeader::Video { .. }))
            | (Some(HeaderNeed::Document), Some(TemplateHeader::Document { .. }))
            | (Some(HeaderNeed::Location), Some(TemplateHeader::Location { .. })) => true,
            (Some(_), _) => false,
        };
        if let Some(need) = self.header.as_ref().filter(|_| !fits) {
            let named = match need {
                HeaderNeed::Text(Some(name)) => format!(" with the name {name}"),
                _ => String::new(),
            };
            lacks.push((field.to_owned(), format!("must be {}{named}, as the template has", word(need))));
        }
    }

    fn buttons(&self, field: &str, given: &[TemplateButton], lacks: &mut Vec<Lack>) {
        for need in self.buttons.iter().filter(|need| !need.optional) {
            if !given.iter().any(|button| button.index() == need.index) {
                let words = format!("lacks the {} button with the index {}", need.kind.word(), need.index);
                lacks.push((field.to_owned(), words));
            }
        }
        let mut seen = BTreeSet::new();
        for (place, button) in given.iter().enumerate() {
            let need = self.buttons.iter().find(|need| need.index == button.index());
            let words = match need {
                None => "is about a button that needs nothing".to_owned(),
                Some(need) if need.kind != ButtonKind::of(button) => {
                    format!("must be of the type {}", need.kind.word())
                }
                Some(_) if !seen.insert(button.index()) => "is about the same button as one before it".to_owned(),
                Some(_) => continue,
            };
            lacks.push((format!("{field}[{place}]"), words));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::{FileRef, TemplateCard};

    fn fields(needs: &Needs, given: &Template) -> Vec<String> {
        needs.lacks(given).into_iter().map(|(field, _)| field).collect()
    }

    fn given(variables: &[&str]) -> Template {
        let variables = variables.iter().map(|value| (*value).to_owned()).collect();
        Template { name: "n".into(), language: "en".into(), variables, ..Template::default() }
    }

    #[test]
    fn what_is_given_must_be_what_is_needed() {
        let image = || Some(TemplateHeader::Image { file: FileRef::default() });
        let button = |index, kind| ButtonNeed { index, kind, optional: kind == ButtonKind::QuickReply };
        let url = |index| TemplateButton::Url { index, text: "7781".into() };
        let reply = |index| TemplateButton::QuickReply { index, payload: "YES".into() };
        let plain = Needs { variables: 2, ..Needs::default() };
        let rich = Needs {
            header: Some(HeaderNeed::Image),
            buttons: vec![button(0, ButtonKind::QuickReply), button(1, ButtonKind::Url)],
            ..Needs::default()
        };
        let named = Needs { named: ["first_name".to_owned()].into(), ..Needs::default() };
        let with = |change: &dyn Fn(&mut Template)| {
            let mut template = given(&[]);
            change(&mut template);
            template
        };
        for (needs, given, expected) in [
            (&plain, given(&["a", "b"]), &[] as &[&str]),
            (&plain, given(&["a"]), &["variables[1]"]),
            (&plain, given(&["a", "b", "c"]), &["variables[2]"]),
            (&plain, with(&|t| t.header = image()), &["variables[0]", "variables[1]", "header"]),
            (&named, with(&|t| drop(t.named_variables.insert("first_name".into(), "Ada".into()))), &[]),
            (&named, given(&[]), &["named_variables.first_name"]),
            (
                &named,
                with(&|t| drop(t.named_variables.insert("slot".into(), "x".into()))),
                &["named_variables.first_name", "named_variables.slot"],
            ),
            (&rich, with(&|t| (t.header, t.buttons) = (image(), vec![url(1)])), &[]),
            (&rich, with(&|t| (t.header, t.buttons) = (image(), vec![reply(0), url(1)])), &[]),
            (&rich, given(&[]), &["header", "buttons"]),
            (&rich, with(&|t| (t.header, t.buttons) = (image(), vec![reply(1)])), &["buttons[0]"]),
            (&rich, with(&|t| (t.header, t.buttons) = (image(), vec![url(1), url(1)])), &["buttons[1]"]),
            (&rich, with(&|t| (t.header, t.buttons) = (image(), vec![url(1), url(2)])), &["buttons[1]"]),
            (
                &rich,
                with(&|t| {
                    (t.header, t.buttons) = (Some(TemplateHeader::Video { file: FileRef::default() }), vec![url(1)])
                }),
                &["header"],
            ),
        ] {
            assert_eq!(fields(needs, &given), expected, "{given:?}");
        }
    }

    #[test]
    fn every_card_has_what_it_needs() {
        let card = Needs { header: Some(HeaderNeed::Image), variables: 1, ..Needs::default() };
        let needs = Needs { cards: vec![card.clone(), card], offer: true, ..Needs::default() };
        let good = TemplateCard {
            header: Some(TemplateHeader::Image { file: FileRef::default() }),
            variables: vec!["x".into()],
            buttons: vec![],
        };
        let mut template = given(&[]);
        template.cards = vec![good.clone(), TemplateCard::default()];
        assert_eq!(fields(&needs, &template), ["offer_expires_at", "cards[1].variables[0]", "cards[1].header"]);
        template.cards = vec![good];
        assert_eq!(fields(&needs, &template), ["offer_expires_at", "cards"]);
    }

    #[test]
    fn words_are_shown_as_they_will_be_read() {
        let mut template = given(&["Ada"]);
        template.named_variables.insert("slot".into(), "9:30".into());
        assert_eq!(filled("Hi {{1}}, {{ slot }}, {{2}} {{0}} {{", &template), "Hi Ada, 9:30, {{2}} {{0}} {{");
        assert_eq!(placeholders("{{1}} {{ a }} {{1}} {{}} {{b"), ["1", "a"]);
    }

    #[test]
    fn needs_survive_being_kept() {
        let needs = Needs {
            header: Some(HeaderNeed::Text(Some("slot".into()))),
            buttons: vec![ButtonNeed { index: 1, kind: ButtonKind::CopyCode, optional: false }],
            ..Needs::default()
        };
        let kept = serde_json::to_value(&needs).unwrap();
        assert_eq!(serde_json::from_value::<Needs>(kept).unwrap(), needs);
        assert_eq!(serde_json::from_str::<Needs>("{}").unwrap(), Needs::default());
    }
}
