//! The body of a send to Messenger or Instagram, read as strictly as the provider reads it (messenger contract page, section 3;
//! instagram, 3.1). Knows nothing of people, windows and limits.

use super::super::{fields::Fields, platform::Api, refusal::Refusal};
use super::desk::{To, Window};
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

/// A file of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct File<'a> {
    /// `image`, `audio`, `video` or `file`.
    pub(super) kind: &'a str,
    pub(super) from: From<'a>,
    pub(super) is_reusable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From<'a> {
    Url(&'a str),
    Upload(&'a str),
    /// It comes with the request.
    Here,
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
            quick_reply(&Fields::of(reply, "quick_replies[]")?)?;
        }
    }
    let (mut files, mut parts) = (Vec::new(), json!({}));
    if let Some(attachment) = message.optional_object("attachment", "message.attachment")? {
        let shown = attachment_of(api, &attachment, carries_file, &mut files)?;
        parts = json!({"attachments": [shown]});
    }
    match message.get("attachments") {
        None => {}
        Some(one @ Value::Object(_)) if api == Api::Instagram => {
            let shown = image_of(api, one, &mut files)?;
            parts = json!({"attachments": [shown]});
        }
        Some(_) => {
            let images = message.array("attachments", 1, 10)?;
            let shown: Result<Vec<Value>, Refusal> =
                images.iter().map(|image| image_of(api, image, &mut files)).collect();
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

fn quick_reply(reply: &Fields<'_>) -> Result<(), Refusal> {
    let reply = reply.only(&["content_type", "title", "payload", "image_url"])?;
    match reply.text("content_type", 32)? {
        "text" => {
            reply.text("title", 20)?;
            reply.text("payload", 1000)?;
        }
        "user_phone_number" | "user_email" => {}
        _ => return Err(reply.wrong("content_type", "is not known.")),
    }
    reply.optional_text("image_url", 2048)?;
    Ok(())
}

/// One of several images.
fn image_of<'a>(api: Api, image: &'a Value, files: &mut Vec<File<'a>>) -> Result<Value, Refusal> {
    let image = Fields::of(image, "message.attachments[]")?;
    if image.text("type", 32)? != "image" {
        return Err(image.wrong("type", "must be image where there are several."));
    }
    attachment_of(api, &image, false, files)
}

/// Checks an attachment, and gives back what an echo shows of it.
fn attachment_of<'a>(
    api: Api,
    attachment: &Fields<'a>,
    carries_file: bool,
    files: &mut Vec<File<'a>>,
) -> Result<Value, Refusal> {
    let attachment = attachment.only(&["type", "payload"])?;
    let kind = attachment.text("type", 32)?;
    match kind {
        "image" | "audio" | "video" | "file" => {}
        "template" => return template(api, &attachment.object("payload", "payload")?),
        "like_heart" if api == Api::Instagram => return Ok(json!({"type": kind})),
        "MEDIA_SHARE" if api == Api::Instagram => {
            let payload = attachment.object("payload", "payload")?;
            return Ok(json!({"type": "ig_post", "payload": {"ig_post_media_id": payload.text("id", 64)?}}));
        }
        _ => return Err(attachment.wrong("type", "is not known.")),
    }
    let payload = match attachment.optional_object("payload", "payload")? {
        Some(payload) => payload.only(&["url", "attachment_id", "is_reusable"])?,
        None if carries_file => {
            files.push(File { kind, from: From::Here, is_reusable: false });
            return Ok(json!({"type": kind, "payload": {}}));
        }
        None => return Err(Refusal::missing("payload")),
    };
    let is_reusable = payload.optional_flag("is_reusable")?;
    let (from, shown) = match (payload.has("url"), payload.has("attachment_id")) {
        (true, false) => {
            let url = payload.text("url", 2048)?;
            (From::Url(url), json!({"url": url}))
        }
        (false, true) => {
            let id = payload.text("attachment_id", 64)?;
            (From::Upload(id), json!({"attachment_id": id}))
        }
        (false, false) if carries_file => (From::Here, json!({})),
        _ => return Err(Refusal::invalid("payload must have exactly one of url and attachment_id.")),
    };
    files.push(File { kind, from, is_reusable });
    Ok(json!({"type": kind, "payload": shown}))
}

/// Checks a template, and gives back what an echo shows of it.
fn template(api: Api, payload: &Fields<'_>) -> Result<Value, Refusal> {
    let kind = payload.text("template_type", 32)?;
    match kind {
        "button" => {
            payload.text("text", 640)?;
            buttons(api, payload, 1)?;
        }
        "generic" => {
            for element in payload.array("elements", 1, 10)? {
                generic(api, &Fields::of(element, "elements[]")?)?;
            }
        }
        "product" => {
            for element in payload.array("elements", 1, 10)? {
                Fields::of(element, "elements[]")?.text("id", 64)?;
            }
        }
        "media" if api == Api::Messenger => {
            let [element] = payload.array("elements", 1, 1)? else { return Err(Refusal::missing("elements")) };
            let element = Fields::of(element, "elements[]")?;
            if !["image", "video"].contains(&element.text("media_type", 16)?) {
                return Err(element.wrong("media_type", "must be image or video."));
            }
            buttons(api, &element, 0)?;
        }
        "image_grid" | "receipt" | "customer_feedback" | "coupon" | "instant_form" if api == Api::Messenger => {}
        _ => return Err(payload.wrong("template_type", "is not known.")),
    }
    let title = payload.get("text").or_else(|| payload.get("elements")?.get(0)?.get("title")).cloned();
    let elements = payload.get("elements").cloned().unwrap_or(Value::Null);
    Ok(json!({"type": "template", "title": title, "payload": {"template_type": kind, "elements": elements}}))
}

fn generic(api: Api, element: &Fields<'_>) -> Result<(), Refusal> {
    let element = element.only(&["title", "subtitle", "image_url", "default_action", "buttons", "sharable"])?;
    element.text("title", 80)?;
    element.optional_text("subtitle", 80)?;
    element.optional_text("image_url", 2048)?;
    if let Some(action) = element.optional_object("default_action", "default_action")? {
        if action.text("type", 32)? != "web_url" || action.has("title") {
            return Err(action.wrong("type", "must be a web_url without a title."));
        }
        action.text("url", 2048)?;
    }
    if !["subtitle", "image_url", "default_action", "buttons"].iter().any(|key| element.has(key)) {
        return Err(Refusal::invalid("An element needs more than its title."));
    }
    buttons(api, &element, 0)
}

fn buttons(api: Api, holder: &Fields<'_>, least: usize) -> Result<(), Refusal> {
    if least == 0 && !holder.has("buttons") {
        return Ok(());
    }
    for button in holder.array("buttons", least.max(1), 3)? {
        let button = Fields::of(button, "buttons[]")?;
        match button.text("type", 32)? {
            "web_url" => {
                button.text("title", 20)?;
                button.text("url", 2048)?;
                if let Some(height) = button.optional_text("webview_height_ratio", 16)?
                    && !["compact", "tall", "full"].contains(&height)
                {
                    return Err(button.wrong("webview_height_ratio", "is not known."));
                }
            }
            "postback" => {
                button.text("title", 20)?;
                button.text("payload", 1000)?;
            }
            "phone_number" if api == Api::Messenger => {
                button.text("title", 20)?;
                if !button.text("payload", 32)?.starts_with('+') {
                    return Err(button.wrong("payload", "must be a phone number with +."));
                }
            }
            "account_link" | "account_unlink" | "game_play" if api == Api::Messenger => {}
            _ => return Err(button.wrong("type", "is not known.")),
        }
    }
    Ok(())
}
