//! A TCP relay between a client and a server, which a test can cut, stall and restore: the network's faults, made to order.
//! In front of a RabbitMQ broker it can also tamper with what the broker says. Loopback only.

use crate::frames::{Frame, Frames};
use bytes::Bytes;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// A relay in front of one server. It ends when it is dropped.
pub struct Relay {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    accepted: Arc<AtomicUsize>,
    _acceptor: JoinSet<()>,
}

/// What a relay is told to do.
#[derive(Clone, Debug)]
struct Orders {
    mode: Mode,
    /// Connections of an earlier age are cut.
    age: u32,
    /// Connections of an earlier epoch carry nothing any more.
    epoch: u32,
    /// Said to every client as if the server had said it; counted, so that each is said once.
    said: Vec<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Through,
    /// What the server says is held back.
    Deaf,
    /// A broker's deliveries are swallowed, all else goes through.
    Withholding,
    /// Nothing goes either way; connections stay open.
    Stalled,
    /// New connections are dropped.
    Closed,
}

impl Relay {
    /// A relay to any server.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn to(server: SocketAddr) -> std::io::Result<Self> {
        Self::start(server, Speech::Bytes).await
    }

    /// A relay to a RabbitMQ broker (AMQP 0-9-1 without TLS), whose words it understands.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn to_broker(server: SocketAddr) -> std::io::Result<Self> {
        Self::start(server, Speech::Amqp).await
    }

    async fn start(server: SocketAddr, speech: Speech) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let orders = watch::Sender::new(Orders { mode: Mode::Through, age: 0, epoch: 0, said: Vec::new() });
        let accepted = Arc::new(AtomicUsize::new(0));
        let mut acceptor = JoinSet::new();
        acceptor.spawn(accept(listener, server, speech, orders.subscribe(), accepted.clone()));
        Ok(Self { address, orders, accepted, _acceptor: acceptor })
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were let through so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Cuts every connection and lets no new one through.
    pub fn close(&self) {
        self.orders.send_modify(|orders| {
            orders.mode = Mode::Closed;
            orders.age += 1;
        });
    }

    /// Cuts every connection; new ones are let through.
    pub fn cut(&self) {
        self.orders.send_modify(|orders| orders.age += 1);
    }

    /// Holds every byte back, both ways, without closing anything.
    pub fn stall(&self) {
        self.set(Mode::Stalled);
    }

    /// The connections there are carry nothing any more, ever, and are not closed; new ones are let through.
    pub fn forget(&self) {
        self.orders.send_modify(|orders| orders.epoch += 1);
    }

    /// Lets bytes to the server and holds its answers back.
    pub fn deafen(&self) {
        self.set(Mode::Deaf);
    }

    /// Swallows the broker's deliveries for good, lets all else through.
    pub fn withhold_deliveries(&self) {
        self.set(Mode::Withholding);
    }

    /// Tells every client what the broker has not said: these frames.
    pub fn say(&self, frames: Bytes) {
        self.orders.send_modify(|orders| orders.said.push(frames));
    }

    /// Lets everything through again, also what was held back.
    pub fn restore(&self) {
        self.set(Mode::Through);
    }

    fn set(&self, mode: Mode) {
        self.orders.send_modify(|orders| orders.mode = mode);
    }
}

#[derive(Clone, Copy)]
enum Speech {
    Bytes,
    Amqp,
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    speech: Speech,
    orders: watch::Receiver<Orders>,
    accepted: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let orders = orders.clone();
        if orders.borrow().mode != Mode::Closed {
            accepted.fetch_add(1, Ordering::SeqCst);
            connections.spawn(relay(client, server, speech, orders));
        }
    }
}

async fn relay(client: TcpStream, server: SocketAddr, speech: Speech, mut orders: watch::Receiver<Orders>) {
    let Orders { age, epoch, .. } = *orders.borrow();
    let speaks = move |orders: &Orders| orders.epoch == epoch && orders.mode != Mode::Stalled;
    let hears = move |orders: &Orders| speaks(orders) && orders.mode != Mode::Deaf;
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let heard = orders.clone();
    let answers = async {
        match speech {
            Speech::Bytes => pump(from_server, to_client, heard, hears).await,
            Speech::Amqp => pump_frames(from_server, to_client, heard, hears).await,
        }
    };
    tokio::select! {
        _ = pump(from_client, to_server, orders.clone(), speaks) => {}
        _ = answers => {}
        _ = orders.wait_for(|orders| orders.age != age) => {}
    }
}

/// Carries bytes one way while the orders allow it. Ends with either side.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut orders: watch::Receiver<Orders>,
    allowed: impl Fn(&Orders) -> bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 || orders.wait_for(&allowed).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// Carries a broker's words frame by frame, leaves out and puts in what the orders say.
async fn pump_frames(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut orders: watch::Receiver<Orders>,
    allowed: impl Fn(&Orders) -> bool,
) -> std::io::Result<()> {
    let mut frames = Frames::default();
    let mut said = orders.borrow().said.len();
    loop {
        tokio::select! {
            read = from.read_buf(frames.buffer()) => if read? == 0 { return Ok(()) },
            changed = orders.changed() => if changed.is_err() { return Ok(()) },
        }
        while let Some(Frame { bytes, is_delivery }) = frames.next() {
            let Ok(now) = orders.wait_for(&allowed).await.map(|orders| orders.mode) else { return Ok(()) };
            if !(is_delivery && now == Mode::Withholding) {
                to.write_all(&bytes).await?;
            }
        }
        let news = orders.borrow().said.get(said..).map(<[Bytes]>::to_vec).unwrap_or_default();
        for frames in news {
            to.write_all(&frames).await?;
            said += 1;
        }
    }
}
