//! Messages that cannot be sent, on every channel: each is refused before anything is stored, by the field at fault.

use super::{Stage, Tenant, answer, staged};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use shared::{
    db::{Placement, templates::sync},
    domain::{
        ids::{ChannelAccountId, ContactId, ConversationId, FileId},
        templates::{ButtonKind, ButtonNeed, HeaderNeed, Needs, TemplateInfo},
    },
};
use uuid::Uuid;

/// Somebody who wrote so long ago to an account of this provider.
struct Talk {
    account: ChannelAccountId,
    contact: ContactId,
    conversation: ConversationId,
}

impl Stage {
    async fn talk(
        &self,
        tenant: &Tenant,
        provider: &str,
        external_id: &str,
        alias: (&str, &str),
        ago: TimeDelta,
    ) -> Talk {
        let talk =
            Talk { account: ChannelAccountId::new(), contact: ContactId::new(), conversation: ConversationId::new() };
        let mut admin = self.database.admin().await;
        for statement in [
            "INSERT INTO channel_accounts (tenant_id, id, provider, name, external_id, sealed_secrets, secret_key_id)
            SELECT $1, $2, $5, $5, $6, '', 'test' WHERE ($3, $4, $7, $8, $9) IS NOT NULL",
            "INSERT INTO contacts (tenant_id, id) SELECT $1, $3 WHERE ($2, $4, $5, $6, $7, $8, $9) IS NOT NULL",
            "INSERT INTO contact_aliases (tenant_id, kind, value, contact_id) SELECT $1, $7, $8, $3 WHERE ($2, $4, $5, $6, $9) IS NOT NULL",
            "INSERT INTO conversations (tenant_id, id, contact_id, channel_account_id, state, origin, last_message_at, last_message_direction,
                last_inbound_at, window_expires_at)
            SELECT $1, $4, $3, $2, 'open', 'inbound', now(), 'in', now(), now() - make_interval(secs => $9) + interval '24 hours'
            WHERE ($5, $6, $7, $8) IS NOT NULL",
        ] {
            sqlx::query(statement)
                .bind(tenant.id)
                .bind(talk.account)
                .bind(talk.contact)
                .bind(talk.conversation)
                .bind(provider)
                .bind(external_id)
                .bind(alias.0)
                .bind(alias.1)
                .bind(ago.as_seconds_f64())
                .execute(&mut admin)
                .await
                .unwrap();
        }
        talk
    }

    async fn upload(&self, tenant: &Tenant, content_type: &str, bytes: Vec<u8>) -> String {
        let path = format!("/api/{}/files", tenant.slug);
        let request = self.request(Method::POST, &path).bearer_auth(&tenant.token);
        let uploaded = answer(request.header("Content-Type", content_type).body(bytes)).await;
        assert_eq!(uploaded.status, 201, "{}", uploaded.body);
        uploaded.body["id"].as_str().unwrap().to_owned()
    }
}

fn reply(id: &str, title: &str) -> Value {
    json!({"type": "reply", "id": id, "title": title})
}

fn buttons(buttons: &[Value]) -> Value {
    json!({"type": "buttons", "text": "Which?", "buttons": buttons})
}

fn list(sections: Value) -> Value {
    json!({"type": "list", "text": "Choose", "button": "See", "sections": sections})
}

fn text(words: &str) -> Value {
    json!({"type": "text", "text": words})
}

fn template(fields: Value) -> Value {
    let mut template = json!({"type": "template", "name": "reminder", "language": "en_US", "variables": ["Ada"]});
    for (field, value) in fields.as_object().unwrap() {
        template[field] = value.clone();
    }
    template
}

