//! Who wrote: the names a message gives and the contact that stands beside it. A person is known by a business-scoped
//! user id (BSUID), a `wa_id`, or both; either may be missing (contract, section 5).

use crate::{
    domain::people::{Alias, AliasKind, Person, PhoneNumber},
    providers::{
        json::{Object, cut},
        lenient::List,
        meta::MAX_PERSON_BYTES,
    },
};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// So many contacts are quicker gone through than sorted.
const FEW: usize = 8;

/// The ids given for one person, at most one of a kind.
#[derive(Default)]
pub(super) struct Names {
    user_id: Option<String>,
    wa_id: Option<String>,
}

impl Names {
    /// Adds an id unless one of its kind is known already. Digits are a `wa_id`; with a letter or a dot it is a BSUID,
    /// whatever key it stood under (section 2: some payloads carry it in `from`).
    pub(super) fn add(&mut self, id: Option<Cow<'_, str>>) {
        let Some(id) = id else { return };
        let id = id.trim();
        if id.is_empty() || id.len() > MAX_PERSON_BYTES || id.chars().any(|c| c.is_control() || c == '\u{FFFD}') {
            return;
        }
        if id.chars().any(|c| c == '.' || c.is_alphabetic()) {
            self.user_id.get_or_insert_with(|| id.to_owned());
        } else if self.wa_id.is_none() {
            let digits: String = id.chars().filter(char::is_ascii_digit).collect();
            self.wa_id = (!digits.is_empty()).then_some(digits);
        }
    }

    /// Whether nobody is named.
    pub(super) fn is_empty(&self) -> bool {
        self.user_id.is_none() && self.wa_id.is_none()
    }

    /// The ids as aliases, the strongest kind first. A `wa_id` is normally a telephone number, too.
    pub(super) fn aliases(self) -> Vec<Alias> {
        let phone = self.wa_id.as_deref().and_then(PhoneNumber::from_whatsapp_id);
        [
            self.user_id.map(|value| Alias { kind: AliasKind::WhatsappBsuid, value }),
            self.wa_id.map(|value| Alias { kind: AliasKind::WhatsappId, value }),
            phone.map(|number| Alias { kind: AliasKind::Phone, value: number.as_str().to_owned() }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn ids(&self) -> impl Iterator<Item = &str> {
        self.user_id.iter().chain(&self.wa_id).map(String::as_str)
    }

    fn contradict(&self, other: &Names) -> bool {
        let differ =
            |ours: &Option<String>, theirs: &Option<String>| ours.is_some() && theirs.is_some() && ours != theirs;
        differ(&self.user_id, &other.user_id) || differ(&self.wa_id, &other.wa_id)
    }
}

/// `value.contacts[]`: the people a change speaks of. They stand in no particular order.
pub(super) struct Contacts {
    contacts: Vec<Contact>,
    /// Every id with the place of its contact, sorted, if there are many: a batch may hold a thousand.
    places: Vec<(String, usize)>,
}

struct Contact {
    names: Names,
    name: Option<String>,
    username: Option<String>,
}

impl Contacts {
    /// Reads them; what is no contact is passed over.
    pub(super) fn of(contacts: List<&RawValue>) -> Self {
        let contacts: Vec<_> = contacts.items().into_iter().filter_map(Object::of).map(|c| Contact::of(&c)).collect();
        let mut places = Vec::new();
        if contacts.len() > FEW {
            let ids = contacts.iter().enumerate();
            places.extend(ids.flat_map(|(place, contact)| contact.names.ids().map(move |id| (id.to_owned(), place))));
            places.sort_unstable();
        }
        Self { contacts, places }
    }

    /// The person with these names, completed by their contact. `alone`: one message came, so that a single contact
    /// that does not contradict it is its sender's.
    pub(super) fn person(&self, mut names: Names, alone: bool) -> Person {
        let found = names.ids().find_map(|id| self.find(id));
        let only = || self.contacts.first().filter(|contact| alone && !names.contradict(&contact.names));
        let contact = match found {
            Some(contact) => Some(contact),
            None if self.contacts.len() == 1 => only(),
            None => None,
        };
        if let Some(contact) = contact {
            names.user_id = names.user_id.or_else(|| contact.names.user_id.clone());
            names.wa_id = names.wa_id.or_else(|| contact.names.wa_id.clone());
        }
        Person {
            aliases: names.aliases(),
            name: contact.and_then(|contact| contact.name.clone()),
            username: contact.and_then(|contact| contact.username.clone()),
        }
    }

    fn find(&self, id: &str) -> Option<&Contact> {
        if self.places.is_empty() {
            return self.contacts.iter().find(|contact| contact.names.ids().any(|known| known == id));
        }
        let first = self.places.partition_point(|(known, _)| known.as_str() < id);
        let (known, place) = self.places.get(first)?;
        (known == id).then(|| &self.contacts[*place])
    }
}

impl Contact {
    fn of(contact: &Object) -> Self {
        let mut names = Names::default();
        names.add(contact.id("user_id"));
        names.add(contact.id("wa_id"));
        let profile = contact.object("profile");
        let said = |key| profile.as_ref()?.words(key).map(|words| cut(words, MAX_PERSON_BYTES));
        Self { names, name: said("name"), username: said("username") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_what_it_looks_like_whatever_key_it_stood_under() {
        for (id, expected) in [
            ("15557770142", &["15557770142", "+15557770142"] as &[&str]),
            ("+1 (555) 777-0142", &["15557770142", "+15557770142"]),
            ("12", &["12"]),
            ("1234567890123456", &["1234567890123456"]),
            ("US.70311904455821", &["US.70311904455821"]),
            ("US.ENT.7", &["US.ENT.7"]),
            ("DE1A2b", &["DE1A2b"]),
            ("7.7", &["7.7"]),
            (" DE.7 ", &["DE.7"]),
            ("", &[]),
            (" - ", &[]),
            ("DE.\u{FFFD}", &[]),
            ("DE.\n7", &[]),
            (&"9".repeat(257), &[]),
        ] {
            let mut names = Names::default();
            names.add(Some(id.into()));
            let values: Vec<_> = names.aliases().into_iter().map(|alias| alias.value).collect();
            assert_eq!(values, expected, "{id}");
        }
    }

    #[test]
    fn in_a_batch_a_contact_is_found_by_its_id_however_many_there_are() {
        for count in [2, FEW, FEW + 1, 1000] {
            let contact =
                |n| format!(r#"{{"wa_id":"{}","user_id":"DE.{n}","profile":{{"name":"n{n}"}}}}"#, 49_000_000 + n);
            let text = format!("[{}]", (0..count).map(contact).collect::<Vec<_>>().join(","));
            let contacts = Contacts::of(serde_json::from_str(&text).unwrap());
            for (id, expected) in [
                ("DE.1".to_owned(), Some("n1")),
                (format!("DE.{}", count - 1), Some(&*format!("n{}", count - 1))),
                ("49000000".to_owned(), Some("n0")),
                ("49999999".to_owned(), None),
                ("DE.".to_owned(), None),
            ] {
                let mut names = Names::default();
                names.add(Some(id.as_str().into()));
                let person = contacts.person(names, true);
                assert_eq!(person.name.as_deref(), expected, "{id} of {count}");
                assert_eq!(person.aliases.len() == 3, expected.is_some());
            }
        }
    }
}
