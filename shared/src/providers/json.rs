//! JSON read leniently and late: an object is its keys and the untouched text of their values; what is asked for is
//! decoded when it is asked for, and a value of the wrong type is simply not there. So a damaged value harms only itself.

use super::lenient::{Key, List};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// Ids longer than this are not ids (and would not fit into a Postgres index).
pub(super) const MAX_ID_BYTES: usize = 512;

/// An object's members in their order, the values undecoded.
#[derive(Default)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Reads an object; an error if `text` is no JSON or something else.
    pub(super) fn parse(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// Reads an object; `None` if `raw` is something else.
    pub(super) fn of(raw: &'a RawValue) -> Option<Self> {
        Self::parse(raw.get()).ok()
    }

    /// Adds a member.
    pub(super) fn add(&mut self, key: &str, value: &'a RawValue) {
        self.0.push((Cow::Owned(key.to_owned()), value));
    }

    /// Every member with its value as it stands there.
    pub(super) fn members(&self) -> impl DoubleEndedIterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(key, value)| (&**key, *value))
    }

    /// The value of `key`, unless it is `null`. Of several, the last: so does Postgres.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        let (_, value) = self.0.iter().rev().find(|(name, _)| name == key)?;
        (value.get() != "null").then_some(value)
    }

    /// A string.
    pub(super) fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        text(self.get(key)?)
    }

    /// A string of at least one character that is not white space.
    pub(super) fn words(&self, key: &str) -> Option<Cow<'a, str>> {
        self.text(key).filter(|text| !text.trim().is_empty())
    }

    /// An id: a string, or an integer as its digits; not empty, not endless.
    pub(super) fn id(&self, key: &str) -> Option<Cow<'a, str>> {
        id(self.get(key)?)
    }

    /// A number, or a string of one, as its text.
    pub(super) fn number(&self, key: &str) -> Option<Cow<'a, str>> {
        number(self.get(key)?)
    }

    /// Whether the value is `true`.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|raw| raw.get() == "true")
    }

    /// An object.
    pub(super) fn object(&self, key: &str) -> Option<Object<'a>> {
        Object::of(self.get(key)?)
    }

    /// The items of a list; none if it is missing or something else. Of a key given twice, the items of both.
    pub(super) fn items(&self, key: &str) -> Vec<&'a RawValue> {
        let mut list = List::Absent;
        for (_, raw) in self.0.iter().filter(|(name, _)| name == key) {
            list.extend(serde_json::from_str(raw.get()).unwrap_or(List::Wrong));
        }
        list.items()
    }

    /// The objects of a list; none if it is missing or something else.
    pub(super) fn objects(&self, key: &str) -> impl Iterator<Item = Object<'a>> + use<'a> {
        self.items(key).into_iter().filter_map(Object::of)
    }
}

/// `text` cut to at most `max_bytes`, between characters.
pub(super) fn cut(text: Cow<'_, str>, max_bytes: usize) -> String {
    let mut text = text.into_owned();
    text.truncate(text.floor_char_boundary(max_bytes));
    text
}

/// An id: a string, or an integer as its digits; not empty, not endless.
pub(super) fn id(raw: &RawValue) -> Option<Cow<'_, str>> {
    let integer = || raw.get().bytes().all(|byte| byte.is_ascii_digit()).then_some(Cow::Borrowed(raw.get()));
    text(raw).or_else(integer).filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()))
}

/// A number, or a string of one, as its text.
pub(super) fn number(raw: &RawValue) -> Option<Cow<'_, str>> {
    let number = if raw.get().starts_with('"') { text(raw)? } else { Cow::Borrowed(raw.get()) };
    number.parse::<f64>().is_ok_and(f64::is_finite).then_some(number)
}

/// A string's text; without a copy where it has no escapes.
pub(super) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inside = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('\\') {
        serde_json::from_str(raw.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inside))
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some(Key(key)) = map.next_key()? {
                    members.push((key, map.next_value()?));
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_wrong_type_is_not_there() {
        let object = Object::parse(
            r#"{"null":null,"number":7,"text":"a\u00e9","object":{"id":"x"},"list":[1],"empty":"","true":true,"n\u0061me":"n"}"#,
        )
        .unwrap();
        assert_eq!(object.text("text").as_deref(), Some("aé"));
        assert_eq!(object.text("name").as_deref(), Some("n"));
        assert_eq!(object.id("number").as_deref(), Some("7"));
        assert_eq!(object.object("object").unwrap().id("id").as_deref(), Some("x"));
        assert_eq!(object.items("list").len(), 1);
        assert!(object.flag("true") && !object.flag("number"));
        for key in ["null", "number", "object", "list", "true", "missing"] {
            assert_eq!(object.text(key), None, "{key}");
        }
        for key in ["null", "object", "list", "true", "missing", "empty"] {
            assert_eq!(object.id(key), None, "{key}");
        }
        assert!(object.items("null").is_empty() && object.items("object").is_empty());
    }

    #[test]
    fn of_a_key_given_twice_the_last_counts_but_no_item_is_lost() {
        let object = Object::parse(r#"{"id":"a","list":[1],"id":"b","list":[2,3],"other":[1],"other":{}}"#).unwrap();
        assert_eq!(object.id("id").as_deref(), Some("b"));
        assert_eq!(object.items("list").iter().map(|raw| raw.get()).collect::<Vec<_>>(), ["1", "2", "3"]);
        assert!(object.items("other").is_empty());
    }

    #[test]
    fn cutting_keeps_characters_whole() {
        assert_eq!(cut("aé👍".into(), 100), "aé👍");
        assert_eq!(cut("aé👍".into(), 6), "aé");
        assert_eq!(cut("aé👍".into(), 2), "a");
    }
}
