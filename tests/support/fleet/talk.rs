//! People who write and agents who answer.

use super::Fleet;
use crate::sandbox::{Incoming, Kind, Person, ToldOff};
use reqwest::StatusCode;
use serde_json::{Value, json};
use shared::domain::ids::{ConversationId, MessageId};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A message that the API has accepted for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Accepted {
    /// Its id.
    pub message: MessageId,
    /// Where it belongs.
    pub conversation: ConversationId,
}

/// How long an agent's program goes on trying to hand a message in: longer than any outage that is tried.
const INSIST: Duration = Duration::from_secs(900);

impl Fleet {
    /// A person writes; what the receiver answered at first. Anything but 200 is repeated by the provider.
    ///
    /// # Panics
    /// If the sandbox cannot sign it.
    pub async fn tell(&self, person: &Person, text: impl Into<String>) -> ToldOff {
        self.tell_of(Kind::Text, person, text).await
    }

    /// A person sends something of another kind, with a text where that has one.
    ///
    /// # Panics
    /// If the sandbox cannot sign it.
    pub async fn tell_of(&self, kind: Kind, person: &Person, text: impl Into<String>) -> ToldOff {
        let incoming = Incoming { text: text.into(), ..Incoming::of(kind, person) };
        self.sandbox.tell(&self.tenant.number, vec![incoming]).await.expect("the sandbox posts it")
    }

    /// The conversation with a person, as soon as there is one.
    ///
    /// # Panics
    /// If there is none in time.
    pub async fn conversation_with(&self, person: &Person) -> ConversationId {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut admin = self.database.admin().await;
        loop {
            let found: Option<Uuid> = sqlx::query_scalar(
                "SELECT v.id FROM conversations v
                JOIN contact_aliases a ON a.tenant_id = v.tenant_id AND a.contact_id = v.contact_id
                WHERE a.value IN ($1, $2)
                ORDER BY v.created_at DESC LIMIT 1",
            )
            .bind(&person.wa_id)
            .bind(&person.user_id)
            .fetch_optional(&mut admin)
            .await
            .expect("the database answers");
            match found {
                Some(id) => return ConversationId(id),
                None => assert!(Instant::now() < deadline, "no conversation with {} in time", person.wa_id),
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Asks the API once.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> reqwest::Result<(StatusCode, Value)> {
        let request = self
            .http
            .post(format!("{}/api/{}{path}", self.api, self.tenant.slug))
            .bearer_auth(&self.tenant.token)
            .header("Idempotency-Key", key)
            .json(body);
        let response = request.send().await?;
        let status = response.status();
        Ok((status, response.json().await.unwrap_or(Value::Null)))
    }

    /// Reads from the API once. Anything but 200 is no answer.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn get(&self, path: &str) -> reqwest::Result<Value> {
        let url = format!("{}/api/{}{path}", self.api, self.tenant.slug);
        self.http.get(url).bearer_auth(&self.tenant.token).send().await?.error_for_status()?.json().await
    }

    /// An agent answers, and insists until the API has accepted it.
    ///
    /// # Panics
    /// If it is refused, or not accepted in time.
    pub async fn reply(&self, conversation: ConversationId, text: &str) -> Accepted {
        let path = format!("/conversations/{conversation}/messages");
        let message = self.insist(&path, &json!({"type": "text", "text": text}), StatusCode::ACCEPTED).await;
        let id = message["id"].as_str().and_then(|id| id.parse().ok());
        Accepted { message: id.expect("an accepted message has an id"), conversation }
    }

    /// Asks with the same key until the API has accepted it; its answer.
    ///
    /// # Panics
    /// If it is refused, or not accepted in time.
    pub async fn insist(&self, path: &str, body: &Value, accepted: StatusCode) -> Value {
        let key = Uuid::new_v4().to_string();
        let deadline = Instant::now() + INSIST;
        loop {
            let refused = match self.post(path, &key, body).await {
                Ok((status, answer)) if status == accepted => return answer,
                Ok((status, problem)) if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                    // 409: an earlier try with this key is under way.
                    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
                    problem.to_string()
                }
                Ok((status, problem)) => format!("{status}: {problem}"),
                Err(error) => format!("{error:?}"),
            };
            assert!(Instant::now() < deadline, "the API does not accept {path}: {refused}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
