//! The calls beside sending: uploads, threads and who controls them, conversations to be read back, profiles, subscriptions (messenger
//! contract page, sections 1.4, 3.2, 5, 7 and 9; instagram, 4 and 5).

use super::super::{
    accounts::Account,
    messenger::APP_ID,
    platform::Api,
    provider::Provider,
    refusal::Refusal,
    reply,
    template::{self, Definition},
};
use super::{
    attachments::{File, From},
    desk::{Said, Someone},
    front::{self, Call},
    send,
};
use axum::body::Body;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// How many threads a page of a list holds unless said otherwise.
const PAGE: usize = 25;
/// How many messages of a thread are told in detail.
const READABLE: usize = 20;

pub(super) async fn handle(provider: &Arc<Provider>, call: &Call) -> Result<Response<Body>, Refusal> {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    let body = || serde_json::from_slice::<Value>(&call.body).unwrap_or_default();
    match (&call.method, &path[..]) {
        (&Method::GET, ["refresh_access_token" | "access_token"]) => renew(provider, call),
        (_, [node]) => object(provider, call, node),
        (&Method::POST, [_, "message_attachments"]) => {
            let body = body();
            let account = account(provider, call, "", body["platform"].as_str())?;
            upload(provider, &account, &body).await
        }
        (&Method::GET, [_, "conversations"]) => {
            let platform = call.parameter("platform");
            let person = call.parameter("user_id");
            let account = account(provider, call, person.as_deref().unwrap_or_default(), platform.as_deref())?;
            conversations(provider, call, &account, person.as_deref())
        }
        (_, [_, "subscribed_apps"]) => {
            account(provider, call, "", None)?;
            Ok(ok(match call.method {
                Method::GET => {
                    json!({"data": [{"id": APP_ID.to_string(), "name": "Mijra", "link": "https://mijra.example/",
                    "category": "Business", "subscribed_fields": ["messages"]}]})
                }
                _ => json!({"success": true}),
            }))
        }
        (_, [_, "message_templates"]) => {
            let account = account(provider, call, "", None)?;
            templates(provider, call, &account)
        }
        (&Method::GET, [_, "thread_owner"]) => {
            let person = call.parameter("recipient").unwrap_or_default();
            let account = account(provider, call, &person, None)?;
            let elsewhere = account.live().desk.is_elsewhere(&person);
            let owner = if elsewhere { "263902037430900".to_owned() } else { APP_ID.to_string() };
            Ok(ok(json!({"data": [{"thread_owner": {"app_id": owner}}]})))
        }
        (
            &Method::POST,
            [
                _,
                action @ ("pass_thread_control"
                | "take_thread_control"
                | "release_thread_control"
                | "request_thread_control"
                | "extend_thread_control"),
            ],
        ) => {
            let body = body();
            let person = body["recipient"]["id"].as_str().unwrap_or_default();
            let account = account(provider, call, person, None)?;
            match *action {
                "pass_thread_control" | "release_thread_control" => account.live().desk.control(person, true),
                "take_thread_control" => account.live().desk.control(person, false),
                _ => {}
            }
            Ok(ok(json!({"success": true})))
        }
        _ => Err(Refusal::of(Api::Messenger, 100, Some(33))),
    }
}

/// A token for sixty days more (instagram contract page, section 0).
fn renew(provider: &Provider, call: &Call) -> Result<Response<Body>, Refusal> {
    let grant = call.parameter("grant_type").unwrap_or_default();
    if grant != "ig_refresh_token" && (grant != "ig_exchange_token" || call.parameter("client_secret").is_none()) {
        return Err(Refusal::of(Api::Instagram, 100, None));
    }
    let renewed = call.token.as_deref().and_then(|token| provider.registry.renew(token));
    let renewed = renewed.ok_or_else(|| Refusal::of(Api::Instagram, 190, Some(463)))?;
    Ok(ok(json!({"access_token": renewed, "token_type": "bearer", "expires_in": 60 * 24 * 3600})))
}

fn account(provider: &Provider, call: &Call, person: &str, platform: Option<&str>) -> Result<Arc<Account>, Refusal> {
    let account = front::account(provider, call, person, platform);
    let account = account.ok_or_else(|| match call.path.first().map(String::as_str) {
        // Nothing that this token may act for.
        Some("me") => Refusal::of(Api::Messenger, 190, None),
        _ => Refusal::of(Api::Messenger, 100, Some(33)),
    })?;
    front::authorize(provider, call, &account)?;
    Ok(account)
}

