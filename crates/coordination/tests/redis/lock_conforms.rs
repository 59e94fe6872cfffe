//! The lock's suite on a server.

use std::sync::Arc;

use async_trait::async_trait;
use coordination::Lock;
use coordination::conformance::lock::{CASES, Rig};
use coordination::redis::Redis;
use testkit::RedisServer;

use crate::rig::{failures, options, residue, started};

pub struct RedisRig {
    pub redis: Redis,
    pub url: String,
}

#[async_trait]
impl Rig for RedisRig {
    fn lock(&self) -> Arc<dyn Lock> {
        self.redis.lock()
    }

    async fn residue(&self) -> usize {
        residue(&self.url).await
    }
}

#[tokio::test]
async fn the_lock_on_redis_conforms() {
    let server = RedisServer::start().await;
    let failures = failures(&server, CASES, |url| {
        Box::pin(async move {
            let redis = started(options(&url, "suite")).await;
            Box::new(RedisRig { redis, url }) as Box<dyn Rig>
        })
    });
    assert_eq!(failures, Vec::<&str>::new());
}
