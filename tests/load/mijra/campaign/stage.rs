//! What every part plays on: an installation with its programs, the provider's stand-in, and the API as an integrator uses it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use shared::domain::ids::{CampaignId, ChannelAccountId, ConversationId, MessageId};
use support::sandbox::registry::{NumberSpec, TokenSpec, TokenState};
use support::sandbox::{Behaviour, Config, Sandbox, WABA};
use uuid::Uuid;

use super::super::import;
use super::super::installation::{ACCESS_TOKEN, APP_SECRET, Installation};
use crate::generate::payload::FIRST_PHONE_NUMBER_ID;
use crate::measure::progress::Progress;
use crate::services::Services;

/// What a part needs.
pub(super) struct Plan {
    /// WhatsApp numbers, each an account.
    pub(super) numbers: u64,
    /// What each may send a second; `None` for no limit.
    pub(super) rate: Option<f64>,
    /// Outbound workers.
    pub(super) senders: u32,
    /// How the provider behaves.
    pub(super) behaviour: Behaviour,
    /// People among the contacts.
    pub(super) people: u64,
}

pub(super) struct Stage {
    pub(super) installation: Installation,
    pub(super) sandbox: Sandbox,
    http: Client,
    api: String,
    token: String,
}

/// A campaign as the API shows it.
#[derive(Debug, Clone)]
pub(super) struct Shown(Value);

pub(super) const SENDER: &str = "mijra-outbound";
const WORKERS: [&str; 3] = ["mijra-inbound", "mijra-campaign", "mijra-scheduler"];
/// Reading the books of a million people takes its time.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Stage {
    /// Starts everything.
    pub(super) async fn set(services: &Services, plan: Plan, progress: &Progress) -> Result<Self> {
        progress.phase(format!("starting, and importing {} people", plan.people));
        let mut installation = Installation::create(services, plan.numbers).await?;
        if let Some(rate) = plan.rate {
            for account in installation.accounts.clone() {
                installation.limit(account, rate).await?;
            }
        }
        let token = installation.token().await?;
        import::people(&installation, plan.people, import::file(plan.people)?).await?;
        // What is asked here is asked by one token, and often: who watches must not be kept from looking.
        let rate = ["API_RATE_PER_SECOND", "API_RATE_BURST"].map(|setting| (setting, "100000".to_owned()));
        let api = installation.start("mijra-api", &rate).await?;
        for program in WORKERS {
            installation.start(program, &[]).await?;
        }
        let sandbox = Sandbox::start(Config {
            webhook_url: format!("http://{api}/webhooks/whatsapp"),
            app_secret: APP_SECRET.into(),
            numbers: (0..plan.numbers).map(number).collect(),
            tokens: vec![TokenSpec { token: ACCESS_TOKEN.into(), state: TokenState::Valid, waba_ids: vec![] }],
            behaviour: plan.behaviour,
            ..Config::default()
        })
        .await?;
        let http = Client::builder().no_proxy().timeout(ANSWER_WITHIN).build()?;
        let mut stage = Self { installation, sandbox, http, api: format!("http://{api}/api/load"), token };
        for _ in 0..plan.senders {
            stage.start_sender().await?;
        }
        stage.installation.ready().await?;
        Ok(stage)
    }

    /// Starts one more outbound worker. What nobody knows the fate of is settled within seconds, so that books can be closed.
    pub(super) async fn start_sender(&mut self) -> Result<()> {
        let settings = [
            ("WHATSAPP_BASE_URL", self.sandbox.url()),
            ("UNKNOWN_TURN_SECONDS", "2".to_owned()),
            ("UNKNOWN_SETTLE_SECONDS", "20".to_owned()),
        ];
        self.installation.start(SENDER, &settings).await?;
        Ok(())
    }

    /// Creates a campaign to everybody.
    pub(super) async fn campaign(&self, account: ChannelAccountId, weight: u32) -> Result<CampaignId> {
        let content = json!({"type": "template", "name": "cart_nudge", "language": "en_US", "variables": ["{{name}}"]});
        let new = json!({
            "name": format!("Weight {weight}"), "channel_account_id": account, "content": content,
            "audience": {"all": true}, "weight": weight,
        });
        let made = self.ask(Method::POST, "/campaigns", Some(&new), StatusCode::CREATED).await?;
        let id: Uuid = serde_json::from_value(made["id"].clone())?;
        Ok(CampaignId(id))
    }

    /// Starts, pauses, resumes or cancels one. When the call returned.
    pub(super) async fn act(&self, id: CampaignId, action: &str) -> Result<DateTime<Utc>> {
        self.ask(Method::POST, &format!("/campaigns/{id}/{action}"), None, StatusCode::OK).await?;
        Ok(Utc::now())
    }

    pub(super) async fn show(&self, id: CampaignId) -> Result<Shown> {
        self.ask(Method::GET, &format!("/campaigns/{id}"), None, StatusCode::OK).await.map(Shown)
    }

    /// What its books say does not agree.
    pub(super) async fn disagreements(&self, id: CampaignId) -> Result<Vec<String>> {
        let books = self.ask(Method::GET, &format!("/campaigns/{id}/ledger"), None, StatusCode::OK).await?;
        Ok(serde_json::from_value(books["disagreements"].clone())?)
    }

    /// An agent answers.
    pub(super) async fn reply(&self, conversation: ConversationId) -> Result<MessageId> {
        let words = json!({"type": "text", "text": "Your table is ready."});
        let path = format!("/conversations/{conversation}/messages");
        let message = self.ask(Method::POST, &path, Some(&words), StatusCode::ACCEPTED).await?;
        Ok(MessageId(serde_json::from_value(message["id"].clone())?))
    }

    /// Starts campaigns and waits until everybody is frozen.
    pub(super) async fn start_frozen(&self, campaigns: &[CampaignId], within: Duration) -> Result<()> {
        for id in campaigns {
            self.act(*id, "start").await?;
        }
        self.frozen(campaigns, within).await
    }

    /// Waits until everybody is frozen.
    pub(super) async fn frozen(&self, campaigns: &[CampaignId], within: Duration) -> Result<()> {
        for id in campaigns {
            until("everybody is frozen", within, async || Ok(self.show(*id).await?.is_frozen())).await?;
        }
        Ok(())
    }

    /// Ends everything and removes it.
    pub(super) async fn clear(self) -> Result<()> {
        let ended = self.installation.stop().await;
        self.sandbox.stop().await;
        ended
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>, expected: StatusCode) -> Result<Value> {
        let mut request = self.http.request(method, format!("{}{path}", self.api)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("Idempotency-Key", Uuid::new_v4().to_string()).json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let body: Value = answer.json().await.with_context(|| format!("{path}: {status}"))?;
        ensure!(status == expected, "{path}: {status}: {body}");
        Ok(body)
    }
}

