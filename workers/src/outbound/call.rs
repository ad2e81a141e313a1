//! Calls: each granted send is handed to its provider at once, spaced by its account's own governor, and its job settled with
//! what became of it.

use super::{
    accounts::{Account, Accounts, Unusable},
    breaker::Breakers,
    hold::HeldSend,
    uploads::{NotUploaded, Uploads},
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use moka::sync::Cache;
use shared::{
    crash::{self, CrashPoint},
    db::{
        self, Placement,
        files::{KeptFile, Wanted},
        outbound::{
            grant::{Grant, Room},
            outcomes::{Place, Says, What},
            probes::{ERROR_RATE, SECRETS},
        },
    },
    domain::{
        channel::Provider,
        content::{FileRef, OutboundContent},
        events::SendToken,
        ids::{AttemptId, ChannelAccountId, FileId, TenantId},
        outcome::{Accepted, Class, NotSent, Outcome},
        people::{Recipient, RecipientKind},
        retrying::{Next, Policy},
        uploads::{LIVES, NEW_FOR},
    },
    health::Condition,
    lifecycle::Lifecycle,
    providers::{
        hand_over,
        http::{ProviderClient, Send},
        sending::{HandOver, Handle, Handles},
    },
    retry,
    telemetry::names,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;

/// A grant older than this is given back instead of called: the rate it was metered for has passed.
const GRANT_GOOD_FOR: Duration = Duration::from_secs(1);
/// What could not be handed over in so long a time of trying is not news any more.
const TOO_OLD: chrono::TimeDelta = chrono::TimeDelta::hours(24);
/// How long nothing is granted to an account whose provider throttles without saying for how long.
const THROTTLED: Duration = Duration::from_millis(500);

/// How long another worker is given to find a key that this one lacks.
const NO_KEY: Duration = Duration::from_secs(30);
/// One account may have this part of all calls under way.
const ACCOUNT_SHARE: usize = 4;

type Granted = (HeldSend, Place, Box<Grant>);
type Readable = (HeldSend, Place, Box<Grant>, OutboundContent);
/// By which ids providers keep files.
type Kept = HashMap<Wanted, KeptFile>;

/// Makes calls.
pub(super) struct Caller {
    client: ProviderClient,
    accounts: Arc<Accounts>,
    breakers: Arc<Breakers>,
    uploads: Uploads,
    calls: Arc<Calls>,
    max_calls: usize,
    spacing: Cache<(ChannelAccountId, u32), Arc<DefaultDirectRateLimiter>>,
    /// Whether all secrets met so far could be opened. Keys are read at the start, so only a restart mends it.
    keys: Condition,
    life: Lifecycle,
}

/// The calls under way, by account.
#[derive(Debug, Default)]
struct Calls(Mutex<HashMap<ChannelAccountId, usize>>);

/// A call under way, from being granted until its end.
struct Call {
    of: Arc<Calls>,
    account: ChannelAccountId,
}

impl Calls {
    fn begin(self: &Arc<Self>, account: ChannelAccountId) -> Call {
        *self.0.lock().expect("nothing panics while this is locked").entry(account).or_default() += 1;
        Call { of: self.clone(), account }
    }

    fn count(&self) -> usize {
        self.0.lock().expect("nothing panics while this is locked").values().sum()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut calls = self.of.0.lock().expect("nothing panics while this is locked");
        if let Some(count) = calls.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                calls.remove(&self.account);
            }
        }
    }
}

impl Caller {
    pub(super) fn new(
        client: ProviderClient,
        accounts: Arc<Accounts>,
        uploads: Uploads,
        max_calls: usize,
        keys: Condition,
        life: Lifecycle,
    ) -> Self {
        let spacing = Cache::builder().max_capacity(10_000).time_to_idle(Duration::from_secs(60)).build();
        keys.ready();
        let (breakers, calls) = (Arc::default(), Arc::default());
        Self { client, accounts, breakers, uploads, calls, max_calls, spacing, keys, life }
    }

    /// So many more calls can be made now.
    pub(super) fn room(&self) -> usize {
        self.max_calls.saturating_sub(self.calls.count())
    }

    /// So many more of each account.
    pub(super) fn room_by_account(&self) -> Room {
        let per_account = (self.max_calls / ACCOUNT_SHARE).max(1);
        let calls = self.calls.0.lock().expect("nothing panics while this is locked");
        let left = calls.iter().map(|(id, count)| (*id, per_account.saturating_sub(*count))).collect();
        Room { per_account, left }
    }