#[tokio::test]
async fn what_a_channel_cannot_carry_is_refused_by_its_field_and_nothing_is_stored() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let hour = TimeDelta::hours(1);
        let whatsapp = stage.talk(&tenant, "whatsapp", "330", ("whatsapp_id", "15557770142"), hour).await;
        let late = stage.talk(&tenant, "whatsapp", "331", ("whatsapp_id", "15557770143"), TimeDelta::days(3)).await;
        let messenger = stage.talk(&tenant, "messenger", "100", ("messenger_id", "24000000000000077"), hour).await;
        let instagram = stage.talk(&tenant, "instagram", "178", ("instagram_id", "980000000000066"), hour).await;
        let sms = stage.talk(&tenant, "twilio", "+15035550199", ("phone", "+15557770144"), hour).await;
        let by_twilio = stage.talk(&tenant, "twilio", "whatsapp:+15035550198", ("whatsapp_id", "15557770145"), hour).await;
        let unreachable = stage.talk(&tenant, "instagram", "179", ("phone", "+15557770146"), hour).await;
        let opted_out = stage.talk(&tenant, "whatsapp", "332", ("whatsapp_id", "15557770147"), hour).await;
        sqlx::query(
            "INSERT INTO suppressions (tenant_id, contact_id, channel, purpose, state, since, source)
            VALUES ($1, $2, 'whatsapp', 'all', 'opted_out', now(), 'by hand')",
        )
        .bind(tenant.id)
        .bind(opted_out.contact)
        .execute(&mut stage.database.admin().await)
        .await
        .unwrap();
        let known = |name: &str, status: &str, needs: Needs| TemplateInfo {
            name: name.into(),
            language: "en_US".into(),
            status: status.into(),
            category: "UTILITY".into(),
            body: "Hi {{1}}".into(),
            variables: 1,
            needs,
            provider_id: None,
            components: None,
            reason: None,
        };
        let plain = Needs { variables: 1, ..Needs::default() };
        let rich = Needs {
            header: Some(HeaderNeed::Image),
            buttons: vec![ButtonNeed { index: 0, kind: ButtonKind::Url, optional: false }],
            ..plain.clone()
        };
        let beyond = Needs { beyond_us: Some("its header is a gif".into()), ..plain.clone() };
        let all = [
            known("reminder", "APPROVED", plain.clone()),
            known("rich", "APPROVED", rich),
            known("paused", "PAUSED", plain),
            known("beyond", "APPROVED", beyond),
        ];
        let mut tx = stage.operator().fleet(&Placement::primary(), &[tenant.id]).await.unwrap();
        sync::replace(&mut tx, tenant.id, whatsapp.account, &all, chrono::Utc::now()).await.unwrap();
        sync::replace(&mut tx, tenant.id, late.account, &all, chrono::Utc::now()).await.unwrap();
        tx.commit().await.unwrap();
        let pdf = stage.upload(&tenant, "application/pdf", b"%PDF-1.7\n%".to_vec()).await;
        let png = stage.upload(&tenant, "image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec()).await;
        let mut large = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        large.resize(6 * 1024 * 1024, 0);
        let large = stage.upload(&tenant, "image/png", large).await;
        let link = |kind: &str| json!({"type": kind, "file": {"link": "https://files.shop.example/a"}});
        let of = |kind: &str, id: &str| json!({"type": kind, "file": {"id": id}});
        let a = |count: usize| "a".repeat(count);
        let quick = |count: usize| {
            let replies = vec![json!({"type": "text", "title": "a", "payload": "b"}); count];
            json!({"type": "text", "text": "Which?", "quick_replies": replies})
        };
        let place = |latitude: f64| json!({"type": "location", "latitude": latitude, "longitude": 2.1});
        let card = |fields: Value| json!({"type": "contacts", "contacts": [{"name": fields}]});
        let sections = |count: usize| vec![json!({"rows": [{"id": "1", "title": "a"}]}); count];
        let rows: Vec<Value> = (0..11).map(|n| json!({"id": n.to_string(), "title": "a"})).collect();

        let cases: Vec<(&Talk, Value, &str, &[&str])> = vec![
            // Of the body itself.
            (&whatsapp, json!({}), "invalid", &["type"]),
            (&whatsapp, json!({"type": "hologram"}), "invalid", &["type"]),
            (&whatsapp, json!({"type": "text"}), "invalid", &["text"]),
            (&whatsapp, json!({"type": "text", "text": "x", "colour": "red"}), "invalid", &["colour"]),
            (&whatsapp, json!({"type": "text", "text": "x", "reply_to": "x"}), "invalid", &["reply_to"]),
            (&whatsapp, json!({"type": "text", "text": "x", "reply_to": Uuid::now_v7()}), "invalid", &["reply_to"]),
            (&whatsapp, json!({"type": "text", "text": "x", "expires_in_seconds": 0}), "invalid", &["expires_in_seconds"]),
            (&whatsapp, json!({"type": "reaction", "message_id": Uuid::now_v7(), "emoji": "👍"}), "invalid", &["message_id"]),
            // WhatsApp.
            (&whatsapp, text(""), "invalid", &["text"]),
            (&whatsapp, text(&a(4097)), "invalid", &["text"]),
            (&whatsapp, quick(1), "invalid", &["quick_replies"]),
            (&whatsapp, of("image", &pdf), "invalid", &["file.id"]),
            (&whatsapp, of("image", &large), "invalid", &["file.id"]),
            (&whatsapp, of("image", &FileId::new().to_string()), "invalid", &["file.id"]),
            (&whatsapp, json!({"type": "image", "file": {}}), "invalid", &["file"]),
            (&whatsapp, json!({"type": "image", "file": {"link": "http://files.shop.example/a"}}), "invalid", &["file.link"]),
            (&whatsapp, json!({"type": "image", "file": {"id": png}, "caption": a(1025)}), "invalid", &["caption"]),
            (&whatsapp, of("sticker", &png), "invalid", &["file.id"]),
            (&whatsapp, of("audio", &png), "invalid", &["file.id"]),
            (&whatsapp, place(91.0), "invalid", &["latitude"]),
            (&whatsapp, card(json!({"formatted_name": "Support"})), "invalid", &["contacts[0].name"]),
            (&whatsapp, json!({"type": "contacts", "contacts": []}), "invalid", &["contacts"]),
            (&whatsapp, buttons(&[]), "invalid", &["buttons"]),
            (&whatsapp, buttons(&[reply("1", "a"), reply("2", "b"), reply("3", "c"), reply("4", "d")]), "invalid", &["buttons"]),
            (&whatsapp, buttons(&[reply("1", &a(21))]), "invalid", &["buttons[0].title"]),
            (&whatsapp, buttons(&[reply("1", "a"), reply("1", "b")]), "invalid", &["buttons[1].id"]),
            (&whatsapp, buttons(&[json!({"type": "call", "title": "Call", "phone": "+15557770101"})]), "invalid", &["buttons[0].type"]),
            (
                &whatsapp,
                buttons(&[json!({"type": "url", "title": "Go", "url": "https://shop.example"}), reply("1", "a")]),
                "invalid",
                &["buttons[0]"],
            ),
            (&whatsapp, list(json!(sections(2))), "invalid", &["sections[0].title", "sections[1].title", "sections[1].rows[0].id"]),
            (&whatsapp, list(json!([{"rows": rows}])), "invalid", &["sections"]),
            (&whatsapp, list(json!([{"rows": [{"id": "1", "title": a(25)}]}])), "invalid", &["sections[0].rows[0].title"]),
            (&whatsapp, json!({"type": "album", "files": [{"id": png}, {"id": png}]}), "invalid", &["type"]),
            (&whatsapp, json!({"type": "cards", "cards": [{"title": "a"}]}), "invalid", &["type"]),
            (&whatsapp, json!({"type": "heart"}), "invalid", &["type"]),
            // Templates.
            (&whatsapp, template(json!({"name": "Reminder"})), "invalid", &["name"]),
            (&whatsapp, template(json!({"name": "unknown"})), "template_unusable", &["name"]),
            (&whatsapp, template(json!({"language": "de"})), "template_unusable", &["language"]),
            (&whatsapp, template(json!({"name": "paused"})), "template_unusable", &["name"]),
            (&whatsapp, template(json!({"name": "beyond"})), "template_unusable", &["name"]),
            (&whatsapp, template(json!({"variables": []})), "invalid", &["variables[0]"]),
            (&whatsapp, template(json!({"variables": ["a", "b"]})), "invalid", &["variables[1]"]),
            (&whatsapp, template(json!({"variables": ["a\nb"]})), "invalid", &["variables[0]"]),
            (&whatsapp, template(json!({"name": "rich"})), "invalid", &["header", "buttons"]),
            (
                &whatsapp,
                template(json!({"name": "rich", "header": {"type": "text", "text": "x"}, "buttons": [{"type": "url", "index": 0, "text": "7"}]})),
                "invalid",
                &["header"],
            ),
            // The window, consent, and who cannot be reached.
            (&late, text("Hello"), "needs_template", &["type"]),
            (&late, of("image", &png), "needs_template", &["type"]),
            (&opted_out, text("Hello"), "opted_out", &["contact_id"]),
            (&unreachable, text("Hello"), "invalid", &["contact_id"]),
            // Messenger.
            (&messenger, text(&a(2001)), "invalid", &["text"]),
            (&messenger, quick(14), "invalid", &["quick_replies"]),
            (&messenger, json!({"type": "image", "file": {"id": png}, "caption": "x"}), "invalid", &["caption"]),
            (&messenger, list(json!(sections(1))), "invalid", &["type"]),
            (&messenger, link("sticker"), "invalid", &["type"]),
            (&messenger, json!({"type": "cards", "cards": vec![json!({"title": "a", "subtitle": "b"}); 11]}), "invalid", &["cards"]),
            (&messenger, json!({"type": "cards", "cards": [{"title": a(81), "subtitle": "b"}]}), "invalid", &["cards[0].title"]),
            (&messenger, place(41.0), "invalid", &["type"]),
            // Instagram.
            (&instagram, text(&"é".repeat(501)), "invalid", &["text"]),
            (&instagram, of("document", &png), "invalid", &["file.id"]),
            (&instagram, json!({"type": "album", "files": vec![json!({"id": png}); 11]}), "invalid", &["files"]),
            (&instagram, template(json!({})), "invalid", &["type"]),
            (&instagram, buttons(&[json!({"type": "call", "title": "Call", "phone": "+15557770101"})]), "invalid", &["buttons[0].type"]),
            // Twilio.
            (&sms, text(&a(1601)), "invalid", &["text"]),
            (&sms, buttons(&[reply("1", "a")]), "invalid", &["type"]),
            (&sms, place(41.0), "invalid", &["type"]),
            (&sms, json!({"type": "album", "files": vec![json!({"id": png}); 11]}), "invalid", &["files"]),
            (&sms, template(json!({})), "invalid", &["name"]),
            (&by_twilio, json!({"type": "document", "file": {"id": pdf}, "caption": "x"}), "invalid", &["caption"]),
            (&by_twilio, json!({"type": "album", "files": [{"id": png}]}), "invalid", &["type"]),
        ];
        assert!(cases.len() >= 60, "{}", cases.len());
        for (talk, body, kind, fields) in cases {
            let refused = stage.post(&tenant, &format!("/conversations/{}/messages", talk.conversation), &body).await;
            let shown: String = body.to_string().chars().take(150).collect();
            assert_eq!(refused.status, 422, "{shown}: {}", refused.body);
            assert_eq!(refused.problem(), (422, kind, fields.to_vec()), "{shown}: {}", refused.body);
            for error in refused.body["errors"].as_array().unwrap() {
                assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{shown}: {error}");
            }
        }
        let named = stage.post(&tenant, &format!("/conversations/{}/messages", late.conversation), &text("Hello")).await;
        let detail = named.body["detail"].as_str().unwrap();
        assert!(detail.ends_with("These can be sent: reminder, rich."), "{detail}");
        assert_eq!(stage.count("SELECT count(*) FROM messages").await, 0, "nothing is stored of what is refused");
    })
    .await;
}
