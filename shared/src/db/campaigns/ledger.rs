//! A campaign's books: five accounts of the same people, held against each other as of one moment. How many were frozen; where
//! each person stands; where their sends stand; which attempts these had; and what is shown. Nothing is repaired here: a
//! disagreement is a bug to be found.

use crate::{
    db::{TenantTx, error::Result},
    domain::{campaigns::RecipientState, ids::CampaignId, sends::SendState},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// The books of one campaign.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// How many were frozen; absent until all are.
    pub frozen: Option<i64>,
    /// State by state, in the order in which people pass them.
    pub lines: Vec<Line>,
    /// Why people failed or were skipped, the commonest first.
    pub causes: Vec<Cause>,
    /// What does not agree, a sentence each. None: the books agree.
    pub disagreements: Vec<String>,
}

/// One state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its name.
    pub state: &'static str,
    /// So many people are in it.
    pub people: i64,
    /// So many attempts were made at them that have ended.
    pub attempts: i64,
    /// So many are shown.
    pub shown: i64,
}

/// Why some people got nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// failed or skipped.
    pub state: &'static str,
    /// With which code they failed.
    pub code: Option<String>,
    /// Why they were skipped; of who failed what was said of one of them.
    pub reason: Option<String>,
    /// So many of them.
    pub people: i64,
}

/// People of one kind, as found.
#[derive(Clone, Debug, Default)]
struct Group {
    state: String,
    send_state: Option<SendState>,
    code: Option<String>,
    reason: Option<String>,
    people: i64,
    attempts: i64,
    elsewhere: i64,
    unattempted: i64,
    taken_twice: i64,
    taken_unasked: i64,
}

/// The books of a campaign; `None` if the tenant has none such. Reads all of its people.
///
/// # Errors
/// If the database does not answer.
pub async fn ledger(tx: &mut TenantTx, id: CampaignId) -> Result<Option<Ledger>> {
    let tenant_id = tx.tenant_id();
    read_at_length(tx).await?;
    let rows = sqlx::query_file!("src/db/campaigns/ledger.sql", tenant_id.0, id.0).fetch_all(tx.conn()).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let frozen = first.frozen_count;
    let shown = [
        first.skipped,
        first.waiting,
        first.in_flight,
        first.unknown,
        first.held,
        first.sent,
        first.delivered,
        first.read,
        first.failed,
        first.cancelled,
    ];
    let groups: Vec<Group> = rows
        .into_iter()
        .filter_map(|row| {
            Some(Group {
                state: row.state?,
                send_state: row.send_state.as_deref().and_then(SendState::from_name),
                code: row.code,
                reason: row.reason,
                people: row.people?,
                attempts: row.attempts?,
                elsewhere: row.elsewhere?,
                unattempted: row.unattempted?,
                taken_twice: row.taken_twice?,
                taken_unasked: row.taken_unasked?,
            })
        })
        .collect();
    Ok(Some(compare(frozen, shown, &groups)))
}

