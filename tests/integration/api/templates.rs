//! Templates: what is known of them is checked before a message is accepted, in which language it is said, a tenant's own, and what is
//! written down for those who talk with providers.

use super::{Account, Answer, Stage, Tenant, answer, staged};
use chrono::{TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use shared::{
    db::{Placement, templates::sync},
    domain::templates::{Needs, TemplateInfo},
    jobs::media::{MediaJob, Task},
    queue::topology::MEDIA,
};
use sqlx::Connection;
use std::time::Duration;

fn template(name: &str, language: &str, status: &str) -> TemplateInfo {
    TemplateInfo {
        name: name.into(),
        language: language.into(),
        status: status.into(),
        category: "UTILITY".into(),
        body: "Hi {{1}}, see you on {{2}}.".into(),
        variables: 2,
        needs: Needs { variables: 2, ..Needs::default() },
        provider_id: Some(format!("id of {name} {language}")),
        components: None,
        reason: None,
    }
}

/// What the account's provider is known to have.
async fn fetched(stage: &Stage, tenant: &Tenant, account: &Account, templates: &[TemplateInfo]) {
    let mut tx = stage.operator().fleet(&Placement::primary(), &[tenant.id]).await.unwrap();
    sync::replace(&mut tx, tenant.id, account.id, templates, Utc::now()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn request(stage: &Stage, tenant: &Tenant, method: Method, path: &str, body: &Value) -> Answer {
    let path = format!("/api/{}{path}", tenant.slug);
    answer(stage.request(method, &path).bearer_auth(&tenant.token).json(body)).await
}

async fn own(stage: &Stage, tenant: &Tenant, name: &str, language: &str, body: &str) -> String {
    let new = json!({"name": name, "language": language, "category": "greeting", "body": body});
    let made = stage.post(tenant, "/templates", &new).await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.body["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_template_must_exist_be_approved_and_get_all_its_variables() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        // Outside the window: a template may be sent at any time.
        let conversation = stage.conversation(&tenant, &account, TimeDelta::days(3)).await;
        let path = format!("/conversations/{conversation}/messages");
        let body = |name: &str, language: &str, variables: &[&str]| {
            json!({"type": "template", "name": name, "language": language, "variables": variables})
        };
        let accepted = stage.post(&tenant, &path, &body("whatever", "en", &[])).await;
        assert_eq!(accepted.status, 202, "nothing was fetched yet: the provider decides");

        let known = [template("reminder", "en_US", "APPROVED"), template("reminder", "de", "PAUSED")];
        fetched(stage, &tenant, &account, &known).await;
        for (name, language, variables, expected) in [
            ("whatever", "en", &["a", "b"][..], (422, "template_unusable", vec!["name"])),
            ("reminder", "fr", &["a", "b"], (422, "template_unusable", vec!["language"])),
            ("reminder", "de", &["a", "b"], (422, "template_unusable", vec!["name"])),
            ("reminder", "en_US", &[], (422, "invalid", vec!["variables[0]", "variables[1]"])),
            ("reminder", "en_US", &["Ada"], (422, "invalid", vec!["variables[1]"])),
            ("reminder", "en_US", &["Ada", "Monday", "x"], (422, "invalid", vec!["variables[2]"])),
        ] {
            let refused = stage.post(&tenant, &path, &body(name, language, variables)).await;
            assert_eq!(refused.problem(), expected, "{name} {language} {variables:?}");
        }
        let refused = stage.post(&tenant, &path, &body("reminder", "en_US", &["Ada"])).await;
        assert_eq!(refused.body["errors"][0]["message"], "is missing: the value of {{2}}");
        let accepted = stage.post(&tenant, &path, &body("reminder", "en_US", &["Ada", "Monday"])).await;
        assert_eq!(accepted.status, 202, "{}", accepted.body);

        // It is counted; free words are told which templates fit, and a tenant's own are none of them.
        own(stage, &tenant, "own words", "en", "Hello").await;
        let listed = stage.get(&tenant, "/templates?name=reminder&language=en_US").await.body;
        assert_eq!((&listed["data"][0]["uses"], &listed["data"][0]["uses_in_30_days"]), (&json!(1), &json!(1)), "{listed}");
        let closed = stage.post(&tenant, &path, &json!({"type": "local_template", "name": "own words"})).await;
        assert_eq!(closed.problem(), (422, "needs_template", vec!["type"]));
        let detail = closed.body["detail"].as_str().unwrap();
        assert!(detail.ends_with("These can be sent: reminder."), "{detail}");
    })
    .await;
}

#[tokio::test]
async fn a_message_is_said_in_its_readers_language_and_keeps_it() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let known = ["de", "en_US", "pt_BR"].map(|language| template("reminder", language, "APPROVED"));
        fetched(stage, &tenant, &account, &known).await;
        let contact = async |language: Value| {
            let new = json!({"phone": super::phone(), "language": language});
            stage.post(&tenant, "/contacts", &new).await
        };
        let say = async |contact: &Value, more: Value| {
            let mut said = json!({"contact_id": contact["id"], "channel_account_id": account.id, "type": "template",
                "name": "reminder", "variables": ["Ada", "Monday"]});
            said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            stage.post(&tenant, "/messages", &said).await
        };
        let new = contact(json!("pt-PT")).await;
        assert_eq!((new.status.as_u16(), &new.body["language"]), (201, &json!("pt-PT")), "{}", new.body);
        let accepted = say(&new.body, json!({})).await;
        assert_eq!(accepted.body["content"]["language"], "pt_BR", "another of its base: {}", accepted.body);

        let nobody_knows = contact(Value::Null).await.body;
        let refused = say(&nobody_knows, json!({})).await;
        assert_eq!(refused.problem(), (422, "template_unusable", vec!["language"]));
        let among = say(&nobody_knows, json!({"languages": ["en_US", "de"]})).await;
        assert_eq!(among.body["content"]["language"], "en_US", "the first: {}", among.body);
        assert_eq!(among.body["content"]["languages"], Value::Null, "what is kept is one language");
        let (done, _) = super::mijra(stage, &["tenant", "language", "--tenant", "demo", "de"], &[]).await;
        assert!(done);
        let accepted = say(&nobody_knows, json!({})).await;
        assert_eq!(accepted.body["content"]["language"], "de", "the tenant's: {}", accepted.body);

        let path = format!("/contacts/{}", nobody_knows["id"].as_str().unwrap());
        let changed = request(stage, &tenant, Method::PATCH, &path, &json!({"language": "en"})).await;
        assert_eq!((changed.status.as_u16(), &changed.body["language"]), (200, &json!("en")));
        assert_eq!(say(&nobody_knows, json!({})).await.body["content"]["language"], "en_US");
        let wrong = request(stage, &tenant, Method::PATCH, &path, &json!({"language": "english"})).await;
        assert_eq!(wrong.problem(), (422, "invalid", vec!["language"]));
        let both = say(&nobody_knows, json!({"language": "de", "languages": ["de"]})).await;
        assert_eq!(both.problem(), (422, "invalid", vec!["languages"]));

        let campaign = json!({"name": "Spring", "channel_account_id": account.id, "audience": {"all": true},
            "content": {"type": "template", "name": "reminder", "variables": ["{{name}}", "Monday"]}});
        let made = stage.post(&tenant, "/campaigns", &campaign).await;
        assert_eq!(made.body["content"]["languages"], json!(["de", "en_US", "pt_BR"]), "{}", made.body);
    })
    .await;
}

