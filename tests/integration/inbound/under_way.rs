//! What comes while people are merged or erased, or again, or late.

use super::{CONVERSATION, Stage, ada, echo, message, orders, person, said, second, status};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use shared::{
    db::{
        audit::Actor,
        conversations, erasing, merging, messages,
        retention::{self, Removed},
        suppressions,
    },
    domain::{
        channel::{Channel, Provider},
        consent::{Consent, Purpose},
        events::{ConsentChange, Event},
        ids::{ContactId, ConversationId},
        messages::MessageKind,
        people::{Alias, AliasKind, Person},
        sends::SendState,
    },
};

fn bob() -> Person {
    person(AliasKind::WhatsappId, "15557770999")
}

impl Stage {
    /// Until somebody waits for a lock in this database.
    async fn somebody_waits(&self) {
        while !self.is_waited_for().await {
            tokio::task::yield_now().await;
        }
    }

    /// Whether somebody waits for a lock in this database.
    pub(super) async fn is_waited_for(&self) -> bool {
        let mut admin = self.database.admin().await;
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&mut admin)
        .await
        .unwrap();
        waiting > 0
    }

    pub(super) async fn two(&mut self) -> (ContactId, ContactId) {
        self.tell(vec![said(&ada(), "wamid.1", "Hello", second(1)), said(&bob(), "wamid.2", "Hello", second(2))]).await;
        (self.contact(&ada()).await.unwrap(), self.contact(&bob()).await.unwrap())
    }

    /// Whether that changed anything, and since when it holds.
    async fn by_hand(&self, id: ContactId, consent: Consent) -> (bool, DateTime<Utc>) {
        let mut tx = self.request().await;
        let (channel, purpose) = (Channel::Whatsapp, Purpose::Marketing);
        let set = suppressions::set_by_hand(&mut tx, id, channel, purpose, consent, Actor::Operator).await.unwrap();
        let since = suppressions::list(&mut tx, id).await.unwrap()[0].since;
        tx.commit().await.unwrap();
        (set, since)
    }

    pub(super) async fn wish_of(&mut self, contact: ContactId) -> Option<String> {
        sqlx::query_scalar("SELECT state FROM suppressions WHERE contact_id = $1 AND purpose = 'marketing'")
            .bind(contact)
            .fetch_optional(&mut self.admin)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_word_under_way_during_a_merge_binds_who_stays() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let (winner, loser) = stage.two().await;
    let campaign = stage.campaign().await;
    stage.release().await;
    let mut tx = stage.request().await;
    merging::merge(&mut tx, winner, loser, Actor::Operator).await.unwrap();
    let stop = [stage.webhook(vec![said(&bob(), "wamid.stop", "STOP", Utc::now())])];
    let told = stage.apply(&stop);
    let merged = async {
        stage.somebody_waits().await;
        tx.commit().await.unwrap();
    };
    tokio::join!(told, merged);
    assert_eq!(stage.wish_of(winner).await.as_deref(), Some("opted_out"));
    assert_eq!(stage.count("SELECT count(*) FROM sends WHERE state IN ('waiting', 'queued')").await, 0);
    stage.expect_books_to_agree(campaign).await;
    // What is said later holds, however often it is looked again at who was merged.
    stage.tell(vec![said(&bob(), "wamid.start", "START", Utc::now() + TimeDelta::seconds(2))]).await;
    stage.look_again().await;
    assert_eq!(stage.wish_of(winner).await.as_deref(), Some("opted_in"));
    // By hand, too, it is who stayed.
    let mut tx = stage.request().await;
    let (channel, purpose) = (Channel::Whatsapp, Purpose::All);
    suppressions::set_by_hand(&mut tx, loser, channel, purpose, Consent::OptedOut, Actor::Operator).await.unwrap();
    tx.commit().await.unwrap();
    let all = "SELECT to_jsonb(contact_id) FROM suppressions WHERE purpose = 'all'";
    assert_eq!(stage.row(all).await, json!(winner));
}

