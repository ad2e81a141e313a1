//! What an `interactive` message must look like (contract page, section 7.3). Carousels and payment types are taken
//! as they come: their details are not known to us.

use super::{content, fields::Fields, refusal::Refusal};
use serde_json::Value;
use std::collections::HashSet;

/// Checks the `interactive` object.
pub(super) fn interactive(message: Fields<'_>) -> Result<(), Refusal> {
    message.only(&["type", "header", "body", "footer", "action"])?;
    let kind = message.text("type", 64)?;
    let action = message.object("action", "interactive.action")?;
    let body_most = if kind == "list" { 4096 } else { 1024 };
    match message.optional_object("body", "interactive.body")? {
        Some(body) => drop(body.only(&["text"])?.text("text", body_most)?),
        None if matches!(kind, "product" | "catalog_message") => {}
        None => return Err(Refusal::missing("interactive['body']")),
    }
    if let Some(footer) = message.optional_object("footer", "interactive.footer")? {
        footer.only(&["text"])?.text("text", 60)?;
    }
    if let Some(header) = message.optional_object("header", "interactive.header")? {
        check_header(header, kind)?;
    }
    match kind {
        "button" => buttons(action),
        "list" => list(action),
        "cta_url" => {
            let parameters = named(action, "cta_url")?;
            parameters.only(&["display_text", "url"])?;
            parameters.text("display_text", 20)?;
            parameters.text("url", 2000).map(drop)
        }
        "flow" => {
            let parameters = named(action, "flow")?;
            parameters.text("flow_message_version", 8)?;
            parameters.text("flow_cta", 30)?;
            if parameters.has("flow_id") == parameters.has("flow_name") {
                return Err(Refusal::missing("exactly one of flow_id and flow_name"));
            }
            Ok(())
        }
        "product" => {
            action.text("catalog_id", 64)?;
            action.text("product_retailer_id", 256).map(drop)
        }
        "product_list" => {
            message.required("header")?;
            product_list(action)
        }
        "catalog_message" => exactly(action, "catalog_message"),
        "location_request_message" => exactly(action, "send_location"),
        "contact_request" => exactly(action, "request_contact_info"),
        "call_permission_request" => exactly(action, "call_permission_request"),
        "address_message" => named(action, "address_message")?.text("country", 2).map(drop),
        "order_details" => exactly(action, "review_and_pay"),
        "order_status" => exactly(action, "review_order"),
        "carousel" => action.array("cards", 2, 10).map(drop),
        _ => Err(message.wrong("type", "is not a known interactive type.")),
    }
}

fn check_header(header: Fields<'_>, kind: &str) -> Result<(), Refusal> {
    match header.text("type", 16)? {
        "text" => header.text("text", 60).map(drop),
        _ if matches!(kind, "list" | "product_list") => Err(header.wrong("type", "must be text here.")),
        media @ ("image" | "video" | "document") => {
            content::media(header.object(media, "interactive.header media")?, &["filename"]).map(drop)
        }
        _ => Err(header.wrong("type", "is not a known header type.")),
    }
}

fn buttons(action: Fields<'_>) -> Result<(), Refusal> {
    let (mut ids, mut titles) = (HashSet::new(), HashSet::new());
    for button in action.only(&["buttons"])?.array("buttons", 1, 3)? {
        let button = Fields::of(button, "buttons[]")?.only(&["type", "reply"])?;
        if button.text("type", 16)? != "reply" {
            return Err(button.wrong("type", "must be reply."));
        }
        let reply = button.object("reply", "buttons[].reply")?.only(&["id", "title"])?;
        if !ids.insert(reply.text("id", 256)?) || !titles.insert(reply.text("title", 20)?) {
            return Err(reply.wrong("id", "and title must be unique."));
        }
    }
    Ok(())
}

fn list(action: Fields<'_>) -> Result<(), Refusal> {
    action.only(&["button", "sections"])?.text("button", 20)?;
    let sections = action.array("sections", 1, 10)?;
    let (mut ids, mut rows) = (HashSet::new(), 0);
    for section in sections {
        let section = Fields::of(section, "sections[]")?.only(&["title", "rows"])?;
        if sections.len() > 1 {
            section.text("title", 24)?;
        }
        section.optional_text("title", 24)?;
        for row in section.array("rows", 1, 10)? {
            let row = Fields::of(row, "rows[]")?.only(&["id", "title", "description"])?;
            row.text("title", 24)?;
            row.optional_text("description", 72)?;
            if !ids.insert(row.text("id", 200)?) {
                return Err(row.wrong("id", "must be unique."));
            }
            rows += 1;
        }
    }
    if rows > 10 { Err(action.wrong("sections", "may have at most 10 rows in total.")) } else { Ok(()) }
}

fn product_list(action: Fields<'_>) -> Result<(), Refusal> {
    action.text("catalog_id", 64)?;
    let mut products = 0;
    for section in action.array("sections", 1, 10)? {
        products += Fields::of(section, "sections[]")?.array("product_items", 1, 30)?.len();
    }
    if products > 30 { Err(action.wrong("sections", "may have at most 30 products.")) } else { Ok(()) }
}

fn named<'a>(action: Fields<'a>, name: &str) -> Result<Fields<'a>, Refusal> {
    exactly(action, name)?;
    action.only(&["name", "parameters"])?.object("parameters", "action.parameters")
}

fn exactly(action: Fields<'_>, name: &str) -> Result<(), Refusal> {
    match action.required("name")? {
        Value::String(given) if given == name => Ok(()),
        _ => Err(action.wrong("name", "does not fit the interactive type.")),
    }
}
