//! Where providers keep the files that people send: Meta's Graph API with its own host of attachments, its CDN, Twilio's API and the
//! host it leads to. Written from the contracts' media sections (whatsapp 9, messenger 2.1 and 5, instagram 2.1 and 4, twilio 12),
//! and sharing no code with the product.
//!
//! Two listeners, as there are two kinds of host: one that takes credentials and one that must never see any. Files are made from
//! their ids, so that no file of 20 MiB is held anywhere; what was served, and what went wrong, is in the books.

mod content;
mod serve;

pub use content::{Kind, bytes, sha256};

use axum::Router;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// With what Meta's API is called.
pub const META_TOKEN: &str = "files-meta-token";
/// Twilio's account.
pub const TWILIO_SID: &str = "AC00000000000000000000000000000009";
/// Its auth token.
pub const TWILIO_TOKEN: &str = "files-twilio-token";

/// How the hosts behave. Rates are shares of the cases, `0.0..=1.0`.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    /// Share of answers that are a 503, or break off in the middle of the file.
    pub fail_rate: f64,
    /// Share of the links handed out that are over when they are followed.
    pub expired_rate: f64,
    /// Share of downloads that are led to another place first.
    pub redirect_rate: f64,
    /// So often Twilio says of a file that it is not there, before it is.
    pub not_there_yet: u32,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { fail_rate: 0.0, expired_rate: 0.0, redirect_rate: 0.0, not_there_yet: 0 }
    }
}

/// A file that somebody sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// How large it is.
    pub size: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

/// What happened to one file.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// Downloads that were begun.
    pub begun: u32,
    /// Downloads that were broken off on purpose.
    pub cut: u32,
    /// Answers that were 503 on purpose.
    pub refused: u32,
    /// Links that were followed after their time.
    pub expired: u32,
    /// Times somebody was led elsewhere.
    pub redirected: u32,
    /// Times Twilio did not have it yet.
    pub not_there_yet: u32,
}

/// Running hosts. Dropping them stops them.
pub struct Files {
    state: Arc<State>,
    api: SocketAddr,
    cdn: SocketAddr,
    stopping: CancellationToken,
}

pub(super) struct State {
    behaviour: Mutex<Behaviour>,
    sent: Mutex<BTreeMap<String, Sent>>,
    served: Mutex<BTreeMap<String, Served>>,
    /// Credentials that came where none may.
    leaks: AtomicU64,
    /// Calls without the credentials they need.
    unauthorised: AtomicU64,
    rolls: AtomicU64,
    seed: u64,
    api: String,
    cdn: String,
}

