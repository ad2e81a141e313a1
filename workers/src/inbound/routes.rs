//! Which tenant an account's events belong to, remembered for a while.

use moka::sync::Cache;
use shared::{
    db::{self, Databases, routing},
    domain::{channel::Provider, events::RouteKey},
};
use std::{collections::HashMap, time::Duration};

pub(super) use shared::db::routing::Route;

/// An account that moves to another tenant is noticed within this time.
const REMEMBERED: Duration = Duration::from_secs(60);
/// At most so many accounts are remembered (about 200 bytes each).
const CAPACITY: u64 = 100_000;

/// Routes by account. Who is unknown is asked for again each time: a new account works at once.
pub struct Routes {
    databases: Databases,
    known: Cache<(Provider, RouteKey), Route>,
}

impl Routes {
    /// Nothing remembered yet.
    pub fn new(databases: Databases) -> Self {
        Self { databases, known: Cache::builder().max_capacity(CAPACITY).time_to_live(REMEMBERED).build() }
    }

    /// The routes of these keys, in one question to the database for all that are not remembered.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn find(&self, provider: Provider, keys: &[RouteKey]) -> Result<HashMap<RouteKey, Route>, db::Error> {
        let mut found = HashMap::with_capacity(keys.len());
        let mut unknown = Vec::new();
        for key in keys {
            match self.known.get(&(provider, key.clone())) {
                Some(route) => {
                    found.insert(key.clone(), route);
                }
                None => unknown.push(key.clone()),
            }
        }
        if !unknown.is_empty() {
            let mut tx = self.databases.control().await?;
            for (key, route) in routing::find_routes(&mut tx, provider, &unknown).await? {
                self.known.insert((provider, key.clone()), route.clone());
                found.insert(key, route);
            }
            tx.commit().await?;
        }
        Ok(found)
    }
}
