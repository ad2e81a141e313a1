//! What a person is told beside messages: that they are read, that an answer is being written. It is told at once or not at all: nothing
//! depends on it, and nothing is written down.

use super::accounts::Accounts;
use shared::{
    clock::Clock,
    db::{self, Databases, Placement, outbound::signals},
    domain::people::Recipient,
    jobs::outbound::{SignalJob, SignalKind},
    providers::http::{ProviderClient, Signal, Signalled},
    telemetry::names,
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::Semaphore;

/// Later than this it is no news: a provider shows for about so long that somebody writes (providers/whatsapp section 7.5).
const NEWS: chrono::TimeDelta = chrono::TimeDelta::seconds(20);

/// Tells people.
pub(super) struct Signals {
    pub(super) databases: Databases,
    pub(super) accounts: Arc<Accounts>,
    pub(super) client: ProviderClient,
    pub(super) clock: Clock,
    /// Turns at telling.
    pub(super) turns: Semaphore,
}

/// So many are told something at once; who comes when all turns are taken waits, and is late after a while.
pub(super) const AT_ONCE: usize = 64;

impl Signals {
    /// Tells somebody, unless it is too late.
    pub(super) async fn tell(&self, placement: &Placement, job: SignalJob) -> db::Result<()> {
        let Ok(_turn) = self.turns.acquire().await else { return Ok(()) };
        if self.clock.now() - job.at > NEWS {
            return Ok(());
        }
        let mut tx = self.databases.fleet(placement, &[job.tenant_id]).await?;
        let found = signals::find(&mut tx, job.tenant_id, job.conversation_id).await?;
        tx.commit().await?;
        let Some(found) = found else { return Ok(()) };
        let key = (job.tenant_id, found.account);
        let wanted = BTreeMap::from([(key, found.account_revision)]);
        let account = self.accounts.load(placement, &wanted).await?.remove(&key);
        // What is wrong with an account is told where messages are sent.
        let Some(Ok(account)) = account else { return Ok(()) };
        let message_id = found.provider_message_id.as_str();
        let signal = match job.signal {
            SignalKind::Read => Signal::Read { message_id },
            SignalKind::Typing => Signal::Typing { message_id },
        };
        let recipient = Recipient { kind: found.address.kind, address: &found.address.value };
        let signalled = self.client.signal(&account.endpoint, signal, recipient).await;
        let provider = account.endpoint.sender().provider;
        let outcome = match &signalled {
            Signalled::Done => "done",
            Signalled::NotPossible => "not_possible",
            Signalled::Failed(_) => "failed",
        };
        metrics::counter!(names::PROVIDER_SIGNALS, "provider" => provider.as_str(), "outcome" => outcome).increment(1);
        if let Signalled::Failed(why) = signalled {
            tracing::info!(%provider, account = %found.account, why, "a signal did not come through");
        }
        Ok(())
    }
}