impl Files {
    /// Starts listening, on two ports of this machine.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start(seed: u64, behaviour: Behaviour) -> std::io::Result<Self> {
        let api = TcpListener::bind("127.0.0.1:0").await?;
        let cdn = TcpListener::bind("127.0.0.1:0").await?;
        let (api_at, cdn_at) = (api.local_addr()?, cdn.local_addr()?);
        let state = Arc::new(State {
            behaviour: Mutex::new(behaviour),
            sent: Mutex::default(),
            served: Mutex::default(),
            leaks: AtomicU64::new(0),
            unauthorised: AtomicU64::new(0),
            rolls: AtomicU64::new(0),
            seed,
            api: format!("http://{api_at}"),
            cdn: format!("http://{cdn_at}"),
        });
        let stopping = CancellationToken::new();
        for (listener, router) in [(api, serve::api(state.clone())), (cdn, serve::cdn(state.clone()))] {
            tokio::spawn(run(listener, router, stopping.clone()));
        }
        Ok(Self { state, api: api_at, cdn: cdn_at, stopping })
    }

    /// What stands in for `https://graph.facebook.com`, `https://lookaside.fbsbx.com` and `https://api.twilio.com`.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// What stands in for the hosts of files.
    pub fn cdn_url(&self) -> String {
        format!("http://{}", self.cdn)
    }

    /// Somebody sends a file: its size and bytes follow from its id.
    pub fn send(&self, id: &str, kind: Kind, size: u64) -> Sent {
        let sent = Sent { id: id.to_owned(), kind, size, sha256: hex::encode(sha256(id, kind, size)) };
        lock(&self.state.sent).insert(id.to_owned(), sent.clone());
        sent
    }

    /// The link to a file that a webhook of Messenger's or Instagram's carries, for so many milliseconds.
    pub fn meta_link(&self, id: &str, lives_ms: i64) -> String {
        self.state.link("meta", id, lives_ms)
    }

    /// The address of a file that a webhook of Twilio's carries.
    pub fn twilio_link(&self, id: &str) -> String {
        format!("{}/2010-04-01/Accounts/{TWILIO_SID}/Messages/MM01/Media/{id}", self.state.api)
    }

    /// Changes how they behave from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut lock(&self.state.behaviour));
    }

    /// What was sent.
    pub fn sent(&self) -> Vec<Sent> {
        lock(&self.state.sent).values().cloned().collect()
    }

    /// What happened to a file.
    pub fn served(&self, id: &str) -> Served {
        lock(&self.state.served).get(id).cloned().unwrap_or_default()
    }

    /// Everything that happened, added up.
    pub fn totals(&self) -> Served {
        lock(&self.state.served).values().fold(Served::default(), |all, one| Served {
            begun: all.begun + one.begun,
            cut: all.cut + one.cut,
            refused: all.refused + one.refused,
            expired: all.expired + one.expired,
            redirected: all.redirected + one.redirected,
            not_there_yet: all.not_there_yet + one.not_there_yet,
        })
    }

    /// How often credentials came where none may.
    pub fn leaks(&self) -> u64 {
        self.state.leaks.load(Ordering::Relaxed)
    }

    /// How often somebody came without the credentials that are needed.
    pub fn unauthorised(&self) -> u64 {
        self.state.unauthorised.load(Ordering::Relaxed)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

async fn run(listener: TcpListener, router: Router, stopping: CancellationToken) {
    let serving = axum::serve(listener, router).with_graceful_shutdown(stopping.clone().cancelled_owned());
    tokio::select! {
        _ = serving.into_future() => {}
        () = stopping.cancelled() => {}
    }
}

impl State {
    fn behaviour(&self) -> Behaviour {
        *lock(&self.behaviour)
    }

    fn find(&self, id: &str) -> Option<Sent> {
        lock(&self.sent).get(id).cloned()
    }

    fn note(&self, id: &str, change: impl FnOnce(&mut Served)) {
        change(lock(&self.served).entry(id.to_owned()).or_default());
    }

    /// Throws the dice: true in this share of the cases.
    fn roll(&self, rate: f64) -> bool {
        let throw = content::mix(self.seed ^ self.rolls.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9));
        (throw >> 11) as f64 / (1_u64 << 53) as f64 <= rate && rate > 0.0
    }

    /// A link to the CDN that lives for so long; in some of the cases it has been over for a while.
    fn link(&self, host: &str, id: &str, lives_ms: i64) -> String {
        let until = now_ms() + lives_ms;
        format!("{}/{host}/{id}?ext={until}&hash={}", self.cdn, hash(id, until))
    }

    /// A life that is over, in some of the cases.
    fn life(&self, lives_ms: i64) -> i64 {
        if self.roll(self.behaviour().expired_rate) { -60_000 } else { lives_ms }
    }
}

/// Whether a link is as it was handed out, and not over.
fn is_valid(id: &str, ext: &str, given: &str) -> bool {
    ext.parse::<i64>().is_ok_and(|until| hash(id, until) == given && now_ms() <= until)
}

fn hash(id: &str, until: i64) -> String {
    format!("{:016x}", content::mix(content::seed_of(id) ^ until.unsigned_abs()))
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