    /// Calls for each of these. `asked_at` is when their grants were asked for.
    pub(super) async fn call(
        &self,
        asked_at: Instant,
        placement: &Placement,
        granted: Vec<(HeldSend, Place, Box<Grant>)>,
    ) {
        if granted.is_empty() {
            return;
        }
        let wanted: BTreeMap<_, _> = granted
            .iter()
            .map(|(send, place, _)| ((send.tenant_id, place.channel_account_id), place.account_revision))
            .collect();
        let accounts = match self.accounts.load(placement, &wanted).await {
            Ok(accounts) => accounts,
            Err(error) => {
                tracing::warn!(%error, "accounts could not be loaded, their grants are given back");
                for (send, place, grant) in granted {
                    send.record(Some(place), given_back(&grant, "the account could not be loaded"));
                }
                return;
            }
        };
        let (granted, files) = match self.with_files(placement, granted).await {
            Ok(granted) => granted,
            Err((granted, error)) => {
                tracing::warn!(%error, "files could not be looked up, their grants are given back");
                for (send, place, grant) in granted {
                    send.record(Some(place), given_back(&grant, "its files could not be looked up"));
                }
                return;
            }
        };
        for (send, mut place, grant, content) in granted {
            match accounts.get(&(send.tenant_id, place.channel_account_id)) {
                Some(Ok(account)) => {
                    place.account_revision = account.revision;
                    let provider = account.endpoint.sender().provider;
                    let said = self.said(provider, content, (send.tenant_id, place.channel_account_id), &files);
                    self.spawn(asked_at, placement.clone(), account.clone(), (send, place, grant), said);
                }
                Some(Err(Unusable::Secrets(why))) => {
                    tracing::error!(account = %place.channel_account_id, why, "an account's secrets are unusable");
                    let what =
                        What::AccountDown { attempt_id: grant.attempt_id, code: SECRETS.into(), reason: why.clone() };
                    send.record(Some(place), what);
                }
                // Our own fault: nobody is charged, and another worker may have the key.
                Some(Err(Unusable::NoKey(why))) => {
                    tracing::error!(account = %place.channel_account_id, why, "MIJRA_SECRET_KEYS lacks a key");
                    self.keys.not_ready(why.clone());
                    let (attempt_id, reason) = (grant.attempt_id, why.clone());
                    send.record(Some(place), What::GivenBack { attempt_id, reason, after: Some(NO_KEY) });
                }
                None => send.record(Some(place), given_back(&grant, "the account is gone")),
            }
        }
    }

    /// What each of these says, and by which ids the accounts' providers keep the files in it. One that cannot be read is settled here.
    async fn with_files(
        &self,
        placement: &Placement,
        granted: Vec<Granted>,
    ) -> Result<(Vec<Readable>, Kept), (Vec<Granted>, db::Error)> {
        let mut wanted: BTreeSet<Wanted> = BTreeSet::new();
        let mut readable = Vec::with_capacity(granted.len());
        for (send, place, grant) in granted {
            match serde_json::from_str::<OutboundContent>(&grant.content) {
                Ok(content) => {
                    let ids = content.files().into_iter().filter_map(|(_, file)| file.id);
                    wanted.extend(ids.map(|id| (send.tenant_id, place.channel_account_id, id)));
                    readable.push((send, place, grant, content));
                }
                Err(error) => {
                    let reason = format!("the stored content is not readable: {error}");
                    let (attempt_id, code) = (grant.attempt_id, "content".to_owned());
                    send.record(Some(place), What::Failed { attempt_id, code, reason, says: Says::Nothing });
                }
            }
        }
        if wanted.is_empty() {
            return Ok((readable, Kept::default()));
        }
        match self.accounts.kept_files(placement, &wanted.into_iter().collect::<Vec<_>>()).await {
            Ok(kept) => Ok((readable, kept)),
            Err(error) => {
                let granted = readable.into_iter().map(|(send, place, grant, _)| (send, place, grant)).collect();
                Err((granted, error))
            }
        }
    }

