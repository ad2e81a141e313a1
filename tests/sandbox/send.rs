//! `POST /{version}/{PNID}/messages`: what WhatsApp makes of a request to send.

use super::{
    behaviour::{Behaviour, UnknownMedia},
    body::{self, Call, Content, Message, Recipient},
    content::File,
    course::Owner,
    exchange::{Accepted, Exchange, Judged, Seen, Wanted},
    fetch::Fetched,
    fields::Fields,
    ledger::{Acceptance, Category},
    media,
    meters::Ask,
    platform::Api,
    provider::Provider,
    refusal::Refusal,
    registry::Number,
    reply::{self, Answered},
    statuses::{self, Special},
    template_check,
};
use bytes::Bytes;
use serde_json::Value;
use std::{borrow::Cow, sync::Arc};

/// A request as it arrived.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) at_us: u64,
    pub(super) number_id: &'a str,
    /// Major version of the API that was called.
    pub(super) version: u32,
    pub(super) token: Option<&'a str>,
    /// Sent through the path for marketing messages.
    pub(super) marketing_only: bool,
    pub(super) body: Bytes,
}

/// Handles one send.
pub(super) async fn handle(provider: &Arc<Provider>, request: Request<'_>) -> Answered {
    let number = provider.registry.number(request.number_id);
    let behaviour = match &number {
        Some(number) => number.behaviour(provider.behaviour()),
        None => provider.behaviour(),
    };
    let mut exchange = Exchange::begin(provider, behaviour);
    let json: Result<Value, _> = serde_json::from_slice(&request.body);
    let country_code = number.as_ref().map_or("1", |number| &number.spec.country_code);
    let glance = json.as_ref().map(|json| body::glance(json, country_code)).unwrap_or_default();
    let seen = Seen {
        api: Api::Whatsapp,
        account: number.as_ref().map_or_else(|| request.number_id.into(), |number| number.id.clone()),
        at_us: request.at_us,
        recipient: glance.recipient,
        kind: glance.kind,
        opaque: glance.opaque.map(Cow::Borrowed),
        text: glance.text.map(Cow::Borrowed),
        units: 1,
        body: &request.body,
    };
    let judged = exchange.arrives().then(|| judge(provider, &mut exchange, number.as_ref(), &request, &json));
    exchange.end(provider, seen, judged).await
}

