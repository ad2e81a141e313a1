//! `POST /{version}/{page-id | ig-id | me}/messages`: what Messenger and Instagram make of a request to send.

use super::super::{
    accounts::{Account, Standing},
    behaviour::{Behaviour, Status},
    course::{Course, Owner},
    dice::Roll,
    exchange::{Accepted, Exchange, Judged, Seen},
    fetch::{self, Fetched, NotFetched},
    ledger::Acceptance,
    media,
    platform::{Api, Platform},
    provider::Provider,
    refusal::Refusal,
    reply::{self, Answered},
    template,
};
use super::{
    attachments::{File, From},
    body::{self, Asked, Content},
    desk::{Ask, Said, To},
    front::{self, Call},
};
use serde_json::{Value, json};
use std::{borrow::Cow, sync::Arc};

const MB: u64 = 1 << 20;

/// Handles one send.
pub(super) async fn handle(provider: &Arc<Provider>, call: Call) -> Answered {
    let (json, file) = read(&call);
    let glance = json.as_ref().map(body::glance).unwrap_or_default();
    let account = front::account(provider, &call, glance.recipient, None);
    let behaviour = account.as_ref().map_or_else(|| provider.behaviour(), |account| account.behaviour(provider));
    let mut exchange = Exchange::begin(provider, behaviour);
    let api = account.as_ref().map_or(Api::Messenger, |account| account.spec.platform.into());
    let seen = Seen {
        api,
        account: account.as_ref().map_or_else(|| call.path[0].as_str().into(), |account| account.id.clone()),
        at_us: call.at_us,
        recipient: Cow::Borrowed(glance.recipient),
        kind: glance.kind,
        opaque: glance.metadata.map(Cow::Borrowed),
        text: glance.text.map(Cow::Borrowed),
        units: 1,
        body: &call.body,
    };
    let judged = match exchange.arrives() {
        true => Some(judge(provider, &mut exchange, account.as_ref(), &call, &json, file.as_ref()).await),
        false => None,
    };
    exchange.end(provider, seen, judged).await
}

/// The body as JSON; a multipart form has two of its fields as JSON texts, and the file beside them.
fn read(call: &Call) -> (Result<Value, String>, Option<Fetched>) {
    let Some(boundary) = media::boundary(&call.content_type) else {
        return (serde_json::from_slice(&call.body).map_err(|error| error.to_string()), None);
    };
    let (mut body, mut file) = (json!({}), None);
    for part in media::multipart(&call.body, boundary) {
        if part.name == "filedata" {
            file = Some(Fetched { content_type: part.mime_type.unwrap_or_default(), bytes: part.bytes.len() as u64 });
            continue;
        }
        let text = String::from_utf8_lossy(&part.bytes).into_owned();
        body[&part.name] = serde_json::from_str(&text).unwrap_or(Value::String(text));
    }
    (Ok(body), file)
}

/// All checks in the provider's order: who asks, what is asked, whether the account may, whether its files are there, whether the
/// person can be written to and there is room.
async fn judge<'a>(
    provider: &Arc<Provider>,
    exchange: &mut Exchange,
    account: Option<&Arc<Account>>,
    call: &Call,
    json: &'a Result<Value, String>,
    file: Option<&Fetched>,
) -> Result<Judged<'a>, Refusal> {
    let Some(account) = account else {
        let asked = provider.registry.authorize(call.token.as_deref(), None);
        asked.map_err(|refusal| front::in_their_words(Api::Messenger, &refusal))?;
        return Err(Refusal::of(Api::Messenger, 100, Some(33)));
    };
    let api = account.spec.platform.into();
    let invalid = |why: String| Refusal::of(api, 100, None).saying(why);
    front::authorize(provider, call, account)?;
    if !(21..=26).contains(&call.version) {
        return Err(invalid(format!("Version v{}.0 has ended or does not exist.", call.version)));
    }
    let json = json.as_ref().map_err(|error| invalid(format!("The body is not valid JSON: {error}.")))?;
    let asked = body::check(api, json, file.is_some())?;
    if let Some((name, language)) = asked.utility {
        let known = provider.registry.template(&account.id, name, language);
        if known.is_none_or(|known| known.definition.status != template::APPROVED) {
            return Err(invalid(format!("There is no approved template {name} in {language}.")));
        }
    }
    let standing = account.live().standing;
    if let Some(refusal) = refusal_of(api, standing) {
        return Err(refusal);
    }
    exchange.interrupt(provider, api, &account.id)?;
    if let Content::Message { files, .. } = &asked.content {
        for wanted in files {
            check_file(provider, account, wanted, file, &exchange.behaviour).await?;
        }
    }
    // From here on nothing is waited for.
    let now_us = provider.clock.now_us();
    let is_action = matches!(asked.content, Content::Action);
    let (is_heavy, reusable) = match &asked.content {
        Content::Message { files, .. } => (
            files.iter().any(|file| matches!(file.kind, "audio" | "video")),
            files.iter().find(|file| file.is_reusable && !matches!(file.from, From::Upload(_))).map(|file| file.kind),
        ),
        Content::Action => (false, None),
    };
    let names: Vec<String> = match &asked.content {
        Content::Message { files, .. } => files.iter().filter_map(|file| file.from.name()).map(str::to_owned).collect(),
        Content::Action => Vec::new(),
    };
    let mut live = account.live();
    let limit = live.limit;
    let ask = Ask { api, to: asked.to, window: asked.window, is_heavy, is_action, now_us, limit };
    let person = live.desk.admit(&ask, &exchange.behaviour)?;
    if let (true, Some(person)) = (asked.passes_control, &person) {
        live.desk.control(person, true);
    }
    drop(live);
    let mut answer = json!({});
    if let Some(person) = &person {
        answer["recipient_id"] = json!(person);
    }
    let Asked { content, to, .. } = asked;
    let Content::Message { text, parts, .. } = content else { return Ok(Judged::Noted(answer.to_string())) };
    let Exchange { behaviour, roll, .. } = exchange;
    let course = course(account.spec.platform, behaviour, roll);
    let provider = provider.clone();
    let keeper = account.clone();
    let said = Said {
        person: person.unwrap_or_else(|| match to {
            To::Person(id) | To::Comment(id) | To::Stranger(id) => id.into(),
        }),
        by_account: true,
        at_us: now_us,
        text: text.map(Into::into),
        parts,
    };
    let link = names.first().cloned().unwrap_or_default();
    Ok(Judged::Message(Accepted {
        files: names,
        acceptance: Acceptance::default(),
        follows: Some((Owner::Account(account.clone()), course)),
        fetched: None,
        success: Box::new(move |_, mid| {
            let mut live = keeper.live();
            live.desk.keep(mid, said);
            answer["message_id"] = json!(mid);
            if let Some(kind) = reusable {
                let id = attachment_id(&provider);
                live.desk.upload(&id, kind, provider.clock.now_us());
                provider.handed.kept(&keeper.id, &id, &link);
                answer["attachment_id"] = json!(id);
            }
            reply::success(answer.to_string())
        }),
    }))
}

