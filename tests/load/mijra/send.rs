//! Messages out of Mijra: their jobs lie in the queue, outbound workers hand them over, with no limit set.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use shared::clock::Clock;
use shared::domain::ids::{ChannelAccountId, MessageId};
use shared::domain::people::RecipientKind;
use shared::jobs::outbound::{OutboundJob, Task};
use shared::lifecycle::Lifecycle;
use shared::queue::{Outgoing, Target, topology};

use super::installation::{APP_SECRET, Installation};
use crate::bare::responder::Statuses;
use crate::bare::wire::Way;
use crate::generate::payload::FIRST_PHONE_NUMBER_ID;
use crate::measure::accounts::Watched;
use crate::measure::sends::{RunningSends, SendSide, Work};
use crate::services::Services;

pub(super) struct MijraSend {
    services: Services,
    /// Whether the provider reports what becomes of messages, to the API and the worker behind it.
    statuses: bool,
    /// Accounts among which the sends are spread evenly.
    accounts: u64,
    /// Outbound workers.
    workers: u32,
}

impl MijraSend {
    /// One worker on one account.
    pub(super) fn new(services: &Services, statuses: bool) -> Self {
        Self { services: services.clone(), statuses, accounts: 1, workers: 1 }
    }

    /// So many workers on so many accounts.
    pub(super) fn spread(services: &Services, accounts: u64, workers: u32) -> Self {
        Self { accounts, workers, ..Self::new(services, false) }
    }
}

pub(super) struct Running {
    installation: Installation,
    statuses: Option<Statuses>,
}

/// Where providers are.
const BASES: [&str; 4] = ["WHATSAPP_BASE_URL", "MESSENGER_BASE_URL", "INSTAGRAM_BASE_URL", "TWILIO_BASE_URL"];

/// Jobs of sends that lie ready.
pub(super) struct Jobs(Vec<OutboundJob>);

/// So many sends, each in a conversation of its own, as the API leaves them; spread over the accounts in turn.
pub(super) async fn seed(
    installation: &mut Installation,
    way: Way,
    accounts: &[ChannelAccountId],
    sends: u64,
) -> Result<Jobs> {
    let tenant_id = installation.tenant_id;
    let messages: Vec<MessageId> = (0..sends).map(|_| MessageId::new()).collect();
    let accounts: Vec<ChannelAccountId> = accounts.iter().copied().cycle().take(messages.len()).collect();
    let kind = match way {
        Way::Messenger => RecipientKind::Psid,
        Way::Instagram => RecipientKind::Igsid,
        Way::Whatsapp | Way::TwilioSms | Way::TwilioWhatsapp | Way::Gateway => RecipientKind::Phone,
    };
    let has_window = !matches!(way, Way::TwilioSms | Way::Gateway);
    let conn = installation.database.connection();
    for statement in SEED.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
        sqlx::query(statement)
            .bind(tenant_id)
            .bind(&messages)
            .bind(&accounts)
            .bind(kind.as_str())
            .bind(way.address_prefix())
            .bind(has_window)
            .execute(&mut *conn)
            .await
            .with_context(|| format!("seed: {statement}"))?;
    }
    // As after the first minute of a database's life.
    sqlx::query("ANALYZE").execute(installation.database.connection()).await?;
    installation.database.checkpoint().await?;
    let job = |(message_id, account)| OutboundJob { tenant_id, message_id, account: Some(account), task: Task::Send };
    Ok(Jobs(messages.into_iter().zip(accounts).map(job).collect()))
}

/// The statements of [`seed`].
const SEED: &str = include_str!("send.sql");

impl Jobs {
    /// Puts them into the queue.
    pub(super) async fn publish(&self, installation: &Installation) -> Result<()> {
        let life = Lifecycle::new(Duration::from_secs(10));
        let publisher = installation.broker.publisher(&life);
        publisher.ready().await;
        let now = Clock::system().now();
        for chunk in self.0.chunks(1_000) {
            let jobs =
                chunk.iter().map(|job| Outgoing { to: Target::Queue(&topology::OUTBOUND_NOW), job: job.to_job(now) });
            publisher.publish(jobs.collect()).await.context("publish the jobs")?;
        }
        life.stop();
        life.drained().await;
        Ok(())
    }
}

impl SendSide for MijraSend {
    type Running = Running;

    fn name(&self) -> &'static str {
        "Mijra"
    }

    async fn prepare(&self, work: &Work, provider: SocketAddr) -> Result<Running> {
        let created = Installation::create_for(&self.services, work.way, self.accounts, Some(provider));
        let mut installation = created.await?;
        let accounts = installation.accounts.clone();
        let jobs = seed(&mut installation, work.way, &accounts, work.sends).await?;
        jobs.publish(&installation).await?;

        let mut statuses = None;
        if self.statuses {
            let api = installation.start("mijra-api", &[]).await?;
            installation.start("mijra-inbound", &[]).await?;
            installation.start("mijra-scheduler", &[]).await?;
            statuses = Some(Statuses {
                url: format!("http://{api}/webhooks/whatsapp"),
                app_secret: APP_SECRET.into(),
                phone_number_id: FIRST_PHONE_NUMBER_ID,
            });
            installation.ready().await?;
        }

        let settings = BASES.map(|base| (base, format!("http://{provider}")));
        for _ in 0..self.workers {
            installation.start("mijra-outbound", &settings).await?;
        }
        // Held still before it has begun: the clock starts with the first call.
        installation.signal("STOP").await?;
        Ok(Running { installation, statuses })
    }
}

impl RunningSends for Running {
    fn statuses(&self) -> Option<Statuses> {
        self.statuses.clone()
    }

    async fn go(&mut self) -> Result<()> {
        self.installation.signal("CONT").await
    }

    fn processes(&self) -> Result<Vec<Watched>> {
        self.installation.processes()
    }

    async fn recorded(&mut self) -> Result<u64> {
        let count = match self.statuses {
            None => "SELECT count(*) FROM sends WHERE state IN ('sent', 'delivered', 'read')",
            Some(_) => "SELECT count(*) FROM sends WHERE state IN ('delivered', 'read')",
        };
        self.installation.database.count(count).await
    }

    async fn stop(self) -> Result<()> {
        self.installation.stop().await
    }
}