    /// What a send says, and where its files are: by the provider's id where it has one and takes it there, else behind a link of ours.
    /// What the provider wants uploaded and does not have is to be uploaded first.
    fn said(
        &self,
        provider: Provider,
        content: OutboundContent,
        (tenant_id, account): (TenantId, ChannelAccountId),
        kept: &Kept,
    ) -> Said {
        let way = hand_over(provider, &content);
        let (mut handles, mut uploads) = (Handles::new(), Vec::new());
        for id in content.files().into_iter().filter_map(|(_, file)| file.id) {
            let wanted = (tenant_id, account, id);
            let handle = match kept.get(&wanted).filter(|_| way != HandOver::Link) {
                Some(kept) if way == HandOver::Upload && kept.left > LIVES - NEW_FOR => {
                    Handle::NewId(kept.provider_file_id.clone())
                }
                Some(kept) => Handle::Id(kept.provider_file_id.clone()),
                None => {
                    if way == HandOver::Upload {
                        uploads.push(wanted);
                    }
                    Handle::Link(self.accounts.link(tenant_id, id))
                }
            };
            handles.insert(id, handle);
        }
        Said { content, handles, uploads }
    }

    fn spawn(
        &self,
        asked_at: Instant,
        placement: Placement,
        account: Arc<Account>,
        (send, place, grant): Granted,
        mut said: Said,
    ) {
        let uploads = (!said.uploads.is_empty()).then(|| self.uploads.clone());
        let (client, call) = (self.client.clone(), self.calls.begin(place.channel_account_id));
        let breakers = self.breakers.clone();
        let spacing = account.rate.map(|rate| self.spacing(place.channel_account_id, rate));
        self.life.spawn(async move {
            let _call = call;
            let handed_over = match &uploads {
                // Rare, and too large to be moved about with every call.
                Some(uploads) => Box::pin(said.upload(uploads, &placement, &account, asked_at + GRANT_GOOD_FOR)).await,
                None => Ok(()),
            };
            let refused = match handed_over {
                Ok(()) => None,
                Err(NotUploaded::Later(reason, after)) => {
                    let (attempt_id, after) = (grant.attempt_id, Some(after));
                    return send.record(Some(place), What::GivenBack { attempt_id, reason, after });
                }
                Err(NotUploaded::Refused(outcome)) => Some(outcome),
            };
            let outcome = match refused {
                Some(outcome) => outcome,
                None => {
                    if let Some(spacing) = spacing {
                        spacing.until_ready().await;
                    }
                    // The last look before the call. A machine that was stopped between grant and here gives the grant back.
                    if asked_at.elapsed() > GRANT_GOOD_FOR {
                        return send.record(Some(place), given_back(&grant, "the grant was too old to be used"));
                    }
                    let token = SendToken { message_id: send.message_id, attempt_id: grant.attempt_id };
                    let began = Instant::now();
                    let outcome = client.send(said.to_send(&account, &grant, &token)).await;
                    crash::pass(CrashPoint::OutboundAfterCall);
                    let provider = account.endpoint.sender().provider.as_str();
                    metrics::histogram!(names::PROVIDER_CALL_SECONDS, "provider" => provider)
                        .record(began.elapsed().as_secs_f64());
                    metrics::counter!(names::PROVIDER_CALLS, "provider" => provider, "outcome" => label(&outcome))
                        .increment(1);
                    outcome
                }
            };
            let outcome_of_file = FileNews::of(&outcome);
            let answered = answered(&outcome, grant.attempt_id);
            let tripped = breakers.note(place.channel_account_id, &outcome, Instant::now());
            let what = what(outcome, &grant, &account.retry, send.carrier.longest_wait(), account.rate.is_some());
            let file = about_file(&said, &outcome_of_file);
            match (tripped, what) {
                (None, what) => send.record_all(Some(place), std::iter::once(what).chain(file).chain(answered)),
                // It was not sent: like all others of the account it waits until that is back.
                (Some(reason), What::NotSent { attempt_id, .. }) => {
                    send.record(Some(place), What::AccountDown { attempt_id, code: ERROR_RATE.into(), reason });
                }
                (Some(reason), what) => send.record_all(Some(place), [what, What::Tripped { reason }]),
            }
        });
    }

    /// The account's own spacing: the configured rate with the burst its grants have.
    fn spacing(&self, id: ChannelAccountId, rate: f64) -> Arc<DefaultDirectRateLimiter> {
        // Whole sends a second, rounded up: this is a ceiling, the grants are exact.
        let per_second = NonZeroU32::new(rate.ceil().clamp(1.0, f64::from(u32::MAX)) as u32).unwrap_or(NonZeroU32::MIN);
        self.spacing.get_with((id, per_second.get()), || {
            let burst = NonZeroU32::new(per_second.get().div_ceil(32)).unwrap_or(NonZeroU32::MIN);
            Arc::new(RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)))
        })
    }
}

