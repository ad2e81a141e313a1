//! The body of a send to Messenger or Instagram, read as strictly as the provider reads it (messenger contract page, section 3;
//! instagram, 3.1). Knows nothing of people, windows and limits.

use super::super::{fields::Fields, platform::Api, refusal::Refusal};
use super::{
    attachments::{self, File},
    desk::{To, Window},
};
use serde_json::{Value, json};

/// What was asked for.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) to: To<'a>,
    pub(super) window: Window,
    pub(super) content: Content<'a>,
    /// The thread is handed over with the message.
    pub(super) passes_control: bool,
    /// Name and language of a utility template.
    pub(super) utility: Option<(&'a str, &'a str)>,
}

#[derive(Debug)]
pub(super) enum Content<'a> {
    /// Typing, a read mark, a reaction.
    Action,
    Message {
        text: Option<&'a str>,
        files: Vec<File<'a>>,
        /// What an echo shows beside the text.
        parts: Value,
    },
}

/// What can be seen of a body before it is checked, for the ledger.
#[derive(Debug, Default)]
pub(super) struct Glance<'a> {
    pub(super) recipient: &'a str,
    pub(super) kind: &'static str,
    pub(super) metadata: Option<&'a str>,
    pub(super) text: Option<&'a str>,
}

const ACTIONS: [&str; 5] = ["typing_on", "typing_off", "mark_seen", "react", "unreact"];
const TEXT_MOST: usize = 2000;
const TEXT_MOST_BYTES: usize = 1000;

/// Looks at a body without judging it.
pub(super) fn glance(body: &Value) -> Glance<'_> {
    let recipient = &body["recipient"];
    let id = ["id", "comment_id", "post_id", "user_ref", "notification_messages_token"];
    let message = &body["message"];
    let files = message.get("attachment").or_else(|| message.get("attachments"));
    let is_template = files.is_some_and(|file| file["type"] == "template") || message.get("template").is_some();
    let action = body["sender_action"].as_str();
    Glance {
        recipient: id.iter().find_map(|key| recipient[key].as_str()).unwrap_or_default(),
        kind: match action {
            Some(action) => ACTIONS.iter().find(|known| **known == action).copied().unwrap_or("unknown"),
            None if is_template => "template",
            None if files.is_some() => "media",
            None if message.get("text").is_some() => "text",
            None => "unknown",
        },
        metadata: message["metadata"].as_str(),
        text: message["text"].as_str(),
    }
}

/// Checks the whole body.
pub(super) fn check(api: Api, body: &Value, carries_file: bool) -> Result<Asked<'_>, Refusal> {
    // Whatever is wrong with a field is code 100 here.
    asked(api, body, carries_file).map_err(|refusal| match refusal.api {
        Api::Whatsapp => Refusal::of(api, 100, None).saying(refusal.details),
        _ => refusal,
    })
}

fn asked(api: Api, body: &Value, carries_file: bool) -> Result<Asked<'_>, Refusal> {
    let fields = Fields::of(body, "body")?.only(&[
        "recipient",
        "messaging_type",
        "tag",
        "message",
        "reply_to",
        "notification_type",
        "sender_action",
        "payload",
        "persona_id",
        "thread_control",
        "access_token",
        "appsecret_proof",
        "platform",
    ])?;
    let recipient = fields.object("recipient", "recipient")?;
    let to = recipient_of(&recipient)?;
    if fields.has("message") && fields.has("sender_action") {
        return Err(Refusal::of(api, 100, Some(2_018_014)));
    }
    if let Some(reply_to) = fields.optional_object("reply_to", "reply_to")? {
        reply_to.only(&["mid"])?.text("mid", 1024)?;
    }
    if let Some(notification) = fields.optional_text("notification_type", 32)?
        && !["REGULAR", "SILENT_PUSH", "NO_PUSH"].contains(&notification)
    {
        return Err(fields.wrong("notification_type", "is not known."));
    }
    let passes_control = match fields.optional_object("thread_control", "thread_control")? {
        Some(control) => control.only(&["control_type", "app_id", "metadata"])?.text("control_type", 16)? == "pass",
        None => false,
    };
    if let Some(action) = fields.optional_text("sender_action", 32)? {
        action_of(&fields, action)?;
        let (window, content) = (Window::Standard, Content::Action);
        return Ok(Asked { to, window, content, passes_control, utility: None });
    }
    let message = fields.object("message", "message")?;
    let content = message_of(api, &message, carries_file)?;
    let utility = utility_of(&message)?;
    let is_feedback =
        message.get("attachment").is_some_and(|file| file["payload"]["template_type"] == "customer_feedback");
    let window = window_of(api, &fields, utility.is_some(), is_feedback)?;
    Ok(Asked { to, window, content, passes_control, utility })
}

