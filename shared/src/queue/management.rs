//! What only the broker's management plugin knows: deliveries out and rates. Asked by `mijra queues`; no work depends on it.
//! Quorum queues tell no age of their head: that is measured when a job is received.

use super::{Broker, Queue, topology};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::{collections::HashMap, time::Duration};
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(5);

/// The management plugin's HTTP API.
#[derive(Clone)]
pub struct Management {
    client: reqwest::Client,
    base: Url,
}

/// A queue as the plugin sees it. It samples every 5 s, so rates and counts may be that old.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueStats {
    /// Which.
    pub queue: &'static Queue,
    /// Jobs that are with no consumer.
    pub ready: u64,
    /// Jobs handed out and not acknowledged.
    pub unacked: u64,
    /// Consumers.
    pub consumers: u64,
    /// Jobs published per second.
    pub publish_per_s: f64,
    /// Jobs handed out per second, repeats included.
    pub deliver_per_s: f64,
    /// Jobs acknowledged per second.
    pub ack_per_s: f64,
    /// Dead letters.
    pub dead: u64,
}

/// Why the plugin gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ManagementError {
    /// The URL is not one.
    #[error("the management URL cannot be used: {0}")]
    Url(String),
    /// It cannot be reached, refuses the user, or answers something else.
    #[error("the management plugin: {0}")]
    Unavailable(#[from] reqwest::Error),
}

impl Management {
    /// `url` is the plugin's root with user and password, e.g. `http://user:password@host:15672`.
    ///
    /// # Errors
    /// If it is not an http URL.
    pub fn new(url: &SecretString) -> Result<Self, ManagementError> {
        let base: Url =
            url.expose_secret().parse().map_err(|e: url::ParseError| ManagementError::Url(e.to_string()))?;
        if base.cannot_be_a_base() {
            return Err(ManagementError::Url("it has no host".to_owned()));
        }
        Ok(Self { client: reqwest::Client::builder().timeout(TIMEOUT).build()?, base })
    }

    /// Every queue of the table that is declared on this broker, in the table's order.
    ///
    /// # Errors
    /// [`ManagementError::Unavailable`].
    pub async fn queues(&self, broker: &Broker) -> Result<Vec<QueueStats>, ManagementError> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "queues", &broker.vhost()]);
        }
        let listed: Vec<Listed> = self.client.get(url).send().await?.error_for_status()?.json().await?;
        let by_name: HashMap<&str, &Listed> = listed.iter().map(|queue| (queue.name.as_str(), queue)).collect();
        let of = |name: String| by_name.get(name.as_str()).copied();
        let declared = topology::ALL.iter().filter_map(|queue| {
            let found = of(broker.broker_name(queue))?;
            Some(found.stats(queue, of(broker.dead_broker_name(queue))))
        });
        Ok(declared.collect())
    }
}

/// As the plugin writes it. A queue that has just been declared has no counts yet.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listed {
    name: String,
    messages_ready: u64,
    messages_unacknowledged: u64,
    consumers: u64,
    message_stats: MessageStats,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MessageStats {
    publish_details: Rate,
    deliver_get_details: Rate,
    ack_details: Rate,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rate {
    rate: f64,
}

impl Listed {
    fn stats(&self, queue: &'static Queue, dead: Option<&Listed>) -> QueueStats {
        QueueStats {
            queue,
            ready: self.messages_ready,
            unacked: self.messages_unacknowledged,
            consumers: self.consumers,
            publish_per_s: self.message_stats.publish_details.rate,
            deliver_per_s: self.message_stats.deliver_get_details.rate,
            ack_per_s: self.message_stats.ack_details.rate,
            dead: dead.map_or(0, |dead| dead.messages_ready + dead.messages_unacknowledged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_3_10_is_read() {
        let listed: Listed = serde_json::from_str(
            r#"{"name":"mijra.inbound","messages_ready":3,"messages_unacknowledged":2,"consumers":1,"type":"quorum",
                "message_stats":{"ack":9,"ack_details":{"rate":1.5},"publish_details":{"rate":2.0},
                "deliver_get_details":{"rate":1.75}}}"#,
        )
        .unwrap();
        let stats = listed.stats(&topology::INBOUND, None);
        assert_eq!((stats.ready, stats.unacked, stats.consumers, stats.dead), (3, 2, 1, 0));
        assert_eq!((stats.publish_per_s, stats.deliver_per_s, stats.ack_per_s), (2.0, 1.75, 1.5));
    }

    #[test]
    fn a_queue_without_counts_yet_is_empty() {
        let listed: Listed = serde_json::from_str(r#"{"name":"mijra.inbound"}"#).unwrap();
        assert_eq!(listed.stats(&topology::INBOUND, None).ready, 0);
    }
}
