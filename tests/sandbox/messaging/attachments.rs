//! Attachments, templates and quick replies of a message to Messenger or Instagram (messenger contract page, 3.2 and 3.3; instagram,
//! 3.1): what each must look like, and what an echo shows of it.

use super::super::{fields::Fields, platform::Api, refusal::Refusal};
use serde_json::{Value, json};

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

impl<'a> From<'a> {
    /// The id or the link by which the message names it.
    pub(super) fn name(self) -> Option<&'a str> {
        match self {
            From::Url(name) | From::Upload(name) => Some(name),
            From::Here => None,
        }
    }
}

pub(super) fn quick_reply(reply: &Fields<'_>) -> Result<(), Refusal> {
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
pub(super) fn image<'a>(api: Api, image: &'a Value, files: &mut Vec<File<'a>>) -> Result<Value, Refusal> {
    let image = Fields::of(image, "message.attachments[]")?;
    if image.text("type", 32)? != "image" {
        return Err(image.wrong("type", "must be image where there are several."));
    }
    checked(api, &image, false, files)
}

/// Checks an attachment, and gives back what an echo shows of it.
pub(super) fn checked<'a>(
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
    let elements = payload.get("elements").cloned();
    let mut shown = json!({"type": "template", "payload": {"template_type": kind}});
    if let Some(title) = title {
        shown["title"] = title;
    }
    if let Some(elements) = elements {
        shown["payload"]["elements"] = elements;
    }
    Ok(shown)
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
