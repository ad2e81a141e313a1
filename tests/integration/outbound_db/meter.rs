//! The meter over time: several workers that ask whenever they like are together never granted more than the rate in any
//! sliding second, and with work waiting they use nearly all of it.

use super::{Given, Stage};
use chrono::{DateTime, Utc};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shared::{
    db::outbound::grant::Answer,
    domain::{
        ids::{AttemptId, MessageId},
        sends::SendState::Queued,
    },
};
use std::time::Duration;
use tokio::{sync::Mutex, time::Instant};

const WORKERS: u64 = 4;

/// Lets the workers ask for as long, and returns when each send was granted, in order.
async fn run(rate: f64, lasts: Duration, busy: bool) -> Vec<DateTime<Utc>> {
    let mut stage = Stage::new().await;
    sqlx::query("INSERT INTO limits (tenant_id, scope, key, rate, current_rate) VALUES ($1, 'account', $2, $3, $3)")
        .bind(stage.tenant)
        .bind(stage.account)
        .bind(rate)
        .execute(&mut stage.admin)
        .await
        .unwrap();
    let conversation = stage.conversation().await;
    let enough = (rate * (lasts.as_secs_f64() + 1.0)) as usize + 10;
    let mut messages = Vec::new();
    for seq in 1..=enough as i64 {
        messages.push(stage.send(Given { conversation, seq, state: Queued, attempt: AttemptId::new() }).await);
    }
    // The meter is what is tested here, not the turn.
    sqlx::query("UPDATE sends SET lane = 1").execute(&mut stage.admin).await.unwrap();
    let (waiting, granted) = (Mutex::new(messages), Mutex::new(Vec::new()));
    let ends = Instant::now() + lasts;
    let worker = |seed: u64| {
        let (stage, waiting, granted) = (&stage, &waiting, &granted);
        async move {
            let mut dice = StdRng::seed_from_u64(seed);
            while Instant::now() < ends {
                let few = dice.random_range(10..=20);
                let held: Vec<MessageId> = {
                    let mut waiting = waiting.lock().await;
                    let keep = waiting.len().saturating_sub(few);
                    waiting.split_off(keep)
                };
                for judged in stage.ask(&held).await {
                    match judged.answer {
                        Answer::Granted(grant) => granted.lock().await.push(grant.granted_at),
                        Answer::NotNow(_) => waiting.lock().await.push(judged.message_id),
                    }
                }
                let pause = if busy { dice.random_range(0..=15) } else { dice.random_range(0..=600) };
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    };
    futures_util::future::join_all((0..WORKERS).map(worker)).await;
    let mut granted = granted.into_inner();
    granted.sort_unstable();
    granted
}

/// The most in any sliding second: `[t, t + 1 s)`.
fn busiest_second(granted: &[DateTime<Utc>]) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (last, at) in granted.iter().enumerate() {
        while (*at - granted[first]).num_microseconds() >= Some(1_000_000) {
            first += 1;
        }
        most = most.max(last - first + 1);
    }
    most
}

async fn never_more_and_nearly_all(rate: f64) {
    let lasts = Duration::from_secs(4);
    let granted = run(rate, lasts, true).await;
    let busiest = busiest_second(&granted);
    assert!(busiest <= rate.ceil() as usize, "{busiest} in one second at a rate of {rate}");
    let (allowed, used) = allowed_and_used(&granted, rate);
    assert!(used >= 0.95 * allowed, "{used} of {allowed:.1} that a rate of {rate} allowed were used");
}

/// How many the meter allowed between the first moment at which it granted something and the last, and how many it granted
/// after the first. Work was waiting all the time; what nobody asked for while the meter was full is nobody's: a machine that
/// is busy with something else asks less often.
fn allowed_and_used(granted: &[DateTime<Utc>], rate: f64) -> (f64, f64) {
    let sustained = rate / 1.025;
    let burst = 1.0 + 0.025 * sustained;
    let allowed = granted.windows(2).map(|pair| ((pair[1] - pair[0]).as_seconds_f64() * sustained).min(burst)).sum();
    let first = granted.partition_point(|at| *at == granted[0]);
    (allowed, (granted.len() - first) as f64)
}

#[tokio::test]
async fn a_rate_of_5_holds() {
    never_more_and_nearly_all(5.0).await;
}

#[tokio::test]
async fn a_rate_of_33_holds() {
    never_more_and_nearly_all(33.0).await;
}

#[tokio::test]
async fn a_rate_of_80_holds() {
    never_more_and_nearly_all(80.0).await;
}

#[tokio::test]
async fn a_rate_of_300_holds() {
    never_more_and_nearly_all(300.0).await;
}

#[tokio::test]
async fn what_was_not_used_while_idle_is_not_made_up_for() {
    let granted = run(80.0, Duration::from_secs(5), false).await;
    let busiest = busiest_second(&granted);
    assert!(busiest <= 80, "{busiest} in one second");
    assert!(granted.len() > 20, "it was used now and then");
}
