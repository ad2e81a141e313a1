//! The task behind a [`Publisher`](super::Publisher): connects, publishes through a [`Lane`] until anything fails, drops
//! everything, waits a little, and begins again. Whoever asks meanwhile is refused at once. A queue that was deleted is declared
//! again when a job does not find it: nobody else would.

use super::{Group, State, lane::Lane};
use crate::queue::{Broker, Delay, Error, link::Link, link::Role};
use futures_util::{FutureExt, StreamExt, future::OptionFuture};
use lapin::{Event, options::ConfirmSelectOptions};
use std::{future::Future, pin::pin, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

/// How often confirms are checked for being overdue.
const TICK: Duration = Duration::from_millis(500);

/// Why publishing over a connection ended.
enum Ended {
    /// Nobody can ask any more.
    Unused,
    Failed(Error),
}

pub(super) async fn run(broker: Broker, mut inbox: mpsc::Receiver<Group>, state: watch::Sender<State>) {
    let mut delay = Delay::default();
    loop {
        let Some(opened) = refusing(&mut inbox, open(&broker)).await else { return };
        let error = match opened {
            Ok((link, lane)) => {
                delay.connected();
                match publish(&broker, &link, lane, &mut inbox, &state).await {
                    Ended::Unused => return link.close().await,
                    Ended::Failed(error) => error,
                }
            }
            Err(error) => error,
        };
        state.send_replace(State::Down);
        let wait = delay.failed("publish", &error);
        if refusing(&mut inbox, tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

async fn open(broker: &Broker) -> Result<(Link, Lane), Error> {
    let link = Link::open(broker, Role::Publish).await?;
    link.declare(broker).await?;
    let channel = link.channel().await?;
    let confirms = channel.confirm_select(ConfirmSelectOptions::default());
    crate::queue::within(crate::queue::ANSWER_TIMEOUT, "asking for confirms", confirms).await?;
    Ok((link, Lane::new(channel)))
}

/// Does the work while refusing whoever asks. `None` if nobody can ask any more.
async fn refusing<T>(inbox: &mut mpsc::Receiver<Group>, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            group = inbox.recv() => group?.refuse(),
        }
    }
}

/// Publishes until the connection fails or nobody can ask any more. Every group taken is answered before it returns.
async fn publish(
    broker: &Broker,
    link: &Link,
    mut lane: Lane,
    inbox: &mut mpsc::Receiver<Group>,
    state: &watch::Sender<State>,
) -> Ended {
    let mut events = link.events();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = true;
    let mut blocked = false;
    let (mut declaring, mut is_declaring) = (OptionFuture::default(), false);
    state.send_replace(State::Ready);
    let error = loop {
        if !asked && lane.is_idle() {
            return Ended::Unused;
        }
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(%reason, "the broker takes no more jobs");
                    blocked = true;
                    state.send_replace(State::Blocked);
                    lane.give_up();
                }
                Some(Event::ConnectionUnblocked) => {
                    tracing::info!("the broker takes jobs again");
                    blocked = false;
                    lane.restart_clocks();
                    state.send_replace(State::Ready);
                }
                Some(Event::Error(error)) => break Error::from_lapin(&error),
                Some(_) => {}
                None => break Error::Lost("the connection has ended".to_owned()),
            },
            settled = lane.settle(), if !lane.is_idle() => {
                if let Err(error) = settled {
                    break error;
                }
                if !is_declaring && lane.take_unroutable() {
                    tracing::warn!("a queue is missing: declaring all of them");
                    declaring = Some(link.declare(broker).boxed()).into();
                    is_declaring = true;
                }
            },
            declared = &mut declaring, if is_declaring => {
                is_declaring = false;
                if let Some(Err(error)) = declared {
                    break error;
                }
            },
            group = inbox.recv(), if asked && lane.has_room() => match group {
                Some(group) if blocked => group.refuse(),
                Some(group) => {
                    lane.take(group);
                    while lane.has_room() && let Ok(group) = inbox.try_recv() {
                        lane.take(group);
                    }
                }
                None => asked = false,
            },
            _ = tick.tick() => {
                if !link.is_up() {
                    break Error::Lost("the connection has ended".to_owned());
                }
                if !blocked && lane.is_overdue() {
                    break Error::Lost("a confirm is overdue".to_owned());
                }
            }
        }
    };
    state.send_replace(State::Down);
    lane.give_up();
    Ended::Failed(error)
}
