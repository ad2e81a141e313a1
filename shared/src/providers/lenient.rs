//! Nested JSON of a known shape, read in one pass and leniently: what is of the wrong type is passed over, and of a key
//! given twice no item is lost. For envelopes; what lies inside is [`json`](super::json)'s, undecoded until asked for.

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::{borrow::Cow, fmt, marker::PhantomData};

/// An object of a known shape.
pub(super) trait Members<'de>: Default {
    /// Takes the value of this key from `map`: exactly one.
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
}

/// What stands where such an object is expected; `None` if it is something else.
pub(super) struct Lenient<T>(pub(super) Option<T>);

/// What stands where a list is expected.
#[derive(Default)]
pub(super) enum List<T> {
    /// Nothing, or `null`.
    #[default]
    Absent,
    /// Something else than a list.
    Wrong,
    /// The items.
    Items(Vec<T>),
}

impl<T> List<T> {
    /// Adds what stands under the same key again.
    pub(super) fn extend(&mut self, more: List<T>) {
        match (&mut *self, more) {
            (_, List::Absent) | (List::Wrong, _) => {}
            (List::Items(items), List::Items(more)) => items.extend(more),
            (_, more) => *self = more,
        }
    }

    /// The items; none of what is no list.
    pub(super) fn items(self) -> Vec<T> {
        match self {
            List::Items(items) => items,
            List::Absent | List::Wrong => Vec::new(),
        }
    }
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Key<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Says which key of an object goes where: a `value` as it stands there, an `object` of a known shape, a `list`. The others are
/// passed over, or, but for some, kept undecoded in a [`json::Object`](super::json::Object): `; but "this", "that"; rest member`.
macro_rules! members {
    ($shape:ident, $($key:literal $kind:ident $member:ident),+ $(; but $($passed:literal),+)? $(; rest $rest:ident)?) => {
        impl<'de> $crate::providers::lenient::Members<'de> for $shape<'de> {
            fn member<A: serde::de::MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
                match key {
                    $($key => members!($kind self.$member, map),)+
                    $($($passed => members!(others key, map),)+)?
                    _ => members!(others key, map $(, self.$rest)?),
                }
                Ok(())
            }
        }
    };
    (value $member:expr, $map:ident) => { $member = $map.next_value()? };
    (object $member:expr, $map:ident) => { $member = $map.next_value::<$crate::providers::lenient::Lenient<_>>()?.0 };
    (list $member:expr, $map:ident) => { $member.extend($map.next_value()?) };
    (others $key:ident, $map:ident) => { drop($map.next_value::<serde::de::IgnoredAny>()?) };
    (others $key:ident, $map:ident, $rest:expr) => { $rest.add($key, $map.next_value()?) };
}

pub(super) use members;

macro_rules! scalars_are {
    ($value:expr) => {
        scalars_are!($value; visit_bool bool, visit_i64 i64, visit_u64 u64, visit_f64 f64, visit_str &str);
    };
    ($value:expr; $($visit:ident $scalar:ty),+) => {$(
        fn $visit<E>(self, _: $scalar) -> Result<Self::Value, E> {
            Ok($value)
        }
    )+};
}

struct Tolerant<T>(PhantomData<T>);

impl<'de, T: Members<'de>> Visitor<'de> for Tolerant<Lenient<T>> {
    type Value = Lenient<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = T::default();
        while let Some(Key(key)) = map.next_key()? {
            object.member(&key, &mut map)?;
        }
        Ok(Lenient(Some(object)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Lenient(None))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Lenient(None))
    }

    scalars_are!(Lenient(None));
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Tolerant<List<T>> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(List::Items(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(List::Wrong)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(List::Absent)
    }

    scalars_are!(List::Wrong);
}

impl<'de, T: Members<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tolerant(PhantomData::<Self>))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tolerant(PhantomData::<Self>))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Shelf(List<i64>);

    impl<'de> Members<'de> for Shelf {
        fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
            match key {
                "books" => self.0.extend(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            Ok(())
        }
    }

    #[test]
    fn what_is_something_else_is_passed_over_and_no_item_is_lost() {
        for (text, expected) in [
            (r#"{"books":[1],"other":{"books":[9]},"b\u006foks":[2,3]}"#, Some(Some(vec![1, 2, 3]))),
            (r#"{"books":[1],"books":null}"#, Some(Some(vec![1]))),
            (r#"{"books":[1],"books":{"a":[{}]},"books":[2]}"#, Some(None)),
            (r#"{"books":null}"#, Some(Some(vec![]))),
            (r#"{"books":"[1]"}"#, Some(None)),
            ("{}", Some(Some(vec![]))),
            ("[[{},1],2]", None),
            ("null", None),
            ("-1.5", None),
            (r#""text""#, None),
            ("true", None),
        ] {
            let Lenient(shelf) = serde_json::from_str::<Lenient<Shelf>>(text).unwrap();
            let books = shelf.map(|Shelf(books)| match books {
                List::Wrong => None,
                list => Some(list.items()),
            });
            assert_eq!(books, expected, "{text}");
        }
        assert!(serde_json::from_str::<Lenient<Shelf>>("{").is_err());
    }
}
