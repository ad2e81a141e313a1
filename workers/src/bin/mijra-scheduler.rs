//! What is due → jobs; what a crash left behind; what is too old.

use clap::Args;
use std::process::ExitCode;
use workers::{boot, scheduler};

/// Many small pieces live from one thread to another here: glibc's allocator costs a tenth of the processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
