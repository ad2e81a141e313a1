//! Who is at the limit: an account of one channel, the people who write to it, and a backlog of campaigns.

use super::Command;
use crate::channel::{Channel, allow};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use shared::{
    domain::{
        ids::ChannelAccountId,
        limits::{Scope, Shape},
    },
    providers::limits::documented,
};
use support::{
    campaigns::{Audience, Started},
    channels::{Line, Party, Stage},
    fleet::{Builder, Fleet},
    programs::Program,
    sandbox::{Api, Limit, behaviour::Span},
};

/// The account, and what it is held against.
pub(super) struct Subject {
    pub(super) channel: Channel,
    pub(super) account: ChannelAccountId,
    /// As its provider calls it.
    pub(super) id: String,
    /// A second, in its provider's units.
    pub(super) rate: u32,
    /// Who writes.
    pub(super) parties: Vec<Party>,
}

/// People who write.
const PEOPLE: u32 = 300;
/// A list of people is no longer than that.
const PEOPLE_OF_A_CAMPAIGN: usize = 4_000;
/// A message takes as many segments at most.
const MOST_SEGMENTS: usize = 3;

impl Channel {
    /// Messages a second that people write, unless told otherwise: a quarter of the limit where they count.
    pub(super) fn inbound(self) -> f64 {
        match self {
            Channel::Whatsapp => 20.0,
            Channel::Messenger => 10.0,
            Channel::Twilio => 5.0,
        }
    }
}

impl Command {
    /// The account's id with its provider.
    fn id(&self) -> &str {
        match self.channel {
            Channel::Twilio => &self.sender,
            _ => self.channel.way().account(),
        }
    }

    /// What it may send a second: as told, or as its provider documents.
    pub(super) fn rate(&self) -> Result<u32> {
        if let Some(rate) = self.rate {
            return Ok(rate);
        }
        let limits = documented(self.channel.provider(), self.id());
        let rate = limits.iter().find(|limit| limit.scope == Scope::Account).map(|limit| limit.change.rate);
        ensure!(rate.is_some_and(|rate| rate >= 1.0), "no rate is documented for {}", self.id());
        Ok(rate.unwrap_or_default() as u32)
    }

    /// The fleet, whose provider has this limit and no other.
    pub(super) fn fleet(&self) -> Result<Builder> {
        let rate = self.rate()?;
        let builder = Fleet::builder()
            .env("RUST_LOG", "warn")
            .seed(self.seed)
            .rate(f64::from(rate))
            .count(Program::Outbound, self.workers[0])
            .behaviour(|b| {
                allow(b, rate);
                b.latency_ms = Span { min: 20, max: 80 };
                b.status_delay_ms = Span { min: 200, max: 800 };
            });
        Ok(builder)
    }
}

impl Subject {
    /// Makes the account, and people write to it.
    pub(super) async fn make(fleet: &Fleet, command: &Command) -> Result<Self> {
        let (channel, id) = (command.channel, command.id().to_owned());
        let line = Line { id: id.clone(), rate: command.rate.map(f64::from), ..Line::new(channel.way(), None) };
        let stage = Stage::of(fleet, [line]).await;
        if let (Channel::Twilio, Some(rate)) = (channel, command.rate) {
            fleet.sandbox.limit(Limit::new(Api::Twilio, &*id, Some(rate))).await?;
        }
        let parties = stage.acquaint(fleet, channel.way(), PEOPLE).await;
        Ok(Self { channel, account: stage.account(channel.way()), id, rate: command.rate()?, parties })
    }

    /// Starts campaigns to more people than can be written to within these seconds.
    pub(super) async fn backlog(&self, fleet: &Fleet, seconds: u64) -> Result<Vec<Started>> {
        let people = self.rate as usize * usize::try_from(seconds)?;
        let mut started = Vec::new();
        match self.channel {
            Channel::Whatsapp => {
                for part in (0..people).step_by(PEOPLE_OF_A_CAMPAIGN) {
                    let audience = fleet.audience(PEOPLE_OF_A_CAMPAIGN.min(people - part), 0).await;
                    started.push(fleet.campaign("Backlog", &audience).await);
                }
            }
            // Only who has written can be written to: all of them, again and again.
            Channel::Messenger => {
                let audience = Audience::of(self.parties.iter().map(|party| (party.contact, party.person.clone())));
                for round in 0..people.div_ceil(audience.size()) {
                    let content = json!({"type": "text", "text": format!("Round {round} of many")});
                    started.push(fleet.campaign_on(self.account, &content, "Backlog", &audience).await);
                }
            }
            Channel::Twilio => {
                let texts = texts();
                // By what one of each takes together.
                let each = people.div_ceil(texts.iter().map(|(segments, _)| segments).sum());
                for (segments, text) in &texts {
                    let content = json!({"type": "text", "text": text});
                    for part in (0..each).step_by(PEOPLE_OF_A_CAMPAIGN) {
                        let audience = fleet.audience(PEOPLE_OF_A_CAMPAIGN.min(each - part), 0).await;
                        let name = format!("Backlog of {segments}");
                        started.push(fleet.campaign_on(self.account, &content, &name, &audience).await);
                    }
                }
            }
        }
        Ok(started)
    }

    /// So much may be over within a second: what a message has beyond what may go at once, because it goes whole and is paid back.
    pub(super) fn over(&self) -> u64 {
        let most = if self.channel == Channel::Twilio { MOST_SEGMENTS } else { 1 };
        let shape = Shape::within_each_second(f64::from(self.rate), None);
        (most - shape.needed(most)) as u64
    }
}

/// Texts of one to three segments in either alphabet, with how many they take (providers/twilio section 10).
fn texts() -> Vec<(usize, Value)> {
    let basic = "All we have is in the shop, and some of it is on the shelf. ";
    let other = "Всё, что у нас есть, лежит на полках. ";
    let cut = |text: &str, characters: usize| Value::from(text.chars().cycle().take(characters).collect::<String>());
    vec![
        (1, cut(basic, 120)),
        (2, cut(basic, 300)),
        (3, cut(basic, 450)),
        (1, cut(other, 60)),
        (2, cut(other, 130)),
        (3, cut(other, 200)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::domain::sms;

    #[test]
    fn texts_take_what_is_said_of_them() {
        for (segments, text) in texts() {
            assert_eq!(usize::from(sms::segments(text.as_str().unwrap()).count), segments, "{text}");
        }
    }
}
