//! The grant alone: so many accounts, so many workers, so many sends a second, each worker asking every 20 ms for what it
//! holds. Says what a send's grant costs Postgres and how long a worker waits for one.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use shared::db::outbound::grant::{self, Answer, Held, Room};
use shared::db::{Databases, Placement};
use shared::domain::ids::{AttemptId, ChannelAccountId, MessageId, TenantId};
use tokio::time::MissedTickBehavior;

use super::installation::Installation;
use crate::measure::accounts::Accounts;
use crate::measure::figures::{Measurement, Unit};
use crate::measure::progress::Progress;
use crate::measure::report::{self, Output};
use crate::measure::runs;
use crate::services::{POSTGRES, Services};
use support::database::Role;

/// The grant alone.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    services: Services,
    /// Channel accounts, each with a limit that is never reached
    #[arg(long, default_value_t = 200)]
    accounts: u64,
    /// Workers that ask at the same time
    #[arg(long, default_value_t = 4)]
    workers: u64,
    /// Sends a second, all workers together
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// How long to measure
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often to measure
    #[arg(long, default_value_t = 3)]
    runs: u32,
    #[command(flatten)]
    output: Output,
}

/// As in the outbound worker.
const ASK_EVERY: Duration = Duration::from_millis(20);
const PHASES: u64 = 2;

/// `load grant`
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let progress = Progress::new(u64::from(arguments.runs) * PHASES);
    let series =
        runs::repeat("grant", arguments.runs, &progress, async || measure(&arguments, &progress).await).await?;
    drop(progress);
    report::series(arguments.output, &series)
}

async fn measure(arguments: &Arguments, progress: &Progress) -> Result<Measurement> {
    let total = arguments.rate * arguments.seconds;
    progress.phase(format!("making {total} sends on {} accounts", arguments.accounts));
    let mut installation = Installation::create(&arguments.services, arguments.accounts).await?;
    let messages: Vec<MessageId> = (0..total).map(|_| MessageId::new()).collect();
    seed(&mut installation, &messages).await?;
    installation.database.checkpoint().await?;
    let databases = Databases::new(&shared::db::Settings {
        control: installation.url(Role::Worker)?.into(),
        placements: Default::default(),
        max_connections: u32::try_from(arguments.workers)?,
        application_name: "load grant".into(),
    })?;

    progress.phase("granting");
    let accounts = Accounts::open(vec![arguments.services.postgres()?]);
    let from = accounts.snapshot()?;
    let began = Instant::now();
    let per_question = usize::try_from(arguments.rate / arguments.workers / 50)?.max(1);
    let share = messages.len().div_ceil(usize::try_from(arguments.workers)?);
    let workers: Vec<_> = messages
        .chunks(share)
        .map(|share| tokio::spawn(ask(databases.clone(), installation.tenant_id, share.to_vec(), per_question)))
        .collect();
    let mut waits = Histogram::<u64>::new(3)?;
    let mut granted = 0;
    for worker in workers {
        let (histogram, count) = worker.await??;
        waits.add(histogram)?;
        granted += count;
    }
    let elapsed = began.elapsed();
    let usage = accounts.usage(&from, &accounts.snapshot()?);
    databases.close().await;
    installation.stop().await?;

    let mut measurement = Measurement::default();
    measurement.add("granted", Unit::PerSecond, granted as f64 / elapsed.as_secs_f64());
    for (name, quantile) in [("wait p50", 0.5), ("wait p99", 0.99), ("wait max", 1.0)] {
        measurement.add(name, Unit::Milliseconds, waits.value_at_quantile(quantile) as f64 / 1e3);
    }
    measurement.add("Postgres", Unit::Cores, usage.cpu_us[POSTGRES] / 1e6 / elapsed.as_secs_f64());
    measurement.add_usage(&usage, granted, &[]);
    if granted < total {
        measurement.void.push(format!("{granted} of {total} were granted"));
    }
    Ok(measurement)
}

async fn ask(
    databases: Databases,
    tenant_id: TenantId,
    messages: Vec<MessageId>,
    per_question: usize,
) -> Result<(Histogram<u64>, u64)> {
    let mut waits = Histogram::new(3)?;
    let room = Room { per_account: per_question, left: Vec::new() };
    let mut granted = 0;
    let mut tick = tokio::time::interval(ASK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for held in messages.chunks(per_question) {
        tick.tick().await;
        let held: Vec<Held> =
            held.iter().map(|id| Held { tenant_id, message_id: *id, attempt_id: AttemptId::new() }).collect();
        let asked = Instant::now();
        let mut tx = databases.fleet(&Placement::primary(), &[tenant_id]).await?;
        let answers = grant::grant(&mut tx, &held, Duration::from_secs(20), &room).await?;
        tx.commit().await?;
        waits.record(u64::try_from(asked.elapsed().as_micros())?.max(1))?;
        granted += answers.iter().filter(|judged| matches!(judged.answer, Answer::Granted(_))).count() as u64;
    }
    Ok((waits, granted))
}

/// Sends spread over the accounts in turn, so that one question touches as many meters as it can: the dear case.
async fn seed(installation: &mut Installation, messages: &[MessageId]) -> Result<()> {
    let tenant_id = installation.tenant_id;
    let accounts: Vec<ChannelAccountId> = installation.accounts.clone();
    let of_message: Vec<ChannelAccountId> = (0..messages.len()).map(|place| accounts[place % accounts.len()]).collect();
    let conn = installation.database.connection();
    sqlx::query(
        "INSERT INTO limits (tenant_id, scope, key, rate, current_rate) SELECT $1, 'account', key, 10000, 10000 FROM unnest($2) AS l (key)",
    )
    .bind(tenant_id)
    .bind(&accounts)
    .execute(&mut *conn)
    .await
    .context("limits")?;
    for statement in [
        "INSERT INTO contacts (tenant_id, id) SELECT $1, id FROM unnest($2::uuid[], $3::uuid[]) AS m (id, account)",
        "INSERT INTO conversations (tenant_id, id, contact_id, channel_account_id, state, origin, last_message_at, last_message_direction, window_expires_at)
        SELECT $1, id, id, account, 'open', 'inbound', now(), 'out', now() + interval '1 day' FROM unnest($2::uuid[], $3::uuid[]) AS m (id, account)",
        r#"INSERT INTO messages (tenant_id, id, conversation_id, direction, kind, text, content, at)
        SELECT $1, id, id, 'out', 'text', 'x', '{"type": "text", "text": "Your parcel left our warehouse."}', now() FROM unnest($2::uuid[], $3::uuid[]) AS m (id, account)"#,
        "INSERT INTO sends (tenant_id, message_id, conversation_id, channel_account_id, seq, recipient_kind, recipient, needs_window, state)
        SELECT $1, id, id, account, 1, 'phone', '+15557770142', true, 'queued' FROM unnest($2::uuid[], $3::uuid[]) AS m (id, account)",
    ] {
        sqlx::query(statement).bind(tenant_id).bind(messages).bind(&of_message).execute(&mut *conn).await?;
    }
    sqlx::query("ANALYZE").execute(&mut *conn).await?;
    Ok(())
}
