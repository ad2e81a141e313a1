//! What holds a queue up: worked out from what the broker says of it and what waits for it in Postgres. Asks nobody.

use serde::Serialize;
use shared::{
    db::waiting::{Account, Waiting},
    domain::ids::{ChannelAccountId, TenantId},
    queue::{CAMPAIGN, INBOUND, MEDIA, OUTBOUND_BULK, OUTBOUND_NOW, Queue},
};
use std::collections::BTreeMap;

/// Below this many a second nothing moves that could be reckoned with.
pub(super) const STANDSTILL: f64 = 0.05;
/// Jobs are published within a second of their time, or five seconds after a crash.
const LATE_S: f64 = 15.0;
/// So many accounts are named.
const NAMED: usize = 2;

/// What the broker says of a queue, with or without its management plugin.
pub(super) struct Facts {
    pub(super) queue: &'static Queue,
    pub(super) ready: u64,
    pub(super) consumers: u64,
    pub(super) dead: u64,
    pub(super) moving: Option<Moving>,
}

pub(super) struct Moving {
    pub(super) unacked: u64,
    pub(super) publish_per_s: f64,
    pub(super) deliver_per_s: f64,
    pub(super) ack_per_s: f64,
}

/// Something that waits in Postgres for a queue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Kept {
    /// What for.
    pub(super) why: Why,
    /// Of which account: `tenant/name`.
    pub(super) account: Option<String>,
    /// How many webhooks, messages, people or jobs.
    pub(super) count: i64,
    /// More about it: a limit, why an account is down.
    pub(super) detail: Option<String>,
}

/// What something waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    /// The account's limit, of messages a second.
    AccountLimit,
    /// The account, which cannot send.
    AccountDown,
    /// The limit of messages to one person.
    PersonLimit,
    /// The limit of people a day.
    PortfolioLimit,
    /// Calls of the account under way.
    Calls,
    /// The provider did not take it: it is tried again.
    TriedAgain,
    /// Somebody has paused the campaign.
    Paused,
    /// A release.
    Release,
    /// Those before it in its conversation.
    Turn,
    /// Something that this release does not know.
    Other,
    /// The broker, which was away: the scheduler publishes it.
    Spilled,
    /// A time; then the scheduler publishes it.
    Later,
}

impl Why {
    /// For a table.
    pub(super) fn text(self) -> &'static str {
        match self {
            Why::AccountLimit => "the account's limit",
            Why::AccountDown => "the account, which is down",
            Why::PersonLimit => "the limit to one person",
            Why::PortfolioLimit => "the portfolio's people a day",
            Why::Calls => "calls of the account under way",
            Why::TriedAgain => "another try, the provider did not take it",
            Why::Paused => "a paused campaign",
            Why::Release => "being released",
            Why::Turn => "those before them in their conversations",
            Why::Other => "something else",
            Why::Spilled => "the scheduler, spilled while RabbitMQ was away",
            Why::Later => "their time",
        }
    }

    fn of(reason: &str, campaign: bool) -> Self {
        match reason {
            "rate" => Why::AccountLimit,
            // A campaign's jobs are published when the turn of their messages at the account's limit is near.
            "queued" if campaign => Why::AccountLimit,
            "queued" => Why::Later,
            "account_down" => Why::AccountDown,
            "pair" => Why::PersonLimit,
            "portfolio" => Why::PortfolioLimit,
            "room" => Why::Calls,
            "not_sent" => Why::TriedAgain,
            "campaign" => Why::Paused,
            "turn" => Why::Turn,
            _ => Why::Other,
        }
    }
}

/// All that is known beside a queue's own facts.
#[derive(Default)]
pub(super) struct Known<'a> {
    /// Which server is away, as it is said.
    pub(super) away: Vec<String>,
    /// What waits in Postgres, as far as it could be asked.
    pub(super) waiting: Waiting,
    /// Tenants' names in URLs.
    pub(super) tenants: BTreeMap<TenantId, &'a str>,
    /// How many consume the queue of campaigns, if that is known.
    pub(super) releasing: Option<u64>,
}

