//! What people wrote, and what was written to them in an account's name: by us, which an echo is evidence of, or elsewhere.

use super::{Heard, Inbound, people::People};
use chrono::{DateTime, TimeDelta, Utc};
use shared::{
    db::{
        self, FleetTx,
        inbound::{
            conversations::Pair,
            messages::{self, Erased, NewMessage},
            refs::{self, Named, Ref, Revoked},
            reports::Report,
        },
        media::{NewMedia, profiles::Nameless},
    },
    domain::{
        channel::Channel,
        events::{Echo, Event, InboundMessage, SendToken},
        ids::{ChannelAccountId, ContactId, ConversationId, MessageId, TenantId, WebhookId},
        messages::{Direction, MediaRef, MessageKind},
        people::{Alias, AliasKind, Person},
        sends::SendState,
    },
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What was received longer ago does not count in this second's messages.
const JUST_NOW: TimeDelta = TimeDelta::seconds(3);
/// What is left of a message that was taken back.
const NOTHING: &str = "{}";
/// How an echo of a send of ours is called in its trail.
const ECHOED: &str = "echoed";

/// One message of the batch.
pub(super) struct Item<'a> {
    heard: Heard<'a, Said<'a>>,
    /// Ours, if it is new.
    id: MessageId,
    fresh: bool,
}

/// Who said it.
#[derive(Clone, Copy)]
enum Said<'a> {
    /// The person.
    In(&'a InboundMessage),
    /// Somebody to the person.
    Out(&'a Echo),
}

impl<'a> Item<'a> {
    pub(super) fn tenant_id(&self) -> TenantId {
        self.heard.webhook.tenant_id
    }

    /// Whose account heard it.
    pub(super) fn account(&self) -> (TenantId, ChannelAccountId) {
        self.heard.account()
    }

    pub(super) fn channel(&self) -> Channel {
        self.heard.channel
    }

    pub(super) fn webhook_key(&self) -> (WebhookId, TenantId) {
        self.heard.webhook.key()
    }

    pub(super) fn received_at(&self) -> DateTime<Utc> {
        self.heard.webhook.meta.received_at
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    fn is_replay(&self) -> bool {
        self.heard.webhook.meta.replay
    }

    pub(super) fn direction(&self) -> Direction {
        match self.said() {
            Said::In(_) => Direction::In,
            Said::Out(_) => Direction::Out,
        }
    }

    fn said(&self) -> Said<'a> {
        self.heard.what
    }

    /// What the person wrote, if they did.
    pub(super) fn inbound(&self) -> Option<&'a InboundMessage> {
        match self.said() {
            Said::In(message) => Some(message),
            Said::Out(_) => None,
        }
    }

    /// Who wrote, or was written to.
    pub(super) fn person(&self) -> &'a Person {
        match self.said() {
            Said::In(message) => &message.sender,
            Said::Out(echo) => &echo.recipient,
        }
    }

    pub(super) fn new_aliases(&self) -> &'a [Alias] {
        self.inbound().map_or(&[], |message| &message.new_aliases)
    }

    pub(super) fn at(&self) -> DateTime<Utc> {
        match self.said() {
            Said::In(message) => message.at,
            Said::Out(echo) => echo.at,
        }
    }

    pub(super) fn kind(&self) -> MessageKind {
        match self.said() {
            Said::In(message) => message.kind,
            Said::Out(echo) => echo.kind,
        }
    }

    fn text(&self) -> Option<&'a str> {
        match self.said() {
            Said::In(message) => message.text.as_deref(),
            Said::Out(echo) => echo.text.as_deref(),
        }
    }

    fn media(&self) -> &'a [MediaRef] {
        match self.said() {
            Said::In(message) => &message.media,
            Said::Out(echo) => &echo.media,
        }
    }

    fn raw(&self) -> &'a str {
        match self.said() {
            Said::In(message) => message.raw.get(),
            Said::Out(echo) => echo.raw.get(),
        }
    }

    fn refers_to(&self) -> Option<&'a str> {
        match self.said() {
            Said::In(message) => message.refers_to.as_deref(),
            Said::Out(echo) => echo.refers_to.as_deref(),
        }
    }

    fn provider_message_id(&self) -> &'a str {
        match self.said() {
            Said::In(message) => &message.provider_message_id,
            Said::Out(echo) => &echo.provider_message_id,
        }
    }

    fn token(&self) -> Option<SendToken> {
        match self.said() {
            Said::In(_) => None,
            Said::Out(echo) => echo.token,
        }
    }

    fn reference(&self, message_id: MessageId) -> Ref<'a> {
        Ref {
            tenant_id: self.tenant_id(),
            channel_account_id: self.heard.channel_account_id,
            provider_message_id: self.provider_message_id(),
            message_id,
        }
    }
}

