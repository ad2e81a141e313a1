//! Fetching a file by its provider's rules: as whom, from where, and what a refusal means.
//!
//! | provider | how | contract |
//! |---|---|---|
//! | WhatsApp | the id leads to an address that lives five minutes; both with the account's token | providers/whatsapp section 9 |
//! | Messenger, Instagram | the address of the webhook, without credentials, while it lives | providers/messenger section 2.1, providers/instagram section 2.1 |
//! | Twilio | the address of the webhook with the account's credentials, which leads on to another host and goes there without them | providers/twilio section 12 |

use super::accounts::Account;
use chrono::TimeDelta;
use shared::{
    config::ProviderApis,
    db::media::fetching::File,
    domain::{channel::Provider, media::max_bytes},
    providers::{
        download::{Answer, Credentials, Downloader, Failure, NOT_AUTHORISED, Next, OfProvider, Saved},
        whatsapp,
    },
};
use std::path::PathBuf;
use url::Url;

/// No provider sends anybody further than this.
const MOST_REDIRECTS: usize = 3;
/// An address that WhatsApp gave lives for five minutes; one that is nearly over is not tried.
const FRESH_ADDRESS: TimeDelta = TimeDelta::minutes(4);
/// Twilio says of what it is still storing that it is not there.
const STILL_STORING: TimeDelta = TimeDelta::minutes(10);

/// Fetches files into a folder.
pub(super) struct Fetcher {
    pub(super) downloader: Downloader,
    pub(super) apis: ProviderApis,
    pub(super) folder: PathBuf,
}

/// A file that has come, with what the provider said of it on the way.
pub(super) struct Fetched {
    pub(super) saved: Saved,
    pub(super) declared_type: Option<String>,
    pub(super) declared_sha256: Option<String>,
    pub(super) filename: Option<String>,
}

/// A provider's description of a file.
#[derive(Default)]
struct Described {
    mime_type: Option<String>,
    sha256: Option<String>,
}

impl Fetcher {
    /// Fetches a file; with the account, if its provider wants to know who asks ([`asks_who`]).
    pub(super) async fn fetch(&self, file: &File, account: Option<&Account>) -> Result<Fetched, Failure> {
        match (file.provider, account) {
            (Provider::Whatsapp, Some(account)) => self.of_whatsapp(file, account).await,
            (Provider::Whatsapp | Provider::Twilio, None) => {
                Err(Failure::new("account_unusable", Next::Again(None), "Its account is not known."))
            }
            (Provider::Gateway, _) => {
                Err(Failure::new("no_source", Next::GiveUp, "A gateway tells nothing, and gives no files."))
            }
            (Provider::Messenger | Provider::Instagram, _) => {
                let answer = self.follow(&address(file)?, OfProvider::Meta, OfProvider::Meta, None).await?;
                // Whoever may not have it, may not have it any more: the address alone opens it.
                let gone =
                    || Failure::new("expired", Next::Expire, "The provider's link to the file is not valid any more.");
                match answer.status() {
                    401 | 403 | 404 | 410 => Err(gone()),
                    _ => self.take(file, answer, Described::default()).await,
                }
            }
            (Provider::Twilio, Some(account)) => {
                let url = address(file)?;
                let from = OfProvider::TwilioApi;
                let credentials = self.is_api(&url, &self.apis.twilio_base_url).then_some(&account.credentials);
                let answer = self.follow(&url, from, OfProvider::TwilioFiles, credentials).await?;
                match answer.status() {
                    404 if file.now - file.asked_at < STILL_STORING => {
                        Err(Failure::new("not_there_yet", Next::Again(None), "Twilio has not stored the file yet."))
                    }
                    404 | 410 => Err(Failure::new("expired", Next::Expire, "Twilio does not have the file any more.")),
                    _ => self.take(file, answer, Described::default()).await,
                }
            }
        }
    }

