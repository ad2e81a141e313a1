//! What of a webhook is for some of the accounts it speaks to, for the log of their tenant: one webhook may speak to several
//! tenants, and none may see what is another's. Who a change is for is decided by the same function as in
//! [`parse`](super::parse()).

use super::{parse::route, wire::Change};
use crate::{
    domain::events::RouteKey,
    providers::{
        lenient::Lenient,
        meta::excerpt::{entries, list_of, with},
    },
};
use serde_json::value::RawValue;
use std::collections::HashSet;

/// The webhook with those changes alone that are for these accounts. What is for nobody who could be made out is left out,
/// too.
pub fn excerpt(body: &[u8], accounts: &HashSet<RouteKey>) -> String {
    entries(body, |entry| {
        let account_id = entry.id("id");
        let mut changes = entry.items("changes");
        changes.retain(|change| is_for(change, account_id.as_deref(), accounts));
        let changes: Vec<_> = changes.into_iter().map(RawValue::get).collect();
        (!changes.is_empty()).then(|| with(&entry, &[("changes", list_of(&changes))], &[]))
    })
}

fn is_for(change: &RawValue, account_id: Option<&str>, accounts: &HashSet<RouteKey>) -> bool {
    match serde_json::from_str(change.get()) {
        Ok(Lenient(Some(Change { value: Some(value), .. }))) => {
            route(account_id, &value).is_some_and(|route| accounts.contains(&route))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::{testing, whatsapp::parse};
    use chrono::DateTime;
    use serde_json::{Value, json};

    fn number(id: &str) -> RouteKey {
        RouteKey::PhoneNumberId(id.to_owned())
    }

    fn account(id: &str) -> RouteKey {
        RouteKey::BusinessAccountId(id.to_owned())
    }

    fn entries(body: &str, accounts: &[RouteKey]) -> Value {
        let excerpt = excerpt(body.as_bytes(), &accounts.iter().cloned().collect());
        let mut whole: Value = serde_json::from_str(&excerpt).unwrap();
        assert_eq!(whole["object"], "whatsapp_business_account");
        whole["entry"].take()
    }

    fn message(phone_number_id: Value, text: &str) -> Value {
        json!({"field": "messages", "value": {"metadata": {"phone_number_id": phone_number_id},
            "messages": [{"id": text, "from": "15557770142", "type": "text", "text": {"body": text}}]}})
    }

    #[test]
    fn each_tenant_sees_its_own_changes_and_no_others() {
        let update = json!({"field": "account_update", "value": {}});
        let body = json!({"object": "whatsapp_business_account", "entry": [
            {"id": "1", "time": 7, "changes": [message(json!("11"), "a"), message(json!("22"), "b"), 7, {"field": "x"}]},
            {"id": "2", "changes": [message(json!("33"), "c")]},
            {"id": "3", "changes": [update]},
            "nothing",
        ]});
        let kept = entries(&body.to_string(), &[number("22"), account("3")]);
        let first = json!({"id": "1", "time": 7, "changes": [message(json!("22"), "b")]});
        assert_eq!(kept, json!([first, {"id": "3", "changes": [update]}]));
    }

    #[test]
    fn a_number_written_as_an_integer_is_that_number_and_not_its_business_account() {
        let body = json!({"object": "whatsapp_business_account", "entry": [
            {"id": "1", "changes": [message(json!(11), "a"), message(json!(22), "b")]}]})
        .to_string();
        assert_eq!(entries(&body, &[number("11")])[0]["changes"], json!([message(json!(11), "a")]));
        assert_eq!(entries(&body, &[account("1")]), json!([]));
    }

    #[test]
    fn a_partners_event_is_its_customers() {
        let removed = json!({"field": "account_update", "value": {"waba_info": {"waba_id": "5"}}});
        let body =
            json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [removed]}]}).to_string();
        assert_eq!(entries(&body, &[account("5")])[0]["changes"], json!([removed]));
        assert_eq!(entries(&body, &[account("1")]), json!([]));
    }

    #[test]
    fn what_needs_repair_is_shown_repaired() {
        let body = json!({"object": "whatsapp_business_account", "entry": [
            {"id": "1", "changes": [message(json!("11"), "HOLE"), message(json!("22"), "b")]}]})
        .to_string()
        .replace("HOLE", "\\ud800");
        let kept = entries(&body, &[number("11")]);
        assert_eq!(kept[0]["changes"], json!([message(json!("11"), "\u{fffd}")]));
    }

    #[test]
    fn what_is_shown_to_an_account_is_read_as_the_whole_was() {
        for (name, (body, _)) in testing::fixtures("whatsapp") {
            let whole = parse(&body, DateTime::UNIX_EPOCH).unwrap();
            for part in whole.parts {
                let shown = excerpt(&body, &HashSet::from([part.route.clone()]));
                let read = parse(shown.as_bytes(), DateTime::UNIX_EPOCH).unwrap();
                assert_eq!(read.parts.len(), 1, "{name}: {shown}");
                assert_eq!(read.parts[0].route, part.route, "{name}");
                assert_eq!(read.parts[0].events.len(), part.events.len(), "{name}");
                assert_eq!(read.parts[0].bad.len(), part.bad.len(), "{name}");
            }
        }
    }
}
