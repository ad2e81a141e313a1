//! Campaigns: frozen, released at the pace of their accounts, completed.

use clap::Args;
use std::process::ExitCode;
use workers::{boot, campaign::CampaignWorker};

#[derive(Args, Debug)]
struct Own {}

fn main() -> ExitCode {
    boot::run(async |process: &boot::Process<Own>| Ok(CampaignWorker::new(process.parts.databases.clone())))
}
