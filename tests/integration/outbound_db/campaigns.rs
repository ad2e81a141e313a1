//! Sends of campaigns: whether they may go, in which queue they come back, and what is shown of them.

use super::{Given, PATIENCE, Stage};
use serde_json::{Value, json};
use shared::{
    db::{
        inbound::reports::{self, Report},
        outbound::{
            counts,
            grant::{Answer, Obstacle},
            outcomes::{Record, Says, What, record},
        },
    },
    domain::{
        ids::{AttemptId, CampaignId, ConversationId, MessageId},
        outcome::Class,
        sends::{
            SendState::{self, Cancelled, Delivered, Queued, Waiting},
            WaitReason,
        },
    },
};
use std::time::Duration;

impl Stage {
    /// A running campaign with so many sends, each in a conversation of its own and queued.
    async fn campaign(&mut self, sends: i64) -> (CampaignId, Vec<(ConversationId, MessageId)>) {
        let campaign = CampaignId::new();
        sqlx::query(
            "WITH campaign AS (
                INSERT INTO campaigns (tenant_id, id, name, channel_account_id, state, content, audience)
                VALUES ($1, $2, 'spring', $3, 'running', '{}', '{}')
            )
            INSERT INTO campaign_counts (tenant_id, campaign_id, in_flight) VALUES ($1, $2, $4)",
        )
        .bind(self.tenant)
        .bind(campaign)
        .bind(self.account)
        .bind(sends)
        .execute(&mut self.admin)
        .await
        .unwrap();
        let mut made = Vec::new();
        for _ in 0..sends {
            let send = self.lone_send().await;
            self.hand_to(campaign, send.1).await;
            made.push(send);
        }
        (campaign, made)
    }

    async fn hand_to(&mut self, campaign: CampaignId, message: MessageId) {
        sqlx::query("UPDATE sends SET campaign_id = $1, lane = 1 WHERE message_id = $2")
            .bind(campaign)
            .bind(message)
            .execute(&mut self.admin)
            .await
            .unwrap();
    }

    async fn set_campaign(&mut self, campaign: CampaignId, state: &str) {
        sqlx::query("UPDATE campaigns SET state = $1 WHERE id = $2")
            .bind(state)
            .bind(campaign)
            .execute(&mut self.admin)
            .await
            .unwrap();
    }

    /// What is shown of it, without what is zero.
    async fn shown(&mut self, campaign: CampaignId) -> Value {
        sqlx::query_scalar(
            "SELECT jsonb_object_agg(key, value)
            FROM campaign_counts c, jsonb_each(to_jsonb(c) - 'tenant_id' - 'campaign_id' - 'handed_over')
            WHERE c.campaign_id = $1 AND value <> '0'",
        )
        .bind(campaign)
        .fetch_one(&mut self.admin)
        .await
        .unwrap()
    }

    pub(super) async fn granted(&mut self, message: MessageId) -> AttemptId {
        let answers = self.ask(&[message]).await;
        let Answer::Granted(grant) = &answers[0].answer else { panic!("{answers:?}") };
        grant.attempt_id
    }

    /// How many calls for it have ended.
    async fn handed_over(&mut self, campaign: CampaignId) -> i64 {
        sqlx::query_scalar("SELECT handed_over FROM campaign_counts WHERE campaign_id = $1")
            .bind(campaign)
            .fetch_one(&mut self.admin)
            .await
            .unwrap()
    }

    /// The queues of the jobs in the outbox, and how many of each wait for later.
    async fn queues(&mut self) -> Vec<(String, bool)> {
        sqlx::query_as("SELECT queue, publish_after > created_at + interval '1 minute' FROM outbox ORDER BY 1, 2")
            .fetch_all(&mut self.admin)
            .await
            .unwrap()
    }
}

fn accepted(attempt_id: AttemptId, id: &str) -> What {
    What::Accepted { attempt_id, provider_message_id: id.into() }
}

