//! What WhatsApp would refuse in a message and can be seen without asking it (contract, sections 7, 9 and 10.2). Whether a template
//! exists, and what its places need, is not known here.

use crate::{
    domain::content::{
        Button, Buttons, CardName, ContactCard, Contacts, Flow, Header, List, Location, OutboundContent, Product,
        ProductList, ProductSection, Template, TemplateButton, TemplateCard, TemplateHeader, Text,
    },
    providers::{
        FieldProblem,
        checking::{Checking, FileLimit, MB, Most},
        sending::Facts,
    },
};

const MAX_TEXT: Most = Most::Characters(4096);
const MAX_CAPTION: Most = Most::Characters(1024);
const MAX_BODY: Most = Most::Characters(1024);
/// Above and below the words of an interactive message.
const MAX_LINE: Most = Most::Characters(60);
/// No limit is documented of the ids of a catalogue and a form.
const MAX_ID: Most = Most::Characters(256);
const MAX_NAME_CHARACTERS: usize = 512;
/// A template's body has at most 1024 characters; `{{1}}` has five.
const MAX_VARIABLES: usize = 204;

const IMAGE: FileLimit = FileLimit { types: &[("image/jpeg", 5 * MB), ("image/png", 5 * MB)] };
const VIDEO: FileLimit = FileLimit { types: &[("video/mp4", 16 * MB), ("video/3gpp", 16 * MB)] };
const AUDIO: FileLimit = FileLimit {
    types: &[
        ("audio/aac", 16 * MB),
        ("audio/amr", 16 * MB),
        ("audio/mpeg", 16 * MB),
        ("audio/mp4", 16 * MB),
        ("audio/ogg", 16 * MB),
    ],
};
const VOICE: FileLimit = FileLimit { types: &[("audio/ogg", 16 * MB)] };
const DOCUMENT: FileLimit = FileLimit {
    types: &[
        ("text/plain", 100 * MB),
        ("application/pdf", 100 * MB),
        ("application/msword", 100 * MB),
        ("application/vnd.ms-excel", 100 * MB),
        ("application/vnd.ms-powerpoint", 100 * MB),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", 100 * MB),
        ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", 100 * MB),
        ("application/vnd.openxmlformats-officedocument.presentationml.presentation", 100 * MB),
    ],
};
/// One that moves may be as large; one that does not has 100 KB, which its first bytes do not tell apart.
const STICKER: FileLimit = FileLimit { types: &[("image/webp", 500 * 1024)] };

/// Everything WhatsApp would refuse in `content` that can be seen without asking it. For the API, before anything is stored.
///
/// # Errors
/// The problems, each with its field.
pub fn check(content: &OutboundContent, files: &Facts) -> Result<(), Vec<FieldProblem>> {
    use OutboundContent as Is;
    let mut found = Checking::of(files);
    match content {
        Is::Text(Text { text, quick_replies, .. }) => {
            found.text("text", text, MAX_TEXT);
            found.absent(
                "quick_replies",
                quick_replies.is_empty(),
                "must be buttons on WhatsApp: it has no quick replies",
            );
        }
        Is::Template(template) => self::template(&mut found, template),
        Is::Image(image) => {
            found.file("file", &image.file, &IMAGE);
            found.optional("caption", image.caption.as_deref(), MAX_CAPTION);
        }
        Is::Video(video) => {
            found.file("file", &video.file, &VIDEO);
            found.optional("caption", video.caption.as_deref(), MAX_CAPTION);
        }
        Is::Audio(audio) => found.file("file", &audio.file, if audio.voice { &VOICE } else { &AUDIO }),
        Is::Document(document) => {
            found.file("file", &document.file, &DOCUMENT);
            found.optional("caption", document.caption.as_deref(), MAX_CAPTION);
            found.optional("filename", document.filename.as_deref(), MAX_ID);
        }
        Is::Sticker(sticker) => found.file("file", &sticker.file, &STICKER),
        Is::Location(location) => place(&mut found, "", location),
        Is::Contacts(Contacts { contacts }) => {
            found.count("contacts", contacts.len(), 1..=257);
            for (index, card) in contacts.iter().enumerate() {
                self::card(&mut found, index, card);
            }
        }
        Is::Buttons(buttons) => self::buttons(&mut found, buttons),
        Is::List(list) => self::list(&mut found, list),
        Is::Flow(flow) => self::flow(&mut found, flow),
        Is::Product(Product { catalog_id, product_id, text, footer }) => {
            found.text("catalog_id", catalog_id, MAX_ID);
            found.text("product_id", product_id, MAX_ID);
            found.optional("text", text.as_deref(), MAX_BODY);
            found.optional("footer", footer.as_deref(), MAX_LINE);
        }
        Is::ProductList(ProductList { text, header, footer, catalog_id, sections }) => {
            found.text("text", text, MAX_BODY);
            found.text("header", header, MAX_LINE);
            found.optional("footer", footer.as_deref(), MAX_LINE);
            found.text("catalog_id", catalog_id, MAX_ID);
            products(&mut found, "sections", sections);
        }
        Is::Catalog(catalog) => {
            found.text("text", &catalog.text, MAX_BODY);
            found.optional("footer", catalog.footer.as_deref(), MAX_LINE);
            found.optional("thumbnail_product_id", catalog.thumbnail_product_id.as_deref(), MAX_ID);
        }
        Is::LocationRequest(request) => found.text("text", &request.text, MAX_BODY),
        Is::ContactRequest(request) => found.text("text", &request.text, MAX_BODY),
        Is::Reaction(reaction) => found.emoji("emoji", &reaction.emoji),
        Is::Album(_) | Is::Cards(_) | Is::Heart(_) | Is::Post(_) => found.no_such_kind("WhatsApp", content.type_name()),
    }
    found.finish()
}