/// All checks in the provider's order: who asks, what is asked, whether the account may, whether there is room.
fn judge<'a>(
    provider: &Provider,
    exchange: &mut Exchange,
    number: Option<&Arc<Number>>,
    request: &Request<'_>,
    json: &'a Result<Value, serde_json::Error>,
) -> Result<Judged<'a>, Refusal> {
    provider.registry.authorize(request.token, number.map(|number| number.spec.waba_id.as_str()))?;
    let Some(number) = number else { return Err(Refusal::new(33, "")) };
    if !(21..=26).contains(&request.version) {
        return Err(Refusal::invalid(format!("Version v{}.0 has ended or does not exist.", request.version)));
    }
    let json = json.as_ref().map_err(|error| Refusal::invalid(format!("The body is not valid JSON: {error}.")))?;
    let message = match body::check(json, &number.spec.country_code)? {
        Call::ReadReceipt { message_id } if provider.knows_inbound_id(message_id) => {
            return Ok(Judged::Noted(r#"{"success":true}"#.to_owned()));
        }
        Call::ReadReceipt { .. } => return Err(Refusal::wrong("message_id is not known.")),
        Call::Message(message) => message,
    };
    let category = category(provider, number, &message, request)?;
    if message.recipient.key() == number.spec.display_phone_number {
        return Err(Refusal::new(131_021, "Recipient phone number cannot be the sender's."));
    }
    if matches!(message.recipient, Recipient::User(_)) && category == Category::Authentication {
        return Err(Refusal::new(131_062, "Authentication templates cannot be addressed to a user id."));
    }
    let is_template = matches!(message.content, Content::Template(_));
    let mut special = Special::default();
    let file = file(&message.content);
    if let Some((kind, File::Id(id))) = file {
        special.fails = unsendable(provider, &exchange.behaviour, number, kind, id)?;
    }
    let mut live = number.live();
    if let Some(refusal) = live.state.refusal() {
        return Err(refusal);
    }
    let ordered = exchange.interrupt(provider, Api::Whatsapp, &number.id)?;
    let group = matches!(message.recipient, Recipient::Group(_));
    let admitted = live.meters.admit(
        &Ask {
            person: message.recipient.key(),
            free_form: !is_template && !group,
            marketing: category == Category::Marketing,
            now_us: provider.clock.now_us(),
        },
        &exchange.behaviour,
    )?;
    drop(live);
    special.fails = ordered.or(admitted.fails_later).or(special.fails);
    if let Content::Reaction { message_id } = message.content {
        special.only_sent = true;
        if !provider.knows_inbound_id(message_id) {
            special.fails = Some(131_009);
        }
    }
    let Exchange { behaviour, roll, .. } = exchange;
    let held = is_template && roll.chance(behaviour.held_rate);
    if held && roll.chance(behaviour.held_drop_share) {
        special.fails = Some(132_015);
    }
    let course = statuses::course(behaviour, special, roll);
    let fetched = match file {
        Some((kind, File::Link(link))) if special.fails.is_none() => {
            let broken = Special { fails: Some(131_053), ..special };
            let kind = kind.to_owned();
            let fits = Box::new(move |found: &Fetched| media::fits(&kind, &found.content_type, found.bytes));
            Some((Wanted { url: link.to_owned(), fits }, statuses::course(behaviour, broken, roll)))
        }
        _ => None,
    };
    let name = |(_, file): (_, File<'_>)| match file {
        File::Id(name) | File::Link(name) => name.to_owned(),
    };
    Ok(Judged::Message(Accepted {
        files: file.into_iter().map(name).collect(),
        acceptance: Acceptance { category, free_entry: admitted.free_entry },
        follows: Some((Owner::Number(number.clone()), course)),
        fetched,
        success: Box::new(move |_, wamid| reply::success(success_body(&message, wamid, is_template, held))),
    }))
}

/// The file that goes with a message, and what it is to be: its own, or the one in a template's header.
fn file<'a>(content: &Content<'a>) -> Option<(&'a str, File<'a>)> {
    let template = match content {
        Content::Media(kind, file) => return Some((kind, *file)),
        Content::Template(template) => template,
        Content::Reaction { .. } | Content::Other => return None,
    };
    let components = template.get("components")?.as_array()?;
    let header = components
        .iter()
        .find(|component| component["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("header")))?;
    let parameter = header["parameters"].get(0)?;
    let kind = parameter["type"].as_str()?;
    let file = parameter.get(kind)?;
    let text = |key: &str| file.get(key).and_then(Value::as_str);
    Some((kind, text("id").map(File::Id).or_else(|| text("link").map(File::Link))?))
}

/// What comes of a media id that this number cannot send as that: what is of another kind is found out later.
fn unsendable(
    provider: &Provider,
    behaviour: &Behaviour,
    number: &Number,
    kind: &str,
    id: &str,
) -> Result<Option<u32>, Refusal> {
    if provider.media.has(id, &number.id, provider.clock.now_us(), behaviour.media_life_s) {
        return Ok((!provider.media.fits(id, kind)).then_some(131_053));
    }
    match behaviour.unknown_media {
        UnknownMedia::Refuse => Err(Refusal::wrong(format!("There is no media with id {id}."))),
        UnknownMedia::FailLater => Ok(Some(131_053)),
    }
}

/// Checks a template send against its template, and says what the message is charged as.
fn category(
    provider: &Provider,
    number: &Number,
    message: &Message<'_>,
    request: &Request<'_>,
) -> Result<Category, Refusal> {
    let Content::Template(fields) = &message.content else {
        return match request.marketing_only {
            true => Err(Refusal::new(131_055, "Only marketing templates can be sent here.")),
            false => Ok(Category::Service),
        };
    };
    let fields: &Fields<'_> = fields;
    let name = fields.text("name", 512)?;
    let language = fields.object("language", "template.language")?.only(&["code", "policy"])?.text("code", 16)?;
    let template = provider
        .registry
        .template(&number.spec.waba_id, name, language)
        .ok_or_else(|| Refusal::new(132_001, format!("template name ({name}) does not exist in {language}")))?;
    template_check::components(&template, fields, request.version)?;
    let category = Category::of(&template.definition.category);
    if request.marketing_only && category != Category::Marketing {
        return Err(Refusal::new(134_100, "Only marketing templates can be sent here."));
    }
    Ok(category)
}

fn success_body(message: &Message<'_>, wamid: &str, is_template: bool, held: bool) -> String {
    // Phones and user ids were checked to need no escaping; group ids are opaque.
    let input = match message.recipient {
        Recipient::Group(_) => Value::from(message.input).to_string(),
        _ => format!("\"{}\"", message.input),
    };
    let person = match &message.recipient {
        Recipient::Phone(wa_id) => format!(r#","wa_id":"{wa_id}""#),
        Recipient::User(user_id) => format!(r#","user_id":"{user_id}""#),
        Recipient::Group(_) => String::new(),
    };
    let status = match (is_template, held) {
        (false, _) => "",
        (true, false) => r#","message_status":"accepted""#,
        (true, true) => r#","message_status":"held_for_quality_assessment""#,
    };
    format!(
        r#"{{"messaging_product":"whatsapp","contacts":[{{"input":{input}{person}}}],"messages":[{{"id":"{wamid}"{status}}}]}}"#
    )
}
