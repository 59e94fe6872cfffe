//! The lock's suite on a server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coordination::Lock;
use coordination::conformance::lock::{CASES, Harness};
use coordination::redis::{Redis, Scripts};
use testkit::RedisServer;

use super::harness::{LEASE, Making, calm, failures, residue, started};

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

/// A rig whose scripts are what `rewrite` makes of them.
pub(super) fn making(rewrite: fn(&str, &str) -> String) -> impl Fn(String) -> Making<dyn Harness> {
    move |url| {
        Box::pin(async move {
            let redis = started(calm(&url, "suite").with_scripts(Scripts::rewritten(rewrite))).await;
            Box::new(RedisHarness { redis, url }) as Box<dyn Harness>
        })
    }
}

#[tokio::test]
async fn the_lock_on_redis_conforms() {
    let server = RedisServer::start().await;
    let failures = failures(&server, CASES.iter().collect(), making(|_, text| text.to_owned()));
    assert_eq!(failures, Vec::<&str>::new());
}
