//! Whatever order webhooks come in, and however often: the same webhooks end in the same rows. Ten thousand of all providers and of
//! every kind they send, once in order, and three times over in any order at the same time.

mod tables;
mod world;

use chrono::Utc;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use support::sandbox::{
    InboundWebhook,
    mixture::{Accounts, Generator, Mixture, Shares},
};
use world::World;

const WEBHOOKS: u64 = 10_000;
/// How often each comes in the second world.
const TIMES: usize = 3;
/// From how many sides at once.
const CONNECTIONS: usize = 8;
/// The mixture and the orders are made from this.
const SEED: u64 = 20_261_129;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_order_and_any_number_of_times_ends_in_the_same_digest() {
    let mixture = Mixture {
        seed: SEED,
        webhooks: WEBHOOKS,
        people: 120,
        // Some had been written to before, others write first.
        known: 90,
        repeat_rate: 0.0,
        // Who wrote by the new number before the change of numbers came stays two contacts: nobody said that they are one yet.
        moves: false,
        // Within the last day, before this minute: else it would be nobody's news.
        begins_ms: (Utc::now().timestamp() / 60 * 60 - 5 * 3_600) * 1_000,
        ..Mixture::default()
    };
    let known = mixture.known_sends(&world::accounts());
    let tokens = world::tokens(&known);
    let opaque = tokens.iter().map(|token| token.encode()).collect();
    let webhooks: Vec<InboundWebhook> = Generator::new(mixture, world::accounts()).with_opaque(opaque).collect();
    assert_eq!(webhooks.len() as u64, WEBHOOKS);

    let in_order = World::with(&known, &tokens).await;
    assert_eq!(in_order.unaccounted().await, Vec::<String>::new());
    in_order.take(&[webhooks.iter().collect()]).await;

    let shuffled = World::with(&known, &tokens).await;
    shuffled.take(&shuffle(&webhooks)).await;

    let (once, thrice) = (in_order.content().await, shuffled.content().await);
    let differences = once.differences(&thrice);
    assert!(differences.is_empty(), "the rows depend on the order:\n{}", differences.join("\n"));
    assert_eq!(once.digest(), thrice.digest());

    // It is about something.
    for (table, least) in [
        ("messages", 6_000),
        ("conversations", 500),
        ("trail", 500),
        ("suppressions", 50),
        ("media", 1_000),
        ("watermarks", 50),
    ] {
        assert!(once.rows(table) >= least, "{table}: {} rows", once.rows(table));
    }
    let logged = "SELECT count(*) FROM webhook_log";
    assert_eq!(world::count(&shuffled, logged).await, 3 * world::count(&in_order, logged).await);
}

/// Twilio gives no time, and tries for 15 seconds (providers/twilio section 5): what comes again then is no newer than it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_that_is_repeated_after_its_opposite_changes_nothing() {
    let shares = Shares { whatsapp: 0, messenger: 0, instagram: 0, twilio: 1 };
    let begins_ms = (Utc::now().timestamp() - 3_600) * 1_000;
    let mixture = Mixture {
        seed: SEED,
        webhooks: 400,
        people: 5,
        shares,
        text_rate: 0.0,
        status_rate: 0.0,
        begins_ms,
        ..Mixture::default()
    };
    let sender = world::accounts().others.into_iter().find(|account| account.id == "+15035550199").unwrap();
    let accounts = Accounts { numbers: vec![], others: vec![sender] };
    let webhooks: Vec<InboundWebhook> = Generator::new(mixture, accounts).collect();
    let world = World::with(&[], &[]).await;
    world.take(&[webhooks.iter().collect()]).await;
    let once = world.content().await;
    assert!(once.rows("suppressions") > 2);

    let mut again = webhooks.clone();
    again.iter_mut().for_each(|webhook| webhook.at_ms += 15_000);
    world.take(&[again.iter().collect()]).await;
    let differences = once.differences(&world.content().await);
    assert!(differences.is_empty(), "what came again counted:\n{}", differences.join("\n"));
}

/// Every webhook three times in random order, dealt out to the connections.
fn shuffle(webhooks: &[InboundWebhook]) -> Vec<Vec<&InboundWebhook>> {
    let mut all: Vec<&InboundWebhook> = (0..TIMES).flat_map(|_| webhooks).collect();
    all.shuffle(&mut StdRng::seed_from_u64(SEED));
    all.chunks(all.len().div_ceil(CONNECTIONS)).map(<[_]>::to_vec).collect()
}
