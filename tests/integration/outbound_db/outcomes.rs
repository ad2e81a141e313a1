//! Every thing that can happen to a send in every state it can be in: where it stands afterwards, which attempt is written
//! down, whose turn it is next, and that a second time changes nothing.

use super::{Given, PATIENCE, Stage};
use shared::{
    db::outbound::{
        grant::{Answer, Obstacle},
        outcomes::{Record, Says, What, record},
    },
    domain::{
        ids::AttemptId,
        outcome::Class,
        sends::{
            SendState::{self, Failed, Held, Queued, Sending, Sent, Unknown, Waiting},
            WaitReason,
        },
    },
};
use std::time::Duration;

const AFTER: Duration = Duration::from_secs(77);

/// What happened, to which of these states it applies and where those go; everywhere else nothing changes.
struct Case {
    name: &'static str,
    what: What,
    moves: &'static [(SendState, SendState)],
    /// Written down as an attempt: always, only with a change, or not at all.
    attempt: Written,
    resend: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Written {
    Always(&'static str),
    WithAChange(&'static str),
    Never,
}

/// A word from the attempt itself counts as long as nobody knows better.
const OPEN_TO_WAITING: &[(SendState, SendState)] = &[(Sending, Waiting), (Unknown, Waiting), (Held, Waiting)];
const OPEN_TO_FAILED: &[(SendState, SendState)] = &[(Sending, Failed), (Unknown, Failed), (Held, Failed)];
const OPEN_TO_QUEUED: &[(SendState, SendState)] = &[(Sending, Queued), (Unknown, Queued), (Held, Queued)];

fn cases(mine: AttemptId, other: AttemptId) -> Vec<Case> {
    use Written::{Always, Never, WithAChange};
    let case = |name, what, moves, attempt| Case { name, what, moves, attempt, resend: false };
    let accepted = |attempt_id| What::Accepted { attempt_id, provider_message_id: "wamid.1".into() };
    let (code, reason) = (|| "131016".to_owned(), || "overloaded".to_owned());
    let not_sent = |attempt_id| What::NotSent {
        attempt_id,
        code: code(),
        reason: reason(),
        after: AFTER,
        class: Class::Transient,
        slow: None,
    };
    let failed = |attempt_id| What::Failed { attempt_id, code: code(), reason: reason(), says: Says::Nothing };
    let down = |attempt_id| What::AccountDown { attempt_id, code: code(), reason: reason() };
    vec![
        case(
            "accepted",
            accepted(mine),
            &[(Waiting, Sent), (Queued, Sent), (Sending, Sent), (Unknown, Sent), (Held, Sent)],
            Always("accepted"),
        ),
        case(
            "an earlier attempt accepted",
            accepted(other),
            &[(Waiting, Sent), (Queued, Sent), (Sending, Sent), (Unknown, Sent), (Held, Sent)],
            Always("accepted"),
        ),
        case("not sent", not_sent(mine), OPEN_TO_WAITING, Always("not_sent")),
        case("an earlier attempt not sent", not_sent(other), &[], Always("not_sent")),
        case("unknown", What::Unknown { attempt_id: mine, reason: reason() }, &[(Sending, Unknown)], Always("unknown")),
        case(
            "an earlier attempt unknown",
            What::Unknown { attempt_id: other, reason: reason() },
            &[],
            Always("unknown"),
        ),
        case("failed", failed(mine), OPEN_TO_FAILED, Always("failed")),
        case("an earlier attempt failed", failed(other), &[], Always("failed")),
        case("account down", down(mine), OPEN_TO_WAITING, Always("account_down")),
        case("an earlier attempt found the account down", down(other), &[], Always("account_down")),
        case("given back", What::GivenBack { attempt_id: mine, reason: reason(), after: None }, OPEN_TO_QUEUED, Never),
        case(
            "an earlier attempt given back",
            What::GivenBack { attempt_id: other, reason: reason(), after: None },
            &[],
            Never,
        ),
        case("expired", What::Expired { attempt_id: Some(mine) }, &[(Sending, Unknown)], WithAChange("expired")),
        case("an earlier attempt expired", What::Expired { attempt_id: Some(other) }, &[], WithAChange("expired")),
        case(
            "waits for a time",
            What::Waits { reason: WaitReason::Rate, after: Some(AFTER) },
            &[(Waiting, Waiting), (Queued, Waiting)],
            Never,
        ),
        case(
            "waits its turn",
            What::Waits { reason: WaitReason::Turn, after: None },
            &[(Waiting, Waiting), (Queued, Waiting)],
            Never,
        ),
        case(
            "refused",
            What::Refused { code: "window_closed", reason: reason() },
            &[(Waiting, Failed), (Queued, Failed)],
            Never,
        ),
        case("turn released", What::TurnReleased, &[(Unknown, Unknown)], Never),
        case("no evidence", What::Settled, &[(Unknown, Held)], Never),
        Case {
            name: "no evidence, sent again",
            what: What::Settled,
            moves: &[(Unknown, Queued)],
            attempt: Never,
            resend: true,
        },
    ]
}

fn holds_up(state: SendState) -> bool {
    matches!(state, Waiting | Queued | Sending | Unknown)
}

#[tokio::test]
async fn everything_that_can_happen_in_every_state() {
    let mut stage = Stage::new().await;
    let mut wrong = Vec::new();
    for before in SendState::ALL.iter().copied() {
        let count = cases(AttemptId::new(), AttemptId::new()).len();
        for index in 0..count {
            let (mine, other) = (AttemptId::new(), AttemptId::new());
            let case = cases(mine, other).swap_remove(index);
            sqlx::query("UPDATE channel_accounts SET state = 'active', when_unknown = $1")
                .bind(if case.resend { "resend" } else { "hold" })
                .execute(&mut stage.admin)
                .await
                .unwrap();
            let conversation = stage.conversation().await;
            let message = stage.send(Given { conversation, seq: 1, state: before, attempt: mine }).await;
            let next = stage.send(Given { conversation, seq: 2, state: Queued, attempt: other }).await;
            stage.record(message, conversation, case.what.clone()).await;

            let mut claim = |holds: bool, what: String| {
                if !holds {
                    wrong.push(format!("{before}, {}: {what}", case.name))
                }
            };
            let moved = case.moves.iter().find(|(from, _)| *from == before).map(|(_, to)| *to);
            let after = moved.unwrap_or(before);
            let found = stage.state(message).await;
            claim(found == after, format!("is {found} and should be {after}"));

            let written: Vec<(AttemptId, String)> = match case.attempt {
                Written::Always(outcome) => vec![(case_attempt(&case.what, mine), outcome.to_owned())],
                Written::WithAChange(outcome) if moved.is_some() => vec![(mine, outcome.to_owned())],
                _ => Vec::new(),
            };
            let attempts = stage.attempts(message).await;
            claim(attempts == written, format!("attempts are {attempts:?} and should be {written:?}"));

            let released = matches!(case.what, What::TurnReleased);
            let settles = holds_up(before) && moved.is_some() && (!holds_up(after) || released);
            let woken = stage.jobs(next).await.len();
            claim(woken == usize::from(settles), format!("{woken} jobs for the next one, and it settles: {settles}"));

            let own = stage.jobs(message).await;
            let expected = own_jobs(&case, before, moved);
            claim(own == expected, format!("its own jobs are {own:?} and should be {expected:?}"));

            let once = (stage.row(message).await, attempts, stage.trail(message).await);
            stage.record(message, conversation, case.what.clone()).await;
            let twice = (stage.row(message).await, stage.attempts(message).await, stage.trail(message).await);
            // A wait is reckoned from the moment it is written down.
            let same = if matches!(case.what, What::Waits { .. }) {
                twice.0["state"] == once.0["state"]
            } else {
                twice == once
            };
            claim(same, format!("a second time changes it\n  from {once:?}\n  to   {twice:?}"));
            let woken_twice = stage.jobs(next).await.len();
            claim(woken_twice == woken, format!("the next one is woken {woken_twice} times"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn case_attempt(what: &What, mine: AttemptId) -> AttemptId {
    match what {
        What::Accepted { attempt_id, .. }
        | What::NotSent { attempt_id, .. }
        | What::Unknown { attempt_id, .. }
        | What::Failed { attempt_id, .. }
        | What::AccountDown { attempt_id, .. } => *attempt_id,
        _ => mine,
    }
}

/// The jobs that the transaction writes for the send itself: task, seconds until due (a job that is published at once has five
/// until the sweep takes it).
fn own_jobs(case: &Case, before: SendState, moved: Option<SendState>) -> Vec<(String, i64)> {
    let job = |task: &str, due: i64| (task.to_owned(), due);
    match (&case.what, moved) {
        (_, None) => vec![],
        (What::NotSent { .. }, _) | (What::Waits { after: Some(_), .. }, _) => vec![job("send", 77)],
        (What::AccountDown { .. }, _) => vec![job("send", 600)],
        (_, Some(Queued)) => vec![job("send", 5)],
        (_, Some(Unknown)) if before != Unknown => vec![job("release_turn", 30), job("settle", 300)],
        _ => vec![],
    }
}

#[tokio::test]
async fn two_words_about_one_send_in_one_batch_are_taken_in_order() {
    use shared::db::outbound::outcomes::{Record, record};
    let mut stage = Stage::new().await;
    let conversation = stage.conversation().await;
    let mine = AttemptId::new();
    let message = stage.send(Given { conversation, seq: 1, state: Sending, attempt: mine }).await;
    let record_of = |what| Record {
        tenant_id: stage.tenant,
        message_id: message,
        place: Some(stage.place(conversation)),
        what,
        slice: None,
    };
    let records = [
        record_of(What::Expired { attempt_id: Some(mine) }),
        record_of(What::Accepted { attempt_id: mine, provider_message_id: "wamid.1".into() }),
    ];
    let mut tx = stage.fleet().await;
    record(&mut tx, &records, super::PATIENCE).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stage.state(message).await, Sent);
    assert_eq!(stage.attempts(message).await, [(mine, "accepted".to_owned())], "it turned out better than it looked");
}

#[tokio::test]
async fn a_claim_given_back_after_it_expired_is_no_attempt() {
    let mut stage = Stage::new().await;
    let conversation = stage.conversation().await;
    let mine = AttemptId::new();
    let message = stage.send(Given { conversation, seq: 1, state: Sending, attempt: mine }).await;
    stage.record(message, conversation, What::Expired { attempt_id: Some(mine) }).await;
    stage
        .record(
            message,
            conversation,
            What::GivenBack { attempt_id: mine, reason: "stopped machine".into(), after: None },
        )
        .await;
    let attempts: i32 = stage.one("SELECT attempts FROM sends WHERE message_id = $1", message).await;
    let counted: Vec<_> =
        stage.attempts(message).await.into_iter().filter(|(_, outcome)| outcome != "given_back").collect();
    assert_eq!((stage.state(message).await, attempts, counted), (Queued, 0, vec![]));
}

#[tokio::test]
async fn a_timer_of_an_earlier_unknown_does_not_end_a_later_one() {
    let mut stage = Stage::new().await;
    let conversation = stage.conversation().await;
    let mine = AttemptId::new();
    let message = stage.send(Given { conversation, seq: 1, state: Sending, attempt: mine }).await;
    stage.record(message, conversation, What::Unknown { attempt_id: mine, reason: "cut".into() }).await;
    stage.record(message, conversation, What::TurnReleased).await;
    stage.record(message, conversation, What::Settled).await;
    assert_eq!(stage.state(message).await, Unknown, "it has been unknown for a moment only");
    let released: bool = stage.one("SELECT turn_released FROM sends WHERE message_id = $1", message).await;
    assert!(!released);
}

#[tokio::test]
async fn a_timer_that_comes_too_early_comes_again_when_it_is_time() {
    let mut stage = Stage::new().await;
    let conversation = stage.conversation().await;
    let message = stage.send(Given { conversation, seq: 1, state: Unknown, attempt: AttemptId::new() }).await;
    let next = stage.send(Given { conversation, seq: 2, state: Queued, attempt: AttemptId::new() }).await;
    for (timer, age, task, left) in [(What::TurnReleased, 10, "release_turn", 20), (What::Settled, 100, "settle", 200)]
    {
        sqlx::query("UPDATE sends SET unknown_at = now() - make_interval(secs => $1) WHERE message_id = $2")
            .bind(f64::from(age))
            .bind(message)
            .execute(&mut stage.admin)
            .await
            .unwrap();
        stage.record(message, conversation, timer.clone()).await;
        let jobs = stage.jobs(message).await;
        let [(again, due)] = jobs.as_slice() else { panic!("{jobs:?}") };
        assert!(again == task && *due <= left && *due > left - 10, "{jobs:?}");
        assert_eq!((stage.state(message).await, stage.jobs(next).await), (Unknown, vec![]));
        sqlx::query("DELETE FROM outbox").execute(&mut stage.admin).await.unwrap();
        sqlx::query("UPDATE sends SET unknown_at = now() - interval '1 hour' WHERE message_id = $1")
            .bind(message)
            .execute(&mut stage.admin)
            .await
            .unwrap();
        stage.record(message, conversation, timer).await;
        assert_eq!(stage.jobs(message).await, vec![], "then it has done what it is for");
        assert_eq!(stage.jobs(next).await.len(), usize::from(task == "release_turn"));
        sqlx::query("DELETE FROM outbox").execute(&mut stage.admin).await.unwrap();
    }
    assert_eq!(stage.state(message).await, Held);
}

#[tokio::test]
async fn an_account_that_is_down_gets_its_sends_back_when_it_returns() {
    let mut stage = Stage::new().await;
    let (first, second) = (stage.lone_send().await, stage.lone_send().await);
    let down = |attempt_id| What::AccountDown { attempt_id, code: "131042".into(), reason: "unpaid".into() };
    let granted = stage.ask(&[first.1]).await;
    let Answer::Granted(grant) = &granted[0].answer else { panic!("{granted:?}") };
    stage.record(first.1, first.0, down(grant.attempt_id)).await;
    stage
        .record(
            second.1,
            second.0,
            What::Waits { reason: WaitReason::AccountDown, after: Some(Duration::from_secs(600)) },
        )
        .await;
    sqlx::query("DELETE FROM outbox").execute(&mut stage.admin).await.unwrap();
    let resumed = stage.resume().await;
    assert_eq!(resumed.as_deref(), Some("down"));
    for (_, message) in [first, second] {
        assert_eq!(stage.jobs(message).await.len(), 1, "it is woken");
        let answers = stage.ask(&[message]).await;
        assert!(matches!(answers[0].answer, Answer::Granted(_)), "{answers:?}");
    }
}

#[tokio::test]
async fn a_late_refusal_does_not_take_down_an_account_that_was_mended_meanwhile() {
    let mut stage = Stage::new().await;
    let (conversation, message) = stage.lone_send().await;
    let granted = stage.ask(&[message]).await;
    let Answer::Granted(grant) = &granted[0].answer else { panic!("{granted:?}") };
    stage.resume().await;
    let down = What::AccountDown { attempt_id: grant.attempt_id, code: "190".into(), reason: "expired".into() };
    stage.record(message, conversation, down).await;
    let state: String = stage.one("SELECT state FROM channel_accounts WHERE $1 IS NOT NULL", message).await;
    assert_eq!(state, "active", "the call was made with the token of before");
    assert_eq!(stage.jobs(message).await, [("send".to_owned(), 0)], "it goes again at once");
    let again = stage.ask(&[message]).await;
    assert!(matches!(again[0].answer, Answer::Granted(_)), "{again:?}");
    assert_eq!(again[0].account_revision, granted[0].account_revision + 1);
}

#[tokio::test]
async fn a_send_that_begins_to_wait_while_its_account_comes_back_is_woken() {
    let mut stage = Stage::new().await;
    let waits = || What::Waits { reason: WaitReason::AccountDown, after: Some(Duration::from_secs(600)) };
    // The account came back between the question and the record of its answer.
    let (conversation, early) = stage.lone_send().await;
    stage.resume().await;
    stage.record(early, conversation, waits()).await;
    assert_eq!(stage.jobs(early).await, [("send".to_owned(), 0)]);

    // It comes back while the record is written: it waits for that, and finds it.
    sqlx::query("UPDATE channel_accounts SET state = 'down'").execute(&mut stage.admin).await.unwrap();
    let (conversation, late) = stage.lone_send().await;
    let place = Some(stage.place(conversation));
    let mut recording = stage.fleet().await;
    let records = [Record { tenant_id: stage.tenant, message_id: late, place, what: waits(), slice: None }];
    record(&mut recording, &records, PATIENCE).await.unwrap();
    let commit = async {
        let blocked =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while sqlx::query_scalar::<_, i64>(blocked).fetch_one(&mut stage.database.admin().await).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        recording.commit().await.unwrap();
    };
    tokio::join!(stage.resume(), commit);
    let soon = stage.jobs(late).await.into_iter().filter(|(_, seconds)| *seconds < 60).count();
    assert_eq!(soon, 1, "{:?}", stage.jobs(late).await);
}

#[tokio::test]
async fn a_second_job_does_not_bring_forward_what_waits_for_a_time() {
    let mut stage = Stage::new().await;
    let (conversation, message) = stage.lone_send().await;
    let granted = stage.ask(&[message]).await;
    let Answer::Granted(grant) = &granted[0].answer else { panic!("{granted:?}") };
    let what = What::NotSent {
        attempt_id: grant.attempt_id,
        code: "131056".into(),
        reason: "too many to this person".into(),
        after: Duration::from_secs(64),
        class: Class::Transient,
        slow: None,
    };
    stage.record(message, conversation, what).await;
    // Somebody who held a second job for it all the while has no room for it.
    let crowded = What::Waits { reason: WaitReason::Room, after: Some(Duration::from_secs(2)) };
    stage.record(message, conversation, crowded).await;
    assert_eq!(stage.jobs(message).await, [("send".to_owned(), 64)]);
    let due: i64 =
        stage.one("SELECT EXTRACT(epoch FROM due_at - now())::bigint FROM sends WHERE message_id = $1", message).await;
    assert!(due > 60, "due in {due} s");
    let again = stage.ask(&[message]).await;
    assert!(matches!(again[0].answer, Answer::NotNow(Obstacle::NotDue(_))), "{again:?}");
}

#[tokio::test]
async fn what_may_have_arrived_is_held_and_not_failed_when_its_window_closes() {
    let mut stage = Stage::new().await;
    for (doubled, expected) in [(true, Held), (false, Failed)] {
        let (conversation, message) = stage.lone_send().await;
        sqlx::query("UPDATE sends SET possibly_doubled = $1 WHERE message_id = $2")
            .bind(doubled)
            .bind(message)
            .execute(&mut stage.admin)
            .await
            .unwrap();
        let refused = What::Refused { code: "window_closed", reason: "too late".into() };
        stage.record(message, conversation, refused).await;
        assert_eq!(stage.state(message).await, expected);
    }
}

#[tokio::test]
async fn a_day_of_trying_begins_with_the_first_try() {
    let mut stage = Stage::new().await;
    let (conversation, message) = stage.lone_send().await;
    sqlx::query("UPDATE sends SET created_at = now() - interval '3 days'").execute(&mut stage.admin).await.unwrap();
    let tried_for = async |stage: &mut Stage| {
        let answers = stage.ask(&[message]).await;
        let Answer::Granted(grant) = &answers[0].answer else { panic!("{answers:?}") };
        (grant.attempt_id, (grant.granted_at - grant.tried_since).num_minutes())
    };
    let not_sent = |attempt_id| What::NotSent {
        attempt_id,
        code: "connect".into(),
        reason: "refused".into(),
        after: Duration::ZERO,
        class: Class::Transient,
        slow: None,
    };
    let (first, minutes) = tried_for(&mut stage).await;
    assert_eq!(minutes, 0, "it has only waited");
    stage.record(message, conversation, not_sent(first)).await;
    sqlx::query("UPDATE send_attempts SET granted_at = granted_at - interval '90 minutes'")
        .execute(&mut stage.admin)
        .await
        .unwrap();
    let (second, minutes) = tried_for(&mut stage).await;
    assert_eq!(minutes, 90);
    stage.record(message, conversation, not_sent(second)).await;
    sqlx::query("UPDATE sends SET retried_at = now() - interval '1 hour'").execute(&mut stage.admin).await.unwrap();
    assert_eq!(tried_for(&mut stage).await.1, 0, "let go again it begins anew");
}
