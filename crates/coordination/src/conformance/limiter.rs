//! The guarantees of a [`Limiter`].
//!
//! Random walks are checked against their own history, by counting, without code of an implementation.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::{ManualClock, cases, key};
use crate::{Key, LimitDecision, Limiter, Rule};

/// A limiter under test and the clock it reads.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The limiter; every call returns the same one. It has no admissions when a case begins.
    fn limiter(&self) -> Arc<dyn Limiter>;

    /// Sets the wall clock of the limiter, in microseconds since the Unix epoch. It starts at
    /// [`ManualClock::START`] and does not move between calls.
    async fn set_clock(&self, unix_micros: u64);

    /// Removes all state that has expired by the current clock; returns the number of keys left.
    async fn residue(&self) -> usize;
}

cases![
    dyn Harness:
    exactly_the_limit_is_allowed,
    a_permit_comes_back_to_the_microsecond,
    refused_attempts_do_not_prolong_the_ban,
    keys_and_rules_are_counted_apart,
    concurrent_attempts_share_the_limit,
    no_window_holds_more_than_the_limit,
    refusals_only_when_the_window_is_full,
    retry_after_is_exact,
    remaining_counts_down,
    the_smallest_and_the_largest_rule_are_exact,
    a_small_clock_step_back_frees_no_permits,
    a_small_clock_step_back_keeps_retries_exact,
    a_large_clock_step_back_resets_once,
    clock_steps_back_follow_the_newest_admission,
    idle_keys_leave_no_residue,
];

const START: u64 = ManualClock::START;

fn rule(text: &str) -> Rule {
    Rule::parse("suite", text).expect("the suite uses valid rules")
}

/// Sets the clock and makes one attempt.
async fn attempt(harness: &dyn Harness, rule: Rule, key: &Key, at: u64) -> LimitDecision {
    harness.set_clock(at).await;
    harness.limiter().attempt(rule, key).await.expect("the limiter is available")
}

async fn exactly_the_limit_is_allowed(harness: &dyn Harness) {
    let rule = rule("5/10s");
    let user = key("user", 1);
    for used in 1..=5 {
        let decision = attempt(harness, rule, &user, START).await;
        let expected = LimitDecision { rule, allowed: true, remaining: 5 - used, reset_after: rule.window() };
        assert_eq!(decision, expected);
        assert_eq!(decision.retry_after(), None);
    }
    let decision = attempt(harness, rule, &user, START + 1).await;
    let reset_after = Duration::from_micros(9_999_999);
    assert_eq!(decision, LimitDecision { rule, allowed: false, remaining: 0, reset_after });
    assert_eq!(decision.retry_after(), Some(reset_after));
}

async fn a_permit_comes_back_to_the_microsecond(harness: &dyn Harness) {
    let rule = rule("3/1s");
    let user = key("user", 1);
    // No fixed window, by the clock or from the first attempt, has a boundary at one of these times.
    let times = [START + 999_999, START + 1_000_000, START + 1_700_001];
    for at in times {
        assert!(attempt(harness, rule, &user, at).await.allowed);
    }
    for back_at in times.map(|at| at + 1_000_000) {
        assert!(!attempt(harness, rule, &user, back_at - 1).await.allowed, "1 µs early");
        assert!(attempt(harness, rule, &user, back_at).await.allowed, "on time");
        assert!(!attempt(harness, rule, &user, back_at).await.allowed, "the permit is used up");
    }
}

async fn refused_attempts_do_not_prolong_the_ban(harness: &dyn Harness) {
    let rule = rule("2/10ms");
    let user = key("user", 1);
    for _ in 0..2 {
        assert!(attempt(harness, rule, &user, START).await.allowed);
    }
    for at in (1..10_000).step_by(37).chain([9_998, 9_999]) {
        let decision = attempt(harness, rule, &user, START + at).await;
        assert_eq!(decision.retry_after(), Some(Duration::from_micros(10_000 - at)));
    }
    assert!(attempt(harness, rule, &user, START + 10_000).await.allowed);
}

async fn keys_and_rules_are_counted_apart(harness: &dyn Harness) {
    let other = Rule::parse("suite_other", "1/10s").expect("a valid rule");
    let users = [key("user", "a"), key("user", "b"), key("user", "a:b"), key("users", "a")];
    for user in &users {
        assert!(attempt(harness, rule("1/10s"), user, START).await.allowed, "{user}");
        assert!(attempt(harness, other, user, START).await.allowed, "{user}");
    }
    for user in &users {
        assert!(!attempt(harness, rule("1/10s"), user, START).await.allowed, "{user}");
        assert!(!attempt(harness, other, user, START).await.allowed, "{user}");
    }
}

async fn concurrent_attempts_share_the_limit(harness: &dyn Harness) {
    let rule = rule("7/1s");
    let mut attempts = JoinSet::new();
    for _ in 0..100 {
        let limiter = harness.limiter();
        attempts
            .spawn(async move { limiter.attempt(rule, &key("user", 1)).await.expect("available").allowed });
    }
    let allowed = attempts.join_all().await.into_iter().filter(|allowed| *allowed).count();
    assert_eq!(allowed, 7);
}

