//! Accepting a message: what is checked, and the one transaction in which it is.

use super::{
    MessageView,
    templates::{self, Asked, By, Settled, To},
};
use crate::{
    auth::{Caller, MessagesSend},
    error::{self, Problem, Result},
    extract,
    idempotency::{Answer, IdempotencyKey},
    state::App,
};
use axum::http::{HeaderMap, StatusCode};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use shared::{
    crash::{self, CrashPoint},
    db::{
        self, TenantTx,
        conversations::Locked,
        messages::{self, Sending},
        templates::uses,
    },
    domain::{
        channel::{Channel, Provider},
        content::{OutboundContent, Unreadable},
        ids::{ChannelAccountId, ContactId, ConversationId, FileId, MessageId},
        people::Address,
        sms,
    },
    jobs::outbound::{OutboundJob, Task},
    providers::{
        self,
        gateway::GatewayConfig,
        sending::{Facts, FileFacts, Way},
    },
    queue::topology::OUTBOUND_NOW,
    telemetry::TraceContext,
};

/// Other requests, or the customer, may make a conversation at the same moment; the next try finds it.
const TRIES: usize = 3;

/// Where a message goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Into {
    /// Into this conversation.
    Conversation(ConversationId),
    /// To this contact over this account.
    Contact(ContactId, ChannelAccountId),
}

/// What is to be said, and how.
#[derive(Debug)]
pub(super) struct Saying {
    /// What.
    asked: Asked,
    /// The message of the conversation that it answers.
    reply_to: Option<MessageId>,
    /// After so many seconds it is of no use any more.
    expires_in: Option<u32>,
}

/// Longer than this no message is kept waiting.
const LONGEST_LIFE: u64 = 24 * 60 * 60;

impl Saying {
    /// From a body's fields, but for those that only its route knows.
    pub(super) fn read(mut fields: Map<String, Value>) -> Result<Self, Problem> {
        let invalid = |field: &str, message: &str| Problem::new(error::Kind::Invalid).field(field, message);
        let reply_to = match fields.contains_key("reply_to") {
            true => Some(extract::take_id(&mut fields, "reply_to")?),
            false => None,
        };
        let expires_in = match fields.remove("expires_in_seconds") {
            None => None,
            Some(value) => match value.as_u64() {
                Some(seconds @ 1..=LONGEST_LIFE) => u32::try_from(seconds).ok(),
                _ => {
                    return Err(invalid("expires_in_seconds", &format!("must be a whole number, 1 to {LONGEST_LIFE}")));
                }
            },
        };
        let asked = templates::read(fields)?;
        if reply_to.is_some() && matches!(&asked, Asked::Content(content) if content.about().is_some()) {
            return Err(invalid("reply_to", "a reaction answers nothing: it names its message itself"));
        }
        Ok(Self { asked, reply_to, expires_in })
    }
}

/// What a body says beside what only its route knows.
///
/// # Errors
/// Which field is not what it should be.
pub(super) fn read_content(fields: Map<String, Value>) -> Result<OutboundContent, Problem> {
    OutboundContent::read(fields).map_err(|Unreadable { path, error }| extract::refuse(&path, &error))
}

/// Accepts a message, publishes its job if it is the head of its conversation, and answers.
pub(super) async fn send(
    app: &App,
    caller: &Caller<MessagesSend>,
    into: Into,
    saying: &Saying,
    key: &IdempotencyKey,
    digest: &[u8; 32],
    headers: &HeaderMap,
) -> Result<Answer> {
    let mut tries = 1;
    loop {
        match accept(app, caller, into, saying, key, digest, headers).await {
            Err(error) if error.is_contention() && tries < TRIES => tries += 1,
            answer => return answer,
        }
    }
}

async fn accept(
    app: &App,
    caller: &Caller<MessagesSend>,
    into: Into,
    saying: &Saying,
    key: &IdempotencyKey,
    digest: &[u8; 32],
    headers: &HeaderMap,
) -> Result<Answer> {
    let mut tx = caller.begin(app).await?;
    if let Some(answer) = key.answered(&mut tx, digest).await? {
        return Ok(answer);
    }
    let conversation = lock(&mut tx, into).await?;
    let now = app.clock.now();
    let provider = check_provider(&conversation.provider)?;
    let Settled { content, template, needs_window } = settle(&mut tx, &conversation, provider, &saying.asked).await?;
    let content = &content;
    let needs_window = needs_window || content.needs_open_window(provider, conversation.channel);
    check(&mut tx, &conversation, provider, (content, needs_window), now).await?;
    let refers_to = refers_to(&mut tx, &conversation, saying.reply_to, content).await?;
    let sending = Sending {
        address: address(&conversation)?,
        content,
        refers_to: refers_to.as_deref(),
        units: sms::units(conversation.channel, content),
        needs_window,
        human_agent: conversation.human_agent,
        expires_at: saying.expires_in.map(|seconds| now + TimeDelta::seconds(seconds.into())),
    };
    let accepted = messages::accept(&mut tx, &conversation, &sending, caller.token_id).await?;
    if accepted.head {
        let account = Some(conversation.channel_account_id);
        let job = OutboundJob { tenant_id: caller.tenant_id, message_id: accepted.id, account, task: Task::Send };
        let job = job.to_job(accepted.at).traced(TraceContext::from_request(headers).child());
        tx.enqueue(OUTBOUND_NOW.name, job, None);
    }
    let message =
        messages::find_accepted(&mut tx, &accepted).await?.ok_or_else(|| Problem::new(error::Kind::Internal))?;
    let body = serde_json::to_value(MessageView::from(message)).expect("plain fields are always JSON");
    let answer = Answer::new(StatusCode::ACCEPTED, body);
    key.keep(&mut tx, digest, &answer).await?;
    if let Some(template) = template {
        uses::count(&mut tx, template).await?;
    }
    let due = tx.commit().await?;
    crash::pass(CrashPoint::ApiAfterCommitBeforePublish);
    app.relay.publish(caller.placement.clone(), due).await;
    Ok(answer)
}

