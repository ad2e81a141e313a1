//! What a token of the API may do. A request without the permission is refused by name, so that an integrator knows what
//! to ask for.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// One thing a token may do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Permission { $($(#[$doc])* #[serde(rename = $text)] $name),+ }

        impl Permission {
            /// All permissions.
            pub const ALL: &'static [Permission] = &[$(Permission::$name),+];

            /// The name in SQL, in problems and at the command line.
            pub fn as_str(self) -> &'static str {
                match self { $(Permission::$name => $text),+ }
            }
        }
    };
}

permissions! {
    /// List and show contacts.
    ContactsRead = "contacts:read",
    /// Create and change contacts.
    ContactsWrite = "contacts:write",
    /// List and show conversations.
    ConversationsRead = "conversations:read",
    /// List and show messages.
    MessagesRead = "messages:read",
    /// Send messages.
    MessagesSend = "messages:send",
    /// List and show campaigns.
    CampaignsRead = "campaigns:read",
    /// Create, start, pause, resume and cancel campaigns, and retry who failed.
    CampaignsWrite = "campaigns:write",
    /// List channel accounts, and see how they are.
    AccountsRead = "accounts:read",
    /// Bring accounts back that are down.
    AccountsWrite = "accounts:write",
    /// List limits.
    LimitsRead = "limits:read",
    /// Set and remove limits.
    LimitsWrite = "limits:write",
    /// List and show templates, and see what somebody would read.
    TemplatesRead = "templates:read",
    /// Create, change and delete templates, and have them fetched.
    TemplatesWrite = "templates:write",
    /// See who changed what.
    AuditRead = "audit:read",
    /// Search the raw log of webhooks, and see their bodies.
    WebhooksRead = "webhooks:read",
    /// Play webhooks of the raw log again.
    WebhooksReplay = "webhooks:replay",
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A permission's name that this release does not know.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no permission is called {0:?}; there are {list}", list = Permission::ALL.iter().map(|p| p.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownPermission(pub String);

impl FromStr for Permission {
    type Err = UnknownPermission;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|p| p.as_str() == text).ok_or_else(|| UnknownPermission(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permission_is_found_by_its_name() {
        for permission in Permission::ALL {
            assert_eq!(permission.as_str().parse(), Ok(*permission));
        }
        assert_eq!("contacts:eat".parse::<Permission>(), Err(UnknownPermission("contacts:eat".into())));
    }
}
