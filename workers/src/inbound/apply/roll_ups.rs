//! What the new messages of each contact on each account add up to.

use super::messages::Placed;
use chrono::{DateTime, Utc};
use shared::{
    db::inbound::conversations::{Pair, RollUp},
    domain::messages::Direction,
};
use std::collections::BTreeMap;

/// So much of a message is shown in a list of conversations.
const PREVIEW_CHARS: usize = 200;

/// One for each pair. What was counted before, and is restored, is not counted again.
pub(super) fn of(placed: &[Placed<'_>]) -> Vec<RollUp> {
    let mut roll_ups: BTreeMap<Pair, RollUp> = BTreeMap::new();
    for p in placed {
        let item = p.item;
        let inbound = item.direction() == Direction::In;
        let said = inbound && item.kind().is_said();
        let news = said && !p.restored && item.is_fresh();
        let at = item.at();
        let r = roll_ups.entry(p.pair).or_insert_with(|| RollUp {
            pair: p.pair,
            messages_in: 0,
            messages_out: 0,
            inbound: false,
            unread: 0,
            reopens: false,
            said: false,
            last_at: DateTime::<Utc>::MIN_UTC,
            last_text: None,
            last_direction: item.direction(),
            last_said_at: None,
            window_expires_at: None,
            opens: false,
        });
        r.messages_in += i32::from(inbound && !p.restored);
        r.messages_out += i32::from(!inbound && !p.restored);
        r.inbound |= inbound;
        r.unread += i32::from(news);
        r.reopens |= news;
        r.said |= said;
        if at >= r.last_at {
            r.last_at = at;
            r.last_text = p.text().map(preview);
            r.last_direction = item.direction();
        }
        if said {
            r.last_said_at = r.last_said_at.max(Some(at));
        }
        let opens_window = inbound && item.kind().opens_window(item.channel());
        if let Some(window) = item.channel().window().filter(|_| opens_window) {
            r.window_expires_at = r.window_expires_at.max(Some(at + window));
            r.opens |= item.is_fresh() && !p.restored;
        }
    }
    roll_ups.into_values().collect()
}

fn preview(text: &str) -> String {
    text.chars().take(PREVIEW_CHARS).collect()
}
