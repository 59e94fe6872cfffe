//! A cache of refusals that are still valid.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::limit::CACHED_REFUSALS_MAX;
use crate::{Key, LimitDecision, Limiter, Rule, Unavailable};

/// A limiter that caches the refusals of another one.
///
/// After a refusal no permit is available again before [`LimitDecision::retry_after`] has passed, counted
/// from when the attempt was *sent*. Until then further attempts are refused from the cache and do not reach
/// the other limiter. The time returned to the caller counts from when the reply was *received*, so a caller
/// that waits for it is never early. A wall clock that steps, forward or far back, frees permits that are not
/// reflected in the cache until the refusal expires. The cache itself uses the monotonic clock.
pub struct DenyCache {
    inner: Arc<dyn Limiter>,
    refusals: Mutex<Refusals>,
}

type RefusalKey = (&'static str, Key);

#[derive(Default)]
struct Refusals {
    by_key: HashMap<RefusalKey, Refusal>,
    /// In order of insertion: one entry for each in the map, and stale ones.
    order: VecDeque<(RefusalKey, Instant)>,
    refused_count: u64,
}

#[derive(Clone, Copy)]
struct Refusal {
    /// Attempts before this instant are refused.
    valid_until: Instant,
    /// The earliest instant at which an attempt is certain to find a permit.
    free_at: Instant,
}

impl DenyCache {
    /// An empty cache in front of `inner`.
    pub fn new(inner: Arc<dyn Limiter>) -> Self {
        Self { inner, refusals: Mutex::default() }
    }

    /// Attempts refused from the cache so far.
    pub fn refused_count(&self) -> u64 {
        self.with_refusals(|refusals| refusals.refused_count)
    }

    /// Number of cached refusals, including expired ones that are not evicted yet.
    pub fn len(&self) -> usize {
        self.with_refusals(|refusals| refusals.by_key.len())
    }

    /// True if no refusal is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn with_refusals<T>(&self, access: impl FnOnce(&mut Refusals) -> T) -> T {
        access(&mut self.refusals.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Limiter for DenyCache {
    async fn attempt(&self, rule: Rule, key: &Key) -> Result<LimitDecision, Unavailable> {
        let cache_key = (rule.name(), key.clone());
        let sent = Instant::now();
        if let Some(free_after) = self.with_refusals(|refusals| refusals.refuse_from_cache(&cache_key, sent))
        {
            return Ok(LimitDecision { rule, allowed: false, remaining: 0, reset_after: free_after });
        }
        let decision = self.inner.attempt(rule, key).await?;
        if let Some(retry_after) = decision.retry_after() {
            let refusal = Refusal { valid_until: sent + retry_after, free_at: Instant::now() + retry_after };
            self.with_refusals(|refusals| refusals.insert(cache_key, refusal, sent));
        }
        Ok(decision)
    }
}

impl Refusals {
    /// Refuses an attempt if there is a valid refusal, and counts it. Returns the time until a permit is
    /// available again, in whole microseconds, rounded up; `None` without a valid refusal.
    fn refuse_from_cache(&mut self, key: &RefusalKey, now: Instant) -> Option<Duration> {
        let refusal = *self.by_key.get(key)?;
        if refusal.valid_until <= now {
            return None;
        }
        self.refused_count += 1;
        let nanos = (refusal.free_at - now).as_nanos();
        Some(Duration::from_micros(u64::try_from(nanos.div_ceil(1_000)).unwrap_or(u64::MAX)))
    }

    fn insert(&mut self, key: RefusalKey, refusal: Refusal, now: Instant) {
        self.by_key.insert(key.clone(), refusal);
        self.order.push_back((key, refusal.valid_until));
        while let Some((key, valid_until)) = self.order.front() {
            let current = self.by_key.get(key).map(|refusal| refusal.valid_until);
            let is_stale = current != Some(*valid_until);
            if !is_stale && *valid_until > now && self.order.len() <= CACHED_REFUSALS_MAX {
                return;
            }
            if !is_stale {
                self.by_key.remove(key);
            }
            self.order.pop_front();
        }
    }
}
