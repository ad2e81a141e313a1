//! `load media-out`: files of all sizes sent by every way, from our storage through running programs to the stand-ins of the providers.
//! Shows that each came as it was uploaded, how often each was handed over (once while its id lives, where the provider gives ids),
//! that one whose id is over is handed over anew, and how much memory the workers took for it.

use anyhow::{Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::domain::ids::MessageId;
use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    process::ExitCode,
    time::Duration,
};
use support::{
    channels::{self, Party, Stage, Way, file_of},
    fleet::Fleet,
    media::peak_memory,
    programs::Program,
    sandbox::{Behaviour, How, behaviour::UnknownMedia},
};
use tokio::time::Instant;

use crate::measure::machine;

const MIB: u64 = 1 << 20;
/// Whom files are sent to, by each way.
const PEOPLE: usize = 10;
/// What was accepted is with the provider within this time.
const ARRIVES_WITHIN: Duration = Duration::from_secs(300);
/// What is fetched after the answer has come within this time.
const FETCHED_WITHIN: Duration = Duration::from_secs(60);

/// How many, and how large.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Command {
    /// Files by each way, of four kinds, each kind from 1 KiB to the largest that the way takes, on a scale of powers
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(8..=2_000))]
    files: u64,
    /// No file is larger than this, in MiB
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100))]
    largest_mib: u64,
    /// Outbound workers
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Each of them may take so much memory, in MiB
    #[arg(long, default_value_t = 150)]
    memory_mib: u64,
}

/// A kind of file that a way carries, and the largest of it (the providers' own limits).
struct Kind {
    name: &'static str,
    content_type: &'static str,
    largest: u64,
}

fn kinds(way: Way) -> [Kind; 4] {
    let largest = match way {
        Way::Whatsapp => [5 * MIB, 16 * MIB, 16 * MIB, 100 * MIB],
        Way::Messenger | Way::Instagram => [8 * MIB, 25 * MIB, 25 * MIB, 25 * MIB],
        Way::Sms => [5 * MIB, 500 * 1024, 500 * 1024, 500 * 1024],
        Way::TwilioWhatsapp | Way::Gateway => [5 * MIB, 16 * MIB, 16 * MIB, 16 * MIB],
    };
    let kind = |name, content_type, largest| Kind { name, content_type, largest };
    [
        kind("image", "image/png", largest[0]),
        kind("video", "video/mp4", largest[1]),
        kind("audio", "audio/mp4", largest[2]),
        kind("document", "application/pdf", largest[3]),
    ]
}

/// A file that lies in our storage, and what is said with it.
struct Sent {
    sha256: [u8; 32],
    bytes: u64,
    said: Value,
}

/// How files came in one round, by how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Came {
    uploads: usize,
    fetches: usize,
}

/// What there is to say of one way.
struct Row {
    way: Way,
    files: usize,
    bytes: u64,
    sends: usize,
    rounds: Vec<Came>,
    refused: u64,
    took: Duration,
    wrong: Vec<String>,
}

