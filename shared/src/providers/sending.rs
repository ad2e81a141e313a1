//! What a provider's `send` is given and gives: one message to hand over, and the request that does it. No I/O.

use super::gateway::GatewayConfig;
use crate::domain::{
    channel::{Channel, Provider},
    content::{FileRef, OutboundContent},
    events::SendToken,
    ids::FileId,
    people::Recipient,
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use url::Url;

/// From whom: an account, as far as its requests show it.
#[derive(Clone, Debug)]
pub struct Sender {
    /// At which provider.
    pub provider: Provider,
    /// On which channel.
    pub channel: Channel,
    /// The provider's id of the account.
    pub external_id: String,
    /// Where the provider reports what became of a message, where each send says so (Twilio): the receiver's public URL.
    pub status_url: Option<Url>,
    /// How a gateway is called.
    pub gateway: Option<Arc<GatewayConfig>>,
}

/// Where an uploaded file can be had for this message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handle {
    /// The provider has it under this id.
    Id(String),
    /// It was given this id a few minutes ago, and cannot have forgotten it yet.
    NewId(String),
    /// The provider can fetch it here for a while.
    Link(String),
}

/// The files that a message names by our ids.
pub type Handles = HashMap<FileId, Handle>;

/// One message to be handed over.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// From whom.
    pub sender: &'a Sender,
    /// To whom.
    pub recipient: Recipient<'a>,
    /// What is said.
    pub content: &'a OutboundContent,
    /// Where its uploaded files are.
    pub files: &'a Handles,
    /// Comes back in echoes and reports, where the provider has a way.
    pub token: &'a SendToken,
    /// The provider's id of the message that this one answers or reacts to.
    pub refers_to: Option<&'a str>,
    /// Whether the customer service window is closed and it goes as a person's answer (Messenger and Instagram: HUMAN_AGENT).
    pub human_agent: bool,
    /// For how long it is of use, where that is known: a provider that keeps a queue need not keep it longer.
    pub valid_for: Option<Duration>,
}

impl Outgoing<'_> {
    /// Where a file is.
    ///
    /// # Errors
    /// If nobody has seen to it that the provider can have it.
    pub fn file(&self, file: &FileRef) -> Result<Handle, Unsendable> {
        self.handle(file).ok_or_else(|| Unsendable("a file of the message has not been handed over".to_owned()))
    }

    /// Where a file can be fetched, for a place in a message that takes addresses only.
    ///
    /// # Errors
    /// If the provider was given the file itself, or nothing.
    pub fn link(&self, file: &FileRef) -> Result<String, Unsendable> {
        match self.file(file)? {
            Handle::Link(link) => Ok(link),
            Handle::Id(_) | Handle::NewId(_) => {
                Err(Unsendable("a file of the message has to be given by its address".to_owned()))
            }
        }
    }

    /// The provider's id of the message that is reacted to.
    ///
    /// # Errors
    /// If it has none: it was never sent or received.
    pub fn target(&self) -> Result<&str, Unsendable> {
        self.refers_to.ok_or_else(|| Unsendable("the message reacted to has no id at the provider".to_owned()))
    }

    /// Where a file is; `None` if one of ours has not been handed over to the provider, which whoever sends sees to.
    pub fn handle(&self, file: &FileRef) -> Option<Handle> {
        match (&file.id, &file.link) {
            (Some(id), _) => self.files.get(id).cloned(),
            (None, Some(link)) => Some(Handle::Link(link.clone())),
            (None, None) => None,
        }
    }
}

/// Why a file that is being read has no more bytes.
pub type BrokenOff = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// `application/json`.
    Json(Vec<u8>),
    /// `application/x-www-form-urlencoded`.
    Form(String),
}

/// Why no request can be made of a message: it passed the check for another kind of account, or its file is not at hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsendable(pub String);

impl Unsendable {
    /// The provider has nothing of this kind.
    pub fn kind(message: &Outgoing<'_>) -> Self {
        Self(format!("{} has no messages of the type {}", message.sender.provider, message.content.type_name()))
    }
}

/// What is known of an uploaded file, to be held against a provider's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Its type, by its first bytes.
    pub mime_type: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The facts of a content's uploaded files, by id. A file that is not there does not exist.
pub type Facts = HashMap<FileId, FileFacts>;

/// By which way a message goes, as far as it decides what can be said.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// Whose account.
    pub provider: Provider,
    /// On which channel.
    pub channel: Channel,
    /// How a gateway is called.
    pub gateway: Option<&'a GatewayConfig>,
}

/// How a provider comes by an uploaded file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// It is uploaded, and named by the provider's id.
    Upload,
    /// The provider is given an address to fetch it from, and says an id by which it keeps it: with the id it is not fetched again.
    Fetch,
    /// The provider is given an address every time.
    Link,
}
