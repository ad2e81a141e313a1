//! What those who follow a tenant are told.

use std::fmt;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A conversation's customer service window ends soon: after that only templates can be sent.
    WindowClosing,
    /// It has ended.
    WindowClosed,
    /// The customer has written to a conversation whose window had ended, or had never been open: everything can be sent again.
    WindowOpened,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::WindowClosing, Kind::WindowClosed, Kind::WindowOpened];

    /// The name in SQL and in the API: a kind of thing and what became of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::WindowClosing => "conversation.window_closing",
            Kind::WindowClosed => "conversation.window_closed",
            Kind::WindowOpened => "conversation.window_opened",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
