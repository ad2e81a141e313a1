//! How many segments a text takes (twilio contract page, section 10).

const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/// These take two places.
const EXTENDED: &str = "^{}\\[~]|€\u{c}";

/// Segments of a text; an empty one takes one.
pub(super) fn segments(text: &str) -> u32 {
    let seven_bit = |character: char| match () {
        () if BASIC.contains(character) => Some(1),
        () if EXTENDED.contains(character) => Some(2),
        () => None,
    };
    let septets: Option<Vec<u32>> = text.chars().map(seven_bit).collect();
    let (places, alone, each) = match septets {
        Some(septets) => (septets, 160, 153),
        None => (text.chars().map(|character| character.len_utf16() as u32).collect(), 70, 67),
    };
    if places.iter().sum::<u32>() <= alone {
        return 1;
    }
    let (mut segments, mut left) = (1, each);
    for taken in places {
        // What takes two places is not split.
        if taken > left {
            segments += 1;
            left = each;
        }
        left -= taken;
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_counted_as_they_are_billed() {
        for (text, expected) in [
            (String::new(), 1),
            ("a".repeat(160), 1),
            ("a".repeat(161), 2),
            ("a".repeat(306), 2),
            ("a".repeat(307), 3),
            ("€".repeat(80), 1),
            ("€".repeat(81), 2),
            // 76 of them fill 152 places of a segment; none is split.
            ("€".repeat(153), 3),
            ("я".repeat(70), 1),
            ("я".repeat(71), 2),
            ("`".repeat(71), 2),
            ("😀".repeat(35), 1),
            ("😀".repeat(36), 2),
            // 33 fill 66 units.
            ("😀".repeat(67), 3),
            ("a".repeat(1600), 11),
        ] {
            assert_eq!(segments(&text), expected, "{} × {:?}", text.chars().count(), text.chars().next());
        }
    }
}