/// A message that is to be stored.
pub(super) struct Placed<'a> {
    pub item: &'a Item<'a>,
    /// Whose it is, and on which account.
    pub pair: Pair,
    /// It was stored before and counted, and is played again because it is not there any more.
    pub restored: bool,
    id: MessageId,
    /// It was taken back: nothing of it is kept.
    revoked: bool,
}

impl Placed<'_> {
    /// Its words, if they may be kept.
    pub(super) fn text(&self) -> Option<&str> {
        self.item.text().filter(|_| !self.revoked)
    }
}

/// The batch's messages, each once: a webhook may be repeated within it.
pub(super) fn distinct(effects: &[Inbound], now: DateTime<Utc>) -> Vec<Item<'_>> {
    let mut seen: HashSet<(TenantId, ChannelAccountId, &str)> = HashSet::new();
    let mut items = Vec::new();
    for webhook in effects {
        for told in &webhook.events {
            let what = match &told.event {
                Event::Message(message) => Said::In(message),
                Event::Echo(echo) => Said::Out(echo),
                _ => continue,
            };
            let (channel_account_id, channel) = (told.channel_account_id, told.channel);
            let heard = Heard { webhook, channel_account_id, channel, what };
            let mut item = Item { heard, id: MessageId::new(), fresh: false };
            item.fresh = heard.is_fresh(item.at(), now);
            if seen.insert((webhook.tenant_id, channel_account_id, item.provider_message_id())) {
                items.push(item);
            }
        }
    }
    items
}

/// Messages that were there when they were taken back, or that come after that.
#[derive(Default)]
pub(super) struct TakenBack {
    by_people: Vec<Erased>,
    by_others: Vec<Erased>,
}

