//! The templates of an account, as its provider lists them; and single ones, made and deleted there. Why here: a list takes seconds and many calls, which no step of the scheduler
//! and no request may take, and this worker already has what asking a provider needs: the keys, the addresses, and jobs that may be slow.

use super::{AFTER_OPERATOR, Effect, FETCH_WITHIN, Inner, Of};
use crate::worker::{Settle, Ticket};
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::{
    db::{
        self, FleetTx,
        channel_accounts::{AccountSecrets, seal_context},
        media::fetching,
        templates::{
            making::{self, Claimed},
            sync,
        },
    },
    domain::{
        channel::{Channel, Provider},
        ids::{ChannelAccountId, TemplateId, TenantId},
        templates::TemplateInfo,
    },
    providers::templates::{Failed, NewTemplate, Owner, has_templates},
    seal::CannotOpen,
    telemetry::names,
};
use std::time::Duration;

/// What a provider said of templates.
#[derive(Debug)]
pub struct Said {
    tenant_id: TenantId,
    account: ChannelAccountId,
    what: What,
}

#[derive(Debug)]
enum What {
    /// All there were when it was asked, or why they could not be had.
    Listed(DateTime<Utc>, Result<Vec<TemplateInfo>, String>),
    /// Made, since this time at the earliest.
    Made(DateTime<Utc>, Box<TemplateInfo>),
    Deleted(TemplateId),
    /// It would neither make nor delete one, or nobody knows.
    Not(TemplateId, Value),
}

impl Said {
    /// How heavy it is for the database.
    pub(super) fn weight(&self) -> usize {
        match &self.what {
            What::Listed(_, Ok(templates)) => templates.len().max(1),
            _ => 1,
        }
    }
}

/// Writes down what a provider said.
pub(super) async fn record(tx: &mut FleetTx, said: &Said) -> Result<(), db::Error> {
    let Said { tenant_id, account, what } = said;
    match what {
        What::Listed(at, Ok(templates)) => sync::replace(tx, *tenant_id, *account, templates, *at).await,
        What::Listed(_, Err(why)) => sync::fail(tx, *tenant_id, *account, why).await,
        What::Made(at, template) => making::made(tx, *tenant_id, *account, template, *at).await,
        What::Deleted(id) => making::deleted(tx, *tenant_id, *account, *id).await,
        What::Not(id, problem) => making::failed(tx, *tenant_id, *account, *id, problem).await,
    }
}

/// An account as its provider is asked for it.
struct Asking {
    provider: Provider,
    channel: Channel,
    business_account_id: Option<String>,
    secrets: AccountSecrets,
    /// The database's time before anybody is asked.
    now: DateTime<Utc>,
}

/// Why nobody is asked.
enum NotAsked {
    /// There is no such account, or its provider has no templates.
    Nothing,
    /// Its secrets are of no use.
    Unusable(&'static str),
    /// We lack a key.
    Ours,
    /// The database.
    Failed(db::Error),
}

impl Inner {
    /// Asks for the templates of an account. What cannot be had is asked for again by the clock: nothing depends on this job.
    pub(super) async fn templates(
        &self,
        of: &Of,
        account: ChannelAccountId,
        ticket: Ticket<()>,
        settle: &Settle<Effect>,
    ) {
        let (at, listed) = match self.asking(of, account, settle).await {
            Ok(asking) => {
                let token = SecretString::from(asking.secrets.access_token.as_str());
                let owner = asking.owner(&token);
                let listing = tokio::time::timeout(FETCH_WITHIN, self.templates.list(&owner));
                let listed = tokio::select! {
                    biased;
                    listed = listing => listed,
                    () = self.life.stopping() => return settle.later(ticket, Duration::from_secs(1)),
                };
                let minutes = FETCH_WITHIN.as_secs() / 60;
                let listed = listed.unwrap_or_else(|_| {
                    Err(Failed::Away {
                        reason: format!("the list did not come within {minutes} minutes"),
                        retry_after: None,
                    })
                });
                let outcome = if listed.is_ok() { "fetched" } else { "failed" };
                let provider = asking.provider.as_str();
                metrics::counter!(names::TEMPLATE_LISTS, "provider" => provider, "outcome" => outcome).increment(1);
                (asking.now, listed.map_err(|failed| failed.to_string()))
            }
            Err(NotAsked::Unusable(why)) => (DateTime::UNIX_EPOCH, Err(why.to_owned())),
            Err(why) => return not_asked(why, ticket, settle),
        };
        let said = Said { tenant_id: of.tenant_id, account, what: What::Listed(at, listed) };
        settle.done(ticket, vec![of.placed(Effect::Templates(said))]);
    }

