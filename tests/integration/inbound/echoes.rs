//! What was written to a person in the account's name: by us or elsewhere.

use super::{CONVERSATION, Stage, ada, echo, orders, person, said, second, status};
use serde_json::json;
use shared::{
    db::outbound::outcomes::{Patience, Place, Record, What, record},
    domain::{channel::Provider, events::SendToken, ids::MessageId, people::AliasKind, sends::SendState},
};
use std::time::Duration;

impl Stage {
    /// The sender writes down that the provider took a send.
    pub(super) async fn accepted(&mut self, of: SendToken, provider_message_id: &str) {
        let conversation_id = sqlx::query_scalar("SELECT conversation_id FROM sends WHERE message_id = $1")
            .bind(of.message_id)
            .fetch_one(&mut self.admin)
            .await
            .unwrap();
        let place = Place {
            channel_account_id: self.account,
            channel: self.channel,
            account_revision: 1,
            conversation_id,
            probe: false,
            serial: false,
        };
        let what = What::Accepted { attempt_id: of.attempt_id, provider_message_id: provider_message_id.to_owned() };
        let record_of =
            Record { tenant_id: self.tenant, message_id: of.message_id, place: Some(place), what, slice: None };
        let patience = Patience { turn: Duration::from_secs(30), evidence: Duration::from_secs(300) };
        let mut tx = self.fleet().await;
        record(&mut tx, &[record_of], patience).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn an_echo_with_our_token_is_evidence_and_no_second_message() {
    let mut stage = Stage::on(Provider::Messenger).await;
    let ada = person(AliasKind::MessengerId, "7001");
    for state in [SendState::Sending, SendState::Unknown, SendState::Held, SendState::Read] {
        let token = stage.send(&ada, state, None).await;
        let before = stage.count("SELECT count(*) FROM messages").await;
        let id = format!("m_{}", token.message_id);
        stage.tell(vec![echo(&ada, &id, Some(token), second(5)), echo(&ada, &id, Some(token), second(5))]).await;
        let after = if state == SendState::Read { SendState::Read } else { SendState::Sent };
        assert_eq!(stage.state(token.message_id).await, after, "{state}");
        assert_eq!(stage.trail(token.message_id).await, ["echoed"]);
        assert_eq!(stage.count("SELECT count(*) FROM messages").await, before);
        // What is told by the provider's id alone finds it now.
        stage.tell(vec![status(&id, SendState::Delivered, None, second(6))]).await;
        let after = if state == SendState::Read { SendState::Read } else { SendState::Delivered };
        assert_eq!(stage.state(token.message_id).await, after, "{state}");
    }
}

#[tokio::test]
async fn what_was_written_elsewhere_joins_the_conversation_and_wakes_nothing() {
    let mut stage = Stage::on(Provider::Messenger).await;
    let ada = person(AliasKind::MessengerId, "7001");
    stage.tell(vec![echo(&ada, "m_1", None, second(1))]).await;
    let shown = json!({"state": "resolved", "unread": 0, "in": 0, "out": 1, "listed": false, "last": "from the Page's inbox",
        "direction": "out", "origin": "elsewhere"});
    assert_eq!(stage.row(CONVERSATION).await, shown);
    // The same again, and one of another deployment of ours.
    let strange = SendToken { message_id: MessageId::new(), attempt_id: shared::domain::ids::AttemptId::new() };
    stage.tell(vec![echo(&ada, "m_1", None, second(1)), echo(&ada, "m_2", Some(strange), second(2))]).await;
    assert_eq!(stage.row(CONVERSATION).await["out"], 2);
    // In an open one, behind what the person said and before it.
    stage.tell(vec![said(&ada, "m_3", "Hello?", second(3)), echo(&ada, "m_4", None, second(4))]).await;
    let shown = json!({"state": "open", "unread": 1, "in": 1, "out": 3, "listed": true, "last": "from the Page's inbox",
        "direction": "out", "origin": "elsewhere"});
    assert_eq!(stage.row(CONVERSATION).await, shown, "what the person says reopens it");
    let kinds = stage.row("SELECT jsonb_agg(direction ORDER BY at) FROM messages").await;
    assert_eq!(kinds, json!(["out", "out", "in", "out"]));
}

#[tokio::test]
async fn an_echo_of_a_send_that_names_no_attempt_is_that_send_whichever_comes_first() {
    let mut stage = Stage::on(Provider::Instagram).await;
    for (nth, order) in orders(3).into_iter().enumerate() {
        let ada = person(AliasKind::InstagramId, &format!("88{nth}"));
        let token = stage.send(&ada, SendState::Sending, None).await;
        let id = format!("mid.{nth}");
        for what in &order {
            match what {
                0 => stage.tell(vec![echo(&ada, &id, None, second(10))]).await,
                1 => stage.accepted(token, &id).await,
                _ => stage.tell(vec![status(&id, SendState::Delivered, None, second(12))]).await,
            }
        }
        assert_eq!(stage.state(token.message_id).await, SendState::Delivered, "{order:?}");
        let out: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM messages m JOIN sends s USING (tenant_id, conversation_id)
            WHERE s.message_id = $1 AND m.direction = 'out'",
        )
        .bind(token.message_id)
        .fetch_one(&mut stage.admin)
        .await
        .unwrap();
        assert_eq!(out, 1, "one message, in the order {order:?}");
    }
    let wrong = "SELECT count(*) FROM conversations v WHERE messages_out > 0";
    assert_eq!(stage.count(wrong).await, 0, "the stage counts none of its own, and what an echo counted is taken back");
}

#[tokio::test]
async fn final_states_and_trails_do_not_depend_on_the_order_of_reports() {
    use SendState::{Delivered, Failed, Read, Sent};
    let mut stage = Stage::on(Provider::Whatsapp).await;
    for (told, last) in [
        (vec![Sent, Delivered, Read], Read),
        (vec![Sent, Read], Read),
        (vec![Delivered, Failed], Delivered),
        (vec![Sent, Failed], Failed),
        (vec![Read, Failed], Read),
    ] {
        for order in orders(told.len() + 1) {
            let token = stage.send(&ada(), SendState::Sending, None).await;
            let id = format!("wamid.{}", token.message_id);
            for what in &order {
                match told.get(*what) {
                    Some(state) => {
                        let at = second(i64::try_from(*what).unwrap());
                        stage.tell(vec![status(&id, *state, None, at)]).await;
                    }
                    // The sender writes down that it was taken: before, between or after.
                    None => stage.accepted(token, &id).await,
                }
            }
            assert_eq!(stage.state(token.message_id).await, last, "{told:?} in the order {order:?}");
        }
    }
}

#[tokio::test]
async fn another_apps_messages_are_nobodys() {
    let mut stage = Stage::on(Provider::Whatsapp).await;
    let before = stage.everything().await.len();
    stage.tell(vec![status("wamid.theirs", SendState::Sent, None, second(1))]).await;
    stage.tell(vec![status("wamid.theirs", SendState::Read, None, second(2))]).await;
    stage.tell(vec![status("wamid.theirs", SendState::Delivered, None, second(3))]).await;
    let parked =
        stage.row("SELECT jsonb_build_object('state', parked_state, 'message', message_id) FROM provider_refs").await;
    assert_eq!(parked, json!({"state": "read", "message": null}));
    assert_eq!(stage.count("SELECT count(*) FROM trail").await, 0);
    // The reference, three reports that wait and three rows of the log, nothing else.
    assert_eq!(stage.everything().await.len(), before + 7);
}
