//! What a limiter does while the server cannot be asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::local::LocalLimiter;
use crate::{Clock, Key, LimitDecision, Limiter, Rule, Unavailable};

/// What an attempt gets that nobody can be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDown {
    /// Decided by an exact window of this process alone. With n processes a key gets up to n times its limit.
    #[default]
    Local,
    /// [`Unavailable`], for the caller to refuse.
    Refuse,
}

/// A limiter that asks another one, and helps itself where that is [`Unavailable`].
pub struct Fallback {
    asked: Arc<dyn Limiter>,
    own: Option<LocalLimiter>,
    helped: AtomicU64,
}

impl Fallback {
    /// Asks `asked`; `clock` is read only while it is not available.
    pub fn new(asked: Arc<dyn Limiter>, on_down: OnDown, clock: Arc<dyn Clock>) -> Self {
        let own = match on_down {
            OnDown::Local => Some(LocalLimiter::new(clock)),
            OnDown::Refuse => None,
        };
        Self { asked, own, helped: AtomicU64::new(0) }
    }

    /// Attempts so far that the other limiter could not be asked about.
    pub fn fallback_count(&self) -> u64 {
        self.helped.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Limiter for Fallback {
    async fn attempt(&self, rule: Rule, key: &Key) -> Result<LimitDecision, Unavailable> {
        let answer = self.asked.attempt(rule, key).await;
        let Err(unavailable) = answer else { return answer };
        self.helped.fetch_add(1, Ordering::Relaxed);
        match &self.own {
            Some(own) => own.attempt(rule, key).await,
            None => Err(unavailable),
        }
    }
}
