//! Lists: page by page, nothing twice and nothing left out, filtered.

use super::{Stage, Tenant, phone, staged, text, until};
use chrono::TimeDelta;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Every id of a list, page by page.
async fn all(stage: &Stage, tenant: &Tenant, path: &str, limit: usize) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let joint = if path.contains('?') { '&' } else { '?' };
        let page = stage.get(tenant, &format!("{path}{joint}limit={limit}{cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let rows = page.body["data"].as_array().unwrap();
        assert!(rows.len() <= limit);
        ids.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        match page.body["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

#[tokio::test]
async fn contacts_are_listed_page_by_page_the_newest_first() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let mut made = Vec::new();
        for _ in 0..7 {
            made.push(stage.contact(&tenant, &phone()).await.to_string());
        }
        made.reverse();
        for limit in [1, 3, 7, 8] {
            assert_eq!(all(stage, &tenant, "/contacts", limit).await, made, "{limit}");
        }
        let shown = stage.get(&tenant, &format!("/contacts/{}", made[0])).await;
        assert_eq!(shown.body["aliases"][0]["kind"], "phone");
    })
    .await;
}

#[tokio::test]
async fn contacts_are_found_by_number_and_by_how_their_name_begins() {
    staged(async |stage| {
        let (tenant, other) = (stage.tenant("demo").await, stage.tenant("other").await);
        let mut made = Vec::new();
        for name in ["Ada Lovelace", "ada byron", "ÄDA", "Adam", "Bob", "Ada Lovelace"] {
            let contact = stage.post(&tenant, "/contacts", &json!({"name": name, "phone": phone()})).await;
            made.push((
                contact.body["id"].as_str().unwrap().to_owned(),
                contact.body["phone"].as_str().unwrap().to_owned(),
            ));
        }
        stage.contact(&other, &made[0].1).await;
        let ids = |at: &[usize]| at.iter().map(|at| made[*at].0.clone()).collect::<Vec<_>>();
        for limit in [1, 2, 50] {
            let by_name = all(stage, &tenant, "/contacts?name=ADA", limit).await;
            assert_eq!(by_name, ids(&[1, 0, 5, 3]), "by name, whatever the case: {limit}");
        }
        assert_eq!(all(stage, &tenant, "/contacts?name=ada%20l", 50).await, ids(&[0, 5]));
        assert_eq!(all(stage, &tenant, "/contacts?name=%C3%A4", 50).await, ids(&[2]));
        assert!(all(stage, &tenant, "/contacts?name=lovelace", 50).await.is_empty(), "from the beginning");
        assert!(all(stage, &tenant, "/contacts?name=%25", 50).await.is_empty(), "nothing stands for anything");

        let digits = made[4].1.trim_start_matches('+');
        let national = digits.replacen("49", "0", 1);
        for phone in [format!("%2B{digits}"), format!("+{digits}"), format!("+49%20({})", &digits[2..]), national] {
            assert_eq!(all(stage, &tenant, &format!("/contacts?phone={phone}"), 1).await, ids(&[4]), "{phone}");
        }
        assert!(all(stage, &other, &format!("/contacts?phone=%2B{digits}"), 1).await.is_empty(), "another tenant's");
        // Who has only written is known by the provider's name for them.
        sqlx::query("UPDATE contact_aliases SET kind = 'whatsapp_id', value = $1 WHERE value = '+' || $1")
            .bind(digits)
            .execute(&mut stage.database.admin().await)
            .await
            .unwrap();
        assert_eq!(all(stage, &tenant, &format!("/contacts?phone=%2B{digits}"), 1).await, ids(&[4]));

        for (wish, field) in [
            ("phone=12", "phone"),
            ("name=", "name"),
            ("name=a%00", "name"),
            ("phone=%2B4915123456789&name=a", "phone"),
        ] {
            let refused = stage.get(&tenant, &format!("/contacts?{wish}")).await;
            assert_eq!(refused.problem(), (400, "bad_parameter", vec![field]), "{wish}");
        }
    })
    .await;
}

/// Under row-level security an index is used only for what cannot tell another tenant's rows apart.
#[tokio::test]
async fn looking_for_a_name_reads_no_more_than_the_page() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let mut admin = stage.database.admin().await;
        sqlx::query(
            "INSERT INTO contacts (tenant_id, id, name)
            SELECT $1, gen_random_uuid(), CASE WHEN n <= 2500 THEN 'Ada ' || n ELSE 'Zoe' END FROM generate_series(1, 5000) AS n",
        )
        .bind(tenant.id)
        .execute(&mut admin)
        .await
        .unwrap();
        sqlx::raw_sql("VACUUM ANALYZE contacts").execute(&mut admin).await.unwrap();
        let read = "SELECT coalesce(idx_tup_read / nullif(idx_scan, 0), 0)::bigint FROM pg_stat_user_indexes WHERE indexrelname = 'contacts_by_name'";
        let mut cursor = String::new();
        // What a session has read is told some time after it has.
        until("the index is used", async || {
            let page = stage.get(&tenant, &format!("/contacts?name=zoe&limit=10{cursor}")).await.body;
            assert_eq!(page["data"].as_array().unwrap().len(), 10);
            cursor = page["next"].as_str().map(|next| format!("&cursor={next}")).unwrap_or_default();
            stage.count(read).await > 0
        })
        .await;
        let rows = stage.count(read).await;
        assert!((1..50).contains(&rows), "{rows} rows for a page of 10");
    })
    .await;
}

