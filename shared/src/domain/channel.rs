//! Channels and the providers behind them.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The company whose API a channel account talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// Meta's WhatsApp Cloud API.
    Whatsapp,
}

impl Provider {
    /// All providers, in the order in which they are shown.
    pub const ALL: &'static [Provider] = &[Provider::Whatsapp];

    /// The name in SQL, URLs, metrics and on queues.
    pub fn as_str(self) -> &'static str {
        match self {
            Provider::Whatsapp => "whatsapp",
        }
    }

    /// What a message that is received takes of an account's rate: WhatsApp's throughput is of both ways together
    /// (providers/whatsapp section 11).
    pub fn inbound_cost(self) -> f64 {
        match self {
            Provider::Whatsapp => 1.0,
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A provider's name that this release does not know.
#[derive(Debug, thiserror::Error)]
#[error("no provider is called {0:?}")]
pub struct UnknownProvider(pub String);

impl FromStr for Provider {
    type Err = UnknownProvider;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|p| p.as_str() == text).ok_or_else(|| UnknownProvider(text.to_owned()))
    }
}
