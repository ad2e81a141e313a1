//! Who wrote: an address as Twilio writes it, and the names that come beside one on WhatsApp (contract, sections 1 and 2).

use crate::domain::{
    channel::TWILIO_WHATSAPP_PREFIX,
    people::{Alias, AliasKind, PhoneNumber},
};

/// The longest documented user id has 135 characters.
const MAX_ADDRESS_BYTES: usize = 256;

/// The names of the person at `address`, the strongest kind first; none if it is no address. `wa_id` and `user_id` are what
/// WhatsApp calls them, where the webhook says so.
pub(super) fn aliases(address: &str, wa_id: Option<&str>, user_id: Option<&str>) -> Vec<Alias> {
    let Some(address) = usable(address) else { return Vec::new() };
    match address.strip_prefix(TWILIO_WHATSAPP_PREFIX) {
        Some(name) => on_whatsapp(name, wa_id, user_id),
        None => vec![of_text_messages(address)],
    }
}

/// What stands behind the prefix is a number, or an id of WhatsApp's: with a letter or a dot.
fn on_whatsapp(name: &str, wa_id: Option<&str>, user_id: Option<&str>) -> Vec<Alias> {
    let is_user_id = |name: &str| name.chars().any(|c| c == '.' || c.is_alphabetic());
    let user_id = user_id.and_then(usable).map(|id| id.strip_prefix(TWILIO_WHATSAPP_PREFIX).unwrap_or(id));
    let user_id = [Some(name), user_id].into_iter().flatten().find(|name| is_user_id(name));
    let digits = |name: &str| {
        let digits: String = name.chars().filter(char::is_ascii_digit).collect();
        (!digits.is_empty() && !is_user_id(name)).then_some(digits)
    };
    let wa_id = wa_id.and_then(usable).and_then(digits).or_else(|| digits(name));
    let phone = wa_id.as_deref().and_then(PhoneNumber::from_whatsapp_id);
    [
        user_id.map(|id| Alias { kind: AliasKind::WhatsappBsuid, value: id.to_owned() }),
        wa_id.map(|value| Alias { kind: AliasKind::WhatsappId, value }),
        phone.map(|number| Alias { kind: AliasKind::Phone, value: number.as_str().to_owned() }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A number has a plus; a short code, letters or another channel's address has none.
fn of_text_messages(address: &str) -> Alias {
    match address.strip_prefix('+').and_then(PhoneNumber::from_whatsapp_id) {
        Some(number) => Alias { kind: AliasKind::Phone, value: number.as_str().to_owned() },
        None => Alias { kind: AliasKind::SmsAddress, value: address.to_owned() },
    }
}

fn usable(address: &str) -> Option<&str> {
    let address = address.trim();
    let is_one =
        (1..=MAX_ADDRESS_BYTES).contains(&address.len()) && !address.chars().any(|c| c.is_control() || c == '\u{FFFD}');
    is_one.then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use AliasKind::*;

    #[test]
    fn an_address_is_a_number_or_something_opaque() {
        for (address, wa_id, user_id, expected) in [
            ("+15035550142", None, None, &[(Phone, "+15035550142")] as &[_]),
            ("24246", None, None, &[(SmsAddress, "24246")]),
            ("MYBRAND", None, None, &[(SmsAddress, "MYBRAND")]),
            ("+12", None, None, &[(SmsAddress, "+12")]),
            ("rcs:brand_agent", None, None, &[(SmsAddress, "rcs:brand_agent")]),
            ("whatsapp:+14155550123", None, None, &[(WhatsappId, "14155550123"), (Phone, "+14155550123")]),
            (
                "whatsapp:+5215512345678",
                Some("525512345678"),
                Some("MX.7"),
                &[(WhatsappBsuid, "MX.7"), (WhatsappId, "525512345678"), (Phone, "+525512345678")],
            ),
            ("whatsapp:US.1234567890", None, Some("whatsapp:US.1234567890"), &[(WhatsappBsuid, "US.1234567890")]),
            (
                "whatsapp:US.12",
                Some("14155550123"),
                None,
                &[(WhatsappBsuid, "US.12"), (WhatsappId, "14155550123"), (Phone, "+14155550123")],
            ),
            ("whatsapp:", None, None, &[]),
            ("whatsapp:+", None, None, &[]),
            ("whatsapp:US.\u{FFFD}", None, None, &[]),
            ("", None, None, &[]),
            (" ", None, None, &[]),
        ] {
            let read = aliases(address, wa_id, user_id);
            let read: Vec<_> = read.iter().map(|alias| (alias.kind, alias.value.as_str())).collect();
            assert_eq!(read, expected, "{address}");
        }
    }
}
