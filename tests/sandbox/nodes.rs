//! The Graph API besides sending: numbers, business accounts, templates, subscriptions, blocked users, media
//! (contract page, sections 1.4, 8, 9, 10 and 14).

use super::{
    graph::{self, NodeCall},
    inbound, media,
    provider::Provider,
    refusal::Refusal,
    registry::{AccountState, Number},
    reply, tell,
    template::Definition,
};
use anyhow::Context;
use axum::body::Body;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers a call to a node.
pub(super) async fn handle(provider: &Arc<Provider>, call: &NodeCall<'_>) -> Result<Response<Body>, Refusal> {
    let token = graph::bearer(call.head);
    let query = call.head.uri.query().unwrap_or_default();
    let node = call.path.first().copied().unwrap_or_default();
    let number = provider.registry.number(node);
    let waba = match &number {
        Some(number) => Some(number.spec.waba_id.clone()),
        None => provider.registry.knows_account(node).then(|| node.to_owned()),
    };
    provider.registry.authorize(token, waba.as_deref())?;
    if let Some(waba) = &waba {
        count(provider, waba)?;
    }
    let method = call.method;
    match (&number, call.path) {
        (_, ["whatsapp_business", "attachments"]) if method == Method::GET => Ok(media::download(provider, query)),
        (_, ["debug_token"]) if method == Method::GET => Ok(debug_token(provider, query)),
        (Some(number), [_]) if method == Method::GET => Ok(ok(number_node(number, query))),
        (Some(_), [_] | [_, "register" | "deregister" | "request_code" | "verify_code"]) if method == Method::POST => {
            Ok(ok(json!({"success": true})))
        }
        (Some(_), [_, "whatsapp_business_profile"]) => Ok(ok(json!({"data": [{"messaging_product": "whatsapp",
            "about": "Harbour Clinic", "vertical": "HEALTH"}]}))),
        (Some(_), [_, "block_users"]) => block_users(call),
        (Some(number), [_, "media"]) if method == Method::POST => media::upload(provider, &number.id, call),
        (None, [waba]) if provider.registry.knows_account(waba) => Ok(ok(json!({"id": waba, "name": "Harbour Clinic",
            "timezone_id": "1", "currency": "EUR", "account_review_status": "APPROVED",
            "business_verification_status": "verified", "country": "GB"}))),
        (None, [waba, "phone_numbers"]) if provider.registry.knows_account(waba) => {
            let numbers = provider.registry.numbers();
            let of_account = numbers.iter().filter(|number| number.waba_id == **waba);
            let listed: Vec<Value> = of_account
                .filter_map(|spec| provider.registry.number(&spec.id))
                .map(|number| number_node(&number, ""))
                .collect();
            Ok(ok(json!({"data": listed, "paging": {"cursors": {"before": "MA", "after": "MA"}}})))
        }
        (None, [waba, "subscribed_apps"]) if provider.registry.knows_account(waba) => match *method {
            Method::GET => Ok(ok(json!({"data": [{"whatsapp_business_api_data":
                {"id": "500000000000001", "name": "Mijra", "link": "https://mijra.example/"}}]}))),
            _ => Ok(ok(json!({"success": true}))),
        },
        (None, [waba, "message_templates"]) if provider.registry.knows_account(waba) => {
            templates(provider, waba, call, query)
        }
        (None, [id]) if provider.registry.template_of_id(id).is_some() && method == Method::GET => {
            provider.registry.template_of_id(id).map(|template| ok(template.view())).ok_or_else(|| gone(id))
        }
        (None, [id]) if provider.media.knows(id) => match *method {
            Method::DELETE => media::delete(provider, id).ok_or_else(|| gone(id)),
            _ => media::resolve(provider, id, parameter(query, "phone_number_id").as_deref()),
        },
        _ => Err(gone(node)),
    }
}