#[tokio::test]
async fn a_name_under_way_during_an_erasure_comes_to_nothing() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    stage.tell(vec![said(&ada(), "wamid.1", "Hello", second(1))]).await;
    let id = stage.contact(&ada()).await.unwrap();
    let mut tx = stage.request().await;
    erasing::erase(&mut tx, id, Actor::Operator).await.unwrap();
    let mut more = ada();
    more.name = Some("Ada Lovelace".into());
    more.aliases.push(Alias { kind: AliasKind::WhatsappBsuid, value: "US.1".into() });
    let late = [stage.webhook(vec![said(&more, "wamid.2", "my secret", second(2))])];
    let told = stage.apply(&late);
    let erased = async {
        stage.somebody_waits().await;
        tx.commit().await.unwrap();
    };
    tokio::join!(told, erased);
    assert_eq!(stage.count("SELECT count(*) FROM contact_aliases").await, 0);
    assert_eq!(stage.count("SELECT count(*) FROM contacts WHERE name IS NOT NULL OR erased_at IS NULL").await, 0);
    assert_eq!(stage.count("SELECT count(*) FROM messages WHERE text IS NOT NULL").await, 0);
}

#[tokio::test]
async fn everybody_who_is_gone_is_looked_through_however_long_ago_that_was() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    sqlx::query(
        "INSERT INTO contacts (tenant_id, id, name, erased_at, gone_at, settle_at)
        SELECT $1, gen_random_uuid(), 'somebody', gone_at, gone_at, gone_at
        FROM (SELECT now() - interval '3 days' AS gone_at FROM generate_series(1, 120)) AS long_ago",
    )
    .bind(stage.tenant)
    .execute(&mut stage.admin)
    .await
    .unwrap();
    assert_eq!(stage.look_again().await, 120);
    assert_eq!(stage.count("SELECT count(*) FROM contacts WHERE name IS NOT NULL").await, 0);
    assert_eq!(stage.look_again().await, 0, "that is settled");
    // Somebody who has just gone is looked at for some minutes; their files have gone at once.
    stage.tell(vec![said(&ada(), "wamid.1", "Hello", second(1))]).await;
    let id = stage.contact(&ada()).await.unwrap();
    stage
        .execute(
            "WITH file AS (
                INSERT INTO media (tenant_id, id, message_id, position, channel_account_id, provider, channel, kind, at)
                SELECT m.tenant_id, gen_random_uuid(), m.id, 0, v.channel_account_id, 'whatsapp', 'whatsapp', 'image', m.at
                FROM messages m JOIN conversations v ON v.id = m.conversation_id
            )
            INSERT INTO contact_profiles (tenant_id, contact_id, channel_account_id, provider, provider_person_id, ask_again_at)
            SELECT tenant_id, contact_id, channel_account_id, 'whatsapp', '7001', now() FROM conversations",
        )
        .await;
    assert!(stage.erase(id).await);
    assert_eq!(stage.count("SELECT (SELECT count(*) FROM media) + (SELECT count(*) FROM contact_profiles)").await, 0);
    assert_eq!((stage.look_again().await, stage.look_again().await), (1, 1));
    stage.execute("UPDATE contacts SET gone_at = now() - interval '11 minutes' WHERE settle_at IS NOT NULL").await;
    assert_eq!((stage.look_again().await, stage.look_again().await), (1, 0));
}

