//! Kinds of happenings: an enum, all of it in a list, and the provider's word for each.

/// Makes the enum, in the order given.
macro_rules! kinds {
    ($(#[$doc:meta])* $enum:ident { $($(#[$kind_doc:meta])* $name:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[allow(missing_docs, reason = "each is the contract page's own word")]
        pub enum $enum { $($(#[$kind_doc])* #[serde(rename = $text)] $name),+ }

        impl $enum {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// As in the control plane.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

pub(super) use kinds;
