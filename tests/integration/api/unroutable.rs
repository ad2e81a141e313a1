//! Webhooks for accounts that nobody had, as an operator lists them: for whom each is, why it lies there, and what to do.

use super::{Stage, mijra, mijra_output, staged};
use chrono::Utc;
use serde_json::{Value, json};
use shared::domain::ids::{ChannelAccountId, TenantId, WebhookId};

/// A webhook of a message to a WhatsApp number.
fn body(number: &str) -> String {
    json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"field": "messages", "value": {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550002", "phone_number_id": number},
        "contacts": [{"profile": {"name": "Ada"}, "wa_id": "4915123456789"}],
        "messages": [{"from": "4915123456789", "id": "wamid.1", "timestamp": "1795000000", "type": "text", "text": {"body": "Hello?"}}],
    }}]}]})
    .to_string()
}

/// Keeps one: for a number and others, signed by the platform, by a tenant's account, or by nobody knows whom.
async fn keep(stage: &Stage, number: &str, others: &[&str], signer: Option<Option<TenantId>>, body: &str) -> WebhookId {
    let id = WebhookId::new();
    let meta = signer.map(|tenant| {
        let mut meta = json!({"id": id, "provider": "whatsapp", "received_at": Utc::now()});
        if let Some(tenant_id) = tenant {
            meta["account"] = json!({"tenant_id": tenant_id, "channel_account_id": ChannelAccountId::new()});
        }
        meta
    });
    sqlx::query(
        "INSERT INTO control.unroutable (webhook_id, provider, external_id, other_ids, others, received_at, meta, body_lz4)
        VALUES ($1, 'whatsapp', $2, $3, $4, now(), $5, $6)",
    )
    .bind(id)
    .bind(number)
    .bind(json!(others))
    // Of many only the first are kept.
    .bind(i32::try_from(others.len()).unwrap() * 2)
    .bind(meta)
    .bind(lz4_flex::compress_prepend_size(body.as_bytes()))
    .execute(&mut stage.database.admin().await)
    .await
    .unwrap();
    id
}

#[tokio::test]
async fn each_is_listed_with_whom_nobody_had_why_it_lies_there_and_what_to_do() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let account = stage.account(&tenant).await;
        sqlx::query(
            "INSERT INTO control.channel_routes (provider, kind, external_id, tenant_id, channel_account_id)
            VALUES ('whatsapp', 'phone_number_id', '222', $1, $2)",
        )
        .bind(tenant.id)
        .bind(account.id)
        .execute(&mut stage.database.admin().await)
        .await
        .unwrap();
        let signer = TenantId::new();
        let signed_by = signer.to_string();
        let mut expected = Vec::new();
        for (number, others, by, body, why, advice) in [
            ("111", &["112"][..], Some(None), body("111"), "nobody_has_it", "mijra channel-account add whatsapp"),
            ("222", &[], Some(None), body("222"), "somebody_has_it", "mijra webhooks unroutable replay"),
            ("222", &[], Some(Some(signer)), body("222"), "not_the_signers", &*signed_by),
            ("111", &[], None, body("111"), "signer_unknown", "can only be looked at"),
            ("", &[], Some(None), "{}".to_owned(), "unreadable", "once a release reads it"),
        ] {
            expected.push((keep(stage, number, others, by, &body).await, number, why, advice));
        }
        let (content, rows) = mijra(stage, &["webhooks", "unroutable", "list"], &[]).await;
        assert!(content && rows.as_array().map(Vec::len) == Some(expected.len()), "{rows}");
        for (row, (id, number, why, advice)) in rows.as_array().unwrap().iter().zip(&expected) {
            let of = |name: &str| row[name].as_str().unwrap();
            assert_eq!((of("id"), of("provider"), of("external_id")), (&*id.to_string(), "whatsapp", *number), "{row}");
            assert_eq!(of("why"), *why, "{row}");
            assert!(of("what_to_do").contains(advice), "{row}");
            let (content, shown) = mijra(stage, &["webhooks", "unroutable", "show", &id.to_string()], &[]).await;
            assert_eq!((content, &shown["why"], &shown["what_to_do"]), (true, &row["why"], &row["what_to_do"]));
        }
        let table = mijra_output(stage, &["webhooks", "unroutable", "list"], &[]).await;
        let table = String::from_utf8(table.stdout).unwrap();
        let line =
            table.lines().find(|line| line.contains(&expected[0].0.to_string())).unwrap_or_else(|| panic!("{table}"));
        assert!(
            line.contains("whatsapp") && line.contains("111, 112, 1 more") && line.contains("nobody has it"),
            "{line}"
        );
        let sentences = table.lines().filter(|line| line.starts_with("nobody has it: ")).count();
        assert_eq!(sentences, 1, "said once: {table}");

        let stranger = WebhookId::new().to_string();
        let (content, said) = mijra(stage, &["webhooks", "unroutable", "replay", &stranger], &[]).await;
        assert!(!content && matches!(&said, Value::String(said) if said.contains(&stranger)), "{said}");
    })
    .await;
}
