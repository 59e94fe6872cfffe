//! A limiter that replaces another one while that one is unavailable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::local::LocalLimiter;
use crate::{Clock, Key, LimitDecision, Limiter, Rule, Unavailable};

/// The behaviour of a [`Fallback`] while the other limiter is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDown {
    /// Attempts are decided by an exact window of this process alone. With n processes a key gets up to n
    /// times its limit.
    #[default]
    Local,
    /// Attempts are not decided: they return [`Unavailable`], which the caller turns into a refusal.
    Refuse,
}

/// A limiter that calls another one, and decides by [`OnDown`] if that one returns [`Unavailable`].
pub struct Fallback {
    inner: Arc<dyn Limiter>,
    local: Option<LocalLimiter>,
    count: AtomicU64,
}

impl Fallback {
    /// Wraps `inner`; `clock` is read only for attempts that fall back.
    pub fn new(inner: Arc<dyn Limiter>, on_down: OnDown, clock: Arc<dyn Clock>) -> Self {
        let local = match on_down {
            OnDown::Local => Some(LocalLimiter::new(clock)),
            OnDown::Refuse => None,
        };
        Self { inner, local, count: AtomicU64::new(0) }
    }

    /// Attempts so far for which the other limiter was unavailable.
    pub fn fallback_count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Limiter for Fallback {
    async fn attempt(&self, rule: Rule, key: &Key) -> Result<LimitDecision, Unavailable> {
        let result = self.inner.attempt(rule, key).await;
        let Err(unavailable) = result else { return result };
        self.count.fetch_add(1, Ordering::Relaxed);
        match &self.local {
            Some(local) => local.attempt(rule, key).await,
            None => Err(unavailable),
        }
    }
}
