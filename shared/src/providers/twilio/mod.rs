//! Twilio Programmable Messaging (SMS, MMS, and WhatsApp by way of Twilio), as documented in November 2026. "Contract" and
//! its sections are the project's reference of that documentation.

use crate::domain::channel::TWILIO_WHATSAPP_PREFIX;

pub mod answer;
pub mod check;
pub mod errors;
pub mod parse;
pub mod send;
pub mod templates;
pub mod verify;

mod content;
mod form;
mod people;

pub use answer::outcome;
pub use check::check;
pub use errors::report_reason;
pub use parse::parse;
pub use send::{path, request};
pub use verify::{Request, verify, verify_any};

/// How Twilio is to call us, as the fragment of an address that it is given: again whatever goes wrong, five times (contract,
/// section 5).
pub const OVERRIDES: &str = "#rc=5&rp=all&ct=3000";

/// Segments a second that a sender may send unless Twilio has agreed to more (contract, section 9): by what its address looks like.
pub fn messages_per_second(sender: &str) -> f64 {
    const TOLL_FREE: [&str; 7] = ["+1800", "+1833", "+1844", "+1855", "+1866", "+1877", "+1888"];
    if sender.starts_with(TWILIO_WHATSAPP_PREFIX) {
        80.0
    } else if TOLL_FREE.iter().any(|prefix| sender.starts_with(prefix)) {
        3.0
    } else if sender.starts_with('+') || is_messaging_service(sender) {
        // A service's pace is that of its numbers, at least one.
        1.0
    } else if sender.bytes().all(|byte| byte.is_ascii_digit()) {
        100.0
    } else {
        10.0
    }
}

/// Whether it is the SID of a messaging service: `MG` and 32 hex digits.
pub fn is_messaging_service(sender: &str) -> bool {
    sender.len() == 34 && sender.starts_with("MG") && sender[2..].bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_as_fast_as_its_kind() {
        for (sender, rate) in [
            ("whatsapp:+15035550199", 80.0),
            ("+15035550199", 1.0),
            ("+18005550199", 3.0),
            ("+4915550001234", 1.0),
            ("24246", 100.0),
            ("MYBRAND", 10.0),
            ("MG2c000000000000000000000000000001", 1.0),
        ] {
            assert_eq!(messages_per_second(sender), rate, "{sender}");
        }
    }
}
