//! One connection to the broker, which never repairs itself: whoever owns it drops it on the first error and opens another.
//! lapin's own recovery is left off because it gives up after minutes, leaves channels dead after a soft error and hides
//! what became of confirms and acknowledgements.

use super::{Broker, Error, Settings, metrics::BROKER_CONNECTED};
use futures_util::{Stream, StreamExt, stream::BoxStream};
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, Event,
    options::QueueDeclareOptions,
    tcp::OwnedTLSConfig,
    types::FieldTable,
    uri::{AMQPScheme, AMQPUri},
};
use secrecy::ExposeSecret;
use std::{
    future::Future,
    net::Shutdown,
    os::fd::AsFd,
    sync::{Arc, Mutex},
    time::Duration,
};

/// How long opening, declaring, or any other question to the broker may take.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Seconds, if the URL sets none. The documents advise 5–20; below 5 a busy machine looks dead.
const HEARTBEAT_SECONDS: u16 = 15;

/// What a connection is for. Publishing and consuming never share one: a broker short of memory or disk stops reading from
/// connections that publish, and the acknowledgements would be stuck behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Publish,
    Consume,
    Operate,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Role::Publish => "publish",
            Role::Consume => "consume",
            Role::Operate => "operate",
        }
    }
}

/// An open connection. Dropped, it is cut at once, whatever state it is in.
pub(super) struct Link {
    connection: Connection,
    role: Role,
    _socket: Socket,
}

impl Link {
    /// Connects; the timeout covers name, TCP, TLS and the broker's handshake.
    pub(super) async fn open(broker: &Broker, role: Role) -> Result<Self, Error> {
        let settings = &broker.settings;
        let mut uri = parse(settings)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let name = format!("{}/{}", settings.process, role.as_str());
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let socket = Socket::default();
        let opened = within(ANSWER_TIMEOUT, "connecting", connect(uri, properties, &socket)).await;
        let connection = opened.map_err(Error::into_unavailable)?;
        set_connected(role, true);
        Ok(Self { connection, role, _socket: socket })
    }

    /// A new channel.
    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        within(ANSWER_TIMEOUT, "opening a channel", self.connection.create_channel()).await
    }

    /// What the broker says about the connection itself. Ask once: several listeners would share the events among them.
    pub(super) fn events(&self) -> BoxStream<'static, Event> {
        listen(&self.connection).boxed()
    }

    /// Whether lapin believes it to be up.
    pub(super) fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    /// Declares every queue of the table.
    pub(super) async fn declare(&self, broker: &Broker) -> Result<(), Error> {
        let channel = self.channel().await?;
        for queue in super::topology::ALL {
            let (name, dead) = (broker.broker_name(queue), broker.dead_broker_name(queue));
            // The dead letters first: dead-lettering to a missing queue fills the source.
            for (name, arguments) in [(&dead, queue.dead_arguments()), (&name, queue.arguments(&dead))] {
                declare(&channel, name, arguments).await?;
            }
        }
        let _ = channel.close(200, "declared".into()).await;
        Ok(())
    }

    /// Says goodbye, so that the broker does not log a broken connection.
    pub(super) async fn close(self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.connection.close(200, "goodbye".into())).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        set_connected(self.role, false);
    }
}

/// The URL in parts. The error does not repeat it, for it holds a password.
pub(super) fn parse(settings: &Settings) -> Result<AMQPUri, Error> {
    settings.url.expose_secret().parse().map_err(|_| Error::Unavailable("the AMQP URL cannot be read".to_owned()))
}

fn set_connected(role: Role, connected: bool) {
    if role != Role::Operate {
        metrics::gauge!(BROKER_CONNECTED, "role" => role.as_str()).set(f64::from(u8::from(connected)));
    }
}

/// Keeps the generic return type of lapin's listener out of the struct.
fn listen(connection: &Connection) -> impl Stream<Item = Event> + Send + 'static {
    connection.events_listener()
}

async fn declare(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), Error> {
    let declared = channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments);
    let declared = within(ANSWER_TIMEOUT, "declaring a queue", declared).await;
    declared.map(drop).map_err(|error| match error {
        Error::Mismatch(text) => Error::Mismatch(format!("queue {name}: {text}")),
        other => other,
    })
}

/// Runs a question to the broker with a time limit, which lapin has none of.
pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    question: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, question).await {
        Ok(answer) => answer.map_err(|error| Error::from_lapin(&error)),
        Err(_) => Err(Error::Lost(format!("{what} took more than {} s", limit.as_secs()))),
    }
}

/// A second handle on the connection's socket. A connection whose peer has stopped answering cannot be closed by asking it to
/// (lapin would wait without a heartbeat, a thread and a socket kept for each attempt), so the socket is shut down instead.
#[derive(Default)]
struct Socket(Arc<Mutex<Held>>);

#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    Open(std::net::TcpStream),
    Cut,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let held = std::mem::replace(&mut *self.0.lock().expect("no panic while locked"), Held::Cut);
        if let Held::Open(stream) = held {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn hold(held: &Mutex<Held>, stream: &tokio::net::TcpStream) -> std::io::Result<()> {
    let copy = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?);
    let mut held = held.lock().expect("no panic while locked");
    if matches!(*held, Held::Cut) {
        return Err(std::io::ErrorKind::ConnectionAborted.into()); // given up while it was connecting
    }
    *held = Held::Open(copy);
    Ok(())
}

async fn connect(uri: AMQPUri, properties: ConnectionProperties, socket: &Socket) -> lapin::Result<Connection> {
    let (held, runtime) = (socket.0.clone(), lapin::runtime::default_runtime()?);
    let own = runtime.clone();
    let connector = async move |uri: AMQPUri, _| {
        let AMQPUri { scheme, authority, .. } = uri;
        let host = authority.host.as_str();
        let open = async {
            let addresses: Vec<_> = tokio::net::lookup_host((host, authority.port)).await?.collect();
            AsyncTcpStream::connect(&own, addresses).await
        };
        let stream = tokio::time::timeout(ANSWER_TIMEOUT, open).await.map_err(std::io::Error::from)??;
        if let AsyncTcpStream::Plain(plain) = &stream {
            hold(&held, plain.get_ref())?;
        }
        Ok(match scheme {
            AMQPScheme::AMQP => stream,
            AMQPScheme::AMQPS => stream.into_tls(host, OwnedTLSConfig::default().as_ref()).await?,
        })
    };
    Connection::connector(uri, runtime, connector, properties).await
}
