//! Ordinary traffic at a given rate while something goes wrong: people write, agents answer. Whoever is not answered tries again,
//! as providers and agents' programs do; what was accepted in the end is what the books must hold.

use crate::{
    fleet::{Accepted, Fleet},
    sandbox::{Kind, Person},
};
use futures_util::{StreamExt, stream};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shared::domain::ids::ConversationId;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Somebody with a conversation.
#[derive(Clone, Debug)]
pub struct Party {
    /// Who.
    pub person: Person,
    /// Theirs.
    pub conversation: ConversationId,
}

/// Who takes part in traffic: they write, and are answered where they wrote.
pub trait Talks: Sync {
    /// They write; it is repeated by their provider until it is acknowledged.
    fn write(&self, fleet: &Fleet, number: u64) -> impl Future<Output = ()>;

    /// Where they are answered.
    fn conversation(&self) -> ConversationId;
}

impl Talks for Party {
    async fn write(&self, fleet: &Fleet, number: u64) {
        // Some send a picture with it.
        let kind = if number.is_multiple_of(4) { Kind::Image } else { Kind::Text };
        fleet.tell_of(kind, &self.person, format!("message {number}")).await;
    }

    fn conversation(&self) -> ConversationId {
        self.conversation
    }
}

/// How much for how long.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Messages of people a second.
    pub webhooks_per_second: f64,
    /// Answers of agents a second.
    pub replies_per_second: f64,
    /// For so long.
    pub lasts: Duration,
    /// What chance is made from.
    pub seed: u64,
}

/// Many, but not more than a machine has sockets for.
const AT_ONCE: usize = 256;

impl Fleet {
    /// So many people write for the first time; their conversations.
    pub async fn acquaint(&self, seed: u64, people: u32) -> Vec<Party> {
        let persons: Vec<Person> = (0..people).map(|index| Person::nth(seed, index)).collect();
        stream::iter(persons)
            .map(|person| async move {
                self.tell(&person, "hello").await;
                let conversation = self.conversation_with(&person).await;
                Party { person, conversation }
            })
            .buffer_unordered(16)
            .collect()
            .await
    }
}

impl Traffic {
    /// Runs until the time is over and every answer is accepted. Which were.
    pub async fn run(self, fleet: &Fleet, parties: &[impl Talks]) -> Vec<Accepted> {
        self.run_until(&CancellationToken::new(), fleet, parties).await
    }

    /// The same, or until told to stop.
    pub async fn run_until(self, stop: &CancellationToken, fleet: &Fleet, parties: &[impl Talks]) -> Vec<Accepted> {
        let told = self
            .moments(self.webhooks_per_second, 1)
            .take_until(stop.clone().cancelled_owned())
            .for_each_concurrent(AT_ONCE, |(number, dice)| async move {
                parties[dice % parties.len()].write(fleet, number).await;
            });
        let replied = self
            .moments(self.replies_per_second, 2)
            .take_until(stop.clone().cancelled_owned())
            .map(|(number, dice)| async move {
                let conversation = parties[dice % parties.len()].conversation();
                fleet.reply(conversation, &format!("answer {number}")).await
            })
            .buffer_unordered(AT_ONCE)
            .collect();
        let ((), replied): ((), Vec<Accepted>) = tokio::join!(told, replied);
        replied
    }

    /// A number and a throw of the dice at each moment of a rate.
    fn moments(self, per_second: f64, salt: u64) -> impl stream::Stream<Item = (u64, usize)> {
        let mut dice = StdRng::seed_from_u64(self.seed ^ salt);
        let mut tick = interval(Duration::from_secs_f64(1.0 / per_second.max(0.01)));
        // Who was held up makes up for it: the load does not wait for the product.
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let most = (per_second * self.lasts.as_secs_f64()) as u64;
        let ends = Instant::now() + self.lasts + Duration::from_secs(600);
        stream::unfold((tick, 0), move |(mut tick, number)| {
            let thrown = dice.random_range(0..usize::MAX);
            async move {
                if number >= most || Instant::now() > ends {
                    return None;
                }
                tick.tick().await;
                Some(((number, thrown), (tick, number + 1)))
            }
        })
    }
}