#[tokio::test]
async fn who_had_opted_out_has_so_when_they_come_back() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    stage.tell(vec![said(&ada(), "wamid.stop", "STOP", second(1))]).await;
    let id = stage.contact(&ada()).await.unwrap();
    stage.erase(id).await;
    stage.tell(vec![said(&ada(), "wamid.new", "Hello, I am back", Utc::now() + TimeDelta::seconds(5))]).await;
    let back = stage.contact(&ada()).await.unwrap();
    assert_ne!(back, id);
    assert_eq!(stage.wish_of(back).await.as_deref(), Some("opted_out"));
    // Until they say otherwise; and then that is what is kept of them.
    stage.tell(vec![said(&ada(), "wamid.start", "START", Utc::now() + TimeDelta::seconds(6))]).await;
    stage.erase(back).await;
    stage.tell(vec![said(&ada(), "wamid.newer", "Hello, again", Utc::now() + TimeDelta::seconds(7))]).await;
    let back = stage.contact(&ada()).await.unwrap();
    assert_eq!(stage.wish_of(back).await, None);
}

#[tokio::test]
async fn edits_of_what_is_taken_back_are_gone_with_it() {
    for order in orders(3) {
        let mut stage = Stage::on(Provider::Instagram).await;
        let about = |kind, id: &str, text: Option<&str>, at| {
            let mut event = message(&ada(), id, kind, text, at);
            event.refers_to = Some("mid.1".into());
            Event::Message(Box::new(event))
        };
        let mut events = [
            Some(said(&ada(), "mid.1", "my secret", second(1))),
            Some(about(MessageKind::Edit, "mid.2", Some("my other secret"), second(2))),
            Some(about(MessageKind::Revoke, "mid.3", None, second(2))),
        ];
        for n in &order {
            stage.tell(vec![events[*n].take().unwrap()]).await;
        }
        let words = "SELECT count(*) FROM messages WHERE kind <> 'revoke' AND (text IS NOT NULL OR content <> '{}')";
        assert_eq!(stage.count(words).await, 0, "{order:?}");
        assert_eq!(stage.row(CONVERSATION).await["last"], json!(null), "{order:?}");
    }
}

#[tokio::test]
async fn a_trail_is_whole_whichever_comes_first() {
    for order in orders(4) {
        let mut stage = Stage::on(Provider::Whatsapp).await;
        let token = stage.send(&ada(), SendState::Sending, None).await;
        let began = second(0);
        for n in &order {
            let states = [SendState::Sent, SendState::Delivered, SendState::Read];
            match states.get(*n) {
                Some(state) => {
                    let at = began + TimeDelta::seconds(i64::try_from(*n).unwrap());
                    stage.tell(vec![status("wamid.ours", *state, None, at)]).await;
                }
                None => stage.accepted(token, "wamid.ours").await,
            }
        }
        let trail = stage.trail(token.message_id).await;
        let told: Vec<&str> =
            trail.iter().map(String::as_str).filter(|event| ["sent", "delivered", "read"].contains(event)).collect();
        assert_eq!(told, ["sent", "delivered", "read"], "{order:?}");
        let times = "SELECT jsonb_build_array(state, sent_at IS NOT NULL, delivered_at IS NOT NULL, read_at IS NOT NULL) FROM sends";
        assert_eq!(stage.row(times).await, json!(["read", true, true, true]), "{order:?}");
        assert_eq!(stage.count("SELECT count(*) FROM parked_reports").await, 0, "{order:?}");
    }
}

#[tokio::test]
async fn what_was_on_its_way_for_long_is_no_news() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let then = Utc::now() - TimeDelta::days(3);
    let hello = stage.received(vec![said(&ada(), "wamid.1", "Hello", then)], then, false);
    stage.apply(&[hello]).await;
    let shown = stage.row(CONVERSATION).await;
    assert_eq!((&shown["unread"], &shown["in"]), (&json!(0), &json!(1)));
}

#[tokio::test]
async fn a_word_that_comes_again_was_not_said_again() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    // Some providers tell no time of a message, and try again later.
    stage.tell(vec![said(&ada(), "SM1", "START", second(1))]).await;
    stage.tell(vec![said(&ada(), "SM2", "STOP", second(2))]).await;
    stage.tell(vec![said(&ada(), "SM1", "START", second(3))]).await;
    let ada = stage.contact(&ada()).await.unwrap();
    assert_eq!(stage.wish_of(ada).await.as_deref(), Some("opted_out"));
}

