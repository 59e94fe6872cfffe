//! The limiter in memory.

use std::sync::Arc;

use async_trait::async_trait;
use coordination::conformance::ManualClock;
use coordination::conformance::limiter::{CASES, Harness};
use coordination::local::LocalLimiter;
use coordination::{AllowAll, Limiter, Rule};

use crate::{failures, key};

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
    assert_eq!(failures(CASES, || Box::new(LocalHarness::new())), Vec::<&str>::new());
}

#[tokio::test]
async fn traffic_alone_drops_idle_keys() {
    let (rig, rule) = (LocalHarness::new(), Rule::parse("test", "5/10s").unwrap());
    for number in 0..1_000 {
        rig.limiter.attempt(rule, &key(number)).await.unwrap();
    }
    assert_eq!(rig.limiter.keys(), 1_000);
    rig.clock.set(ManualClock::START + 10_000_000);
    for _ in 0..250 {
        rig.limiter.attempt(rule, &key(0)).await.unwrap();
    }
    assert_eq!(rig.limiter.keys(), 1, "four idle keys went with each attempt");
}

#[tokio::test]
async fn a_busy_key_is_never_swept() {
    let (rig, rule) = (LocalHarness::new(), Rule::parse("test", "2/1s").unwrap());
    let mut allowed = 0;
    for step in 0..100 {
        rig.clock.set(ManualClock::START + step * 100_000);
        allowed += usize::from(rig.limiter.attempt(rule, &key(0)).await.unwrap().allowed);
        rig.limiter.forget_idle();
    }
    assert_eq!(allowed, 20);
}

#[tokio::test]
async fn a_clock_that_was_a_year_ahead_leaves_no_residue() {
    let (rig, rule) = (LocalHarness::new(), Rule::parse("test", "5/10s").unwrap());
    rig.clock.set(ManualClock::START + 365 * 86_400_000_000);
    for number in 0..100 {
        rig.limiter.attempt(rule, &key(number)).await.unwrap();
    }
    rig.clock.set(ManualClock::START);
    rig.limiter.attempt(rule, &key(0)).await.unwrap();
    assert_eq!(rig.limiter.keys(), 1);
}

#[tokio::test]
async fn allow_all_refuses_nothing() {
    let rule = Rule::parse("test", "1/10s").unwrap();
    for _ in 0..10 {
        let verdict = AllowAll.attempt(rule, &key(0)).await.unwrap();
        assert_eq!((verdict.allowed, verdict.remaining, verdict.retry_after()), (true, 1, None));
    }
}