fn place(found: &mut Checking, path: &str, location: &Location) {
    found.degrees(&format!("{path}latitude"), location.latitude, 90.0);
    found.degrees(&format!("{path}longitude"), location.longitude, 180.0);
    found.optional(&format!("{path}name"), location.name.as_deref(), Most::Characters(1000));
    found.optional(&format!("{path}address"), location.address.as_deref(), Most::Characters(1000));
}

/// At least one part of the name beside the whole (contract, section 7.2).
fn card(found: &mut Checking, index: usize, card: &ContactCard) {
    let CardName { formatted_name, first_name, last_name, middle_name, suffix, prefix } = &card.name;
    let at = |field: &str| format!("contacts[{index}].{field}");
    found.text(&at("name.formatted_name"), formatted_name, MAX_ID);
    let parts = [first_name, last_name, middle_name, suffix, prefix];
    if parts.into_iter().flatten().all(|part| part.trim().is_empty()) {
        found.problem(&at("name"), "must have at least one part beside formatted_name, such as first_name");
    }
    for (place, phone) in card.phones.iter().enumerate() {
        found.text(&at(&format!("phones[{place}].phone")), &phone.phone, MAX_ID);
    }
    for (place, email) in card.emails.iter().enumerate() {
        found.text(&at(&format!("emails[{place}].email")), &email.email, MAX_ID);
    }
    for (place, url) in card.urls.iter().enumerate() {
        found.text(&at(&format!("urls[{place}].url")), &url.url, Most::Characters(2000));
    }
    if let Some(birthday) = &card.birthday
        && chrono::NaiveDate::parse_from_str(birthday, "%Y-%m-%d").is_err()
    {
        found.problem(&at("birthday"), "must be a date, YYYY-MM-DD");
    }
}

/// Up to three to answer with, or one that leads to an address (contract, section 7.3).
fn buttons(found: &mut Checking, content: &Buttons) {
    found.text("text", &content.text, MAX_BODY);
    header(found, content.header.as_ref());
    found.optional("footer", content.footer.as_deref(), MAX_LINE);
    found.count("buttons", content.buttons.len(), 1..=3);
    let is_alone = content.buttons.len() == 1;
    for (index, button) in content.buttons.iter().enumerate() {
        found.text(&format!("buttons[{index}].title"), button.title(), Most::Characters(20));
        match button {
            Button::Reply { id, .. } => found.text(&format!("buttons[{index}].id"), id, Most::Characters(256)),
            Button::Url { url, .. } => {
                found.https(&format!("buttons[{index}].url"), url);
                found.absent(
                    &format!("buttons[{index}]"),
                    is_alone,
                    "must be the only button if it leads to an address",
                );
            }
            Button::Call { .. } => {
                found.problem(
                    &format!("buttons[{index}].type"),
                    "must be reply or url: WhatsApp has no buttons that call a number",
                );
            }
        }
    }
    let titles = content.buttons.iter().enumerate();
    found.unique(titles.map(|(index, button)| (format!("buttons[{index}].title"), button.title())));
    let ids = content.buttons.iter().enumerate().filter_map(|(index, button)| match button {
        Button::Reply { id, .. } => Some((format!("buttons[{index}].id"), id.as_str())),
        Button::Url { .. } | Button::Call { .. } => None,
    });
    found.unique(ids);
}