/// One attempt of a walk, with its decision.
struct Step {
    at: u64,
    decision: LimitDecision,
}

/// A random gap, biased towards the gaps at which limiters fail: none, a microsecond, the mean gap, the
/// window.
fn gap(rng: &mut fastrand::Rng, rule: Rule) -> u64 {
    let window = rule.window_micros();
    let mean = window / u64::from(rule.limit());
    let gaps = [0, 0, 1, mean.saturating_sub(1), mean, mean + 1, window - 1, window, window + 1];
    match rng.u64(..3) {
        0 => rng.u64(..=2 * mean + 1),
        1 => rng.u64(..=mean / 4),
        _ => rng.choice(gaps).expect("gaps"),
    }
}

/// Random attempts for three keys while the clock moves forward. Returns the history of each key.
async fn walk(harness: &dyn Harness, rule: Rule, seed: u64) -> Vec<Vec<Step>> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut histories: Vec<Vec<Step>> = (0..3).map(|_| Vec::new()).collect();
    let mut at = START;
    for _ in 0..400 {
        at += gap(&mut rng, rule) / 2;
        let number = rng.usize(..3);
        let decision = attempt(harness, rule, &key("walk", format!("{seed}.{number}")), at).await;
        histories[number].push(Step { at, decision });
    }
    histories
}

const WALK_RULES: [&str; 5] = ["5/10s", "1/1s", "3/7us", "64/1ms", "2/24h"];

/// The histories of all rules and six seeds, one after the other on one limiter.
async fn walks(harness: &dyn Harness) -> Vec<(Rule, Vec<Step>)> {
    let mut all = Vec::new();
    for (number, text) in WALK_RULES.into_iter().enumerate() {
        let names = ["walk_0", "walk_1", "walk_2", "walk_3", "walk_4"];
        let rule = Rule::parse(names[number], text).expect("a valid rule");
        for seed in 0..6 {
            harness.set_clock(START).await;
            all.extend(walk(harness, rule, seed).await.into_iter().map(|history| (rule, history)));
        }
    }
    all
}

/// The times of admissions before step `end`.
fn admissions(history: &[Step], end: usize) -> impl DoubleEndedIterator<Item = u64> {
    history[..end].iter().filter(|step| step.decision.allowed).map(|step| step.at)
}

/// The admissions before step `end` that are in the window ending there.
fn in_window(rule: Rule, history: &[Step], end: usize) -> Vec<u64> {
    let after = history[end].at - rule.window_micros();
    admissions(history, end).filter(|at| *at > after).collect()
}

async fn no_window_holds_more_than_the_limit(harness: &dyn Harness) {
    for (rule, history) in walks(harness).await {
        let times: Vec<u64> = admissions(&history, history.len()).collect();
        for pair in times.windows(usize::from(rule.limit()) + 1) {
            let span = pair[pair.len() - 1] - pair[0];
            assert!(span >= rule.window_micros(), "{rule}: one more than the limit within {span} µs");
        }
    }
}

async fn refusals_only_when_the_window_is_full(harness: &dyn Harness) {
    for (rule, history) in walks(harness).await {
        for (index, step) in history.iter().enumerate().filter(|(_, step)| !step.decision.allowed) {
            let counted = in_window(rule, &history, index).len();
            assert_eq!(counted, usize::from(rule.limit()), "{rule}: refused at {}", step.at);
        }
    }
}

async fn retry_after_is_exact(harness: &dyn Harness) {
    for seed in 0..20 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let user = key("retry", seed);
        let rule = rule(rng.choice(["5/10s", "1/3us", "17/1ms"]).expect("rules"));
        let mut at = START;
        for _ in 0..150 {
            at += gap(&mut rng, rule) / 3;
            let Some(retry_after) = attempt(harness, rule, &user, at).await.retry_after() else { continue };
            let retry_at = at + u64::try_from(retry_after.as_micros()).expect("a window fits");
            assert!(retry_at > at, "{rule}: a retry is in the future");
            assert!(
                !attempt(harness, rule, &user, retry_at - 1).await.allowed,
                "{rule}: 1 µs before the retry"
            );
            assert!(attempt(harness, rule, &user, retry_at).await.allowed, "{rule}: at the retry");
            at = retry_at;
        }
    }
}

async fn remaining_counts_down(harness: &dyn Harness) {
    for (rule, history) in walks(harness).await {
        for (index, Step { at, decision }) in history.iter().enumerate() {
            let mut counted = in_window(rule, &history, index);
            if decision.allowed {
                counted.push(*at);
            }
            assert_eq!(usize::from(decision.remaining), usize::from(rule.limit()) - counted.len(), "{rule}");
            assert_eq!(decision.reset_after, Duration::from_micros(counted[0] + rule.window_micros() - at));
            assert_eq!(decision.rule, rule);
        }
    }
}

