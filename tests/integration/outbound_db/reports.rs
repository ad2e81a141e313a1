//! A provider's reports: the SQL that moves sends on says what `SendState::after_report` says.

use super::{Given, Stage, now};
use chrono::TimeDelta;
use shared::{
    db::{
        inbound::{
            refs::{self, Ref},
            reports::{self, Report},
        },
        outbound::{
            counts,
            outcomes::{Says, What},
        },
    },
    domain::{
        events::SendToken,
        ids::{AttemptId, ConversationId, MessageId},
        outcome::Class,
        sends::SendState::{self, Delivered, Failed, Queued, Read, Sending, Sent},
    },
};

const REPORTED: [SendState; 4] = [Sent, Delivered, Read, Failed];

impl Stage {
    /// By an attempt of ours, or by the provider's id alone.
    fn report(&self, of: Option<(MessageId, AttemptId)>, provider_message_id: &str, state: SendState) -> Report {
        Report {
            tenant_id: self.tenant,
            channel_account_id: self.account,
            provider_message_id: provider_message_id.to_owned(),
            state,
            status: state.as_str().to_owned(),
            at: now(),
            code: (state == Failed).then(|| "131026".to_owned()),
            reason: (state == Failed).then(|| "not reachable".to_owned()),
            aftermath: None,
            token: of.map(|(message_id, attempt_id)| SendToken { message_id, attempt_id }),
        }
    }