fn header(found: &mut Checking, header: Option<&Header>) {
    match header {
        None => {}
        Some(Header::Text { text }) => found.text("header.text", text, MAX_LINE),
        Some(Header::Image { file }) => found.file("header.file", file, &IMAGE),
        Some(Header::Video { file }) => found.file("header.file", file, &VIDEO),
        Some(Header::Document { file, filename }) => {
            found.file("header.file", file, &DOCUMENT);
            found.optional("header.filename", filename.as_deref(), MAX_ID);
        }
    }
}

fn list(found: &mut Checking, list: &List) {
    found.text("text", &list.text, MAX_TEXT);
    found.optional("header", list.header.as_deref(), MAX_LINE);
    found.optional("footer", list.footer.as_deref(), MAX_LINE);
    found.text("button", &list.button, Most::Characters(20));
    found.count("sections", list.sections.len(), 1..=10);
    let rows: usize = list.sections.iter().map(|section| section.rows.len()).sum();
    if rows > 10 {
        found.problem("sections", "must have at most 10 rows in total");
    }
    for (index, section) in list.sections.iter().enumerate() {
        found.optional(&format!("sections[{index}].title"), section.title.as_deref(), Most::Characters(24));
        if list.sections.len() > 1 && section.title.is_none() {
            found.problem(&format!("sections[{index}].title"), "is needed where there are several sections");
        }
        if section.rows.is_empty() {
            found.problem(&format!("sections[{index}].rows"), "must have at least 1");
        }
        for (place, row) in section.rows.iter().enumerate() {
            let at = |field: &str| format!("sections[{index}].rows[{place}].{field}");
            found.text(&at("id"), &row.id, Most::Characters(200));
            found.text(&at("title"), &row.title, Most::Characters(24));
            found.optional(&at("description"), row.description.as_deref(), Most::Characters(72));
        }
    }
    let rows = list.sections.iter().enumerate().flat_map(|(index, section)| {
        let rows = section.rows.iter().enumerate();
        rows.map(move |(place, row)| (format!("sections[{index}].rows[{place}].id"), row.id.as_str()))
    });
    found.unique(rows);
}

fn flow(found: &mut Checking, flow: &Flow) {
    found.text("text", &flow.text, MAX_BODY);
    header(found, flow.header.as_ref());
    found.optional("footer", flow.footer.as_deref(), MAX_LINE);
    found.text("flow_id", &flow.flow_id, MAX_ID);
    // About 20 to 30 characters, by what is known: the larger refuses nothing that would have been taken.
    found.text("button", &flow.button, Most::Characters(30));
    found.optional("token", flow.token.as_deref(), MAX_ID);
    found.optional("screen", flow.screen.as_deref(), MAX_ID);
    let is_placed = flow.data.is_none() || flow.screen.is_some();
    found.absent("data", is_placed, "needs a screen that is filled with it");
}

/// At most 30 products in at most 10 sections.
fn products(found: &mut Checking, field: &str, sections: &[ProductSection]) {
    found.count(field, sections.len(), 1..=10);
    if sections.iter().map(|section| section.product_ids.len()).sum::<usize>() > 30 {
        found.problem(field, "must have at most 30 products in total");
    }
    for (index, section) in sections.iter().enumerate() {
        found.text(&format!("{field}[{index}].title"), &section.title, Most::Characters(24));
        if section.product_ids.is_empty() {
            found.problem(&format!("{field}[{index}].product_ids"), "must have at least 1");
        }
        for (place, id) in section.product_ids.iter().enumerate() {
            found.text(&format!("{field}[{index}].product_ids[{place}]"), id, MAX_ID);
        }
    }
}