fn recipient_of<'a>(recipient: &Fields<'a>) -> Result<To<'a>, Refusal> {
    let recipient = recipient.only(&["id", "user_ref", "comment_id", "post_id", "notification_messages_token"])?;
    let given = ["id", "user_ref", "comment_id", "post_id", "notification_messages_token"];
    let given: Vec<&str> = given.into_iter().filter(|key| recipient.has(key)).collect();
    let [key] = given[..] else { return Err(Refusal::invalid("recipient must name exactly one.")) };
    let id = recipient.text(key, 512)?;
    match key {
        "id" if id.bytes().all(|byte| byte.is_ascii_digit()) => Ok(To::Person(id)),
        "id" => Err(Refusal::invalid("recipient['id'] must be a decimal id.")),
        "comment_id" | "post_id" => Ok(To::Comment(id)),
        _ => Ok(To::Stranger(id)),
    }
}

fn action_of(fields: &Fields<'_>, action: &str) -> Result<(), Refusal> {
    if !ACTIONS.contains(&action) {
        return Err(fields.wrong("sender_action", "is not known."));
    }
    if action.ends_with("react") {
        let payload = fields.object("payload", "payload")?.only(&["message_id", "reaction"])?;
        payload.text("message_id", 1024)?;
        if action == "react" {
            payload.text("reaction", 32)?;
        }
    }
    Ok(())
}

fn window_of(api: Api, fields: &Fields<'_>, is_utility: bool, is_feedback: bool) -> Result<Window, Refusal> {
    let tag = fields.optional_text("tag", 64)?;
    let kind = match fields.optional_text("messaging_type", 32)? {
        None if api == Api::Instagram && tag.is_some() => "MESSAGE_TAG",
        None if api == Api::Instagram => "RESPONSE",
        None => return Err(Refusal::missing("messaging_type")),
        Some(kind) => kind,
    };
    match (kind, tag) {
        ("RESPONSE" | "UPDATE", None) => Ok(Window::Standard),
        ("MESSAGE_TAG", Some("HUMAN_AGENT")) => Ok(Window::HumanAgent),
        ("MESSAGE_TAG", Some("CUSTOMER_FEEDBACK")) if is_feedback => Ok(Window::HumanAgent),
        ("MESSAGE_TAG", Some(tag)) => Err(Refusal::invalid(format!("The tag {tag} cannot be used."))),
        ("MESSAGE_TAG", None) => Err(Refusal::missing("tag")),
        ("UTILITY", None) if is_utility => Ok(Window::None),
        ("UTILITY", _) => Err(Refusal::invalid("A utility message is one of an approved template.")),
        (_, Some(_)) => Err(Refusal::invalid("A tag goes with MESSAGE_TAG alone.")),
        _ => Err(fields.wrong("messaging_type", "is not known.")),
    }
}

fn utility_of<'a>(message: &Fields<'a>) -> Result<Option<(&'a str, &'a str)>, Refusal> {
    let Some(template) = message.optional_object("template", "message.template")? else { return Ok(None) };
    let template = template.only(&["name", "language", "components"])?;
    let language = template.object("language", "message.template.language")?;
    Ok(Some((template.text("name", 512)?, language.text("code", 16)?)))
}

fn message_of<'a>(api: Api, message: &Fields<'a>, carries_file: bool) -> Result<Content<'a>, Refusal> {
    let message = message.only(&["text", "attachment", "attachments", "quick_replies", "metadata", "template"])?;
    message.optional_text("metadata", 1000)?;
    let text = match message.has("text") {
        true => Some(text_of(api, &message)?),
        false => None,
    };
    let what = ["text", "attachment", "attachments", "template"].into_iter().filter(|key| message.has(key)).count();
    if what != 1 {
        return Err(Refusal::invalid("message must have exactly one of text, attachment, attachments and template."));
    }
    if message.has("quick_replies") {
        for reply in message.array("quick_replies", 1, 13)? {
            attachments::quick_reply(&Fields::of(reply, "quick_replies[]")?)?;
        }
    }
    let (mut files, mut parts) = (Vec::new(), json!({}));
    if let Some(attachment) = message.optional_object("attachment", "message.attachment")? {
        let shown = attachments::checked(api, &attachment, carries_file, &mut files)?;
        parts = json!({"attachments": [shown]});
    }
    match message.get("attachments") {
        None => {}
        Some(one @ Value::Object(_)) if api == Api::Instagram => {
            let shown = attachments::image(api, one, &mut files)?;
            parts = json!({"attachments": [shown]});
        }
        Some(_) => {
            let images = message.array("attachments", 1, 10)?;
            let shown: Result<Vec<Value>, Refusal> =
                images.iter().map(|image| attachments::image(api, image, &mut files)).collect();
            parts = json!({"attachments": shown?});
        }
    }
    if message.has("template") {
        parts = json!({"attachments": [{"type": "template"}]});
    }
    Ok(Content::Message { text, files, parts })
}

fn text_of<'a>(api: Api, message: &Fields<'a>) -> Result<&'a str, Refusal> {
    if api != Api::Instagram {
        return message.text("text", TEXT_MOST);
    }
    let text = message.text("text", TEXT_MOST_BYTES)?;
    match text.len() <= TEXT_MOST_BYTES {
        true => Ok(text),
        false => Err(message.wrong("text", "must be at most 1000 bytes long.")),
    }
}
