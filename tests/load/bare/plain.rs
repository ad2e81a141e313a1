//! Yardstick 4: how fast calls go out when nothing is stored: reqwest over HTTP/1.1, a fixed number of calls at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::limits;
use super::wire::Way;
use crate::measure::Reference;
use crate::measure::accounts::Watched;
use crate::measure::sends::{RunningSends, SendSide, Work};
use crate::role::{Orders, Role, announce};

const CALL_WITHIN: Duration = Duration::from_secs(30);

pub(crate) struct BareReqwest;

pub(crate) struct RunningReqwest {
    caller: Role,
    sends: u64,
}

impl SendSide for BareReqwest {
    type Running = RunningReqwest;

    fn name(&self) -> &'static str {
        "bare reqwest"
    }

    fn reference(&self, work: &Work) -> Option<Reference> {
        (work.way == Way::Whatsapp).then(|| limits::reqwest(work.concurrency)).flatten()
    }

    async fn prepare(&self, work: &Work, provider: SocketAddr) -> Result<RunningReqwest> {
        let plan = Plan { provider, way: work.way, sends: work.sends, concurrency: work.concurrency };
        let (caller, ()) = Role::start("caller", &plan).await?;
        Ok(RunningReqwest { caller, sends: work.sends })
    }
}

impl RunningSends for RunningReqwest {
    async fn go(&mut self) -> Result<()> {
        self.caller.tell("go").await
    }

    fn processes(&self) -> Result<Vec<Watched>> {
        Ok(vec![self.caller.watched()?])
    }

    /// It records nothing: a call made is all there is.
    async fn recorded(&mut self) -> Result<u64> {
        Ok(self.sends)
    }

    async fn stop(self) -> Result<()> {
        self.caller.stop().await
    }
}

#[derive(Serialize, Deserialize)]
struct Plan {
    provider: SocketAddr,
    way: Way,
    sends: u64,
    concurrency: u16,
}

/// The process itself.
pub(super) async fn role(mut orders: Orders) -> Result<()> {
    let plan: Plan = orders.plan().await?;
    let caller = Arc::new(Caller::new(plan.provider, plan.way)?);
    announce(&())?;
    if orders.next().await.is_none() {
        return Ok(());
    }
    let taken = Arc::new(AtomicU64::new(0));
    let loops: Vec<_> = (0..plan.concurrency)
        .map(|_| {
            let (caller, taken) = (Arc::clone(&caller), Arc::clone(&taken));
            let to = plan.way.nobody();
            tokio::spawn(async move {
                while taken.fetch_add(1, Ordering::Relaxed) < plan.sends {
                    caller.call(&to, plan.way.text(), Uuid::now_v7()).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    try_join_all(loops).await?.into_iter().collect::<Result<()>>()?;
    while orders.next().await.is_some() {}
    Ok(())
}

/// Calls the provider, for this loop and the durable one.
pub(super) struct Caller {
    client: reqwest::Client,
    way: Way,
    url: String,
}

impl Caller {
    pub(super) fn new(provider: SocketAddr, way: Way) -> Result<Self> {
        let client = reqwest::Client::builder()
            .http1_only()
            .no_proxy()
            .pool_max_idle_per_host(usize::MAX)
            .timeout(CALL_WITHIN)
            .build()?;
        Ok(Self { client, way, url: format!("http://{provider}{}", way.path()) })
    }

    /// Returns the provider's id of the message.
    pub(super) async fn call(&self, to: &str, text: &str, send: Uuid) -> Result<String> {
        let request = self.way.request(self.client.post(&self.url), to, text, send);
        let answer = request.send().await?.error_for_status()?.bytes().await?;
        self.way.id(&answer)
    }
}
