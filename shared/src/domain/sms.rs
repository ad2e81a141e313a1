//! How text messages are cut into segments (3GPP TS 23.038; providers/twilio section 10). Rates and prices of text messages are of
//! segments.

use super::{channel::Channel, content::OutboundContent};

/// How a text message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Seven bits a character: what the GSM alphabet has.
    Gsm7,
    /// Sixteen bits: as soon as one character is not in the GSM alphabet.
    Ucs2,
}

/// What a text message comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// How it is written.
    pub encoding: Encoding,
    /// So many segments, at least one.
    pub count: u16,
}

const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/// These take two places.
const EXTENSION: &str = "^{}\\[~]|€\u{c}";

/// Places of the GSM alphabet that a character takes; `None` if it is not in it.
fn gsm_places(c: char) -> Option<usize> {
    if c.is_ascii_alphanumeric() || BASIC.contains(c) {
        Some(1)
    } else if EXTENSION.contains(c) {
        Some(2)
    } else {
        None
    }
}

/// The segments of a text: one of 160 places (70 in UCS-2), or several of 153 (67). What takes two places is not cut in two.
pub fn segments(text: &str) -> Segments {
    let places: Option<Vec<usize>> = text.chars().map(gsm_places).collect();
    match places {
        Some(places) => Segments { encoding: Encoding::Gsm7, count: cut(&places, 160, 153) },
        None => {
            let units: Vec<usize> = text.chars().map(char::len_utf16).collect();
            Segments { encoding: Encoding::Ucs2, count: cut(&units, 70, 67) }
        }
    }
}

fn cut(places: &[usize], alone: usize, several: usize) -> u16 {
    if places.iter().sum::<usize>() <= alone {
        return 1;
    }
    let (mut count, mut taken) = (1_u16, 0);
    for wanted in places {
        if taken + wanted > several {
            count = count.saturating_add(1);
            taken = 0;
        }
        taken += wanted;
    }
    count
}

/// What a message takes of its account's rate: the segments of a text message, one everywhere else.
pub fn units(channel: Channel, content: &OutboundContent) -> i16 {
    match (channel, content) {
        (Channel::Sms, OutboundContent::Text(text)) => i16::try_from(segments(&text.text).count).unwrap_or(i16::MAX),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_a_segment_is_full() {
        use Encoding::*;
        for (text, encoding, count) in [
            (String::new(), Gsm7, 1),
            ("a".repeat(160), Gsm7, 1),
            ("a".repeat(161), Gsm7, 2),
            ("a".repeat(306), Gsm7, 2),
            ("a".repeat(307), Gsm7, 3),
            ("€".repeat(80), Gsm7, 1),
            ("€".repeat(81), Gsm7, 2),
            // 76 of them fill a segment but for one place, which the next does not fit into.
            ("€".repeat(153), Gsm7, 3),
            ("ä".repeat(160), Gsm7, 1),
            ("`".to_owned(), Ucs2, 1),
            ("ж".repeat(70), Ucs2, 1),
            ("ж".repeat(71), Ucs2, 2),
            ("ж".repeat(134), Ucs2, 2),
            ("ж".repeat(135), Ucs2, 3),
            ("👍".repeat(35), Ucs2, 1),
            ("👍".repeat(36), Ucs2, 2),
            // 33 of them fill a segment but for one unit.
            ("👍".repeat(67), Ucs2, 3),
        ] {
            assert_eq!(segments(&text), Segments { encoding, count }, "{text:.20}");
        }
    }
}
