//! `mijra-api`: the HTTP API and the receiver of webhooks.

use clap::Parser;
use std::process::ExitCode;

fn main() -> std::io::Result<ExitCode> {
    let settings = api::server::Settings::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(api::server::run(settings)))
}
