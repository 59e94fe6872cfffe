//! The deny cache in front of a limiter, and the fallback while that limiter is unavailable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coordination::conformance::ManualClock;
use coordination::conformance::limiter::{CASES, Harness};
use coordination::local::LocalLimiter;
use coordination::redis::{DenyCache, Fallback, OnDown};
use coordination::{Clock as _, Key, LimitDecision, Limiter, Rule, Unavailable};
use tokio::time::advance;

use crate::{failed_cases, key};

struct CachedHarness {
    clock: Arc<ManualClock>,
    local: Arc<LocalLimiter>,
    cached: Arc<DenyCache>,
}

impl CachedHarness {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new());
        let local = Arc::new(LocalLimiter::new(clock.clone()));
        Self { clock, cached: Arc::new(DenyCache::new(local.clone())), local }
    }
}

#[async_trait]
impl Harness for CachedHarness {
    fn limiter(&self) -> Arc<dyn Limiter> {
        self.cached.clone()
    }

    async fn set_clock(&self, unix_micros: u64) {
        // The monotonic clock moves with it, but never back.
        advance(Duration::from_micros(unix_micros.saturating_sub(self.clock.unix_micros()))).await;
        self.clock.set(unix_micros);
    }

    async fn residue(&self) -> usize {
        self.local.forget_idle();
        self.local.keys()
    }
}

#[test]
fn the_deny_cache_conforms() {
    // A clock that steps far back frees permits at once, which a cached refusal does not notice.
    let by_design = ["clock_steps_back_follow_the_newest_admission"];
    assert_eq!(failed_cases(CASES, || Box::new(CachedHarness::new())), by_design);
}

/// Refuses every attempt for a window, or is unavailable. Counts its calls.
#[derive(Default)]
struct RefusingLimiter {
    calls: AtomicU64,
    is_down: AtomicBool,
}

#[derive(Debug, thiserror::Error)]
#[error("down")]
struct Down;

#[async_trait]
impl Limiter for RefusingLimiter {
    async fn attempt(&self, rule: Rule, _key: &Key) -> Result<LimitDecision, Unavailable> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // The reply is delayed.
        advance(Duration::from_millis(20)).await;
        if self.is_down.load(Ordering::Relaxed) {
            return Err(Unavailable::new(Down));
        }
        Ok(LimitDecision { rule, allowed: false, remaining: 0, reset_after: rule.window() })
    }
}

#[tokio::test(start_paused = true)]
async fn a_cached_refusal_holds_from_send_and_is_reported_from_receipt() {
    let inner = Arc::new(RefusingLimiter::default());
    let rule = Rule::parse("test", "1/1m").unwrap();
    let cached = DenyCache::new(inner.clone());
    let retry_after = async || cached.attempt(rule, &key(0)).await.unwrap().retry_after().unwrap();
    assert_eq!(retry_after().await, Duration::from_mins(1));
    advance(Duration::from_millis(59_979)).await;
    assert_eq!(retry_after().await, Duration::from_millis(21), "20 ms longer than the cache keeps it");
    assert_eq!((inner.calls.load(Ordering::Relaxed), cached.refused_count()), (1, 1));
    advance(Duration::from_millis(1)).await;
    retry_after().await;
    assert_eq!(inner.calls.load(Ordering::Relaxed), 2, "a permit may have returned");
}

#[tokio::test(start_paused = true)]
async fn the_deny_cache_is_bounded() {
    let inner = Arc::new(RefusingLimiter::default());
    let rule = Rule::parse("test", "1/24h").unwrap();
    let cached = DenyCache::new(inner);
    for number in 0..40_000 {
        cached.attempt(rule, &key(number)).await.unwrap();
    }
    assert!(cached.len() <= 16_384, "{}", cached.len());
    advance(Duration::from_hours(25)).await;
    cached.attempt(rule, &key(0)).await.unwrap();
    assert_eq!(cached.len(), 1, "expired refusals are evicted");
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_limiter_means_a_local_window_or_an_error() {
    let inner = Arc::new(RefusingLimiter::default());
    let rule = Rule::parse("test", "2/10s").unwrap();
    let clock = Arc::new(ManualClock::new());
    let own = Fallback::new(inner.clone(), OnDown::Local, clock.clone());
    let none = Fallback::new(inner.clone(), OnDown::Refuse, clock);
    inner.is_down.store(true, Ordering::Relaxed);
    for allowed in [true, true, false] {
        assert_eq!(own.attempt(rule, &key(0)).await.unwrap().allowed, allowed);
        assert!(none.attempt(rule, &key(0)).await.is_err());
    }
    inner.is_down.store(false, Ordering::Relaxed);
    assert!(
        !own.attempt(rule, &key(1)).await.unwrap().allowed,
        "the limiter is used again once it is available"
    );
    assert_eq!((own.fallback_count(), none.fallback_count()), (3, 3));
}