#[tokio::test]
async fn by_hand_it_is_as_of_then_and_a_word_of_that_second_holds() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    stage.tell(vec![said(&ada(), "wamid.1", "Hello", second(1))]).await;
    let id = stage.contact(&ada()).await.unwrap();
    let (set, since) = stage.by_hand(id, Consent::OptedIn).await;
    assert!(set && since.timestamp_subsec_nanos() == 0, "{since}");
    stage.tell(vec![said(&ada(), "wamid.stop", "STOP", since)]).await;
    assert_eq!(stage.wish_of(id).await.as_deref(), Some("opted_out"));
    let (set, later) = stage.by_hand(id, Consent::OptedOut).await;
    assert!(!set && later > since, "again it is no change, but as of now: {since} {later}");
    let proof: serde_json::Value = sqlx::query_scalar("SELECT details FROM audit WHERE action = 'contact.opted_out'")
        .fetch_one(&mut stage.admin)
        .await
        .unwrap();
    assert_eq!(proof["before_source"], "keyword", "{proof}");
    // By hand twice in a row, the second time in a later second: a word of that second still holds.
    sqlx::query("UPDATE suppressions SET since = since - interval '1 minute'").execute(&mut stage.admin).await.unwrap();
    let (set, since) = stage.by_hand(id, Consent::OptedIn).await;
    assert!(set && since.timestamp_subsec_nanos() == 0, "{since}");
    stage.tell(vec![said(&ada(), "wamid.again", "STOP", since)]).await;
    assert_eq!(stage.wish_of(id).await.as_deref(), Some("opted_out"));
}

#[tokio::test]
async fn who_was_merged_is_who_stayed_for_whoever_knows_the_old_ids() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let (winner, loser) = stage.two().await;
    let carol = person(AliasKind::WhatsappId, "15557770777");
    stage.tell(vec![said(&carol, "wamid.3", "Hello", second(3))]).await;
    let first = stage.contact(&carol).await.unwrap();
    let of = async |stage: &mut Stage, contact: ContactId| -> ConversationId {
        sqlx::query_scalar("SELECT id FROM conversations WHERE contact_id = $1 AND state <> 'resolved'")
            .bind(contact)
            .fetch_one(&mut stage.admin)
            .await
            .unwrap()
    };
    let (into, middle, shell) =
        (of(&mut stage, winner).await, of(&mut stage, loser).await, of(&mut stage, first).await);
    stage.merge(loser, first).await;
    stage.merge(winner, loser).await;
    // What a batch under way still adds to a shell goes where that went.
    sqlx::query("UPDATE messages SET conversation_id = CASE text WHEN 'Hello' THEN $1 ELSE conversation_id END")
        .bind(shell)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    stage.look_again().await;
    for id in [into, middle, shell] {
        let mut tx = stage.request().await;
        assert_eq!(conversations::lock(&mut tx, id).await.unwrap().map(|locked| locked.id), Some(into));
        assert_eq!(messages::list(&mut tx, id, None, 10).await.unwrap().len(), 3);
    }
    for id in [winner, loser, first] {
        let mut tx = stage.request().await;
        let found = conversations::find_or_create(&mut tx, id, stage.account).await.unwrap();
        assert_eq!(found, Some(into));
    }
}

#[tokio::test]
async fn who_folds_waits_for_who_settles() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let first = stage.send(&ada(), SendState::Sending, None).await;
    stage.send(&bob(), SendState::Queued, None).await;
    let (winner, loser) = (stage.contact(&ada()).await.unwrap(), stage.contact(&bob()).await.unwrap());
    let mut settling = stage.database.admin().await;
    sqlx::query("BEGIN").execute(&mut settling).await.unwrap();
    sqlx::query("SELECT FROM sends WHERE message_id = $1 FOR UPDATE")
        .bind(first.message_id)
        .execute(&mut settling)
        .await
        .unwrap();
    let settled = async {
        stage.somebody_waits().await;
        sqlx::query("COMMIT").execute(&mut settling).await.unwrap();
    };
    tokio::join!(stage.merge(winner, loser), settled);
    assert_eq!(stage.count("SELECT count(DISTINCT conversation_id) FROM sends").await, 1);
}

