//! Fetching what a provider says lies somewhere. The address comes from a webhook, so it is a stranger's word: it is followed only
//! over TLS, to hosts where the provider keeps files, at addresses of the public internet; a redirect is followed by who asked, by
//! hand, under the same rules. What comes is written to a file as it comes, counted and digested on the way.

mod addresses;
mod hosts;

pub use hosts::{BadHost, Hosts, OfProvider};

use crate::domain::media::HEAD_BYTES;
use addresses::{NotPublic, PublicOnly};
use reqwest::{
    Client,
    header::{
        AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    },
    redirect::Policy,
};
use sha2::{Digest, Sha256};
use std::{fmt, io, path::Path, sync::Arc, time::Duration};
use tempfile::TempPath;
use tokio::io::{AsyncWriteExt, BufWriter};
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Who says nothing for so long has nothing more to say.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// An answer that is to be read, not stored, is no longer than this.
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// What has come is written in pieces of this size.
const WRITE_BYTES: usize = 128 * 1024;
/// Nobody is waited for longer, whatever they ask.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(6 * 3600);
const MAX_FILENAME_CHARS: usize = 200;
/// The code of a failure of ours: what came cannot be put down.
pub const STORAGE_AWAY: &str = "storage_away";
/// The code of a file that the account may not have.
pub const NOT_AUTHORISED: &str = "not_authorised";
/// The code of an address where nothing of ours may go.
pub const PRIVATE_ADDRESS: &str = "private_address";
/// What is on its way is called so, perhaps in a folder that is everybody's.
const INCOMING: &str = "mijra-incoming-";

/// Fetches. Cheap to clone; connections are kept and shared.
#[derive(Clone, Debug)]
pub struct Downloader {
    client: Client,
    hosts: Arc<Hosts>,
}

/// What a call carries to show as whom it is made. Never shown.
#[derive(Clone, Debug)]
pub struct Credentials(HeaderValue);

impl Credentials {
    /// `Bearer …` or `Basic …`; `None` if no header can hold it.
    pub fn new(value: &str) -> Option<Self> {
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }
}

/// Why nothing came, or not what should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for a person.
    pub reason: String,
    /// What to do.
    pub next: Next,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again, after so long if the provider said so.
    Again(Option<Duration>),
    /// Nothing: it is no longer to be had.
    Expire,
    /// Nothing: we do not want it.
    Refuse,
    /// Nothing: its provider will not give it.
    GiveUp,
    /// Wait until our own disk is in order: nobody else is to blame.
    Ours,
}

impl Failure {
    /// A failure.
    pub fn new(code: &'static str, next: Next, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), next }
    }
}

/// The head of an answer; its body is still to come.
#[derive(Debug)]
pub struct Answer(reqwest::Response);

/// What came, in a file that is deleted when this is dropped.
#[derive(Debug)]
pub struct Saved {
    /// Where it is.
    pub path: TempPath,
    /// How large it is.
    pub size_bytes: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// Its first bytes.
    pub head: Vec<u8>,
}

impl Downloader {
    /// A downloader that goes where these hosts are.
    ///
    /// # Errors
    /// If the TLS backend cannot be set up.
    pub fn new(hosts: Hosts) -> reqwest::Result<Self> {
        let hosts = Arc::new(hosts);
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(IDLE_TIMEOUT)
            .redirect(Policy::none())
            // A proxy would look names up by itself, and we would not know where it went.
            .no_proxy()
            .referer(false)
            // Some of a library's own names are refused (providers/whatsapp section 9).
            .user_agent("Mijra/0.1")
            .dns_resolver(PublicOnly::new(hosts.clone()))
            .build()?;
        Ok(Self { client, hosts })
    }

    /// Asks for what is at an address, if it is one where this provider keeps files.
    ///
    /// # Errors
    /// If nobody may go there, or nobody answers.
    pub async fn get(&self, url: &Url, of: OfProvider, credentials: Option<&Credentials>) -> Result<Answer, Failure> {
        self.hosts.check(url, of)?;
        let mut request = self.client.get(url.clone());
        if let Some(Credentials(value)) = credentials {
            request = request.header(AUTHORIZATION, value.clone());
        }
        request.send().await.map(Answer).map_err(|error| broken(error, "The provider did not answer"))
    }
}