#[tokio::test]
async fn a_tenants_own_templates_are_filled_in_when_they_are_sent() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let id = own(stage, &tenant, "late", "en", "Hi {{name}}, order {order} is late.").await;
        own(stage, &tenant, "late", "de", "Hallo {name}, {{order}} kommt später.").await;
        let again = json!({"name": "late", "language": "en", "category": "custom", "body": "x"});
        assert_eq!(stage.post(&tenant, "/templates", &again).await.problem(), (409, "exists", vec!["name"]));

        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        let path = format!("/conversations/{conversation}/messages");
        let say = async |more: Value| {
            let mut said = json!({"type": "local_template", "name": "late"});
            said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            stage.post(&tenant, &path, &said).await
        };
        let missing = say(json!({"language": "en"})).await;
        assert_eq!(missing.problem(), (422, "invalid", vec!["named_variables.order"]));
        let undecided = say(json!({"named_variables": {"order": "8812"}})).await;
        assert_eq!(undecided.problem(), (422, "template_unusable", vec!["language"]));
        let accepted = say(json!({"language": "en", "named_variables": {"order": "8812"}})).await;
        assert_eq!(accepted.status, 202, "{}", accepted.body);
        let expected = json!({"type": "text", "text": "Hi Ada, order 8812 is late.", "preview_url": false});
        assert_eq!(accepted.body["content"], expected, "words like any others");

        let path_of = format!("/templates/{id}");
        let change = json!({"body": "Sorry, {{name}}.", "category": "follow_up"});
        let changed = request(stage, &tenant, Method::PATCH, &path_of, &change).await;
        assert_eq!((changed.status.as_u16(), &changed.body["variables"]), (200, &json!(["name"])), "{}", changed.body);
        let sent = stage.get(&tenant, &format!("/messages/{}", accepted.body["id"].as_str().unwrap())).await.body;
        assert_eq!(sent["content"], expected, "what was accepted stays");
        assert_eq!(stage.get(&tenant, &path_of).await.body["uses"], 1);
        let preview =
            stage.post(&tenant, &format!("{path_of}/preview"), &json!({"named_variables": {"x": "y"}})).await.body;
        assert_eq!(preview["text"], "Sorry, {{name}}.");
        let at_fault: Vec<&Value> = preview["problems"].as_array().unwrap().iter().map(|p| &p["field"]).collect();
        assert_eq!(at_fault, ["named_variables.name", "named_variables.x"]);

        let campaign = json!({"name": "Spring", "channel_account_id": account.id, "audience": {"all": true},
            "content": {"type": "local_template", "name": "late", "language": "en"}});
        let made = stage.post(&tenant, "/campaigns", &campaign).await;
        assert_eq!(made.body["content"]["text"], "Sorry, {{name}}.", "{}", made.body);

        let removed = request(stage, &tenant, Method::DELETE, &path_of, &Value::Null).await;
        assert_eq!(removed.status, 204);
        assert_eq!(stage.get(&tenant, &path_of).await.status, 404);
        assert_eq!(stage.count("SELECT count(*) FROM template_uses").await, 0);
        let audit = stage.get(&tenant, &format!("/audit?target={id}")).await.body;
        let actions: Vec<&Value> = audit["data"].as_array().unwrap().iter().map(|entry| &entry["action"]).collect();
        assert_eq!(actions, ["template.deleted", "template.changed", "template.created"]);
    })
    .await;
}

