//! What providers document that an account may send, as data: an operator may set anything else for each account.

use super::{twilio, whatsapp};
use crate::domain::{
    channel::{Channel, Provider},
    limits::{LimitChange, Scope},
};

/// A limit that a provider documents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Documented {
    /// What it is a limit of.
    pub scope: Scope,
    /// The limit.
    pub change: LimitChange,
    /// Where it is documented, in the project's reference.
    pub source: &'static str,
}

fn limit(scope: Scope, rate: f64, source: &'static str) -> Documented {
    Documented { scope, change: LimitChange { rate, burst: None, inbound_cost: None }, source }
}

/// The limits of a new account with this id.
pub fn documented(provider: Provider, external_id: &str) -> Vec<Documented> {
    let pair =
        || Documented { scope: Scope::Pair, change: whatsapp::PAIR_LIMIT, source: "providers/whatsapp section 11" };
    match provider {
        Provider::Whatsapp => {
            vec![limit(Scope::Account, whatsapp::MESSAGES_PER_SECOND, "providers/whatsapp section 11"), pair()]
        }
        // Above 40 a second, both ways together, a Page cannot send any more; that the Send API takes 300 calls is no help then.
        Provider::Messenger => vec![
            limit(Scope::Account, 40.0, "providers/messenger section 8"),
            limit(Scope::Heavy, 10.0, "providers/messenger section 8"),
        ],
        // Above 72,000 messages, both ways together, an account cannot send any more; in which time is not said. Taken for an hour, that is
        // 20 a second.
        Provider::Instagram => vec![
            limit(Scope::Account, 20.0, "providers/instagram section 6"),
            limit(Scope::Heavy, 10.0, "providers/instagram section 6"),
        ],
        // No rate is published; a message in six seconds is what a number that is linked by a QR code can hope for (providers/botmaster).
        Provider::Gateway => vec![limit(Scope::Account, 1.0 / 6.0, "providers/botmaster")],
        Provider::Twilio => {
            let mut limits = vec![
                limit(Scope::Account, twilio::messages_per_second(external_id), "providers/twilio section 9"),
                limit(Scope::ProviderAccount, 2_000.0, "providers/twilio section 9 (63017)"),
            ];
            // Meta's, whoever stands between.
            limits.extend((Channel::of_account(provider, external_id) == Channel::Whatsapp).then(pair));
            limits
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limits::Scope::*;

    #[test]
    fn every_provider_has_its_limits_and_all_make_sense() {
        for (provider, id, expected) in [
            (Provider::Whatsapp, "330000000000009", &[(Account, 80.0), (Pair, 1.0 / 6.0)] as &[_]),
            (Provider::Messenger, "100900000000001", &[(Account, 40.0), (Heavy, 10.0)]),
            (Provider::Instagram, "17841400000000055", &[(Account, 20.0), (Heavy, 10.0)]),
            (Provider::Twilio, "+15035550199", &[(Account, 1.0), (ProviderAccount, 2_000.0)]),
            (Provider::Twilio, "24246", &[(Account, 100.0), (ProviderAccount, 2_000.0)]),
            (
                Provider::Twilio,
                "whatsapp:+15035550199",
                &[(Account, 80.0), (ProviderAccount, 2_000.0), (Pair, 1.0 / 6.0)],
            ),
        ] {
            let limits = documented(provider, id);
            let found: Vec<_> = limits.iter().map(|limit| (limit.scope, limit.change.rate)).collect();
            assert_eq!(found, expected, "{provider} {id}");
            for limit in limits {
                assert_eq!(limit.change.of(None, limit.scope, provider).check(limit.scope), Ok(()), "{limit:?}");
            }
        }
    }
}
