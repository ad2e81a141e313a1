//! Reading a JSON object as strictly as the provider does: an unknown field is code 100, a missing one 131008,
//! a wrong value 131009.

use super::refusal::Refusal;
use serde_json::{Map, Value};

/// An object of the request, with the name to say in refusals.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    name: &'static str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(value: &'a Value, name: &'static str) -> Result<Self, Refusal> {
        match value {
            Value::Object(map) => Ok(Self { name, map }),
            _ => Err(Refusal::wrong(format!("{name} must be an object."))),
        }
    }

    /// Refuses any field that is not in `known`.
    pub(super) fn only(self, known: &[&str]) -> Result<Self, Refusal> {
        self.only_with(known, "")
    }

    /// Refuses any field that is neither in `known` nor `more`.
    pub(super) fn only_with(self, known: &[&str], more: &str) -> Result<Self, Refusal> {
        match self.map.keys().find(|key| *key != more && !known.contains(&key.as_str())) {
            Some(key) => Err(Refusal::invalid(format!("Unexpected key \"{key}\" on param \"{}\".", self.name))),
            None => Ok(self),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    pub(super) fn required(&self, key: &str) -> Result<&'a Value, Refusal> {
        self.map.get(key).ok_or_else(|| Refusal::missing(&format!("{}['{key}']", self.name)))
    }

    /// A string of 1 to `most` characters.
    pub(super) fn text(&self, key: &str, most: usize) -> Result<&'a str, Refusal> {
        self.required(key)?;
        self.optional_text(key, most)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| Refusal::wrong(format!("{}['{key}'] must not be empty.", self.name)))
    }

    /// A string of at most `most` characters, if there is one.
    pub(super) fn optional_text(&self, key: &str, most: usize) -> Result<Option<&'a str>, Refusal> {
        match self.map.get(key) {
            None => Ok(None),
            // Bytes are never fewer than characters: the common case needs no counting.
            Some(Value::String(text)) if text.len() <= most || text.chars().count() <= most => Ok(Some(text)),
            Some(Value::String(_)) => {
                Err(Refusal::wrong(format!("{}['{key}'] must be at most {most} characters long.", self.name)))
            }
            Some(_) => Err(Refusal::wrong(format!("{}['{key}'] must be a string.", self.name))),
        }
    }

    pub(super) fn optional_flag(&self, key: &str) -> Result<bool, Refusal> {
        match self.map.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(Refusal::wrong(format!("{}['{key}'] must be a boolean.", self.name))),
        }
    }

    pub(super) fn object(&self, key: &str, name: &'static str) -> Result<Fields<'a>, Refusal> {
        Fields::of(self.required(key)?, name)
    }

    pub(super) fn optional_object(&self, key: &str, name: &'static str) -> Result<Option<Fields<'a>>, Refusal> {
        self.map.get(key).map(|value| Fields::of(value, name)).transpose()
    }

    /// An array of `least` to `most` elements.
    pub(super) fn array(&self, key: &str, least: usize, most: usize) -> Result<&'a [Value], Refusal> {
        match self.required(key)? {
            Value::Array(elements) if (least..=most).contains(&elements.len()) => Ok(elements),
            Value::Array(_) => {
                Err(Refusal::wrong(format!("{}['{key}'] must have {least} to {most} elements.", self.name)))
            }
            _ => Err(Refusal::wrong(format!("{}['{key}'] must be an array.", self.name))),
        }
    }

    /// A refusal of this field's value.
    pub(super) fn wrong(&self, key: &str, why: &str) -> Refusal {
        Refusal::wrong(format!("{}['{key}'] {why}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_missing_and_wrong_have_their_own_codes() {
        let value = json!({"body": "hi", "extra": 1, "number": 4});
        let fields = Fields::of(&value, "text").unwrap();
        assert_eq!(fields.only(&["body"]).unwrap_err().code, 100);
        assert_eq!(fields.text("nothing", 10).unwrap_err().code, 131_008);
        assert_eq!(fields.text("number", 10).unwrap_err().code, 131_009);
        assert_eq!(fields.text("body", 1).unwrap_err().code, 131_009);
        assert_eq!(fields.text("body", 2).unwrap(), "hi");
    }

    #[test]
    fn length_is_counted_in_characters() {
        let value = json!({"body": "ååå"});
        assert!(Fields::of(&value, "text").unwrap().text("body", 3).is_ok());
    }
}
