//! `mijra`: the operator's command line.

use clap::Parser;
use std::process::ExitCode;

fn main() -> std::io::Result<ExitCode> {
    let cli = api::cli::Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(api::cli::run(cli)))
}
