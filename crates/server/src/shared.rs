//! Limits and locks: in this process, or on a Redis shared with others.

use std::sync::Arc;

use coordination::local::{LocalLimiter, LocalLock};
use coordination::redis::{Fallback, OnDown, Redis, RedisOptions};
use coordination::{Limiter, Lock};
use engine::SystemClock;

use crate::config::OnRedisDown;

/// A Redis in use, and what helps while it is away.
pub(crate) struct Shared {
    pub(crate) redis: Redis,
    pub(crate) limiter: Arc<Fallback>,
}

/// The two ports, and what stands behind them.
pub(crate) struct Crowd {
    pub(crate) lock: Arc<dyn Lock>,
    pub(crate) limiter: Arc<dyn Limiter>,
    pub(crate) shared: Option<Arc<Shared>>,
}

impl Crowd {
    /// For one process alone.
    pub(crate) fn local() -> Self {
        let clock = Arc::new(SystemClock);
        Self {
            lock: Arc::new(LocalLock::new(clock.clone())),
            limiter: Arc::new(LocalLimiter::new(clock)),
            shared: None,
        }
    }

    /// With all who use the same Redis, which need not be there yet. Must be called within a tokio runtime.
    pub(crate) fn shared(options: RedisOptions, on_down: OnRedisDown) -> Self {
        let on_down = match on_down {
            OnRedisDown::Database => OnDown::Local,
            OnRedisDown::Refuse => OnDown::Refuse,
        };
        let redis = Redis::start(options);
        let limiter = Arc::new(redis.limiter_or(on_down, Arc::new(SystemClock)));
        let (lock, shared) = (redis.lock(), Arc::new(Shared { redis, limiter: limiter.clone() }));
        Self { lock, limiter, shared: Some(shared) }
    }
}