impl Known<'_> {
    /// What waits in Postgres for this queue, the most first.
    pub(super) fn kept(&self, queue: &Queue) -> Vec<Kept> {
        let mut kept: BTreeMap<(Why, Option<String>), Kept> = BTreeMap::new();
        let mut add = |why, account: Option<&Account>, count: i64| {
            let name = account.map(|account| self.name(account));
            let detail = account.and_then(|account| detail(why, account));
            let key = (why, name.clone());
            kept.entry(key).or_insert(Kept { why, account: name, count: 0, detail }).count += count;
        };
        if *queue == INBOUND {
            add(Why::Spilled, None, self.waiting.spilled);
        }
        if [&INBOUND, &CAMPAIGN, &MEDIA].contains(&queue) {
            let jobs = self.waiting.jobs.iter().filter(|jobs| jobs.queue == queue.name);
            jobs.for_each(|jobs| add(Why::Later, None, jobs.due + jobs.later));
        }
        let bulk = *queue == OUTBOUND_BULK;
        if bulk || *queue == OUTBOUND_NOW {
            for sends in self.waiting.sends.iter().filter(|sends| sends.campaign == bulk) {
                let account = self.account(sends.tenant_id, sends.account);
                add(Why::of(&sends.reason, bulk), account, sends.messages);
            }
        }
        for campaigns in self.waiting.campaigns.iter().filter(|_| bulk) {
            let account = self.account(campaigns.tenant_id, campaigns.account);
            match account {
                _ if campaigns.paused => add(Why::Paused, account, campaigns.people + campaigns.in_flight),
                Some(down) if down.state != "active" => add(Why::AccountDown, account, campaigns.people),
                Some(busy) if busy.at_rate => add(Why::AccountLimit, account, campaigns.people),
                _ => add(Why::Release, account, campaigns.people),
            }
        }
        let mut kept: Vec<Kept> = kept.into_values().filter(|kept| kept.count > 0).collect();
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.count));
        kept
    }

    /// What holds the queue up, in the order of weight; nothing if nothing does.
    pub(super) fn bound(&self, queue: &Queue, facts: Option<&Facts>, kept: &[Kept]) -> Vec<String> {
        let mut bound = self.away.clone();
        let Some(facts) = facts.filter(|_| bound.is_empty()) else { return bound };
        // What is taken within a second is only passing.
        let moving = facts.moving.as_ref();
        let stuck = facts.ready > 0 && moving.is_none_or(|moving| facts.ready as f64 > moving.ack_per_s);
        if facts.consumers == 0 {
            bound.push("no worker consumes it".to_owned());
        } else if stuck && moving.is_some_and(|moving| moving.unacked == 0) {
            bound.push("the workers take nothing (see their /readyz)".to_owned());
        }
        let late = self.waiting.jobs.iter().filter(|jobs| jobs.queue == queue.name);
        let late = late.filter_map(|jobs| jobs.oldest_due_s).reduce(f64::max).filter(|late| *late > LATE_S);
        if let Some(late) = late {
            bound.push(format!("the scheduler: jobs are due for {late:.0} s and not published"));
        }
        let mut whys: Vec<Why> = Vec::new();
        // Who is released waits for whoever sends: with nobody there, releasing stops by itself and is not to blame.
        let passing = |why| matches!(why, Why::Turn | Why::Later) || (why == Why::Release && facts.consumers == 0);
        for kept in kept.iter().filter(|kept| !passing(kept.why)) {
            if !whys.contains(&kept.why) {
                whys.push(kept.why);
            }
        }
        bound.extend(whys.iter().map(|why| self.said(*why, kept)));
        if stuck && bound.is_empty() {
            bound.push(self.workers(queue, moving));
        }
        bound
    }

    /// Jobs are ready, workers have some in hand, and Postgres knows of nothing that they would wait for.
    fn workers(&self, queue: &Queue, moving: Option<&Moving>) -> String {
        let outbound = *queue == OUTBOUND_NOW || *queue == OUTBOUND_BULK;
        let busy: Vec<Kept> = self
            .waiting
            .accounts
            .iter()
            .filter(|account| outbound && account.state == "active" && account.at_rate)
            .map(|account| Kept {
                why: Why::AccountLimit,
                account: Some(self.name(account)),
                count: 1,
                detail: detail(Why::AccountLimit, account),
            })
            .collect();
        match moving {
            _ if !busy.is_empty() => self.said(Why::AccountLimit, &busy),
            Some(moving) if moving.ack_per_s <= STANDSTILL => {
                "what the workers have in hand does not end (see /readyz)".to_owned()
            }
            Some(_) => "too few workers".to_owned(),
            None => "not known without the management plugin".to_owned(),
        }
    }

    fn said(&self, why: Why, kept: &[Kept]) -> String {
        let of: Vec<&Kept> = kept.iter().filter(|kept| kept.why == why).collect();
        let name = |kept: &&Kept| kept.account.clone().unwrap_or_else(|| "an account".to_owned());
        let mut names = of.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ");
        if of.len() > NAMED {
            names.push_str(&format!(" and {} more", of.len() - NAMED));
        }
        // One account's can be told.
        let detail = match of.as_slice() {
            [one] => one.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default(),
            _ => String::new(),
        };
        let (limits, are) = if of.len() == 1 { ("limit", "is") } else { ("limits", "are") };
        match why {
            Why::AccountLimit => format!("{limits} of {names}{detail}"),
            Why::AccountDown => format!("{names} {are} down{detail}"),
            Why::PersonLimit => format!("the limit to one person of {names}"),
            Why::PortfolioLimit => format!("the people a day of {names}"),
            Why::Calls => format!("calls under way of {names}"),
            Why::TriedAgain => format!("the provider of {names}, tried again"),
            Why::Paused => format!("a pause, of {names}"),
            Why::Release if self.releasing == Some(0) => "no worker releases (mijra-campaign)".to_owned(),
            Why::Release => format!("mijra-campaign, which releases people of {names}"),
            Why::Spilled => "the scheduler, which publishes what was spilled".to_owned(),
            Why::Turn | Why::Later | Why::Other => why.text().to_owned(),
        }
    }

    /// How long a campaign's people take at the rates there are: of the account that is done last. `None` if that cannot be said.
    pub(super) fn campaigns_clear_s(&self) -> Option<f64> {
        let mut longest: Option<f64> = None;
        for campaigns in self.waiting.campaigns.iter().filter(|campaigns| !campaigns.paused) {
            let left = campaigns.people + campaigns.in_flight;
            if left == 0 {
                continue;
            }
            let account = self.account(campaigns.tenant_id, campaigns.account)?;
            let measured = Some(campaigns.per_s).filter(|rate| *rate > STANDSTILL);
            let rate = measured.or(account.current_rate).filter(|_| account.state == "active")?;
            longest = longest.into_iter().chain([left as f64 / rate]).reduce(f64::max);
        }
        longest
    }

    fn account(&self, tenant: TenantId, id: ChannelAccountId) -> Option<&Account> {
        self.waiting.accounts.iter().find(|account| (account.tenant_id, account.id) == (tenant, id))
    }

    fn name(&self, account: &Account) -> String {
        let tenant = self.tenants.get(&account.tenant_id).copied().unwrap_or("?");
        format!("{tenant}/{}", account.name)
    }
}