fn templates(
    provider: &Arc<Provider>,
    waba: &str,
    call: &NodeCall<'_>,
    query: &str,
) -> Result<Response<Body>, Refusal> {
    match *call.method {
        Method::GET => list_templates(provider, waba, query),
        Method::POST => {
            let mut definition: Definition =
                serde_json::from_slice(&call.body).map_err(|error| Refusal::invalid(format!("{error}.")))?;
            definition.status = "PENDING".into();
            let template = provider.registry.add_template(waba, definition.clone())?;
            approve_later(provider, waba, &definition);
            let category = &template.definition.category;
            Ok(ok(json!({"id": template.id, "status": "PENDING", "category": category})))
        }
        Method::DELETE => match parameter(query, "name") {
            Some(name) if provider.registry.remove_templates(waba, &name, parameter(query, "hsm_id").as_deref()) => {
                Ok(ok(json!({"success": true})))
            }
            Some(name) => Err(Refusal::invalid(format!("There is no template {name}."))),
            None => Err(Refusal::missing("name")),
        },
        _ => Err(Refusal::invalid("Unsupported method.")),
    }
}

fn list_templates(provider: &Provider, waba: &str, query: &str) -> Result<Response<Body>, Refusal> {
    let limit: usize = parameter(query, "limit").and_then(|limit| limit.parse().ok()).unwrap_or(25).clamp(1, 1_000);
    let after: usize = match parameter(query, "after") {
        None => 0,
        Some(cursor) => cursor
            .strip_prefix("after")
            .and_then(|at| at.parse().ok())
            .ok_or_else(|| Refusal::new(131_059, "The cursor is invalid or has expired."))?,
    };
    let wanted =
        |name: &str, value: &str| parameter(query, name).is_none_or(|wanted| wanted.eq_ignore_ascii_case(value));
    let all: Vec<Value> = provider
        .registry
        .templates(waba)
        .iter()
        .filter(|template| {
            let definition = &template.definition;
            wanted("name", &definition.name)
                && wanted("language", &definition.language)
                && wanted("status", &definition.status)
                && wanted("category", &definition.category)
        })
        .map(|template| template.view())
        .collect();
    let page: Vec<&Value> = all.iter().skip(after).take(limit).collect();
    let end = after + page.len();
    let mut answer = json!({"data": page,
        "paging": {"cursors": {"before": format!("after{after}"), "after": format!("after{end}")}}});
    if end < all.len() {
        let next = format!("{}/v25.0/{waba}/message_templates?limit={limit}&after=after{end}", provider.own_url);
        answer["paging"]["next"] = json!(next);
    }
    Ok(ok(answer))
}

/// A created template is looked at for a moment and then approved, which a webhook tells.
fn approve_later(provider: &Arc<Provider>, waba: &str, definition: &Definition) {
    let (provider, waba) = (provider.clone(), waba.to_owned());
    let (name, language) = (definition.name.clone(), definition.language.clone());
    provider.clone().tasks.spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_millis(provider.behaviour().approval_ms)) => {}
            () = provider.stopping.cancelled() => return,
        }
        // Unless it was deleted, or a test has decided otherwise in the meantime.
        let pending =
            provider.registry.template(&waba, &name, &language).filter(|it| it.definition.status == "PENDING");
        if pending.is_some() {
            let _ = decide(&provider, &waba, &name, &language, "APPROVED", None).await;
        }
    });
}

/// Puts a template into the status that an event leads to, and tells it.
///
/// # Errors
/// If there is no such template, or no number whose webhooks could tell it.
pub(super) async fn decide(
    provider: &Arc<Provider>,
    waba: &str,
    name: &str,
    language: &str,
    event: &str,
    reason: Option<&str>,
) -> anyhow::Result<()> {
    let template = provider.registry.template(waba, name, language);
    let template = template.with_context(|| format!("{waba} has no template {name} in {language}"))?;
    let mut definition = template.definition.clone();
    definition.status = match event {
        "REINSTATED" | "UNARCHIVED" => "APPROVED",
        "FLAGGED" | "LOCKED" => definition.status.as_str(),
        event => event,
    }
    .to_owned();
    let category = definition.category.clone();
    provider.registry.add_template(waba, definition).map_err(|refusal| anyhow::anyhow!(refusal.details))?;
    let number = provider.registry.numbers().into_iter().find(|number| number.waba_id == waba);
    let number = number.with_context(|| format!("{waba} has no number"))?;
    let id: u64 = template.id.parse().unwrap_or_default();
    let mut payload = inbound::envelope(
        waba,
        vec![json!({"field": "message_template_status_update", "value":
        {"event": event, "message_template_id": id, "message_template_name": name,
         "message_template_language": language, "message_template_category": category, "reason": reason}})],
    );
    payload["entry"][0]["time"] = json!(provider.clock.unix(provider.clock.now_us()));
    tell::payload(provider, &number.id, &payload).await.map(drop)
}

