//! Who wrote: the names a provider has for a person, and telephone numbers.

use super::ids::TenantId;
use phonenumber::{country, metadata::DATABASE};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const MAX_NAME_CHARACTERS: usize = 200;
/// No way of writing a number is longer.
const MAX_TYPED_NUMBER_BYTES: usize = 64;

macro_rules! alias_kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// What kind of name an alias is. The first kind found wins, in this order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum AliasKind { $($(#[$doc])* $name),+ }

        impl AliasKind {
            /// All kinds, the strongest first.
            pub const ALL: &'static [AliasKind] = &[$(AliasKind::$name),+];

            /// The name in SQL.
            pub fn as_str(self) -> &'static str {
                match self { $(AliasKind::$name => $text),+ }
            }

            /// The kind of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(AliasKind::$name),)+ _ => None }
            }
        }
    };
}

alias_kinds! {
    /// WhatsApp's business-scoped user id (`US.7031…`).
    WhatsappBsuid = "whatsapp_bsuid",
    /// WhatsApp's `wa_id`: digits, normally the telephone number without `+`.
    WhatsappId = "whatsapp_id",
    /// Messenger's page-scoped id (PSID): another one for each Page.
    MessengerId = "messenger_id",
    /// Messenger's reference to somebody who came by a plugin and has no PSID yet.
    MessengerUserRef = "messenger_user_ref",
    /// Instagram's id of the person for one professional account (IGSID).
    InstagramId = "instagram_id",
    /// A sender of text messages that is no telephone number: a short code, or letters.
    SmsAddress = "sms_address",
    /// A telephone number, E.164 with `+`.
    Phone = "phone",
}

impl AliasKind {
    /// Whether another account has another such name for the same person: one Page's PSID is nobody at the next.
    pub fn is_of_one_account(self) -> bool {
        matches!(self, Self::MessengerId | Self::MessengerUserRef | Self::InstagramId)
    }
}

/// One name a provider has for a person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Alias {
    /// What kind of name.
    pub kind: AliasKind,
    /// The name itself, normalised for its kind.
    pub value: String,
}

impl Alias {
    /// What is kept of it when its person is erased: SHA-256 of tenant, kind and value. Somebody who has the database and tries every
    /// telephone number finds those that were erased, and nothing else.
    pub fn digest(&self, tenant_id: TenantId) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(tenant_id.0.as_bytes());
        digest.update(self.kind.as_str().as_bytes());
        digest.update([0]);
        digest.update(self.value.as_bytes());
        digest.finalize().into()
    }
}

/// By which of a person's names they are addressed. The names in SQL are `sends.recipient_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecipientKind {
    /// A telephone number: `+` and full international digits.
    Phone,
    /// WhatsApp's business-scoped user id.
    Bsuid,
    /// Messenger's page-scoped id.
    Psid,
    /// Messenger's reference to somebody who came by a plugin.
    UserRef,
    /// Instagram's id of the person.
    Igsid,
    /// Any other address, as it came: a short code.
    Address,
}

impl RecipientKind {
    /// All of them.
    pub const ALL: [RecipientKind; 6] = [
        RecipientKind::Phone,
        RecipientKind::Bsuid,
        RecipientKind::Psid,
        RecipientKind::UserRef,
        RecipientKind::Igsid,
        RecipientKind::Address,
    ];

    /// The name in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            RecipientKind::Phone => "phone",
            RecipientKind::Bsuid => "bsuid",
            RecipientKind::Psid => "psid",
            RecipientKind::UserRef => "user_ref",
            RecipientKind::Igsid => "igsid",
            RecipientKind::Address => "address",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// How a person who has such a name is addressed.
    pub fn of_alias(kind: AliasKind) -> Self {
        match kind {
            AliasKind::WhatsappBsuid => RecipientKind::Bsuid,
            AliasKind::WhatsappId | AliasKind::Phone => RecipientKind::Phone,
            AliasKind::MessengerId => RecipientKind::Psid,
            AliasKind::MessengerUserRef => RecipientKind::UserRef,
            AliasKind::InstagramId => RecipientKind::Igsid,
            AliasKind::SmsAddress => RecipientKind::Address,
        }
    }
}

