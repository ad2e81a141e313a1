//! `mijra contacts`: people one by one (`people`), and many. `import` makes a file's people a tenant's contacts. It may be repeated, after any end.

mod people;

use super::{
    output::{Output, or_dash, table},
    settings::{self, Database},
};
use anyhow::Context;
use bytes::{Bytes, BytesMut};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use shared::{
    db::audit::Actor,
    domain::{consent::Consent, tenants::Slug},
    import::{self, Format, Report, Target, Unreadable, Why},
};
use std::{io, path::PathBuf, process::ExitCode, time::Duration};
use tokio::{fs::File, io::AsyncReadExt};

/// Read at once: some thousand rows.
const PIECE_BYTES: usize = 128 * 1024;
const TICK: Duration = Duration::from_millis(250);

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Make the people of a file contacts
    Import(Import),
    /// Show what a person does not want to be written to about, and wants again
    Suppressions(people::Who),
    /// Write down that a person does not want to be written to
    OptOut(people::Opt),
    /// Write down that a person wants to be written to again
    OptIn(people::Opt),
    /// Make two contacts one
    Merge(people::Merge),
    /// Erase a person: words, files, names and addresses
    Erase(people::Who),
}

#[derive(clap::Args, Debug)]
pub(super) struct Import {
    /// CSV with the columns phone and name, or a JSON object a line.
    file: PathBuf,
    /// Whose contacts they become.
    #[arg(long)]
    tenant: Slug,
    /// What the file is; by its ending (.csv, .ndjson, .jsonl) unless given.
    #[arg(long)]
    format: Option<FileFormat>,
    #[command(flatten)]
    database: Database,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FileFormat {
    Csv,
    Ndjson,
}

pub(super) async fn run(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Import(args) => import(args, out).await,
        Command::Suppressions(who) => people::suppressions(&who, out).await,
        Command::OptOut(args) => people::opt(&args, Consent::OptedOut, out).await,
        Command::OptIn(args) => people::opt(&args, Consent::OptedIn, out).await,
        Command::Merge(args) => people::merge(&args, out).await,
        Command::Erase(who) => people::erase(&who, out).await,
    }
}

async fn import(args: Import, out: &Output) -> anyhow::Result<ExitCode> {
    let format = format(&args)?;
    let file = File::open(&args.file).await.with_context(|| args.file.display().to_string())?;
    let bytes = file.metadata().await.with_context(|| args.file.display().to_string())?.len();
    let databases = args.database.open().await?;
    let tenant = settings::tenant(&databases, args.tenant.as_str()).await?;
    let bar = bar(bytes)?;
    let target =
        Target { databases: &databases, placement: &tenant.placement, tenant_id: tenant.id, actor: Actor::Operator };
    let mut pieces = Pieces { file, bar: bar.clone() };
    let show = |report: &Report| bar.set_message(progress(report, bar.elapsed()));
    let imported = import::contacts(target, format, &mut pieces, show).await;
    let elapsed = bar.elapsed();
    bar.finish_and_clear();
    databases.close().await;
    let (report, error) = match imported {
        Ok(report) => (report, None),
        Err(stopped) => {
            let advice = advice(&stopped.why);
            (stopped.report, Some(because(stopped.why).context(advice)))
        }
    };
    out.say(&report, &text(&report, elapsed))?;
    match error {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => Err(error),
    }
}

fn format(args: &Import) -> anyhow::Result<Format> {
    let ending = args.file.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    match (args.format, ending.as_str()) {
        (Some(FileFormat::Csv), _) | (None, "csv") => Ok(Format::Csv),
        (Some(FileFormat::Ndjson), _) | (None, "ndjson" | "jsonl") => Ok(Format::Ndjson),
        (None, _) => anyhow::bail!("{}: say what it is with --format csv or --format ndjson", args.file.display()),
    }
}

