//! The in-memory limiter.

use std::sync::Arc;

use async_trait::async_trait;
use coordination::conformance::ManualClock;
use coordination::conformance::limiter::{CASES, Harness};
use coordination::local::LocalLimiter;
use coordination::{AllowAll, Limiter, Rule};

use crate::{failed_cases, key};

struct LocalHarness {
    clock: Arc<ManualClock>,
    limiter: Arc<LocalLimiter>,
}

impl LocalHarness {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new());
        Self { clock: clock.clone(), limiter: Arc::new(LocalLimiter::new(clock)) }
    }
}

#[async_trait]
impl Harness for LocalHarness {
    fn limiter(&self) -> Arc<dyn Limiter> {
        self.limiter.clone()
    }

    async fn set_clock(&self, unix_micros: u64) {
        self.clock.set(unix_micros);
    }

    async fn residue(&self) -> usize {
        self.limiter.forget_idle();
        self.limiter.keys()
    }
}

#[test]
fn the_local_limiter_conforms() {
    assert_eq!(failed_cases(CASES, || Box::new(LocalHarness::new())), Vec::<&str>::new());
}

#[tokio::test]
async fn traffic_alone_drops_idle_keys() {
    let harness = LocalHarness::new();
    let rule = Rule::parse("test", "5/10s").unwrap();
    for number in 0..1_000 {
        harness.limiter.attempt(rule, &key(number)).await.unwrap();
    }
    assert_eq!(harness.limiter.keys(), 1_000);
    harness.clock.set(ManualClock::START + 10_000_000);
    for _ in 0..250 {
        harness.limiter.attempt(rule, &key(0)).await.unwrap();
    }
    assert_eq!(harness.limiter.keys(), 1, "each attempt removed four idle keys");
}

#[tokio::test]
async fn a_busy_key_is_never_swept() {
    let harness = LocalHarness::new();
    let rule = Rule::parse("test", "2/1s").unwrap();
    let mut allowed = 0;
    for step in 0..100 {
        harness.clock.set(ManualClock::START + step * 100_000);
        allowed += usize::from(harness.limiter.attempt(rule, &key(0)).await.unwrap().allowed);
        harness.limiter.forget_idle();
    }
    assert_eq!(allowed, 20);
}

#[tokio::test]
async fn a_clock_that_was_a_year_ahead_leaves_no_residue() {
    let harness = LocalHarness::new();
    let rule = Rule::parse("test", "5/10s").unwrap();
    harness.clock.set(ManualClock::START + 365 * 86_400_000_000);
    for number in 0..100 {
        harness.limiter.attempt(rule, &key(number)).await.unwrap();
    }
    harness.clock.set(ManualClock::START);
    harness.limiter.attempt(rule, &key(0)).await.unwrap();
    assert_eq!(harness.limiter.keys(), 1);
}

#[tokio::test]
async fn allow_all_refuses_nothing() {
    let rule = Rule::parse("test", "1/10s").unwrap();
    for _ in 0..10 {
        let decision = AllowAll.attempt(rule, &key(0)).await.unwrap();
        assert_eq!((decision.allowed, decision.remaining, decision.retry_after()), (true, 1, None));
    }
}