fn template(found: &mut Checking, template: &Template) {
    let Template { name, language, variables, named_variables, header, buttons, cards, .. } = template;
    let in_alphabet = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > MAX_NAME_CHARACTERS || !name.chars().all(in_alphabet) {
        found.problem("name", "must be 1 to 512 lower-case letters, digits or underscores");
    }
    if !is_language(language) {
        found.problem("language", "must be a language code as WhatsApp writes it, such as en or en_US");
    }
    values(found, "variables", variables);
    if !named_variables.is_empty() && !variables.is_empty() {
        found.problem("named_variables", "must not stand beside variables: a template's are named or numbered");
    }
    if named_variables.len() > MAX_VARIABLES {
        found.problem("named_variables", "no template has more than 204");
    }
    for (name, value) in named_variables.iter().take(MAX_VARIABLES) {
        found.value(&format!("named_variables.{name}"), value, MAX_TEXT);
    }
    template_header(found, "header", header.as_ref());
    template_buttons(found, "buttons", buttons);
    if !cards.is_empty() {
        found.count("cards", cards.len(), 2..=10);
    }
    for (index, TemplateCard { header, variables, buttons }) in cards.iter().enumerate() {
        if let Some(TemplateHeader::Image { .. } | TemplateHeader::Video { .. }) | None = header {
            template_header(found, &format!("cards[{index}].header"), header.as_ref());
        } else {
            found.problem(&format!("cards[{index}].header.type"), "must be image or video");
        }
        values(found, &format!("cards[{index}].variables"), variables);
        template_buttons(found, &format!("cards[{index}].buttons"), buttons);
    }
}

fn values(found: &mut Checking, field: &str, values: &[String]) {
    if values.len() > MAX_VARIABLES {
        found.problem(field, "no template has more than 204");
    }
    for (index, value) in values.iter().enumerate().take(MAX_VARIABLES) {
        found.value(&format!("{field}[{index}]"), value, MAX_TEXT);
    }
}

fn template_header(found: &mut Checking, field: &str, header: Option<&TemplateHeader>) {
    match header {
        None => {}
        Some(TemplateHeader::Text { text, name }) => {
            found.value(&format!("{field}.text"), text, MAX_LINE);
            found.optional(&format!("{field}.name"), name.as_deref(), MAX_LINE);
        }
        Some(TemplateHeader::Image { file }) => found.file(&format!("{field}.file"), file, &IMAGE),
        Some(TemplateHeader::Video { file }) => found.file(&format!("{field}.file"), file, &VIDEO),
        Some(TemplateHeader::Document { file, filename }) => {
            found.file(&format!("{field}.file"), file, &DOCUMENT);
            found.optional(&format!("{field}.filename"), filename.as_deref(), MAX_ID);
        }
        Some(TemplateHeader::Location { location }) => place(found, &format!("{field}.location."), location),
    }
}

/// A template has at most ten (contract, section 10.2).
fn template_buttons(found: &mut Checking, field: &str, buttons: &[TemplateButton]) {
    found.count(field, buttons.len(), 0..=10);
    let mut taken = std::collections::HashSet::new();
    for (place, button) in buttons.iter().enumerate() {
        let at = |name: &str| format!("{field}[{place}].{name}");
        if button.index() > 9 {
            found.problem(&at("index"), "must be 0 to 9");
        }
        if !taken.insert(button.index()) {
            found.problem(&at("index"), "must not be the same as an earlier one");
        }
        match button {
            TemplateButton::QuickReply { payload, .. } => found.text(&at("payload"), payload, MAX_ID),
            TemplateButton::Url { text, .. } => found.value(&at("text"), text, Most::Characters(2000)),
            // 15 by the contract, 20 in newer text.
            TemplateButton::CopyCode { code, .. } => found.value(&at("code"), code, Most::Characters(20)),
            TemplateButton::Flow { token, .. } => found.optional(&at("token"), token.as_deref(), MAX_ID),
            TemplateButton::Catalog { thumbnail_product_id, .. } => {
                found.optional(&at("thumbnail_product_id"), thumbnail_product_id.as_deref(), MAX_ID);
            }
            TemplateButton::Products { thumbnail_product_id, sections, .. } => {
                found.text(&at("thumbnail_product_id"), thumbnail_product_id, MAX_ID);
                products(found, &at("sections"), sections);
            }
        }
    }
}

