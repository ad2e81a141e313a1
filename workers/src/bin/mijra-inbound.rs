//! Raw webhooks → contacts, conversations, messages, reports.

use clap::Args;
use std::process::ExitCode;
use workers::{boot, inbound::InboundWorker};

#[derive(Args, Debug)]
struct Own {}

fn main() -> ExitCode {
    boot::run(async |process: &boot::Process<Own>| {
        Ok(InboundWorker::new(process.parts.databases.clone(), process.parts.clock.clone()))
    })
}