async fn lock(tx: &mut TenantTx, into: Into) -> Result<Locked> {
    let id = match into {
        Into::Conversation(id) => id,
        Into::Contact(contact_id, account_id) => {
            db::conversations::find_or_create(tx, contact_id, account_id).await?.ok_or_else(|| {
                Problem::not_found("contact or no such channel account")
                    .field("contact_id", "must be a contact of this tenant")
                    .field("channel_account_id", "must be a channel account of this tenant")
            })?
        }
    };
    let locked = db::conversations::lock(tx, id).await?;
    Ok(locked.ok_or_else(|| Problem::not_found("conversation"))?)
}

fn address(conversation: &Locked) -> Result<&Address, Problem> {
    conversation.address.as_ref().ok_or_else(|| {
        let channel = conversation.channel;
        Problem::new(error::Kind::Invalid)
            .detail(format!("The contact has no address on {channel}."))
            .field("contact_id", format!("has no address that the account can reach on {channel}"))
    })
}

/// The provider's id of the message that this one answers or reacts to.
async fn refers_to(
    tx: &mut TenantTx,
    to: &Locked,
    reply_to: Option<MessageId>,
    content: &OutboundContent,
) -> Result<Option<String>> {
    let cannot_quote = matches!(to.provider.as_str(), "twilio" | "gateway");
    if cannot_quote && reply_to.is_some() {
        let message = format!("cannot be given: messages by {} quote no others", to.provider);
        return Err(Problem::new(error::Kind::Invalid).field("reply_to", message).into());
    }
    let (field, id) = match (reply_to, content.about()) {
        (Some(id), _) => ("reply_to", id),
        (None, Some(id)) => ("message_id", id),
        (None, None) => return Ok(None),
    };
    match messages::provider_id(tx, to.id, id).await? {
        Some(id) => Ok(Some(id)),
        None => {
            let message = "must be a message of this conversation that has reached the provider";
            Err(Problem::new(error::Kind::Invalid).field(field, message).into())
        }
    }
}

/// What is said in the end. Of what is wrong with a template in itself is told before what is wrong with it there.
async fn settle(tx: &mut TenantTx, to: &Locked, provider: Provider, asked: &Asked) -> Result<Settled> {
    if to.account_state == "disabled" {
        return Err(Problem::new(error::Kind::AccountDisabled).into());
    }
    let by = By { account: to.channel_account_id, provider, channel: to.channel, synced_at: to.templates_synced_at };
    match templates::settle(tx, by, To::One(to.contact_id), asked).await? {
        Ok(settled) => Ok(settled),
        Err(problem) => {
            check_as_written(tx, by, to.gateway.as_ref(), asked).await?;
            Err(problem.into())
        }
    }
}

/// What a template lacks in itself, wherever it is known.
pub(in crate::routes) async fn check_as_written(
    tx: &mut TenantTx,
    by: By,
    gateway: Option<&Value>,
    asked: &Asked,
) -> Result<()> {
    let Asked::Content(content) = asked else { return Ok(()) };
    let OutboundContent::Template(given) = &**content else { return Ok(()) };
    let is_named = by.provider != Provider::Twilio;
    if given.name.is_empty() || (is_named && !given.language.is_empty()) {
        let files = facts(tx, content).await??;
        check_content(by.provider, by.channel, gateway, content, &files)?;
    }
    Ok(())
}

async fn check(
    tx: &mut TenantTx,
    to: &Locked,
    provider: Provider,
    (content, needs_window): (&OutboundContent, bool),
    now: DateTime<Utc>,
) -> Result<()> {
    let files = facts(tx, content).await??;
    check_content(provider, to.channel, to.gateway.as_ref(), content, &files)?;
    if to.opted_out {
        let message = "has opted out of everything on this channel";
        return Err(Problem::new(error::Kind::OptedOut).field("contact_id", message).into());
    }
    if needs_window {
        // A person's answer may be given for seven days, of which the window is the first.
        let longer = if to.human_agent { HUMAN_AGENT_DAYS } else { TimeDelta::zero() };
        if let Err(problem) = check_window(to.window_expires_at.map(|at| at + longer), now) {
            let fit = db::templates::sendable(tx, to.channel_account_id, TEMPLATES_NAMED).await?;
            return Err(with_templates(problem, &fit).into());
        }
    }
    Ok(())
}

