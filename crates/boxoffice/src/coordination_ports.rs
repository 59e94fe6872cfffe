//! The rate limiter and the locks: in this process, or on a Redis shared with other instances.

use std::sync::Arc;

use coordination::local::{LocalLimiter, LocalLock};
use coordination::redis::{Fallback, OnDown, Redis, RedisOptions};
use coordination::{Limiter, Lock};
use engine::SystemClock;

use crate::config::OnRedisDown;

/// A Redis client, and the limiter that falls back when Redis is unavailable.
pub(crate) struct SharedRedis {
    pub(crate) redis: Redis,
    pub(crate) limiter: Arc<Fallback>,
}

/// The implementations of the coordination ports.
pub(crate) struct CoordinationPorts {
    pub(crate) lock: Arc<dyn Lock>,
    /// The lock of the desks' leases. Unset if no other instance uses the database.
    pub(crate) lease: Option<Arc<dyn Lock>>,
    pub(crate) limiter: Arc<dyn Limiter>,
    /// Unset if no Redis is configured.
    pub(crate) redis: Option<Arc<SharedRedis>>,
}

impl CoordinationPorts {
    /// In-process implementations, for a single instance.
    pub(crate) fn local() -> Self {
        let clock = Arc::new(SystemClock);
        Self {
            lock: apply_lock_mutation(Arc::new(LocalLock::new(clock.clone()))),
            lease: None,
            limiter: Arc::new(LocalLimiter::new(clock)),
            redis: None,
        }
    }

    /// Implementations shared by all instances that use the same Redis, which need not be reachable yet. With
    /// `with_lease`, the desks take leases, too: set it if several instances use the database. Must be called
    /// within a Tokio runtime.
    pub(crate) fn on_redis(options: RedisOptions, on_down: OnRedisDown, with_lease: bool) -> Self {
        let on_down = match on_down {
            OnRedisDown::Database => OnDown::Local,
            OnRedisDown::Refuse => OnDown::Refuse,
        };
        let redis = Redis::start(options);
        let limiter = Arc::new(redis.limiter_with_fallback(on_down, Arc::new(SystemClock)));
        let lock = apply_lock_mutation(redis.lock());
        let lease = with_lease.then(|| lock.clone());
        let redis = Some(Arc::new(SharedRedis { redis, limiter: limiter.clone() }));
        Self { lock, lease, limiter, redis }
    }
}

impl SharedRedis {
    /// Logs once when Redis becomes unavailable and once when it is available again, for as long as it is
    /// polled.
    pub(crate) async fn log_availability(&self) {
        loop {
            self.redis.wait_until_up().await;
            self.redis.wait_until_down().await;
            tracing::warn!("Redis unavailable; continuing without it");
            self.redis.wait_until_up().await;
            tracing::info!("Redis available again");
        }
    }
}

#[cfg(not(feature = "sabotage"))]
fn apply_lock_mutation(lock: Arc<dyn Lock>) -> Arc<dyn Lock> {
    lock
}

/// Tests replace the lock by one without mutual exclusion, to show that correctness does not depend on it.
#[cfg(feature = "sabotage")]
fn apply_lock_mutation(lock: Arc<dyn Lock>) -> Arc<dyn Lock> {
    if domain::guard!(Locks) { lock } else { Arc::new(open_lock::OpenLock) }
}

#[cfg(feature = "sabotage")]
mod open_lock {
    use std::future::pending;

    use async_trait::async_trait;
    use coordination::{GuardBackend, Key, Lock, LockError, LockGuard, LockOptions};

    /// A lock that every caller acquires at once and never loses.
    pub(super) struct OpenLock;

    #[async_trait]
    impl Lock for OpenLock {
        async fn acquire(&self, key: &Key, _options: LockOptions) -> Result<LockGuard, LockError> {
            Ok(LockGuard::new(key.clone(), 0, Self))
        }

        async fn try_acquire_each(
            &self,
            keys: &[Key],
            _options: LockOptions,
        ) -> Result<Vec<Option<LockGuard>>, LockError> {
            Ok(keys.iter().map(|key| Some(LockGuard::new(key.clone(), 0, Self))).collect())
        }
    }

    #[async_trait]
    impl GuardBackend for OpenLock {
        fn is_lost(&self) -> bool {
            false
        }

        async fn lost(&self) {
            pending::<()>().await;
        }

        fn contended(&self) -> bool {
            false
        }
    }
}
