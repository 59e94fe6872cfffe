//! Refusals that still hold, answered without asking.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{Key, LimitDecision, Limiter, Rule, Unavailable};

/// Refusals remembered, at about 150 bytes each. Beyond it, the oldest is forgotten, which costs a question.
const REFUSALS_MAX: usize = 16_384;

/// A limiter that asks another one, and remembers its refusals.
///
/// After a refusal no permit can come back before [`Verdict::retry_after`] is over, counted from when the
/// question was *sent*: until then whoever keeps knocking is refused here, and costs the other limiter nothing.
/// What the caller is told counts from when the answer was *received*, so whoever comes back on time is never
/// early. A wall clock that steps, forward or far back, frees permits that this cache learns of only when the
/// refusal is over. Time is the monotonic clock's.
pub struct DenyCache {
    asked: Arc<dyn Limiter>,
    refusals: Mutex<Refusals>,
}

type RefusalKey = (&'static str, Key);

#[derive(Default)]
struct Refusals {
    by_key: HashMap<RefusalKey, Refusal>,
    /// In the order in which they were learnt; one entry for each in the map, and stale ones.
    order: VecDeque<(RefusalKey, Instant)>,
    answered: u64,
}

#[derive(Clone, Copy)]
struct Refusal {
    /// Until when nothing can have changed.
    holds_until: Instant,
    /// When an attempt is sure to pass.
    free_at: Instant,
}

impl DenyCache {
    /// Remembers what `asked` refuses; nothing yet.
    pub fn new(asked: Arc<dyn Limiter>) -> Self {
        Self { asked, refusals: Mutex::default() }
    }

    /// Attempts refused from memory so far.
    pub fn refused_count(&self) -> u64 {
        self.with(|refusals| refusals.answered)
    }

    /// Refusals remembered, some of which are over: the size for a gauge.
    pub fn len(&self) -> usize {
        self.with(|refusals| refusals.by_key.len())
    }

    /// Whether no refusal is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn with<T>(&self, look: impl FnOnce(&mut Refusals) -> T) -> T {
        look(&mut self.refusals.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Limiter for DenyCache {
    async fn attempt(&self, rule: Rule, key: &Key) -> Result<LimitDecision, Unavailable> {
        let (ring, sent) = ((rule.name(), key.clone()), Instant::now());
        if let Some(free_after) = self.with(|refusals| refusals.still_holds(&ring, sent)) {
            return Ok(LimitDecision { rule, allowed: false, remaining: 0, reset_after: free_after });
        }
        let verdict = self.asked.attempt(rule, key).await?;
        if let Some(retry_after) = verdict.retry_after() {
            let refusal = Refusal { holds_until: sent + retry_after, free_at: Instant::now() + retry_after };
            self.with(|refusals| refusals.learn(ring, refusal, sent));
        }
        Ok(verdict)
    }
}

impl Refusals {
    /// How long the refusal still stands, in whole microseconds, rounded up.
    fn still_holds(&mut self, key: &RefusalKey, now: Instant) -> Option<Duration> {
        let refusal = *self.by_key.get(key)?;
        if refusal.holds_until <= now {
            return None;
        }
        self.answered += 1;
        let nanos = (refusal.free_at - now).as_nanos();
        Some(Duration::from_micros(u64::try_from(nanos.div_ceil(1_000)).unwrap_or(u64::MAX)))
    }

    fn learn(&mut self, key: RefusalKey, refusal: Refusal, now: Instant) {
        self.by_key.insert(key.clone(), refusal);
        self.order.push_back((key, refusal.holds_until));
        while let Some((key, holds_until)) = self.order.front() {
            let known = self.by_key.get(key).map(|refusal| refusal.holds_until);
            let stale = known != Some(*holds_until);
            if !stale && *holds_until > now && self.order.len() <= REFUSALS_MAX {
                return;
            }
            if !stale {
                self.by_key.remove(key);
            }
            self.order.pop_front();
        }
    }
}
