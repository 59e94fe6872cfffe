//! Common inexact limiters. The suite must reject each of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use coordination::conformance::ManualClock;
use coordination::conformance::limiter::{CASES, Harness};
use coordination::{AllowAll, Clock, Key, LimitDecision, Limiter, Rule, Unavailable};

use crate::failed_cases;

/// Decides one attempt from the stored numbers: true if it is allowed, and the time of the next permit.
type Decide = fn(stored: &mut Vec<u64>, limit: u64, window: u64, now: u64) -> (bool, u64);

struct Mutant {
    decide: Decide,
    clock: ManualClock,
    stored: Mutex<HashMap<(&'static str, Key), Vec<u64>>>,
}

#[async_trait]
impl Limiter for Mutant {
    async fn attempt(&self, rule: Rule, key: &Key) -> Result<LimitDecision, Unavailable> {
        let now = self.clock.unix_micros();
        let mut stored = self.stored.lock().expect("no panic");
        let stored = stored.entry((rule.name(), key.clone())).or_default();
        let (allowed, next) = (self.decide)(stored, rule.limit().into(), rule.window_micros(), now);
        let reset_after = Duration::from_micros(next.saturating_sub(now));
        Ok(LimitDecision { rule, allowed, remaining: 0, reset_after })
    }
}

struct MutantHarness(Arc<Mutant>);

#[async_trait]
impl Harness for MutantHarness {
    fn limiter(&self) -> Arc<dyn Limiter> {
        self.0.clone()
    }

    async fn set_clock(&self, unix_micros: u64) {
        self.0.clock.set(unix_micros);
    }

    async fn residue(&self) -> usize {
        self.0.stored.lock().expect("no panic").len()
    }
}

/// The suite must reject the mutant by each of these cases, possibly among others.
fn assert_rejected(decide: Decide, by: &[&str]) {
    let harness =
        || MutantHarness(Arc::new(Mutant { decide, clock: ManualClock::new(), stored: Mutex::default() }));
    let failed = failed_cases(CASES, || Box::new(harness()));
    for case in by {
        assert!(failed.contains(case), "{case} passed; failed cases: {failed:?}");
    }
}

/// The exact log. Most mutants differ from it in one place.
fn exact(stored: &mut Vec<u64>, limit: u64, window: u64, now: u64) -> (bool, u64) {
    stored.retain(|at| at + window > now);
    let allowed = (stored.len() as u64) < limit;
    if allowed {
        stored.push(now);
    }
    (allowed, stored[0] + window)
}

const SAFETY: &str = "no_window_holds_more_than_the_limit";
const MAXIMALITY: &str = "refusals_only_when_the_window_is_full";
const EXACT_RETRY: &str = "retry_after_is_exact";
const TO_THE_MICROSECOND: &str = "a_permit_comes_back_to_the_microsecond";

#[test]
fn an_exact_log_passes_the_safety_cases() {
    let harness = || {
        MutantHarness(Arc::new(Mutant { decide: exact, clock: ManualClock::new(), stored: Mutex::default() }))
    };
    let failed = failed_cases(CASES, || Box::new(harness()));
    for case in [SAFETY, MAXIMALITY, EXACT_RETRY, TO_THE_MICROSECOND] {
        assert!(!failed.contains(&case), "{failed:?}");
    }
}

#[test]
fn a_fixed_window_on_the_clock_is_rejected() {
    let fixed_window: Decide = |stored, limit, window, now| {
        let start = now - now % window;
        stored.retain(|at| *at >= start);
        let allowed = (stored.len() as u64) < limit;
        stored.extend(allowed.then_some(now));
        (allowed, start + window)
    };
    assert_rejected(fixed_window, &[SAFETY, MAXIMALITY, TO_THE_MICROSECOND]);
}

#[test]
fn a_fixed_window_from_the_first_attempt_is_rejected() {
    let fixed_window: Decide = |stored, limit, window, now| {
        if stored.first().is_none_or(|start| start + window <= now) {
            stored.clear();
        }
        let allowed = (stored.len() as u64) < limit;
        stored.extend(allowed.then_some(now));
        (allowed, stored[0] + window)
    };
    assert_rejected(fixed_window, &[SAFETY, TO_THE_MICROSECOND]);
}

#[test]
fn gcra_is_rejected() {
    let gcra: Decide = |stored, limit, window, now| {
        let gap = window / limit;
        let due = stored.pop().unwrap_or(now).max(now);
        let allowed = due + gap <= now + window;
        stored.push(if allowed { due + gap } else { due });
        (allowed, (due + gap).saturating_sub(window))
    };
    assert_rejected(gcra, &[SAFETY, TO_THE_MICROSECOND]);
}

#[test]
fn a_sliding_counter_is_rejected() {
    // Weights the count of the previous window by its overlap with the sliding window.
    let counter: Decide = |stored, limit, window, now| {
        let start = now - now % window;
        stored.retain(|at| *at >= start - window);
        let before = stored.iter().filter(|at| **at < start).count() as u64;
        let current = stored.len() as u64 - before;
        let allowed = before * (window - now % window) / window + current < limit;
        stored.extend(allowed.then_some(now));
        (allowed, start + window)
    };
    assert_rejected(counter, &[SAFETY, MAXIMALITY, EXACT_RETRY]);
}

#[test]
fn a_log_of_refused_attempts_is_rejected() {
    let log: Decide = |stored, limit, window, now| {
        let decision = exact(stored, limit, window, now);
        if !decision.0 {
            stored.push(now);
        }
        decision
    };
    assert_rejected(log, &[MAXIMALITY, EXACT_RETRY, "refused_attempts_do_not_prolong_the_ban"]);
}

#[test]
fn a_log_that_is_a_microsecond_late_is_rejected() {
    let late: Decide = |stored, limit, window, now| exact(stored, limit, window + 1, now);
    assert_rejected(late, &[MAXIMALITY, TO_THE_MICROSECOND]);
}

#[test]
fn a_log_in_milliseconds_is_rejected() {
    let coarse: Decide = |stored, limit, window, now| {
        let (allowed, next) = exact(stored, limit, (window / 1_000).max(1), now / 1_000);
        (allowed, next * 1_000)
    };
    assert_rejected(coarse, &[SAFETY, TO_THE_MICROSECOND]);
}

#[test]
fn a_log_that_forgets_at_every_step_back_is_rejected() {
    let forgetful: Decide = |stored, limit, window, now| {
        if stored.last().is_some_and(|newest| *newest > now) {
            stored.clear();
        }
        exact(stored, limit, window, now)
    };
    assert_rejected(
        forgetful,
        &["a_small_clock_step_back_frees_no_permits", "clock_steps_back_follow_the_newest_admission"],
    );
}

#[test]
fn a_log_that_trusts_a_clock_from_the_future_is_rejected() {
    assert_rejected(exact, &["a_large_clock_step_back_resets_once"]);
}

#[test]
fn a_limiter_that_remembers_every_key_is_rejected() {
    assert_rejected(exact, &["idle_keys_leave_no_residue"]);
}

#[test]
fn a_limiter_that_allows_everything_is_rejected() {
    struct Open;
    #[async_trait]
    impl Harness for Open {
        fn limiter(&self) -> Arc<dyn Limiter> {
            Arc::new(AllowAll)
        }
        async fn set_clock(&self, _unix_micros: u64) {}
        async fn residue(&self) -> usize {
            0
        }
    }
    let failed = failed_cases(CASES, || Box::new(Open));
    assert!([SAFETY, TO_THE_MICROSECOND].iter().all(|case| failed.contains(case)), "{failed:?}");
}
