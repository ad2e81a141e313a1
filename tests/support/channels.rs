//! Every way by which people write and are written to, in a fleet: an account at each provider with the sandbox in the provider's
//! place, people who write to it, and what is said to them over the API.

use crate::{
    fleet::{Builder, Fleet},
    sandbox::{AccountSpec, Api, Happening, Incoming, NUMBER, Person, Platform, Session, ledger::SendEntry},
    traffic::Talks,
};
use futures_util::{StreamExt, stream};
use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::{
    domain::ids::{ChannelAccountId, ContactId, ConversationId, FileId, MessageId},
    providers::gateway,
};
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Twilio's auth token: signs its webhooks, and authorises sends.
pub const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Twilio's account.
pub const ACCOUNT_SID: &str = "AC00000000000000000000000000000001";
const PAGE: &str = "100900000000001";
const LINKED_PAGE: &str = "100900000000002";
const PROFESSIONAL: &str = "17841400000000055";
const SMS: &str = "+15035550199";
const TWILIO_WHATSAPP: &str = "whatsapp:+15035550198";
const SESSION: &str = "919800000001";
const PAGE_TOKEN: &str = "EAAB-page";
/// Of the Page that the professional account is linked to.
const LINKED_PAGE_TOKEN: &str = "EAAB-linked-page";
const GATEWAY_TOKEN: &str = "tok_gateway";

/// A way by which people are written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// WhatsApp's own API.
    Whatsapp,
    /// A Facebook Page.
    Messenger,
    /// A professional account, connected by its Page.
    Instagram,
    /// A number at Twilio.
    Sms,
    /// A WhatsApp sender at Twilio.
    TwilioWhatsapp,
    /// A number linked at the gateway that is described beforehand (botmaster).
    Gateway,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 6] =
        [Way::Whatsapp, Way::Messenger, Way::Instagram, Way::Sms, Way::TwilioWhatsapp, Way::Gateway];

    /// Whose API takes the messages.
    pub fn api(self) -> Api {
        match self {
            Way::Whatsapp => Api::Whatsapp,
            Way::Messenger => Api::Messenger,
            Way::Instagram => Api::Instagram,
            Way::Sms | Way::TwilioWhatsapp => Api::Twilio,
            Way::Gateway => Api::Botmaster,
        }
    }

    /// The account, as its provider calls it.
    pub fn account(self) -> &'static str {
        match self {
            Way::Whatsapp => NUMBER,
            Way::Messenger => PAGE,
            Way::Instagram => PROFESSIONAL,
            Way::Sms => SMS,
            Way::TwilioWhatsapp => TWILIO_WHATSAPP,
            Way::Gateway => SESSION,
        }
    }

    /// Where its webhooks come from; the gateway tells nothing. WhatsApp's numbers are told of in a way of their own.
    fn platform(self) -> Option<Platform> {
        match self {
            Way::Messenger => Some(Platform::Messenger),
            Way::Instagram => Some(Platform::Instagram),
            Way::Sms | Way::TwilioWhatsapp => Some(Platform::Twilio),
            Way::Whatsapp | Way::Gateway => None,
        }
    }

    /// A person, as the provider calls them in what it is sent.
    fn person(self, nth: u32) -> String {
        match self {
            Way::Whatsapp => format!("4917033{nth:06}"),
            Way::Messenger => format!("24000000000{nth:06}"),
            Way::Instagram => format!("980000000{nth:06}"),
            Way::Sms => format!("+1415555{nth:04}"),
            Way::TwilioWhatsapp => format!("whatsapp:+4917011{nth:06}"),
            Way::Gateway => format!("4917022{nth:06}"),
        }
    }
}

/// An account to be made.
#[derive(Clone, Debug)]
pub struct Line {
    /// For this way.
    pub way: Way,
    /// As its provider calls it.
    pub id: String,
    /// What we are told that it may send a second; nothing, for what its provider documents.
    pub rate: Option<f64>,
    /// The kinds of files that a gateway carries, too.
    pub carries: &'static [&'static str],
}

impl Line {
    /// The usual account of a way.
    pub fn new(way: Way, rate: Option<f64>) -> Self {
        Self { way, id: way.account().to_owned(), rate, carries: &[] }
    }
}

