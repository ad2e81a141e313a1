//! `POST /{version}/{PNID}/messages`: judge the request, write down the verdict, then answer — in that order, with nothing
//! to wait for before the verdict stands in the ledger. What is decided here cannot be changed by a caller who goes away.

use super::{
    behaviour::{Behaviour, Fate},
    body::{self, Call, Content, Message, Recipient},
    ledger::{Acceptance, Answer, Category, Draft, Verdict},
    meters::Ask,
    provider::Provider,
    refusal::Refusal,
    registry::Number,
    reply::{self, Answered},
    statuses::{self, Course},
    template_check,
};
use bytes::Bytes;
use serde_json::Value;
use std::{sync::Arc, time::Duration};

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

/// What is accepted, and what will come of it.
struct Accepted<'a> {
    message: Message<'a>,
    acceptance: Acceptance,
    course: Course,
    is_template: bool,
}

enum Judged<'a> {
    Message(Accepted<'a>),
    ReadReceipt,
}

/// Handles one send.
pub(super) async fn handle(provider: &Arc<Provider>, request: Request<'_>) -> Answered {
    let mut roll = provider.dice.roll();
    let number = provider.registry.number(request.number_id);
    let behaviour =
        number.as_ref().and_then(|number| number.live().behaviour.clone()).unwrap_or_else(|| provider.behaviour());
    let fate = behaviour.fate(&mut roll);
    let json: Result<Value, _> = serde_json::from_slice(&request.body);
    let country_code = number.as_ref().map_or("1", |number| &number.spec.country_code);
    let glance = json.as_ref().map(|json| body::glance(json, country_code)).unwrap_or_default();
    let draft = |answer| Draft {
        at_us: request.at_us,
        number: number.as_ref().map_or_else(|| request.number_id.into(), |number| number.id.clone()),
        recipient: &glance.recipient,
        kind: if glance.kind.is_empty() { "unknown" } else { glance.kind },
        body: &request.body,
        opaque: glance.opaque,
        text: glance.text,
        answer,
    };

    let unprocessed = match fate {
        Fate::CutBefore => Some(Answer::Cut),
        Fate::Gateway { processed: false } => Some(Answer::GatewayError),
        Fate::Unavailable => Some(Answer::Error),
        _ => None,
    };
    let mut first_told = None;
    let (answer, answered) = if let Some(answer) = unprocessed {
        provider.ledger.record(draft(answer), Verdict::NotProcessed);
        (answer, reply::refused(&Refusal::new(behaviour.unavailable_code, "Please try again."), &behaviour, &mut roll))
    } else {
        match judge(provider, number.as_ref(), &request, &json, fate, &behaviour) {
            Err(refusal) => {
                let answer = seen(fate, Answer::Error);
                provider.ledger.record(draft(answer), Verdict::Refused { code: refusal.code });
                (answer, reply::refused(&refusal, &behaviour, &mut roll))
            }
            Ok((_, Judged::ReadReceipt)) => {
                let answer = seen(fate, Answer::Success);
                provider.ledger.record(draft(answer), Verdict::Noted);
                (answer, reply::success(r#"{"success":true}"#.to_owned()))
            }
            Ok((number, Judged::Message(accepted))) => {
                let answer = seen(fate, Answer::Success);
                let (send, wamid) = provider.ledger.accept(draft(answer), accepted.acceptance);
                let held = accepted.is_template && roll.chance(behaviour.held_rate);
                let mut course = accepted.course;
                if held && roll.chance(behaviour.held_drop_share) {
                    course.fails = Some(132_015);
                }
                first_told = statuses::plan(provider, &behaviour, number, send, course, &mut roll);
                (answer, reply::success(success_body(&accepted, &wamid, held)))
            }
        }
    };

    if let Some(first_told) = first_told {
        // The receiver may be slow or away: then the answer does not wait for it any longer.
        let _ = tokio::time::timeout(Duration::from_millis(500), first_told).await;
    }
    let latency_ms = behaviour.latency_ms(&mut roll);
    if latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(latency_ms)).await;
    }
    reply::finish(provider, &behaviour, answer, answered, request.number_id).await
}

/// What the caller gets to see of a verdict whose answer would be `honest`.
fn seen(fate: Fate, honest: Answer) -> Answer {
    match fate {
        Fate::CutAfter => Answer::Cut,
        Fate::Truncate => Answer::Truncated,
        Fate::Hang => Answer::Withheld,
        Fate::Gateway { .. } => Answer::GatewayError,
        _ => honest,
    }
}

/// All checks in the provider's order: who asks, what is asked, whether the account may, whether there is room.
fn judge<'a, 'n>(
    provider: &Provider,
    number: Option<&'n Arc<Number>>,
    request: &Request<'_>,
    json: &'a Result<Value, serde_json::Error>,
    fate: Fate,
    behaviour: &Behaviour,
) -> Result<(&'n Arc<Number>, Judged<'a>), Refusal> {
    provider.registry.authorize(request.token, number.map(|number| number.spec.waba_id.as_str()))?;
    let Some(number) = number else { return Err(Refusal::new(33, "")) };
    if !(21..=26).contains(&request.version) {
        return Err(Refusal::invalid(format!("Version v{}.0 has ended or does not exist.", request.version)));
    }
    let json = json.as_ref().map_err(|error| Refusal::invalid(format!("The body is not valid JSON: {error}.")))?;
    let message = match body::check(json, &number.spec.country_code)? {
        Call::ReadReceipt { message_id } if provider.knows_inbound_id(message_id) => {
            return Ok((number, Judged::ReadReceipt));
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
    let mut live = number.live();
    if let Some(refusal) = live.state.refusal() {
        return Err(refusal);
    }
    if fate == Fate::Refuse {
        let refusal = Refusal::new(behaviour.refuse_code, super::refusal::details(behaviour.refuse_code));
        let throttled = matches!(behaviour.refuse_code, 4 | 17 | 32 | 613 | 80_007 | 80_008 | 130_429 | 131_056);
        return Err(if throttled { refusal.with_status(behaviour.throttle_status) } else { refusal });
    }
    let group = matches!(message.recipient, Recipient::Group(_));
    let admitted = live.meters.admit(
        &Ask {
            person: message.recipient.key(),
            free_form: !is_template && !group,
            marketing: category == Category::Marketing,
            now_us: provider.clock.now_us(),
        },
        behaviour,
    )?;
    let mut course = Course { fails: admitted.fails_later, only_sent: false };
    if let Content::Reaction { message_id } = message.content {
        course.only_sent = true;
        if !provider.knows_inbound_id(message_id) {
            course.fails = Some(131_009);
        }
    }
    let acceptance = Acceptance { category, free_entry: admitted.free_entry };
    Ok((number, Judged::Message(Accepted { message, acceptance, course, is_template })))
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

fn success_body(accepted: &Accepted<'_>, wamid: &str, held: bool) -> String {
    let message = &accepted.message;
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
    let status = match (accepted.is_template, held) {
        (false, _) => "",
        (true, false) => r#","message_status":"accepted""#,
        (true, true) => r#","message_status":"held_for_quality_assessment""#,
    };
    format!(
        r#"{{"messaging_product":"whatsapp","contacts":[{{"input":{input}{person}}}],"messages":[{{"id":"{wamid}"{status}}}]}}"#
    )
}
