//! What is due → jobs; what a crash left behind; what is too old.

use clap::Args;
use std::process::ExitCode;
use workers::{
    boot,
    scheduler::{self, Scheduler},
};

#[derive(Args, Debug)]
struct Own {
    /// Days for which a webhook is kept as it came, to be looked at and played again; whole days are removed at once.
    #[arg(long, env = "WEBHOOK_LOG_DAYS", default_value_t = scheduler::LOG_DAYS, value_parser = clap::value_parser!(u16).range(1..=3650))]
    webhook_log_days: u16,
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
        };
        scheduler::run(scheduler, parts.life, ready).await;
        Ok(())
    })
}
