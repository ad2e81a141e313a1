//! Who does not want to be written to any more, or wants to again: by a word alone in a message, fresh or old, or as the provider
//! says. What was said last by the provider's time holds.

use super::{
    Heard, Inbound, Item, Placed,
    people::{People, wanted},
};
use shared::{
    db::suppressions::{Wish, Wishes},
    domain::{
        consent::{self, Purpose},
        events::{ConsentChange, Event},
        messages::MessageKind,
    },
};
use std::collections::HashSet;

/// How a word in a message is written down.
const KEYWORD: &str = "keyword";

/// What providers say of people's consent.
pub(super) fn heard<'a>(effects: &'a [Inbound]) -> Vec<Heard<'a, &'a ConsentChange>> {
    super::heard(effects, |event| if let Event::Consent(change) = event { Some(change) } else { None })
}

/// All that people want, by their words and as providers say. A provider's clock ahead of ours does not make a wish stronger than
/// what is said after it.
///
/// Of messages only by those that are stored now: what comes again at a later time was not said again. Nor was what a provider says
/// beside a message without a time of its own. What somebody said who was erased since is kept for when they come back.
pub(super) fn wishes(
    items: &[Item<'_>],
    placed: &[Placed<'_>],
    consents: &[Heard<'_, &ConsentChange>],
    people: &People,
) -> Wishes {
    let mut wishes = Wishes::default();
    let names = |item: &Item<'_>| wanted(item.account(), item.person(), &[], item.at()).person.aliases;
    for (item, _) in items.iter().zip(&people.items).filter(|(_, contact)| contact.is_none()) {
        let Some(consent) = said(item) else { continue };
        let wish = Wish { consent, since: item.at().min(item.received_at()), source: KEYWORD };
        for purpose in Purpose::of_keyword(item.channel(), consent, tapped(item)) {
            wishes.add_of_erased(item.tenant_id(), &names(item), item.channel(), *purpose, wish);
        }
    }
    let stored: HashSet<_> = placed.iter().map(|p| p.item.webhook_key()).collect();
    for Placed { item, pair: (_, contact_id, _), .. } in placed {
        let (Some(said), contact_id) = (said(item), *contact_id) else { continue };
        let wish = Wish { consent: said, since: item.at().min(item.received_at()), source: KEYWORD };
        for purpose in Purpose::of_keyword(item.channel(), said, tapped(item)) {
            wishes.add((item.tenant_id(), contact_id, item.channel(), *purpose), wish);
        }
    }
    for (heard, contact) in consents.iter().zip(&people.consents) {
        let change = heard.what;
        let since = change.at.min(heard.webhook.meta.received_at);
        let wish = Wish { consent: change.consent, since, source: change.source };
        let Some(contact_id) = *contact else {
            let person = wanted(heard.account(), &change.person, &[], change.at).person;
            wishes.add_of_erased(heard.tenant_id(), &person.aliases, heard.channel, change.purpose, wish);
            continue;
        };
        let beside_a_message = heard.webhook.events.iter().any(|told| matches!(told.event, Event::Message(_)));
        let comes_again = beside_a_message && !stored.contains(&heard.webhook.key());
        let has_no_time = change.at >= heard.webhook.meta.received_at;
        if has_no_time && comes_again {
            continue;
        }
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

fn tapped(item: &Item<'_>) -> bool {
    item.inbound().is_some_and(|message| message.kind != MessageKind::Text)
}