/// A tenant's accounts, one for each way.
pub struct Stage {
    accounts: BTreeMap<Way, (ChannelAccountId, String)>,
}

/// Somebody who can be written to.
#[derive(Clone, Debug)]
pub struct Party {
    /// By which way.
    pub way: Way,
    /// From which account, as the provider calls it.
    pub account: String,
    /// As the provider calls them.
    pub person: String,
    /// As we call them.
    pub contact: ContactId,
    /// What they wrote; nothing where a provider tells nothing.
    pub theirs: Option<(MessageId, ConversationId)>,
}

/// A file of these types, small and real enough to be taken for one.
pub fn file_of(content_type: &str) -> Vec<u8> {
    let ftyp = |brand: &[u8; 4]| [b"\0\0\0\x18ftyp".as_slice(), brand, b"\0\0\0\0isommp42"].concat();
    let head: Vec<u8> = match content_type {
        "image/png" => b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\0\0\0\0".to_vec(),
        "image/webp" => b"RIFF\x40\0\0\0WEBPVP8 ".to_vec(),
        "application/pdf" => b"%PDF-1.7\n".to_vec(),
        "video/mp4" => ftyp(b"mp42"),
        "audio/mp4" => ftyp(b"M4A "),
        _ => Vec::new(),
    };
    [head, vec![0; 64]].concat()
}

impl Stage {
    /// Makes an account for every way, each fast enough for any test. The gateway carries text.
    ///
    /// # Panics
    /// If `mijra` refuses.
    pub async fn new(fleet: &Fleet) -> Self {
        Self::carrying(fleet, &[]).await
    }

    /// The same, with a gateway that carries these kinds of files, too.
    ///
    /// # Panics
    /// If `mijra` refuses.
    pub async fn carrying(fleet: &Fleet, by_gateway: &'static [&'static str]) -> Self {
        let line = |way| Line { carries: by_gateway, ..Line::new(way, Some(1000.0)) };
        Self::of(fleet, Way::ALL.map(line)).await
    }

    /// Makes these accounts, on both sides. WhatsApp's is the fleet's own, whatever is said of it.
    ///
    /// # Panics
    /// If `mijra` refuses.
    pub async fn of(fleet: &Fleet, lines: impl IntoIterator<Item = Line>) -> Self {
        let mut accounts = BTreeMap::new();
        for line in lines {
            let account = if line.way == Way::Whatsapp { fleet.tenant.account } else { make(fleet, &line).await };
            accounts.insert(line.way, (account, line.id));
        }
        Self { accounts }
    }

    /// The account by this way.
    pub fn account(&self, way: Way) -> ChannelAccountId {
        self.accounts[&way].0
    }

    /// Somebody writes to the account, which opens the window; where nothing can be heard, somebody's number becomes known.
    ///
    /// # Panics
    /// If it is not stored in time.
    pub async fn meet(&self, fleet: &Fleet, way: Way, nth: u32) -> Party {
        let mut party = Party {
            way,
            account: self.accounts[&way].1.clone(),
            person: way.person(nth),
            contact: ContactId(Uuid::nil()),
            theirs: None,
        };
        if way == Way::Gateway {
            let contact = json!({"name": "Mara", "phone": format!("+{}", party.person)});
            let contact = fleet.insist("/contacts", &contact, StatusCode::CREATED).await;
            party.contact = ContactId(uuid_of(&contact["id"]));
            return party;
        }
        let id = party.write_text(fleet, "Is it in stock?").await;
        let (message, conversation, contact) = stored(fleet, std::slice::from_ref(&id)).await[&id];
        Party { contact: ContactId(contact), theirs: Some((MessageId(message), ConversationId(conversation))), ..party }
    }

    /// So many people write to the account for the first time; as soon as all of it is stored.
    ///
    /// # Panics
    /// If it is not in time, or nothing can be heard by this way.
    pub async fn acquaint(&self, fleet: &Fleet, way: Way, people: u32) -> Vec<Party> {
        let newcomers = (1..=people).map(|nth| Party {
            way,
            account: self.accounts[&way].1.clone(),
            person: way.person(nth),
            contact: ContactId(Uuid::nil()),
            theirs: None,
        });
        let told: Vec<(Party, String)> = stream::iter(newcomers)
            .map(|party| async move {
                let id = party.write_text(fleet, "Is it in stock?").await;
                (party, id)
            })
            .buffer_unordered(32)
            .collect()
            .await;
        let ids: Vec<String> = told.iter().map(|(_, id)| id.clone()).collect();
        let stored = stored(fleet, &ids).await;
        told.into_iter()
            .map(|(party, id)| {
                let (message, conversation, contact) = stored[&id];
                let theirs = Some((MessageId(message), ConversationId(conversation)));
                Party { contact: ContactId(contact), theirs, ..party }
            })
            .collect()
    }

    /// Says something to somebody; what the API answers.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn say(&self, fleet: &Fleet, party: &Party, said: &Value) -> (StatusCode, Value) {
        let key = Uuid::new_v4().to_string();
        let (path, mut body) = match party.theirs {
            Some((_, conversation)) => (format!("/conversations/{conversation}/messages"), said.clone()),
            None => ("/messages".to_owned(), said.clone()),
        };
        if party.theirs.is_none() {
            body["contact_id"] = json!(party.contact.0);
            body["channel_account_id"] = json!(self.account(party.way).0);
        }
        fleet.post(&path, &key, &body).await.expect("the API answers")
    }

    /// Says something that is accepted; the message's id.
    ///
    /// # Panics
    /// If it is not accepted.
    pub async fn accepted(&self, fleet: &Fleet, party: &Party, said: &Value) -> MessageId {
        let (status, answer) = self.say(fleet, party, said).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{:?}: {said}: {answer}", party.way);
        MessageId(uuid_of(&answer["id"]))
    }
}

