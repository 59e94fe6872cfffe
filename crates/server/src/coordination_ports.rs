//! Limits and locks: in this process, or on a Redis shared with others.

use std::sync::Arc;

use coordination::local::{LocalLimiter, LocalLock};
use coordination::redis::{Fallback, OnDown, Redis, RedisOptions};
use coordination::{Limiter, Lock};
use engine::SystemClock;

use crate::config::OnRedisDown;

/// A Redis in use, and what helps while it is away.
pub(crate) struct SharedRedis {
    pub(crate) redis: Redis,
    pub(crate) limiter: Arc<Fallback>,
}

/// The ports that keep a crowd in order, and what stands behind them.
pub(crate) struct CoordinationPorts {
    pub(crate) lock: Arc<dyn Lock>,
    /// For the desks' leases; unset where this process alone works on its database.
    pub(crate) lease: Option<Arc<dyn Lock>>,
    pub(crate) limiter: Arc<dyn Limiter>,
    pub(crate) redis: Option<Arc<SharedRedis>>,
}

impl CoordinationPorts {
    /// For one process alone.
    pub(crate) fn local() -> Self {
        let clock = Arc::new(SystemClock);
        Self {
            lock: apply_lock_mutation(Arc::new(LocalLock::new(clock.clone()))),
            lease: None,
            limiter: Arc::new(LocalLimiter::new(clock)),
            redis: None,
        }
    }

    /// With all who use the same Redis, which need not be there yet; `leased` if they share a database, too. Must be
    /// called within a tokio runtime.
    pub(crate) fn on_redis(options: RedisOptions, on_down: OnRedisDown, leased: bool) -> Self {
        let on_down = match on_down {
            OnRedisDown::Database => OnDown::Local,
            OnRedisDown::Refuse => OnDown::Refuse,
        };
        let redis = Redis::start(options);
        let limiter = Arc::new(redis.limiter_with_fallback(on_down, Arc::new(SystemClock)));
        let (lock, shared) =
            (apply_lock_mutation(redis.lock()), Arc::new(SharedRedis { redis, limiter: limiter.clone() }));
        let lease = leased.then(|| lock.clone());
        Self { lock, lease, limiter, redis: Some(shared) }
    }
}

impl SharedRedis {
    /// Says in the log when Redis goes away and when it comes back, once each, for as long as it is polled.
    pub(crate) async fn log_availability(&self) {
        loop {
            self.redis.wait_until_up().await;
            self.redis.wait_until_down().await;
            tracing::warn!("Redis is away; going on without it");
            self.redis.wait_until_up().await;
            tracing::info!("Redis is back");
        }
    }
}

#[cfg(not(feature = "sabotage"))]
fn apply_lock_mutation(lock: Arc<dyn Lock>) -> Arc<dyn Lock> {
    lock
}

/// Tests put a lock in its place that everybody owns at once, to show that nothing depends on it.
#[cfg(feature = "sabotage")]
fn apply_lock_mutation(lock: Arc<dyn Lock>) -> Arc<dyn Lock> {
    if domain::sabotage::removed(domain::sabotage::Guard::Locks) { Arc::new(open::OpenLock) } else { lock }
}

#[cfg(feature = "sabotage")]
mod open {
    use std::future::pending;

    use async_trait::async_trait;
    use coordination::{GuardBackend, Key, Lock, LockError, LockGuard, LockOptions};

    /// Everybody's, for ever.
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
