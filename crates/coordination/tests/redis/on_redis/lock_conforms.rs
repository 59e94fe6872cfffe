//! The lock's conformance suite on a Redis server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coordination::Lock;
use coordination::conformance::lock::{CASES, Harness};
use coordination::redis::{Redis, Scripts};
use testkit::RedisServer;

use super::harness::{HarnessFuture, LEASE, failed_cases, options_without_lease_expiry, residue, start};

pub(super) struct RedisHarness {
    redis: Redis,
    url: String,
}

#[async_trait]
impl Harness for RedisHarness {
    fn lock(&self) -> Arc<dyn Lock> {
        self.redis.lock()
    }

    async fn residue(&self) -> usize {
        residue(&self.url).await
    }

    fn slack(&self) -> Duration {
        LEASE * 10
    }
}

/// A harness whose scripts are transformed by `rewrite`.
pub(super) fn harness_with(
    rewrite: fn(&str, &str) -> String,
) -> impl Fn(String) -> HarnessFuture<dyn Harness> {
    move |url| {
        Box::pin(async move {
            let redis =
                start(options_without_lease_expiry(&url, "suite").with_scripts(Scripts::rewrite(rewrite)))
                    .await;
            Box::new(RedisHarness { redis, url }) as Box<dyn Harness>
        })
    }
}

#[tokio::test]
async fn the_lock_on_redis_conforms() {
    let server = RedisServer::start().await;
    let failed = failed_cases(&server, CASES.iter().collect(), harness_with(|_, text| text.to_owned()));
    assert_eq!(failed, Vec::<&str>::new());
}