/// What one send says.
struct Said {
    content: OutboundContent,
    handles: Handles,
    /// What is to be uploaded first.
    uploads: Vec<Wanted>,
}

impl Said {
    /// Hands over what has to be uploaded, and waits for it until then.
    async fn upload(
        &mut self,
        uploads: &Uploads,
        placement: &Placement,
        account: &Arc<Account>,
        until: Instant,
    ) -> Result<(), NotUploaded> {
        for wanted in std::mem::take(&mut self.uploads) {
            // What our storage lacks goes by the link that is there already.
            if let Some(id) = uploads.upload(placement, account, wanted, until).await? {
                self.handles.insert(wanted.2, Handle::NewId(id));
            }
        }
        Ok(())
    }

    fn to_send<'a>(&'a self, account: &'a Account, grant: &'a Grant, token: &'a SendToken) -> Send<'a> {
        Send {
            endpoint: &account.endpoint,
            recipient: Recipient {
                kind: RecipientKind::from_name(&grant.recipient_kind).unwrap_or(RecipientKind::Address),
                address: &grant.recipient,
            },
            content: &self.content,
            files: &self.handles,
            token,
            refers_to: grant.refers_to.as_deref(),
            human_agent: grant.human_agent,
            valid_for: grant.valid_for,
        }
    }
}

/// What an answer says of the file of its message.
enum FileNews {
    Nothing,
    /// The provider keeps it under this id.
    Kept(String),
    /// It does not know the id any more.
    Lost,
}

impl FileNews {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Accepted(Accepted { kept_file: Some(id), .. }) => Self::Kept(id.clone()),
            Outcome::NotSent(NotSent { class: Class::File, .. }) => Self::Lost,
            _ => Self::Nothing,
        }
    }
}

/// A provider says such a thing of a message's only file.
fn about_file(said: &Said, news: &FileNews) -> Option<What> {
    let files = said.content.files();
    match news {
        FileNews::Nothing => None,
        FileNews::Kept(provider_file_id) => match files[..] {
            [(_, FileRef { id: Some(file_id), .. })] => {
                Some(What::FileKept { file_id: *file_id, provider_file_id: provider_file_id.clone() })
            }
            _ => None,
        },
        FileNews::Lost => {
            let by_id = |(file, handle): (&FileId, &Handle)| match handle {
                Handle::Id(theirs) => Some((*file, theirs.clone())),
                Handle::NewId(_) | Handle::Link(_) => None,
            };
            Some(What::FilesLost { files: said.handles.iter().filter_map(by_id).collect() })
        }
    }
}

/// What a gateway said when it took a message: nobody knows all that it may say.
fn answered(outcome: &Outcome, attempt_id: AttemptId) -> Option<What> {
    match outcome {
        Outcome::Accepted(Accepted { answer: Some(answer), .. }) => {
            Some(What::Answered { attempt_id, answer: answer.clone() })
        }
        _ => None,
    }
}

fn given_back(grant: &Grant, reason: &str) -> What {
    What::GivenBack { attempt_id: grant.attempt_id, reason: reason.into(), after: None }
}

fn label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted(_) => "accepted",
        Outcome::NotSent(_) => "not_sent",
        Outcome::Unknown { .. } => "unknown",
        Outcome::Failed { .. } => "failed",
        Outcome::OptedOut { .. } => "opted_out",
        Outcome::NeedsTemplate { .. } => "needs_template",
        Outcome::TemplateBlocked { .. } => "template_blocked",
        Outcome::AccountDown { .. } => "account_down",
    }
}

