//! Bad input and what each is answered. With `--nocapture` the table is shown.

use crate::{CLOSING, quick};
use comfy_table::{Table, presets};
use serde_json::{Value, json};
use support::{
    books,
    fleet::Fleet,
    sandbox::{
        Config, Incoming, Person, WABA,
        sign::{self, LONE_SURROGATE},
    },
};
use uuid::Uuid;

/// What was put in, what was answered, and whether that is right.
struct Tried {
    what: &'static str,
    answer: String,
    right: bool,
}

struct Desk<'a> {
    fleet: &'a Fleet,
    tried: Vec<Tried>,
}

impl Desk<'_> {
    fn note(&mut self, what: &'static str, answer: impl ToString, right: bool) {
        self.tried.push(Tried { what, answer: answer.to_string(), right });
    }

    /// A webhook with these bytes and this signature.
    async fn webhook(&self, body: Vec<u8>, signature: String) -> u16 {
        let url = format!("{}/webhooks/whatsapp", self.fleet.api);
        let request = self.fleet.http.post(url).header("X-Hub-Signature-256", signature).body(body);
        request.send().await.map_or(0, |response| response.status().as_u16())
    }

    async fn signed(&self, body: impl Into<Vec<u8>>) -> u16 {
        let body = body.into();
        let signature = sign::signature(&Config::default().app_secret, &body);
        self.webhook(body, signature).await
    }

    /// A call of the API that is to be refused with this status and, where one is named, this field.
    async fn refused(&mut self, what: &'static str, path: &str, body: Value, status: u16, field: Option<&str>) {
        let (found, problem) = self.fleet.post(path, &Uuid::new_v4().to_string(), &body).await.unwrap();
        self.judge(what, found.as_u16(), &problem, status, field);
    }

    fn judge(&mut self, what: &'static str, found: u16, problem: &Value, status: u16, field: Option<&str>) {
        let fields: Vec<&str> =
            problem["errors"].as_array().into_iter().flatten().filter_map(|error| error["field"].as_str()).collect();
        let named = field.is_none_or(|field| fields.contains(&field));
        let kind = problem["type"].as_str().unwrap_or_default();
        let right = found == status && named && !kind.is_empty();
        self.note(what, format!("{found} {kind} {}", fields.join(", ")), right);
    }
}