/// Marks what the batch takes back, wherever it is: here already, in this batch, or still to come.
pub(super) async fn revoke(tx: &mut FleetTx, items: &[Item<'_>]) -> Result<TakenBack, db::Error> {
    let mut revoked: BTreeMap<_, Revoked> = BTreeMap::new();
    let mut by: HashMap<_, Vec<Direction>> = HashMap::new();
    let revocations = items.iter().filter(|item| item.kind() == MessageKind::Revoke);
    for (item, refers_to) in revocations.filter_map(|item| Some((item, item.refers_to()?))) {
        let (tenant_id, channel_account_id) = (item.tenant_id(), item.heard.channel_account_id);
        let provider_message_id = refers_to.to_owned();
        by.entry((tenant_id, channel_account_id, provider_message_id.clone())).or_default().push(item.direction());
        revoked.entry((tenant_id, channel_account_id, refers_to)).or_insert_with(|| Revoked {
            tenant_id,
            channel_account_id,
            provider_message_id,
            at: item.at(),
        });
    }
    let mut taken_back = TakenBack::default();
    for (of, message_id) in refs::revoke(tx, &revoked.into_values().collect::<Vec<_>>()).await? {
        let Revoked { tenant_id, channel_account_id, provider_message_id, .. } = of;
        let erased =
            Erased { tenant_id, channel_account_id, message_id, provider_message_id: provider_message_id.clone() };
        for direction in by.get(&(tenant_id, channel_account_id, provider_message_id)).into_iter().flatten() {
            taken_back.of(*direction).push(erased.clone());
        }
    }
    Ok(taken_back)
}

impl TakenBack {
    fn of(&mut self, direction: Direction) -> &mut Vec<Erased> {
        match direction {
            Direction::In => &mut self.by_people,
            Direction::Out => &mut self.by_others,
        }
    }

    /// Messages that come after they were taken back, of which there may be edits; and sends of ours of which that turns out now.
    pub(super) fn add(&mut self, placed: &[Placed<'_>], sends: Vec<Erased>) {
        self.by_others.extend(sends);
        for p in placed.iter().filter(|p| p.revoked && p.item.kind() != MessageKind::Edit) {
            let erased = Erased {
                tenant_id: p.item.tenant_id(),
                channel_account_id: p.item.heard.channel_account_id,
                message_id: Some(p.id),
                provider_message_id: p.item.provider_message_id().to_owned(),
            };
            self.of(p.item.direction()).push(erased);
        }
    }

    /// Erases what they said.
    pub(super) async fn erase(&self, tx: &mut FleetTx) -> Result<(), db::Error> {
        messages::erase(tx, &self.by_people, Direction::In).await?;
        messages::erase(tx, &self.by_others, Direction::Out).await
    }
}

/// What is to become of the batch's messages.
pub(super) struct Claimed<'a> {
    /// Those that are to be stored: that are new, and of a replay those that are not there any more.
    pub placed: Vec<Placed<'a>>,
    /// What echoes of our own sends are evidence of.
    pub evidence: Vec<Report>,
    /// What was stored because of an echo, and is a send of ours.
    pub echoes: Vec<(TenantId, MessageId)>,
    /// Sends of ours that were taken back.
    pub revoked: Vec<Erased>,
}

/// Finds out which of the messages are to be stored.
pub(super) async fn claim<'a>(
    tx: &mut FleetTx,
    items: &'a [Item<'a>],
    people: &People,
) -> Result<Claimed<'a>, db::Error> {
    let Evidence { ours, reports: evidence, echoes: linked, revoked: sends } = evidence(tx, items).await?;
    let there = |item: &&Item<'_>, contact: &Option<ContactId>| contact.is_some() && !ours.contains(&item.id);
    let (mut inbound, mut echoes, mut contacts) = (Vec::new(), Vec::new(), HashMap::new());
    for (item, contact) in items.iter().zip(&people.items).filter(|(item, contact)| there(item, contact)) {
        contacts.extend(contact.map(|contact_id| (item.id, contact_id)));
        let of = if item.direction() == Direction::In { &mut inbound } else { &mut echoes };
        of.push(item.reference(item.id));
    }
    let mut claimed = refs::claim(tx, &inbound).await?;
    let claimed_echoes = refs::claim_echoes(tx, &echoes).await?;
    claimed.new.extend(claimed_echoes.new);
    claimed.revoked.extend(claimed_echoes.revoked);
    let again =
        |item: &&Item<'_>| item.is_replay() && contacts.contains_key(&item.id) && !claimed.new.contains(&item.id);
    let again: Vec<Ref<'_>> = items.iter().filter(again).map(|item| item.reference(item.id)).collect();
    let lost = refs::lost(tx, &again).await?;
    // An edit of what was taken back says nothing either.
    let edits: Vec<(&Item<'_>, Named)> = items
        .iter()
        .filter(|item| item.kind() == MessageKind::Edit && contacts.contains_key(&item.id))
        .filter_map(|item| {
            Some((item, (item.tenant_id(), item.heard.channel_account_id, item.refers_to()?.to_owned())))
        })
        .collect();
    let named: BTreeSet<Named> = edits.iter().map(|(_, named)| named.clone()).collect();
    let taken_back = refs::revoked(tx, &named.into_iter().collect::<Vec<_>>()).await?;
    let void: HashSet<MessageId> =
        edits.iter().filter(|(_, named)| taken_back.contains(named)).map(|(item, _)| item.id).collect();
    let placed = items.iter().filter_map(|item| {
        let contact_id = *contacts.get(&item.id)?;
        let (id, revoked, restored) = match lost.get(&item.id) {
            Some((was, revoked)) => (*was, *revoked, true),
            None => (item.id, claimed.revoked.contains(&item.id), false),
        };
        let revoked = revoked || void.contains(&item.id);
        let pair = (item.tenant_id(), contact_id, item.heard.channel_account_id);
        (restored || claimed.new.contains(&item.id)).then_some(Placed { item, pair, restored, id, revoked })
    });
    Ok(Claimed { placed: placed.collect(), evidence, echoes: linked, revoked: sends })
}

/// Which echoes are of sends of ours.
struct Evidence {
    /// Those, by the ids they would have had.
    ours: HashSet<MessageId>,
    /// What they are evidence of: each was taken by the provider, at its time.
    reports: Vec<Report>,
    /// What was stored because of one that did not say so.
    echoes: Vec<(TenantId, MessageId)>,
    /// Those that were taken back.
    revoked: Vec<Erased>,
}

