//! The API's routes with their description, generated from the handlers themselves.

use crate::{routes, state::App, webhooks::doors};
use axum::{Json, Router, http::StatusCode, routing::get};
use std::{collections::HashMap, sync::Arc};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self, PathItem, RefOr,
        path::Operation,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

/// Where the description is.
pub const PATH: &str = "/api/openapi.json";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Mijra",
        description = "Contacts, conversations, messages, templates, campaigns and limits of a tenant, who changed what, and the raw log of webhooks. Every answer that is not a success is a problem \
            (RFC 9457, `application/problem+json`) whose `type` is stable; the schema `Problem` lists them. Tenants, tokens \
            and channel accounts are an operator's (`mijra`), and have no paths here."
    ),
    paths(
        doors::whatsapp::platform, doors::whatsapp::account, doors::whatsapp::shake_platform, doors::whatsapp::shake_account,
        doors::messenger::platform, doors::messenger::account, doors::messenger::shake_platform, doors::messenger::shake_account,
        doors::instagram::platform, doors::instagram::account, doors::instagram::shake_platform, doors::instagram::shake_account,
        doors::twilio::platform, doors::twilio::account, doors::twilio::platform_by_get, doors::twilio::account_by_get,
    ),
    modifiers(&Bearer),
    security(("bearer" = []))
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        api.components.get_or_insert_default().add_security_scheme("bearer", scheme);
    }
}

/// Every route of the API, and what describes them.
pub fn router() -> (Router<App>, openapi::OpenApi) {
    let tenant = OpenApiRouter::new()
        .merge(routes::campaigns::router())
        .merge(routes::audit::router())
        .merge(routes::events::router())
        .merge(routes::contacts::router())
        .merge(routes::conversations::router())
        .merge(routes::files::router())
        .merge(routes::accounts::router())
        .merge(routes::limits::router())
        .merge(routes::messages::router())
        .merge(routes::templates::router())
        .merge(routes::webhooks::router());
    let (router, mut api) = OpenApiRouter::with_openapi(Description::openapi())
        .nest("/api/{tenant}", tenant)
        .merge(routes::media::router())
        .split_for_parts();
    complete(&mut api);
    let shown = Arc::new(api.clone());
    (router.route(PATH, get(move || std::future::ready(Json(shown.clone())))), api)
}

/// Says what the handlers leave open and the specification asks for (OpenAPI 3.1, its Operation, Response and Media Type Objects): an id
/// of its own for each operation, a description for each answer, and that bytes are bytes.
fn complete(api: &mut openapi::OpenApi) {
    let mut times: HashMap<String, usize> = HashMap::new();
    each_operation(api, |_, operation| {
        *times.entry(operation.operation_id.clone().unwrap_or_default()).or_default() += 1;
    });
    each_operation(api, |path, operation| {
        let id = operation.operation_id.clone().unwrap_or_default();
        if times[&id] > 1 {
            let of = path
                .trim_start_matches("/api/{tenant}/")
                .split('/')
                .filter(|part| !part.starts_with('{') && *part != id);
            operation.operation_id =
                Some([id.as_str()].into_iter().chain(of).collect::<Vec<_>>().join("_").replace('-', "_"));
        }
        for (status, answer) in &mut operation.responses.responses {
            let RefOr::T(answer) = answer else { continue };
            if answer.description.is_empty() {
                let known = StatusCode::from_bytes(status.as_bytes()).ok().and_then(|status| status.canonical_reason());
                answer.description = known.unwrap_or("What is wrong").to_owned();
            }
        }
        if let Some(RefOr::T(body)) = &mut operation.request_body
            && let Some(RefOr::T(bytes)) = body.content.get_mut("application/octet-stream")
        {
            bytes.schema = None;
        }
    });
}

