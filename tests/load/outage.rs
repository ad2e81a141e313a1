//! `load outage`: each server taken away under load for minutes, and brought back. Nothing may be lost, nothing may end among the
//! dead letters, and what piled up must be worked off.

use crate::{
    channel::{Channel, Mixture, allow},
    servers::{self, Away},
};
use anyhow::{Result, ensure};
use comfy_table::{Table, presets};
use std::{
    path::PathBuf,
    process::ExitCode,
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
    /// Over which channels people write and are answered, evenly
    #[arg(long, value_enum, value_delimiter = ',', default_value = "whatsapp")]
    channels: Vec<Channel>,
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
}

/// Load before and after the outage.
const AROUND: Duration = Duration::from_secs(10);
const PEOPLE: u32 = 99;
/// What each account may send a second: no limit is in the way here.
const RATE: u32 = 1_000;

/// Takes the servers away one after the other, prints a row for each, and says whether all went well.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    let away = Duration::from_secs(command.seconds);
    let way = if command.real { Away::Stopped(&command.dev) } else { Away::OutOfReach };
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
                allow(b, RATE);
                b.latency_ms = Span { min: 10, max: 60 };
                b.status_delay_ms = Span { min: 100, max: 2_000 };
                b.unavailable_rate = 0.02;
            });
        if !command.real {
            builder = builder.relay(which.server(), &Program::ALL);
        }
        let fleet = builder.start().await;
        let mixture = Mixture::make(&fleet, &command.channels, RATE, command.seed, PEOPLE).await?;
        let traffic = Traffic {
            webhooks_per_second: command.webhooks,
            replies_per_second: command.replies,
            lasts: away + 2 * AROUND,
            seed: command.seed,
        };
        let trouble = async {
            tokio::time::sleep(AROUND).await;
            way.take(&fleet, which.server()).await?;
            tokio::time::sleep(away).await;
            way.bring_back(&fleet, which.server()).await?;
            let back = Instant::now();
            let late = fleet.ready_within(Duration::from_secs(120)).await;
            ensure!(
                late.is_empty(),
                "not ready two minutes after {} came back: {}",
                servers::name(which.server()),
                late.join(", ")
            );
            Ok::<(Instant, Duration), anyhow::Error>((back, back.elapsed()))
        };
        let (accepted, trouble) = tokio::join!(traffic.run(&fleet, &mixture.people), trouble);
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
            details.push(format!("{}:\n{books}", servers::name(which.server())));
        }
    }
    say(&table.to_string());
    for detail in &details {
        say(detail);
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[allow(clippy::print_stdout, reason = "the result of the run")]
fn say(text: &str) {
    println!("{text}");
}
