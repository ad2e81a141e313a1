//! How often a token may ask: one clock for all processes, and no outage when Redis is away.

use super::{rate, required, serve, staged_with};
use api::{
    server::Services,
    webhooks::{self, platforms::Platforms, proxies::Proxies},
};
use reqwest::Method;
use secrecy::SecretString;
use shared::{clock::Clock, db::Databases};
use support::database::Role;

fn services(stage: &super::Stage, databases: Databases, redis_url: SecretString) -> Services {
    Services {
        databases,
        publisher: stage.publisher.clone(),
        redis_url: Some(redis_url),
        namespace: stage.namespace.clone(),
        rate: rate(3),
        keyring: stage.keyring.clone(),
        storage: stage.storage.clone(),