async fn evidence(tx: &mut FleetTx, items: &[Item<'_>]) -> Result<Evidence, db::Error> {
    let named: Vec<(&Item<'_>, SendToken)> = items.iter().filter_map(|item| Some((item, item.token()?))).collect();
    let messages: BTreeSet<(TenantId, MessageId)> =
        named.iter().map(|(item, token)| (item.tenant_id(), token.message_id)).collect();
    let sends = refs::ours(tx, &messages.into_iter().collect::<Vec<_>>()).await?;
    let named: Vec<_> =
        named.into_iter().filter(|(item, token)| sends.contains(&(item.tenant_id(), token.message_id))).collect();
    let links: Vec<Ref<'_>> = named.iter().map(|(item, token)| item.reference(token.message_id)).collect();
    let linked = refs::link(tx, &links).await?;
    let mut reports: Vec<Report> = named
        .iter()
        .map(|(item, token)| Report {
            tenant_id: item.tenant_id(),
            channel_account_id: item.heard.channel_account_id,
            provider_message_id: item.provider_message_id().to_owned(),
            state: SendState::Sent,
            status: ECHOED.to_owned(),
            at: item.at(),
            code: None,
            reason: None,
            aftermath: None,
            token: Some(*token),
        })
        .collect();
    reports.extend(linked.parked);
    let ours = named.iter().map(|(item, _)| item.id).collect();
    Ok(Evidence { ours, reports, echoes: linked.echoes, revoked: linked.revoked })
}

/// Stores the messages, each in its conversation; counts those anew to which some were restored.
pub(super) async fn insert(
    tx: &mut FleetTx,
    placed: &[Placed<'_>],
    conversations: &HashMap<Pair, ConversationId>,
) -> Result<(), db::Error> {
    let rows: Vec<NewMessage<'_>> = placed
        .iter()
        .map(|p| NewMessage {
            tenant_id: p.item.tenant_id(),
            id: p.id,
            contact_id: p.pair.1,
            conversation_id: conversations[&p.pair],
            direction: p.item.direction(),
            kind: p.item.kind(),
            text: p.text(),
            content: if p.revoked { NOTHING } else { p.item.raw() },
            media: if p.revoked { &[] } else { p.item.media() },
            refers_to: p.item.refers_to(),
            provider_message_id: p.item.provider_message_id(),
            at: p.item.at(),
        })
        .collect();
    messages::insert(tx, &rows).await?;
    let restored: BTreeSet<(TenantId, ConversationId)> =
        placed.iter().filter(|p| p.restored).map(|p| (p.pair.0, conversations[&p.pair])).collect();
    messages::recount(tx, &restored.into_iter().collect::<Vec<_>>()).await
}

/// The files of messages that are stored now, or that an operator plays again: then what is missing is made up for.
pub(super) fn files<'a>(items: &'a [Item<'a>], people: &People, placed: &[Placed<'_>]) -> Vec<NewMedia<'a>> {
    let stored: HashSet<MessageId> = placed.iter().filter(|p| !p.revoked).map(|p| p.item.id).collect();
    let wanted = |(item, contact): &(&Item<'_>, &Option<ContactId>)| {
        contact.is_some() && !item.media().is_empty() && (item.is_replay() || stored.contains(&item.id))
    };
    let files = items.iter().zip(&people.items).filter(wanted).map(|(item, _)| NewMedia {
        tenant_id: item.tenant_id(),
        channel_account_id: item.heard.channel_account_id,
        provider: item.heard.webhook.meta.provider,
        channel: item.channel(),
        kind: item.kind(),
        provider_message_id: item.provider_message_id(),
        at: item.at(),
        media: item.media(),
    });
    files.collect()
}

/// Who wrote by a provider that keeps people's names to itself until it is asked (providers/messenger section 5,
/// providers/instagram section 4). What a replay brings is no reason to ask.
pub(super) fn nameless(items: &[Item<'_>], people: &People) -> Vec<Nameless> {
    let mut nameless: BTreeMap<(TenantId, ContactId), Nameless> = BTreeMap::new();
    for (item, contact) in items.iter().zip(&people.items).filter(|(item, _)| item.is_fresh()) {
        let kind = match item.channel() {
            Channel::Messenger => AliasKind::MessengerId,
            Channel::Instagram => AliasKind::InstagramId,
            Channel::Whatsapp | Channel::Sms => continue,
        };
        let Some((message, contact_id)) = item.inbound().zip(*contact) else { continue };
        let sender = &message.sender;
        let Some(id) = sender.aliases.iter().find(|alias| alias.kind == kind).filter(|_| sender.name.is_none()) else {
            continue;
        };
        let tenant_id = item.tenant_id();
        if people.named.contains(&(tenant_id, contact_id)) {
            continue;
        }
        nameless.entry((tenant_id, contact_id)).or_insert_with(|| Nameless {
            tenant_id,
            contact_id,
            channel_account_id: item.heard.channel_account_id,
            provider: item.heard.webhook.meta.provider,
            person_id: id.value.clone(),
        });
    }
    nameless.into_values().collect()
}

/// How many messages each account received now. What a replay brings came long ago, and so did what is made up for after an
/// outage of ours.
pub(super) fn received_now(placed: &[Placed<'_>], now: DateTime<Utc>) -> BTreeMap<(TenantId, ChannelAccountId), i32> {
    let mut received = BTreeMap::new();
    let is_now =
        |item: &Item<'_>| item.direction() == Direction::In && !item.is_replay() && item.received_at() > now - JUST_NOW;
    for item in placed.iter().map(|p| p.item).filter(|item| is_now(item)) {
        *received.entry((item.tenant_id(), item.heard.channel_account_id)).or_default() += 1;
    }
    received
}
