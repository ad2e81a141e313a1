//! `application/x-www-form-urlencoded`, as bytes: what is signed are a value's bytes, whether or not they are text.

use std::borrow::Cow;

/// A name and its value.
pub(super) type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// Names and values, decoded, in their order. A name without a value has an empty one; what has neither is passed over.
pub(super) fn pairs(form: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    form.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let middle = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        (decode(&pair[..middle]), decode(pair.get(middle + 1..).unwrap_or_default()))
    })
}

/// `+` is a space, `%XX` a byte; a `%` without two hex digits is itself.
fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (*byte, after) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, beyond @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high << 4 | low);
                    rest = beyond;
                }
                _ => decoded.push(b'%'),
            },
            (byte, _) => decoded.push(byte),
        }
    }
    Cow::Owned(decoded)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_taken_apart_byte_by_byte() {
        for (form, expected) in [
            ("a=1&b=2", &[("a", "1"), ("b", "2")] as &[_]),
            ("a=&b&=c&&a=1", &[("a", ""), ("b", ""), ("", "c"), ("a", "1")]),
            ("a=b=c", &[("a", "b=c")]),
            ("B%6fdy=a+b%2B%20c%26", &[("Body", "a b+ c&")]),
            ("a=%c3%A9&b=%&c=%4&d=%zz&e=50%", &[("a", "é"), ("b", "%"), ("c", "%4"), ("d", "%zz"), ("e", "50%")]),
            ("", &[]),
        ] {
            let read: Vec<_> = pairs(form.as_bytes()).collect();
            let read: Vec<_> = read
                .iter()
                .map(|(name, value)| (str::from_utf8(name).unwrap(), str::from_utf8(value).unwrap()))
                .collect();
            assert_eq!(read, expected, "{form}");
        }
        assert_eq!(pairs(b"a=%00%ff").next().unwrap().1, &b"\x00\xff"[..]);
    }
}
