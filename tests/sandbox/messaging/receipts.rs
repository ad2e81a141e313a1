//! What follows an accepted message: its echo, the watermark up to which a thread was delivered or read (Messenger), and the message
//! that was read (Instagram).

use super::super::{
    accounts::Account, agenda::PlannedStatus, behaviour::Status, messenger::APP_ID, platform::Platform,
    provider::Provider, sign, webhooks::Parcel,
};
use super::{Moment, webhook};
use serde_json::{Value, json};

/// The webhook that tells it; none if the ledger was cleared in between.
pub(crate) fn parcel(provider: &Provider, account: &Account, planned: &PlannedStatus) -> Option<Parcel> {
    let behaviour = account.behaviour(provider);
    let entry = provider.ledger.send(planned.send)?;
    let mid = entry.wamid()?;
    let said = account.live().desk.said(mid)?.clone();
    let ms = |at_us: u64| provider.clock.wall(at_us).timestamp_millis();
    let moment = Moment {
        account: &account.spec,
        person: &said.person,
        id: mid,
        about: mid,
        text: said.text.as_deref().unwrap_or_default(),
        nth_edit: 0,
        at_ms: if planned.status == Status::Echo { ms(said.at_us) } else { ms(planned.happened_us) },
        watermark_ms: ms(planned.happened_us),
    };
    let object = match account.spec.platform {
        Platform::Instagram => "instagram",
        _ => "page",
    };
    let event = match (planned.status, account.spec.platform) {
        (Status::Echo, Platform::Messenger) => {
            let mut parts = parts(said.text.as_deref(), &said.parts);
            parts["app_id"] = json!(APP_ID);
            if let Some(metadata) = &entry.opaque {
                parts["metadata"] = json!(metadata);
            }
            moment.echo(parts)
        }
        (Status::Echo, _) => moment.echo(parts(said.text.as_deref(), &said.parts)),
        (Status::Delivered, Platform::Messenger) => {
            let mut delivery = json!({"watermark": moment.watermark_ms});
            if !provider.dice.roll().chance(behaviour.bare_receipt_rate) {
                delivery["mids"] = json!([mid]);
            }
            moment.by_person("delivery", delivery)
        }
        (Status::Read, Platform::Messenger) => moment.by_person("read", json!({"watermark": moment.watermark_ms})),
        (Status::Read, _) => moment.by_person("read", json!({"mid": mid})),
        _ => return None,
    };
    let payload = webhook(object, &account.spec, vec![("messaging", event)], ms(provider.clock.now_us()));
    Some(Parcel::json(sign::emit(&payload, behaviour.escape_slashes), provider.secret(&account.spec)))
}

fn parts(text: Option<&str>, more: &Value) -> Value {
    let mut parts = if more.is_object() { more.clone() } else { json!({}) };
    if let Some(text) = text {
        parts["text"] = json!(text);
    }
    parts
}