    /// Makes a template. Who was at it before and did not come back may have made it: it is not made twice.
    pub(super) async fn make_template(&self, of: &Of, id: TemplateId, ticket: Ticket<()>, settle: &Settle<Effect>) {
        let looking = || async move {
            let mut tx = self.databases.fleet(&of.placement, &[of.tenant_id]).await?;
            let account = making::wanted(&mut tx, of.tenant_id, id).await?;
            tx.commit().await?;
            Ok(account)
        };
        let account = match settle.outlast("looking for a template", looking).await {
            Ok(Some(account)) => account,
            Ok(None) => return settle.done(ticket, Vec::new()),
            Err(error) => return settle.retry(ticket, None, error),
        };
        let what = match self.asking(of, account, settle).await {
            Ok(asking) => {
                // Claimed last: whatever of ours is missing, nobody has been called.
                let claiming = || async move {
                    let mut tx = self.databases.fleet(&of.placement, &[of.tenant_id]).await?;
                    let claimed = making::claim(&mut tx, of.tenant_id, id).await?;
                    tx.commit().await?;
                    Ok(claimed)
                };
                let Claimed { request, again, .. } = match settle.outlast("claiming a template", claiming).await {
                    Ok(Some(claimed)) => claimed,
                    Ok(None) => return settle.done(ticket, Vec::new()),
                    Err(error) => return settle.retry(ticket, None, error),
                };
                match request.and_then(|request| serde_json::from_value::<NewTemplate>(request).ok()) {
                    _ if again => What::Not(id, unknown()),
                    None => What::Not(id, json!({"code": "request", "message": "what was asked for cannot be read"})),
                    Some(new) => {
                        let token = SecretString::from(asking.secrets.access_token.as_str());
                        // Not broken off when the process ends: it is bounded, and nobody could tell how far it came.
                        match self.templates.make(&asking.owner(&token), &new).await {
                            Ok(made) => What::Made(asking.now, Box::new(new.described(asking.provider, &made))),
                            Err(failed) => What::Not(id, failed.problem()),
                        }
                    }
                }
            }
            Err(NotAsked::Unusable(why)) => {
                What::Not(id, json!({"code": "account_unusable", "field": "channel_account_id", "message": why}))
            }
            Err(why) => return not_asked(why, ticket, settle),
        };
        settle.done(ticket, vec![of.placed(Effect::Templates(Said { tenant_id: of.tenant_id, account, what }))]);
    }

    /// Deletes a template. Twice is once.
    pub(super) async fn delete_template(&self, of: &Of, id: TemplateId, ticket: Ticket<()>, settle: &Settle<Effect>) {
        let looking = || async move {
            let mut tx = self.databases.fleet(&of.placement, &[of.tenant_id]).await?;
            let found = making::deleting(&mut tx, of.tenant_id, id).await?;
            tx.commit().await?;
            Ok(found)
        };
        let Claimed { account, name, provider_id, .. } = match settle.outlast("looking for a template", looking).await {
            Ok(Some(found)) => found,
            Ok(None) => return settle.done(ticket, Vec::new()),
            Err(error) => return settle.retry(ticket, None, error),
        };
        let what = match self.asking(of, account, settle).await {
            Ok(asking) => {
                let token = SecretString::from(asking.secrets.access_token.as_str());
                match self.templates.delete(&asking.owner(&token), &name, provider_id.as_deref()).await {
                    Ok(()) => What::Deleted(id),
                    Err(failed) => What::Not(id, failed.problem()),
                }
            }
            Err(NotAsked::Unusable(why)) => {
                What::Not(id, json!({"code": "account_unusable", "field": "channel_account_id", "message": why}))
            }
            Err(why) => return not_asked(why, ticket, settle),
        };
        settle.done(ticket, vec![of.placed(Effect::Templates(Said { tenant_id: of.tenant_id, account, what }))]);
    }

    async fn asking(&self, of: &Of, account: ChannelAccountId, settle: &Settle<Effect>) -> Result<Asking, NotAsked> {
        let loading = || async move {
            let mut tx = self.databases.fleet(&of.placement, &[of.tenant_id]).await?;
            let row = fetching::account(&mut tx, of.tenant_id, account).await?;
            let now = tx.now().await?;
            tx.commit().await?;
            Ok(row.map(|row| (row, now)))
        };
        let (row, now) = match settle.outlast("loading an account", loading).await {
            Ok(Some((row, now))) if has_templates(row.provider) => (row, now),
            Ok(_) => return Err(NotAsked::Nothing),
            Err(error) => return Err(NotAsked::Failed(error)),
        };
        let secrets = match self.keyring.open(&row.secret_key_id, &seal_context(account), &row.sealed_secrets) {
            // What serde says might quote them.
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|_| NotAsked::Unusable("the account's secrets are not readable"))?,
            Err(CannotOpen::UnknownKey(_)) => return Err(NotAsked::Ours),
            Err(CannotOpen::Tampered) => return Err(NotAsked::Unusable("the account's secrets cannot be opened")),
        };
        Ok(Asking {
            provider: row.provider,
            channel: Channel::of_account(row.provider, &row.external_id),
            business_account_id: row.business_account_id,
            secrets,
            now,
        })
    }
}

impl Asking {
    fn owner<'a>(&'a self, token: &'a SecretString) -> Owner<'a> {
        Owner {
            provider: self.provider,
            channel: self.channel,
            business_account_id: self.business_account_id.as_deref(),
            username: self.secrets.username.as_deref(),
            token,
        }
    }
}

fn not_asked(why: NotAsked, ticket: Ticket<()>, settle: &Settle<Effect>) {
    match why {
        NotAsked::Nothing | NotAsked::Unusable(_) => settle.done(ticket, Vec::new()),
        NotAsked::Ours => {
            tracing::warn!("templates wait for us: a sealing key is missing");
            settle.later(ticket, AFTER_OPERATOR);
        }
        NotAsked::Failed(error) => settle.retry(ticket, None, error),
    }
}

fn unknown() -> Value {
    json!({"code": "unknown", "message": "it is not known whether it was made: the account's templates are fetched, and will show it"})
}