async fn the_smallest_and_the_largest_rule_are_exact(harness: &dyn Harness) {
    let (smallest, largest) = (rule("1/1us"), rule("512/24h"));
    let (one, other) = (key("user", 1), key("user", 2));
    for at in START..START + 10 {
        assert!(attempt(harness, smallest, &one, at).await.allowed);
        assert!(!attempt(harness, smallest, &one, at).await.allowed);
    }
    for at in START..START + 512 {
        assert!(attempt(harness, largest, &other, at).await.allowed);
    }
    let day = largest.window_micros();
    assert!(!attempt(harness, largest, &other, START + day - 1).await.allowed);
    for at in START..START + 512 {
        assert!(attempt(harness, largest, &other, at + day).await.allowed);
    }
    assert!(!attempt(harness, largest, &other, START + day + 511).await.allowed);
}

async fn a_small_clock_step_back_frees_no_permits(harness: &dyn Harness) {
    let rule = rule("3/1s");
    let user = key("user", 1);
    for at in [0, 400_000, 800_000] {
        assert!(attempt(harness, rule, &user, START + at).await.allowed);
    }
    // Back to a window behind the newest admission, then forward again.
    for at in [799_999, 400_000, 0] {
        assert!(!attempt(harness, rule, &user, START + at).await.allowed);
    }
    assert!(!attempt(harness, rule, &user, START - 200_000).await.allowed);
    assert!(!attempt(harness, rule, &user, START + 999_999).await.allowed);
    assert!(attempt(harness, rule, &user, START + 1_000_000).await.allowed);
}

async fn a_small_clock_step_back_keeps_retries_exact(harness: &dyn Harness) {
    let rule = rule("1/1s");
    let user = key("user", 1);
    assert!(attempt(harness, rule, &user, START).await.allowed);
    let decision = attempt(harness, rule, &user, START - 600_000).await;
    assert_eq!(decision.retry_after(), Some(Duration::from_millis(1_600)));
    assert!(!attempt(harness, rule, &user, START + 999_999).await.allowed);
    assert!(attempt(harness, rule, &user, START + 1_000_000).await.allowed);
}

async fn a_large_clock_step_back_resets_once(harness: &dyn Harness) {
    let rule = rule("3/1s");
    let user = key("user", 1);
    for _ in 0..3 {
        assert!(attempt(harness, rule, &user, START).await.allowed);
    }
    let back = START - 1_000_001;
    for _ in 0..3 {
        assert!(
            attempt(harness, rule, &user, back).await.allowed,
            "a wrong clock must not cause a long refusal"
        );
    }
    let decision = attempt(harness, rule, &user, back).await;
    assert_eq!(decision.retry_after(), Some(rule.window()), "the limit applies again");
    assert!(!attempt(harness, rule, &user, back + 999_999).await.allowed);
    assert!(attempt(harness, rule, &user, back + 1_000_000).await.allowed);
}

/// Random attempts for one key with a clock that sometimes steps back. Each decision is checked against the
/// full history of admissions, each stored at the later of the clock and the newest admission before it.
async fn clock_steps_back_follow_the_newest_admission(harness: &dyn Harness) {
    for seed in 0..30 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let user = key("back", seed);
        let rule = rule(rng.choice(["5/10s", "1/1ms", "3/50us"]).expect("rules"));
        let window = rule.window_micros();
        let mut at = START;
        let mut stored = Vec::new();
        for _ in 0..300 {
            at = match rng.u64(..12) {
                0 => at - rng.u64(..window),
                1 => at - rng.u64(..3 * window),
                _ => at + gap(&mut rng, rule) / 3,
            };
            if stored.last().is_some_and(|newest| *newest > at + window) {
                stored.clear();
            }
            let now = stored.last().map_or(at, |newest| at.max(*newest));
            stored.retain(|admission| *admission > now - window);
            let free = usize::from(rule.limit()) - stored.len();
            let decision = attempt(harness, rule, &user, at).await;
            assert_eq!(decision.allowed, free > 0, "{rule}, seed {seed}");
            if free > 0 {
                stored.push(now);
            }
            assert_eq!(usize::from(decision.remaining), free.saturating_sub(1), "{rule}, seed {seed}");
            assert_eq!(
                decision.reset_after,
                Duration::from_micros(stored[0] + window - at),
                "{rule}, seed {seed}"
            );
        }
    }
}

async fn idle_keys_leave_no_residue(harness: &dyn Harness) {
    let short = rule("5/10s");
    let long = Rule::parse("suite_long", "3/30s").expect("a valid rule");
    for number in 0..200 {
        let user = key("user", number);
        for at in [0, 1, 5_000_000] {
            attempt(harness, short, &user, START + at).await;
            attempt(harness, long, &user, START + at).await;
        }
    }
    assert_eq!(harness.residue().await, 400);
    harness.set_clock(START + 15_000_000).await;
    assert_eq!(harness.residue().await, 200, "the window of the short rule has passed");
    harness.set_clock(START + 35_000_000).await;
    assert_eq!(harness.residue().await, 0);
}