#[tokio::test]
async fn a_number_is_one_contact_and_the_second_is_told_which() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let first = stage.contact(&tenant, "0151 23456789").await;
        let refused = stage.post(&tenant, "/contacts", &json!({"phone": "+49 (151) 23456789"})).await;
        assert_eq!(refused.problem(), (409, "exists", vec!["phone"]));
        assert_eq!(refused.body["existing_id"], first.to_string());
    })
    .await;
}

#[tokio::test]
async fn the_inbox_is_listed_by_last_message_and_filtered() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let (one, other) = (stage.account(&tenant).await, stage.account(&tenant).await);
        let mut made = Vec::new();
        for minutes in 0..5 {
            let account = if minutes % 2 == 0 { &one } else { &other };
            made.push(stage.conversation(&tenant, account, TimeDelta::minutes(minutes)).await.to_string());
        }
        for limit in [1, 2, 5] {
            assert_eq!(all(stage, &tenant, "/conversations", limit).await, made, "{limit}");
        }
        let of_other = all(stage, &tenant, &format!("/conversations?channel_account_id={}", other.id), 1).await;
        assert_eq!(of_other, [made[1].clone(), made[3].clone()]);
        assert_eq!(all(stage, &tenant, "/conversations?unread=true&state=new", 2).await.len(), 5);
        assert!(all(stage, &tenant, "/conversations?unread=false", 2).await.is_empty());

        let sent = stage.post(&tenant, &format!("/conversations/{}/messages", made[4]), &text("Good morning")).await;
        assert_eq!(sent.status, 202);
        let open = stage.get(&tenant, "/conversations?state=open").await;
        let shown = &open.body["data"][0];
        assert_eq!((shown["id"].as_str(), shown["window_open"].as_bool()), (Some(made[4].as_str()), Some(true)));
        assert_eq!(shown["last_message"]["text"], "Good morning");
        assert_eq!(all(stage, &tenant, "/conversations", 2).await[0], made[4], "it has moved to the top");
    })
    .await;
}

#[tokio::test]
async fn messages_are_listed_with_their_sends_and_shown_with_their_history() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        let conversation = stage.conversation(&tenant, &account, TimeDelta::hours(1)).await;
        let path = format!("/conversations/{conversation}/messages");
        let mut sent = Vec::new();
        for number in 0..5 {
            let accepted = stage.post(&tenant, &path, &text(&format!("number {number}"))).await;
            assert_eq!(accepted.status, 202, "{}", accepted.body);
            sent.push(accepted.body["id"].as_str().unwrap().to_owned());
        }
        sent.reverse();
        assert_eq!(all(stage, &tenant, &path, 2).await, sent);
        let unique: BTreeSet<&String> = sent.iter().collect();
        assert_eq!(unique.len(), 5);
        let shown = stage.get(&tenant, &format!("/messages/{}", sent[0])).await.body;
        assert_eq!(shown["text"], "number 4");
        // Only the first has a job; the others wait for their turn, and say so wherever they are shown.
        let first = stage.get(&tenant, &format!("/messages/{}", sent[4])).await.body;
        assert_eq!((&first["send"]["state"], &first["send"]["wait_reason"]), (&json!("queued"), &Value::Null));
        let listed = stage.get(&tenant, &path).await.body["data"][0]["send"].clone();
        for send in [&shown["send"], &listed] {
            assert_eq!((&send["state"], &send["wait_reason"]), (&json!("waiting"), &json!("turn")));
        }
        assert_eq!((&shown["attempts"], &shown["trail"]), (&json!([]), &json!([])));
        assert_eq!(shown["content"]["type"], Value::from("text"));
    })
    .await;
}

#[tokio::test]
async fn a_contact_is_shown_with_what_they_do_not_want() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let contact = stage.contact(&tenant, &phone()).await;
        let path = format!("/contacts/{contact}");
        assert_eq!(stage.get(&tenant, &path).await.body["suppressions"], json!([]));
        for (channel, purpose, state) in
            [("whatsapp", "marketing", "opted_out"), ("sms", "all", "opted_out"), ("sms", "all", "opted_in")]
        {
            let put = format!("/api/{}{path}/suppressions", tenant.slug);
            let request = stage.request(reqwest::Method::PUT, &put).bearer_auth(&tenant.token);
            let wish = json!({"channel": channel, "purpose": purpose, "state": state});
            assert_eq!(super::answer(request.json(&wish)).await.status, 200);
        }
        let shown = stage.get(&tenant, &path).await.body["suppressions"].clone();
        assert_eq!(shown, stage.get(&tenant, &format!("{path}/suppressions")).await.body["data"]);
        let said: Vec<_> =
            shown.as_array().unwrap().iter().map(|s| (&s["channel"], &s["state"], &s["source"])).collect();
        let by_hand = json!("by hand");
        assert_eq!(
            said,
            [(&json!("sms"), &json!("opted_in"), &by_hand), (&json!("whatsapp"), &json!("opted_out"), &by_hand)]
        );
        assert!(shown[0]["since"].is_string() && shown[0]["token_id"].is_string(), "{shown}");
        let listed = stage.get(&tenant, "/contacts").await.body["data"][0].clone();
        assert!(listed.get("suppressions").is_none(), "{listed}");
    })
    .await;
}
