//! What is due → jobs; what a crash left behind; what is too old.

use clap::Args;
use std::process::ExitCode;
use workers::{boot, scheduler};

#[derive(Args, Debug)]
struct Own {}

fn main() -> ExitCode {
    boot::process("scheduler", async |process: boot::Process<Own>| {
        let parts = process.parts;
        let ready = parts.readiness.condition("sweep");
        scheduler::run(parts.databases, parts.publisher, parts.clock, parts.life, ready).await;
        Ok(())
    })
}
