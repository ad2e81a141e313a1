//! Redis, for what may be forgotten: how fast each token of the API has been asking. Nothing durable lives here; when Redis
//! is away, each process limits by itself and says so. The path of webhooks and of sends never comes here.

use crate::telemetry::names;
use deadpool_redis::{
    Pool, Runtime,
    redis::{RedisError, Script},
};
use governor::{Quota, RateLimiter, clock::Clock as _, clock::DefaultClock, state::keyed::DashMapStateStore};
use secrecy::{ExposeSecret, SecretString};
use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Redis must not slow a request down: longer than this and we decide alone.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(150);
/// After a failure Redis is left alone for so long, so that its absence costs one request in many.
const LEFT_ALONE: Duration = Duration::from_secs(1);
const CONNECTIONS: usize = 8;
/// Keys above which the local limiter forgets those that are at rest.
const LOCAL_KEYS: usize = 10_000;

/// GCRA (as in ITU-T I.371) on Redis' own clock, in microseconds: one key holds the time at which the next request would
/// be due at the plain rate. Answers 0, or after how many microseconds to come again.
const GCRA: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local wait = due - tolerance - now
if wait > 0 then
    return math.ceil(wait)
end
-- %.0f, because a number this large would be written as 1.7e+15
redis.call('SET', KEYS[1], string.format('%.0f', due + interval), 'PX', math.ceil((due + interval - now) / 1000) + 1)
return 0
";

/// How often each key may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Sustained, a second.
    pub per_second: NonZeroU32,
    /// At once, after a rest.
    pub burst: NonZeroU32,
}

/// Whether a request may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Granted,
    /// Not before so long.
    Refused(Duration),
}

/// Limits how often each key asks, over all processes.
pub struct RateLimits {
    redis: Option<Pool>,
    script: Script,
    prefix: String,
    rate: Rate,
    local: RateLimiter<Uuid, DashMapStateStore<Uuid>, DefaultClock>,
    born: Instant,
    away_until_ms: AtomicI64,
}

#[derive(Debug, thiserror::Error)]
enum Away {
    #[error("no connection: {0}")]
    Pool(#[from] deadpool_redis::PoolError),
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("no answer in {ANSWER_TIMEOUT:?}")]
    Slow,
}

impl RateLimits {
    /// Over Redis at this URL, or by this process alone. No connection is made yet.
    ///
    /// # Errors
    /// If the URL is not one.
    pub fn new(redis_url: Option<&SecretString>, namespace: &str, rate: Rate) -> anyhow::Result<Self> {
        let redis = match redis_url {
            Some(url) => {
                let config = deadpool_redis::Config::from_url(url.expose_secret());
                let pool = config.builder().map_err(|_| anyhow::anyhow!("the Redis URL cannot be read"))?;
                Some(pool.max_size(CONNECTIONS).runtime(Runtime::Tokio1).build()?)
            }
            None => None,
        };
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Ok(Self {
            redis,
            script: Script::new(GCRA),
            prefix: format!("{namespace}:rate:"),
            rate,
            local: RateLimiter::dashmap(quota),
            born: Instant::now(),
            away_until_ms: AtomicI64::new(i64::MIN),
        })
    }

    /// Whether this key may ask now.
    pub async fn ask(&self, key: Uuid) -> Decision {
        if let Some(pool) = &self.redis
            && self.elapsed_ms() >= self.away_until_ms.load(Ordering::Relaxed)
        {
            match self.ask_redis(pool, key).await {
                Ok(decision) => return decision,
                Err(error) => {
                    let left_alone = i64::try_from(LEFT_ALONE.as_millis()).unwrap_or(i64::MAX);
                    self.away_until_ms.store(self.elapsed_ms() + left_alone, Ordering::Relaxed);
                    tracing::warn!(%error, "Redis is away: requests are limited by each process alone");
                }
            }
        }
        metrics::counter!(names::RATE_LIMIT_LOCAL_TOTAL).increment(1);
        self.ask_local(key)
    }

    async fn ask_redis(&self, pool: &Pool, key: Uuid) -> Result<Decision, Away> {
        let interval = 1_000_000.0 / f64::from(self.rate.per_second.get());
        let tolerance = interval * f64::from(self.rate.burst.get() - 1);
        let mut call = self.script.key(format!("{}{}", self.prefix, key.simple()));
        call.arg(interval).arg(tolerance);
        let asked = async {
            let mut connection = pool.get().await?;
            Ok::<u64, Away>(call.invoke_async(&mut connection).await?)
        };
        let wait = tokio::time::timeout(ANSWER_TIMEOUT, asked).await.map_err(|_| Away::Slow)??;
        Ok(if wait == 0 { Decision::Granted } else { Decision::Refused(Duration::from_micros(wait)) })
    }

    fn ask_local(&self, key: Uuid) -> Decision {
        if self.local.len() > LOCAL_KEYS {
            self.local.retain_recent();
        }
        match self.local.check_key(&key) {
            Ok(()) => Decision::Granted,
            Err(not_until) => Decision::Refused(not_until.wait_time_from(DefaultClock::default().now())),
        }
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.born.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second: NonZeroU32::new(per_second).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
    }

    #[tokio::test]
    async fn without_redis_the_process_limits_by_itself() {
        let limits = RateLimits::new(None, "test", rate(1, 3)).unwrap();
        let (ada, bob) = (Uuid::now_v7(), Uuid::now_v7());
        for _ in 0..3 {
            assert_eq!(limits.ask(ada).await, Decision::Granted);
        }
        assert!(matches!(limits.ask(ada).await, Decision::Refused(wait) if wait <= Duration::from_secs(1)));
        assert_eq!(limits.ask(bob).await, Decision::Granted);
    }

    #[tokio::test]
    async fn a_redis_that_is_not_there_is_left_alone_for_a_while() {
        // Port 9 (discard) on loopback: refused at once.
        let url = SecretString::from("redis://127.0.0.1:9");
        let limits = RateLimits::new(Some(&url), "test", rate(1000, 1000)).unwrap();
        assert_eq!(limits.ask(Uuid::now_v7()).await, Decision::Granted);
        assert!(limits.away_until_ms.load(Ordering::Relaxed) > limits.elapsed_ms());
        assert_eq!(limits.ask(Uuid::now_v7()).await, Decision::Granted);
    }
}