/// An echo, then what Messenger says of delivery, then that it was read, for so many of them.
fn course(platform: Platform, behaviour: &Behaviour, roll: &mut Roll) -> Course {
    let read = behaviour.status_kinds.contains(&Status::Read) && roll.chance(behaviour.read_rate);
    let skips = read && roll.chance(behaviour.skip_delivered_rate);
    let mut happens = vec![(Status::Echo, None)];
    // Instagram has no delivery receipts.
    if platform == Platform::Messenger && !skips {
        happens.push((Status::Delivered, None));
    }
    if read {
        happens.push((Status::Read, None));
    }
    Course { happens, ..Course::default() }
}

/// An id that no other upload has.
pub(super) fn attachment_id(provider: &Provider) -> String {
    format!("77{:013}", provider.dice.roll().bits() % 10_000_000_000_000)
}

/// Whether a file that a message names is there, is what it says, and is not too large.
pub(super) async fn check_file(
    provider: &Provider,
    account: &Account,
    wanted: &File<'_>,
    here: Option<&Fetched>,
    behaviour: &Behaviour,
) -> Result<(), Refusal> {
    let api: Api = account.spec.platform.into();
    let refused = |subcode| Err(Refusal::of(api, 100, Some(subcode)));
    let found = match wanted.from {
        From::Upload(id) => {
            let now_us = provider.clock.now_us();
            return match account.live().desk.has_upload(id, wanted.kind, now_us, behaviour.attachment_life_s) {
                true => Ok(()),
                false => refused(2_018_074),
            };
        }
        From::Here => here.cloned(),
        From::Url(url) => {
            let is_video = wanted.kind == "video";
            let patience = if is_video { fetch::PATIENCE_FOR_VIDEO } else { fetch::PATIENCE };
            match fetch::fetch(provider, url, patience).await {
                Ok(found) => found,
                Err(NotFetched::Late) if is_video => return refused(2_018_294),
                Err(NotFetched::Late | NotFetched::Gone) => return refused(2_018_008),
                Err(NotFetched::NoLink) => return Err(Refusal::of(api, 100, None).saying("The url is not valid.")),
            }
        }
    };
    let Some(found) = found else { return Ok(()) };
    if !fits(api, wanted.kind, &found.content_type) {
        return refused(2_018_047);
    }
    let most = if wanted.kind == "image" { 8 * MB } else { 25 * MB };
    if found.bytes > most { refused(2_018_109) } else { Ok(()) }
}

/// Whether a file of this type can be sent as that (messenger contract page, 3.2; instagram, 3.1). A host that says nothing is
/// believed.
fn fits(api: Api, kind: &str, content_type: &str) -> bool {
    if content_type.is_empty() || content_type == "application/octet-stream" {
        return true;
    }
    let formats: &[&str] = match (api, kind) {
        (Api::Instagram, "image") => &["image/png", "image/jpeg", "image/gif"],
        (Api::Instagram, "audio") => {
            &["audio/aac", "audio/x-m4a", "audio/m4a", "audio/mp4", "audio/wav", "audio/x-wav", "video/mp4"]
        }
        (Api::Instagram, "video") => {
            &["video/mp4", "video/ogg", "video/x-msvideo", "video/avi", "video/quicktime", "video/webm"]
        }
        (Api::Instagram, _) => &["application/pdf"],
        (_, "file") => return true,
        (_, "audio") => return content_type.starts_with("audio/") || content_type == "video/mp4",
        (_, kind) => return content_type.strip_prefix(kind).is_some_and(|rest| rest.starts_with('/')),
    };
    formats.contains(&content_type)
}

/// What every send meets while the account stands so.
pub(super) fn refusal_of(api: Api, standing: Standing) -> Option<Refusal> {
    let (code, subcode) = match standing {
        Standing::InOrder | Standing::Suspended => return None,
        Standing::Restricted => (10, Some(1_893_063)),
        Standing::Blocked => (368, None),
        Standing::AccessOff => (200, Some(2_534_041)),
        Standing::NotLinked => (100, Some(2_534_013)),
    };
    Some(Refusal::of(api, code, subcode))
}