async fn upload(provider: &Provider, account: &Account, body: &Value) -> Result<Response<Body>, Refusal> {
    let api: Api = account.spec.platform.into();
    let attachment = &body["message"]["attachment"];
    let kind = attachment["type"].as_str().filter(|kind| ["image", "audio", "video", "file"].contains(kind));
    let url = attachment["payload"]["url"].as_str();
    let (Some(kind), Some(url)) = (kind, url) else {
        return Err(Refusal::of(api, 100, None).saying("message.attachment needs a type and a url."));
    };
    if attachment["payload"]["is_reusable"] != json!(true) {
        return Err(Refusal::of(api, 100, None).saying("An upload must be reusable."));
    }
    let file = File { kind, from: From::Url(url), is_reusable: true };
    send::check_file(provider, account, &file, None, &account.behaviour(provider)).await?;
    let id = send::attachment_id(provider);
    account.live().desk.upload(&id, kind, provider.clock.now_us());
    Ok(ok(json!({"attachment_id": id})))
}

/// Utility templates of a Page: made, looked at for a moment, approved; listed (messenger contract page, section 3.3).
fn templates(provider: &Arc<Provider>, call: &Call, account: &Account) -> Result<Response<Body>, Refusal> {
    let api: Api = account.spec.platform.into();
    if call.method == Method::GET {
        let all: Vec<Value> = provider.registry.templates(&account.id).iter().map(|template| template.view()).collect();
        return Ok(ok(json!({"data": all})));
    }
    let invalid = |why: String| Refusal::of(api, 100, None).saying(why);
    let mut definition: Definition = serde_json::from_slice(&call.body).map_err(|error| invalid(error.to_string()))?;
    if !definition.category.eq_ignore_ascii_case("UTILITY") {
        return Err(invalid("category must be UTILITY.".into()));
    }
    definition.status = "PENDING".into();
    let made = provider.registry.add_template(&account.id, definition.clone());
    let made = made.map_err(|refusal| invalid(refusal.details.into_owned()))?;
    let (later, owner) = (provider.clone(), account.id.clone());
    provider.tasks.spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(later.behaviour().approval_ms)) => {}
            () = later.stopping.cancelled() => return,
        }
        definition.status = template::APPROVED.into();
        let _ = later.registry.add_template(&owner, definition);
    });
    Ok(ok(json!({"id": made.id, "status": "PENDING", "category": "UTILITY"})))
}

fn conversations(
    provider: &Provider,
    call: &Call,
    account: &Account,
    person: Option<&str>,
) -> Result<Response<Body>, Refusal> {
    admit_reading(provider, account)?;
    let limit = call.parameter("limit").and_then(|limit| limit.parse().ok()).unwrap_or(PAGE).clamp(1, 100);
    let after: usize = call.parameter("after").and_then(|after| after.parse().ok()).unwrap_or(0);
    let fields = call.parameter("fields").unwrap_or_default();
    let threads: Vec<(String, u64)> = {
        let live = account.live();
        let threads = live.desk.threads().into_iter();
        let wanted = threads.filter(|(known, _)| person.is_none_or(|person| person == *known));
        wanted.map(|(person, at_us)| (person.to_owned(), at_us)).collect()
    };
    let page: Vec<Value> = threads
        .iter()
        .skip(after)
        .take(limit)
        .map(|(person, at_us)| {
            let mut view = thread(provider, account, person, &conversation(account, person), &fields);
            view["updated_time"] = json!(time(provider, *at_us));
            view["participants"] =
                json!({"data": [{"id": person, "name": "Ine Dahl"}, {"id": &*account.id, "name": "The shop"}]});
            view
        })
        .collect();
    let end = after + page.len();
    let mut answer =
        json!({"data": page, "paging": {"cursors": {"before": after.to_string(), "after": end.to_string()}}});
    if end < threads.len() {
        let node = &call.path[0];
        let platform = account.spec.platform;
        let next =
            format!("{}/v25.0/{node}/conversations?platform={platform}&limit={limit}&after={end}", provider.own_url);
        answer["paging"]["next"] = json!(next);
    }
    Ok(ok(answer))
}