/// What is written down for an outcome. No wait before another try is longer than `longest`, if there is one. Where an account is limited a
/// throttle lowers its rate; where it is not, its sends wait ever longer.
fn what(outcome: Outcome, grant: &Grant, policy: &Policy, longest: Option<Duration>, limited: bool) -> What {
    let attempt_id = grant.attempt_id;
    match outcome {
        Outcome::Accepted(Accepted { provider_message_id, .. }) => What::Accepted { attempt_id, provider_message_id },
        Outcome::Unknown { reason } => What::Unknown { attempt_id, reason },
        Outcome::Failed { code, reason } => What::Failed { attempt_id, code, reason, says: Says::Nothing },
        Outcome::OptedOut { code, reason } => What::Failed { attempt_id, code, reason, says: Says::OptedOut },
        Outcome::NeedsTemplate { code, reason } => What::Failed { attempt_id, code, reason, says: Says::WindowClosed },
        Outcome::TemplateBlocked { code, reason, block } => {
            What::Failed { attempt_id, code, reason, says: Says::TemplateBlocked(block) }
        }
        Outcome::AccountDown { code, reason } => What::AccountDown { attempt_id, code, reason },
        Outcome::NotSent(NotSent { code, reason, .. }) if grant.granted_at - grant.tried_since > TOO_OLD => {
            let reason = format!("given up after a day of trying; the last time: {reason}");
            What::Failed { attempt_id, code, reason, says: Says::Nothing }
        }
        Outcome::NotSent(NotSent { code, reason, retry_after, class }) => {
            let failed_before = grant.failed_before.get(class.as_str()).copied().unwrap_or(0);
            let trying_for = (grant.granted_at - grant.tried_since).to_std().unwrap_or_default();
            let wait = match policy.next(class, failed_before, trying_for, longest) {
                Next::After(wait) => retry::spread(wait),
                Next::GiveUp => {
                    let reason = format!("given up after {} tries; the last time: {reason}", failed_before + 1);
                    return What::Failed { attempt_id, code, reason, says: Says::Nothing };
                }
            };
            let (after, slow) = match class {
                Class::Account | Class::ProviderAccount => {
                    let stop = retry_after.unwrap_or(THROTTLED);
                    (if limited { stop } else { stop.max(wait) }, Some(stop))
                }
                // Until the day is over nothing goes; what the provider does not say is an hour at a time.
                Class::Day => {
                    let hour = match policy.next(class, failed_before, trying_for, None) {
                        Next::After(wait) => wait,
                        Next::GiveUp => wait,
                    };
                    let stop = retry_after.unwrap_or(hour);
                    (if limited { wait.min(stop) } else { stop }, Some(stop))
                }
                _ => (retry_after.unwrap_or(wait), None),
            };
            What::NotSent { attempt_id, code, reason, class, after, slow }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::carrier::CAMPAIGN_WAIT, *};
    use shared::domain::ids::AttemptId;

    fn again(longest: Option<Duration>, limited: bool, class: Class, failed_before: u32, trying_for: i64) -> What {
        let now = chrono::DateTime::UNIX_EPOCH;
        let grant = Grant {
            attempt_id: AttemptId::new(),
            attempts: 12,
            granted_at: now,
            failed_before: [(class.as_str().to_owned(), failed_before)].into(),
            tried_since: now - chrono::TimeDelta::seconds(trying_for),
            recipient_kind: "phone".into(),
            recipient: "+15557770142".into(),
            content: String::new(),
            refers_to: None,
            human_agent: false,
            valid_for: None,
        };
        let away = NotSent { code: "connect".into(), reason: "connection refused".into(), retry_after: None, class };
        what(Outcome::NotSent(away), &grant, &Policy::default(), longest, limited)
    }

    #[test]
    fn a_campaigns_send_is_never_asleep_for_minutes() {
        let after = |longest, limited, class| match again(longest, limited, class, 12, 3_600) {
            What::NotSent { after, .. } => after.as_secs(),
            other => panic!("{other:?}"),
        };
        assert!((8..=24).contains(&after(Some(CAMPAIGN_WAIT), true, Class::Unreachable)));
        assert!(after(None, true, Class::Unreachable) >= 300);
        assert_eq!(after(Some(CAMPAIGN_WAIT), true, Class::Account), 0, "the account's rate is lowered");
        assert!(after(Some(CAMPAIGN_WAIT), false, Class::Account) >= 8, "it has none that could be");
    }

    #[test]
    fn what_passes_is_given_up_when_it_does_not() {
        assert!(matches!(again(None, true, Class::Transient, 2, 95), What::NotSent { class: Class::Transient, .. }));
        let What::Failed { code, reason, .. } = again(None, true, Class::Transient, 3, 220) else {
            panic!("it is over")
        };
        assert_eq!(
            (code.as_str(), reason.as_str()),
            ("connect", "given up after 4 tries; the last time: connection refused")
        );
        assert!(matches!(again(None, true, Class::Once, 1, 61), What::Failed { .. }));
    }
}
