//! Whose contacts the batch's people are: senders, those who were written to elsewhere, and those who said what they want.

use super::{Heard, Item};
use chrono::{DateTime, Utc};
use shared::{
    db::{
        self, FleetTx,
        inbound::people::{self, Same, Wanted},
    },
    domain::{
        events::ConsentChange,
        ids::{ChannelAccountId, ContactId, TenantId},
        people::{Alias, AliasKind, Person, PhoneNumber},
    },
};
use std::collections::{HashMap, HashSet};

/// The contacts of a batch, beside what they were asked for; `None`: who was erased since.
pub(super) struct People {
    /// Of messages and echoes.
    pub items: Vec<Option<ContactId>>,
    /// Of what was said about consent.
    pub consents: Vec<Option<ContactId>>,
    /// Who turned out to be one.
    pub same: Vec<Same>,
    /// Whose display name is known.
    pub named: HashSet<(TenantId, ContactId)>,
}

impl People {
    /// Finds or makes them all.
    pub(super) async fn resolve(
        tx: &mut FleetTx,
        items: &[Item<'_>],
        consents: &[Heard<'_, &ConsentChange>],
    ) -> Result<Self, db::Error> {
        let of_items = items.iter().map(|item| wanted(item.account(), item.person(), item.new_aliases(), item.at()));
        let of_consents = consents.iter().map(|c| wanted(c.account(), &c.what.person, &[], c.what.at));
        let all: Vec<Wanted> = of_items.chain(of_consents).collect();
        let people::People { contacts: mut found, same, named } = people::resolve(tx, &all).await?;
        let consents = found.split_off(items.len().min(found.len()));
        let erased = found.iter().chain(&consents).filter(|contact| contact.is_none()).count();
        if erased > 0 {
            metrics::counter!(shared::telemetry::names::INBOUND_ERASED_TOTAL).increment(erased as u64);
        }
        Ok(Self { items: found, consents, same, named })
    }

    /// Who was merged into another is that from now on.
    pub(super) fn follow(
        &mut self,
        gone: &HashMap<(TenantId, ContactId), ContactId>,
        items: &[Item<'_>],
        consents: &[Heard<'_, &ConsentChange>],
    ) {
        let tenants = items.iter().map(Item::tenant_id).chain(consents.iter().map(Heard::tenant_id));
        for (contact, tenant_id) in self.items.iter_mut().chain(&mut self.consents).zip(tenants) {
            if let Some(id) = contact
                && let Some(winner) = gone.get(&(tenant_id, *id))
            {
                *id = *winner;
            }
        }
    }
}

/// The person with, besides the names given, the telephone number a WhatsApp id stands for: who was entered by hand or
/// imported by number is the same person.
pub(super) fn wanted(
    (tenant_id, channel_account_id): (TenantId, ChannelAccountId),
    person: &Person,
    new_aliases: &[Alias],
    at: DateTime<Utc>,
) -> Wanted {
    let mut person: Person = person.clone();
    if person.aliases.iter().all(|alias| alias.kind != AliasKind::Phone) {
        let id = person.aliases.iter().find(|alias| alias.kind == AliasKind::WhatsappId);
        if let Some(phone) = id.and_then(|alias| PhoneNumber::from_whatsapp_id(&alias.value)) {
            person.aliases.push(Alias { kind: AliasKind::Phone, value: phone.as_str().to_owned() });
        }
    }
    Wanted { tenant_id, channel_account_id, person, new_aliases: new_aliases.to_vec(), at }
}