/// An address that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// What kind of address.
    pub kind: RecipientKind,
    /// The address; a number with `+`.
    pub value: String,
}

impl Address {
    /// As the database has it; nothing if either part is missing.
    pub fn from_row(kind: Option<&str>, value: Option<String>) -> Option<Self> {
        Some(Self { kind: RecipientKind::from_name(kind?)?, value: value? })
    }
}

/// To whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient<'a> {
    /// What kind of address.
    pub kind: RecipientKind,
    /// The address; a number with `+`.
    pub address: &'a str,
}

/// A person as a webhook describes them. At least one alias, the strongest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// All the names given, strongest kind first, no kind twice.
    pub aliases: Vec<Alias>,
    /// The profile's display name, if given and not empty.
    pub name: Option<String>,
    /// The provider's user name (`@ada`), if the person has one.
    pub username: Option<String>,
}

/// A telephone number in E.164 (ITU-T E.164: `+`, country code, at most 15 digits).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct PhoneNumber(String);

/// Why a text is not a telephone number.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a telephone number: {0}")]
pub struct NotAPhoneNumber(pub String);

/// Why a text cannot be a person's name; to be read after the name of the field.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotAName {
    /// It holds what no text can.
    #[error("must not contain NUL")]
    Nul,
    /// It is too long.
    #[error("must have at most {MAX_NAME_CHARACTERS} characters")]
    TooLong,
}

/// A person's name as somebody typed it, trimmed; `None` if nothing is left.
///
/// # Errors
/// If it cannot be a name.
pub fn typed_name(text: &str) -> Result<Option<&str>, NotAName> {
    match text.trim() {
        name if name.contains('\0') => Err(NotAName::Nul),
        name if name.chars().count() > MAX_NAME_CHARACTERS => Err(NotAName::TooLong),
        "" => Ok(None),
        name => Ok(Some(name)),
    }
}

impl PhoneNumber {
    /// As [`PhoneNumber::parse`], of what somebody typed.
    ///
    /// # Errors
    /// What is wrong and what to do, for a person, to be read after the name of the field.
    pub fn typed(text: &str, region: Option<&str>) -> Result<Self, String> {
        if text.contains('\0') || text.len() > MAX_TYPED_NUMBER_BYTES {
            return Err("is not a telephone number".to_owned());
        }
        Self::parse(text, region).map_err(|error| match region {
            Some(region) => format!("is {error}; without a country code {region} is assumed"),
            None => format!("is {error}; write it with `+` and the country code"),
        })
    }

    /// Reads a number as a person writes it; `region` (ISO 3166-1 alpha-2) is assumed where no country code is given.
    ///
    /// # Errors
    /// If it is no possible number of the region or of its country code.
    pub fn parse(text: &str, region: Option<&str>) -> Result<Self, NotAPhoneNumber> {
        let refuse = |why: &dyn std::fmt::Display| NotAPhoneNumber(why.to_string());
        let region = region.and_then(|r| r.parse::<phonenumber::country::Id>().ok());
        let number = read(text.trim(), region).map_err(|e| refuse(&e))?;
        // As the library's E.164 format, which first looks for the country's way of grouping digits, in nearly half of the time.
        let text = format!("+{}{}", number.country().code(), number.national());
        if (8..=16).contains(&text.len()) { Ok(Self(text)) } else { Err(refuse(&"wrong number of digits")) }
    }

    /// The number of a WhatsApp id: its digits with `+` before them.
    pub fn from_whatsapp_id(digits: &str) -> Option<Self> {
        let plain = (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| Self(format!("+{digits}")))
    }