#[tokio::test]
async fn what_a_template_of_ones_own_lacks_is_named() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        for (more, field) in [
            (json!({"name": " "}), "name"),
            (json!({"language": "english"}), "language"),
            (json!({"category": "MARKETING"}), "category"),
            (json!({"body": ""}), "body"),
            (json!({"body": "x".repeat(4097)}), "body"),
            (json!({"files": [uuid::Uuid::now_v7()]}), "files[0]"),
            (json!({"footer": "Bye"}), "footer"),
            (json!({"examples": {"name": "Ada"}}), "examples"),
        ] {
            let mut new = json!({"name": "late", "language": "en", "category": "reminder", "body": "Hi {{name}}"});
            new.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert_eq!(
                stage.post(&tenant, "/templates", &new).await.problem(),
                (422, "invalid", vec![field]),
                "{more}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn of_two_that_take_one_name_at_once_the_second_is_told() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        own(stage, &tenant, "hello", "en", "Hello!").await;
        let second = own(stage, &tenant, "good_day", "en", "Good day!").await;
        let mut somebody = stage.database.admin().await;
        let mut first = somebody.begin().await.unwrap();
        sqlx::query("UPDATE templates SET name = 'welcome' WHERE name = 'hello'").execute(&mut *first).await.unwrap();
        let (path, change) = (format!("/templates/{second}"), json!({"name": "welcome"}));
        let told = request(stage, &tenant, Method::PATCH, &path, &change);
        let meanwhile = async {
            let mut admin = stage.database.admin().await;
            while sqlx::query_scalar::<_, i64>(WAITING).fetch_one(&mut admin).await.unwrap() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            first.commit().await.unwrap();
        };
        let (told, ()) = tokio::join!(told, meanwhile);
        assert_eq!(told.problem(), (409, "exists", vec!["name"]));
    })
    .await;
}

/// Who waits for a lock.
const WAITING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