fn number_node(number: &Number, query: &str) -> Value {
    let (state, limit) = {
        let live = number.live();
        (live.state, live.limit)
    };
    let level = if limit.is_some_and(|limit| limit >= 1_000) { "HIGH" } else { "STANDARD" };
    let health = match state {
        AccountState::Connected => "AVAILABLE",
        AccountState::NameNotApproved | AccountState::SpamLimited => "LIMITED",
        _ => "BLOCKED",
    };
    if parameter(query, "fields").as_deref() == Some("health_status") {
        let mut entity = json!({"entity_type": "PHONE_NUMBER", "id": number.spec.id, "can_send_message": health});
        if let Some(refusal) = state.refusal() {
            entity["errors"] = json!([{"error_code": refusal.code, "error_description": refusal.details,
                "possible_solution": "See the error's page."}]);
        }
        return json!({"id": number.spec.id, "health_status": {"can_send_message": health, "entities": [entity,
            {"entity_type": "WABA", "id": number.spec.waba_id, "can_send_message": "AVAILABLE"}]}});
    }
    let status = match state {
        AccountState::Connected => "CONNECTED",
        AccountState::NotRegistered | AccountState::Deleted => "DISCONNECTED",
        AccountState::NameNotApproved => "PENDING",
        AccountState::SpamLimited => "RATE_LIMITED",
        _ => "RESTRICTED",
    };
    json!({"id": number.spec.id, "display_phone_number": format!("+{}", number.spec.display_phone_number),
        "verified_name": "Harbour Clinic", "quality_rating": "GREEN", "status": status, "name_status": "APPROVED",
        "code_verification_status": "VERIFIED", "throughput": {"level": level}, "platform_type": "CLOUD_API",
        "account_mode": "LIVE"})
}

fn block_users(call: &NodeCall<'_>) -> Result<Response<Body>, Refusal> {
    if call.method == Method::GET {
        return Ok(ok(json!({"data": []})));
    }
    let body: Value = serde_json::from_slice(&call.body).map_err(|error| Refusal::invalid(format!("{error}.")))?;
    let users: Vec<Value> = body["block_users"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|user| json!({"input": user["user"], "wa_id": user["user"].as_str().unwrap_or_default().trim_start_matches('+')}))
        .collect();
    let list = if call.method == Method::DELETE { "removed_users" } else { "added_users" };
    Ok(ok(json!({"messaging_product": "whatsapp", "block_users": {list: users}})))
}

fn debug_token(provider: &Provider, query: &str) -> Response<Body> {
    let token = parameter(query, "input_token");
    let valid = provider.registry.authorize(token.as_deref(), None).is_ok();
    ok(json!({"data": {"is_valid": valid, "app_id": "500000000000001", "type": "SYSTEM_USER", "expires_at": 0,
        "scopes": ["whatsapp_business_messaging", "whatsapp_business_management"]}}))
}

/// Management calls have a limit of their own, by the hour.
fn count(provider: &Provider, waba: &str) -> Result<(), Refusal> {
    let behaviour = provider.behaviour();
    let hour = provider.clock.now_us() / 3_600_000_000;
    if provider.registry.count_management_call(waba, hour) > behaviour.management_per_hour {
        return Err(Refusal::new(80_007, "There have been too many calls to this WhatsApp Business account.")
            .with_status(behaviour.throttle_status));
    }
    Ok(())
}

fn gone(node: &str) -> Refusal {
    Refusal::invalid(format!("Object with ID '{node}' does not exist.")).with_subcode(33)
}

fn ok(body: Value) -> Response<Body> {
    reply::json(StatusCode::OK, &body)
}

fn parameter(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
