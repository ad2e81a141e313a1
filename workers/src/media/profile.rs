//! Who somebody is, where a provider tells only who asks: a name, and a copy of the picture, whose link expires.

use super::{
    AFTER_OPERATOR, AFTER_OURS, Effect, Inner, Of,
    looks::measure,
    store::{self, Bytes, STORAGE_BUSY, refuse_bomb},
};
use crate::worker::{Settle, Ticket};
use chrono::TimeDelta;
use shared::{
    db::media::profiles::{self, Answer, Avatar, Wanted},
    domain::{
        channel::Provider,
        ids::ContactId,
        media::{Judgement, is_safe_inline, judge},
    },
    providers::{
        download::{Failure, Next, OfProvider, STORAGE_AWAY},
        instagram, messenger,
        messenger::profile::{Answer as Said, Profile},
    },
    retry::before_retry,
};
use std::time::Duration;
use url::Url;

/// An avatar is no larger.
const MAX_AVATAR_BYTES: u64 = 5 * 1024 * 1024;
/// It is asked so often before it is left alone for a day.
const MOST_ATTEMPTS: i32 = 5;
/// A provider answers within this, and gives the picture within as much again.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

impl Inner {
    /// Asks about somebody.
    pub(super) async fn person(&self, of: &Of, contact_id: ContactId, ticket: Ticket<()>, settle: &Settle<Effect>) {
        let looking = || async move {
            let mut tx = self.databases.fleet(&of.placement, &[of.tenant_id]).await?;
            let wanted = profiles::wanted(&mut tx, of.tenant_id, contact_id).await?;
            tx.commit().await?;
            Ok(wanted)
        };
        let wanted = match settle.outlast("looking whom to ask about", looking).await {
            Ok(Some(wanted)) => wanted,
            Ok(None) => return settle.done(ticket, Vec::new()),
            Err(error) => return settle.retry(ticket, None, error),
        };
        let answer = tokio::select! {
            biased;
            answer = self.ask(of, &wanted, settle) => answer,
            () = self.life.stopping() => return settle.later(ticket, Duration::from_secs(1)),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(Failure { next: Next::Ours, reason, code }) => {
                if code == STORAGE_AWAY {
                    self.outage.begin(&reason, settle);
                    return settle.later(ticket, AFTER_OURS);
                }
                tracing::warn!(code, reason, "somebody is asked about later: it waits for us");
                return settle.later(ticket, AFTER_OPERATOR);
            }
            Err(failure) => after_failure(&wanted, failure),
        };
        settle.done(ticket, vec![of.placed(Effect::Asked(of.tenant_id, contact_id, answer))]);
    }

    async fn ask(&self, of: &Of, wanted: &Wanted, settle: &Settle<Effect>) -> Result<Answer, Failure> {
        let account = self.account(of, wanted.channel_account_id, settle).await?;
        let apis = &self.fetcher.apis;
        let (base, path) = match wanted.provider {
            Provider::Messenger => {
                (&apis.messenger_base_url, messenger::profile::path(&apis.messenger_api_version, &wanted.person_id))
            }
            Provider::Instagram if account.by_instagram_login => {
                (&apis.instagram_base_url, instagram::profile::path(&apis.instagram_api_version, &wanted.person_id))
            }
            Provider::Instagram => {
                (&apis.messenger_base_url, instagram::profile::path(&apis.messenger_api_version, &wanted.person_id))
            }
            Provider::Whatsapp | Provider::Twilio | Provider::Gateway => {
                return Ok(unavailable("not_asked", "The provider says people's names by itself."));
            }
        };
        let url = format!("{}{path}", base.as_str().trim_end_matches('/'));
        let url: Url =
            url.parse().map_err(|_| Failure::new("bad_address", Next::Refuse, "The person's id makes no address."))?;
        let downloader = &self.fetcher.downloader;
        let (status, retry_after, body) = in_time(async {
            let answer = downloader.get(&url, OfProvider::Meta, Some(&account.credentials)).await?;
            Ok((answer.status(), answer.retry_after(), answer.text().await?))
        })
        .await?;
        let said = match wanted.provider {
            Provider::Instagram => instagram::profile::read(status, &body),
            _ => messenger::profile::read(status, &body),
        };
        match said {
            Said::Profile(Profile { name, username, picture_url }) => {
                let avatar = match picture_url {
                    Some(url) => self.avatar(of, &url, settle).await?,
                    None => None,
                };
                Ok(Answer::Known { name, username, avatar })
            }
            Said::Unavailable { code } => {
                Ok(unavailable(&code, "The person has no profile, or has not consented to its being seen."))
            }
            Said::NotPermitted { code } => {
                Ok(unavailable(&code, "The account may not ask who people are: see its access token and permissions."))
            }
            Said::Later { code } => {
                let reason = format!("The provider could not say who it is (code {code}).");
                Err(Failure::new("provider_failed", Next::Again(retry_after), reason))
            }
        }
    }

