//! What a person decides: about sends of which nobody knows whether they arrived, and to try one again.

use super::{Given, Stage};
use shared::{
    db::outbound::{
        outcomes::What,
        undecided::{self, Undecided},
    },
    domain::{
        ids::{AttemptId, MessageId},
        sends::SendState::{self, Failed, Held, Queued, Sending, Sent, Unknown},
    },
    jobs::outbound::Decision,
};
use support::database::Role;

impl Stage {
    async fn undecided(&self, state: Option<&str>) -> Vec<Undecided> {
        let api = self.database.databases(Role::Api);
        let mut tx = api.tenant(&self.placement, self.tenant).await.unwrap();
        let listed = undecided::list(&mut tx, state, None, None, 10).await.unwrap();
        tx.commit().await.unwrap();
        listed
    }

    async fn doubled(&mut self, id: MessageId) -> bool {
        self.one("SELECT possibly_doubled FROM sends WHERE message_id = $1", id).await
    }
}

#[tokio::test]
async fn what_is_held_ends_as_a_person_decides_and_nothing_else_does() {
    for (decision, after, doubled) in
        [(Decision::Sent, Sent, false), (Decision::Failed, Failed, false), (Decision::Resend, Queued, true)]
    {
        let mut stage = Stage::new().await;
        let conversation = stage.conversation().await;
        for state in SendState::ALL.iter().copied() {
            let message = stage.send(Given { conversation, seq: 1, state, attempt: AttemptId::new() }).await;
            stage.record(message, conversation, What::Decided(decision)).await;
            let expected = if state == Held { after } else { state };
            assert_eq!(stage.state(message).await, expected, "{decision:?} about one that is {state}");
            if state == Held {
                assert_eq!(stage.doubled(message).await, doubled);
                let jobs: &[&str] = if after == Queued { &["send"] } else { &[] };
                assert_eq!(stage.brought(message).await, jobs);
                let told = stage.trail(message).await;
                assert!(told.iter().any(|event| event.starts_with("decided_")), "{told:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_unknown_or_held_is_listed_until_it_is_settled() {
    let mut stage = Stage::new().await;
    let (conversation, attempt) = (stage.conversation().await, AttemptId::new());
    let message = stage.send(Given { conversation, seq: 1, state: Sending, attempt }).await;
    assert!(stage.undecided(None).await.is_empty());
    stage
        .record(message, conversation, What::Unknown { attempt_id: attempt, reason: "no answer in time".into() })
        .await;
    let listed = stage.undecided(Some("unknown")).await;
    assert_eq!(
        (listed.len(), listed[0].message_id, listed[0].reason.as_deref()),
        (1, message, Some("no answer in time"))
    );
    assert!(stage.undecided(Some("held")).await.is_empty());
    sqlx::query("UPDATE sends SET unknown_at = now() - interval '1 hour'").execute(&mut stage.admin).await.unwrap();
    stage.record(message, conversation, What::Settled).await;
    assert_eq!(stage.undecided(Some("held")).await.len(), 1);
    stage.record(message, conversation, What::Decided(Decision::Sent)).await;
    assert!(stage.undecided(None).await.is_empty());
    let mut tx = stage.fleet().await;
    assert_eq!(undecided::forget_settled(&mut tx).await.unwrap().rows, 1);
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_failed_message_is_tried_again_with_its_earlier_attempts_kept() {
    let mut stage = Stage::new().await;
    for state in SendState::ALL.iter().copied() {
        let (conversation, attempt) = (stage.conversation().await, AttemptId::new());
        let message = stage.send(Given { conversation, seq: 1, state, attempt }).await;
        stage.record(message, conversation, What::Retried).await;
        let expected = if state == Failed { Queued } else { state };
        assert_eq!(stage.state(message).await, expected, "one that is {state}");
        if state == Failed {
            assert_eq!(stage.brought(message).await, ["send"]);
            let kept: Vec<AttemptId> =
                stage.one("SELECT retried_attempts FROM sends WHERE message_id = $1", message).await;
            assert_eq!(kept, [attempt]);
        }
    }
    // One that is still unknown is not failed.
    let (conversation, attempt) = (stage.conversation().await, AttemptId::new());
    let message = stage.send(Given { conversation, seq: 1, state: Unknown, attempt }).await;
    stage.record(message, conversation, What::Retried).await;
    assert_eq!(stage.state(message).await, Unknown);
}
