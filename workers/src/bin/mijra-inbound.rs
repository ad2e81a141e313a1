//! Raw webhooks → contacts, conversations, messages, reports.

use clap::Args;
use std::process::ExitCode;
use workers::{boot, inbound::InboundWorker};

/// Many small pieces live from one thread to another here: glibc's allocator costs a tenth of the processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Args, Debug)]
struct Own {}

fn main() -> ExitCode {
    boot::run(async |process: &boot::Process<Own>| {
        Ok(InboundWorker::new(process.parts.databases.clone(), process.parts.clock.clone()))
    })
}
