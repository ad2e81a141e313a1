//! What every webhook of Meta's comes in: `{"object": …, "entry": […]}`. What an entry holds is each product's.

use crate::providers::{
    Unreadable,
    json::text,
    lenient::{Lenient, List, Members},
};
use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

struct Envelope<'a, E> {
    /// What it is about.
    object: Option<&'a RawValue>,
    /// One per account, or several.
    entries: List<Lenient<E>>,
}

impl<E> Default for Envelope<'_, E> {
    fn default() -> Self {
        Self { object: None, entries: List::Absent }
    }
}

impl<'de, E: Members<'de>> Members<'de> for Envelope<'de, E> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "object" => self.object = map.next_value()?,
            "entry" => self.entries.extend(map.next_value()?),
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// The entries of a webhook about this kind of object.
///
/// # Errors
/// If it is no JSON, or about something else.
pub(in crate::providers) fn entries<'a, E: Members<'a>>(
    text_of_body: &'a str,
    object: &str,
) -> Result<Vec<Lenient<E>>, Unreadable> {
    let unreadable = |reason: String| Unreadable { reason };
    let envelope: Lenient<Envelope<E>> =
        serde_json::from_str(text_of_body).map_err(|e| unreadable(format!("no JSON: {e}")))?;
    let Lenient(Some(envelope)) = envelope else { return Err(unreadable("no object".into())) };
    if envelope.object.and_then(text).as_deref() != Some(object) {
        return Err(unreadable(format!("`object` is not `{object}`")));
    }
    match envelope.entries {
        List::Items(entries) => Ok(entries),
        List::Absent | List::Wrong => Err(unreadable("`entry` is not a list".into())),
    }
}
