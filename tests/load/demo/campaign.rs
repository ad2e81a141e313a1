//! The demo's campaign: contacts by way of an import, some without an address, a template to all of them, and how it gets on.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::books::Books;
use super::{Arguments, LOOK_EVERY, bar};

/// A campaign of the demo.
#[derive(Debug, Clone, Copy)]
pub(super) struct Campaign {
    pub(super) id: Uuid,
    /// How many people it is to.
    pub(super) people: usize,
    /// How many of them have no address.
    pub(super) without_address: usize,
}

/// Its books, as the API says them.
#[derive(Debug, Deserialize)]
pub(super) struct Ledger {
    pub(super) frozen_count: Option<u64>,
    pub(super) lines: Vec<Line>,
    pub(super) disagreements: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub(super) state: String,
    pub(super) people: u64,
    pub(super) shown: u64,
}

/// The tenant's API, as a program with a token sees it.
pub(super) struct Api {
    client: Client,
    root: String,
    token: String,
}

/// One in so many has no address.
const WITHOUT_ADDRESS: usize = 100;
/// Told apart from what anybody else called theirs.
const NAME: &str = "Demo: your parcel";
/// Where nobody watches a bar, a line comes this often.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// The campaign is done by then, or the books are closed as they are.
const DONE_WITHIN: Duration = Duration::from_secs(300);

impl Api {
    pub(super) fn new(arguments: &Arguments) -> Self {
        let root = format!("{}/api/{}", arguments.api.as_str().trim_end_matches('/'), arguments.tenant);
        Self { client: Client::new(), root, token: arguments.token.clone() }
    }

    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value)> {
        let key = Uuid::now_v7().to_string();
        let mut request = self.client.request(method, format!("{}{path}", self.root)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("Idempotency-Key", key).json(body);
        }
        let answer = request.send().await.context("call the API")?;
        Ok((answer.status(), answer.json().await.context("read the API's answer")?))
    }

    async fn expect(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, answer) = self.call(method, path, body).await?;
        ensure!(status.is_success(), "{path} was answered {status}: {answer}");
        Ok(answer)
    }

    /// What an interrupted demo left running would mix with this one's books: it is cancelled, and what is in flight waited for.
    pub(super) async fn cancel_earlier(&self) -> Result<()> {
        let listed = self.expect(Method::GET, "/campaigns?limit=20", None).await?;
        for campaign in listed["data"].as_array().context("a page has rows")? {
            let running = campaign["state"] == "running" || campaign["state"] == "paused";
            if !running || campaign["name"] != NAME {
                continue;
            }
            let path = format!("/campaigns/{}", campaign["id"].as_str().unwrap_or_default());
            self.expect(Method::POST, &format!("{path}/cancel"), None).await?;
            let under_way = async || -> Result<bool> {
                let counts = self.expect(Method::GET, &path, None).await?["counts"].clone();
                Ok(["waiting", "in_flight", "unknown"].iter().any(|state| counts[*state] != 0))
            };
            while under_way().await? {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// Makes the contacts that are not there yet, writes the campaign down and starts it.
    pub(super) async fn begin(&self, people: usize, books: &Books) -> Result<Campaign> {
        let without_address = people.div_ceil(WITHOUT_ADDRESS);
        let phones: Vec<String> = (without_address..people).map(|n| format!("+49176{n:08}")).collect();
        let mut file = String::from("phone,name\n");
        phones.iter().enumerate().for_each(|(n, phone)| file.push_str(&format!("{phone},Person {n}\n")));
        let import = self.client.post(format!("{}/contacts/import", self.root)).bearer_auth(&self.token);
        let answer = import.header("Content-Type", "text/csv").body(file).send().await.context("import contacts")?;
        let (status, report) = (answer.status(), answer.json::<Value>().await?);
        ensure!(status.is_success() && report["rejected"] == 0, "the import was answered {status}: {report}");

        let (account, tenant) = books.account().await?;
        let mut contacts = books.contacts(tenant, &phones).await?;
        ensure!(contacts.len() == phones.len(), "{} of {} contacts are there", contacts.len(), phones.len());
        contacts.extend(books.contacts_without_address(tenant, without_address).await?);
        // Of another template the demo's webhooks say that it was rejected.
        let content = json!({"type": "template", "name": "booking_reminder", "language": "en_US", "variables": ["{{name}}", "Friday"]});
        let new = json!({
            "name": NAME, "channel_account_id": account, "content": content, "audience": {"contact_ids": contacts},
        });
        let created = self.expect(Method::POST, "/campaigns", Some(&new)).await?;
        let id = created["id"].as_str().context("a campaign has an id")?.parse()?;
        self.expect(Method::POST, &format!("/campaigns/{id}/start"), None).await?;
        Ok(Campaign { id, people, without_address })
    }

    /// Shows how the campaign gets on until it is completed. How long it took, from its start to its end.
    pub(super) async fn watch(&self, campaign: &Campaign) -> Result<Duration> {
        let bar = bar((campaign.people - campaign.without_address) as u64, "campaign");
        let style = ProgressStyle::with_template("{prefix} [{bar:40}] {pos}/{len} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix("campaign");
        let (mut said, began) = (tokio::time::Instant::now(), tokio::time::Instant::now());
        loop {
            let shown = self.expect(Method::GET, &format!("/campaigns/{}", campaign.id), None).await?;
            let count = |state: &str| shown["counts"][state].as_u64().unwrap_or(0);
            bar.set_position(["sent", "delivered", "read", "failed", "held"].map(count).iter().sum());
            let standing = format!(
                "waiting {}, in flight {}, unknown {}, sent {}, delivered {}, read {}, failed {}, skipped {}",
                count("waiting"),
                count("in_flight"),
                count("unknown"),
                count("sent"),
                count("delivered"),
                count("read"),
                count("failed"),
                count("skipped")
            );
            bar.set_message(standing.clone());
            if !std::io::stderr().is_terminal() && said.elapsed() > SAY_EVERY {
                said = tokio::time::Instant::now();
                say(&bar, &standing);
            }
            match shown["state"].as_str() {
                Some("completed") => {
                    bar.finish_and_clear();
                    return lasted(&shown);
                }
                Some("running") if began.elapsed() < DONE_WITHIN => tokio::time::sleep(LOOK_EVERY).await,
                _ => bail!("the campaign does not come to an end: {shown}"),
            }
        }
    }

    pub(super) async fn ledger(&self, campaign: &Campaign) -> Result<Ledger> {
        let ledger = self.expect(Method::GET, &format!("/campaigns/{}/ledger", campaign.id), None).await?;
        Ok(serde_json::from_value(ledger)?)
    }
}

fn lasted(shown: &Value) -> Result<Duration> {
    let at = |field: &str| -> Result<DateTime<Utc>> { Ok(shown[field].as_str().context("a time")?.parse()?) };
    Ok((at("ended_at")? - at("started_at")?).to_std()?)
}

#[allow(clippy::print_stderr, reason = "progress, where no bar is drawn")]
fn say(bar: &ProgressBar, standing: &str) {
    bar.suspend(|| eprintln!("    campaign: {standing}"));
}