#[tokio::test]
async fn what_is_shown_follows_every_send() {
    let mut stage = Stage::new().await;
    let (campaign, sends) = stage.campaign(6).await;
    let mut attempts = Vec::new();
    for (_, message) in &sends {
        attempts.push(stage.granted(*message).await);
    }
    assert_eq!(stage.shown(campaign).await, json!({"in_flight": 6}), "claimed is in flight");

    let ends = [
        accepted(attempts[0], "wamid.0"),
        accepted(attempts[1], "wamid.1"),
        What::Failed { attempt_id: attempts[2], code: "131026".into(), reason: "no".into(), says: Says::Nothing },
        What::Unknown { attempt_id: attempts[3], reason: "cut".into() },
        What::GivenBack { attempt_id: attempts[4], reason: "old".into(), after: None },
        What::NotSent {
            attempt_id: attempts[5],
            code: "130429".into(),
            reason: "slowly".into(),
            after: Duration::from_secs(77),
            class: Class::Transient,
            slow: None,
        },
    ];
    for (what, (conversation, message)) in ends.iter().zip(&sends) {
        stage.record(*message, *conversation, what.clone()).await;
        // A record written twice is counted once.
        stage.record(*message, *conversation, what.clone()).await;
    }
    let shown = json!({"in_flight": 2, "sent": 2, "failed": 1, "unknown": 1});
    assert_eq!((stage.shown(campaign).await, stage.handed_over(campaign).await), (shown, 4));

    for state in [SendState::Read, Delivered, SendState::Sent, SendState::Read] {
        let mut tx = stage.fleet().await;
        let report = Report {
            tenant_id: stage.tenant,
            channel_account_id: stage.account,
            provider_message_id: "wamid.1".into(),
            state,
            status: state.as_str().into(),
            at: super::now(),
            code: None,
            reason: None,
            aftermath: None,
            token: None,
        };
        let moved = reports::apply(&mut tx, &[report]).await.unwrap();
        counts::count(&mut tx, &moved).await.unwrap();
        tx.commit().await.unwrap();
    }
    let shown = json!({"in_flight": 2, "sent": 1, "read": 1, "failed": 1, "unknown": 1});
    assert_eq!(stage.shown(campaign).await, shown);

    sqlx::query("UPDATE sends SET unknown_at = now() - interval '1 hour' WHERE state = 'unknown'")
        .execute(&mut stage.admin)
        .await
        .unwrap();
    stage.record(sends[3].1, sends[3].0, What::Settled).await;
    let shown = json!({"in_flight": 2, "sent": 1, "read": 1, "failed": 1, "held": 1});
    assert_eq!((stage.shown(campaign).await, stage.handed_over(campaign).await), (shown, 4));
    // Campaigns' sends come back in slices; only the timer of the unknown one goes the other way, and releases nobody's turn.
    let (now, bulk) = ("outbound.now".to_owned(), "outbound.bulk".to_owned());
    assert_eq!(stage.queues().await, [(bulk.clone(), false), (bulk, true), (now, true)]);
}

#[tokio::test]
async fn a_report_that_was_there_first_is_counted_with_the_send_it_belongs_to() {
    let mut stage = Stage::new().await;
    let (campaign, sends) = stage.campaign(1).await;
    let (conversation, message) = sends[0];
    let attempt = stage.granted(message).await;
    let report = Report {
        tenant_id: stage.tenant,
        channel_account_id: stage.account,
        provider_message_id: "wamid.early".into(),
        state: Delivered,
        status: "delivered".into(),
        at: super::now(),
        code: None,
        reason: None,
        aftermath: None,
        token: None,
    };
    let mut tx = stage.fleet().await;
    assert!(reports::apply(&mut tx, &[report]).await.unwrap().is_empty());
    tx.commit().await.unwrap();
    stage.record(message, conversation, accepted(attempt, "wamid.early")).await;
    assert_eq!(stage.state(message).await, Delivered);
    assert_eq!(stage.shown(campaign).await, json!({"delivered": 1}));
}

#[tokio::test]
async fn while_its_campaign_is_paused_a_send_waits_and_after_its_end_it_is_cancelled() {
    let mut stage = Stage::new().await;
    let (campaign, sends) = stage.campaign(2).await;
    let (conversation, message) = sends[0];
    stage.set_campaign(campaign, "paused").await;
    let answers = stage.ask(&[message]).await;
    assert!(matches!(answers[0].answer, Answer::NotNow(Obstacle::CampaignPaused)), "{answers:?}");
    let waits = || What::Waits { reason: WaitReason::Campaign, after: None };
    stage.record(message, conversation, waits()).await;
    assert_eq!(stage.state(message).await, Waiting);
    assert!(stage.queues().await.is_empty(), "that the campaign goes on wakes it");

    // It went on between the question and the record of its answer.
    stage.set_campaign(campaign, "running").await;
    stage.record(sends[1].1, sends[1].0, waits()).await;
    assert_eq!(stage.queues().await, [("outbound.bulk".to_owned(), false)]);

    stage.set_campaign(campaign, "cancelled").await;
    for (conversation, message) in &sends {
        let answers = stage.ask(&[*message]).await;
        assert!(matches!(answers[0].answer, Answer::NotNow(Obstacle::CampaignOver)), "{answers:?}");
        stage.record(*message, *conversation, What::Cancelled).await;
        assert_eq!(stage.state(*message).await, Cancelled);
        let trail = stage.trail(*message).await;
        assert!(trail == ["waits", "cancelled"] || trail == ["cancelled"], "{trail:?}");
    }
    assert_eq!(stage.shown(campaign).await, json!({"cancelled": 2}));
}

