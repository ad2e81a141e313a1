//! Bulk import: Mijra, from the bytes of a file to contacts with their aliases, beside a plain COPY of the finished rows into the
//! same tables with the same indexes and keys, in pairs. Without HTTP: what is measured is reading, checking and storing.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use shared::db::audit::Actor;
use shared::db::{Databases, Placement};
use shared::domain::ids::ContactId;
use shared::import::{self, Format, Target};
use support::database::Role;

use super::installation::Installation;
use crate::measure::accounts::Accounts;
use crate::measure::figures::{Measurement, Unit};
use crate::measure::progress::Progress;
use crate::measure::report::{self, Output};
use crate::measure::runs;
use crate::services::Services;

/// Bulk import, against COPY, in pairs.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    services: Services,
    /// People to import
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// How many pairs
    #[arg(long, default_value_t = 3)]
    pairs: u32,
    #[command(flatten)]
    output: Output,
}

/// About what a connection hands over at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// What is sent of a COPY at a time.
const COPY_BYTES: usize = 1024 * 1024;
const PHASES: u64 = 4;

/// `load import`
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let progress = Progress::new(u64::from(arguments.pairs) * PHASES);
    let run_copy = async || copy(&arguments, &progress).await;
    let run_mijra = async || mijra(&arguments, &progress).await;
    let pairs = runs::interleave(("COPY", "Mijra"), arguments.pairs, &progress, run_copy, run_mijra).await?;
    drop(progress);
    report::pairs(arguments.output, &pairs)
}

/// Numbers in no order, as files have them.
fn phone(row: u64) -> String {
    format!("+49151{:08}", row * 7_654_321 % 100_000_000)
}

async fn copy(arguments: &Arguments, progress: &Progress) -> Result<Measurement> {
    progress.phase("making the rows");
    let mut installation = Installation::create(&arguments.services, 0).await?;
    let (mut contacts, mut aliases) = (String::new(), String::new());
    let tenant_id = installation.tenant_id;
    for row in 0..arguments.rows {
        let (id, phone) = (ContactId::new(), phone(row));
        writeln!(contacts, "{tenant_id}\t{id}\tPerson {row}\t{phone}\t{phone}")?;
        writeln!(aliases, "{tenant_id}\tphone\t{phone}\t{id}")?;
    }
    installation.database.checkpoint().await?;

    progress.phase("COPY");
    let accounts = Accounts::open(vec![arguments.services.postgres()?]);
    let from = accounts.snapshot()?;
    let began = Instant::now();
    let conn = installation.database.connection();
    sqlx::query("BEGIN").execute(&mut *conn).await?;
    for (statement, rows) in [
        ("COPY contacts (tenant_id, id, name, phone, phone_raw) FROM STDIN", &contacts),
        ("COPY contact_aliases (tenant_id, kind, value, contact_id) FROM STDIN", &aliases),
    ] {
        let mut copying = conn.copy_in_raw(statement).await?;
        for piece in rows.as_bytes().chunks(COPY_BYTES) {
            copying.send(piece).await?;
        }
        copying.finish().await.context(statement)?;
    }
    sqlx::query("COMMIT").execute(&mut *conn).await?;
    measured(arguments, installation, &accounts, &from, began).await
}

async fn mijra(arguments: &Arguments, progress: &Progress) -> Result<Measurement> {
    progress.phase("making the file");
    let mut installation = Installation::create(&arguments.services, 0).await?;
    let file = file(arguments.rows)?;
    installation.database.checkpoint().await?;

    progress.phase("importing");
    let accounts = Accounts::open(vec![arguments.services.postgres()?]);
    let from = accounts.snapshot()?;
    let began = Instant::now();
    people(&installation, arguments.rows, file).await?;
    measured(arguments, installation, &accounts, &from, began).await
}

/// A file of so many people with a name and a number.
pub(super) fn file(rows: u64) -> Result<String> {
    let mut file = "phone,name\n".to_owned();
    for row in 0..rows {
        writeln!(file, "{},Person {row}", phone(row))?;
    }
    Ok(file)
}

/// Imports a file of so many people.
pub(super) async fn people(installation: &Installation, rows: u64, file: String) -> Result<()> {
    let databases = Databases::new(&shared::db::Settings {
        control: installation.url(Role::Api)?.into(),
        placements: Default::default(),
        max_connections: 2,
        application_name: "load import".into(),
    })?;
    let placement = Placement::primary();
    let target = Target {
        databases: &databases,
        placement: &placement,
        tenant_id: installation.tenant_id,
        actor: Actor::Operator,
    };
    let imported = import::contacts(target, Format::Csv, &mut File(file.into()), |_| {}).await;
    databases.close().await;
    let report = imported.map_err(|stopped| anyhow::anyhow!("the import ended early: {:?}", stopped.why))?;
    anyhow::ensure!(report.created == rows, "{report:?}");
    Ok(())
}

async fn measured(
    arguments: &Arguments,
    mut installation: Installation,
    accounts: &Accounts,
    from: &crate::measure::accounts::Snapshot,
    began: Instant,
) -> Result<Measurement> {
    let elapsed = began.elapsed();
    let usage = accounts.usage(from, &accounts.snapshot()?);
    let stored =
        installation.database.count("SELECT count(*) FROM contacts JOIN contact_aliases ON contact_id = id").await?;
    installation.stop().await?;
    let mut measurement = Measurement::default();
    measurement.add("stored", Unit::PerSecond, stored as f64 / elapsed.as_secs_f64());
    measurement.add("in all", Unit::Seconds, elapsed.as_secs_f64());
    measurement.add_usage(&usage, stored, &[]);
    if stored != arguments.rows {
        measurement.void.push(format!("{stored} of {} are stored", arguments.rows));
    }
    Ok(measurement)
}

/// A file that is in memory.
struct File(Bytes);

impl import::Pieces for File {
    type Broken = std::convert::Infallible;

    async fn next(&mut self) -> Result<Option<Bytes>, Self::Broken> {
        let piece = self.0.split_to(PIECE_BYTES.min(self.0.len()));
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }
}