/// Makes an account with its provider, and then with us.
async fn make(fleet: &Fleet, line: &Line) -> ChannelAccountId {
    let (registry, id) = (fleet.sandbox.registry(), line.id.as_str());
    // Lives as long as `mijra` reads it.
    let description = tempfile::NamedTempFile::new().expect("a file");
    let path = description.path().to_str().expect("a path of ours");
    let sender = format!("whatsapp:+{id}");
    let (wanted, token) = match line.way {
        Way::Whatsapp => unreachable!("the fleet has made it"),
        Way::Messenger => {
            let spec = AccountSpec::new(Platform::Messenger, id);
            registry.add_account(AccountSpec { token: Some(PAGE_TOKEN.into()), ..spec });
            (vec!["messenger", "--page-id", id], PAGE_TOKEN)
        }
        Way::Instagram => {
            registry.add_account(AccountSpec {
                token: Some(LINKED_PAGE_TOKEN.into()),
                page_id: Some(LINKED_PAGE.into()),
                ..AccountSpec::new(Platform::Instagram, id)
            });
            (vec!["instagram", "--account-id", id, "--login", "page"], LINKED_PAGE_TOKEN)
        }
        Way::Sms | Way::TwilioWhatsapp => {
            registry.add_account(AccountSpec::new(Platform::Twilio, id).signed_with(AUTH_TOKEN));
            (vec!["twilio", "--sender", id, "--account-sid", ACCOUNT_SID], AUTH_TOKEN)
        }
        Way::Gateway => {
            fleet.sandbox.link(Session::new(id, GATEWAY_TOKEN));
            let mut described = gateway::preset("botmaster").expect("it is built in");
            described.url = format!("{}/api/v1/?action=send", fleet.sandbox.url());
            described.carries.extend(line.carries.iter().map(|kind| (*kind).to_owned()));
            std::fs::write(path, serde_json::to_vec(&described).expect("plain fields")).expect("a file");
            (vec!["gateway", "--sender", &sender, "--description", path], GATEWAY_TOKEN)
        }
    };
    let rate = line.rate.map(|rate| rate.to_string());
    let rate: &[&str] = match &rate {
        Some(rate) => &["--rate", rate],
        None => &[],
    };
    let given = ["--tenant", fleet.tenant.slug.as_str()];
    let add = [["channel-account", "add"].as_slice(), &wanted, &given, rate].concat();
    let added = fleet.mijra_with(&add, &[("ACCESS_TOKEN", token)]).await;
    added["id"].as_str().and_then(|id| id.parse().ok()).expect("the account's id")
}

