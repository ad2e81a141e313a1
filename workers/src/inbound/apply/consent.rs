//! Who does not want to be written to any more, or wants to again: by a word alone in a message, fresh or old, or as the provider
//! says. What was said last by the provider's time holds.

use super::{Heard, Inbound, Item, Placed, people::People};
use shared::{
    db::suppressions::{Wish, Wishes},
    domain::{
        consent::{self, Purpose},
        events::{ConsentChange, Event},
        messages::MessageKind,
    },
};

/// How a word in a message is written down.
const KEYWORD: &str = "keyword";

/// What providers say of people's consent.
pub(super) fn heard<'a>(effects: &'a [Inbound]) -> Vec<Heard<'a, &'a ConsentChange>> {
    super::heard(effects, |event| if let Event::Consent(change) = event { Some(change) } else { None })
}

/// All that people want, by their words and as providers say. A provider's clock ahead of ours does not make a wish stronger than
/// what is said after it.
///
/// Of messages only by those that are stored now: what comes again at a later time was not said again.
pub(super) fn wishes(placed: &[Placed<'_>], consents: &[Heard<'_, &ConsentChange>], people: &People) -> Wishes {
    let mut wishes = Wishes::default();
    for Placed { item, pair: (_, contact_id, _), .. } in placed {
        let (Some(said), contact_id) = (said(item), *contact_id) else { continue };
        let wish = Wish { consent: said, since: item.at().min(item.received_at()), source: KEYWORD };
        wishes.add((item.tenant_id(), contact_id, item.channel(), Purpose::of_keyword(item.channel())), wish);
    }
    for (heard, contact) in consents.iter().zip(&people.consents) {
        let Some(contact_id) = *contact else { continue };
        let change = heard.what;
        let since = change.at.min(heard.webhook.meta.received_at);
        let wish = Wish { consent: change.consent, since, source: change.source };
        wishes.add((heard.tenant_id(), contact_id, heard.channel, change.purpose), wish);
    }
    wishes
}

/// What a person's message says about it, if it is such a word and nothing else: written, or tapped.
fn said(item: &Item<'_>) -> Option<consent::Consent> {
    let message = item.inbound()?;
    let may_say = matches!(
        message.kind,
        MessageKind::Text | MessageKind::Button | MessageKind::Postback | MessageKind::Interactive
    );
    consent::keyword(item.channel(), message.text.as_deref().filter(|_| may_say)?)
}
