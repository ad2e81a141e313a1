//! Whether a template send fills its template as it was created (contract page, section 7.4).

use super::{
    content,
    fields::Fields,
    refusal::Refusal,
    template::{Header, Template},
};
use serde_json::Value;

/// Checks the `template` object's components against the template it names.
pub(super) fn components(template: &Template, fields: &Fields<'_>, version: u32) -> Result<(), Refusal> {
    sendable(template)?;
    let given = match fields.get("components") {
        None => &[][..],
        Some(Value::Array(components)) => components,
        Some(_) => return Err(fields.wrong("components", "must be an array.")),
    };
    let (mut header, mut body, mut cards) = (None, None, 0);
    let mut filled = vec![false; template.shape.buttons.len()];
    for component in given {
        let component = Fields::of(component, "template.components[]")?;
        match component.text("type", 32)?.to_ascii_lowercase().as_str() {
            "header" => header = Some(component.only(&["type", "parameters"])?),
            "body" => body = Some(component.only(&["type", "parameters"])?),
            "button" => button(template, &component, &mut filled, version)?,
            "limited_time_offer" => {}
            "carousel" => cards = component.array("cards", 0, 10)?.len(),
            other => return Err(Refusal::new(132_012, format!("There is no component of type {other}."))),
        }
    }
    check_header(template, header, version)?;
    let values = check_body(template, body, version)?;
    if cards != template.shape.cards {
        return Err(count("carousel cards", template.shape.cards, cards));
    }
    if let Some(missing) = filled.iter().zip(&template.shape.buttons).position(|(done, b)| b.wants_parameter && !done) {
        return Err(Refusal::new(132_000, format!("Button at index {missing} requires a parameter.")));
    }
    let added: usize = values.iter().map(|value| value.chars().count()).sum();
    if template.shape.body_text.chars().count() + added > 1024 {
        return Err(Refusal::new(132_005, "The rendered body is longer than 1024 characters."));
    }
    Ok(())
}

fn sendable(template: &Template) -> Result<(), Refusal> {
    match template.definition.status.as_str() {
        "APPROVED" => Ok(()),
        "PAUSED" => Err(Refusal::new(132_015, "Template is paused due to low quality.")),
        "DISABLED" => Err(Refusal::new(132_016, "Template is disabled due to low quality.")),
        status => Err(Refusal::new(132_001, format!("Template {} is {status}.", template.definition.name))),
    }
}

fn check_header(template: &Template, given: Option<Fields<'_>>, version: u32) -> Result<(), Refusal> {
    let parameters = parameters(given)?;
    match &template.shape.header {
        Header::None if parameters.is_empty() => Ok(()),
        Header::None => Err(count("header", 0, parameters.len())),
        Header::Text(variables) => texts(template, "header", variables, parameters, version).map(drop),
        Header::Supplied(format) => {
            let [parameter] = parameters else { return Err(count("header", 1, parameters.len())) };
            let parameter = Fields::of(parameter, "header.parameters[]")?;
            if parameter.text("type", 32)? != format {
                return Err(Refusal::new(132_012, format!("The header wants a parameter of type {format}.")));
            }
            match format.as_str() {
                "location" => content::location(parameter.object("location", "location")?),
                _ => content::media(parameter.object(format, "header media")?, &["filename"]).map(drop),
            }
        }
    }
}

fn check_body<'a>(template: &Template, given: Option<Fields<'a>>, version: u32) -> Result<Vec<&'a str>, Refusal> {
    texts(template, "body", &template.shape.body, parameters(given)?, version)
}

/// Text parameters by position or by name; gives back their values.
fn texts<'a>(
    template: &Template,
    part: &str,
    variables: &[String],
    given: &'a [Value],
    version: u32,
) -> Result<Vec<&'a str>, Refusal> {
    if variables.len() != given.len() {
        return Err(count(part, variables.len(), given.len()));
    }
    given
        .iter()
        .map(|parameter| {
            let parameter = Fields::of(parameter, "parameters[]")?;
            let value = match parameter.text("type", 32)? {
                "text" => clean(parameter.text("text", 32_768)?, version)?,
                kind @ ("currency" | "date_time") => {
                    parameter.object(kind, "parameters[] value")?.text("fallback_value", 1024)?
                }
                other => return Err(Refusal::new(132_012, format!("A {part} has no parameter of type {other}."))),
            };
            if template.is_named() {
                let name = parameter.text("parameter_name", 512)?;
                if !variables.iter().any(|variable| variable == name) {
                    return Err(Refusal::new(132_012, format!("The template has no parameter {name}.")));
                }
            }
            Ok(value)
        })
        .collect()
}

fn button(template: &Template, given: &Fields<'_>, filled: &mut [bool], version: u32) -> Result<(), Refusal> {
    given.only(&["type", "sub_type", "index", "parameters"])?;
    let index = match given.required("index")? {
        Value::String(text) => text.parse::<usize>().ok(),
        value => value.as_u64().map(|index| index as usize),
    };
    let Some((index, button)) = index.and_then(|at| template.shape.buttons.get(at).map(|button| (at, button))) else {
        return Err(Refusal::new(132_012, "The template has no button at this index."));
    };
    let sub_type = given.text("sub_type", 32)?.to_ascii_lowercase();
    if sub_type != button.sub_type {
        return Err(Refusal::new(132_012, format!("Button {index} is {}, not {sub_type}.", button.sub_type)));
    }
    let parameters = given.array("parameters", 0, 10)?;
    if button.wants_parameter && parameters.len() != 1 {
        return Err(count("button", 1, parameters.len()));
    }
    for parameter in parameters {
        let parameter = Fields::of(parameter, "button parameters[]")?;
        match (sub_type.as_str(), parameter.text("type", 32)?) {
            ("url", "text") => clean(parameter.text("text", 2000)?, version).map(drop)?,
            ("quick_reply", "payload") => parameter.text("payload", 256).map(drop)?,
            ("copy_code", "coupon_code") => parameter.text("coupon_code", 20).map(drop)?,
            ("flow" | "catalog" | "mpm", "action") => parameter.object("action", "action").map(drop)?,
            (_, other) => {
                return Err(Refusal::new(132_012, format!("A {sub_type} button has no parameter of type {other}.")));
            }
        }
    }
    filled[index] = !parameters.is_empty();
    Ok(())
}

fn parameters<'a>(component: Option<Fields<'a>>) -> Result<&'a [Value], Refusal> {
    component.map_or(Ok(&[]), |component| component.array("parameters", 0, 100))
}

/// Line breaks, tabs and runs of spaces are not taken inside a parameter (seen in the field).
fn clean(text: &str, version: u32) -> Result<&str, Refusal> {
    if text.contains(['\n', '\r', '\t']) || text.contains("     ") {
        let code = if version >= 23 { 132_018 } else { 132_012 };
        return Err(Refusal::new(
            code,
            "Param text cannot have new-line/tab characters or more than 4 consecutive spaces",
        ));
    }
    Ok(text)
}

fn count(part: &str, expected: usize, given: usize) -> Refusal {
    Refusal::new(
        132_000,
        format!(
            "{part}: number of localizable_params ({given}) does not match the expected number of params ({expected})"
        ),
    )
}
