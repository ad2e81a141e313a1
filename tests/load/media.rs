//! `load media`: files of all sizes through hosts that fail, hand out links that are over, and lead elsewhere. Shows that each is
//! stored as it was sent, and how much memory the worker took for it.

use anyhow::{Result, ensure};
use comfy_table::{Table, presets};
use std::{collections::BTreeMap, io::Write, process::ExitCode, time::Duration};
use support::{
    media::{self, Stage, disagreements, peak_memory},
    programs::Program,
    sandbox::files::{Behaviour, Files},
};
use tokio::time::Instant;

const MIB: u64 = 1024 * 1024;

/// How many, and how bad their hosts are.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Command {
    /// Files, from 1 KiB to the largest on a scale of powers
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(4..=5000))]
    files: u16,
    /// The largest, in MiB
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100))]
    largest_mib: u64,
    /// Share of answers that fail or break off
    #[arg(long, default_value_t = 0.1)]
    fail: f64,
    /// Share of links that are over when they are followed
    #[arg(long, default_value_t = 0.1)]
    expired: f64,
    /// Share of downloads that are led elsewhere
    #[arg(long, default_value_t = 0.3)]
    redirect: f64,
    /// Files at once
    #[arg(long, default_value_t = 8)]
    at_once: u16,
    /// The worker may take so much memory, in MiB
    #[arg(long, default_value_t = 200)]
    memory_mib: u64,
    /// What chance is made from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs it and says what came of it; fails if a file is not stored as it was sent, or the worker took too much memory.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    let behaviour = Behaviour {
        fail_rate: command.fail,
        expired_rate: command.expired,
        redirect_rate: command.redirect,
        not_there_yet: 1,
    };
    ensure!(command.fail < 0.9 && command.expired < 0.9, "some must succeed");
    let files = Files::start(command.seed, behaviour).await?;
    let references = media::many(&files, command.files.into(), command.largest_mib * MIB);
    let bytes: u64 = files.sent().iter().map(|sent| sent.size).sum();
    let fleet = media::fleet(&files).env("RUST_LOG", "warn").env("MEDIA_AT_ONCE", command.at_once).start().await;
    let stage = Stage::new(&fleet).await;
    let pid = fleet.process(Program::Media).pid().unwrap_or_default();
    let before = peak_memory(pid);
    let began = Instant::now();
    stage.receive(&fleet, &references).await;
    let rows = stage.settled(&fleet, references.len(), Duration::from_secs(1800)).await;
    let took = began.elapsed();
    let peak = peak_memory(pid);
    let wrong = disagreements(&fleet, &files, &rows).await;
    let totals = files.totals();
    let mut attempts: BTreeMap<i32, usize> = BTreeMap::new();
    for row in &rows {
        *attempts.entry(row.attempts).or_default() += 1;
    }
    let restarts = fleet.process(Program::Media).exits().len();
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let stored = rows.iter().filter(|row| row.state == "stored").count();
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("files sent", format!("{} of 1 KiB to {} MiB, {} MiB in all", rows.len(), command.largest_mib, bytes / MIB));
    row(
        "stored, with the digest they were sent with, in the row and in storage",
        format!("{}", stored - wrong.len().min(stored)),
    );
    row("time", format!("{:.1} s", took.as_secs_f64()));
    row("downloads begun", totals.begun.to_string());
    row("of these broken off on purpose", totals.cut.to_string());
    row("answers 503 or 500 on purpose", totals.refused.to_string());
    row("links followed that were over", totals.expired.to_string());
    row("led elsewhere", totals.redirected.to_string());
    row("not there yet", totals.not_there_yet.to_string());
    row("files by failed attempts", format!("{attempts:?}"));
    row("credentials where none may be", files.leaks().to_string());
    row(
        "peak memory of mijra-media",
        format!("{} MiB (idle: {} MiB), {} at once", peak / MIB, before / MIB, command.at_once),
    );
    let mut out = std::io::stdout();
    writeln!(out, "{table}")?;
    for complaint in &wrong {
        writeln!(out, "{complaint}")?;
    }
    let fine = wrong.is_empty() && files.leaks() == 0 && restarts == 0 && peak < command.memory_mib * MIB;
    writeln!(out, "{}", if fine { "passed" } else { "FAILED" })?;
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
