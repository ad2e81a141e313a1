//! What follows from a report that a message failed, or from a refusal that is about more than its message.

use super::{Given, PATIENCE, Stage, now};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use shared::{
    db::{
        inbound::reports::{self, Report},
        outbound::{
            aftermath::Reported,
            counts,
            grant::Answer,
            outcomes::{Record, Says, What, record},
            probes,
        },
    },
    domain::{
        events::SendToken,
        ids::{AttemptId, CampaignId, ConversationId, MessageId},
        outcome::{Aftermath, Block, Class},
        sends::{
            SendState::{Delivered, Failed, Queued, Sending, Sent, Waiting},
            WaitReason,
        },
    },
    jobs::{Headers, Job, outbound::AftermathJob},
};

const HOURS: Aftermath = Aftermath::Again { times: 2, after_seconds: 7200, in_doubt: false };

/// A send that the provider has taken.
#[derive(Clone, Copy)]
struct Taken {
    conversation: ConversationId,
    message: MessageId,
    attempt: AttemptId,
}

impl Stage {
    async fn taken(&mut self) -> Taken {
        let (conversation, attempt) = (self.conversation().await, AttemptId::new());
        let message = self.send(Given { conversation, seq: 1, state: Sending, attempt }).await;
        let provider_message_id = format!("SM{message}");
        self.record(message, conversation, What::Accepted { attempt_id: attempt, provider_message_id }).await;
        Taken { conversation, message, attempt }
    }

    fn failure(&self, of: Taken, aftermath: Option<Aftermath>) -> Report {
        Report {
            tenant_id: self.tenant,
            channel_account_id: self.account,
            provider_message_id: format!("SM{}", of.message),
            state: Failed,
            status: "undelivered".to_owned(),
            at: now(),
            code: Some("30003".to_owned()),
            reason: Some("It is switched off.".to_owned()),
            aftermath,
            token: Some(SendToken { message_id: of.message, attempt_id: of.attempt }),
        }
    }

