//! Closing the books: what Postgres says against what the provider's stand-in saw, message by message and person by person.
//! Waits, within a bound, until nothing moves any more; then compares and says what does not agree.

mod campaigns;

use crate::{
    campaigns::Started,
    fleet::{Accepted, Fleet},
    lateness::attempt_of,
    sandbox::ledger::SendEntry,
};
use campaigns::Frozen;
use comfy_table::{Table, presets};
use shared::domain::{ids::MessageId, sends::SendState};
use sqlx::{PgConnection, Row};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// The closed books.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// How long it took until nothing moved any more; `None` if something still did at the end of the time given.
    pub quiet_after: Option<Duration>,
    /// Messages of people that the receiver acknowledged.
    pub told: usize,
    /// Messages of people that are stored.
    pub stored: usize,
    /// Messages that the API accepted for sending.
    pub accepted: usize,
    /// Campaigns that the API accepted.
    pub campaigns: usize,
    /// Their people: one of two campaigns is two.
    pub people: usize,
    /// Of these, skipped because they cannot be written to.
    pub skipped: usize,
    /// Of these, not written to because their campaign was cancelled.
    pub cancelled: usize,
    /// Sends by state.
    pub states: BTreeMap<SendState, usize>,
    /// Messages of people acknowledged and not stored, messages accepted and not there or without an end, people of campaigns
    /// that are not frozen or have no end.
    pub lost: usize,
    /// Messages of people stored more than once, requests of one agent that became two messages.
    pub stored_twice: usize,
    /// Messages that the provider took more than once.
    pub taken_twice: usize,
    /// Of these, sent again because the account says so, and shown as possibly doubled.
    pub taken_twice_and_shown: usize,
    /// Shown as possibly doubled: sent again because the account says so.
    pub possibly_doubled: usize,
    /// Held for a person.
    pub held: usize,
    /// Held ones that the provider has in truth.
    pub held_but_taken: usize,
    /// Were unknown for a while.
    pub were_unknown: usize,
    /// Of these, settled by what the provider reported.
    pub settled_by_evidence: usize,
    /// Messages that the provider first took after a later one of their conversation.
    pub out_of_order: usize,
    /// The same, where the later one had waited for as long as it must: they had been unknown, or may have been taken before.
    pub out_of_order_allowed: usize,
    /// Dead letters.
    pub dead: usize,
    /// Everything that does not agree, in words.
    pub wrong: Vec<String>,
}

/// How many of a kind of disagreement are put into words.
const SAID: usize = 5;

/// One send as Postgres has it.
struct Send {
    conversation: Uuid,
    seq: i64,
    state: SendState,
    attempts: i64,
    attempts_written: i64,
    turn_released: bool,
    possibly_doubled: bool,
    provider_message_id: Option<String>,
    was_unknown: bool,
    recipient: String,
    code: Option<String>,
    of_campaign: bool,
}

/// Waits until all is quiet, or the time is over, and closes the books. `accepted` is what the API accepted, once a message.
///
/// # Panics
/// If a server does not answer.
pub async fn close(fleet: &Fleet, accepted: &[Accepted], within: Duration) -> Books {
    close_with_campaigns(fleet, accepted, &[], within).await
}

/// The same, where campaigns ran, too. Each is waited for until it is completed.
///
/// # Panics
/// If a server does not answer.
pub async fn close_with_campaigns(
    fleet: &Fleet,
    accepted: &[Accepted],
    campaigns: &[Started],
    within: Duration,
) -> Books {
    let mut admin = fleet.database.admin().await;
    let started = Instant::now();
    let quiet = wait_until_quiet(fleet, &mut admin, accepted, within).await;
    let mut books = Books { quiet_after: quiet.then(|| started.elapsed()), ..Books::default() };
    if !quiet {
        books.wrong.push(format!("something still moved after {} s", within.as_secs()));
    }
    books.people_who_wrote(fleet, &mut admin).await;
    let sends = sends(&mut admin).await;
    let requests = fleet.sandbox.ledger().sends_from(1, usize::MAX);
    let frozen = campaigns::frozen(&mut admin).await;
    books.accepted_by_us(accepted, &frozen, &sends);
    books.campaigns(fleet, campaigns, &frozen, &sends, &requests).await;
    books.taken_by_provider(&sends, &requests);
    books.attempts(&mut admin, &sends, &requests).await;
    books.order(&sends, &requests);
    books.counters(&mut admin).await;
    let dead = fleet.dead_letters().await;
    books.dead = dead.values().map(|count| *count as usize).sum();
    if books.dead > 0 {
        books.wrong.push(format!("dead letters: {dead:?}"));
    }
    books
}

