#![no_main]
//! What each account is shown of a webhook of Meta's: as much as was read for it, and nothing for anybody else.

use chrono::{DateTime, Utc};
use shared::{
    domain::events::{Parsed, RouteKey},
    providers::{Unreadable, instagram, messenger, whatsapp},
};
use std::collections::HashSet;

/// So many accounts of a webhook are looked at: an input can name thousands.
const ACCOUNTS: usize = 10;

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    check(whatsapp::parse, whatsapp::excerpt, body);
    check(messenger::parse, messenger::excerpt, body);
    check(instagram::parse, instagram::excerpt, body);
});

fn check(
    parse: fn(&[u8], DateTime<Utc>) -> Result<Parsed, Unreadable>,
    excerpt: fn(&[u8], &HashSet<RouteKey>) -> String,
    body: &[u8],
) {
    excerpt(body, &HashSet::from([RouteKey::PageId("1".to_owned())]));
    let Ok(whole) = parse(body, fuzz::received_at()) else { return };
    for part in whole.parts.iter().take(ACCOUNTS) {
        let accounts: HashSet<_> = [Some(&part.route), part.fallback.as_ref()].into_iter().flatten().cloned().collect();
        let shown = excerpt(body, &accounts);
        let read = parse(shown.as_bytes(), fuzz::received_at()).expect("an excerpt is a webhook");
        assert!(read.parts.iter().all(|shown| accounts.contains(&shown.route)), "{shown}");
        let same = read.parts.iter().find(|shown| shown.route == part.route && shown.fallback == part.fallback);
        assert_eq!(same.map(|same| same.events.len()), Some(part.events.len()), "{shown}");
    }
}