/// What would be refused and can be seen without asking, by which way it goes.
pub(in crate::routes) fn check_content(
    provider: Provider,
    channel: Channel,
    gateway: Option<&Value>,
    content: &OutboundContent,
    files: &Facts,
) -> Result<(), Problem> {
    let gateway = gateway.and_then(|described| GatewayConfig::read(&described.to_string()).ok());
    let way = Way { provider, channel, gateway: gateway.as_ref() };
    providers::check(&way, content, files).map_err(Problem::invalid)
}

/// What is known of the uploaded files that a message names; all of them must be there.
pub(in crate::routes) async fn facts(
    tx: &mut TenantTx,
    content: &OutboundContent,
) -> db::Result<Result<Facts, Problem>> {
    let named = content.files();
    let ids: Vec<FileId> = named.iter().filter_map(|(_, file)| file.id).collect();
    let found = db::files::find(tx, &ids).await?.into_iter();
    let facts: Facts = found
        .map(|file| {
            let bytes = u64::try_from(file.size_bytes).unwrap_or(0);
            (file.id, FileFacts { mime_type: file.content_type, bytes })
        })
        .collect();
    let missing = named.iter().filter(|(_, file)| file.id.is_some_and(|id| !facts.contains_key(&id)));
    let problem = missing.fold(Problem::new(error::Kind::Invalid), |problem, (field, _)| {
        problem.field(format!("{field}.id"), "must be the id of an uploaded file")
    });
    Ok(if problem.errors.is_empty() { Ok(facts) } else { Err(problem) })
}

/// Whether anything can be sent by this provider: from all of them messages are received.
pub(in crate::routes) fn check_provider(name: &str) -> Result<Provider, Problem> {
    match name.parse::<Provider>() {
        Ok(provider) if provider.can_send() => Ok(provider),
        _ => {
            let message = format!("is an account of {name}'s, by which this release only receives");
            Err(Problem::new(error::Kind::CannotSend).field("channel_account_id", message))
        }
    }
}

/// So many templates are named to who cannot say anything else.
const TEMPLATES_NAMED: i64 = 20;
/// For so much longer than the window a person may answer.
const HUMAN_AGENT_DAYS: TimeDelta = TimeDelta::days(6);

fn with_templates(problem: Problem, fit: &[String]) -> Problem {
    if fit.is_empty() {
        return problem;
    }
    let detail = format!("{} These can be sent: {}.", problem.detail.clone().unwrap_or_default(), fit.join(", "));
    problem.detail(detail)
}

fn check_window(expires_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Result<(), Problem> {
    let detail = match expires_at {
        Some(at) if now < at => return Ok(()),
        Some(at) => {
            let at = at.format("%Y-%m-%d %H:%M:%S UTC");
            format!("The contact's last message opened the customer service window until {at}. Send a template.")
        }
        None => "The contact has not written to this account yet. Send a template.".to_owned(),
    };
    let message = "free text can only be sent inside the customer service window";
    Err(Problem::new(error::Kind::NeedsTemplate).detail(detail).field("type", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(problem: &Problem) -> Vec<&str> {
        problem.errors.iter().map(|error| error.field.as_str()).collect()
    }

    #[test]
    fn what_a_body_lacks_is_named() {
        let read = |value: Value| Saying::read(value.as_object().cloned().unwrap());
        assert!(read(json!({"type": "text", "text": "Hello"})).is_ok());
        for (body, expected) in [
            (json!({}), "type"),
            (json!({"type": "text"}), "text"),
            (json!({"type": "text", "text": "Hello", "name": "x"}), "name"),
            (json!({"type": "image"}), "file"),
            (
                json!({"type": "list", "text": "x", "button": "y", "sections": [{"rows": [{"id": "1"}]}]}),
                "sections[0].rows[0].title",
            ),
            (json!({"type": "text", "text": "x", "reply_to": "7"}), "reply_to"),
            (json!({"type": "text", "text": "x", "expires_in_seconds": 0}), "expires_in_seconds"),
            (json!({"type": "text", "text": "x", "expires_in_seconds": 86_401}), "expires_in_seconds"),
        ] {
            assert_eq!(fields(&read(body.clone()).unwrap_err()), [expected], "{body}");
        }
    }

    #[test]
    fn a_provider_of_a_newer_release_is_refused_by_its_field() {
        assert!(Provider::ALL.iter().all(|provider| check_provider(provider.as_str()).is_ok()));
        let problem = check_provider("pigeon").unwrap_err();
        assert_eq!((problem.status, fields(&problem)), (422, vec!["channel_account_id"]));
    }

    #[test]
    fn free_text_needs_an_open_window() {
        let now = DateTime::UNIX_EPOCH;
        assert!(check_window(Some(now + TimeDelta::seconds(1)), now).is_ok());
        for closed in [None, Some(now), Some(now - TimeDelta::days(1))] {
            let problem = check_window(closed, now).unwrap_err();
            assert_eq!((problem.status, problem.kind), (422, "urn:mijra:problem:needs_template"));
        }
    }
}