impl Answer {
    /// Its HTTP status.
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// Where it leads instead, if it does.
    pub fn redirect(&self) -> Option<Url> {
        let leads = matches!(self.status(), 301 | 302 | 303 | 307 | 308);
        let location = self.header(LOCATION).filter(|_| leads)?;
        self.0.url().join(location).ok()
    }

    /// How long the provider asks us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.header(RETRY_AFTER)?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
    }

    /// The type it declares.
    pub fn content_type(&self) -> Option<String> {
        self.header(CONTENT_TYPE).filter(|text| text.len() <= 200).map(str::to_owned)
    }

    /// The name it declares.
    pub fn filename(&self) -> Option<String> {
        filename(self.0.headers())
    }

    fn header(&self, name: HeaderName) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }

    /// Reads a short answer.
    ///
    /// # Errors
    /// If it breaks off or is not short.
    pub async fn text(mut self) -> Result<Vec<u8>, Failure> {
        let mut text = Vec::new();
        while let Some(piece) = self.0.chunk().await.map_err(|error| broken(error, "The answer broke off"))? {
            if text.len() + piece.len() > MAX_TEXT_BYTES {
                return Err(Failure::new("unreadable_answer", Next::Again(None), "The answer is far too long."));
            }
            text.extend_from_slice(&piece);
        }
        Ok(text)
    }

    /// Writes the body to a file in this folder, as it comes. More bytes than `most` are cut off and nothing is kept.
    ///
    /// # Errors
    /// If it breaks off, is too large, or cannot be written.
    pub async fn save(mut self, folder: &Path, most: u64) -> Result<Saved, Failure> {
        let too_large = || {
            let reason = format!("The file has more than the {} MiB that such a file may have.", most / (1024 * 1024));
            Failure::new("too_large", Next::Refuse, reason)
        };
        if self.0.content_length().is_some_and(|length| length > most) {
            return Err(too_large());
        }
        let (file, path) = tempfile::Builder::new().prefix(INCOMING).tempfile_in(folder).map_err(disk)?.into_parts();
        let mut file = BufWriter::with_capacity(WRITE_BYTES, tokio::fs::File::from_std(file));
        let (mut size_bytes, mut digest, mut head) = (0_u64, Sha256::new(), Vec::new());
        while let Some(piece) = self.0.chunk().await.map_err(|error| broken(error, "The file broke off"))? {
            size_bytes += piece.len() as u64;
            if size_bytes > most {
                return Err(too_large());
            }
            digest.update(&piece);
            head.extend(piece.iter().take(HEAD_BYTES - head.len()));
            file.write_all(&piece).await.map_err(disk)?;
        }
        file.flush().await.map_err(disk)?;
        Ok(Saved { path, size_bytes, sha256: digest.finalize().into(), head })
    }
}

/// Whether a file of this name is one that is, or was, on its way.
pub fn is_incoming(name: &str) -> bool {
    name.starts_with(INCOMING)
}

/// Writes a little to a folder and removes it: whether it takes anything at all. Blocks.
///
/// # Errors
/// If it does not.
pub fn try_folder(folder: &Path) -> io::Result<()> {
    use io::Write;
    tempfile::tempfile_in(folder)?.write_all(&[0; HEAD_BYTES])
}

fn disk(error: io::Error) -> Failure {
    Failure::new(STORAGE_AWAY, Next::Ours, format!("What came cannot be written down here: {error}"))
}

/// The URL may hold what opens the file to anybody.
fn broken(error: reqwest::Error, what: &str) -> Failure {
    let error = error.without_url();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut last = String::new();
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<NotPublic>() {
            // Its host is one of the provider's: as a rule it is our own resolver that is wrong, and not for ever.
            let reason = format!("The file's address is refused: {refused}.");
            return Failure::new(PRIVATE_ADDRESS, Next::Again(None), reason);
        }
        last = error.to_string();
        cause = error.source();
    }
    let code = if error.is_connect() { "unreachable" } else { "broken_off" };
    let why = if error.is_timeout() { "it took too long".to_owned() } else { last };
    Failure::new(code, Next::Again(None), format!("{what}: {why}."))
}

