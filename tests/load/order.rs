//! `load order`: thousands of conversations over several channels, some messages in each, accepted in a known order, while the
//! provider refuses, fails, is slow and breaks off, and workers are killed and come and go. Then the provider's ledger is read: in
//! which order it first took the messages of each conversation.

use crate::channel::{Channel, Mixture, allow};
use anyhow::{Result, ensure};
use comfy_table::{Table, presets};
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use shared::domain::ids::{ConversationId, MessageId};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    process::ExitCode,
    time::Duration,
};
use support::{
    books::{self, Books},
    fleet::{Accepted, Fleet, Pool},
    programs::Program,
    sandbox::{
        Script,
        behaviour::{Behaviour, Span},
        ledger::{Answer, SendEntry, Verdict},
    },
    traffic::Talks,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How many, of what, and what goes wrong meanwhile.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Command {
    /// Conversations, evenly over the channels
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(3..=9_000))]
    conversations: u32,
    /// Messages in each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=20))]
    messages: u32,
    /// Over which channels
    #[arg(long, value_enum, value_delimiter = ',', default_value = "whatsapp,messenger,twilio")]
    channels: Vec<Channel>,
    /// What each account may send a second
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Messages a second that are handed in
    #[arg(long, default_value_t = 150.0)]
    accepted: f64,
    /// Seconds between two troubles: a kill -9, more or fewer senders, a throttled account
    #[arg(long, default_value_t = 2.5)]
    trouble_every: f64,
    /// Seconds for which what nobody knows of holds up its conversation, as by UNKNOWN_TURN_SECONDS
    #[arg(long, default_value_t = 30)]
    turn: u64,
    /// What chance is made from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// So many conversations are written into at once.
const AT_ONCE: usize = 64;
/// Evidence is awaited for so much longer than a turn.
const EVIDENCE: u64 = 10;
const SOON: Duration = Duration::from_secs(30);
const MOST_SENDERS: usize = 4;
/// More than once is not how throttling comes.
const THROTTLED_AT_ONCE: u32 = 3;

/// A message as it was accepted: in which conversation, as which of its messages, and by which channel.
#[derive(Debug, Clone, Copy)]
struct Place {
    conversation: ConversationId,
    nth: u32,
    channel: Channel,
}

/// What became of a channel's messages.
#[derive(Debug, Default)]
struct Tally {
    conversations: BTreeSet<ConversationId>,
    accepted: usize,
    taken: usize,
    requests: usize,
    throttled: usize,
    /// Refused otherwise, or not looked at.
    failed: usize,
    /// Taken, and never answered as it should be.
    unanswered: usize,
    violations: usize,
    /// Overtaken after they had held up the others for as long as they must.
    overtaken: usize,
}

