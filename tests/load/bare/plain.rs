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
        limits::reqwest(work.concurrency)
    }

    async fn prepare(&self, work: &Work, provider: SocketAddr) -> Result<RunningReqwest> {
        let plan = Plan { provider, sends: work.sends, concurrency: work.concurrency };
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
    sends: u64,
    concurrency: u16,
}

/// The process itself.
pub(super) async fn role(mut orders: Orders) -> Result<()> {
    let plan: Plan = orders.plan().await?;
    let caller = Arc::new(Caller::new(plan.provider)?);
    announce(&())?;
    if orders.next().await.is_none() {
        return Ok(());
    }
    let taken = Arc::new(AtomicU64::new(0));
    let loops: Vec<_> = (0..plan.concurrency)
        .map(|_| {
            let (caller, taken) = (Arc::clone(&caller), Arc::clone(&taken));
            tokio::spawn(async move {
                while taken.fetch_add(1, Ordering::Relaxed) < plan.sends {
                    caller.call("15550000000", TEXT, Uuid::now_v7()).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    try_join_all(loops).await?.into_iter().collect::<Result<()>>()?;
    while orders.next().await.is_some() {}
    Ok(())
}

/// What is sent: about as long as people write.
pub(super) const TEXT: &str =
    "Your order 20418 left our warehouse this morning and should reach you on Thursday before noon.";

/// Calls the provider, for this loop and the durable one.
pub(super) struct Caller {
    client: reqwest::Client,
    url: String,
}

#[derive(Serialize)]
struct Message<'a> {
    messaging_product: &'static str,
    recipient_type: &'static str,
    to: &'a str,
    r#type: &'static str,
    text: Text<'a>,
    biz_opaque_callback_data: Uuid,
}

#[derive(Serialize)]
struct Text<'a> {
    body: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    messages: Vec<Sent>,
}

#[derive(Deserialize)]
struct Sent {
    id: String,
}

impl Caller {
    pub(super) fn new(provider: SocketAddr) -> Result<Self> {
        let client = reqwest::Client::builder()
            .http1_only()
            .no_proxy()
            .pool_max_idle_per_host(usize::MAX)
            .timeout(CALL_WITHIN)
            .build()?;
        Ok(Self { client, url: format!("http://{provider}/v23.0/330000000000000/messages") })
    }

    /// Returns the provider's id of the message.
    pub(super) async fn call(&self, to: &str, text: &str, send: Uuid) -> Result<String> {
        let message = Message {
            messaging_product: "whatsapp",
            recipient_type: "individual",
            to,
            r#type: "text",
            text: Text { body: text },
            biz_opaque_callback_data: send,
        };
        let request = self.client.post(&self.url).bearer_auth("stand-in-token").json(&message);
        let answer: Answer = request.send().await?.error_for_status()?.json().await?;
        answer
            .messages
            .into_iter()
            .next()
            .map(|sent| sent.id)
            .ok_or_else(|| anyhow::anyhow!("an answer without a message"))
    }
}