#[tokio::test]
async fn of_two_in_a_campaign_the_one_that_goes_somewhere_goes_on() {
    // Who stays was left out, for lack of a number, say: the other is who waits.
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let (winner, loser) = stage.two().await;
    let campaign = stage.campaign().await;
    sqlx::query(
        "WITH out AS (
            UPDATE campaign_recipients SET state = 'skipped', skip_reason = 'no_number' WHERE contact_id = $1
        )
        UPDATE campaign_counts SET waiting = waiting - 1, skipped = skipped + 1",
    )
    .bind(winner)
    .execute(&mut stage.admin)
    .await
    .unwrap();
    stage.merge(winner, loser).await;
    let waiting = "SELECT to_jsonb(contact_id) FROM campaign_recipients WHERE state = 'waiting'";
    assert_eq!(stage.row(waiting).await, json!(winner));
    stage.expect_books_to_agree(campaign).await;
    stage.release().await;
    assert_eq!(stage.count("SELECT count(*) FROM sends").await, 1);
    // Of two on their way the one that somebody has claimed goes.
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let (winner, loser) = stage.two().await;
    let campaign = stage.campaign().await;
    stage.release().await;
    sqlx::query(
        "UPDATE sends SET state = 'sending' WHERE message_id = (SELECT message_id FROM campaign_recipients WHERE contact_id = $1)",
    )
    .bind(loser)
    .execute(&mut stage.admin)
    .await
    .unwrap();
    stage.merge(winner, loser).await;
    let sends = stage.row("SELECT jsonb_agg(state ORDER BY state) FROM sends").await;
    assert_eq!(sends, json!(["cancelled", "sending"]));
    stage.expect_books_to_agree(campaign).await;
}

#[tokio::test]
async fn edits_of_what_never_came_are_gone_once_it_is_taken_back() {
    for order in orders(2) {
        let mut stage = Stage::on(Provider::Instagram).await;
        let about = |kind, id: &str, text: Option<&str>| {
            let mut event = message(&ada(), id, kind, text, second(2));
            event.refers_to = Some("mid.1".into());
            Event::Message(Box::new(event))
        };
        let mut events = [
            Some(about(MessageKind::Edit, "mid.2", Some("my secret"))),
            Some(about(MessageKind::Revoke, "mid.3", None)),
        ];
        for n in &order {
            stage.tell(vec![events[*n].take().unwrap()]).await;
            // Whoever comes at the same time waits for it.
            assert_eq!(stage.count("SELECT count(*) FROM provider_refs WHERE provider_message_id = 'mid.1'").await, 1);
        }
        let words = "SELECT count(*) FROM messages WHERE kind <> 'revoke' AND (text IS NOT NULL OR content <> '{}')";
        assert_eq!(stage.count(words).await, 0, "{order:?}");
    }
}

#[tokio::test]
async fn a_send_that_was_taken_back_before_it_is_known_keeps_no_words() {
    for by_echo in [false, true] {
        let mut stage = Stage::on(Provider::Messenger).await;
        let ada = person(AliasKind::MessengerId, "7001");
        let token = stage.send(&ada, SendState::Sending, None).await;
        let Event::Echo(mut revoked) = echo(&ada, "m_2", None, second(3)) else { unreachable!() };
        (revoked.kind, revoked.refers_to, revoked.text) = (MessageKind::Revoke, Some("m_1".into()), None);
        stage.tell(vec![Event::Echo(revoked)]).await;
        if by_echo {
            stage.tell(vec![echo(&ada, "m_1", Some(token), second(2))]).await;
        } else {
            stage.accepted(token, "m_1").await;
        }
        let words: Option<String> =
            sqlx::query_scalar("SELECT nullif(content, '{}')::text FROM messages WHERE id = $1")
                .bind(token.message_id)
                .fetch_one(&mut stage.admin)
                .await
                .unwrap();
        assert_eq!(words, None, "by echo: {by_echo}");
    }
}