    /// `+` and digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits without `+`: what WhatsApp uses as `wa_id` for most countries.
    pub fn digits(&self) -> &str {
        &self.0[1..]
    }
}

/// A number that has its country code says itself of which country it is. Told of a region all the same, the library takes that one's
/// trunk prefix from it: in the United States, of +49 170 …, the 1.
fn read(text: &str, region: Option<country::Id>) -> Result<phonenumber::PhoneNumber, phonenumber::ParseError> {
    if text.starts_with(['+', '\u{ff0b}']) {
        return phonenumber::parse(None, text);
    }
    let number = phonenumber::parse(region, text)?;
    let dialled =
        region.and_then(|region| DATABASE.by_id(region.as_ref())).and_then(|known| known.international_prefix());
    match (number.code().source(), dialled) {
        (country::Source::Plus, _) => phonenumber::parse(None, text),
        // 011 49 170 …
        (country::Source::Idd, Some(dialled)) => {
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            let end = dialled.find(&digits).filter(|found| found.start() == 0).map_or(0, |found| found.end());
            phonenumber::parse(None, format!("+{}", &digits[end..]))
        }
        _ => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_normalised_to_e164() {
        for (text, region, expected) in [
            ("+1 (555) 777-0142", None, "+15557770142"),
            ("0151 23456789", Some("DE"), "+4915123456789"),
            ("+44 20 7946 0958", Some("US"), "+442079460958"),
            // What is the trunk prefix here is part of the number there.
            ("+49 170 2200001", Some("US"), "+491702200001"),
            ("tel:+49-170-2200001", Some("US"), "+491702200001"),
            ("011 49 170 2200001", Some("US"), "+491702200001"),
            ("0049 170 2200001", Some("FR"), "+491702200001"),
            ("+1 808 555 0142", Some("RU"), "+18085550142"),
            ("1 (555) 777-0142", Some("US"), "+15557770142"),
        ] {
            assert_eq!(
                PhoneNumber::parse(text, region).map(|n| n.as_str().to_owned()),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn numbers_are_put_together_as_the_library_formats_them() {
        // Italy keeps a leading zero, the last has an extension, the one before none of a country but of a service.
        for text in
            ["+1 555 777 0142", "+39 06 698 82022", "+54 9 11 2345-6789", "+800 1234 5678", "+1 555 777 0142 ext. 5"]
        {
            let formatted = phonenumber::parse(None, text).unwrap().format().mode(phonenumber::Mode::E164).to_string();
            assert_eq!(PhoneNumber::parse(text, None).map(|n| n.as_str().to_owned()), Ok(formatted), "{text}");
        }
    }

    #[test]
    fn a_typed_number_is_refused_with_advice() {
        assert!(PhoneNumber::typed("0151 23456789", None).unwrap_err().contains("country code"));
        assert_eq!(PhoneNumber::typed("0151 23456789", Some("DE")).unwrap().as_str(), "+4915123456789");
        assert!(PhoneNumber::typed("1\0", Some("DE")).is_err());
    }

    #[test]
    fn names_are_trimmed_and_bounded() {
        assert_eq!(typed_name("  Ada "), Ok(Some("Ada")));
        assert_eq!(typed_name(" "), Ok(None));
        assert_eq!(typed_name(&"x".repeat(201)), Err(NotAName::TooLong));
        assert_eq!(typed_name("a\0b"), Err(NotAName::Nul));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn whatever_is_typed_is_a_number_of_digits_or_refused(text in r"\+?[-0-9 ()x;=/.a+*#]{0,24}|\PC{0,20}") {
            if let Ok(number) = PhoneNumber::typed(&text, Some("DE")) {
                prop_assert!((7..=15).contains(&number.digits().len()));
                prop_assert!(number.digits().bytes().all(|b| b.is_ascii_digit()));
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "abc", "12", "+999999999999999999999"] {
            assert!(PhoneNumber::parse(text, Some("US")).is_err(), "{text}");
        }
    }
}