/// Each operation, with its path.
fn each_operation(api: &mut openapi::OpenApi, mut see: impl FnMut(&str, &mut Operation)) {
    for (path, item) in &mut api.paths.paths {
        let PathItem { get, put, post, delete, patch, .. } = item;
        [get, put, post, delete, patch].into_iter().flatten().for_each(|operation| see(path, operation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::db::inbound::log::Outcome;

    #[test]
    fn every_path_is_described_and_says_what_it_needs() {
        let (_, api) = router();
        let json = serde_json::to_value(&api).unwrap();
        let paths = json["paths"].as_object().unwrap();
        assert_eq!(
            paths.keys().collect::<Vec<_>>(),
            [
                "/api/{tenant}/audit",
                "/api/{tenant}/campaigns",
                "/api/{tenant}/campaigns/{id}",
                "/api/{tenant}/campaigns/{id}/cancel",
                "/api/{tenant}/campaigns/{id}/ledger",
                "/api/{tenant}/campaigns/{id}/pause",
                "/api/{tenant}/campaigns/{id}/recipients",
                "/api/{tenant}/campaigns/{id}/resume",
                "/api/{tenant}/campaigns/{id}/retry-failed",
                "/api/{tenant}/campaigns/{id}/start",
                "/api/{tenant}/channel-accounts",
                "/api/{tenant}/channel-accounts/{id}/resume",
                "/api/{tenant}/contacts",
                "/api/{tenant}/contacts/import",
                "/api/{tenant}/contacts/{id}",
                "/api/{tenant}/contacts/{id}/merge",
                "/api/{tenant}/contacts/{id}/suppressions",
                "/api/{tenant}/conversations",
                "/api/{tenant}/conversations/{id}",
                "/api/{tenant}/conversations/{id}/messages",
                "/api/{tenant}/conversations/{id}/read",
                "/api/{tenant}/conversations/{id}/typing",
                "/api/{tenant}/events",
                "/api/{tenant}/files",
                "/api/{tenant}/files/{id}",
                "/api/{tenant}/limits",
                "/api/{tenant}/limits/{scope}/{id}",
                "/api/{tenant}/messages",
                "/api/{tenant}/messages/{id}",
                "/api/{tenant}/messages/{id}/decide",
                "/api/{tenant}/messages/{id}/files/{file}/fetch",
                "/api/{tenant}/messages/{id}/retry",
                "/api/{tenant}/messages/{id}/trace",
                "/api/{tenant}/templates",
                "/api/{tenant}/templates/sync",
                "/api/{tenant}/templates/{id}",
                "/api/{tenant}/templates/{id}/preview",
                "/api/{tenant}/undecided",
                "/api/{tenant}/webhooks",
                "/api/{tenant}/webhooks/replay",
                "/api/{tenant}/webhooks/replays/{id}",
                "/api/{tenant}/webhooks/{id}",
                "/media/{tenant_id}/{id}/{what}/{expires}/{signature}",
                "/webhooks/instagram",
                "/webhooks/instagram/{key}",
                "/webhooks/messenger",
                "/webhooks/messenger/{key}",
                "/webhooks/twilio",
                "/webhooks/twilio/{key}",
                "/webhooks/whatsapp",
                "/webhooks/whatsapp/{key}",
            ]
        );
        for (path, operations) in paths {
            // A permission, or none.
            let open = ["/webhooks/", "/media/"].iter().any(|open| path.starts_with(open));
            let needs = if open { "Needs no token" } else { "Needs `" };
            for operation in operations.as_object().unwrap().values() {
                assert!(operation["description"].as_str().unwrap().starts_with(needs), "{operation}");
                assert!(
                    operation["responses"]["default"]["content"]["application/problem+json"].is_object(),
                    "{operation}"
                );
            }
        }
        assert_eq!(json["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
        for (path, methods) in paths.iter().filter(|(path, _)| path.starts_with("/webhooks/")) {
            for method in ["get", "post"] {
                assert_eq!(methods[method]["security"], serde_json::json!([{}]), "{method} {path} needs no token");
            }
        }
    }

    #[test]
    fn problems_are_listed_by_type() {
        let json = serde_json::to_value(router().1).unwrap();
        let kind = &json["components"]["schemas"]["Problem"]["properties"]["type"];
        let types: Vec<&str> = kind["enum"].as_array().unwrap().iter().map(|kind| kind.as_str().unwrap()).collect();
        let said = kind["description"].as_str().unwrap();
        for known in
            [crate::error::Kind::MalformedJson, crate::error::Kind::NobodyFailed, crate::error::Kind::Unavailable]
        {
            let problem = crate::error::Problem::new(known);
            assert!(types.contains(&problem.kind), "{types:?}");
            assert!(said.contains(&format!("- `{}` ({}): {}", problem.kind, problem.status, problem.title)), "{said}");
        }
        assert_eq!(types.iter().collect::<std::collections::BTreeSet<_>>().len(), types.len(), "{types:?}");
    }

    #[test]
    fn outcomes_of_webhooks_are_those_that_are_written() {
        let json = serde_json::to_value(router().1).unwrap();
        let outcomes: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        let described = &json["components"]["schemas"]["WebhookOutcome"];
        assert_eq!(described["enum"], serde_json::json!(outcomes), "{described}");
        let said = json["components"]["schemas"]["Webhook"]["properties"]["outcome"].to_string();
        assert!(outcomes.iter().all(|outcome| said.contains(&format!("`{outcome}`"))), "{said}");
        let answers = &json["paths"]["/api/{tenant}/webhooks/replay"]["post"]["responses"];
        let body = |status: &str| answers[status]["content"]["application/json"]["schema"]["$ref"].as_str();
        assert_eq!(body("200"), Some("#/components/schemas/WebhookReplayDryRun"), "{answers}");
        assert_eq!(body("202"), Some("#/components/schemas/WebhookReplay"), "{answers}");
    }

    /// What a part of the description stands for, whether it is said there or elsewhere.
    fn followed<'a>(api: &'a serde_json::Value, part: &'a serde_json::Value) -> &'a serde_json::Value {
        if let Some(there) = part["$ref"].as_str() {
            return api.pointer(&there[1..]).unwrap_or_else(|| panic!("{there} leads nowhere"));
        }
        let one_of = part["oneOf"].as_array().or(part["allOf"].as_array());
        match one_of.and_then(|parts| parts.iter().find(|part| part["$ref"].is_string())) {
            Some(part) => followed(api, part),
            None => part,
        }
    }

    #[test]
    fn closed_sets_of_words_are_listed() {
        use shared::domain::{
            channel::{Channel, Provider},
            sends::{AttemptOutcome, SendState, WaitReason},
        };
        fn words(all: impl IntoIterator<Item = &'static str>) -> Vec<String> {
            all.into_iter().map(str::to_owned).collect()
        }
        let api = serde_json::to_value(router().1).unwrap();
        let listed = |part: &serde_json::Value| -> Vec<String> {
            serde_json::from_value(followed(&api, part)["enum"].clone()).unwrap_or_default()
        };
        let field = |schema: &str, field: &str| listed(&api["components"]["schemas"][schema]["properties"][field]);
        assert_eq!(field("Send", "state"), words(SendState::ALL.iter().map(|state| state.as_str())));
        assert_eq!(field("Send", "wait_reason"), words(WaitReason::ALL.iter().map(|reason| reason.as_str())));
        assert_eq!(field("Attempt", "outcome"), words(AttemptOutcome::ALL.iter().map(|outcome| outcome.as_str())));
        assert_eq!(field("ChannelAccount", "provider"), words(Provider::ALL.iter().map(|provider| provider.as_str())));
        assert_eq!(field("ChannelAccount", "channel"), words(Channel::ALL.iter().map(|channel| channel.as_str())));
        for (schema, name) in [
            ("AuditEntry", "actor"),
            ("Campaign", "state"),
            ("ChannelAccount", "state"),
            ("Conversation", "origin"),
            ("Conversation", "state"),
            ("Event", "kind"),
            ("Limit", "scope"),
            ("Message", "direction"),
            ("Message", "kind"),
            ("Suppression", "channel"),
            ("Suppression", "purpose"),
            ("Suppression", "state"),
            ("Template", "kind"),
            ("UndecidedSend", "state"),
            ("WebhookReplay", "state"),
        ] {
            assert!(!field(schema, name).is_empty(), "{schema}.{name}");
        }
        let means = followed(&api, &api["components"]["schemas"]["Send"]["properties"]["wait_reason"]);
        for reason in WaitReason::ALL {
            let line = format!("- `{}`: {}", reason.as_str(), reason.means());
            assert!(means["description"].as_str().unwrap().contains(&line), "{line}");
        }
        for (path, name) in [
            ("conversations", "state"),
            ("campaigns/{id}/recipients", "state"),
            ("events", "kind"),
            ("undecided", "state"),
            ("templates", "kind"),
            ("webhooks", "provider"),
            ("webhooks", "outcome"),
        ] {
            let parameters = api["paths"][format!("/api/{{tenant}}/{path}")]["get"]["parameters"].as_array().unwrap();
            let found = parameters.iter().find(|parameter| parameter["name"] == name).unwrap();
            let schema = &found["schema"];
            let inline = schema["oneOf"].as_array().and_then(|parts| parts.iter().find(|part| part["enum"].is_array()));
            assert!(!listed(inline.unwrap_or(schema)).is_empty(), "{path} {name}: {found}");
        }
    }

    #[test]
    fn every_operation_has_an_id_of_its_own_and_every_answer_a_description() {
        let (_, mut api) = router();
        let mut ids = Vec::new();
        each_operation(&mut api, |path, operation| {
            ids.push(operation.operation_id.clone().unwrap());
            for (status, answer) in &operation.responses.responses {
                let RefOr::T(answer) = answer else { continue };
                assert!(!answer.description.is_empty(), "{path} {status}");
            }
        });
        let (count, said) = (ids.len(), format!("{ids:?}"));
        assert!(ids.contains(&"list_contacts".to_owned()) && ids.contains(&"resume_campaigns".to_owned()), "{said}");
        assert_eq!(ids.into_iter().collect::<std::collections::BTreeSet<_>>().len(), count, "{said}");
        let json = serde_json::to_value(&api).unwrap();
        let body = &json["paths"]["/api/{tenant}/files"]["post"]["requestBody"]["content"];
        assert_eq!(body, &serde_json::json!({"application/octet-stream": {}}));
    }

    #[test]
    fn whatever_is_referred_to_is_described() {
        fn look(api: &serde_json::Value, part: &serde_json::Value) {
            match part {
                serde_json::Value::Object(parts) => {
                    followed(api, part);
                    parts.values().for_each(|part| look(api, part));
                }
                serde_json::Value::Array(parts) => parts.iter().for_each(|part| look(api, part)),
                _ => {}
            }
        }
        let api = serde_json::to_value(router().1).unwrap();
        look(&api, &api);
    }
}