#[tokio::test]
async fn a_send_that_begins_to_wait_while_its_campaign_goes_on_is_seen_by_who_wakes_them() {
    let mut stage = Stage::new().await;
    let (campaign, sends) = stage.campaign(1).await;
    let (conversation, message) = sends[0];
    stage.set_campaign(campaign, "paused").await;
    let mut recording = stage.fleet().await;
    let place = Some(stage.place(conversation));
    let what = What::Waits { reason: WaitReason::Campaign, after: None };
    let records = [Record { tenant_id: stage.tenant, message_id: message, place, what, slice: Some(stage.account) }];
    record(&mut recording, &records, PATIENCE).await.unwrap();
    let mut other = stage.database.admin().await;
    let resume = async {
        sqlx::query("UPDATE campaigns SET state = 'running'").execute(&mut stage.admin).await.unwrap();
        sqlx::query_scalar::<_, String>("SELECT state FROM sends").fetch_one(&mut stage.admin).await.unwrap()
    };
    let commit = async {
        let blocked =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while sqlx::query_scalar::<_, i64>(blocked).fetch_one(&mut other).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        recording.commit().await.unwrap();
    };
    let (found, ()) = tokio::join!(resume, commit);
    assert_eq!(found, "waiting", "who resumes waits for the record, and then finds what is to be woken");
}

#[tokio::test]
async fn an_answer_does_not_wait_for_a_campaigns_message_in_its_conversation() {
    let mut stage = Stage::new().await;
    let (_, sends) = stage.campaign(1).await;
    let (conversation, _) = sends[0];
    let answer = stage.send(Given { conversation, seq: 2, state: Queued, attempt: AttemptId::new() }).await;
    stage.granted(answer).await;
}

#[tokio::test]
async fn the_return_of_an_account_wakes_what_campaigns_have_waiting_for_it() {
    let mut stage = Stage::new().await;
    let (_, sends) = stage.campaign(3).await;
    for (conversation, message) in &sends {
        let attempt_id = stage.granted(*message).await;
        let down = What::AccountDown { attempt_id, code: "190".into(), reason: "expired".into() };
        stage.record(*message, *conversation, down).await;
        sqlx::query("UPDATE channel_accounts SET state = 'active'").execute(&mut stage.admin).await.unwrap();
    }
    sqlx::query("UPDATE channel_accounts SET state = 'down'").execute(&mut stage.admin).await.unwrap();
    assert!(stage.queues().await.iter().all(|(_, later)| *later), "each is looked at again in ten minutes");
    stage.resume().await;
    let bulk = "outbound.bulk".to_owned();
    let soon = stage.queues().await.into_iter().filter(|(_, later)| !later).collect::<Vec<_>>();
    assert_eq!(soon, [(bulk, false)], "one slice with all three");
    for (_, message) in &sends {
        stage.granted(*message).await;
    }
}

#[tokio::test]
async fn what_may_have_arrived_is_held_and_not_cancelled_when_its_campaign_is() {
    let mut stage = Stage::new().await;
    let (campaign, sends) = stage.campaign(2).await;
    sqlx::query("UPDATE channel_accounts SET when_unknown = 'resend'").execute(&mut stage.admin).await.unwrap();
    let settle_later = "UPDATE sends SET unknown_at = now() - interval '1 hour' WHERE state = 'unknown'";
    for (conversation, message) in &sends {
        let attempt_id = stage.granted(*message).await;
        stage.record(*message, *conversation, What::Unknown { attempt_id, reason: "cut".into() }).await;
    }
    sqlx::query(settle_later).execute(&mut stage.admin).await.unwrap();
    // One is to be sent again before the campaign is cancelled, the other is unknown until after that.
    stage.record(sends[0].1, sends[0].0, What::Settled).await;
    assert_eq!(stage.state(sends[0].1).await, Queued);
    stage.set_campaign(campaign, "cancelled").await;
    stage.record(sends[0].1, sends[0].0, What::Cancelled).await;
    stage.record(sends[1].1, sends[1].0, What::Settled).await;
    for (_, message) in &sends {
        assert_eq!(stage.state(*message).await, SendState::Held);
    }
    assert_eq!(stage.shown(campaign).await, json!({"held": 2}));
}

#[tokio::test]
async fn what_turns_out_not_sent_after_its_campaign_has_ended_has_failed_and_can_be_retried() {
    let mut stage = Stage::new().await;
    let (campaign, sends) = stage.campaign(2).await;
    let mut attempts = Vec::new();
    for (conversation, message) in &sends {
        let attempt_id = stage.granted(*message).await;
        stage.record(*message, *conversation, What::Unknown { attempt_id, reason: "silent".into() }).await;
        sqlx::query("UPDATE sends SET unknown_at = now() - interval '1 hour' WHERE state = 'unknown'")
            .execute(&mut stage.admin)
            .await
            .unwrap();
        stage.record(*message, *conversation, What::Settled).await;
        assert_eq!(stage.state(*message).await, SendState::Held);
        attempts.push(attempt_id);
    }
    for ((conversation, message), (attempt_id, state)) in
        sends.iter().zip(attempts.into_iter().zip(["completed", "running"]))
    {
        stage.set_campaign(campaign, state).await;
        let back = What::GivenBack { attempt_id, reason: "the grant was too old to be used".into(), after: None };
        stage.record(*message, *conversation, back).await;
    }
    assert_eq!(stage.state(sends[0].1).await, SendState::Failed, "nobody would send it any more");
    assert_eq!(stage.state(sends[1].1).await, Queued);
    assert_eq!(stage.shown(campaign).await, json!({"failed": 1, "in_flight": 1}));
}