fn detail(why: Why, account: &Account) -> Option<String> {
    match why {
        Why::AccountLimit => {
            let (rate, current) = (account.rate?, account.current_rate?);
            let throttled = if current < rate { format!(", throttled to {current:.1}/s") } else { String::new() };
            Some(format!("{rate:.1}/s{throttled}").replace(".0/", "/"))
        }
        Why::AccountDown => account.down_reason.clone(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::db::waiting::{Campaigns, Jobs, Sends};

    fn facts(queue: &'static Queue, ready: u64, consumers: u64, ack_per_s: f64) -> Facts {
        let moving = Moving { unacked: 10, publish_per_s: 0.0, deliver_per_s: ack_per_s, ack_per_s };
        Facts { queue, ready, consumers, dead: 0, moving: Some(moving) }
    }

    /// One tenant's account with this in Postgres.
    fn known(state: &str, at_rate: bool, sends: &[(&str, bool, i64)], campaigns: &[(bool, i64)]) -> Known<'static> {
        let (tenant_id, id) = (TenantId::new(), ChannelAccountId::new());
        let account = Account {
            tenant_id,
            id,
            name: "Main".to_owned(),
            state: state.to_owned(),
            down_reason: (state == "down").then(|| "token expired".to_owned()),
            rate: Some(80.0),
            current_rate: Some(20.0),
            at_rate,
        };
        let sends = sends.iter().map(|(reason, campaign, messages)| Sends {
            tenant_id,
            account: id,
            campaign: *campaign,
            reason: (*reason).to_owned(),
            messages: *messages,
        });
        let campaigns = campaigns.iter().map(|(paused, people)| Campaigns {
            tenant_id,
            account: id,
            paused: *paused,
            campaigns: 1,
            people: *people,
            in_flight: 100,
            per_s: 0.0,
        });
        let (sends, campaigns) = (sends.collect(), campaigns.collect());
        let waiting = Waiting { accounts: vec![account], sends, campaigns, ..Waiting::default() };
        Known { waiting, tenants: [(tenant_id, "demo")].into(), ..Known::default() }
    }

    fn bound(known: &Known<'_>, facts: &Facts) -> String {
        known.bound(facts.queue, Some(facts), &known.kept(facts.queue)).join("; ")
    }

    #[test]
    fn a_queue_is_bound_by_its_workers_when_nothing_else_explains_it() {
        let calm = Known::default();
        for (ready, consumers, ack_per_s, expected) in [
            (0, 2, 0.0, ""),
            (50, 2, 100.0, ""),
            (1000, 2, 100.0, "too few workers"),
            (1000, 2, 0.0, "what the workers have in hand does not end (see /readyz)"),
            (0, 0, 0.0, "no worker consumes it"),
        ] {
            assert_eq!(bound(&calm, &facts(&INBOUND, ready, consumers, ack_per_s)), expected, "{ready} {consumers}");
        }
        let mut idle = facts(&INBOUND, 1000, 2, 0.0);
        idle.moving.as_mut().unwrap().unacked = 0;
        assert_eq!(bound(&calm, &idle), "the workers take nothing (see their /readyz)");
        idle.moving = None;
        assert_eq!(bound(&calm, &idle), "not known without the management plugin");
    }

    #[test]
    fn what_is_to_be_sent_waits_for_its_account_though_the_queue_is_empty() {
        let limit = "limit of demo/Main (80/s, throttled to 20/s)";
        for (queue, known, expected) in [
            (&OUTBOUND_BULK, known("active", true, &[("queued", true, 400)], &[(false, 9_000)]), limit),
            (&OUTBOUND_NOW, known("active", true, &[("rate", false, 30), ("turn", false, 90)], &[]), limit),
            (
                &OUTBOUND_BULK,
                known("down", false, &[("account_down", true, 5)], &[(false, 9_000)]),
                "demo/Main is down (token expired)",
            ),
            (&OUTBOUND_BULK, known("active", true, &[], &[(true, 9_000)]), "a pause, of demo/Main"),
            (&OUTBOUND_NOW, known("active", false, &[("pair", false, 3)], &[]), "the limit to one person of demo/Main"),
            (&OUTBOUND_NOW, known("active", true, &[("rate", true, 30)], &[(false, 9_000)]), ""),
            (
                &OUTBOUND_BULK,
                known("active", false, &[], &[(false, 9_000)]),
                "mijra-campaign, which releases people of demo/Main",
            ),
        ] {
            assert_eq!(bound(&known, &facts(queue, 0, 2, 0.0)), expected, "{}", queue.name);
        }
        let released = known("active", false, &[], &[(false, 9_000)]);
        assert_eq!(bound(&released, &facts(&OUTBOUND_BULK, 9, 0, 0.0)), "no worker consumes it");
        // Jobs on the queue whose messages will wait for the limit are no lack of workers.
        let busy = known("active", true, &[], &[]);
        assert_eq!(bound(&busy, &facts(&OUTBOUND_NOW, 1000, 2, 10.0)), limit);
        assert_eq!(bound(&busy, &facts(&INBOUND, 1000, 2, 10.0)), "too few workers");
    }

    #[test]
    fn the_same_reason_of_an_account_is_added_up_and_the_most_comes_first() {
        let known = known("active", true, &[("pair", true, 7), ("rate", true, 5)], &[(false, 20), (true, 1)]);
        let kept: Vec<(Why, i64)> = known.kept(&OUTBOUND_BULK).iter().map(|kept| (kept.why, kept.count)).collect();
        assert_eq!(kept, [(Why::Paused, 101), (Why::AccountLimit, 25), (Why::PersonLimit, 7)]);
        assert_eq!(known.campaigns_clear_s(), Some(6.0), "120 at 20 a second");
    }

    #[test]
    fn a_server_that_is_away_explains_everything() {
        let known = Known { away: vec!["the database is away".to_owned()], ..known("down", true, &[], &[]) };
        assert_eq!(bound(&known, &facts(&INBOUND, 1000, 0, 0.0)), "the database is away");
        assert_eq!(known.bound(&INBOUND, None, &[]), ["the database is away"]);
    }

    #[test]
    fn what_is_not_published_in_time_is_the_schedulers() {
        let jobs = Jobs { queue: "campaign".to_owned(), due: 3, later: 0, oldest_due_s: Some(40.0) };
        let known = Known { waiting: Waiting { jobs: vec![jobs], ..Waiting::default() }, ..Known::default() };
        assert_eq!(
            bound(&known, &facts(&CAMPAIGN, 0, 2, 0.0)),
            "the scheduler: jobs are due for 40 s and not published"
        );
        assert_eq!(bound(&known, &facts(&INBOUND, 0, 2, 0.0)), "");
    }
}
