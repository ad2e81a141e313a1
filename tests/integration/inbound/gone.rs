//! People who turn out to be one, and those who are erased.

use super::{CONVERSATION, Stage, ada, message, person, said, second};
use chrono::{TimeDelta, Utc};
use serde_json::json;
use shared::{
    db::{Kind, audit::Actor, contacts, erasing, merging, merging::Merged},
    domain::{
        channel::Provider,
        consent::{Consent, Purpose},
        events::{ConsentChange, Event},
        ids::ContactId,
        messages::MessageKind,
        people::{Alias, AliasKind},
        sends::SendState,
    },
};

impl Stage {
    /// As the API does, which tries again.
    pub(super) async fn merge(&self, winner: ContactId, loser: ContactId) -> Merged {
        loop {
            let mut tx = self.request().await;
            match merging::merge(&mut tx, winner, loser, Actor::Operator).await {
                Err(error) if error.kind() == Kind::Contention => continue,
                merged => {
                    tx.commit().await.unwrap();
                    return merged.unwrap();
                }
            }
        }
    }

    pub(super) async fn erase(&self, id: ContactId) -> bool {
        loop {
            let mut tx = self.request().await;
            match erasing::erase(&mut tx, id, Actor::Operator).await {
                Err(error) if error.kind() == Kind::Contention => continue,
                erased => {
                    tx.commit().await.unwrap();
                    return erased.unwrap();
                }
            }
        }
    }

    /// As the scheduler does, at once. How many there were.
    pub(super) async fn look_again(&mut self) -> usize {
        self.execute("UPDATE contacts SET settle_at = now() WHERE settle_at IS NOT NULL").await;
        let mut contacts = 0;
        loop {
            let mut tx = self.fleet().await;
            let due = erasing::due(&mut tx).await.unwrap();
            tx.commit().await.unwrap();
            let Some(gone) = due else { return contacts };
            let mut tx = self.fleet().await;
            erasing::settle(&mut tx, &gone).await.unwrap();
            tx.commit().await.unwrap();
            contacts += 1;
        }
    }

    async fn shown(&self, id: ContactId) -> Option<ContactId> {
        let mut tx = self.request().await;
        contacts::find(&mut tx, id).await.unwrap().map(|contact| contact.id)
    }
}

#[tokio::test]
async fn two_open_conversations_of_one_person_become_one() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let bob = person(AliasKind::WhatsappId, "15557770999");
    let first = stage.send(&ada(), SendState::Queued, None).await;
    let other = stage.send(&bob, SendState::Queued, None).await;
    stage.tell(vec![said(&bob, "wamid.bob", "STOP", Utc::now())]).await;
    let (winner, loser) = (stage.contact(&ada()).await.unwrap(), stage.contact(&bob).await.unwrap());
    assert_eq!(stage.merge(winner, loser).await, Merged::Into(winner));
    let shown = stage.row(CONVERSATION).await;
    assert_eq!((&shown["unread"], &shown["in"], &shown["listed"]), (&json!(3), &json!(3), &json!(true)), "{shown}");
    let seqs = stage.row("SELECT jsonb_agg(jsonb_build_array(message_id, seq) ORDER BY seq) FROM sends").await;
    assert_eq!(seqs, json!([[first.message_id, 1], [other.message_id, 2]]), "the sends of one come behind the other's");
    assert_eq!(stage.count("SELECT count(DISTINCT conversation_id) FROM messages").await, 1);
    let wish: String = sqlx::query_scalar("SELECT state FROM suppressions WHERE contact_id = $1")
        .bind(winner)
        .fetch_one(&mut stage.admin)
        .await
        .unwrap();
    assert_eq!(wish, Consent::OptedOut.as_str(), "the stricter wins");
    assert_eq!((stage.shown(loser).await, stage.shown(winner).await), (Some(winner), Some(winner)));
    assert_eq!(stage.contact(&bob).await, Some(winner));
    // Again, and around: nothing changes.
    let all = stage.everything().await;
    assert_eq!(stage.merge(winner, loser).await, Merged::Already(winner));
    assert_eq!(stage.merge(loser, winner).await, Merged::Already(winner));
    stage.look_again().await;
    assert_eq!(stage.everything().await, all);
    // Who writes by the other's name is the one; a batch that was under way is made up for.
    stage.tell(vec![said(&bob, "wamid.bob.2", "Hello again", Utc::now())]).await;
    sqlx::query("UPDATE conversations SET contact_id = $1 WHERE contact_id = $2 AND state <> 'resolved'")
        .bind(loser)
        .bind(winner)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    stage.look_again().await;
    let left =
        "SELECT count(*) FROM conversations v JOIN contacts c ON c.id = v.contact_id WHERE c.merged_into IS NOT NULL";
    assert_eq!(stage.count(left).await, 0);
    assert_eq!(stage.count("SELECT count(*) FROM audit WHERE action = 'contact.merged'").await, 1);
}