/// The name in `Content-Disposition` (RFC 6266), without a path.
fn filename(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_DISPOSITION)?.to_str().ok()?;
    let parameter = |name: &str| {
        text.split(';').skip(1).find_map(|part| {
            let (key, value) = part.trim().split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
        })
    };
    let extended = parameter("filename*").and_then(|value| {
        let (charset, rest) = value.split_once('\'')?;
        let encoded = rest.split_once('\'')?.1.replace('+', "%2B");
        let pair = format!("n={encoded}");
        let (_, name) = url::form_urlencoded::parse(pair.as_bytes()).next()?;
        charset.eq_ignore_ascii_case("utf-8").then(|| name.into_owned())
    });
    let name = extended.or_else(|| parameter("filename"))?;
    let name: String =
        name.rsplit(['/', '\\']).next()?.chars().filter(|c| !c.is_control()).take(MAX_FILENAME_CHARS).collect();
    let name = name.trim();
    (!name.is_empty() && name != "." && name != "..").then(|| name.to_owned())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.reason)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "servers of tests end with them")]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
    };

    /// Answers each connection with these bytes, and then with `more` until nobody reads any more.
    async fn server(answer: &'static str, more: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move { speak(&mut stream, answer, more).await });
            }
        });
        address
    }

    async fn speak(stream: &mut TcpStream, answer: &str, more: &[u8]) {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(answer.as_bytes()).await;
        while !more.is_empty() && stream.write_all(more).await.is_ok() {}
    }

    fn trusting(address: SocketAddr) -> Downloader {
        Downloader::new(Hosts::parse(&format!("http://{address}")).unwrap()).unwrap()
    }

    async fn save(address: SocketAddr, most: u64) -> Result<Saved, Failure> {
        let url = format!("http://{address}/x").parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let answer = trusting(address).get(&url, OfProvider::Meta, None).await?;
        let saved = answer.save(folder.path(), most).await;
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, usize::from(saved.is_ok()), "what failed leaves no file");
        saved
    }

    #[tokio::test]
    async fn what_comes_is_written_counted_and_digested() {
        let saved = save(server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"").await, 5).await.unwrap();
        assert_eq!((saved.size_bytes, saved.head.as_slice()), (5, &b"hello"[..]));
        assert_eq!(saved.sha256, <[u8; 32]>::from(Sha256::digest("hello")));
    }

    #[tokio::test]
    async fn what_is_too_large_by_its_head_or_by_its_body_is_refused() {
        for server in [
            server("HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", b"").await,
            server("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", &[b'x'; 65536]).await,
        ] {
            let failure = save(server, 1024 * 1024).await.unwrap_err();
            assert_eq!((failure.code, failure.next), ("too_large", Next::Refuse), "{failure}");
        }
    }

    #[tokio::test]
    async fn what_breaks_off_is_tried_again() {
        let failure =
            save(server("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", b"").await, 50).await.unwrap_err();
        assert_eq!((failure.code, failure.next), ("broken_off", Next::Again(None)), "{failure}");
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let failure = save(nobody, 50).await.unwrap_err();
        assert_eq!((failure.code, failure.next), ("unreachable", Next::Again(None)), "{failure}");
    }

    #[tokio::test]
    async fn a_name_is_refused_by_the_address_it_leads_to_when_it_is_connected() {
        // A name of a provider's, as the allow-list sees it, and the system says that it is this machine.
        let downloader = Downloader::new(Hosts::parse("localhost").unwrap()).unwrap();
        let url = "https://localhost/x".parse().unwrap();
        let failure = downloader.get(&url, OfProvider::Meta, None).await.unwrap_err();
        assert_eq!((failure.code, failure.next), ("private_address", Next::Again(None)), "{failure}");
    }

    #[test]
    fn names_of_files_are_read_without_their_paths() {
        for (header, name) in [
            ("attachment; filename=\"a b.pdf\"", Some("a b.pdf")),
            ("attachment; filename=x.bin; filename*=UTF-8''na%C3%AFve+1.txt", Some("naïve+1.txt")),
            ("attachment; filename=\"../../etc/passwd\"", Some("passwd")),
            ("attachment; filename=\"C:\\\\a\\\\b.doc\"", Some("b.doc")),
            ("inline", None),
            ("attachment; filename=\"..\"", None),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_DISPOSITION, HeaderValue::from_str(header).unwrap())]);
            assert_eq!(filename(&headers).as_deref(), name, "{header}");
        }
    }
}