    /// A copy of somebody's picture. One that cannot be had is no reason not to know their name; only our own failures are, and that the
    /// same picture is just being deleted.
    async fn avatar(&self, of: &Of, url: &str, settle: &Settle<Effect>) -> Result<Option<Avatar>, Failure> {
        match self.copy(of, url, settle).await {
            Ok(avatar) => Ok(Some(avatar)),
            Err(failure) if failure.next == Next::Ours || failure.code == STORAGE_BUSY => Err(failure),
            Err(failure) => {
                tracing::debug!(%failure, "somebody's picture cannot be had");
                Ok(None)
            }
        }
    }

    async fn copy(&self, of: &Of, url: &str, settle: &Settle<Effect>) -> Result<Avatar, Failure> {
        let refuse = |reason: &str| Failure::new("bad_avatar", Next::Refuse, reason);
        let url: Url = url.parse().map_err(|_| refuse("The picture's address is none."))?;
        let (declared, saved) = in_time(async {
            let answer = self.fetcher.downloader.get(&url, OfProvider::Meta, None).await?;
            if answer.status() != 200 {
                return Err(refuse("The picture is not there."));
            }
            let declared = answer.content_type();
            Ok((declared, answer.save(&self.fetcher.folder, MAX_AVATAR_BYTES).await?))
        })
        .await?;
        let content_type = match judge(declared.as_deref(), &saved.head) {
            Judgement::Store(found) if found.starts_with("image/") && is_safe_inline(&found) => found,
            _ => return Err(refuse("The picture is none.")),
        };
        if let Some(dimensions) = measure(&saved, &content_type).await {
            refuse_bomb(dimensions, saved.size_bytes)?;
        }
        let key = store::key_of(of.tenant_id, &saved);
        self.announce(of, std::slice::from_ref(&key), None, settle).await?;
        self.put(of, &key, Bytes::In(&saved), settle).await?;
        Ok(Avatar { storage_key: key, content_type, size_bytes: saved.size_bytes })
    }
}

/// What a provider has to do, in the time that it has for it. What we do takes our own time.
async fn in_time<T>(asking: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, asking).await;
    answer.unwrap_or_else(|_| Err(Failure::new("too_slow", Next::Again(None), "The provider did not answer in time.")))
}

fn unavailable(code: &str, reason: &str) -> Answer {
    Answer::Unavailable { code: code.to_owned(), reason: reason.to_owned() }
}

/// Tried again for a while, and then left alone until the day is over.
fn after_failure(wanted: &Wanted, failure: Failure) -> Answer {
    let Failure { code, reason, next } = failure;
    match next {
        Next::Again(after) if wanted.attempts < MOST_ATTEMPTS => {
            let wait = after.unwrap_or_else(|| before_retry(u32::try_from(wanted.attempts + 1).unwrap_or(1)));
            let after = TimeDelta::from_std(wait).unwrap_or(TimeDelta::minutes(15));
            Answer::PutOff { after, code: code.to_owned(), reason }
        }
        _ => unavailable(code, &reason),
    }
}