#[tokio::test]
async fn a_changed_number_makes_one_of_two_unless_both_have_ids_of_their_own() {
    for (own_ids, one) in [(false, true), (true, false)] {
        let mut stage = Stage::on(Provider::Whatsapp).await;
        let (mut before, mut after) = (ada(), person(AliasKind::WhatsappId, "15557770999"));
        if own_ids {
            for (who, id) in [(&mut before, "US.1"), (&mut after, "US.2")] {
                who.aliases.insert(0, Alias { kind: AliasKind::WhatsappBsuid, value: id.into() });
            }
        }
        stage
            .tell(vec![said(&before, "wamid.1", "Hello", second(1)), said(&after, "wamid.2", "Hello", second(2))])
            .await;
        let mut changed = message(&before, "wamid.3", MessageKind::System, None, second(3));
        changed.new_aliases = vec![Alias { kind: AliasKind::WhatsappId, value: "15557770999".into() }];
        stage.tell(vec![Event::Message(Box::new(changed))]).await;
        assert_eq!(stage.contact(&before).await == stage.contact(&after).await, one, "ids of their own: {own_ids}");
        let open = stage.count("SELECT count(*) FROM conversations WHERE state <> 'resolved'").await;
        assert_eq!(open, if one { 1 } else { 2 });
    }
}

#[tokio::test]
async fn nobody_gets_a_campaign_twice_because_they_were_two() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let bob = person(AliasKind::WhatsappId, "15557770999");
    stage.tell(vec![said(&ada(), "wamid.1", "Hello", second(1)), said(&bob, "wamid.2", "Hello", second(2))]).await;
    let (winner, loser) = (stage.contact(&ada()).await.unwrap(), stage.contact(&bob).await.unwrap());
    let (waiting, released) = (stage.campaign().await, stage.campaign().await);
    sqlx::query("UPDATE campaigns SET state = 'paused' WHERE id = $1")
        .bind(waiting)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    stage.release().await;
    stage.merge(winner, loser).await;
    let people =
        stage.row("SELECT jsonb_agg(coalesce(skip_reason, state) ORDER BY state) FROM campaign_recipients").await;
    assert_eq!(people, json!(["released", "released", "merged", "waiting"]));
    let sends = stage.row("SELECT jsonb_agg(state ORDER BY state) FROM sends").await;
    assert_eq!(sends, json!(["cancelled", "queued"]));
    for id in [waiting, released] {
        stage.expect_books_to_agree(id).await;
    }
}

