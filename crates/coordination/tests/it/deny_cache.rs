//! The memory for refusals in front of a limiter, and the help while that one is away.

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

use crate::{failures, key};

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
        // The monotonic clock goes along, but never back.
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
    // A clock that steps far back frees permits at once, which a refusal that still holds does not know.
    let by_design = ["clock_steps_back_follow_the_newest_admission"];
    assert_eq!(failures(CASES, || Box::new(CachedHarness::new())), by_design);
}

/// Refuses everybody for a minute, or cannot be asked, and counts how often it was.
#[derive(Default)]
struct Refusing {
    asked: AtomicU64,
    away: AtomicBool,
}

#[derive(Debug, thiserror::Error)]
#[error("away")]
struct Away;

#[async_trait]
impl Limiter for Refusing {
    async fn attempt(&self, rule: Rule, _key: &Key) -> Result<LimitDecision, Unavailable> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        // The answer takes its time.
        advance(Duration::from_millis(20)).await;
        if self.away.load(Ordering::Relaxed) {
            return Err(Unavailable::new(Away));
        }
        Ok(LimitDecision { rule, allowed: false, remaining: 0, reset_after: rule.window() })
    }
}

#[tokio::test(start_paused = true)]
async fn a_cached_refusal_holds_from_send_and_is_reported_from_receipt() {
    let (asked, rule) = (Arc::new(Refusing::default()), Rule::parse("test", "1/1m").unwrap());
    let cached = DenyCache::new(asked.clone());
    let told = async || cached.attempt(rule, &key(0)).await.unwrap().retry_after().unwrap();
    assert_eq!(told().await, Duration::from_mins(1));
    advance(Duration::from_millis(59_979)).await;
    assert_eq!(told().await, Duration::from_millis(21), "20 ms longer than it holds");
    assert_eq!((asked.asked.load(Ordering::Relaxed), cached.refused_count()), (1, 1));
    advance(Duration::from_millis(1)).await;
    told().await;
    assert_eq!(asked.asked.load(Ordering::Relaxed), 2, "a permit may have come back by now");
}

#[tokio::test(start_paused = true)]
async fn the_deny_cache_is_bounded() {
    let (asked, rule) = (Arc::new(Refusing::default()), Rule::parse("test", "1/24h").unwrap());
    let cached = DenyCache::new(asked);
    for number in 0..40_000 {
        cached.attempt(rule, &key(number)).await.unwrap();
    }
    assert!(cached.len() <= 16_384, "{}", cached.len());
    advance(Duration::from_hours(25)).await;
    cached.attempt(rule, &key(0)).await.unwrap();
    assert_eq!(cached.len(), 1, "what is over is forgotten");
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_limiter_means_a_local_window_or_an_error() {
    let (asked, rule) = (Arc::new(Refusing::default()), Rule::parse("test", "2/10s").unwrap());
    let clock = Arc::new(ManualClock::new());
    let own = Fallback::new(asked.clone(), OnDown::Local, clock.clone());
    let none = Fallback::new(asked.clone(), OnDown::Refuse, clock);
    asked.away.store(true, Ordering::Relaxed);
    for allowed in [true, true, false] {
        assert_eq!(own.attempt(rule, &key(0)).await.unwrap().allowed, allowed);
        assert!(none.attempt(rule, &key(0)).await.is_err());
    }
    asked.away.store(false, Ordering::Relaxed);
    assert!(!own.attempt(rule, &key(1)).await.unwrap().allowed, "asked again as soon as it is back");
    assert_eq!((own.fallback_count(), none.fallback_count()), (3, 3));
}