    async fn of_whatsapp(&self, file: &File, account: &Account) -> Result<Fetched, Failure> {
        let credentials = Some(&account.credentials);
        // The webhook's own address saves a question as long as it lives.
        let fresh = file.attempts == 0 && file.now - file.asked_at < FRESH_ADDRESS;
        if let Some(url) = file.url.as_deref().filter(|_| fresh || file.provider_media_id.is_none()) {
            let url = parse(url)?;
            let answer = self.follow(&url, OfProvider::Meta, OfProvider::Meta, credentials).await?;
            if file.provider_media_id.is_none() && answer.status() == 404 {
                let reason = "WhatsApp's link to the file is not valid any more, and it gave no id.";
                return Err(Failure::new("expired", Next::Expire, reason));
            }
            if answer.status() != 404 || file.provider_media_id.is_none() {
                return self.take(file, answer, Described::default()).await;
            }
        }
        let Some(id) = &file.provider_media_id else {
            return Err(Failure::new("no_source", Next::GiveUp, "The provider did not say where the file is."));
        };
        let path = whatsapp::media::path(&self.apis.whatsapp_api_version, id, &account.external_id);
        let asked = parse(&format!("{}{path}", self.apis.whatsapp_base_url.as_str().trim_end_matches('/')))?;
        let answer = self.downloader.get(&asked, OfProvider::Meta, credentials).await?;
        let (status, retry_after) = (answer.status(), answer.retry_after());
        let place = whatsapp::media::place(status, retry_after, &answer.text().await?)?;
        let answer = self.follow(&place.url, OfProvider::Meta, OfProvider::Meta, credentials).await?;
        if answer.status() == 404 {
            // Just given and not valid: the token is to be suspected. It is asked for anew the next time.
            let reason = "WhatsApp's link to the file was not valid; the account's access token may be to blame.";
            return Err(Failure::new("link_refused", Next::Again(None), reason));
        }
        self.take(file, answer, Described { mime_type: place.mime_type, sha256: place.sha256 }).await
    }

    /// Goes where an address leads, with the credentials to its own host alone.
    async fn follow(
        &self,
        url: &Url,
        first: OfProvider,
        then: OfProvider,
        credentials: Option<&Credentials>,
    ) -> Result<Answer, Failure> {
        let mut answer = self.downloader.get(url, first, credentials).await?;
        for _ in 0..MOST_REDIRECTS {
            let Some(next) = answer.redirect() else { return Ok(answer) };
            let same = next.origin() == url.origin();
            let of = if same { first } else { then };
            answer = self.downloader.get(&next, of, credentials.filter(|_| same)).await?;
        }
        match answer.redirect() {
            Some(_) => Err(Failure::new("too_many_redirects", Next::Refuse, "The file's address leads on and on.")),
            None => Ok(answer),
        }
    }

    /// The body of an answer that is one.
    async fn take(&self, file: &File, answer: Answer, described: Described) -> Result<Fetched, Failure> {
        if let Some(failure) = refusal(&answer) {
            return Err(failure);
        }
        let declared_type = file.declared_type.clone().or(described.mime_type).or_else(|| answer.content_type());
        let declared_sha256 = file.declared_sha256.clone().or(described.sha256);
        let filename = answer.filename();
        let saved = answer.save(&self.folder, max_bytes(file.channel, file.kind)).await?;
        Ok(Fetched { saved, declared_type, declared_sha256, filename })
    }

    fn is_api(&self, url: &Url, api: &Url) -> bool {
        url.origin() == api.origin()
    }
}

/// Whether this provider gives files only to who shows as which account; the others' links open by themselves.
pub(super) fn asks_who(provider: Provider) -> bool {
    match provider {
        Provider::Whatsapp | Provider::Twilio => true,
        Provider::Messenger | Provider::Instagram | Provider::Gateway => false,
    }
}

fn address(file: &File) -> Result<Url, Failure> {
    let url = file.url.as_deref();
    parse(url.ok_or_else(|| Failure::new("no_source", Next::GiveUp, "The provider did not say where the file is."))?)
}

fn parse(url: &str) -> Result<Url, Failure> {
    url.parse().map_err(|_| Failure::new("bad_address", Next::Refuse, "The file's address is none."))
}

/// What an answer that is no file means, where the provider has no rule of its own.
fn refusal(answer: &Answer) -> Option<Failure> {
    let status = answer.status();
    let again = Next::Again(answer.retry_after());
    match status {
        200..=299 => None,
        401 | 403 => {
            let reason = format!("The provider does not let the account have the file (status {status}).");
            Some(Failure::new(NOT_AUTHORISED, again, reason))
        }
        429 => Some(Failure::new("throttled", again, "The provider asked us to come back later.")),
        408 | 425 | 500..=599 => {
            Some(Failure::new("provider_failed", again, format!("The provider failed (status {status}).")))
        }
        _ => {
            let reason = format!("The provider refused the file (status {status}).");
            Some(Failure::new("provider_refused", Next::GiveUp, reason))
        }
    }
}
