//! Limiters as they are often built. The suite must tell each from an exact one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use coordination::conformance::ManualClock;
use coordination::conformance::limiter::{CASES, Harness};
use coordination::{AllowAll, Clock, Key, LimitDecision, Limiter, Rule, Unavailable};

use crate::failures;

/// Decides one attempt at a time on whatever numbers it has kept: whether it passes, and when one will.
type Decide = fn(kept: &mut Vec<u64>, limit: u64, window: u64, now: u64) -> (bool, u64);

struct Mutant {
    decide: Decide,
    clock: ManualClock,
    kept: Mutex<HashMap<(&'static str, Key), Vec<u64>>>,
}

#[async_trait]
impl Limiter for Mutant {
    async fn attempt(&self, rule: Rule, key: &Key) -> Result<LimitDecision, Unavailable> {
        let (now, mut kept) = (self.clock.unix_micros(), self.kept.lock().expect("no panic"));
        let kept = kept.entry((rule.name(), key.clone())).or_default();
        let (allowed, next) = (self.decide)(kept, rule.limit().into(), rule.window_micros(), now);
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
        self.0.kept.lock().expect("no panic").len()
    }
}

/// The suite must reject the mutant by each of these cases, if by others too.
fn assert_rejected(decide: Decide, by: &[&str]) {
    let rig =
        || MutantHarness(Arc::new(Mutant { decide, clock: ManualClock::new(), kept: Mutex::default() }));
    let failures = failures(CASES, || Box::new(rig()));
    for case in by {
        assert!(failures.contains(case), "{case} did not notice; those that did: {failures:?}");
    }
}

/// The exact log, from which most mutants differ in one place.
fn exact(kept: &mut Vec<u64>, limit: u64, window: u64, now: u64) -> (bool, u64) {
    kept.retain(|at| at + window > now);
    let allowed = (kept.len() as u64) < limit;
    if allowed {
        kept.push(now);
    }
    (allowed, kept[0] + window)
}

const SAFETY: &str = "no_window_holds_more_than_the_limit";
const MAXIMALITY: &str = "refusals_only_when_the_window_is_full";
const EXACT_RETRY: &str = "retry_after_is_exact";
const TO_THE_MICROSECOND: &str = "a_permit_comes_back_to_the_microsecond";

#[test]
fn an_exact_log_passes_the_safety_cases() {
    let rig = || {
        MutantHarness(Arc::new(Mutant { decide: exact, clock: ManualClock::new(), kept: Mutex::default() }))
    };
    let failures = failures(CASES, || Box::new(rig()));
    for case in [SAFETY, MAXIMALITY, EXACT_RETRY, TO_THE_MICROSECOND] {
        assert!(!failures.contains(&case), "{failures:?}");
    }
}

#[test]
fn a_fixed_window_on_the_clock_is_rejected() {
    let fixed_window: Decide = |kept, limit, window, now| {
        let begins = now - now % window;
        kept.retain(|at| *at >= begins);
        let allowed = (kept.len() as u64) < limit;
        kept.extend(allowed.then_some(now));
        (allowed, begins + window)
    };
    assert_rejected(fixed_window, &[SAFETY, MAXIMALITY, TO_THE_MICROSECOND]);
}

#[test]
fn a_fixed_window_from_the_first_attempt_is_rejected() {
    let fixed_window: Decide = |kept, limit, window, now| {
        if kept.first().is_none_or(|begins| begins + window <= now) {
            kept.clear();
        }
        let allowed = (kept.len() as u64) < limit;
        kept.extend(allowed.then_some(now));
        (allowed, kept[0] + window)
    };
    assert_rejected(fixed_window, &[SAFETY, TO_THE_MICROSECOND]);
}

#[test]
fn gcra_is_rejected() {
    let gcra: Decide = |kept, limit, window, now| {
        let (gap, due) = (window / limit, kept.pop().unwrap_or(now).max(now));
        let allowed = due + gap <= now + window;
        kept.push(if allowed { due + gap } else { due });
        (allowed, (due + gap).saturating_sub(window))
    };
    assert_rejected(gcra, &[SAFETY, TO_THE_MICROSECOND]);
}

#[test]
fn a_sliding_counter_is_rejected() {
    // Weighs the count of the window before by how much of it is still in sight.
    let counter: Decide = |kept, limit, window, now| {
        let begins = now - now % window;
        kept.retain(|at| *at >= begins - window);
        let before = kept.iter().filter(|at| **at < begins).count() as u64;
        let current = kept.len() as u64 - before;
        let allowed = before * (window - now % window) / window + current < limit;
        kept.extend(allowed.then_some(now));
        (allowed, begins + window)
    };
    assert_rejected(counter, &[SAFETY, MAXIMALITY, EXACT_RETRY]);
}

#[test]
fn a_log_of_refused_attempts_is_rejected() {
    let log: Decide = |kept, limit, window, now| {
        let verdict = exact(kept, limit, window, now);
        if !verdict.0 {
            kept.push(now);
        }
        verdict
    };
    assert_rejected(log, &[MAXIMALITY, EXACT_RETRY, "refused_attempts_do_not_prolong_the_ban"]);
}

#[test]
fn a_log_that_is_a_microsecond_late_is_rejected() {
    let late: Decide = |kept, limit, window, now| exact(kept, limit, window + 1, now);
    assert_rejected(late, &[MAXIMALITY, TO_THE_MICROSECOND]);
}

#[test]
fn a_log_in_milliseconds_is_rejected() {
    let coarse: Decide = |kept, limit, window, now| {
        let (allowed, next) = exact(kept, limit, (window / 1_000).max(1), now / 1_000);
        (allowed, next * 1_000)
    };
    assert_rejected(coarse, &[SAFETY, TO_THE_MICROSECOND]);
}

#[test]
fn a_log_that_forgets_at_every_step_back_is_rejected() {
    let forgetful: Decide = |kept, limit, window, now| {
        if kept.last().is_some_and(|newest| *newest > now) {
            kept.clear();
        }
        exact(kept, limit, window, now)
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
    let failures = failures(CASES, || Box::new(Open));
    assert!([SAFETY, TO_THE_MICROSECOND].iter().all(|case| failures.contains(case)), "{failures:?}");
}