    async fn apply(&self, reports: &[Report]) {
        let mut tx = self.fleet().await;
        let moved = reports::apply(&mut tx, reports).await.unwrap();
        counts::count(&mut tx, &moved).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn every_report_moves_every_state_as_the_rule_says() {
    let mut stage = Stage::new().await;
    for before in SendState::ALL.iter().copied() {
        for reported in REPORTED {
            let conversation = stage.conversation().await;
            let given = Given { conversation, seq: 1, state: before, attempt: AttemptId::new() };
            let message = stage.send(given).await;
            let report = stage.report(Some((message, given.attempt)), &format!("wamid.{message}"), reported);
            stage.apply(std::slice::from_ref(&report)).await;
            let after = before.after_report(reported);
            assert_eq!(stage.state(message).await, after, "{before}, then {reported} was reported");
            let once = (stage.row(message).await, stage.trail(message).await);
            stage.apply(&[report]).await;
            assert_eq!((stage.row(message).await, stage.trail(message).await), once, "{before}: {reported} twice");
        }
    }
}

#[tokio::test]
async fn the_order_in_which_reports_come_does_not_matter() {
    let mut stage = Stage::new().await;
    for several in [vec![Read, Sent, Delivered], vec![Delivered, Failed], vec![Sent, Failed], vec![Read, Failed, Sent]]
    {
        let furthest = several.iter().fold(Sending, |state, reported| state.after_report(*reported));
        for turn in 0..several.len() {
            let mut order = several.clone();
            order.rotate_left(turn);
            for at_once in [true, false] {
                let conversation = stage.conversation().await;
                let given = Given { conversation, seq: 1, state: Sending, attempt: AttemptId::new() };
                let message = stage.send(given).await;
                let reports: Vec<Report> = order
                    .iter()
                    .map(|state| stage.report(Some((message, given.attempt)), &format!("wamid.{message}"), *state))
                    .collect();
                for batch in reports.chunks(if at_once { reports.len() } else { 1 }) {
                    stage.apply(batch).await;
                }
                assert_eq!(stage.state(message).await, furthest, "{order:?}, at once: {at_once}");
            }
        }
    }
}

#[tokio::test]
async fn a_report_that_comes_before_its_send_is_known_waits_for_it() {
    let mut stage = Stage::new().await;
    for early in
        [vec![Sent], vec![Delivered, Sent], vec![Read], vec![Failed], vec![Failed, Delivered], vec![Sent, Failed]]
    {
        for at_once in [true, false] {
            let conversation = stage.conversation().await;
            let attempt = AttemptId::new();
            let message = stage.send(Given { conversation, seq: 1, state: Sending, attempt }).await;
            let next = stage.send(Given { conversation, seq: 2, state: Queued, attempt: AttemptId::new() }).await;
            let provider_id = format!("wamid.{message}");
            let reports: Vec<Report> = early.iter().map(|state| stage.report(None, &provider_id, *state)).collect();
            for batch in reports.chunks(if at_once { reports.len() } else { 1 }) {
                stage.apply(batch).await;
            }
            assert_eq!(stage.state(message).await, Sending, "nobody knows yet whose report it is");
            let accepted = What::Accepted { attempt_id: attempt, provider_message_id: provider_id };
            stage.record(message, conversation, accepted.clone()).await;
            let furthest = early.iter().fold(Sent, |state, reported| state.after_report(*reported));
            assert_eq!(stage.state(message).await, furthest, "{early:?}, at once: {at_once}");
            assert_eq!(stage.jobs(next).await.len(), 1, "the next one may go, and is told so once");
            stage.record(message, conversation, accepted).await;
            assert_eq!(stage.state(message).await, furthest, "{early:?}, and the acceptance a second time");
        }
    }
}

#[tokio::test]
async fn a_late_failure_of_an_earlier_attempt_leaves_the_later_one_alone() {
    let mut stage = Stage::new().await;
    for at_once in [true, false] {
        for (before, later, after) in [(Sending, None, Sending), (Sent, None, Sent), (Sending, Some(Sent), Sent)] {
            let conversation = stage.conversation().await;
            let (first, second) = (AttemptId::new(), AttemptId::new());
            let message = stage.send(Given { conversation, seq: 1, state: before, attempt: second }).await;
            let provider_id = |attempt: AttemptId| format!("wamid.{attempt}");
            let mut reports = vec![stage.report(Some((message, first)), &provider_id(first), Failed)];
            reports.extend(later.map(|state| stage.report(Some((message, second)), &provider_id(second), state)));
            for batch in reports.chunks(if at_once { reports.len() } else { 1 }) {
                stage.apply(batch).await;
            }
            assert_eq!(stage.state(message).await, after, "{before}, then {later:?}, at once: {at_once}");
            let code: Option<String> = stage.one("SELECT code FROM sends WHERE message_id = $1", message).await;
            assert_eq!(code, None);
            assert!(stage.trail(message).await.contains(&"failed".to_owned()), "it is told all the same");

            stage.apply(&[stage.report(Some((message, second)), &provider_id(second), Failed)]).await;
            assert_eq!(stage.state(message).await, Failed, "the attempt that counts");
            stage.apply(&[stage.report(Some((message, first)), &provider_id(first), Delivered)]).await;
            assert_eq!(stage.state(message).await, Delivered, "the person has it, by whichever attempt");
        }
    }
}

#[tokio::test]
async fn a_report_without_our_token_finds_its_send_by_the_providers_id() {
    let mut stage = Stage::new().await;
    let (conversation, message) = stage.lone_send().await;
    let granted = stage.ask(&[message]).await;
    let attempt_id = match &granted[0].answer {
        shared::db::outbound::grant::Answer::Granted(grant) => grant.attempt_id,
        other => panic!("{other:?}"),
    };
    stage.record(message, conversation, What::Accepted { attempt_id, provider_message_id: "wamid.1".into() }).await;
    let mut late = stage.report(None, "wamid.1", Delivered);
    late.at = now() + TimeDelta::seconds(1);
    stage.apply(&[late]).await;
    assert_eq!(stage.state(message).await, Delivered);
    let other_account = Report {
        channel_account_id: shared::domain::ids::ChannelAccountId::new(),
        ..stage.report(None, "wamid.1", Read)
    };
    stage.apply(&[other_account]).await;
    assert_eq!(stage.state(message).await, Delivered, "another account's ids are not ours");
}

#[tokio::test]
async fn a_report_that_waits_under_the_id_of_a_customers_message_does_not_swallow_it() {
    let stage = Stage::new().await;
    stage.apply(&[stage.report(None, "wamid.in", Delivered)]).await;
    let is_new = async || {
        let message_id = MessageId::new();
        let (tenant_id, channel_account_id) = (stage.tenant, stage.account);
        let mut tx = stage.fleet().await;
        let claimed = Ref { tenant_id, channel_account_id, provider_message_id: "wamid.in", message_id };
        let new = refs::claim(&mut tx, &[claimed]).await.unwrap().new;
        tx.commit().await.unwrap();
        new.contains(&message_id)
    };
    assert!(is_new().await);
    assert!(!is_new().await, "it was received before");
}

impl Stage {
    /// A send by a first attempt that was taken and then failed, let go again and, if `called`, being called by a second.
    async fn retried(&mut self, called: bool) -> (MessageId, AttemptId, Option<AttemptId>) {
        let (conversation, message) = self.lone_send().await;
        let first = self.granted(message).await;
        let id = format!("wamid.{first}");
        self.record(message, conversation, What::Accepted { attempt_id: first, provider_message_id: id.clone() }).await;
        self.apply(&[self.report(Some((message, first)), &id, Failed)]).await;
        assert_eq!(self.state(message).await, Failed);
        self.let_go_again(message).await;
        let second = if called { Some(self.granted(message).await) } else { None };
        (message, first, second)
    }

    /// As a retry of its campaign lets it go: `let_go_again.sql` is tested there.
    async fn let_go_again(&mut self, message: MessageId) {
        sqlx::query(
            "UPDATE sends
            SET state = 'queued', retried_at = now(), retried_attempts = array_append(retried_attempts, attempt_id), attempt_id = NULL,
                provider_message_id = NULL, code = NULL, reason = NULL, sent_at = NULL, failed_at = NULL
            WHERE message_id = $1",
        )
        .bind(message)
        .execute(&mut self.admin)
        .await
        .unwrap();
    }

    /// A send by a first attempt of which nobody knows, being called by a second.
    async fn sent_again(&mut self) -> (ConversationId, MessageId, AttemptId, AttemptId) {
        self.execute("UPDATE channel_accounts SET when_unknown = 'resend'").await;
        let (conversation, message) = self.lone_send().await;
        let first = self.granted(message).await;
        self.record(message, conversation, What::Unknown { attempt_id: first, reason: "cut".into() }).await;
        self.execute("UPDATE sends SET unknown_at = now() - interval '1 hour' WHERE state = 'unknown'").await;
        self.record(message, conversation, What::Settled).await;
        let second = self.granted(message).await;
        (conversation, message, first, second)
    }

    async fn is_possibly_doubled(&mut self, message: MessageId) -> bool {
        self.one("SELECT possibly_doubled FROM sends WHERE message_id = $1", message).await
    }
}

#[tokio::test]
async fn what_is_heard_late_of_a_failed_attempt_is_no_news_of_the_one_after_it() {
    let mut stage = Stage::new().await;
    for with_token in [true, false] {
        for called in [true, false] {
            for late in [vec![Failed], vec![Sent], vec![Sent, Failed]] {
                let (message, first, second) = stage.retried(called).await;
                let token = with_token.then_some((message, first));
                for state in late.iter().copied() {
                    stage.apply(&[stage.report(token, &format!("wamid.{first}"), state)]).await;
                }
                let expected = if called { Sending } else { Queued };
                assert_eq!(stage.state(message).await, expected, "{late:?}, token: {with_token}");
                assert!(!stage.is_possibly_doubled(message).await);
                let Some(second) = second else { continue };
                let id = format!("wamid.{second}");
                stage.apply(&[stage.report(Some((message, second)), &id, Sent)]).await;
                stage.apply(&[stage.report(token, &format!("wamid.{first}"), Failed)]).await;
                assert_eq!(stage.state(message).await, Sent, "by the second");
                stage.apply(&[stage.report(Some((message, second)), &id, Failed)]).await;
                assert_eq!(stage.state(message).await, Failed, "the attempt that counts");
            }
        }
    }
}

#[tokio::test]
async fn that_a_failed_attempt_arrived_after_all_keeps_the_next_from_going_or_shows_that_there_may_be_two() {
    let mut stage = Stage::new().await;
    for with_token in [true, false] {
        for called in [true, false] {
            for arrived in [Delivered, Read] {
                let (message, first, second) = stage.retried(called).await;
                let token = with_token.then_some((message, first));
                for _ in 0..2 {
                    stage.apply(&[stage.report(token, &format!("wamid.{first}"), arrived)]).await;
                }
                assert_eq!(stage.state(message).await, arrived);
                assert_eq!(stage.is_possibly_doubled(message).await, called, "{arrived}, token: {with_token}");
                let answers = stage.ask(&[message]).await;
                let granted = matches!(answers[0].answer, shared::db::outbound::grant::Answer::Granted(_));
                assert!(!granted, "the person has it");
                if let Some(attempt_id) = second {
                    let conversation =
                        stage.one("SELECT conversation_id FROM sends WHERE message_id = $1", message).await;
                    let provider_message_id = format!("wamid.{attempt_id}");
                    stage.record(message, conversation, What::Accepted { attempt_id, provider_message_id }).await;
                    assert_eq!((stage.state(message).await, stage.is_possibly_doubled(message).await), (arrived, true));
                }
            }
        }
    }
}

#[tokio::test]
async fn two_attempts_reported_on_at_once_are_each_taken_for_what_they_are() {
    let mut stage = Stage::new().await;
    for first_is_first in [true, false] {
        let (message, first, second) = stage.retried(true).await;
        let second = second.unwrap();
        let mut reports = vec![
            stage.report(Some((message, first)), &format!("wamid.{first}"), Failed),
            stage.report(Some((message, second)), &format!("wamid.{second}"), Sent),
        ];
        if !first_is_first {
            reports.reverse();
        }
        stage.apply(&reports).await;
        assert_eq!(stage.state(message).await, Sent);
        let id: String = stage.one("SELECT provider_message_id FROM sends WHERE message_id = $1", message).await;
        assert_eq!(id, format!("wamid.{second}"));
    }
}

#[tokio::test]
async fn a_worker_that_says_late_that_a_failed_attempt_was_taken_changes_nothing() {
    let mut stage = Stage::new().await;
    let (conversation, message) = stage.lone_send().await;
    let first = stage.granted(message).await;
    let id = format!("wamid.{first}");
    stage.apply(&[stage.report(Some((message, first)), &id, Failed)]).await;
    stage.let_go_again(message).await;
    let taken = What::Accepted { attempt_id: first, provider_message_id: id };
    for state in [Queued, Sending] {
        if state == Sending {
            stage.granted(message).await;
        }
        stage.record(message, conversation, taken.clone()).await;
        assert_eq!((stage.state(message).await, stage.is_possibly_doubled(message).await), (state, false));
    }
}

#[tokio::test]
async fn an_attempt_that_was_unknown_before_a_retry_is_believed_whatever_it_reports() {
    let mut stage = Stage::new().await;
    for (late, expected) in [
        (vec![], Queued),
        (vec![Failed], Queued),
        (vec![Sent], Sent),
        (vec![Sent, Failed], Failed),
        (vec![Delivered], Delivered),
        (vec![Sent, Delivered, Failed], Delivered),
    ] {
        let (conversation, message, first, second) = stage.sent_again().await;
        let (code, reason) = ("131026".to_owned(), "not reachable".to_owned());
        let refused = What::Failed { attempt_id: second, code, reason, says: Says::Nothing };
        stage.record(message, conversation, refused).await;
        stage.let_go_again(message).await;
        for state in late.iter().copied() {
            stage.apply(&[stage.report(Some((message, first)), &format!("wamid.{first}"), state)]).await;
        }
        assert_eq!(stage.state(message).await, expected, "{late:?}");
        assert!(stage.is_possibly_doubled(message).await, "it was sent again, and is shown as such");
        let answers = stage.ask(&[message]).await;
        let granted = matches!(answers[0].answer, shared::db::outbound::grant::Answer::Granted(_));
        assert_eq!(granted, expected == Queued, "{late:?}: a third time only where the first is not heard of");
    }
}

#[tokio::test]
async fn of_two_attempts_the_later_counts_if_it_was_taken() {
    let mut stage = Stage::new().await;
    for by_report in [true, false] {
        for later_taken in [true, false] {
            let (conversation, message, first, second) = stage.sent_again().await;
            let (id_of_first, id_of_second) = (format!("wamid.{first}"), format!("wamid.{second}"));
            // While the second is being called it turns out that the first was taken.
            if by_report {
                stage.apply(&[stage.report(Some((message, first)), &id_of_first, Sent)]).await;
            } else {
                let taken = What::Accepted { attempt_id: first, provider_message_id: id_of_first.clone() };
                stage.record(message, conversation, taken).await;
            }
            assert_eq!((stage.state(message).await, stage.is_possibly_doubled(message).await), (Sent, true));
            let what = if later_taken {
                What::Accepted { attempt_id: second, provider_message_id: id_of_second.clone() }
            } else {
                let (code, reason, after) = ("131016".into(), "overloaded".into(), std::time::Duration::ZERO);
                What::NotSent { attempt_id: second, code, reason, class: Class::Transient, after, slow: None }
            };
            stage.record(message, conversation, what).await;
            assert_eq!(stage.state(message).await, Sent, "no third call");
            stage.apply(&[stage.report(Some((message, first)), &id_of_first, Failed)]).await;
            let expected = if later_taken { Sent } else { Failed };
            assert_eq!(stage.state(message).await, expected, "by report: {by_report}, later taken: {later_taken}");
        }
    }
}
