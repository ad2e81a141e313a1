//! Templates: what is known of them is checked before a message is accepted.

use super::staged;
use chrono::{TimeDelta, Utc};
use serde_json::json;
use shared::db::{Placement, templates};

fn template(name: &str, language: &str, status: &str) -> templates::Template {
    templates::Template {
        name: name.into(),
        language: language.into(),
        status: status.into(),
        category: "UTILITY".into(),
        body: "Hi {{1}}, see you on {{2}}.".into(),
        variables: 2,
        needs: None,
    }
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

        let operator = stage.operator();
        let known = [template("reminder", "en_US", "APPROVED"), template("reminder", "de", "PAUSED")];
        let mut tx = operator.fleet(&Placement::primary(), &[tenant.id]).await.unwrap();
        templates::replace(&mut tx, tenant.id, account.id, &known, Utc::now()).await.unwrap();
        tx.commit().await.unwrap();

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
    })
    .await;
}
