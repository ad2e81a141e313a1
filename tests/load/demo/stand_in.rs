//! The controls of the provider's stand-in, over HTTP: the demo talks with it as with any other process.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::verdict::Theirs;

pub(super) struct StandIn {
    client: Client,
    root: String,
}

/// A message the stand-in told the product of, which the product acknowledged.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Told {
    pub(super) platform: String,
    pub(super) id: String,
    /// `wa_id` digits or user id, a scoped id, a number.
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

    /// What became of each message that the product asked for, by the id in its token.
    pub(super) async fn messages(&self) -> Result<BTreeMap<Uuid, Theirs>> {
        let entries: Vec<Value> = lines(&self.call(Method::GET, "/ledger", None).await?)?;
        let mut messages: BTreeMap<Uuid, Theirs> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry["kind"] != "read_receipt" && entry["kind"] != "typing") {
            let token = entry["opaque"].as_str().unwrap_or_default();
            let message = token.strip_prefix("m1:").and_then(|rest| rest.split(':').next());
            let Some(id) = message.and_then(|id| id.parse().ok()) else {
                bail!("the stand-in was asked for a message without our token: {entry}");
            };
            let theirs = messages.entry(id).or_default();
            theirs.recipient = entry["recipient"].as_str().unwrap_or_default().to_owned();
            theirs.taken += u64::from(entry["verdict"].get("accepted").is_some());
            theirs.refused = entry["verdict"]["refused"]["code"].as_u64();
            theirs.report(entry["statuses"].as_array().into_iter().flatten().filter_map(Value::as_str));
        }
        Ok(messages)
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