    async fn hear(&self, reports: &[Report]) {
        let mut tx = self.fleet().await;
        let moved = reports::apply(&mut tx, reports).await.unwrap();
        counts::count(&mut tx, &moved).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The jobs that reports have left, as a sender reads them.
    async fn aftermath_jobs(&mut self) -> Vec<AftermathJob> {
        let rows: Vec<(Value, Vec<u8>)> =
            sqlx::query_as("SELECT job, body FROM outbox WHERE job ->> 'kind' = 'outbound.aftermath' ORDER BY id")
                .fetch_all(&mut self.admin)
                .await
                .unwrap();
        let read = |(_, body): (Value, Vec<u8>)| {
            let mut job = Job::new(AftermathJob::KIND, 3, Some(self.tenant), now(), body);
            job.headers = Headers { tenant: Some(self.tenant), ..job.headers };
            AftermathJob::from_job(&job).unwrap()
        };
        rows.into_iter().map(read).collect()
    }

    async fn write_down(&self, message_id: MessageId, what: What) {
        let mut tx = self.fleet().await;
        let of = Record { tenant_id: self.tenant, message_id, place: None, what, slice: None };
        record(&mut tx, &[of], PATIENCE).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A report comes, and a sender sees to what it leads to; twice, because anything may be brought twice.
    async fn fails(&mut self, of: Taken, aftermath: Aftermath) {
        self.hear(&[self.failure(of, Some(aftermath))]).await;
        let jobs = self.aftermath_jobs().await;
        let job = jobs.into_iter().rfind(|job| job.message_id == of.message).expect("it is left to a sender");
        assert_eq!((job.aftermath, job.failed.attempt_id), (aftermath, of.attempt));
        self.execute("DELETE FROM outbox WHERE job ->> 'kind' = 'outbound.aftermath'").await;
        for _ in 0..2 {
            let AftermathJob { failed, aftermath, .. } = job.clone();
            self.write_down(of.message, What::Reported(Box::new(Reported { failed, aftermath }))).await;
        }
    }

    /// The next attempt of a send that was let go again is taken.
    async fn taken_anew(&mut self, before: Taken) -> Taken {
        let answers = self.ask(&[before.message]).await;
        let Answer::Granted(grant) = &answers[0].answer else { panic!("{answers:?}") };
        let attempt = grant.attempt_id;
        let provider_message_id = format!("SM{attempt}");
        let what = What::Accepted { attempt_id: attempt, provider_message_id };
        self.record(before.message, before.conversation, what).await;
        Taken { attempt, ..before }
    }

    async fn account(&mut self) -> (String, Option<String>) {
        sqlx::query_as("SELECT state, down_code FROM channel_accounts").fetch_one(&mut self.admin).await.unwrap()
    }

    async fn due_at(&mut self, id: MessageId) -> Option<DateTime<Utc>> {
        self.one("SELECT due_at FROM sends WHERE message_id = $1", id).await
    }

    async fn see_to_them(&self) {
        while {
            let mut tx = self.fleet().await;
            let more = probes::see_to(&mut tx).await.unwrap();
            tx.commit().await.unwrap();
            more
        } {}
    }

    async fn campaign_row(&mut self, id: CampaignId) -> (String, Option<String>) {
        sqlx::query_as("SELECT state, paused_code FROM campaigns WHERE id = $1")
            .bind(id)
            .fetch_one(&mut self.admin)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_report_leads_to_one_job_and_what_is_told_again_or_of_what_arrived_to_none() {
    let mut stage = Stage::new().await;
    let taken = stage.taken().await;
    let failure = stage.failure(taken, Some(HOURS));
    stage.hear(std::slice::from_ref(&failure)).await;
    stage.hear(&[failure]).await;
    assert_eq!(stage.aftermath_jobs().await.len(), 1);
    let arrived = stage.taken().await;
    let delivered = Report { state: Delivered, status: "delivered".into(), ..stage.failure(arrived, None) };
    stage.hear(&[delivered]).await;
    stage.hear(&[stage.failure(arrived, Some(HOURS))]).await;
    assert_eq!(stage.aftermath_jobs().await.len(), 1, "what arrived did not fail");
    let nothing = stage.taken().await;
    stage.hear(&[stage.failure(nothing, None)]).await;
    assert_eq!(stage.aftermath_jobs().await.len(), 1);
}

#[tokio::test]
async fn a_report_that_comes_before_its_send_is_known_leads_to_the_same() {
    let mut stage = Stage::new().await;
    let (conversation, attempt) = (stage.conversation().await, AttemptId::new());
    let message = stage.send(Given { conversation, seq: 1, state: Sending, attempt }).await;
    let early = Report { token: None, ..stage.failure(Taken { conversation, message, attempt }, Some(HOURS)) };
    stage.hear(&[early]).await;
    assert!(stage.aftermath_jobs().await.is_empty(), "nobody knows yet whose it is");
    let provider_message_id = format!("SM{message}");
    stage.record(message, conversation, What::Accepted { attempt_id: attempt, provider_message_id }).await;
    let jobs = stage.aftermath_jobs().await;
    assert_eq!((jobs.len(), jobs[0].aftermath, jobs[0].failed.attempt_id), (1, HOURS, attempt));
    assert_eq!(stage.state(message).await, Failed);
}

#[tokio::test]
async fn what_passes_is_sent_anew_as_often_and_as_late_as_the_code_says() {
    let mut stage = Stage::new().await;
    let mut taken = stage.taken().await;
    let next = stage.send(Given { conversation: taken.conversation, seq: 2, state: Queued, attempt: AttemptId::new() });
    let next = next.await;
    for nth in 1..=2 {
        stage.execute("DELETE FROM outbox").await;
        stage.fails(taken, HOURS).await;
        assert_eq!(stage.state(taken.message).await, Failed, "until then");
        assert_eq!(stage.jobs(taken.message).await.iter().filter(|(_, after)| *after == 7200).count(), 1, "time {nth}");
        assert!(stage.due_at(taken.message).await.is_some_and(|at| at > now() + TimeDelta::minutes(115)));
        let anew = What::SendAnew { attempt_id: taken.attempt, in_doubt: false };
        stage.execute("DELETE FROM outbox").await;
        for _ in 0..2 {
            stage.write_down(taken.message, anew.clone()).await;
        }
        assert_eq!(stage.state(taken.message).await, Queued);
        assert_eq!(stage.brought(taken.message).await, ["send"], "once");
        if nth == 1 {
            let waits: i64 = stage
                .one("SELECT count(*) FROM send_attempts WHERE message_id = $1 AND outcome = 'failed'", taken.message)
                .await;
            assert_eq!(waits, 1, "the attempt that failed is kept");
        }
        taken = stage.taken_anew(taken).await;
        assert_eq!(stage.state(taken.message).await, Sent);
    }
    stage.execute("DELETE FROM outbox").await;
    stage.fails(taken, HOURS).await;
    assert_eq!(
        (stage.state(taken.message).await, stage.due_at(taken.message).await),
        (Failed, None),
        "twice is enough"
    );
    let doubled: bool = stage.one("SELECT possibly_doubled FROM sends WHERE message_id = $1", taken.message).await;
    assert!(!doubled, "it was said not to have arrived");
    assert_eq!(stage.state(next).await, Queued, "nobody had to wait");
}

#[tokio::test]
async fn what_is_in_doubt_is_shown_as_possibly_doubled_and_what_arrived_after_all_is_not_sent() {
    let mut stage = Stage::new().await;
    let doubtful = Aftermath::Again { times: 1, after_seconds: 600, in_doubt: true };
    let one = stage.taken().await;
    stage.fails(one, doubtful).await;
    stage.write_down(one.message, What::SendAnew { attempt_id: one.attempt, in_doubt: true }).await;
    let doubled: bool = stage.one("SELECT possibly_doubled FROM sends WHERE message_id = $1", one.message).await;
    assert!(doubled && stage.state(one.message).await == Queued);
    let other = stage.taken().await;
    stage.fails(other, doubtful).await;
    let delivered = Report { state: Delivered, status: "delivered".into(), ..stage.failure(other, None) };
    stage.hear(&[delivered]).await;
    stage.write_down(other.message, What::SendAnew { attempt_id: other.attempt, in_doubt: true }).await;
    assert_eq!(stage.state(other.message).await, Delivered);
}

#[tokio::test]
async fn what_would_be_of_no_use_by_then_is_not_sent_anew() {
    let mut stage = Stage::new().await;
    let expires = stage.taken().await;
    stage.execute("UPDATE sends SET expires_at = now() + interval '1 hour'").await;
    let old = stage.taken().await;
    stage.execute("UPDATE sends SET created_at = now() - interval '23 hours' WHERE expires_at IS NULL").await;
    for taken in [expires, old] {
        stage.fails(taken, HOURS).await;
        assert_eq!((stage.state(taken.message).await, stage.due_at(taken.message).await), (Failed, None));
    }
}

#[tokio::test]
async fn a_tenant_may_have_another_rule() {
    let mut stage = Stage::new().await;
    sqlx::query("INSERT INTO tenant_settings (tenant_id, retry) VALUES ($1, $2) ON CONFLICT (tenant_id) DO UPDATE SET retry = excluded.retry")
        .bind(stage.tenant)
        .bind(json!({"undelivered": {"delays": [900]}}))
        .execute(&mut stage.admin)
        .await
        .unwrap();
    let taken = stage.taken().await;
    stage.fails(taken, HOURS).await;
    let due = stage.due_at(taken.message).await.expect("it is sent anew");
    assert!((14..=15).contains(&(due - now()).num_minutes()), "{due}");
}

#[tokio::test]
async fn an_account_that_a_report_takes_down_keeps_its_messages_and_is_back_when_one_is_reported_as_delivered() {
    let mut stage = Stage::new().await;
    let taken = stage.taken().await;
    stage.fails(taken, Aftermath::AccountDown).await;
    assert_eq!(stage.account().await, ("down".to_owned(), Some("30003".to_owned())));
    let wait: Option<String> = stage.one("SELECT wait_reason FROM sends WHERE message_id = $1", taken.message).await;
    assert_eq!((stage.state(taken.message).await, wait.as_deref()), (Waiting, Some("account_down")));
    // It is tried with the message; that the provider takes it is no news.
    stage.execute("DELETE FROM outbox").await;
    stage.execute("UPDATE channel_accounts SET probe_at = now() - interval '1 second'").await;
    stage.see_to_them().await;
    assert_eq!(stage.brought(taken.message).await, ["send"]);
    let answers = stage.ask(&[taken.message]).await;
    let Answer::Granted(grant) = &answers[0].answer else { panic!("{answers:?}") };
    let mut place = stage.place(taken.conversation);
    place.probe = true;
    let attempt_id = grant.attempt_id;
    let what = What::Accepted { attempt_id, provider_message_id: "SM2".into() };
    let of = Record { tenant_id: stage.tenant, message_id: taken.message, place: Some(place), what, slice: None };
    let mut tx = stage.fleet().await;
    record(&mut tx, &[of], PATIENCE).await.unwrap();
    tx.commit().await.unwrap();
    stage.see_to_them().await;
    assert_eq!(stage.account().await.0, "down", "it was taken before, too");
    let probe = Taken { attempt: attempt_id, ..taken };
    let told =
        Report { state: Sent, status: "sent".into(), provider_message_id: "SM2".into(), ..stage.failure(probe, None) };
    stage.hear(std::slice::from_ref(&told)).await;
    stage.see_to_them().await;
    assert_eq!(stage.account().await.0, "down", "it was sent on before, too");
    stage.hear(&[Report { state: Delivered, status: "delivered".into(), ..told }]).await;
    stage.see_to_them().await;
    assert_eq!(stage.account().await, ("active".to_owned(), None));
    // Down again soon, it goes on being tried as seldom as before.
    let again = stage.taken().await;
    stage.fails(again, Aftermath::AccountDown).await;
    let wait: f64 = sqlx::query_scalar("SELECT EXTRACT(epoch FROM probe_at - now())::float8 FROM channel_accounts")
        .fetch_one(&mut stage.admin)
        .await
        .unwrap();
    assert_eq!((wait / 60.0).round(), 2.0, "minutes");
}

#[tokio::test]
async fn a_message_does_not_wait_for_its_account_without_end() {
    let mut stage = Stage::new().await;
    let mut taken = stage.taken().await;
    for _ in 1..5 {
        stage.fails(taken, Aftermath::AccountDown).await;
        assert_eq!(stage.state(taken.message).await, Waiting);
        stage.execute("UPDATE channel_accounts SET probe_at = now() - interval '1 second'").await;
        taken = stage.taken_anew(taken).await;
    }
    stage.fails(taken, Aftermath::AccountDown).await;
    assert_eq!(stage.state(taken.message).await, Failed);
}

#[tokio::test]
async fn what_is_told_of_an_attempt_a_day_ago_leads_to_nothing() {
    let mut stage = Stage::new().await;
    let taken = stage.taken().await;
    stage.execute("UPDATE sends SET granted_at = now() - interval '25 hours'").await;
    stage.hear(&[stage.failure(taken, Some(Aftermath::AccountDown))]).await;
    assert_eq!((stage.state(taken.message).await, stage.aftermath_jobs().await.len()), (Failed, 0));
}

#[tokio::test]
async fn a_report_says_nothing_of_an_account_that_has_come_back_since() {
    let mut stage = Stage::new().await;
    let taken = stage.taken().await;
    stage.resume().await;
    stage.fails(taken, Aftermath::AccountDown).await;
    assert_eq!(stage.account().await.0, "active");
    assert_eq!(stage.state(taken.message).await, Queued, "it goes once more, by the account as it is now");
}

#[tokio::test]
async fn a_probes_message_that_ended_otherwise_is_followed_by_another_that_waits() {
    let mut stage = Stage::new().await;
    let taken = stage.taken().await;
    stage.fails(taken, Aftermath::AccountDown).await;
    let (conversation, waiting) = stage.lone_send().await;
    stage.record(waiting, conversation, What::Waits { reason: WaitReason::AccountDown, after: None }).await;
    stage.execute("UPDATE sends SET state = 'cancelled' WHERE attempt_id IS NULL").await;
    stage.execute("UPDATE sends SET state = 'waiting' WHERE wait_reason = 'account_down' AND retried_at IS NULL").await;
    stage.execute("DELETE FROM outbox").await;
    stage.execute("UPDATE channel_accounts SET probe_at = now() - interval '1 second'").await;
    stage.see_to_them().await;
    assert_eq!(stage.brought(waiting).await, ["send"]);
}

#[tokio::test]
async fn a_window_that_a_report_says_is_closed_is_closed_unless_the_customer_has_written_since() {
    let mut stage = Stage::new().await;
    for (has_written, is_open) in [(false, false), (true, true)] {
        let taken = stage.taken().await;
        if has_written {
            sqlx::query("UPDATE conversations SET last_inbound_at = now() + interval '1 second' WHERE id = $1")
                .bind(taken.conversation)
                .execute(&mut stage.admin)
                .await
                .unwrap();
        }
        stage.fails(taken, Aftermath::WindowClosed).await;
        let open: bool = sqlx::query_scalar("SELECT window_expires_at > now() FROM conversations WHERE id = $1")
            .bind(taken.conversation)
            .fetch_one(&mut stage.admin)
            .await
            .unwrap();
        assert_eq!(open, is_open, "has written: {has_written}");
        assert_eq!(stage.state(taken.message).await, Failed);
    }
}

#[tokio::test]
async fn a_throttle_that_a_report_tells_slows_the_account_down_once() {
    let mut stage = Stage::new().await;
    stage
        .execute(
            "INSERT INTO limits (tenant_id, scope, key, rate, current_rate)
            SELECT tenant_id, 'account', id, 80, 80 FROM channel_accounts",
        )
        .await;
    let (one, other) = (stage.taken().await, stage.taken().await);
    stage.execute("UPDATE sends SET granted_at = granted_at - interval '1 minute'").await;
    for taken in [one, other] {
        stage.fails(taken, Aftermath::Slow { class: Class::Account }).await;
        // It is not the second in which a rate is lowered but once.
        stage.execute("UPDATE limits SET lowered_at = lowered_at - interval '2 seconds'").await;
    }
    let rate: f64 = sqlx::query_scalar("SELECT current_rate FROM limits").fetch_one(&mut stage.admin).await.unwrap();
    assert_eq!(rate, 40.0, "both were sent before it was lowered");
    assert!(stage.due_at(one.message).await.is_some(), "and it is sent anew");
    let stopped = "SELECT stopped_until > now() + interval '50 minutes' FROM limits";
    assert_eq!(sqlx::query_scalar::<_, Option<bool>>(stopped).fetch_one(&mut stage.admin).await.unwrap(), Some(false));
    let third = stage.taken().await;
    stage.execute("UPDATE sends SET granted_at = granted_at - interval '1 minute'").await;
    stage.fails(third, Aftermath::Slow { class: Class::Day }).await;
    assert_eq!(sqlx::query_scalar::<_, Option<bool>>(stopped).fetch_one(&mut stage.admin).await.unwrap(), Some(true));
    let rate: f64 = sqlx::query_scalar("SELECT current_rate FROM limits").fetch_one(&mut stage.admin).await.unwrap();
    assert_eq!(rate, 40.0, "the day is over all the same");
}

#[tokio::test]
async fn a_campaigns_message_is_sent_anew_and_the_campaign_runs_again_for_it() {
    let mut stage = Stage::new().await;
    let campaign = CampaignId::new();
    let taken = stage.taken().await;
    for statement in [
        "INSERT INTO campaigns (tenant_id, id, name, channel_account_id, state, content, audience, ended_at)
        SELECT $1, $2, 'spring', id, 'completed', '{}', '{}', now() FROM channel_accounts",
        "INSERT INTO campaign_counts (tenant_id, campaign_id, sent) VALUES ($1, $2, 1)",
        "UPDATE sends SET lane = 1, campaign_id = $2 WHERE tenant_id = $1",
    ] {
        sqlx::query(statement).bind(stage.tenant).bind(campaign).execute(&mut stage.admin).await.unwrap();
    }
    stage.fails(taken, HOURS).await;
    assert_eq!(stage.campaign_row(campaign).await.0, "completed", "until then");
    let queue: String = sqlx::query_scalar("SELECT queue FROM outbox WHERE job ->> 'kind' = 'outbound.send_anew'")
        .fetch_one(&mut stage.admin)
        .await
        .unwrap();
    assert_eq!(queue, "outbound.bulk", "behind what people send");
    stage.execute("DELETE FROM outbox").await;
    stage.write_down(taken.message, What::SendAnew { attempt_id: taken.attempt, in_doubt: false }).await;
    assert_eq!((stage.campaign_row(campaign).await.0.as_str(), stage.state(taken.message).await), ("running", Queued));
    let counts: Value =
        sqlx::query_scalar("SELECT to_jsonb(c) FROM campaign_counts c").fetch_one(&mut stage.admin).await.unwrap();
    assert_eq!((&counts["sent"], &counts["failed"], &counts["in_flight"]), (&json!(0), &json!(0), &json!(1)));
    let queue: String = sqlx::query_scalar("SELECT queue FROM outbox").fetch_one(&mut stage.admin).await.unwrap();
    assert_eq!(queue, "outbound.bulk");
    // Of one that was stopped for good nothing is.
    sqlx::query("UPDATE campaigns SET state = 'cancelled' WHERE id = $1")
        .bind(campaign)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    let taken = stage.taken_anew_by_hand(taken).await;
    stage.fails(taken, HOURS).await;
    stage.write_down(taken.message, What::SendAnew { attempt_id: taken.attempt, in_doubt: false }).await;
    assert_eq!(stage.state(taken.message).await, Failed);
}

impl Stage {
    /// As if it had been granted before its campaign was stopped.
    async fn taken_anew_by_hand(&mut self, before: Taken) -> Taken {
        let attempt = AttemptId::new();
        sqlx::query("UPDATE sends SET state = 'sending', attempt_id = $1, granted_at = now() WHERE message_id = $2")
            .bind(attempt)
            .bind(before.message)
            .execute(&mut self.admin)
            .await
            .unwrap();
        let what = What::Accepted { attempt_id: attempt, provider_message_id: format!("SM{}", before.message) };
        self.record(before.message, before.conversation, what).await;
        Taken { attempt, ..before }
    }

    /// A template that is approved, a campaign that sends it, and a message of it that the provider has taken.
    async fn with_a_template(&mut self, name: &str) -> (CampaignId, Taken) {
        let (campaign, taken) = (CampaignId::new(), self.taken().await);
        let content = json!({"type": "template", "name": name, "language": "en", "variables": []});
        sqlx::query(
            "INSERT INTO templates (tenant_id, channel_account_id, name, language, status, category, body, variables, synced_at)
            VALUES ($1, $2, $3, 'en', 'APPROVED', 'MARKETING', 'Hi', 0, now() - interval '1 hour')",
        )
        .bind(self.tenant)
        .bind(self.account)
        .bind(name)
        .execute(&mut self.admin)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO campaigns (tenant_id, id, name, channel_account_id, state, content, audience) VALUES ($1, $2, 'spring', $3, 'running', $4, '{}')",
        )
        .bind(self.tenant)
        .bind(campaign)
        .bind(self.account)
        .bind(&content)
        .execute(&mut self.admin)
        .await
        .unwrap();
        sqlx::query("UPDATE messages SET content = $1 WHERE id = $2")
            .bind(&content)
            .bind(taken.message)
            .execute(&mut self.admin)
            .await
            .unwrap();
        (campaign, taken)
    }

    async fn template(&mut self, name: &str) -> String {
        sqlx::query_scalar("SELECT status FROM templates WHERE name = $1")
            .bind(name)
            .fetch_one(&mut self.admin)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_template_that_is_refused_is_blocked_and_its_campaigns_are_paused() {
    let mut stage = Stage::new().await;
    let (other, _) = stage.with_a_template("autumn").await;
    let (spring, taken) = stage.with_a_template("spring").await;
    stage.fails(taken, Aftermath::TemplateBlocked { block: Block::Paused }).await;
    assert_eq!(stage.template("spring").await, "PAUSED");
    let as_of_the_attempt: bool = stage
        .one(
            "SELECT t.status_told_at = s.granted_at FROM templates t, sends s WHERE t.name = 'spring' AND s.message_id = $1",
            taken.message,
        )
        .await;
    assert!(as_of_the_attempt, "an approval since is news");
    assert_eq!(stage.campaign_row(spring).await, ("paused".to_owned(), Some("30003".to_owned())));
    assert_eq!(
        (stage.template("autumn").await.as_str(), stage.campaign_row(other).await.0.as_str()),
        ("APPROVED", "running")
    );
    // The answer to a call says the same.
    let conversation = stage.conversation().await;
    let attempt = AttemptId::new();
    let message = stage.send(Given { conversation, seq: 1, state: Sending, attempt }).await;
    let content = json!({"type": "template", "name": "autumn", "language": "en", "variables": []});
    sqlx::query("UPDATE messages SET content = $1 WHERE id = $2")
        .bind(content)
        .bind(message)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    let says = Says::TemplateBlocked(Block::Disabled);
    let refused = What::Failed { attempt_id: attempt, code: "132016".into(), reason: "Disabled.".into(), says };
    stage.record(message, conversation, refused).await;
    assert_eq!((stage.state(message).await, stage.template("autumn").await.as_str()), (Failed, "DISABLED"));
    assert_eq!(stage.campaign_row(other).await, ("paused".to_owned(), Some("132016".to_owned())));
}

#[tokio::test]
async fn of_many_messages_with_a_blocked_template_one_leads_to_a_job() {
    let mut stage = Stage::new().await;
    let (_, one) = stage.with_a_template("spring").await;
    let (_, another) = stage.with_a_template("autumn").await;
    let like_one = stage.taken().await;
    sqlx::query("UPDATE messages SET content = (SELECT content FROM messages WHERE id = $1) WHERE id = $2")
        .bind(one.message)
        .bind(like_one.message)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    let blocked = Some(Aftermath::TemplateBlocked { block: Block::Paused });
    let reports: Vec<Report> = [one, another, like_one].iter().map(|taken| stage.failure(*taken, blocked)).collect();
    stage.hear(&reports).await;
    let jobs = stage.aftermath_jobs().await;
    assert_eq!(jobs.len(), 2, "one for each template");
    assert!(jobs.iter().any(|job| job.message_id == another.message));
}

#[tokio::test]
async fn a_report_says_nothing_of_a_template_that_has_come_back_since() {
    let mut stage = Stage::new().await;
    for (name, since) in [
        ("spring", "UPDATE templates SET status_told_at = now() + interval '1 second'"),
        // Fetched, and found as it was.
        ("summer", "UPDATE channel_accounts SET templates_synced_at = now() + interval '1 second'"),
    ] {
        let (campaign, taken) = stage.with_a_template(name).await;
        stage.execute(since).await;
        stage.fails(taken, Aftermath::TemplateBlocked { block: Block::Paused }).await;
        assert_eq!(
            (stage.template(name).await.as_str(), stage.campaign_row(campaign).await.0.as_str()),
            ("APPROVED", "running"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn an_account_that_may_send_no_templates_has_all_its_campaigns_with_templates_paused() {
    let mut stage = Stage::new().await;
    let (one, taken) = stage.with_a_template("spring").await;
    let (other, _) = stage.with_a_template("autumn").await;
    stage.fails(taken, Aftermath::TemplateBlocked { block: Block::AllTemplates }).await;
    for campaign in [one, other] {
        assert_eq!(stage.campaign_row(campaign).await.0, "paused");
    }
    assert_eq!(stage.template("spring").await, "APPROVED", "as it was");
    let alert: Option<String> =
        sqlx::query_scalar("SELECT alert_code FROM channel_accounts").fetch_one(&mut stage.admin).await.unwrap();
    assert_eq!(alert.as_deref(), Some("30003"));
    assert_eq!(stage.account().await.0, "active", "answers may go");
}