#[tokio::test]
async fn the_furthest_report_outlives_the_others() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let token = stage.send(&ada(), SendState::Sending, None).await;
    stage.tell(vec![status("wamid.ours", SendState::Sent, None, second(1))]).await;
    stage.tell(vec![status("wamid.ours", SendState::Delivered, None, second(2))]).await;
    stage.execute("UPDATE provider_refs SET created_at = now() - interval '15 days'").await;
    stage.execute("UPDATE parked_reports SET parked_at = now() - interval '15 days'").await;
    let mut tx = stage.fleet().await;
    let removed = retention::expire_parked_reports(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(removed, Removed { rows: 2, more: false });
    stage.accepted(token, "wamid.ours").await;
    assert_eq!(stage.state(token.message_id).await, SendState::Delivered);
}

#[tokio::test]
async fn the_name_that_was_told_last_holds() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let named = |name: &str, id: &str, at| {
        let mut who = ada();
        who.name = Some(name.into());
        said(&who, id, "Hello", second(at))
    };
    stage.tell(vec![named("Ada", "wamid.1", 1)]).await;
    // In one batch, and the same name again.
    stage
        .apply(&[stage.webhook(vec![named("Augusta", "wamid.2", 2)]), stage.webhook(vec![named("Ada", "wamid.3", 4)])])
        .await;
    assert_eq!(stage.row("SELECT to_jsonb(name) FROM contacts").await, json!("Ada"));
    // Late.
    stage.tell(vec![named("Augusta", "wamid.4", 3)]).await;
    assert_eq!(stage.row("SELECT to_jsonb(name) FROM contacts").await, json!("Ada"));
    stage.tell(vec![named("Countess", "wamid.5", 5)]).await;
    assert_eq!(stage.row("SELECT to_jsonb(name) FROM contacts").await, json!("Countess"));
}

#[tokio::test]
async fn a_reaction_of_a_stranger_opens_the_window() {
    let mut stage = Stage::on(Provider::Messenger).await;
    let ada = person(AliasKind::MessengerId, "7001");
    stage.tell(vec![Event::Message(Box::new(message(&ada, "m_1", MessageKind::Reaction, Some("❤"), second(1))))]).await;
    let open = "SELECT count(*) FROM conversations WHERE NOT listed AND window_expires_at > now()";
    assert_eq!(stage.count(open).await, 1);
}

#[tokio::test]
async fn what_twilio_understood_of_a_message_that_comes_again_was_not_said_again() {
    let mut stage = Stage::on(Provider::Twilio).await;
    let ada = person(AliasKind::Phone, "+15557770123");
    let told = |id: &str, text: &str, consent, at: i64| {
        let change =
            ConsentChange { person: ada.clone(), purpose: Purpose::All, consent, source: "OptOutType", at: second(at) };
        stage.received(vec![said(&ada, id, text, second(at)), Event::Consent(change)], second(at), false)
    };
    let stop = |at| told("SM1", "STOP", Consent::OptedOut, at);
    stage.apply(&[stop(1), told("SM2", "START", Consent::OptedIn, 2), stop(3)]).await;
    stage.apply(&[stop(4)]).await;
    let wishes = "SELECT jsonb_agg(state) FROM suppressions WHERE purpose = 'all'";
    let wishes: serde_json::Value = sqlx::query_scalar(wishes).fetch_one(&mut stage.admin).await.unwrap();
    assert_eq!(wishes, json!(["opted_in"]));
}
