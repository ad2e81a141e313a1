//! A part of a measurement as an operating-system process of its own, so that its processor time and memory can be told
//! apart from everybody else's. The harness starts this same program again as `load role <name>`, hands it a plan as one
//! line of JSON on stdin, reads JSON lines from its stdout, and ends it by closing stdin: a part cannot outlive the harness.

use std::io::{BufRead, Write};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::measure::accounts::Watched;

/// How long a part may take to say that it is ready, and to end once told to.
const START_WITHIN: Duration = Duration::from_secs(20);
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// The harness's end: a running part.
pub(crate) struct Role {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Role {
    /// Starts the part and returns what it announced when it was ready.
    pub(crate) async fn start<T: DeserializeOwned>(name: &'static str, plan: &impl Serialize) -> Result<(Self, T)> {
        let program = std::env::current_exe().context("find this program to start it again")?;
        let mut child = Command::new(program)
            .args(["role", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the harness, which then tells its parts.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let mut role = Self { name, child, stdin, stdout };
        role.tell(&serde_json::to_string(plan)?).await?;
        let ready = role.hear(START_WITHIN).await?;
        Ok((role, ready))
    }

    /// The process, for the accounts.
    pub(crate) fn watched(&self) -> Result<Watched> {
        let pid = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        Ok(Watched::part(self.name, pid))
    }

    /// Sends one line.
    pub(crate) async fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().with_context(|| format!("{} was told to stop", self.name))?;
        stdin.write_all(format!("{line}\n").as_bytes()).await.with_context(|| format!("tell {}", self.name))?;
        stdin.flush().await.with_context(|| format!("tell {}", self.name))
    }

    /// The next line of its stdout.
    pub(crate) async fn hear<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T> {
        let line = timeout(within, self.stdout.next_line())
            .await
            .with_context(|| format!("{} said nothing for {} s", self.name, within.as_secs()))??;
        let Some(line) = line else { bail!("{} ended early; its reason is on stderr", self.name) };
        serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", self.name))
    }

    /// Closes its stdin and waits until it has ended.
    pub(crate) async fn stop(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = match timeout(STOP_WITHIN, self.child.wait()).await {
            Ok(status) => status?,
            Err(_) => {
                self.child.kill().await?;
                bail!("{} did not end within {} s", self.name, STOP_WITHIN.as_secs());
            }
        };
        if !status.success() {
            bail!("{} ended with {status}", self.name);
        }
        Ok(())
    }
}

/// The part's end: the lines the harness sends. Ends when the harness closes the pipe or is gone.
pub(crate) struct Orders(mpsc::UnboundedReceiver<String>);

impl Orders {
    /// Starts to listen. A thread and not tokio's stdin, whose blocked read would hold up the end of the runtime.
    pub(crate) fn listen() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self(receiver)
    }

    /// The plan, which is the first line.
    pub(crate) async fn plan<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.0.recv().await.context("the harness sent no plan")?;
        serde_json::from_str(&line).context("read the plan")
    }

    /// The next line; `None` when it is time to stop.
    pub(crate) async fn next(&mut self) -> Option<String> {
        self.0.recv().await
    }
}

/// Says one line of JSON to the harness.
pub(crate) fn announce(what: &impl Serialize) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer(&mut stdout, what)?;
    stdout.write_all(b"\n")?;
    stdout.flush()?;
    Ok(())
}