/// Runs it, and says whether every conversation's messages came in order, none lost and none doubled.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    ensure!(!command.channels.is_empty(), "at least one channel");
    let mut fleet = Fleet::builder()
        .env("RUST_LOG", "warn")
        .env("PROVIDER_CALL_TIMEOUT_SECONDS", 3)
        .env("UNKNOWN_TURN_SECONDS", command.turn)
        .env("UNKNOWN_SETTLE_SECONDS", command.turn + EVIDENCE)
        .seed(command.seed)
        .rate(f64::from(command.rate))
        .count(Program::Outbound, 2)
        .behaviour(|b| {
            allow(b, command.rate);
            b.latency_ms = Span { min: 10, max: 80 };
            b.status_delay_ms = Span { min: 100, max: 800 };
        })
        .start()
        .await;
    // What passes by itself is tried again within seconds, so that many tries fit into the time.
    let rule = ["--class", "transient", "--delays", "1,2,4", "--endless"];
    fleet.mijra(&[["tenant", "retry", "--tenant", fleet.tenant.slug.as_str()].as_slice(), &rule].concat()).await;
    let mixture = Mixture::make(&fleet, &command.channels, command.rate, command.seed, command.conversations).await?;
    fleet.sandbox.behave(difficult);
    let senders = fleet.pool(Program::Outbound);
    let stop = CancellationToken::new();
    let began = Instant::now();
    let (accepted, troubles) =
        tokio::join!(accept(&fleet, &command, &mixture, &stop), trouble(&fleet, &command, senders, &stop));
    let (senders, troubles) = troubles?;
    say(&format!("{} messages accepted within {:.0} s, {troubles}", accepted.len(), began.elapsed().as_secs_f64()));
    let told: Vec<Accepted> = accepted
        .iter()
        .map(|(message, place)| Accepted { message: *message, conversation: place.conversation })
        .collect();
    let books = books::close(&fleet, &told, Duration::from_secs(300 + 6 * command.turn)).await;
    drop(senders);
    let released = turns_released(&fleet).await;
    let tallies = tally(&accepted, &fleet.sandbox.ledger().sends_from(1, usize::MAX), &released);
    Ok(if report(&fleet, &tallies, &books, released.len()).await { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A provider that is difficult in every way in which a send can go wrong.
fn difficult(b: &mut Behaviour) {
    b.unavailable_rate = 0.03;
    b.gateway_error_rate = 0.004;
    b.cut_before_rate = 0.003;
    b.cut_after_rate = 0.005;
    b.truncate_rate = 0.003;
    b.hang_rate = 0.002;
    // Answered after we have given up waiting, whatever the answer is.
    (b.slow_rate, b.slow_ms) = (0.01, 4_500);
    b.duplicate_rate = 0.02;
    b.reorder_rate = 0.05;
    b.status_before_answer_rate = 0.05;
}

/// Hands the messages in, each conversation's one after the other. Which were accepted.
async fn accept(
    fleet: &Fleet,
    command: &Command,
    mixture: &Mixture,
    stop: &CancellationToken,
) -> Vec<(MessageId, Place)> {
    let mut order: Vec<usize> = (0..mixture.people.len()).collect();
    order.shuffle(&mut StdRng::seed_from_u64(command.seed));
    let progress = bar(mixture.people.len() as u64 * u64::from(command.messages));
    let tick = tokio::sync::Mutex::new(tokio::time::interval(Duration::from_secs_f64(1.0 / command.accepted)));
    let accepted = stream::iter(order)
        .map(|nth| {
            let (someone, channel) = (&mixture.people[nth], mixture.channel_of(nth));
            let (progress, tick) = (&progress, &tick);
            async move {
                let conversation = someone.conversation();
                let mut messages = Vec::new();
                for nth in 0..command.messages {
                    tick.lock().await.tick().await;
                    let accepted = fleet.reply(conversation, &format!("number {nth}")).await;
                    messages.push((accepted.message, Place { conversation, nth, channel }));
                    progress.inc(1);
                }
                messages
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    progress.finish_and_clear();
    // It goes on while what was accepted last is under way.
    tokio::time::sleep(Duration::from_secs(10)).await;
    stop.cancel();
    accepted.into_iter().flatten().collect()
}

/// One trouble after the other, as chance has it; what there was of each, in words.
async fn trouble(
    fleet: &Fleet,
    command: &Command,
    mut senders: Pool,
    stop: &CancellationToken,
) -> Result<(Pool, String)> {
    let mut dice = StdRng::seed_from_u64(command.seed ^ 7);
    let (mut kills, mut scalings, mut throttled) = (0, 0, 0);
    loop {
        let wait = Duration::from_secs_f64(command.trouble_every * dice.random_range(0.5..1.5));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => break,
        }
        match dice.random_range(0..10) {
            0..=3 => {
                ensure!(senders.kill(dice.random_range(0..MOST_SENDERS), SOON).await, "a sender cannot be killed");
                kills += 1;
            }
            4 => {
                let program = [Program::Inbound, Program::Scheduler, Program::Api][dice.random_range(0..3)];
                let process = fleet.process(program);
                let before = process.exits().len();
                process.signal("KILL");
                ensure!(process.ended(before, SOON).await.is_some(), "{} cannot be killed", process.name());
                kills += 1;
            }
            5 | 6 => {
                senders.scale(dice.random_range(1..=MOST_SENDERS)).await;
                scalings += 1;
            }
            _ => {
                let channel = command.channels[dice.random_range(0..command.channels.len())];
                let times = dice.random_range(1..=THROTTLED_AT_ONCE);
                fleet.sandbox.order(Script::once(channel.api(), channel.throttled()).times(times));
                throttled += 1;
            }
        }
    }
    Ok((senders, format!("{kills} times kill -9, {scalings} times more or fewer senders, {throttled} times throttled")))
}

/// What was unknown for so long that it holds up its conversation no longer.
async fn turns_released(fleet: &Fleet) -> BTreeSet<MessageId> {
    let released: Vec<Uuid> = sqlx::query_scalar("SELECT message_id FROM sends WHERE turn_released")
        .fetch_all(&mut fleet.database.admin().await)
        .await
        .expect("the database answers");
    released.into_iter().map(MessageId).collect()
}

/// Reads the ledger: when each message was first taken, against the order in which each conversation's were accepted.
fn tally(
    accepted: &[(MessageId, Place)],
    requests: &[SendEntry],
    released: &BTreeSet<MessageId>,
) -> BTreeMap<Channel, Tally> {
    let places: HashMap<MessageId, Place> = accepted.iter().copied().collect();
    let mut tallies: BTreeMap<Channel, Tally> = BTreeMap::new();
    for place in places.values() {
        let tally = tallies.entry(place.channel).or_default();
        tally.accepted += 1;
        tally.conversations.insert(place.conversation);
    }
    let mut taken: BTreeSet<MessageId> = BTreeSet::new();
    let mut furthest = HashMap::new();
    for request in requests {
        let Some(id) = request.message().and_then(|id| id.parse::<MessageId>().ok()) else { continue };
        let Some(Place { conversation, nth, channel }) = places.get(&id) else { continue };
        let tally = tallies.entry(*channel).or_default();
        tally.requests += 1;
        match &request.verdict {
            Verdict::Accepted { .. } => {
                tally.unanswered += usize::from(request.answer != Answer::Success);
                if !taken.insert(id) {
                    continue;
                }
                tally.taken += 1;
                if is_overtaken(&mut furthest, *conversation, *nth) {
                    let allowed = released.contains(&id);
                    *(if allowed { &mut tally.overtaken } else { &mut tally.violations }) += 1;
                }
            }
            Verdict::Refused { code, .. } if *code == channel.throttled() => tally.throttled += 1,
            Verdict::Refused { .. } | Verdict::NotProcessed => tally.failed += 1,
            Verdict::Noted => {}
        }
    }
    tallies
}

/// Whether a later one of the conversation was taken before this one, which is taken now.
fn is_overtaken(furthest: &mut HashMap<ConversationId, u32>, conversation: ConversationId, nth: u32) -> bool {
    let before = furthest.entry(conversation).or_insert(nth);
    let overtaken = nth < *before;
    *before = (*before).max(nth);
    overtaken
}

async fn report(fleet: &Fleet, tallies: &BTreeMap<Channel, Tally>, books: &Books, released: usize) -> bool {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "channel",
        "conversations",
        "accepted",
        "taken",
        "calls",
        "throttled",
        "failed",
        "taken and not answered",
        "out of order",
        "overtaken as they may be",
    ]);
    for (channel, tally) in tallies {
        let counts = [
            tally.conversations.len(),
            tally.accepted,
            tally.taken,
            tally.requests,
            tally.throttled,
            tally.failed,
            tally.unanswered,
            tally.violations,
            tally.overtaken,
        ];
        let mut row = vec![channel.name().to_owned()];
        row.extend(counts.iter().map(usize::to_string));
        table.add_row(row);
    }
    say(&table.to_string());
    let violations: usize = tallies.values().map(|tally| tally.violations).sum();
    let expired: i64 = sqlx::query_scalar("SELECT count(*) FROM sends WHERE code = 'expired'")
        .fetch_one(&mut fleet.database.admin().await)
        .await
        .unwrap_or(-1);
    say(&format!(
        "violations {violations}; lost {}, doubled {}, unknown for a while {} ({released} of them so long that the next went on, \
        {expired} never sent because their time was over), held {}, dead letters {}",
        books.lost,
        books.doubled(),
        books.were_unknown,
        books.held,
        books.dead
    ));
    if !books.agree() {
        say(&books.to_string());
    }
    violations == 0 && books.agree()
}

fn bar(count: u64) -> ProgressBar {
    let bar = ProgressBar::new(count);
    let style = ProgressStyle::with_template("{spinner} [{elapsed_precise}] {bar:24} {pos}/{len} accepted");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[allow(clippy::print_stdout, reason = "the result of the run")]
fn say(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_taken_after_a_later_one_of_the_conversation_is_overtaken() {
        let (a, b) = (ConversationId(Uuid::from_u128(1)), ConversationId(Uuid::from_u128(2)));
        let mut furthest = HashMap::new();
        let taken = [(a, 0), (b, 1), (a, 2), (a, 1), (b, 2), (a, 3), (b, 0)];
        let overtaken: Vec<_> = taken.into_iter().filter(|(c, nth)| is_overtaken(&mut furthest, *c, *nth)).collect();
        assert_eq!(overtaken, [(a, 1), (b, 0)]);
    }
}