/// From here to the end of the transaction a million people are read, not looked up; that takes longer than what is done all day,
/// and sorts more.
pub(super) async fn read_at_length(tx: &mut TenantTx) -> Result<()> {
    sqlx::query!(
        "SELECT set_config('statement_timeout', '2min', true) AS time, set_config('enable_seqscan', 'on', true) AS reading,
            set_config('work_mem', '64MB', true) AS room"
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(())
}

fn compare(frozen: Option<i64>, shown: [i64; 10], groups: &[Group]) -> Ledger {
    let causes = causes(groups);
    let groups = &by_state(groups);
    let mut found: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    let mut disagreements = Vec::new();
    for group in groups {
        match column(group) {
            Some(column) => {
                let (people, attempts) = found.entry(column).or_default();
                *people += group.people;
                *attempts += group.attempts;
            }
            None => disagreements.push(format!("{} people are {} and have no send", group.people, group.state)),
        }
    }
    let people: i64 = groups.iter().map(|group| group.people).sum();
    if let Some(frozen) = frozen.filter(|frozen| *frozen != people) {
        disagreements.push(format!("{frozen} people were frozen, and {people} are there"));
    }
    let lines: Vec<Line> = RecipientState::ALL
        .into_iter()
        .zip(shown)
        .map(|(state, shown)| {
            let state = state.as_str();
            let (people, attempts) = found.get(state).copied().unwrap_or_default();
            Line { state, people, attempts, shown }
        })
        .collect();
    for Line { state, people, shown, .. } in lines.iter().filter(|line| line.people != line.shown) {
        disagreements.push(format!("{people} people are {state}, and {shown} are shown"));
    }
    for group in groups {
        let state = group.send_state.map_or(group.state.as_str(), |state| state.as_str());
        for (people, what) in [
            (group.elsewhere, "have a send that names another campaign"),
            (group.unattempted, "have no attempt"),
            (group.taken_twice, "were taken by the provider twice, and are not shown as possibly doubled"),
            (group.taken_unasked, "were taken by the provider all the same"),
        ] {
            if people > 0 {
                disagreements.push(format!("{people} people are {state} and {what}"));
            }
        }
    }
    Ledger { frozen, lines, causes, disagreements }
}

fn causes(groups: &[Group]) -> Vec<Cause> {
    let because = |group: &Group| {
        let state = match column(group)? {
            state @ ("failed" | "skipped") => state,
            _ => return None,
        };
        Some(Cause { state, code: group.code.clone(), reason: group.reason.clone(), people: group.people })
    };
    let mut causes: Vec<Cause> = groups.iter().filter_map(because).collect();
    causes.sort_by(|a, b| (a.state, -a.people, &a.code, &a.reason).cmp(&(b.state, -b.people, &b.code, &b.reason)));
    causes
}

/// The same people, whatever the cause.
fn by_state(groups: &[Group]) -> Vec<Group> {
    let mut merged: Vec<Group> = Vec::new();
    for group in groups {
        let same = |other: &&mut Group| (&other.state, other.send_state) == (&group.state, group.send_state);
        let Some(all) = merged.iter_mut().find(same) else {
            merged.push(group.clone());
            continue;
        };
        all.people += group.people;
        all.attempts += group.attempts;
        all.elsewhere += group.elsewhere;
        all.unattempted += group.unattempted;
        all.taken_twice += group.taken_twice;
        all.taken_unasked += group.taken_unasked;
    }
    merged
}

/// Among which people of those shown a group counts; `None`: it should have a send.
fn column(group: &Group) -> Option<&'static str> {
    match (group.state.as_str(), group.send_state) {
        ("skipped", _) => Some("skipped"),
        ("waiting", _) => Some("waiting"),
        ("cancelled", _) => Some("cancelled"),
        (_, Some(SendState::Waiting | SendState::Queued | SendState::Sending)) => Some("in_flight"),
        (_, Some(settled)) => Some(settled.as_str()),
        (_, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(state: &str, send_state: Option<SendState>, people: i64) -> Group {
        Group { state: state.into(), send_state, people, ..Group::default() }
    }

    /// Ten people, two of them delivered.
    fn groups() -> Vec<Group> {
        vec![
            group("skipped", None, 3),
            group("waiting", None, 1),
            group("cancelled", None, 1),
            group("released", Some(SendState::Waiting), 1),
            group("released", Some(SendState::Sending), 1),
            group("released", Some(SendState::Cancelled), 1),
            Group { attempts: 3, ..group("released", Some(SendState::Delivered), 2) },
        ]
    }

    const SHOWN: [i64; 10] = [3, 1, 2, 0, 0, 0, 2, 0, 0, 2];

    #[test]
    fn books_that_agree_say_so() {
        let ledger = compare(Some(10), SHOWN, &groups());
        assert_eq!(ledger.disagreements, Vec::<String>::new());
        let line = |name: &str| *ledger.lines.iter().find(|line| line.state == name).unwrap();
        assert_eq!(line("in_flight"), Line { state: "in_flight", people: 2, attempts: 0, shown: 2 });
        assert_eq!(line("delivered"), Line { state: "delivered", people: 2, attempts: 3, shown: 2 });
        assert_eq!(line("cancelled").people, 2, "people and sends");
    }

    #[test]
    fn why_people_got_nothing_is_counted_the_commonest_first() {
        let because = |group: Group, code: Option<&str>, reason: Option<&str>| Group {
            code: code.map(Into::into),
            reason: reason.map(Into::into),
            ..group
        };
        let failed = |people| group("released", Some(SendState::Failed), people);
        let groups = [
            because(group("skipped", None, 3), None, Some("no_name")),
            because(Group { unattempted: 1, ..failed(2) }, Some("470"), None),
            because(Group { unattempted: 1, ..failed(4) }, Some("131026"), Some("Not there")),
            group("waiting", None, 1),
        ];
        let ledger = compare(Some(10), [3, 1, 0, 0, 0, 0, 0, 0, 6, 0], &groups);
        let cause = |state, code: Option<&str>, reason: Option<&str>, people| Cause {
            state,
            code: code.map(Into::into),
            reason: reason.map(Into::into),
            people,
        };
        assert_eq!(
            ledger.causes,
            [
                cause("failed", Some("131026"), Some("Not there"), 4),
                cause("failed", Some("470"), None, 2),
                cause("skipped", None, Some("no_name"), 3),
            ]
        );
        assert_eq!(ledger.disagreements, ["2 people are failed and have no attempt"], "whatever their code");
    }

    #[test]
    fn each_of_the_five_accounts_is_held_against_the_others() {
        let changed = |change: fn(&mut [Group])| {
            let mut groups = groups();
            change(&mut groups);
            groups
        };
        let mut shown = SHOWN;
        shown[6] = 1;
        for (frozen, shown, groups, expected) in [
            (Some(11), SHOWN, groups(), "11 people were frozen, and 10 are there"),
            (None, shown, groups(), "2 people are delivered, and 1 are shown"),
            (
                Some(10),
                SHOWN,
                changed(|g| g[6].elsewhere = 1),
                "1 people are delivered and have a send that names another campaign",
            ),
            (Some(10), SHOWN, changed(|g| g[6].unattempted = 2), "2 people are delivered and have no attempt"),
            (
                Some(10),
                SHOWN,
                changed(|g| g[6].taken_twice = 1),
                "1 people are delivered and were taken by the provider twice, and are not shown as possibly doubled",
            ),
            (
                Some(10),
                SHOWN,
                changed(|g| g[5].taken_unasked = 1),
                "1 people are cancelled and were taken by the provider all the same",
            ),
        ] {
            assert_eq!(compare(frozen, shown, &groups).disagreements, [expected]);
        }
        let lost = changed(|g| g[6].send_state = None);
        assert_eq!(
            compare(Some(10), SHOWN, &lost).disagreements,
            ["2 people are released and have no send", "0 people are delivered, and 2 are shown"]
        );
    }
}
