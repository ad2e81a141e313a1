//! One message on both sides: what Mijra says became of it, and what the provider's stand-in says.

use uuid::Uuid;

/// A message as Mijra's books have it.
#[derive(Debug, Clone)]
pub(super) struct Ours {
    pub(super) message_id: Uuid,
    /// Digits of a number, or a user id.
    pub(super) recipient: String,
    pub(super) state: String,
    /// Why it failed.
    pub(super) code: Option<String>,
}

/// A message as the stand-in's ledger has it, over all requests for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Theirs {
    /// Whom the requests named.
    pub(super) recipient: String,
    /// How often it was taken.
    pub(super) taken: u64,
    /// The furthest status that the product has acknowledged, if any.
    pub(super) furthest: Option<String>,
    /// The code, if the last request was refused.
    pub(super) refused: Option<u64>,
}

/// States in which the provider has a message, in their order.
const REPORTED: [&str; 4] = ["sent", "delivered", "read", "failed"];

impl Theirs {
    /// What our books should say, in their words.
    pub(super) fn state(&self) -> &str {
        match (self.taken, self.refused) {
            (0, Some(_)) => "refused",
            (0, None) => "never taken",
            _ => self.furthest.as_deref().unwrap_or("sent"),
        }
    }

    /// Takes note of statuses, in any order.
    pub(super) fn report<'a>(&mut self, statuses: impl Iterator<Item = &'a str>) {
        let furthest = statuses.filter(|status| rank(status).is_some()).max_by_key(|status| rank(status));
        if furthest.and_then(rank) > self.furthest.as_deref().and_then(rank) {
            self.furthest = furthest.map(str::to_owned);
        }
    }
}

/// Whether our books have yet to learn something: the message is under way, or a report is.
pub(super) fn is_open(ours: &Ours, theirs: &Theirs) -> bool {
    matches!(ours.state.as_str(), "waiting" | "queued" | "sending" | "unknown")
        || rank(theirs.state()) > rank(&ours.state) && theirs.taken > 0 && ours.state != "held"
}

/// What does not agree about a message.
pub(super) fn difference(ours: &Ours, theirs: &Theirs) -> Option<String> {
    let Ours { message_id, recipient, state, code } = ours;
    let fits = match (state.as_str(), theirs.taken) {
        // Taken once, and as far as was reported.
        ("sent" | "delivered" | "read", 1) => theirs.state() == state,
        // Taken and reported as failed, or refused with this code.
        ("failed", 1) => theirs.state() == "failed",
        ("failed", 0) => theirs.refused.map(|code| code.to_string()) == *code,
        // The line broke, no evidence came, a person decides; the provider knows that it did not take it.
        ("held" | "cancelled", 0) => true,
        // What was not finished in time, and what was taken twice.
        _ => false,
    };
    if !fits {
        let code = code.as_deref().map(|code| format!(" with {code}")).unwrap_or_default();
        let said = theirs.state();
        return Some(format!(
            "message {message_id} to {recipient} is {state}{code}; the provider took it {} times and says {said}",
            theirs.taken
        ));
    }
    (theirs.taken > 0 && !same_person(recipient, &theirs.recipient))
        .then(|| format!("message {message_id} is to {recipient}, and went to {}", theirs.recipient))
}

/// Brazil's mobile numbers are dialled with a 9 that their owners' ids lack.
fn same_person(ours: &str, theirs: &str) -> bool {
    let ours = ours.trim_start_matches('+');
    ours == theirs || ours.starts_with("55") && ours.get(..4) == theirs.get(..4) && ours.get(5..) == theirs.get(4..)
}

fn rank(state: &str) -> Option<usize> {
    REPORTED.iter().position(|reported| *reported == state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(state: &str, code: Option<&str>) -> Ours {
        let (recipient, state) = ("+4915".to_owned(), state.to_owned());
        Ours { message_id: Uuid::nil(), recipient, state, code: code.map(str::to_owned) }
    }

    fn theirs(taken: u64, furthest: Option<&str>, refused: Option<u64>) -> Theirs {
        Theirs { recipient: "4915".into(), taken, furthest: furthest.map(str::to_owned), refused }
    }

    #[test]
    fn both_sides_must_say_the_same_of_a_message() {
        for (state, code, of_provider, agrees) in [
            ("read", None, theirs(1, Some("read"), None), true),
            ("sent", None, theirs(1, None, Some(130_429)), true),
            ("delivered", None, theirs(1, Some("read"), None), false),
            ("delivered", None, theirs(2, Some("delivered"), None), false),
            ("delivered", None, theirs(0, None, None), false),
            ("failed", Some("131026"), theirs(0, None, Some(131_026)), true),
            ("failed", Some("131026"), theirs(0, None, Some(131_000)), false),
            ("failed", Some("131026"), theirs(0, None, None), false),
            ("failed", Some("131026"), theirs(1, Some("failed"), None), true),
            ("held", None, theirs(0, None, None), true),
            ("held", None, theirs(1, None, None), false),
            ("unknown", None, theirs(1, None, None), false),
        ] {
            let said = difference(&ours(state, code), &of_provider);
            assert_eq!(said.is_none(), agrees, "{state} {code:?} {of_provider:?}: {said:?}");
        }
        let mut elsewhere = theirs(1, Some("read"), None);
        elsewhere.recipient = "4916".into();
        assert!(difference(&ours("read", None), &elsewhere).unwrap().ends_with("went to 4916"));
        assert!(same_person("+5531987654321", "553187654321") && !same_person("+5531987654321", "553187654322"));
    }

    #[test]
    fn statuses_count_by_the_furthest() {
        let mut theirs = theirs(1, None, None);
        theirs.report(["delivered", "sent", "read?"].into_iter());
        assert_eq!(theirs.state(), "delivered");
        theirs.report(["sent"].into_iter());
        assert_eq!(theirs.state(), "delivered");
        assert!(is_open(&ours("sent", None), &theirs) && !is_open(&ours("read", None), &theirs));
    }
}