fn text_from(number: &str, id: &str, text: &str) -> Value {
    json!({"object": "whatsapp_business_account", "entry": [{"id": WABA, "changes": [{"field": "messages", "value": {
        "messaging_product": "whatsapp", "metadata": {"display_phone_number": "15557770100", "phone_number_id": number},
        "contacts": [{"profile": {"name": "Ada"}, "wa_id": "15557770123"}],
        "messages": [{"from": "15557770123", "id": id, "timestamp": chrono::Utc::now().timestamp().to_string(),
            "type": "text", "text": {"body": text}}],
    }}]}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_answered_and_harms_nobody() {
    let fleet = quick().start().await;
    fleet.mijra(&["templates", "sync", "--tenant", "acme"]).await;
    let parties = fleet.acquaint(51, 1).await;
    let conversation = parties[0].conversation;
    let mut desk = Desk { fleet: &fleet, tried: Vec::new() };

    let whole = sign::emit(&text_from(&fleet.tenant.number, "wamid.bad.1", "hello"), false).to_vec();
    let forged = desk.webhook(whole.clone(), sign::signature("another secret", &whole)).await;
    desk.note("webhook: forged signature", forged, forged == 401);
    let unsigned = desk.webhook(whole.clone(), String::new()).await;
    desk.note("webhook: no signature", unsigned, unsigned == 401);
    let huge = desk.signed(vec![b' '; 10 * 1024 * 1024]).await;
    desk.note("webhook: body of 10 MiB", huge, huge == 413);
    let stranger = sign::emit(&text_from("999999999999999", "wamid.bad.2", "hello"), false).to_vec();
    let stranger = desk.signed(stranger).await;
    desk.note("webhook: unknown account", stranger, stranger == 200);
    let truncated = desk.signed(&whole[..whole.len() / 2]).await;
    desk.note("webhook: truncated JSON, rightly signed", truncated, truncated == 200);

    let change = |messages: Value| json!({"object": "whatsapp_business_account", "entry": [{"id": WABA, "changes": [messages]}]});
    let bad = json!({"field": "messages", "value": {"metadata": {"phone_number_id": fleet.tenant.number}, "messages": [7, {"id": ""}]}});
    let bad = desk.signed(sign::emit(&change(bad), false).to_vec()).await;
    desk.note("webhook: every element bad", bad, bad == 200);
    let nameless = desk.signed(sign::emit(&change(json!({"field": "messages"})), false).to_vec()).await;
    desk.note("webhook: nothing readable for anybody", nameless, nameless == 200);

    // Ten siblings, two of which cannot be stored as they are.
    let person = Person::nth(51, 9);
    let siblings: Vec<Incoming> = (0..10)
        .map(|at| {
            let text = match at {
                3 => "with a \u{0} NUL".to_owned(),
                6 => format!("with a lone surrogate {LONE_SURROGATE}"),
                _ => format!("sibling {at}"),
            };
            Incoming::text(&person, text).with_id(format!("wamid.sibling.{at}"))
        })
        .collect();
    let told = fleet.sandbox.tell(&fleet.tenant.number, siblings).await.unwrap();
    desk.note("webhook: NUL and lone surrogate among ten siblings", told.reply, told.reply.to_string() == "200");

    let into = format!("/conversations/{conversation}/messages");
    let text = json!({"type": "text", "text": "hi"});
    let (cut, problem) = {
        let url = format!("{}/api/acme{into}", fleet.api);
        let request = fleet.http.post(url).bearer_auth(&fleet.tenant.token).header("Idempotency-Key", "cut");
        let request = request.header("Content-Type", "application/json").body(r#"{"type": "text", "te"#);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
    };
    desk.judge("API: truncated JSON", cut, &problem, 400, None);
    let big = json!({"type": "text", "text": "x".repeat(10 * 1024 * 1024)});
    match fleet.post(&into, "big", &big).await {
        Ok((status, problem)) => desk.judge("API: body of 10 MiB", status.as_u16(), &problem, 413, None),
        Err(error) => desk.note("API: body of 10 MiB", format!("{error}"), false),
    }
    let url = format!("{}/api/nobody/contacts", fleet.api);
    let response = fleet.http.get(url).bearer_auth(&fleet.tenant.token).send().await.unwrap();
    let status = response.status().as_u16();
    let problem = response.json().await.unwrap_or(Value::Null);
    // A tenant that is not there is answered like a wrong token: nobody learns who is a customer.
    let expected = if status == 404 { 404 } else { 401 };
    desk.judge("API: unknown tenant", status, &problem, expected, None);
    let foreign = format!("/conversations/{}/messages", Uuid::now_v7());
    desk.refused("API: foreign id", &foreign, text.clone(), 404, None).await;
    let template = |name: &str, variables: &[&str]| json!({"type": "template", "name": name, "language": "en_US", "variables": variables});
    let known = fleet.sandbox_template_with_variables().await;
    desk.refused("API: missing template variable", &into, template(&known, &[]), 422, Some("variables[0]")).await;
    desk.refused("API: unknown template", &into, template("no_such_template", &[]), 422, Some("name")).await;
    desk.refused("API: text of nothing", &into, json!({"type": "text", "text": ""}), 422, Some("text")).await;
    let mut admin = fleet.database.admin().await;
    sqlx::query("UPDATE conversations SET window_expires_at = now() - interval '1 minute' WHERE id = $1")
        .bind(conversation)
        .execute(&mut admin)
        .await
        .unwrap();
    desk.refused("API: free text outside the window", &into, text, 422, Some("type")).await;

    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["bad input", "answer", ""]);
    for tried in &desk.tried {
        table.add_row([tried.what, &tried.answer, if tried.right { "" } else { "wrong" }]);
    }
    #[allow(clippy::print_stdout, reason = "the test's result for who wants to see it")]
    {
        println!("{table}");
    }
    assert!(desk.tried.iter().all(|tried| tried.right), "\n{table}");

    // The truncated one and the one for nobody are dead letters of their own; all else is where it belongs.
    let mut books = books::close(&fleet, &[], CLOSING).await;
    assert_eq!(books.dead, 2, "{books}");
    books.wrong.retain(|wrong| !wrong.starts_with("dead letters"));
    books.assert_agree();
    let siblings: i64 =
        sqlx::query_scalar("SELECT count(*) FROM messages WHERE provider_message_id LIKE 'wamid.sibling.%'")
            .fetch_one(&mut admin)
            .await
            .unwrap();
    assert_eq!(siblings, 10, "none of the siblings was dropped");
    let logged: Vec<String> = sqlx::query_scalar("SELECT detail FROM webhook_log WHERE outcome = 'partly_bad'")
        .fetch_all(&mut admin)
        .await
        .unwrap();
    assert_eq!(
        logged,
        [
            "entry[0].changes[0].value.messages[0]: is no object; entry[0].changes[0].value.messages[1]: has no usable id"
        ],
        "what was bad is in the log of the tenant it was for"
    );
}

/// Where the sandbox keeps its templates is asked of what was synced.
trait KnownTemplates {
    async fn sandbox_template_with_variables(&self) -> String;
}

impl KnownTemplates for Fleet {
    async fn sandbox_template_with_variables(&self) -> String {
        let mut admin = self.database.admin().await;
        let question =
            "SELECT name FROM templates WHERE variables > 0 AND status = 'APPROVED' AND language = 'en_US' LIMIT 1";
        sqlx::query_scalar(question).fetch_one(&mut admin).await.expect("the sandbox has a template with variables")
    }
}