#[tokio::test]
async fn who_is_erased_stays_so() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let send = stage.send(&ada(), SendState::Queued, None).await;
    let old = || said(&ada(), "wamid.old", "my secret", second(1));
    stage.tell(vec![old()]).await;
    let id = stage.contact(&ada()).await.unwrap();
    assert!(stage.erase(id).await && stage.erase(id).await);
    let words = "SELECT count(*) FROM messages WHERE text IS NOT NULL OR content <> '{}' OR media IS NOT NULL";
    assert_eq!(stage.count(words).await, 0);
    assert_eq!(stage.count("SELECT count(*) FROM contact_aliases").await, 0);
    assert_eq!(stage.count("SELECT count(*) FROM contacts WHERE name IS NOT NULL OR phone IS NOT NULL").await, 0);
    assert_eq!(stage.count("SELECT count(*) FROM conversations WHERE last_message_text IS NOT NULL").await, 0);
    assert_eq!(stage.state(send.message_id).await, SendState::Cancelled);
    assert_eq!(stage.shown(id).await, None);
    // Played again, or late: nothing comes back, not into the log either.
    let messages = stage.count("SELECT count(*) FROM messages").await;
    stage.apply(&[stage.replay(vec![old()])]).await;
    let late = said(&ada(), "wamid.late", "another secret", second(2));
    stage.apply(&[stage.webhook(vec![late])]).await;
    assert_eq!(stage.count("SELECT count(*) FROM messages").await, messages);
    assert_eq!(stage.count("SELECT count(*) FROM contacts").await, 1);
    let log = stage
        .row("SELECT jsonb_build_array(outcome, body_bytes) FROM webhook_log ORDER BY received_at DESC LIMIT 1")
        .await;
    assert_eq!(log, json!(["erased", 0]));
    // Who writes anew is somebody else, also for what comes late after that.
    let at = Utc::now() + TimeDelta::seconds(5);
    stage.tell(vec![said(&ada(), "wamid.new", "Hello, I am back", at)]).await;
    let anew = stage.contact(&ada()).await.unwrap();
    assert_ne!(anew, id);
    stage.apply(&[stage.replay(vec![old(), said(&ada(), "wamid.later", "a third secret", second(3))])]).await;
    assert_eq!(stage.count(words).await, 1);
    // What a batch under way has added is found.
    stage.execute("UPDATE messages SET text = 'late' WHERE text IS NULL AND direction = 'in'").await;
    stage.look_again().await;
    assert_eq!(stage.count(words).await, 1);
}

#[tokio::test]
async fn the_stricter_wish_of_two_holds_for_good() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let (bob, carol) = (person(AliasKind::WhatsappId, "15557770999"), person(AliasKind::WhatsappId, "15557770777"));
    stage
        .tell(vec![
            said(&bob, "wamid.stop", "STOP", second(3)),
            said(&ada(), "wamid.start", "START", second(4)),
            said(&carol, "wamid.start.2", "START", second(5)),
        ])
        .await;
    let (winner, middle) = (stage.contact(&ada()).await.unwrap(), stage.contact(&bob).await.unwrap());
    let first = stage.contact(&carol).await.unwrap();
    stage.merge(middle, first).await;
    stage.look_again().await;
    assert_eq!(stage.wish_of(middle).await.as_deref(), Some("opted_out"));
    stage.merge(winner, middle).await;
    stage.look_again().await;
    assert_eq!(stage.wish_of(winner).await.as_deref(), Some("opted_out"));
    stage.erase(winner).await;
    stage.tell(vec![said(&bob, "wamid.new", "I am back", Utc::now() + TimeDelta::seconds(2))]).await;
    let back = stage.contact(&bob).await.unwrap();
    assert_eq!(stage.wish_of(back).await.as_deref(), Some("opted_out"));
}

#[tokio::test]
async fn that_somebody_was_erased_is_not_their_own_wish() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let bob = person(AliasKind::WhatsappId, "15557770999");
    stage.tell(vec![said(&ada(), "wamid.1", "Hello", second(1)), said(&bob, "wamid.2", "STOP", second(2))]).await;
    let (winner, loser) = (stage.contact(&ada()).await.unwrap(), stage.contact(&bob).await.unwrap());
    stage.erase(loser).await;
    // As a merge and an erasure at the same time left them.
    sqlx::query("UPDATE contacts SET merged_into = $1 WHERE id = $2")
        .bind(winner)
        .bind(loser)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    stage.erase(winner).await;
    stage.tell(vec![said(&ada(), "wamid.new", "I am back", Utc::now() + TimeDelta::seconds(2))]).await;
    let back = stage.contact(&ada()).await.unwrap();
    let purposes: Vec<String> = sqlx::query_scalar("SELECT purpose FROM suppressions WHERE contact_id = $1")
        .bind(back)
        .fetch_all(&mut stage.admin)
        .await
        .unwrap();
    assert_eq!(purposes, ["marketing"]);
}