#[tokio::test]
async fn what_is_to_be_made_at_a_provider_is_written_down_with_its_job() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let new = |more: Value| {
            let mut new = json!({"channel_account_id": account.id, "name": "parcel", "language": "en_US", "category": "UTILITY",
                "body": "Hi {{1}}, it is on its way.", "examples": {"1": "Ada"}});
            new.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            new
        };
        for (more, field) in [
            (json!({"name": "Parcel"}), "name"),
            (json!({"category": "greeting"}), "category"),
            (json!({"body": "{{1}} is on its way."}), "body"),
            (json!({"examples": {}}), "examples.1"),
            (json!({"components": []}), "components"),
            (json!({"files": [uuid::Uuid::now_v7()]}), "files"),
        ] {
            let refused = stage.post(&tenant, "/templates", &new(more.clone())).await;
            assert_eq!(refused.problem(), (422, "invalid", vec![field]), "{more}");
        }
        let made = stage.post(&tenant, "/templates", &new(json!({}))).await;
        assert_eq!((made.status.as_u16(), &made.body["status"]), (202, &json!("QUEUED")), "{}", made.body);
        assert_eq!(stage.post(&tenant, "/templates", &new(json!({}))).await.problem(), (409, "exists", vec!["name"]));
        let path = format!("/templates/{}", made.body["id"].as_str().unwrap());
        let early = request(stage, &tenant, Method::DELETE, &path, &Value::Null).await;
        assert_eq!(early.problem().1, "wrong_state", "it is being made");
        let fixed = request(stage, &tenant, Method::PATCH, &path, &json!({"body": "x"})).await;
        assert_eq!(fixed.problem().1, "wrong_state", "a provider's is not changed from here");

        let synced = stage.post(&tenant, "/templates/sync", &json!({})).await;
        assert_eq!((synced.status.as_u16(), &synced.body["channel_account_ids"]), (202, &json!([account.id])));
        let again = stage.post(&tenant, "/templates/sync", &json!({"channel_account_id": account.id})).await;
        assert_eq!(again.status, 202);
        let stranger = stage.post(&tenant, "/templates/sync", &json!({"channel_account_id": uuid::Uuid::now_v7()})).await;
        assert_eq!(stranger.problem(), (404, "not_found", vec!["channel_account_id"]));
        let jobs = stage.drain(&MEDIA).await;
        let tasks: Vec<Task> = jobs.iter().map(|job| MediaJob::from_job(job).unwrap().task).collect();
        let id = made.id();
        assert_eq!(
            tasks,
            [Task::MakeTemplate { template_id: id }, Task::Templates { channel_account_id: account.id }],
            "who asks again is answered by the first"
        );
    })
    .await;
}

#[tokio::test]
async fn templates_are_listed_page_by_page_to_who_may_see_them() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let known = [
            template("reminder", "en_US", "APPROVED"),
            template("reminder", "de", "PAUSED"),
            template("offer", "de", "APPROVED"),
        ];
        fetched(stage, &tenant, &account, &known).await;
        own(stage, &tenant, "hello", "de", "Hallo").await;
        let names = async |query: &str| {
            let page = stage.get(&tenant, &format!("/templates{query}")).await.body;
            let mut names: Vec<String> = page["data"]
                .as_array()
                .unwrap_or_else(|| panic!("{page}"))
                .iter()
                .map(|t| format!("{} {}", t["name"].as_str().unwrap(), t["language"].as_str().unwrap()))
                .collect();
            names.sort();
            names
        };
        for (query, expected) in [
            ("?kind=local", vec!["hello de"]),
            ("?status=APPROVED", vec!["offer de", "reminder en_US"]),
            ("?language=de&kind=provider", vec!["offer de", "reminder de"]),
            ("?category=greeting", vec!["hello de"]),
            ("?name=reminder&language=en_US", vec!["reminder en_US"]),
            ("?name=nothing", vec![]),
        ] {
            assert_eq!(names(query).await, expected, "{query}");
        }
        let of_account = format!("?channel_account_id={}", account.id);
        assert_eq!(names(&of_account).await.len(), 3);
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = stage.get(&tenant, &format!("/templates?limit=1{cursor}")).await.body;
            seen.extend(page["data"].as_array().unwrap().iter().map(|t| t["id"].clone()));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        seen.dedup();
        assert_eq!(seen.len(), 4, "each once");
        assert_eq!(stage.get(&tenant, "/templates?kind=other").await.problem(), (400, "bad_parameter", vec!["kind"]));

        let other = stage.tenant("other").await;
        assert_eq!(stage.get(&other, "/templates").await.body["data"], json!([]));
        let may_not = Tenant { token: stage.token(tenant.id, &[], None).await, ..tenant };
        assert_eq!(stage.get(&may_not, "/templates").await.problem().0, 403);
    })
    .await;
}
