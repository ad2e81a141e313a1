//! Files that providers fetch from a link in a send. Only what points to this machine is really fetched: anything else is taken to be
//! there.

use super::provider::Provider;
use std::time::Duration;

/// How long a provider waits for a file (messenger contract page, section 3.2).
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The same for a video.
pub(super) const PATIENCE_FOR_VIDEO: Duration = Duration::from_secs(75);

/// What is behind a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetched {
    /// Without its parameters; empty if the host did not say.
    pub(super) content_type: String,
    pub(super) bytes: u64,
}

/// Why a file did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotFetched {
    /// It is no link to anything.
    NoLink,
    /// Not in time.
    Late,
    /// Not there, or led elsewhere.
    Gone,
}

/// Fetches a file; `None` if it is not on this machine.
pub(super) async fn fetch(provider: &Provider, link: &str, patience: Duration) -> Result<Option<Fetched>, NotFetched> {
    let url = url::Url::parse(link).map_err(|_| NotFetched::NoLink)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(NotFetched::NoLink);
    }
    let here = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => return Err(NotFetched::NoLink),
    };
    if !here {
        return Ok(None);
    }
    provider.note_fetched(link);
    let fetching = async {
        let response = provider.http.get(url).send().await.map_err(|_| NotFetched::Gone)?;
        if !response.status().is_success() {
            return Err(NotFetched::Gone);
        }
        let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("");
        let content_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let body = response.bytes().await.map_err(|_| NotFetched::Gone)?;
        provider.handed.fetched(link, &body);
        Ok(Some(Fetched { content_type, bytes: body.len() as u64 }))
    };
    tokio::time::timeout(patience, fetching).await.unwrap_or(Err(NotFetched::Late))
}