impl Shown {
    pub(super) fn count(&self, state: &str) -> u64 {
        self.0["counts"][state].as_u64().unwrap_or_default()
    }

    /// With the provider, as far as we know.
    pub(super) fn taken(&self) -> u64 {
        ["sent", "delivered", "read"].iter().map(|state| self.count(state)).sum()
    }

    /// Those of whom something will still be heard.
    pub(super) fn open(&self) -> u64 {
        ["in_flight", "unknown"].iter().map(|state| self.count(state)).sum()
    }

    pub(super) fn is_frozen(&self) -> bool {
        !self.0["frozen_at"].is_null()
    }

    pub(super) fn frozen(&self) -> u64 {
        self.0["frozen_count"].as_u64().unwrap_or_default()
    }

    /// Nothing more happens.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.0["state"].as_str(), Some("completed" | "cancelled")) && self.count("waiting") + self.open() == 0
    }
}

/// The sandbox's number of the installation's nth account.
pub(super) fn number_id(nth: u64) -> String {
    (FIRST_PHONE_NUMBER_ID + nth).to_string()
}

fn number(nth: u64) -> NumberSpec {
    NumberSpec {
        id: number_id(nth),
        waba_id: WABA.into(),
        display_phone_number: format!("1555888{nth:04}"),
        country_code: "1".into(),
        webhook_url: None,
        app_secret: None,
    }
}

/// Waits until something holds.
pub(super) async fn until(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !holds().await? {
        if began.elapsed() > within {
            bail!("not within {} s: {what}", within.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
