//! The sandbox's own accept loop. Not axum's, because a provider may drop a connection without an answer, which only
//! hyper lets us do: the service returns an error and the connection is closed.

use super::{
    control, gateway, graph,
    provider::Provider,
    reply::{Answered, Cut},
    twilio,
};
use axum::{Router, body::Body};
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{fmt, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

/// Accepts connections until the sandbox stops.
pub(super) async fn run(provider: Arc<Provider>, listener: TcpListener) {
    let control = control::router(provider.clone());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = provider.stopping.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                provider.tasks.spawn(connection(provider.clone(), control.clone(), stream));
            }
            Err(error) => {
                // Out of file descriptors, for instance: give the open connections time to end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(provider: Arc<Provider>, control: Router, stream: TcpStream) {
    let stopping = provider.stopping.clone();
    let service = service_fn(move |request| respond(provider.clone(), control.clone(), request));
    let serving = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A cut on purpose and a caller who went away end here alike; the ledger tells them apart.
        _ = serving => {}
        () = stopping.cancelled() => {}
    }
}

async fn respond(provider: Arc<Provider>, control: Router, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let at_us = provider.clock.now_us();
    if request.uri().path().starts_with("/_sandbox") {
        return control.oneshot(request).await.map_err(|never| match never {});
    }
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_MOST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => {
            provider.ledger.cut_short();
            return Err(Cut);
        }
    };
    let path = head.uri.path();
    if twilio::names(path) {
        let call = twilio::Call::new(&head, body, at_us);
        return detached(&provider, twilio::handle(provider.clone(), call)).await;
    }
    if path.trim_end_matches('/') == "/api/v1" {
        let query = head.uri.query().unwrap_or_default().to_owned();
        let call = gateway::Call { at_us, method: head.method.clone(), query, body };
        let answering = provider.clone();
        return detached(&provider, async move { gateway::handle(&answering, call).await }).await;
    }
    graph::handle(provider, head, body, at_us).await
}

/// Goes on to its end although the caller may go away.
pub(super) async fn detached(
    provider: &Provider,
    answering: impl Future<Output = Answered> + Send + 'static,
) -> Answered {
    provider.tasks.spawn(answering).await.unwrap_or(Err(Cut))
}

/// Larger than any upload a provider takes.
const BODY_MOST: usize = 110 << 20;

/// Notes how long the whole process stood still, so that what looks like a burst can be told from a stall of the judge.
pub(super) async fn watch_stalls(provider: Arc<Provider>) {
    const TICK: Duration = Duration::from_millis(5);
    loop {
        let before = std::time::Instant::now();
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = provider.stopping.cancelled() => return,
        }
        provider.ledger.stalled(before.elapsed().saturating_sub(TICK).as_micros() as u64);
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut on purpose")
    }
}

impl std::error::Error for Cut {}
