//! The controls of the provider's stand-in, over HTTP: the demo talks with it as with any other process.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

pub(super) struct StandIn {
    client: Client,
    root: String,
}

/// A message the stand-in told the product of, which the product acknowledged.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Told {
    pub(super) id: String,
    /// `wa_id` digits or user id.
    pub(super) person: String,
    kind: String,
    /// Damaged on purpose so that it cannot be stored.
    garbled: bool,
}

impl Told {
    /// Whether it is a message to us alone: what is said in a group stays in the log, what is damaged beyond reading, too.
    pub(super) fn is_to_be_stored(&self) -> bool {
        self.kind != "group_text" && !self.garbled
    }

    /// Whether the webhook names the person as the stand-in does: a change of user id names only the ids.
    pub(super) fn names_the_person(&self) -> bool {
        self.kind != "user_id_changed"
    }
}

/// A message that the product handed over.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    /// Our id, from our token.
    pub(super) message_id: uuid::Uuid,
    pub(super) recipient: String,
    pub(super) failed: bool,
}

impl StandIn {
    pub(super) fn new(url: &Url) -> Self {
        Self { client: Client::new(), root: format!("{}/_sandbox", url.as_str().trim_end_matches('/')) }
    }

    pub(super) async fn forget(&self) -> Result<()> {
        self.call(Method::DELETE, "/ledger", None).await.map(drop)
    }

    /// Replaces its behaviour: what is not named is as documented.
    pub(super) async fn behave(&self, behaviour: &Value) -> Result<()> {
        self.call(Method::PUT, "/behaviour", Some(behaviour)).await.map(drop)
    }

    pub(super) async fn burst(&self, burst: &Value) -> Result<Value> {
        Ok(serde_json::from_str(&self.call(Method::POST, "/burst", Some(burst)).await?)?)
    }

    /// Waits until no webhook is planned or on its way.
    pub(super) async fn settle(&self) -> Result<()> {
        self.call(Method::POST, "/settle", Some(&serde_json::json!({}))).await.map(drop)
    }

    /// What was told in webhooks that were answered 200 and is to be stored.
    pub(super) async fn told(&self) -> Result<Vec<Told>> {
        let told: Vec<Told> = lines(&self.call(Method::GET, "/ledger/told", None).await?)?;
        Ok(told.into_iter().filter(Told::is_to_be_stored).collect())
    }

    /// What was taken from the product, by its token.
    pub(super) async fn taken(&self) -> Result<Vec<Taken>> {
        let entries: Vec<Value> = lines(&self.call(Method::GET, "/ledger", None).await?)?;
        let mut taken = Vec::new();
        for entry in entries.iter().filter(|entry| entry["verdict"].get("accepted").is_some()) {
            let token = entry["opaque"].as_str().unwrap_or_default();
            let message = token.strip_prefix("m1:").and_then(|rest| rest.split(':').next());
            let Some(message_id) = message.and_then(|id| id.parse().ok()) else {
                bail!("the stand-in took a message without our token: {entry}");
            };
            taken.push(Taken {
                message_id,
                recipient: entry["recipient"].as_str().unwrap_or_default().to_owned(),
                failed: entry["statuses"].to_string().contains("failed"),
            });
        }
        Ok(taken)
    }

    /// Refusals by code, and what it did not look at.
    pub(super) async fn refused(&self) -> Result<BTreeMap<String, u64>> {
        let summary: Value = serde_json::from_str(&self.call(Method::GET, "/ledger/summary", None).await?)?;
        let refused = summary["refused"].as_object().cloned().unwrap_or_default();
        Ok(refused.into_iter().map(|(code, count)| (code, count.as_u64().unwrap_or(0))).collect())
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<String> {
        let mut request = self.client.request(method, format!("{}{path}", self.root));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| format!("call the sandbox: {path}"))?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("the sandbox answered {path} with {status}: {text}");
        }
        Ok(text)
    }
}

fn lines<T: for<'a> Deserialize<'a>>(text: &str) -> Result<Vec<T>> {
    text.lines().filter(|line| !line.is_empty()).map(|line| Ok(serde_json::from_str(line)?)).collect()
}
