//! Acceptance against settlement: whoever comes first, the new message gets its turn, and gets its job from exactly one side.

use super::{Given, PATIENCE, Stage};
use shared::{
    db::{
        Databases, TenantTx, conversations, messages,
        outbound::outcomes::{Record, What, record},
    },
    domain::{
        content::{OutboundContent, Text},
        ids::{ApiTokenId, AttemptId, ConversationId, MessageId},
        people::{Address, RecipientKind},
        sends::SendState::{Queued, Sending, Sent},
    },
};
use std::time::Duration;
use support::database::Role;

impl Stage {
    fn api(&self) -> Databases {
        self.database.databases(Role::Api)
    }

    fn accepted(&self, conversation: ConversationId, message_id: MessageId, attempt_id: AttemptId) -> Record {
        let what = What::Accepted { attempt_id, provider_message_id: format!("wamid.{message_id}") };
        Record { tenant_id: self.tenant, message_id, place: Some(self.place(conversation)), what, slice: None }
    }
}

async fn accept(tx: &mut TenantTx, conversation: ConversationId) -> messages::Accepted {
    let locked = conversations::lock(tx, conversation).await.unwrap().expect("it is there");
    let content = OutboundContent::Text(Text { text: "and another thing".into(), ..Text::default() });
    let address = Address { kind: RecipientKind::Phone, value: "+15557770123".into() };
    let sending = messages::Sending {
        address: &address,
        content: &content,
        refers_to: None,
        units: 1,
        needs_window: true,
        human_agent: false,
        expires_at: None,
    };
    messages::accept(tx, &locked, &sending, ApiTokenId::new()).await.unwrap()
}

/// Time for the other side to run into the lock.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn settled_first_the_new_message_finds_itself_the_head() {
    let mut stage = Stage::new().await;
    let (conversation, attempt) = (stage.conversation().await, AttemptId::new());
    let first = stage.send(Given { conversation, seq: 1, state: Sending, attempt }).await;
    let api = stage.api();
    // Settled and its next one looked for, not committed.
    let mut settling = stage.fleet().await;
    record(&mut settling, &[stage.accepted(conversation, first, attempt)], PATIENCE).await.unwrap();
    let (tenant, placement) = (stage.tenant, stage.placement.clone());
    let accepting = tokio::spawn(async move {
        let mut tx = api.tenant(&placement, tenant).await.unwrap();
        let accepted = accept(&mut tx, conversation).await;
        tx.commit().await.unwrap();
        accepted
    });
    a_moment().await;
    assert!(!accepting.is_finished(), "it waits for who settles the message before it");
    settling.commit().await.unwrap();
    let accepted = accepting.await.unwrap();
    assert!(accepted.head, "whoever accepts writes the job");
    assert_eq!(stage.jobs(accepted.id).await.len(), 0, "whoever settled saw nobody");
    assert_eq!((stage.state(first).await, stage.state(accepted.id).await), (Sent, Queued));
}

#[tokio::test]
async fn accepted_first_the_new_message_is_woken_by_who_settles() {
    let mut stage = Stage::new().await;
    let (conversation, attempt) = (stage.conversation().await, AttemptId::new());
    let first = stage.send(Given { conversation, seq: 1, state: Sending, attempt }).await;
    let mut accepting = stage.api().tenant(&stage.placement, stage.tenant).await.unwrap();
    let accepted = accept(&mut accepting, conversation).await;
    assert!(!accepted.head, "the message before it is still under way");
    let (workers, placement, tenant) = (stage.workers.clone(), stage.placement.clone(), stage.tenant);
    let settled = stage.accepted(conversation, first, attempt);
    let settling = tokio::spawn(async move {
        let mut tx = workers.fleet(&placement, &[tenant]).await.unwrap();
        record(&mut tx, &[settled], PATIENCE).await.unwrap();
        tx.commit().await.unwrap();
    });
    a_moment().await;
    assert!(!settling.is_finished(), "it waits for who accepts");
    accepting.commit().await.unwrap();
    settling.await.unwrap();
    assert_eq!(stage.jobs(accepted.id).await.len(), 1, "whoever settled writes the job");
    assert_eq!((stage.state(first).await, stage.state(accepted.id).await), (Sent, Queued));
}

#[tokio::test]
async fn no_turn_is_lost_whatever_the_order() {
    let mut stage = Stage::new().await;
    let api = stage.api();
    let mut lost = Vec::new();
    for round in 0..40_u64 {
        let (conversation, attempt) = (stage.conversation().await, AttemptId::new());
        let first = stage.send(Given { conversation, seq: 1, state: Sending, attempt }).await;
        let accepting = async {
            tokio::time::sleep(Duration::from_micros(100 * (round % 10))).await;
            let mut tx = api.tenant(&stage.placement, stage.tenant).await.unwrap();
            let accepted = accept(&mut tx, conversation).await;
            tx.commit().await.unwrap();
            accepted
        };
        let settling = async {
            tokio::time::sleep(Duration::from_micros(100 * (round % 7))).await;
            let mut tx = stage.fleet().await;
            record(&mut tx, &[stage.accepted(conversation, first, attempt)], PATIENCE).await.unwrap();
            tx.commit().await.unwrap();
        };
        let (accepted, ()) = tokio::join!(accepting, settling);
        let jobs = stage.jobs(accepted.id).await.len();
        if jobs + usize::from(accepted.head) == 0 {
            lost.push(round);
        }
    }
    assert!(lost.is_empty(), "nobody wrote the job in rounds {lost:?}");
}