/// Runs it and says what came of it; fails if a file did not come as it was uploaded, came more often than it had to, or a worker took
/// too much memory.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    ensure!((1..=8).contains(&command.workers), "1 to 8 workers");
    let refuse = |behaviour: &mut Behaviour| behaviour.unknown_media = UnknownMedia::Refuse;
    let fleet = channels::fleet().env("RUST_LOG", "warn").behaviour(refuse).count(Program::Outbound, command.workers);
    let fleet = fleet.start().await;
    let stage = Stage::carrying(&fleet, &["image", "video", "audio", "document"]).await;
    let outbound: Vec<u32> = fleet
        .processes()
        .iter()
        .filter(|process| process.program() == Program::Outbound)
        .filter_map(|process| process.pid())
        .collect();
    let idle = outbound.iter().map(|pid| peak_memory(*pid)).max().unwrap_or_default();
    let mut rows = Vec::new();
    for way in Way::ALL {
        let row = by(&fleet, &stage, way, &command).await;
        writeln!(std::io::stderr(), "{way:?}: {} sends in {:.1} s", row.sends, row.took.as_secs_f64())?;
        rows.push(row);
    }
    let peak = outbound.iter().map(|pid| peak_memory(*pid)).max().unwrap_or_default();
    let restarts: usize = fleet.processes().iter().map(|process| process.exits().len()).sum();

    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "by",
        "files",
        "MiB",
        "sends",
        "as uploaded",
        "handed over at first",
        "again",
        "ids over",
        "refused for it",
        "s",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in &rows {
        let came = |round: usize| row.rounds.get(round).map(|came| came.to_string()).unwrap_or_default();
        table.add_row([
            format!("{:?}", row.way),
            row.files.to_string(),
            (row.bytes / MIB).to_string(),
            row.sends.to_string(),
            row.sends.saturating_sub(row.wrong.len()).to_string(),
            came(0),
            came(1),
            came(2),
            row.refused.to_string(),
            format!("{:.1}", row.took.as_secs_f64()),
        ]);
    }
    let mut out = std::io::stdout();
    writeln!(out, "{table}\nMeasured on {}", machine::describe())?;
    writeln!(
        out,
        "peak memory of mijra-outbound: {} MiB (idle: {} MiB; bar: {} MiB), the largest file: {} MiB",
        peak / MIB,
        idle / MIB,
        command.memory_mib,
        command.largest_mib.min(100)
    )?;
    for wrong in rows.iter().flat_map(|row| &row.wrong) {
        writeln!(out, "WRONG  {wrong}")?;
    }
    let fine = rows.iter().all(|row| row.wrong.is_empty()) && restarts == 0 && peak < command.memory_mib * MIB;
    writeln!(out, "{}", if fine { "passed" } else { "FAILED" })?;
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All files by one way: each to somebody (where they are uploaded, to two at once), then to somebody else, and to a third once the
/// provider does not know its id any more.
async fn by(fleet: &Fleet, stage: &Stage, way: Way, command: &Command) -> Row {
    let mut parties = Vec::new();
    for nth in 0..PEOPLE {
        parties.push(stage.meet(fleet, way, 500 + nth as u32).await);
    }
    let mut files = Vec::new();
    for nth in 0..command.files {
        files.push(make(fleet, way, nth, command).await);
    }
    let began = Instant::now();
    let mut row = Row {
        way,
        files: files.len(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        sends: 0,
        rounds: Vec::new(),
        refused: 0,
        took: Duration::ZERO,
        wrong: Vec::new(),
    };
    let at_once = if way == Way::Whatsapp { 2 } else { 1 };
    let mut first_person = 0;
    for (round, at_once) in [at_once, 1, 1].into_iter().enumerate() {
        if round == 2 {
            fleet.sandbox.forget_files();
            // An id that is new is not what a refusal is about.
            let not_new = "UPDATE provider_files SET expires_at = expires_at - interval '15 minutes'";
            sqlx::query(not_new).execute(&mut fleet.database.admin().await).await.expect("the database answers");
        }
        let before = fleet.sandbox.handed().len();
        let mut sent = Vec::new();
        for (nth, file) in files.iter().enumerate() {
            for person in 0..at_once {
                let party = &parties[(nth + first_person + person) % PEOPLE];
                sent.push((send(fleet, stage, party, &file.said).await, file));
            }
        }
        first_person += at_once;
        row.sends += sent.len();
        row.wrong.extend(arrived(fleet, way, &sent).await);
        let expected = expected(way, round, files.len(), sent.len());
        let came = came(fleet, before, expected).await;
        if came != expected {
            row.wrong.push(format!("{way:?}, round {}: handed over {came}, and not {expected}", round + 1));
        }
        row.rounds.push(came);
    }
    row.refused = refused(fleet, way);
    row.took = began.elapsed();
    row
}

/// How files came after the first so many. Some providers fetch them after they have answered: it is waited for that.
async fn came(fleet: &Fleet, before: usize, expected: Came) -> Came {
    let deadline = Instant::now() + FETCHED_WITHIN;
    loop {
        let handed = fleet.sandbox.handed();
        let count = |how: How| handed.iter().skip(before).filter(|file| file.how == how).count();
        let came = Came { uploads: count(How::Uploaded), fetches: count(How::Fetched) };
        if came.uploads + came.fetches >= expected.uploads + expected.fetches || Instant::now() > deadline {
            return came;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A file is uploaded, or fetched, once while its id lives; where there are no ids it is fetched for every message.
fn expected(way: Way, round: usize, files: usize, sends: usize) -> Came {
    let anew = if round == 1 { 0 } else { files };
    match way {
        Way::Whatsapp => Came { uploads: anew, fetches: 0 },
        Way::Messenger => Came { uploads: 0, fetches: anew },
        Way::Instagram | Way::Sms | Way::TwilioWhatsapp | Way::Gateway => Came { uploads: 0, fetches: sends },
    }
}

/// The nth file, uploaded to be sent.
async fn make(fleet: &Fleet, way: Way, nth: u64, command: &Command) -> Sent {
    let kinds = kinds(way);
    let of_kind = command.files.div_ceil(kinds.len() as u64).max(2);
    let Kind { name, content_type, largest } = &kinds[(nth % kinds.len() as u64) as usize];
    let largest = (*largest).min(command.largest_mib * MIB) as f64;
    let share = (nth / kinds.len() as u64) as f64 / (of_kind - 1) as f64;
    let size = (1024.0 * (largest / 1024.0).powf(share)).round() as usize;
    let mut bytes = file_of(content_type);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ ((way as u64) << 32) ^ (nth + 1);
    while bytes.len() < size {
        // Xorshift: no two files are alike, and none is made of a pattern.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    let (sha256, length) = (Sha256::digest(&bytes).into(), bytes.len() as u64);
    let id = fleet.upload_bytes(content_type, bytes).await;
    Sent { sha256, bytes: length, said: json!({"type": name, "file": {"id": id}}) }
}

async fn send(fleet: &Fleet, stage: &Stage, party: &Party, said: &Value) -> MessageId {
    stage.accepted(fleet, party, said).await
}

/// Waits until all of these are with the provider, and looks whether each came with its file as it was uploaded.
async fn arrived(fleet: &Fleet, way: Way, sent: &[(MessageId, &Sent)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ids: Vec<(MessageId, String, [u8; 32])> = Vec::new();
    let deadline = Instant::now() + ARRIVES_WITHIN;
    for (id, file) in sent {
        let message = loop {
            let message = fleet.message(*id).await;
            let state = message["send"]["state"].as_str().unwrap_or_default();
            let is_over = matches!(state, "sent" | "delivered" | "read" | "failed" | "held");
            if is_over || Instant::now() > deadline {
                break message;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        match (message["send"]["state"].as_str(), message["provider_message_id"].as_str()) {
            (Some("sent" | "delivered" | "read"), Some(theirs)) => ids.push((*id, theirs.to_owned(), file.sha256)),
            _ => wrong.push(format!("{way:?}: {id} is {}", message["send"])),
        }
    }
    // What is fetched after the answer is on its way.
    let deadline = Instant::now() + FETCHED_WITHIN;
    loop {
        let named: HashMap<Box<str>, Box<str>> = fleet.sandbox.named().into_iter().collect();
        let digests: BTreeMap<Box<str>, [u8; 32]> =
            fleet.sandbox.handed().into_iter().map(|file| (file.name, file.sha256)).collect();
        let of = |theirs: &str| named.get(theirs).and_then(|name| digests.get(name));
        if ids.iter().all(|(_, theirs, _)| of(theirs).is_some()) || Instant::now() > deadline {
            let differs = ids.iter().filter(|(_, theirs, sha256)| of(theirs) != Some(sha256));
            wrong.extend(
                differs.map(|(id, theirs, _)| format!("{way:?}: {id} ({theirs}) came with another file, or none")),
            );
            return wrong;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Messages that were refused for a file whose id was over.
fn refused(fleet: &Fleet, way: Way) -> u64 {
    let summary = fleet.sandbox.ledger().summary();
    let of_provider = summary.providers.get(&way.api());
    let codes = ["131009", "100/2018074"];
    of_provider.map_or(0, |of| codes.iter().filter_map(|code| of.refused.get(*code)).copied().sum())
}

impl std::fmt::Display for Came {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.uploads, self.fetches) {
            (0, 0) => write!(f, "0"),
            (uploads, 0) => write!(f, "{uploads} uploads"),
            (0, fetches) => write!(f, "{fetches} fetched"),
            (uploads, fetches) => write!(f, "{uploads} uploads, {fetches} fetched"),
        }
    }
}
