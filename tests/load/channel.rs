//! The channels that drills are about, and accounts of several of them on one fleet: each with the same limit on both sides.

use anyhow::Result;
use shared::domain::{channel::Provider, ids::ConversationId};
use support::{
    channels::{self, Line, Stage, Way},
    fleet::Fleet,
    metering,
    sandbox::{Api, Limit, behaviour::Behaviour},
    traffic::{self, Talks},
};

/// By which channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Channel {
    /// A number of WhatsApp's: messages, in and out together.
    Whatsapp,
    /// A Facebook Page: messages, in and out together.
    Messenger,
    /// A sender of text messages at Twilio: segments out.
    Twilio,
}

impl Channel {
    pub(crate) fn name(self) -> &'static str {
        self.provider().as_str()
    }

    pub(crate) fn way(self) -> Way {
        match self {
            Channel::Whatsapp => Way::Whatsapp,
            Channel::Messenger => Way::Messenger,
            Channel::Twilio => Way::Sms,
        }
    }

    pub(crate) fn provider(self) -> Provider {
        match self {
            Channel::Whatsapp => Provider::Whatsapp,
            Channel::Messenger => Provider::Messenger,
            Channel::Twilio => Provider::Twilio,
        }
    }

    pub(crate) fn api(self) -> Api {
        self.way().api()
    }

    /// Which code says that there was too much.
    pub(crate) fn throttled(self) -> u32 {
        match self {
            Channel::Whatsapp => 130_429,
            Channel::Messenger => 613,
            Channel::Twilio => 20_429,
        }
    }
}

/// Somebody of any of them.
pub(crate) enum Someone {
    /// On WhatsApp, with any of the names by which people are known there.
    OnWhatsapp(traffic::Party),
    /// Anywhere else.
    Elsewhere(channels::Party),
}

impl Talks for Someone {
    async fn write(&self, fleet: &Fleet, number: u64) {
        match self {
            Someone::OnWhatsapp(party) => party.write(fleet, number).await,
            Someone::Elsewhere(party) => party.write(fleet, number).await,
        }
    }

    fn conversation(&self) -> ConversationId {
        match self {
            Someone::OnWhatsapp(party) => party.conversation(),
            Someone::Elsewhere(party) => party.conversation(),
        }
    }
}

/// Accounts of several channels, and who writes to them.
pub(crate) struct Mixture {
    channels: Vec<Channel>,
    stage: Stage,
    rate: u32,
    pub(crate) people: Vec<Someone>,
    /// Of each of them.
    of: Vec<Channel>,
}

/// An account's limit, and what was granted of it at most.
pub(crate) struct Taken {
    pub(crate) channel: Channel,
    pub(crate) busiest: u64,
    pub(crate) rate: u32,
}

/// So much a second is allowed of every channel.
pub(crate) fn allow(behaviour: &mut Behaviour, rate: u32) {
    behaviour.throughput_per_second = Some(rate);
    behaviour.high_volume_per_second = Some(rate);
}

impl Mixture {
    /// Makes the accounts, with a limit that the fleet's own number has already ([`allow`]), and at least as many
    /// people write, evenly.
    pub(crate) async fn make(fleet: &Fleet, channels: &[Channel], rate: u32, seed: u64, people: u32) -> Result<Self> {
        let lines = channels.iter().map(|channel| Line::new(channel.way(), Some(f64::from(rate))));
        let stage = Stage::of(fleet, lines).await;
        let each = people.div_ceil(u32::try_from(channels.len().max(1))?);
        let (mut met, mut of) = (Vec::new(), Vec::new());
        for channel in channels {
            match channel {
                Channel::Whatsapp => met.extend(fleet.acquaint(seed, each).await.into_iter().map(Someone::OnWhatsapp)),
                Channel::Messenger => {}
                Channel::Twilio => {
                    fleet.sandbox.limit(Limit::new(Api::Twilio, channel.way().account(), Some(rate))).await?;
                }
            }
            if *channel != Channel::Whatsapp {
                met.extend(stage.acquaint(fleet, channel.way(), each).await.into_iter().map(Someone::Elsewhere));
            }
            of.resize(met.len(), *channel);
        }
        Ok(Self { channels: channels.to_vec(), stage, rate, people: met, of })
    }

    /// Of which channel the person at this place is.
    pub(crate) fn channel_of(&self, place: usize) -> Channel {
        self.of[place]
    }

    /// What was granted of each account's limit in its busiest sliding second so far. What came in is left out: where webhooks pile up
    /// they come all at once.
    pub(crate) async fn taken(&self, fleet: &Fleet) -> Vec<Taken> {
        let mut admin = fleet.database.admin().await;
        let always = (chrono::DateTime::UNIX_EPOCH, chrono::Utc::now());
        let mut taken = Vec::new();
        for channel in &self.channels {
            let account = self.stage.account(channel.way());
            let busiest = metering::busiest(&metering::granted(&mut admin, account, always).await);
            taken.push(Taken { channel: *channel, busiest, rate: self.rate });
        }
        taken
    }
}
