//! What a gateway could not carry, by its description.

use super::config::GatewayConfig;
use crate::{
    domain::content::{OutboundContent, Text},
    providers::{
        FieldProblem,
        checking::{Checking, FileLimit, MB, Most},
        sending::Facts,
    },
};

/// Nothing is known of what it takes; this is what WhatsApp itself takes at most.
const ANY: FileLimit = FileLimit { types: &[("*", 100 * MB)] };

/// Everything in `content` that a gateway of this description does not carry. For the API, before anything is stored.
///
/// # Errors
/// The problems, each with its field.
pub fn check(config: &GatewayConfig, content: &OutboundContent, files: &Facts) -> Result<(), Vec<FieldProblem>> {
    let mut found = Checking::of(files);
    let most = Most::Characters(config.max_text_characters as usize);
    if !config.carries.iter().any(|kind| kind == content.type_name()) {
        found.no_such_kind("the gateway", content.type_name());
        return found.finish();
    }
    if let OutboundContent::Text(Text { text, quick_replies, .. }) = content {
        found.text("text", text, most);
        found.absent("quick_replies", quick_replies.is_empty(), "must be missing: a gateway has no quick replies");
    }
    for (field, file) in content.files() {
        found.file(&field, file, &ANY);
    }
    let caption = match content {
        OutboundContent::Image(image) => image.caption.as_deref(),
        OutboundContent::Video(video) => video.caption.as_deref(),
        OutboundContent::Document(document) => document.caption.as_deref(),
        _ => None,
    };
    found.optional("caption", caption, most);
    found.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::{gateway::preset, testing::sending::content};
    use serde_json::json;

    #[test]
    fn a_gateway_carries_what_its_description_says() {
        let text_alone = preset("botmaster").unwrap();
        let files = GatewayConfig { carries: vec!["image".into()], max_text_characters: 3, ..text_alone.clone() };
        let picture = json!({"type": "image", "file": {"link": "https://a.example/x"}, "caption": "long"});
        for (config, said, expected) in [
            (&text_alone, json!({"type": "text", "text": "a".repeat(4096)}), &[] as &[&str]),
            (&text_alone, json!({"type": "text", "text": "a".repeat(4097)}), &["text"]),
            (
                &text_alone,
                json!({"type": "text", "text": "a", "quick_replies": [{"type": "email"}]}),
                &["quick_replies"],
            ),
            (&text_alone, picture.clone(), &["type"]),
            (&text_alone, json!({"type": "template", "name": "n", "language": "en"}), &["type"]),
            (&files, picture, &["caption"]),
            (&files, json!({"type": "image", "file": {}}), &["file"]),
            (&files, json!({"type": "text", "text": "a"}), &["type"]),
        ] {
            let problems = check(config, &content(said.clone()), &Facts::new()).err().unwrap_or_default();
            let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
            assert_eq!(fields, expected, "{said:.100}");
        }
    }
}
