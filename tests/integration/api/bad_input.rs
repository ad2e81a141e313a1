//! Bad input and what each is answered: never swallowed, always a problem that names the field.

use super::{Stage, Tenant, answer, staged};
use reqwest::Method;
use serde_json::{Value, json};

async fn posted(
    stage: &Stage,
    tenant: &Tenant,
    path: &str,
    content_type: &str,
    body: impl Into<Vec<u8>>,
) -> super::Answer {
    let request = stage
        .request(Method::POST, &format!("/api/{}{path}", tenant.slug))
        .bearer_auth(&tenant.token)
        .header("content-type", content_type)
        .body(body.into());
    answer(request).await
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_by_what_is_wrong_with_it() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let json_type = "application/json";
        let long = format!(r#"{{"phone":"{}"}}"#, "1".repeat(300_000));
        for (content_type, body, expected) in [
            (json_type, r#"{"name":"Ada","#, (400, "malformed_json", vec![])),
            (json_type, "", (400, "malformed_json", vec![])),
            (json_type, r#"{"name":"Ada","phone":"+1 555 777 0142"} x"#, (400, "malformed_json", vec![])),
            ("text/plain", "{}", (415, "not_json", vec!["Content-Type"])),
            (json_type, long.as_str(), (413, "too_large", vec![])),
            (json_type, r#"{"name":"Ada"}"#, (422, "invalid", vec!["phone"])),
            (json_type, r#"{"name":7,"phone":"+1 555 777 0142"}"#, (422, "invalid", vec!["name"])),
            (json_type, r#"{"phone":"+1 555 777 0142","nmae":"Ada"}"#, (422, "invalid", vec!["nmae"])),
            (json_type, r#"{"phone":"12"}"#, (422, "invalid", vec!["phone"])),
            (json_type, r#"{"phone":"+1 555 777 0142","name":"A\u0000da"}"#, (422, "invalid", vec!["name"])),
            (json_type, r#"{"phone":"+1 555 777\u0000 0142"}"#, (422, "invalid", vec!["phone"])),
            (json_type, r#"{"phone":"+1 555 777 0142","name":"\ud800"}"#, (400, "malformed_json", vec![])),
        ] {
            let refused = posted(stage, &tenant, "/contacts", content_type, body).await;
            assert_eq!(refused.problem(), expected, "{}", &body[..body.len().min(80)]);
        }
        assert_eq!(stage.count("SELECT count(*) FROM contacts").await, 0);
    })
    .await;
}

#[tokio::test]
async fn ten_mebibytes_are_too_large_everywhere_and_the_sender_hears_it() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let body = vec![b' '; 10 * 1024 * 1024];
        let refused = posted(stage, &tenant, "/contacts", "application/json", body.clone()).await;
        assert_eq!(refused.problem(), (413, "too_large", vec![]));
        let refused = stage.webhook("/webhooks/whatsapp", super::APP_SECRET, body).await;
        assert_eq!(refused.problem(), (413, "too_large", vec![]));
    })
    .await;
}

#[tokio::test]
async fn a_path_or_method_that_is_not_there_is_a_problem_too() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let refused = answer(stage.request(Method::GET, "/nothing/here")).await;
        assert_eq!(refused.problem(), (404, "not_found", vec![]));
        let refused = answer(stage.request(Method::DELETE, "/api/demo/contacts").bearer_auth(&tenant.token)).await;
        assert_eq!(refused.problem(), (405, "method_not_allowed", vec![]));
        assert_eq!(refused.headers["allow"], "GET,HEAD,POST");
        assert!(refused.headers.contains_key("x-request-id"));
    })
    .await;
}

#[tokio::test]
async fn a_parameter_that_cannot_be_read_is_named() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        for (query, field) in [
            ("state=asleep", "state"),
            ("unread=maybe", "unread"),
            ("channel_account_id=7", "channel_account_id"),
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=1&limit=2", "limit"),
            ("cursor=abc", "cursor"),
            ("unraed=true", "unraed"),
        ] {
            let refused = stage.get(&tenant, &format!("/conversations?{query}")).await;
            assert_eq!(refused.problem(), (400, "bad_parameter", vec![field]), "{query}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_id_that_nobody_has_is_not_found() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let nobody = "01936f5e-3c00-7000-8000-000000000001";
        for id in [nobody, "xyz", "1", "%ff", "a%00b"] {
            for path in ["contacts/ID", "conversations/ID", "conversations/ID/messages", "messages/ID"] {
                let refused = stage.get(&tenant, &format!("/{}", path.replace("ID", id))).await;
                assert_eq!(refused.problem(), (404, "not_found", vec![]), "{path} {id}");
            }
            let body = json!({"type": "text", "text": "Hello"});
            let refused = stage.post(&tenant, &format!("/conversations/{id}/messages"), &body).await;
            assert_eq!(refused.problem(), (404, "not_found", vec![]), "{id}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_message_of_a_wrong_shape_names_every_field() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, chrono::TimeDelta::hours(1)).await;
        let path = format!("/conversations/{conversation}/messages");
        for (body, fields) in [
            (json!({}), vec!["type"]),
            (json!({"type": "fax"}), vec!["type"]),
            (json!({"type": "text"}), vec!["text"]),
            (json!({"type": "text", "text": " "}), vec!["text"]),
            (json!({"type": "text", "text": "x".repeat(4097)}), vec!["text"]),
            (json!({"type": "text", "text": "a\u{0}b"}), vec!["text"]),
            (json!({"type": "text", "text": 7}), vec!["text"]),
            (json!({"type": "text", "text": "x", "name": "reminder"}), vec!["name"]),
            (json!({"type": "template"}), vec!["name", "language"]),
            (json!({"type": "template", "name": "No Such Name", "language": "english"}), vec!["name", "language"]),
            (
                json!({"type": "template", "name": "reminder", "language": "en", "variables": ["a", "b\nc"]}),
                vec!["variables[1]"],
            ),
        ] {
            let refused = stage.post(&tenant, &path, &body).await;
            assert_eq!(refused.problem(), (422, "invalid", fields), "{body}");
        }
        assert_eq!(stage.count("SELECT count(*) FROM messages").await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_idempotency_key_that_is_none_is_refused() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let body = json!({"phone": super::phone()});
        for key in ["", &"x".repeat(256)] {
            let refused = answer(stage.posting(&tenant, "/contacts", &body).header("Idempotency-Key", key)).await;
            assert_eq!(refused.problem(), (400, "bad_parameter", vec!["Idempotency-Key"]));
        }
    })
    .await;
}

#[tokio::test]
async fn the_description_lists_what_is_served() {
    staged(async |stage| {
        let described = answer(stage.request(Method::GET, "/api/openapi.json")).await;
        assert_eq!(described.status, 200);
        assert!(described.body["paths"]["/api/{tenant}/conversations/{id}/messages"]["post"].is_object());
        assert_ne!(described.body["components"]["schemas"]["Problem"], Value::Null);
    })
    .await;
}