/// `en`, `en_US`, `prs_AF`: the form; there is no closed list (contract, section 10.4).
fn is_language(code: &str) -> bool {
    let mut parts = code.split('_');
    let language = parts.next().unwrap_or_default();
    (2..=3).contains(&language.len())
        && language.bytes().all(|byte| byte.is_ascii_lowercase())
        && parts.clone().count() <= 2
        && parts.all(|part| (2..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::ids::FileId, providers::sending::FileFacts};
    use serde_json::{Value, json};

    fn fields(content: &OutboundContent) -> Vec<String> {
        check(content, &Facts::new()).err().unwrap_or_default().into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn a_text_has_1_to_4096_characters() {
        for (text, expected) in [
            ("a".to_owned(), &[] as &[&str]),
            ("é".repeat(4096), &[]),
            ("one\ntwo\tthree      four".to_owned(), &[]),
            (String::new(), &["text"]),
            (" \n".to_owned(), &["text"]),
            ("é".repeat(4097), &["text"]),
            ("a\0b".to_owned(), &["text"]),
            ("\0".repeat(4097), &["text", "text"]),
        ] {
            assert_eq!(
                fields(&OutboundContent::Text(Text { text: text.clone(), ..Text::default() })),
                expected,
                "{text:.20}"
            );
        }
    }

    #[test]
    fn a_template_is_named_and_filled_as_whatsapp_wants_it() {
        let long_name = "a".repeat(513);
        for (name, language, variables, expected) in [
            ("booking_reminder", "en_US", &["Ada", "4 Dec, 09:30"] as &[&str], &[] as &[&str]),
            ("a1", "en", &[], &[]),
            ("a1", "prs_AF", &["four    spaces"], &[]),
            ("", "en", &[], &["name"]),
            ("Booking", "en", &[], &["name"]),
            ("booking-reminder", "en", &[], &["name"]),
            (&long_name, "en", &[], &["name"]),
            ("a", "", &[], &["language"]),
            ("a", "en-US", &[], &["language"]),
            ("a", "EN", &[], &["language"]),
            ("a", "english", &[], &["language"]),
            ("a", "en_", &[], &["language"]),
            ("a", "en_US_x_y", &[], &["language"]),
            (
                "a",
                "en",
                &["ok", "a\nb", "a\tb", "five     spaces", "a\0", "", " ", "\r"],
                &[
                    "variables[1]",
                    "variables[2]",
                    "variables[3]",
                    "variables[4]",
                    "variables[5]",
                    "variables[6]",
                    "variables[7]",
                ],
            ),
            ("A", "x", &["\n"], &["name", "language", "variables[0]"]),
        ] {
            let content = OutboundContent::Template(Template {
                name: name.into(),
                language: language.into(),
                variables: variables.iter().map(|value| (*value).to_owned()).collect(),
                ..Template::default()
            });
            assert_eq!(fields(&content), expected, "{name:.20} {language} {variables:?}");
        }
        let content = OutboundContent::Template(Template {
            name: "a".into(),
            language: "en".into(),
            variables: vec![String::new(); 100_000],
            ..Template::default()
        });
        assert!(fields(&content).len() <= 205, "problems are not without end");
    }

    /// Each kind at its limits: what fits, and what is one too many.
    #[test]
    fn every_kind_has_its_limits() {
        let uploaded = |mime_type: &str, bytes: u64| {
            let id = FileId::new();
            (json!({"id": id}), Facts::from([(id, FileFacts { mime_type: mime_type.into(), bytes })]))
        };
        let mb = |count: u64| count * 1024 * 1024;
        for (kind, mime_type, bytes, is_good) in [
            ("image", "image/jpeg", mb(5), true),
            ("image", "image/png", mb(5) + 1, false),
            ("image", "image/gif", 10, false),
            ("image", "image/webp", 10, false),
            ("video", "video/mp4", mb(16), true),
            ("video", "video/3gpp", mb(16) + 1, false),
            ("video", "video/quicktime", 10, false),
            ("audio", "audio/ogg; codecs=opus", mb(16), true),
            ("audio", "audio/m4a", 10, true),
            ("audio", "audio/mpeg", mb(16) + 1, false),
            ("audio", "audio/x-wav", 10, false),
            ("document", "application/pdf", mb(100), true),
            ("document", "application/pdf", mb(100) + 1, false),
            ("document", "application/zip", 10, false),
            ("sticker", "image/webp", 500 * 1024, true),
            ("sticker", "image/webp", 500 * 1024 + 1, false),
            ("sticker", "image/png", 10, false),
        ] {
            let (file, facts) = uploaded(mime_type, bytes);
            let content = read(json!({"type": kind, "file": file}));
            assert_eq!(check(&content, &facts).is_ok(), is_good, "{kind} {mime_type} {bytes}");
        }
        let (file, facts) = uploaded("audio/mpeg", 10);
        let voice = read(json!({"type": "audio", "file": file, "voice": true}));
        assert!(check(&voice, &facts).unwrap_err()[0].message.contains("must be audio/ogg"));
        let link = json!({"link": "https://files.shop.example/x.gif"});
        assert_eq!(
            fields(&read(json!({"type": "image", "file": link}))),
            [] as [&str; 0],
            "what is there nobody knows"
        );
    }

    #[test]
    fn what_is_tapped_on_has_its_limits() {
        let reply = |id: &str, title: &str| json!({"type": "reply", "id": id, "title": title});
        let row = |id: usize| json!({"id": id.to_string(), "title": "t"});
        let rows = |range: std::ops::Range<usize>| range.map(row).collect::<Vec<_>>();
        let a = |count: usize| "a".repeat(count);
        for (content, expected) in [
            (
                json!({"type": "buttons", "text": a(1024), "footer": a(60), "header": {"type": "text", "text": a(60)},
                "buttons": [reply(&a(256), &a(20)), reply("b", "b"), reply("c", "c")]}),
                &[] as &[&str],
            ),
            (
                json!({"type": "buttons", "text": a(1025), "footer": a(61), "header": {"type": "text", "text": a(61)},
                "buttons": [reply(&a(257), &a(21))]}),
                &["text", "header.text", "footer", "buttons[0].title", "buttons[0].id"],
            ),
            (json!({"type": "buttons", "text": "x", "buttons": []}), &["buttons"]),
            (
                json!({"type": "buttons", "text": "x", "buttons": [reply("a", "A"), reply("a", "B"), reply("c", "A"), reply("d", "D")]}),
                &["buttons", "buttons[2].title", "buttons[1].id"],
            ),
            (
                json!({"type": "buttons", "text": "x", "buttons": [{"type": "url", "title": "Go", "url": "https://a.example"}]}),
                &[],
            ),
            (
                json!({"type": "buttons", "text": "x", "buttons": [{"type": "url", "title": "Go", "url": "http://a.example"}, reply("a", "A")]}),
                &["buttons[0].url", "buttons[0]"],
            ),
            (
                json!({"type": "buttons", "text": "x", "buttons": [{"type": "call", "title": "Go", "phone": "+15550001111"}]}),
                &["buttons[0].type"],
            ),
            (
                json!({"type": "list", "text": a(4096), "button": a(20), "header": a(60), "footer": a(60), "sections": [
                {"title": a(24), "rows": rows(0..5)}, {"title": "b", "rows": rows(5..10)}]}),
                &[],
            ),
            (
                json!({"type": "list", "text": a(4097), "button": a(21), "header": a(61), "footer": a(61), "sections": [
                {"title": a(25), "rows": rows(0..6)}, {"rows": rows(5..10)}]}),
                &[
                    "text",
                    "header",
                    "footer",
                    "button",
                    "sections",
                    "sections[0].title",
                    "sections[1].title",
                    "sections[1].rows[0].id",
                ],
            ),
            (json!({"type": "list", "text": "x", "button": "b", "sections": [{"rows": []}]}), &["sections[0].rows"]),
            (json!({"type": "list", "text": "x", "button": "b", "sections": []}), &["sections"]),
            (
                json!({"type": "list", "text": "x", "button": "b", "sections": [{"rows": [{"id": a(201), "title": a(25), "description": a(73)}]}]}),
                &["sections[0].rows[0].id", "sections[0].rows[0].title", "sections[0].rows[0].description"],
            ),
            (json!({"type": "flow", "text": "x", "flow_id": "1", "button": "b", "data": {"a": 1}}), &["data"]),
            (json!({"type": "flow", "text": "", "flow_id": "", "button": a(31)}), &["text", "flow_id", "button"]),
            (json!({"type": "product", "catalog_id": "", "product_id": ""}), &["catalog_id", "product_id"]),
            (
                json!({"type": "product_list", "text": "x", "header": "", "catalog_id": "1", "sections": [
                {"title": "t", "product_ids": vec!["p"; 31]}]}),
                &["header", "sections"],
            ),
            (
                json!({"type": "product_list", "text": "x", "header": "h", "catalog_id": "1", "sections": [{"title": "t", "product_ids": []}]}),
                &["sections[0].product_ids"],
            ),
            (json!({"type": "catalog", "text": a(1025)}), &["text"]),
            (json!({"type": "location_request", "text": a(1025)}), &["text"]),
            (json!({"type": "contact_request", "text": ""}), &["text"]),
        ] {
            assert_eq!(fields(&read(content.clone())), expected, "{content:.200}");
        }
    }

    #[test]
    fn places_cards_and_reactions_have_their_form() {
        let id = uuid::Uuid::from_u128(1);
        for (content, expected) in [
            (json!({"type": "location", "latitude": -90.0, "longitude": 180.0}), &[] as &[&str]),
            (
                json!({"type": "location", "latitude": 90.5, "longitude": -181.0, "name": " "}),
                &["latitude", "longitude", "name"],
            ),
            (
                json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "A", "first_name": "A"}, "birthday": "1984-02-29"}]}),
                &[],
            ),
            (
                json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "A"}, "phones": [{"phone": ""}], "birthday": "29.2.1984"}]}),
                &["contacts[0].name", "contacts[0].phones[0].phone", "contacts[0].birthday"],
            ),
            (json!({"type": "contacts", "contacts": []}), &["contacts"]),
            (json!({"type": "reaction", "message_id": id, "emoji": "👍🏽"}), &[]),
            (json!({"type": "reaction", "message_id": id, "emoji": "👨‍👩‍👧‍👦"}), &[]),
            (json!({"type": "reaction", "message_id": id, "emoji": ""}), &[]),
            (json!({"type": "reaction", "message_id": id, "emoji": "ok"}), &["emoji"]),
            (json!({"type": "reaction", "message_id": id, "emoji": "👍👍👍👍👍👍👍👍👍👍👍👍"}), &["emoji"]),
            (json!({"type": "album", "files": []}), &["type"]),
            (json!({"type": "cards", "cards": []}), &["type"]),
            (json!({"type": "heart"}), &["type"]),
            (json!({"type": "post", "post_id": "1"}), &["type"]),
            (json!({"type": "text", "text": "x", "quick_replies": [{"type": "email"}]}), &["quick_replies"]),
            (
                json!({"type": "image", "file": {"link": "https://a.example"}, "caption": "a".repeat(1025)}),
                &["caption"],
            ),
        ] {
            assert_eq!(fields(&read(content.clone())), expected, "{content:.200}");
        }
    }

    #[test]
    fn a_templates_places_have_their_form() {
        let file = json!({"link": "https://a.example"});
        for (content, expected) in [
            (
                json!({"header": {"type": "document", "file": file, "filename": "a.pdf"}, "named_variables": {"slot": "9"},
                "buttons": [{"type": "url", "index": 9, "text": "7"}, {"type": "copy_code", "index": 1, "code": "TEA20"}],
                "cards": [{"header": {"type": "image", "file": file}}, {"header": {"type": "video", "file": file}}]}),
                &[] as &[&str],
            ),
            (
                json!({"variables": ["a"], "named_variables": {"slot": "a\nb"}}),
                &["named_variables", "named_variables.slot"],
            ),
            (json!({"header": {"type": "text", "text": "a".repeat(61)}}), &["header.text"]),
            (
                json!({"header": {"type": "location", "location": {"latitude": 91.0, "longitude": 0.0}}}),
                &["header.location.latitude"],
            ),
            (
                json!({"buttons": [{"type": "url", "index": 10, "text": ""}, {"type": "quick_reply", "index": 10, "payload": "a".repeat(257)}]}),
                &["buttons[0].index", "buttons[0].text", "buttons[1].index", "buttons[1].index", "buttons[1].payload"],
            ),
            (
                json!({"buttons": [{"type": "products", "index": 0, "thumbnail_product_id": "a", "sections": []}]}),
                &["buttons[0].sections"],
            ),
            (
                json!({"cards": [{"header": {"type": "text", "text": "x"}, "variables": [""], "buttons": [{"type": "url", "index": 11, "text": "a"}]}]}),
                &["cards", "cards[0].header.type", "cards[0].variables[0]", "cards[0].buttons[0].index"],
            ),
        ] {
            let mut template = json!({"type": "template", "name": "n", "language": "en_US"});
            template.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
            assert_eq!(fields(&read(template)), expected, "{content:.200}");
        }
    }

    fn read(content: Value) -> OutboundContent {
        serde_json::from_value(content).unwrap()
    }
}
