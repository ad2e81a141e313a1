//! In which language somebody is written to. Codes are BCP 47 as providers spell them: `en`, `en_US`, `pt-BR`; case and the kind of
//! dash mean nothing.

/// A code is no longer.
const MAX_BYTES: usize = 35;

/// A text that is no language's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a language's code, such as en or pt_BR")]
pub struct NoLanguage;

/// The code as it is kept, if the text is one.
///
/// # Errors
/// If it is none.
pub fn typed(text: &str) -> Result<&str, NoLanguage> {
    let text = text.trim();
    let mut parts = text.split(['-', '_']);
    let base = parts.next().unwrap_or_default();
    let is_base = (2..=3).contains(&base.len()) && base.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_part = |part: &str| (2..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_base && parts.all(is_part) && text.len() <= MAX_BYTES { Ok(text) } else { Err(NoLanguage) }
}

/// The language of those there are in which somebody is written to who would like these, the best first: the very one; else another of
/// the same base (the base itself before a country's); else the next. Where there is but one, that.
pub fn choose<'a>(liked: &[Option<&str>], there: &[&'a str]) -> Option<&'a str> {
    let chosen = liked.iter().flatten().find_map(|liked| nearest(liked, there));
    chosen.or(match there {
        [only] => Some(only),
        _ => None,
    })
}

fn nearest<'a>(liked: &str, there: &[&'a str]) -> Option<&'a str> {
    let liked = key(liked);
    let exact = there.iter().find(|code| key(code) == liked);
    let bare = || there.iter().find(|code| key(code) == base(&liked));
    let of_base = || there.iter().filter(|code| base(&key(code)) == base(&liked)).min();
    exact.or_else(bare).or_else(of_base).copied()
}

fn key(code: &str) -> String {
    code.trim().replace('-', "_").to_ascii_lowercase()
}

fn base(key: &str) -> &str {
    key.split('_').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_told_from_what_is_none() {
        for code in ["en", "en_US", " pt-BR ", "zh_Hant_TW", "fil"] {
            assert_eq!(typed(code), Ok(code.trim()));
        }
        for wrong in
            ["", "e", "english", "en_", "en US", "en_U", "12", "en_US\0", &format!("en{}", "_abcdefg".repeat(5))]
        {
            assert_eq!(typed(wrong), Err(NoLanguage), "{wrong:?}");
        }
    }

    #[test]
    fn the_very_language_comes_first_then_its_base_then_the_next() {
        for (liked, there, expected) in [
            (&[Some("de")][..], &["de", "en"][..], Some("de")),
            (&[Some("pt-br")], &["pt_PT", "pt_BR"], Some("pt_BR")),
            (&[Some("en_GB")], &["en_US", "en"], Some("en")),
            (&[Some("en_GB")], &["en_US", "en_AU", "de"], Some("en_AU")),
            (&[Some("en")], &["de", "en_US"], Some("en_US")),
            (&[Some("fr"), Some("de")], &["en", "de_AT"], Some("de_AT")),
            (&[None, Some("de")], &["en", "de"], Some("de")),
            (&[Some("fr")], &["en", "de"], None),
            (&[Some("fr")], &["en"], Some("en")),
            (&[], &["en"], Some("en")),
            (&[Some("fr")], &[], None),
        ] {
            assert_eq!(choose(liked, there), expected, "{liked:?} of {there:?}");
        }
    }
}