/// A conversation, a message, a person or an account.
fn object(provider: &Provider, call: &Call, node: &str) -> Result<Response<Body>, Refusal> {
    if call.method != Method::GET {
        return Err(Refusal::of(Api::Messenger, 100, Some(33)));
    }
    let fields = call.parameter("fields").unwrap_or_default();
    for account in front::all(provider) {
        let api: Api = account.spec.platform.into();
        if *account.id == *node || node == "me" {
            let account = self::account(provider, call, "", None)?;
            return Ok(ok(
                json!({"id": &*account.id, "user_id": &*account.id, "name": "The shop", "username": "the.shop"}),
            ));
        }
        let person = node.strip_prefix("t_").and_then(|rest| rest.strip_prefix(&*account.id)?.strip_prefix('_'));
        if let Some(person) = person {
            front::authorize(provider, call, &account)?;
            admit_reading(provider, &account)?;
            return Ok(ok(thread(provider, &account, person, node, &fields)));
        }
        let (is_message, is_readable, someone, consent) = {
            let live = account.live();
            (
                live.desk.said(node).is_some(),
                live.desk.is_readable(node),
                live.desk.someone(node),
                live.desk.heard_from(node),
            )
        };
        if is_message {
            front::authorize(provider, call, &account)?;
            admit_reading(provider, &account)?;
            if !is_readable {
                return Err(Refusal::of(api, 9_000_001, None));
            }
            let live = account.live();
            let said = live.desk.said(node).expect("it was there a moment ago, and nothing is taken away");
            return Ok(ok(message(provider, &account, node, said)));
        }
        if let Some(someone) = someone {
            front::authorize(provider, call, &account)?;
            return profile(api, node, someone, consent);
        }
    }
    Err(Refusal::of(Api::Messenger, 100, Some(33)))
}

fn admit_reading(provider: &Provider, account: &Account) -> Result<(), Refusal> {
    let behaviour = account.behaviour(provider);
    let api: Api = account.spec.platform.into();
    match account.live().desk.admit_reading(provider.clock.now_us(), &behaviour) {
        true => Ok(()),
        false => {
            let subcode = (api == Api::Instagram).then_some(2_534_040);
            Err(Refusal::of(api, 613, subcode).with_status(behaviour.throttle_status))
        }
    }
}

/// `messages` among the fields gives ids, `messages{…}` the newest in detail; either with `.limit(n)` behind its name.
fn thread(provider: &Provider, account: &Account, person: &str, node: &str, fields: &str) -> Value {
    let live = account.live();
    let thread = live.desk.thread(person);
    let mut answer = json!({"id": node});
    if let Some(at) = fields.find("messages") {
        let rest = &fields[at + "messages".len()..];
        let (limit, rest) = match rest.strip_prefix(".limit(").and_then(|rest| rest.split_once(')')) {
            Some((limit, rest)) => (limit.parse().unwrap_or(usize::MAX), rest),
            None => (usize::MAX, rest),
        };
        let in_detail = rest.starts_with('{');
        let most = limit.min(if in_detail { READABLE } else { thread.len() });
        let messages: Vec<Value> = thread
            .iter()
            .take(most)
            .map(|(mid, said)| match in_detail {
                true => message(provider, account, mid, said),
                false => json!({"id": mid, "created_time": time(provider, said.at_us)}),
            })
            .collect();
        answer["messages"] = json!({"data": messages});
    }
    if let Some((_, newest)) = thread.first() {
        answer["updated_time"] = json!(time(provider, newest.at_us));
    }
    answer
}

fn message(provider: &Provider, account: &Account, mid: &str, said: &Said) -> Value {
    let (ours, theirs) =
        (json!({"id": &*account.id, "name": "The shop"}), json!({"id": &*said.person, "name": "Ine Dahl"}));
    let (from, to) = if said.by_account { (ours, theirs) } else { (theirs, ours) };
    let mut message = json!({"id": mid, "created_time": time(provider, said.at_us), "from": from, "to": {"data": [to]},
        "message": said.text.as_deref().unwrap_or_default()});
    if let Some(attachments) = said.parts.get("attachments") {
        message["attachments"] = json!({"data": attachments});
    }
    message
}

fn profile(api: Api, person: &str, someone: Someone, consent: bool) -> Result<Response<Body>, Refusal> {
    match (api, someone) {
        (_, Someone::Unknown) => Err(Refusal::of(api, 100, Some(33))),
        (Api::Messenger, Someone::PhoneCreated) => Err(Refusal::of(api, 100, Some(2_018_218))),
        (Api::Instagram, _) if !consent => Err(Refusal::of(api, 230, None)),
        (Api::Instagram, _) => {
            Ok(ok(json!({"id": person, "name": "Mina Sato", "username": "ring.fan", "profile_pic": null,
            "follower_count": 412, "is_user_follow_business": true, "is_business_follow_user": false, "is_verified_user": false})))
        }
        _ => Ok(ok(json!({"id": person, "first_name": "Ine", "last_name": "Dahl", "name": "Ine Dahl"}))),
    }
}

fn conversation(account: &Account, person: &str) -> String {
    format!("t_{}_{person}", account.id)
}

fn time(provider: &Provider, at_us: u64) -> String {
    provider.clock.wall(at_us).format("%Y-%m-%dT%H:%M:%S+0000").to_string()
}

fn ok(body: Value) -> Response<Body> {
    reply::json(StatusCode::OK, &body)
}