/// On a terminal; elsewhere it does not show.
fn bar(bytes: u64) -> anyhow::Result<ProgressBar> {
    let template = "[{elapsed_precise}] {bar:24} {bytes}/{total_bytes}, {eta} left: {wide_msg}";
    let bar = ProgressBar::new(bytes).with_style(ProgressStyle::with_template(template)?);
    bar.enable_steady_tick(TICK);
    Ok(bar)
}

fn progress(report: &Report, elapsed: Duration) -> String {
    format!("{} rows, {:.0} rows/s, {} rejected", report.rows, per_second(report, elapsed), report.rejected)
}

fn per_second(report: &Report, elapsed: Duration) -> f64 {
    report.rows as f64 / elapsed.as_secs_f64().max(1e-3)
}

/// What to do about an import that ended early.
fn advice<B>(why: &Why<B>) -> &'static str {
    match why {
        Why::Unreadable(Unreadable::Columns(_)) => {
            "nothing is stored: mend the header row (phone and, if there are names, name, with commas between them), then import \
             the file again"
        }
        Why::Unreadable(_) => {
            "the import ended early: mend the file, then import it again; who is stored is not stored a second time"
        }
        Why::Broken(_) | Why::Database(_) => "the import ended early, and can be repeated",
    }
}

fn because(why: Why<io::Error>) -> anyhow::Error {
    match why {
        Why::Unreadable(why) => why.into(),
        Why::Broken(error) => anyhow::Error::from(error).context("the file"),
        Why::Database(error) => error.into(),
    }
}

fn text(report: &Report, elapsed: Duration) -> String {
    let Report { rows, created, existing, duplicates, rejected, errors, errors_left_out } = report;
    let rate = per_second(report, elapsed);
    let mut text = format!(
        "{rows} rows in {:.1} s ({rate:.0} rows/s): {created} created, {existing} existing, {duplicates} duplicates, \
         {rejected} rejected",
        elapsed.as_secs_f64()
    );
    if !errors.is_empty() {
        let cells =
            errors.iter().map(|error| vec![error.row.to_string(), or_dash(error.field.as_ref()), error.detail.clone()]);
        text = format!("{text}\n\n{}", table(&["row", "field", "what is wrong"], cells));
    }
    if *errors_left_out > 0 {
        text = format!("{text}\nand {errors_left_out} more");
    }
    text
}

/// A file on its way.
struct Pieces {
    file: File,
    bar: ProgressBar,
}

impl import::Pieces for Pieces {
    type Broken = io::Error;

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        let bytes = self.file.read_buf(&mut piece).await?;
        self.bar.inc(bytes as u64);
        Ok(Some(piece.freeze()).filter(|piece| !piece.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::import::{ColumnProblem, RowError};

    #[test]
    fn what_must_be_mended_is_not_called_repeatable() {
        let column = ColumnProblem { column: "mail".into(), message: "is unknown".into() };
        let header = Why::<()>::Unreadable(Unreadable::Columns(vec![column]));
        assert!(advice(&header).starts_with("nothing is stored: mend the header row"));
        assert!(advice(&Why::<()>::Unreadable(Unreadable::NotUtf8 { row: 3 })).contains("mend the file"));
        assert!(advice(&Why::Broken(())).contains("can be repeated"));
    }

    #[test]
    fn the_report_says_what_became_of_the_rows_and_which_were_bad() {
        let errors = vec![RowError { row: 17, field: None, detail: "is longer than 16384 bytes".into() }];
        let report =
            Report { rows: 500, created: 398, rejected: 102, errors, errors_left_out: 101, ..Report::default() };
        let text = text(&report, Duration::from_secs(2));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "500 rows in 2.0 s (250 rows/s): 398 created, 0 existing, 0 duplicates, 102 rejected");
        assert!(lines[3].starts_with("17") && lines[3].ends_with("is longer than 16384 bytes"), "{text}");
        assert_eq!(lines[4], "and 101 more");
    }
}
