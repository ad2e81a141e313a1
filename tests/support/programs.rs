//! Where the real programs are: in `MIJRA_BIN_DIR`, or beside the test that runs.

use shared::crash::CrashPoint;
use std::{
    env,
    path::{Path, PathBuf},
};

/// One of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// The HTTP API and the receiver.
    Api,
    /// Raw webhooks → conversations.
    Inbound,
    /// Messages → providers.
    Outbound,
    /// Campaigns' steps.
    Campaign,
    /// Files of messages.
    Media,
    /// The clock.
    Scheduler,
}

impl Program {
    /// All that run as services.
    pub const ALL: [Program; 6] =
        [Program::Api, Program::Inbound, Program::Outbound, Program::Campaign, Program::Media, Program::Scheduler];

    /// In log files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Program::Api => "api",
            Program::Inbound => "inbound",
            Program::Outbound => "outbound",
            Program::Campaign => "campaign",
            Program::Media => "media",
            Program::Scheduler => "scheduler",
        }
    }

    /// The one that passes this point.
    ///
    /// # Panics
    /// If the point's name does not begin with a program's.
    pub fn of(point: CrashPoint) -> Self {
        let named = |program: &Program| point.as_str().split('.').next() == Some(program.name());
        Self::ALL.into_iter().find(named).expect("a point's name begins with its program's")
    }

    /// Where its binary is.
    pub fn path(self) -> PathBuf {
        binary(&format!("mijra-{}", self.name()))
    }
}

/// Where a binary of ours is.
///
/// # Panics
/// If it is not built.
pub fn binary(name: &str) -> PathBuf {
    let folder = env::var_os("MIJRA_BIN_DIR").map_or_else(beside_us, PathBuf::from);
    let path = folder.join(name);
    let help =
        "build it with: cargo build --workspace --bins --features mijra-api/crash-points,mijra-workers/crash-points";
    assert!(path.is_file(), "{} is not there; {help}, or set MIJRA_BIN_DIR", path.display());
    path
}

/// `target/<profile>`, of which tests run in the folder `deps`.
fn beside_us() -> PathBuf {
    let us = env::current_exe().expect("the system knows where we are");
    let folder = us.parent().expect("a file is in a folder");
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Path::new(folder).to_owned()
}