/// True as soon as nothing is on its way: no webhook, no send without an end, nothing to be swept but timers of what is settled.
async fn wait_until_quiet(fleet: &Fleet, admin: &mut PgConnection, accepted: &[Accepted], within: Duration) -> bool {
    let deadline = Instant::now() + within;
    loop {
        let told = fleet.sandbox.settle(Duration::ZERO).await;
        if told && is_quiet(fleet, admin, accepted).await && fleet.sandbox.settle(Duration::ZERO).await {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn is_quiet(fleet: &Fleet, admin: &mut PgConnection, accepted: &[Accepted]) -> bool {
    let moving: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM sends WHERE state IN ('waiting', 'queued', 'sending', 'unknown'))
            + (SELECT count(*) FROM outbox
                -- Files go their own way: one whose worker died is somebody's again after five minutes.
                WHERE queue <> 'media' AND job ->> 'kind' NOT IN ('outbound.release_turn', 'outbound.settle')
                    AND publish_after < now() + interval '5 minutes')
            + (SELECT count(*) FROM campaigns WHERE state = 'running')
            + (SELECT count(*) FROM control.outbox WHERE queue <> 'media')
            + (SELECT count(*) FROM control.spill)",
    )
    .fetch_one(&mut *admin)
    .await
    .expect("the database answers");
    if moving > 0 {
        return false;
    }
    let told = fleet.sandbox.ledger().told().iter().filter(|told| !told.garbled).count() as i64;
    let (stored, sends): (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM messages WHERE direction = 'in'), (SELECT count(*) FROM sends)")
            .fetch_one(&mut *admin)
            .await
            .expect("the database answers");
    stored >= told && sends >= accepted.len() as i64 && statuses_are_in(fleet, admin).await
}

/// Whether the furthest status that the receiver took of each message is written down.
async fn statuses_are_in(fleet: &Fleet, admin: &mut PgConnection) -> bool {
    behind(&sends(admin).await, &fleet.sandbox.ledger().accepted()).is_empty()
}

/// Messages whose state is behind what the provider reported and we acknowledged.
fn behind(sends: &HashMap<MessageId, Send>, taken: &[SendEntry]) -> Vec<String> {
    use crate::sandbox::behaviour::Status;
    let reported = [
        (Status::Sent, SendState::Sent),
        (Status::Failed, SendState::Failed),
        (Status::Delivered, SendState::Delivered),
        (Status::Read, SendState::Read),
    ];
    let mut behind = Vec::new();
    for entry in taken {
        let Some(send) = message_of(entry).and_then(|id| sends.get(&id)) else { continue };
        for (status, state) in reported {
            if entry.statuses.was_taken(status) && send.state.after_report(state) != send.state {
                behind.push(format!("{} is {} and was reported {state}", entry.recipient, send.state));
            }
        }
    }
    behind
}

/// The message that a request's token names.
fn message_of(entry: &SendEntry) -> Option<MessageId> {
    entry.message()?.parse().ok()
}

async fn sends(admin: &mut PgConnection) -> HashMap<MessageId, Send> {
    let rows = sqlx::query(
        "SELECT s.message_id, s.conversation_id, s.seq, s.state, s.attempts::bigint AS attempts,
            (SELECT count(*) FROM send_attempts a WHERE a.tenant_id = s.tenant_id AND a.message_id = s.message_id AND a.outcome <> 'given_back') AS written,
            s.turn_released, s.possibly_doubled, s.provider_message_id, s.unknown_at IS NOT NULL AS was_unknown, s.recipient, s.code,
            s.campaign_id IS NOT NULL AS of_campaign
        FROM sends s",
    )
    .fetch_all(admin)
    .await
    .expect("the database answers");
    let send = |row: &sqlx::postgres::PgRow| Send {
        conversation: row.get("conversation_id"),
        seq: row.get("seq"),
        state: SendState::from_name(row.get("state")).expect("the table checks it"),
        attempts: row.get("attempts"),
        attempts_written: row.get("written"),
        turn_released: row.get("turn_released"),
        possibly_doubled: row.get("possibly_doubled"),
        provider_message_id: row.get("provider_message_id"),
        was_unknown: row.get("was_unknown"),
        recipient: row.get("recipient"),
        code: row.get("code"),
        of_campaign: row.get("of_campaign"),
    };
    rows.iter().map(|row| (MessageId(row.get("message_id")), send(row))).collect()
}

impl Books {
    /// Nothing lost, nothing doubled, and everything agrees.
    pub fn agree(&self) -> bool {
        self.wrong.is_empty() && self.lost == 0 && self.doubled() == 0
    }

    /// All that was done twice and should not have been.
    pub fn doubled(&self) -> usize {
        self.stored_twice + self.taken_twice - self.taken_twice_and_shown
    }

    /// How many sends are in this state.
    pub fn in_state(&self, state: SendState) -> usize {
        self.states.get(&state).copied().unwrap_or(0)
    }

    /// # Panics
    /// If the books do not agree: with all of them.
    pub fn assert_agree(&self) {
        assert!(self.agree(), "the books do not agree\n{self}");
    }

    fn say(&mut self, what: &str, cases: &[String]) {
        if !cases.is_empty() {
            let said: Vec<&str> = cases.iter().take(SAID).map(String::as_str).collect();
            let more = if cases.len() > SAID { " …" } else { "" };
            self.wrong.push(format!("{what} ({}): {}{more}", cases.len(), said.join("; ")));
        }
    }

    /// Every message that the receiver has acknowledged is stored once, with the person who wrote it.
    async fn people_who_wrote(&mut self, fleet: &Fleet, admin: &mut PgConnection) {
        let rows = sqlx::query(
            "SELECT m.provider_message_id, count(DISTINCT m.id), array_agg(DISTINCT a.value) FILTER (WHERE a.value IS NOT NULL)
            FROM messages m
            JOIN conversations v ON v.tenant_id = m.tenant_id AND v.id = m.conversation_id
            LEFT JOIN contact_aliases a ON a.tenant_id = v.tenant_id AND a.contact_id = v.contact_id
            WHERE m.direction = 'in'
            GROUP BY m.provider_message_id",
        )
        .fetch_all(admin)
        .await
        .expect("the database answers");
        let stored: HashMap<String, (i64, Vec<String>)> = rows
            .iter()
            .map(|row| {
                let id: Option<String> = row.get(0);
                (id.unwrap_or_default(), (row.get(1), row.get::<Option<Vec<String>>, _>(2).unwrap_or_default()))
            })
            .collect();
        let told = fleet.sandbox.ledger().told();
        self.told = told.len();
        self.stored = stored.values().map(|(count, _)| *count as usize).sum();
        let twice: Vec<String> =
            stored.iter().filter(|(_, (n, _))| *n > 1).map(|(id, (n, _))| format!("{id} {n} times")).collect();
        self.stored_twice += twice.len();
        let mut lost = Vec::new();
        let mut strangers = Vec::new();
        for told in told.iter().filter(|told| !told.garbled) {
            match stored.get(&*told.id) {
                None => lost.push(format!("{} of {}", told.id, told.person)),
                Some((_, people)) if !people.iter().any(|alias| **alias == *told.person) => {
                    strangers.push(format!("{} of {} is with {people:?}", told.id, told.person));
                }
                Some(_) => {}
            }
        }
        self.lost += lost.len();
        self.say("messages of people that are not stored", &lost);
        self.say("messages of people stored more than once", &twice);
        self.say("messages with the wrong person", &strangers);
    }

    /// Every message that the API accepted, or that is for somebody of a campaign, is there once and has come to an end.
    fn accepted_by_us(&mut self, accepted: &[Accepted], frozen: &Frozen, sends: &HashMap<MessageId, Send>) {
        for send in sends.values() {
            *self.states.entry(send.state).or_default() += 1;
            self.were_unknown += usize::from(send.was_unknown);
            self.possibly_doubled += usize::from(send.possibly_doubled);
        }
        self.held = self.in_state(SendState::Held);
        let mut known: BTreeSet<MessageId> = accepted.iter().map(|accepted| accepted.message).collect();
        known.extend(frozen.messages());
        self.accepted = known.len();
        let missing: Vec<String> =
            known.iter().filter(|id| !sends.contains_key(id)).map(MessageId::to_string).collect();
        let strays: Vec<String> = sends.keys().filter(|id| !known.contains(id)).map(MessageId::to_string).collect();
        let open = |send: &&Send| {
            matches!(send.state, SendState::Waiting | SendState::Queued | SendState::Sending | SendState::Unknown)
        };
        let stuck: Vec<String> =
            sends.values().filter(open).map(|send| format!("to {} is {}", send.recipient, send.state)).collect();
        self.lost += missing.len() + stuck.len();
        self.stored_twice += strays.len();
        self.say("accepted messages that are not there", &missing);
        self.say("messages that nobody was told of: one request became two", &strays);
        self.say("messages without an end", &stuck);
    }

    /// What we call sent the provider has, once; what we call not sent it has not.
    fn taken_by_provider(&mut self, sends: &HashMap<MessageId, Send>, requests: &[SendEntry]) {
        let mut taken: HashMap<MessageId, Vec<&SendEntry>> = HashMap::new();
        let mut nameless = Vec::new();
        for entry in requests.iter().filter(|entry| entry.wamid().is_some()) {
            match message_of(entry).filter(|id| sends.contains_key(id)) {
                Some(id) => taken.entry(id).or_default().push(entry),
                None => nameless.push(format!("{:?} to {}", entry.opaque, entry.recipient)),
            }
        }
        let (mut twice, mut never, mut unasked, mut other_id) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (id, send) in sends {
            let entries = taken.get(id).map(Vec::as_slice).unwrap_or_default();
            if entries.len() > 1 {
                self.taken_twice += 1;
                if send.possibly_doubled {
                    self.taken_twice_and_shown += 1;
                } else {
                    twice.push(format!("{id} to {}", send.recipient));
                }
            }
            match send.state {
                SendState::Sent | SendState::Delivered | SendState::Read => {
                    if entries.is_empty() {
                        never.push(format!("{id} to {} is {}", send.recipient, send.state));
                    }
                    let known = send.provider_message_id.as_deref();
                    if !entries.is_empty() && !entries.iter().any(|entry| entry.wamid() == known) {
                        other_id.push(format!("{id}: {known:?}"));
                    }
                    self.settled_by_evidence += usize::from(send.was_unknown);
                }
                SendState::Failed => self.settled_by_evidence += usize::from(send.was_unknown),
                SendState::Held | SendState::Unknown => self.held_but_taken += usize::from(!entries.is_empty()),
                SendState::Waiting | SendState::Queued | SendState::Sending | SendState::Cancelled => {
                    if !entries.is_empty() {
                        unasked.push(format!("{id} to {} is {}", send.recipient, send.state));
                    }
                }
            }
        }
        let behind = behind(sends, &taken.into_values().flatten().cloned().collect::<Vec<_>>());
        self.say("messages that the provider took twice", &twice);
        self.say("messages that we call sent and the provider never took", &never);
        self.say("messages that the provider took and we do not call sent", &unasked);
        self.say("messages with another id than the provider's", &other_id);
        self.say("messages the provider took and nobody sent", &nameless);
        self.say("messages behind what was reported of them", &behind);
    }

    /// Every request to the provider is an attempt that is written down, and the counts of attempts agree.
    async fn attempts(&mut self, admin: &mut PgConnection, sends: &HashMap<MessageId, Send>, requests: &[SendEntry]) {
        let written: Vec<Uuid> =
            sqlx::query_scalar("SELECT id FROM send_attempts").fetch_all(admin).await.expect("the database answers");
        let written: BTreeSet<Uuid> = written.into_iter().collect();
        let unwritten: Vec<String> = requests
            .iter()
            .filter(|entry| entry.kind != "read_receipt")
            .filter(|entry| attempt_of(entry).is_none_or(|id| !written.contains(&id)))
            .map(|entry| format!("{:?} to {}", entry.opaque, entry.recipient))
            .collect();
        let differ: Vec<String> = sends
            .iter()
            .filter(|(_, send)| send.attempts != send.attempts_written + i64::from(send.state == SendState::Sending))
            .map(|(id, s)| {
                format!("{id} ({}) counts {} and has {} written down", s.state, s.attempts, s.attempts_written)
            })
            .collect();
        self.say("requests without an attempt", &unwritten);
        self.say("counts of attempts that differ", &differ);
    }

    /// The provider got each conversation's messages in the order in which we accepted them. One that was unknown for so long
    /// that it lost its turn may come later. Campaigns' messages have no turn: nobody waits for them.
    fn order(&mut self, sends: &HashMap<MessageId, Send>, requests: &[SendEntry]) {
        let mut last: HashMap<Uuid, i64> = HashMap::new();
        let mut seen: BTreeSet<MessageId> = BTreeSet::new();
        let mut wrong = Vec::new();
        for entry in requests.iter().filter(|entry| entry.wamid().is_some()) {
            let Some((id, send)) = message_of(entry).and_then(|id| Some((id, sends.get(&id)?))) else { continue };
            // What is taken again is doubled, which is looked at elsewhere.
            if send.of_campaign || !seen.insert(id) {
                continue;
            }
            let before = last.entry(send.conversation).or_insert(0);
            if send.seq < *before {
                if send.turn_released || send.possibly_doubled {
                    self.out_of_order_allowed += 1;
                } else {
                    wrong.push(format!("{id}, number {} of its conversation, after number {before}", send.seq));
                }
            }
            *before = (*before).max(send.seq);
        }
        self.out_of_order = wrong.len();
        self.say("messages out of order", &wrong);
    }

    /// What conversations count is what there is.
    async fn counters(&mut self, admin: &mut PgConnection) {
        let rows = sqlx::query(
            "SELECT v.id, v.messages_in, v.messages_out, v.unread, c.come, c.gone, c.said
            FROM conversations v
            CROSS JOIN LATERAL (
                SELECT count(*) FILTER (WHERE direction = 'in')::int AS come, count(*) FILTER (WHERE direction = 'out')::int AS gone,
                    count(*) FILTER (WHERE direction = 'in' AND kind NOT IN ('reaction', 'system', 'edit', 'revoke'))::int AS said
                FROM messages m
                WHERE m.tenant_id = v.tenant_id AND m.conversation_id = v.id
            ) AS c
            WHERE (v.messages_in, v.messages_out, v.unread) <> (c.come, c.gone, c.said)",
        )
        .fetch_all(admin)
        .await
        .expect("the database answers");
        let counts = |row: &sqlx::postgres::PgRow, from: usize| [0, 1, 2].map(|at| row.get::<i32, _>(from + at));
        let differ: Vec<String> = rows
            .iter()
            .map(|row| format!("{} counts {:?} and has {:?}", row.get::<Uuid, _>(0), counts(row, 1), counts(row, 4)))
            .collect();
        self.say("counters (in, out, unread) that differ", &differ);
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["", "Postgres", "provider"]);
        table.add_row(["messages of people".to_owned(), self.stored.to_string(), self.told.to_string()]);
        table.add_row([
            "messages accepted".to_owned(),
            self.states.values().sum::<usize>().to_string(),
            self.accepted.to_string(),
        ]);
        let people = format!("{} ({} skipped)", self.people, self.skipped);
        table.add_row([format!("people of {} campaigns", self.campaigns), people, String::new()]);
        for (state, count) in &self.states {
            table.add_row([format!("  {state}"), count.to_string(), String::new()]);
        }
        let counts = [
            ("lost", self.lost),
            ("stored twice", self.stored_twice),
            ("taken twice by the provider", self.taken_twice),
            ("  of these shown as possibly doubled", self.taken_twice_and_shown),
            ("shown as possibly doubled", self.possibly_doubled),
            ("held though the provider has it", self.held_but_taken),
            ("unknown for a while", self.were_unknown),
            ("  of these settled by evidence", self.settled_by_evidence),
            ("out of order", self.out_of_order),
            ("out of order as it may be", self.out_of_order_allowed),
            ("dead letters", self.dead),
        ];
        for (name, count) in counts {
            table.add_row([name.to_owned(), count.to_string(), String::new()]);
        }
        writeln!(f, "{table}")?;
        match self.quiet_after {
            Some(after) => writeln!(f, "quiet after {:.1} s", after.as_secs_f64())?,
            None => writeln!(f, "never quiet")?,
        }
        for wrong in &self.wrong {
            writeln!(f, "! {wrong}")?;
        }
        Ok(())
    }
}
