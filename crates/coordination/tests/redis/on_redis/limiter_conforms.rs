//! The limiter's conformance suite on a Redis server.

use std::sync::Arc;

use async_trait::async_trait;
use coordination::Limiter;
use coordination::conformance::ManualClock;
use coordination::conformance::limiter::{CASES, Harness};
use coordination::redis::{Redis, Scripts};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use testkit::RedisServer;

use super::harness::{HarnessFuture, connect, failed_cases, options, start};

/// Key of the clock that the scripts read instead of the server's.
pub(super) const CLOCK: &str = "test:clock";
/// Key of the expiry times by that clock, in milliseconds.
const EXPIRY: &str = "test:expiry";

/// Prepended to a script, so that it uses the clock of the test.
const BY_TEST_CLOCK: &str = "
local test_clock = redis.call('GET', 'test:clock')
local function test_time() return {string.sub(test_clock, 1, -7), string.sub(test_clock, -6)} end
local function test_set(value, due)
  redis.call('SET', KEYS[1], value)
  redis.call('HSET', 'test:expiry', KEYS[1], due)
end
local test_due = redis.call('HGET', 'test:expiry', KEYS[1])
if test_due and tonumber(test_due) <= math.floor(tonumber(test_clock) / 1000) then
  redis.call('DEL', KEYS[1])
  redis.call('HDEL', 'test:expiry', KEYS[1])
end
";

/// The script with its two uses of the server's clock replaced: the time and the expiry.
pub(super) fn by_test_clock(text: &str) -> String {
    let time = "redis.call('TIME')";
    let set = "redis.call('SET', KEYS[1], ring, 'PXAT', ";
    assert_eq!((text.matches(time).count(), text.matches(set).count()), (1, 1), "{text}");
    BY_TEST_CLOCK.to_owned() + &text.replace(time, "test_time()").replace(set, "test_set(ring, ")
}

pub(super) struct RedisHarness {
    limiter: Arc<dyn Limiter>,
    connection: MultiplexedConnection,
    _redis: Redis,
}

/// A harness whose rate-limit script is transformed by `rewrite`.
pub(super) fn harness_with(rewrite: fn(&str) -> String) -> impl Fn(String) -> HarnessFuture<dyn Harness> {
    move |url| {
        Box::pin(async move {
            let scripts = Scripts::rewrite(|name, text| match name {
                "rate_limit" => rewrite(text),
                _ => text.to_owned(),
            });
            let redis = start(options(&url, "suite").with_scripts(scripts)).await;
            let harness = RedisHarness {
                limiter: redis.uncached_limiter(),
                connection: connect(&url).await,
                _redis: redis,
            };
            harness.set_clock(ManualClock::START).await;
            Box::new(harness) as Box<dyn Harness>
        })
    }
}

#[async_trait]
impl Harness for RedisHarness {
    fn limiter(&self) -> Arc<dyn Limiter> {
        self.limiter.clone()
    }

    async fn set_clock(&self, unix_micros: u64) {
        let mut connection = self.connection.clone();
        connection.set::<_, _, ()>(CLOCK, unix_micros).await.expect("a clock");
    }

    async fn residue(&self) -> usize {
        let mut connection = self.connection.clone();
        let now: u64 = connection.get(CLOCK).await.expect("a clock");
        let due: Vec<u64> = connection.hvals(EXPIRY).await.expect("times");
        // The script rounds expiry up by one to two milliseconds.
        due.into_iter().filter(|due| *due > now / 1_000 + 1).count()
    }
}

#[tokio::test]
async fn the_limiter_on_redis_conforms() {
    let server = RedisServer::start().await;
    assert_eq!(
        failed_cases(&server, CASES.iter().collect(), harness_with(by_test_clock)),
        Vec::<&str>::new()
    );
}
