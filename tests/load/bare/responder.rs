//! The provider of the send yardsticks: answers every request at once as WhatsApp would, counts, and checks nothing. The
//! same process stands behind every side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::serve::ListenerExt;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::role::{Orders, Role, announce};

/// How it is called in the accounts.
pub(crate) const RESPONDER: &str = "responder";

/// The calls it has had so far; times in µs since it started.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Calls {
    pub(crate) count: u64,
    pub(crate) first_us: u64,
    pub(crate) last_us: u64,
    /// When it was asked for this.
    pub(crate) asked_us: u64,
}

/// A running responder.
pub(crate) struct Responder {
    pub(crate) role: Role,
    pub(crate) address: SocketAddr,
}

impl Responder {
    pub(crate) async fn start() -> Result<Self> {
        let (role, address) = Role::start(RESPONDER, &()).await?;
        Ok(Self { role, address })
    }

    pub(crate) async fn calls(&mut self) -> Result<Calls> {
        self.role.tell("calls").await?;
        self.role.hear(Duration::from_secs(10)).await
    }
}

struct Counter {
    started: Instant,
    count: AtomicU64,
    first_us: AtomicU64,
    last_us: AtomicU64,
}

/// The process itself.
pub(super) async fn role(mut orders: Orders) -> Result<()> {
    let () = orders.plan().await?;
    let counter = Arc::new(Counter {
        started: Instant::now(),
        count: AtomicU64::new(0),
        first_us: AtomicU64::new(0),
        last_us: AtomicU64::new(0),
    });
    let router = axum::Router::new().fallback(respond).with_state(Arc::clone(&counter));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&listener.local_addr()?)?;
    let listener = listener.tap_io(|stream| {
        // Costs latency where it fails, nothing else.
        let _ = stream.set_nodelay(true);
    });
    tokio::select! {
        served = axum::serve(listener, router) => Ok(served?),
        told = count_when_asked(&mut orders, &counter) => told,
    }
}

async fn count_when_asked(orders: &mut Orders, counter: &Counter) -> Result<()> {
    while orders.next().await.is_some() {
        announce(&Calls {
            count: counter.count.load(Ordering::Relaxed),
            first_us: counter.first_us.load(Ordering::Relaxed),
            last_us: counter.last_us.load(Ordering::Relaxed),
            asked_us: counter.started.elapsed().as_micros() as u64,
        })?;
    }
    Ok(())
}

async fn respond(State(counter): State<Arc<Counter>>, _body: Bytes) -> impl IntoResponse {
    let now_us = counter.started.elapsed().as_micros() as u64;
    let number = counter.count.fetch_add(1, Ordering::Relaxed);
    if number == 0 {
        counter.first_us.store(now_us, Ordering::Relaxed);
    }
    counter.last_us.store(now_us, Ordering::Relaxed);
    let answer = format!(
        r#"{{"messaging_product":"whatsapp","contacts":[{{"input":"15550000000","wa_id":"15550000000"}}],"messages":[{{"id":"wamid.HBgLMTU1NTc3NzAxNDIVAgARGBJC{number:014}AA=="}}]}}"#
    );
    ([(CONTENT_TYPE, "application/json; charset=UTF-8")], answer)
}
