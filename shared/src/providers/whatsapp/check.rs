//! What WhatsApp would refuse in a message and can be seen without asking it (contract, section 7). Whether a template
//! exists, and how many variables it has, is not known here.

use crate::{
    domain::content::{OutboundContent, Template, Text},
    providers::{FieldProblem, sending::Facts},
};

const MAX_TEXT_CHARACTERS: usize = 4096;
const MAX_NAME_CHARACTERS: usize = 512;
/// A template's body has at most 1024 characters; `{{1}}` has five.
const MAX_VARIABLES: usize = 204;

/// Everything WhatsApp would refuse in `content` that can be seen without asking it. For the API, before anything is stored.
///
/// # Errors
/// The problems, each with its field.
pub fn check(content: &OutboundContent, _files: &Facts) -> Result<(), Vec<FieldProblem>> {
    let mut problems = Vec::new();
    let mut problem = |field: &str, message: &str| {
        problems.push(FieldProblem { field: field.to_owned(), message: message.to_owned() });
    };
    match content {
        OutboundContent::Text(Text { text, .. }) => {
            if text.trim().is_empty() {
                problem("text", "must not be empty");
            }
            if text.chars().count() > MAX_TEXT_CHARACTERS {
                problem("text", "must have at most 4096 characters");
            }
            if text.contains('\0') {
                problem("text", "must not contain NUL");
            }
        }
        OutboundContent::Template(Template { name, language, variables, .. }) => {
            let in_alphabet = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if name.is_empty() || name.len() > MAX_NAME_CHARACTERS || !name.chars().all(in_alphabet) {
                problem("name", "must be 1 to 512 lower-case letters, digits or underscores");
            }
            if !is_language(language) {
                problem("language", "must be a language code as WhatsApp writes it, such as en or en_US");
            }
            if variables.len() > MAX_VARIABLES {
                problem("variables", "no template has more than 204");
            }
            for (index, value) in variables.iter().enumerate().take(MAX_VARIABLES) {
                if let Some(message) = variable_problem(value) {
                    problem(&format!("variables[{index}]"), message);
                }
            }
        }
        _ => problem("type", "is nothing that this release can send by WhatsApp"),
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
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

/// Newlines, tabs and more than four spaces in a row are refused inside parameters (contract, section 7.4).
fn variable_problem(value: &str) -> Option<&'static str> {
    if value.trim().is_empty() {
        Some("must not be empty")
    } else if value.contains(['\n', '\r', '\t', '\0']) {
        Some("must not contain newlines, tabs or NUL")
    } else if value.contains("     ") {
        Some("must not contain more than four spaces in a row")
    } else if value.chars().count() > MAX_TEXT_CHARACTERS {
        Some("must have at most 4096 characters")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
