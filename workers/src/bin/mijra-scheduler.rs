//! What is due → jobs; what a crash left behind; what is too old.

use clap::Args;
use std::{process::ExitCode, time::Duration};
use workers::{
    boot,
    scheduler::{self, Scheduler},
};

#[derive(Args, Debug)]
struct Own {
    /// Days for which a webhook is kept as it came, to be looked at and played again; whole days are removed at once.
    #[arg(long, env = "WEBHOOK_LOG_DAYS", default_value_t = scheduler::LOG_DAYS, value_parser = clap::value_parser!(u16).range(1..=3650))]
    webhook_log_days: u16,
    /// How long before its end a customer service window is said to be closing, in minutes.
    #[arg(long, env = "WINDOW_CLOSING_MINUTES", default_value_t = scheduler::WINDOW_CLOSING_MINUTES, value_parser = clap::value_parser!(u16).range(1..=1380))]
    window_closing_minutes: u16,
    /// Templates are fetched from their providers when they are so many minutes old, and when a provider names one that is not known; 0: only
    /// when somebody asks for it.
    #[arg(long, env = "TEMPLATES_MAX_AGE_MINUTES", default_value_t = scheduler::TEMPLATES_MAX_AGE_MINUTES, value_parser = clap::value_parser!(u32).range(0..=43_200))]
    templates_max_age_minutes: u32,
}

fn main() -> ExitCode {
    boot::process("scheduler", async |process: boot::Process<Own>| {
        let boot::Process { parts, own, .. } = process;
        let ready = parts.readiness.condition("sweep");
        let scheduler = Scheduler {
            databases: parts.databases,
            broker: parts.broker,
            publisher: parts.publisher,
            clock: parts.clock,
            log_days: own.webhook_log_days,
            window_closing_minutes: own.window_closing_minutes,
            templates_max_age: (own.templates_max_age_minutes > 0)
                .then(|| Duration::from_secs(60 * u64::from(own.templates_max_age_minutes))),
        };
        scheduler::run(scheduler, parts.life, ready).await;
        Ok(())
    })
}