impl Party {
    /// They write; the message's id.
    async fn write_text(&self, fleet: &Fleet, text: impl Into<String>) -> String {
        let told = match self.way.platform() {
            Some(platform) => {
                fleet.sandbox.happen(Happening::text(platform, &*self.account, &*self.person, text)).await
            }
            None => {
                let person = Person::with_phone(&format!("+{}", self.person));
                fleet.sandbox.tell(&self.account, vec![Incoming::text(&person, text)]).await
            }
        };
        let told = told.expect("the sandbox posts it");
        told.ids.first().expect("a message of a person has an id").clone()
    }
}

impl Talks for Party {
    async fn write(&self, fleet: &Fleet, number: u64) {
        self.write_text(fleet, format!("message {number}")).await;
    }

    fn conversation(&self) -> ConversationId {
        self.theirs.expect("somebody who can be heard").1
    }
}

/// Messages of people by their provider's ids, as soon as all are stored: each one's id, conversation and sender.
async fn stored(fleet: &Fleet, ids: &[String]) -> HashMap<String, (Uuid, Uuid, Uuid)> {
    let deadline = Instant::now() + Duration::from_secs(30) + Duration::from_millis(50) * ids.len() as u32;
    let mut admin = fleet.database.admin().await;
    loop {
        let found = sqlx::query_as(
            "SELECT m.provider_message_id, m.id, m.conversation_id, c.contact_id
            FROM messages m
            JOIN conversations c ON c.tenant_id = m.tenant_id AND c.id = m.conversation_id
            WHERE m.provider_message_id = ANY ($1)",
        );
        let found: Vec<(String, Uuid, Uuid, Uuid)> =
            found.bind(ids).fetch_all(&mut admin).await.expect("the database answers");
        if found.len() == ids.len() {
            return found
                .into_iter()
                .map(|(id, message, conversation, contact)| (id, (message, conversation, contact)))
                .collect();
        }
        assert!(Instant::now() < deadline, "{} of {} messages are stored in time", found.len(), ids.len());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

fn uuid_of(value: &Value) -> Uuid {
    value.as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{value} is no id"))
}

/// A fleet whose provider tells all that can be told, in order, and lets everything leave at once.
pub fn fleet() -> Builder {
    Fleet::builder().behaviour(|behaviour| {
        (behaviour.read_rate, behaviour.skip_delivered_rate) = (1.0, 0.0);
        behaviour.queues = false;
    })
}

impl Fleet {
    /// Uploads a file to be sent.
    ///
    /// # Panics
    /// If it is not taken.
    pub async fn upload(&self, content_type: &str) -> FileId {
        self.upload_bytes(content_type, file_of(content_type)).await
    }

    /// Uploads these bytes to be sent.
    ///
    /// # Panics
    /// If they are not taken for what they are said to be.
    pub async fn upload_bytes(&self, content_type: &str, bytes: Vec<u8>) -> FileId {
        let url = format!("{}/api/{}/files", self.api, self.tenant.slug);
        let request = self.http.post(url).bearer_auth(&self.tenant.token).header("content-type", content_type);
        let response = request.body(bytes).send().await.expect("the API answers");
        let status = response.status();
        let answer: Value = response.json().await.unwrap_or_default();
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        assert_eq!(answer["type"], content_type, "its bytes say what it is");
        FileId(uuid_of(&answer["id"]))
    }

    /// What the API says of a message and of all that became of it.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn message(&self, id: MessageId) -> Value {
        self.get(&format!("/messages/{id}")).await.expect("the API answers")
    }

    /// Waits until what the API says of a message is so.
    ///
    /// # Panics
    /// If it is not in time.
    pub async fn message_when(&self, id: MessageId, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(45);
        loop {
            let message = self.message(id).await;
            if is_so(&message) {
                return message;
            }
            assert!(Instant::now() < deadline, "not in time: {what}: {message:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The provider's entries about a message: by our token, or by the id that it gave.
    pub fn entries_of(&self, message: &Value) -> Vec<SendEntry> {
        let ours = message["id"].as_str().unwrap_or_default().replace('-', "");
        let theirs = message["provider_message_id"].as_str();
        let mut entries = self.sandbox.ledger().sends_from(1, usize::MAX);
        entries.retain(|entry| entry.message() == Some(&*ours) || (theirs.is_some() && entry.wamid() == theirs));
        entries
    }
}
