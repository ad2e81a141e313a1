//! `load outage`: each server taken away under load for minutes, and brought back. Nothing may be lost, nothing may end among the
//! dead letters, and what piled up must be worked off.

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use std::{
    path::PathBuf,
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};
use support::{
    books,
    fleet::{Fleet, Server},
    programs::Program,
    sandbox::behaviour::Span,
    traffic::Traffic,
};

/// Which servers, for how long.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Command {
    /// How long each is away
    #[arg(long, default_value_t = 180)]
    seconds: u64,
    /// Which
    #[arg(long = "server", value_enum, value_delimiter = ',', default_value = "postgres,rabbitmq,redis")]
    servers: Vec<Which>,
    /// Stop and start the servers themselves with `deploy/dev stop` and `start`; otherwise the connections to them are cut
    #[arg(long)]
    real: bool,
    /// For --real
    #[arg(long, default_value = "deploy/dev")]
    dev: PathBuf,
    /// Messages of people a second
    #[arg(long, default_value_t = 50.0)]
    webhooks: f64,
    /// Answers of agents a second
    #[arg(long, default_value_t = 20.0)]
    replies: f64,
    /// What chance is made from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Postgres,
    Rabbitmq,
    Redis,
}

impl Which {
    fn server(self) -> Server {
        match self {
            Which::Postgres => Server::Postgres,
            Which::Rabbitmq => Server::Broker,
            Which::Redis => Server::Redis,
        }
    }

    /// As `deploy/dev` calls it.
    fn name(self) -> &'static str {
        match self {
            Which::Postgres => "postgres",
            Which::Rabbitmq => "rabbitmq",
            Which::Redis => "redis",
        }
    }
}

/// Load before and after the outage.
const AROUND: Duration = Duration::from_secs(10);
const PEOPLE: u32 = 100;

/// Takes the servers away one after the other, prints a row for each, and says whether all went well.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    let away = Duration::from_secs(command.seconds);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "server",
        "away s",
        "messages in",
        "messages out",
        "lost",
        "stored twice",
        "accepted twice",
        "dead letters",
        "ready again s",
        "drained after s",
        "books",
    ]);
    let (mut failed, mut details) = (false, Vec::new());
    for which in &command.servers {
        let mut builder = Fleet::builder()
            .env("PROVIDER_CALL_TIMEOUT_SECONDS", 3)
            .env("RUST_LOG", "warn")
            .seed(command.seed)
            .behaviour(|b| {
                b.latency_ms = Span { min: 10, max: 60 };
                b.status_delay_ms = Span { min: 100, max: 2_000 };
                b.unavailable_rate = 0.02;
            });
        if !command.real {
            builder = builder.relay(which.server(), &Program::ALL);
        }
        let fleet = builder.start().await;
        let parties = fleet.acquaint(command.seed, PEOPLE).await;
        let traffic = Traffic {
            webhooks_per_second: command.webhooks,
            replies_per_second: command.replies,
            lasts: away + 2 * AROUND,
            seed: command.seed,
        };
        let trouble = async {
            tokio::time::sleep(AROUND).await;
            take_away(&command, &fleet, *which).await?;
            tokio::time::sleep(away).await;
            bring_back(&command, &fleet, *which).await?;
            let back = Instant::now();
            let late = fleet.ready_within(Duration::from_secs(120)).await;
            ensure!(late.is_empty(), "not ready two minutes after {} came back: {}", which.name(), late.join(", "));
            Ok::<(Instant, Duration), anyhow::Error>((back, back.elapsed()))
        };
        let (accepted, trouble) = tokio::join!(traffic.run(&fleet, &parties), trouble);
        let (back, ready) = trouble?;
        let books = books::close(&fleet, &accepted, Duration::from_secs(600)).await;
        let drained = back.elapsed();
        failed |= !books.agree();
        let counts = [books.stored, books.accepted, books.lost, books.stored_twice, books.taken_twice, books.dead];
        let mut row = vec![which.server().name().to_owned(), command.seconds.to_string()];
        row.extend(counts.iter().map(usize::to_string));
        row.push(format!("{:.1}", ready.as_secs_f64()));
        row.push(if books.quiet_after.is_some() {
            format!("{:.1}", drained.as_secs_f64())
        } else {
            "never".to_owned()
        });
        row.push(if books.agree() { "agree".to_owned() } else { "DIFFER".to_owned() });
        say(&row.join("  "));
        table.add_row(row);
        if !books.agree() {
            details.push(format!("{}:\n{books}", which.name()));
        }
    }
    say(&table.to_string());
    for detail in &details {
        say(detail);
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn take_away(command: &Command, fleet: &Fleet, which: Which) -> Result<()> {
    if command.real {
        return deploy(command, "stop", which).await;
    }
    fleet.relay(which.server()).close();
    Ok(())
}

async fn bring_back(command: &Command, fleet: &Fleet, which: Which) -> Result<()> {
    if command.real {
        return deploy(command, "start", which).await;
    }
    fleet.relay(which.server()).restore();
    Ok(())
}

async fn deploy(command: &Command, verb: &str, which: Which) -> Result<()> {
    let status = tokio::process::Command::new(&command.dev)
        .args([verb, which.name()])
        // What we were given would tell it that these servers are not its own.
        .env_remove("DATABASE_URL")
        .env_remove("AMQP_URL")
        .env_remove("REDIS_URL")
        .stdin(Stdio::null())
        .status()
        .await
        .with_context(|| format!("run {}", command.dev.display()))?;
    ensure!(status.success(), "{} {verb} {}: {status}", command.dev.display(), which.name());
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the result of the run")]
fn say(text: &str) {
    println!("{text}");
}
