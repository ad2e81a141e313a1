//! The part of the books about campaigns: person by person, whether each of the audience was frozen, and reached, refused or
//! held; and whether each campaign's own ledger agrees with itself.

use super::{Books, Send, message_of};
use crate::{campaigns::Started, fleet::Fleet, sandbox::ledger::SendEntry};
use shared::domain::{
    ids::{CampaignId, ContactId, MessageId},
    sends::SendState,
};
use sqlx::{PgConnection, Row};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What is frozen in Postgres.
pub(super) struct Frozen {
    campaigns: BTreeMap<CampaignId, (String, Option<i64>)>,
    people: HashMap<(CampaignId, ContactId), Person>,
}

struct Person {
    state: String,
    message: Option<MessageId>,
}

/// Where a person stands who should have been written to.
enum Standing {
    Settled,
    /// Said elsewhere in the books: its message has no end.
    Open,
    Lost(String),
}

pub(super) async fn frozen(admin: &mut PgConnection) -> Frozen {
    let campaigns = sqlx::query("SELECT id, state, frozen_count FROM campaigns")
        .fetch_all(&mut *admin)
        .await
        .expect("the database answers");
    let people = sqlx::query("SELECT campaign_id, contact_id, state, message_id FROM campaign_recipients")
        .fetch_all(admin)
        .await
        .expect("the database answers");
    let person = |row: &sqlx::postgres::PgRow| {
        let message: Option<_> = row.get("message_id");
        Person { state: row.get("state"), message: message.map(MessageId) }
    };
    Frozen {
        campaigns: campaigns
            .iter()
            .map(|row| (CampaignId(row.get("id")), (row.get("state"), row.get("frozen_count"))))
            .collect(),
        people: people
            .iter()
            .map(|row| ((CampaignId(row.get("campaign_id")), ContactId(row.get("contact_id"))), person(row)))
            .collect(),
    }
}

impl Frozen {
    /// The messages that are somebody's. Another one of a campaign is one too many.
    pub(super) fn messages(&self) -> impl Iterator<Item = MessageId> {
        self.people.values().filter_map(|person| person.message)
    }
}

impl Books {
    /// Everybody of each campaign's audience is frozen once, and has an end.
    pub(super) async fn campaigns(
        &mut self,
        fleet: &Fleet,
        started: &[Started],
        frozen: &Frozen,
        sends: &HashMap<MessageId, Send>,
        requests: &[SendEntry],
    ) {
        let mut taken: HashMap<MessageId, Vec<&str>> = HashMap::new();
        for entry in requests.iter().filter(|entry| entry.wamid().is_some()) {
            if let Some(id) = message_of(entry) {
                taken.entry(id).or_default().push(&entry.recipient);
            }
        }
        let (mut lost, mut strange) = (Vec::new(), Vec::new());
        for Started { id, audience, ends } in started {
            self.campaigns += 1;
            self.people += audience.size();
            match frozen.campaigns.get(id) {
                Some((state, Some(count))) if state == ends && usize::try_from(*count) == Ok(audience.size()) => {}
                other => strange.push(format!("{id}, to {} people, is {other:?}", audience.size())),
            }
            for (contact, address) in audience.people() {
                let person = frozen.people.get(&(*id, contact));
                let lose = |what: String| format!("{contact} of {id} {what}");
                match (person, address) {
                    (None, _) => lost.push(lose("is not frozen".into())),
                    (Some(person), None) if person.state == "skipped" => self.skipped += 1,
                    (Some(person), None) => strange.push(lose(format!("has no address and is {}", person.state))),
                    (Some(person), Some(_)) if *ends == "cancelled" && person.state == "cancelled" => {
                        self.cancelled += 1
                    }
                    (Some(person), Some(address)) => match standing(person, address, ends, sends, &taken) {
                        Standing::Settled | Standing::Open => {}
                        Standing::Lost(why) => lost.push(lose(why)),
                    },
                }
            }
            strange.extend(own_ledger(fleet, *id, audience.size()).await);
        }
        let known: BTreeSet<CampaignId> = started.iter().map(|started| started.id).collect();
        strange.extend(frozen.campaigns.keys().filter(|id| !known.contains(id)).map(|id| format!("nobody began {id}")));
        self.lost += lost.len();
        self.say("people of campaigns that are lost", &lost);
        self.say("campaigns that do not agree", &strange);
    }
}

/// Whether the provider took a message twice or never is looked at for all messages alike; here it matters to whom it went.
fn standing(
    person: &Person,
    address: &str,
    ends: &str,
    sends: &HashMap<MessageId, Send>,
    taken: &HashMap<MessageId, Vec<&str>>,
) -> Standing {
    let Some((id, send)) = person.message.and_then(|id| Some((id, sends.get(&id)?))) else {
        return Standing::Lost(format!("is {} without a message", person.state));
    };
    let to = taken.get(&id).map(Vec::as_slice).unwrap_or_default();
    if let Some(stranger) = to.iter().find(|to| **to != address) {
        return Standing::Lost(format!("is {address}, and the message went to {stranger}"));
    }
    match send.state {
        SendState::Sent | SendState::Delivered | SendState::Read | SendState::Held => Standing::Settled,
        SendState::Failed if send.code.is_some() => Standing::Settled,
        SendState::Cancelled if ends == "cancelled" => Standing::Settled,
        SendState::Waiting | SendState::Queued | SendState::Sending | SendState::Unknown => Standing::Open,
        SendState::Failed => Standing::Lost("failed without a code".into()),
        SendState::Cancelled => Standing::Lost("was cancelled by nobody".into()),
    }
}

/// What a campaign's own ledger does not agree with.
async fn own_ledger(fleet: &Fleet, id: CampaignId, people: usize) -> Vec<String> {
    let ledger = match fleet.get(&format!("/campaigns/{id}/ledger")).await {
        Ok(ledger) => ledger,
        Err(error) => return vec![format!("the ledger of {id} cannot be read: {error}")],
    };
    let mut wrong: Vec<String> = ledger["disagreements"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|said| format!("the ledger of {id}: {said}"))
        .collect();
    if ledger["agrees"] != true || ledger["frozen_count"] != people {
        wrong.push(format!("the ledger of {id} of {people} people: {ledger}"));
    }
    wrong
}