#[tokio::test]
async fn names_that_are_taken_once_more_leave_what_was_wanted_by_them() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    stage.tell(vec![said(&ada(), "wamid.stop", "STOP", second(1))]).await;
    let id = stage.contact(&ada()).await.unwrap();
    stage.erase(id).await;
    sqlx::query("INSERT INTO contact_aliases (tenant_id, kind, value, contact_id) VALUES ($1, 'whatsapp_id', $2, $3)")
        .bind(stage.tenant)
        .bind(&ada().aliases[0].value)
        .bind(id)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    stage.look_again().await;
    assert_eq!(stage.count("SELECT count(*) FROM erased_people WHERE opted_out = '[]'").await, 0);
}

#[tokio::test]
async fn what_a_provider_said_of_somebody_goes_with_them() {
    for (of_winner, of_loser, left) in [
        (None, Some("known"), json!([["loser", "known"]])),
        (Some("known"), Some("known"), json!([["winner", "known"]])),
        (Some("waiting"), Some("waiting"), json!([["winner", "waiting"]])),
        (None, Some("waiting"), json!([])),
    ] {
        let mut stage = Stage::on(Provider::Whatsapp).await;
        let bob = person(AliasKind::WhatsappId, "15557770999");
        stage.tell(vec![said(&ada(), "wamid.1", "Hello", second(1)), said(&bob, "wamid.2", "Hello", second(2))]).await;
        let (winner, loser) = (stage.contact(&ada()).await.unwrap(), stage.contact(&bob).await.unwrap());
        for (id, name, state) in [(winner, "winner", of_winner), (loser, "loser", of_loser)] {
            let Some(state) = state else { continue };
            sqlx::query(
                "INSERT INTO contact_profiles
                    (tenant_id, contact_id, channel_account_id, provider, provider_person_id, state, ask_again_at)
                VALUES ($1, $2, $3, 'whatsapp', $4, $5, now())",
            )
            .bind(stage.tenant)
            .bind(id)
            .bind(stage.account)
            .bind(name)
            .bind(state)
            .execute(&mut stage.admin)
            .await
            .unwrap();
        }
        stage.merge(winner, loser).await;
        let profiles =
            "SELECT coalesce(jsonb_agg(jsonb_build_array(provider_person_id, state)), '[]') FROM contact_profiles";
        assert_eq!(stage.row(profiles).await, left, "{of_winner:?} {of_loser:?}");
        let theirs = "SELECT count(*) FROM contact_profiles p JOIN contacts c ON c.id = p.contact_id WHERE c.merged_into IS NOT NULL";
        assert_eq!(stage.count(theirs).await, 0);
    }
}

#[tokio::test]
async fn a_word_about_somebody_erased_is_not_kept_in_the_log() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    stage.tell(vec![said(&ada(), "wamid.1", "Hello", second(1))]).await;
    let id = stage.contact(&ada()).await.unwrap();
    stage.erase(id).await;
    let change = ConsentChange {
        person: ada(),
        purpose: Purpose::Marketing,
        consent: Consent::OptedOut,
        source: "user_preferences",
        at: second(2),
    };
    stage.tell(vec![Event::Consent(change)]).await;
    let log = "SELECT jsonb_build_array(outcome, body_bytes) FROM webhook_log ORDER BY received_at DESC LIMIT 1";
    assert_eq!(stage.row(log).await, json!(["erased", 0]));
}
