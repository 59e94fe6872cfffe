//! The interface of rate limiters.

use std::time::Duration;

use async_trait::async_trait;

use crate::{Key, Rule, Unavailable};

/// An exact sliding-window rate limiter.
///
/// The state for a rule and a key is the times of the last `limit` admissions, in microseconds. An attempt is
/// decided at `now`, the later of the wall clock and the newest admission. Every implementation guarantees:
///
/// - **Safety.** Of the stored admissions a₁ ≤ a₂ ≤ …, a₍ᵢ₊limit₎ − aᵢ ≥ window: no window, wherever it
///   begins, contains more than `limit`.
/// - **No false refusals.** An attempt is refused only if exactly `limit` admissions lie in (now − window,
///   now].
/// - **Exact retry.** An attempt made [`LimitDecision::retry_after`] later by the wall clock is allowed,
///   unless another attempt has taken the permit. 1 µs earlier it is refused.
/// - **No idle state.** A key that is not used for a window takes no memory.
///
/// A refused attempt changes nothing, so retries do not prolong a refusal. Clock steps: a wall clock up to
/// one window behind a key's newest admission has no effect, because `now` is not behind it. If it is further
/// behind, the key's admissions are dropped, which allows at most `limit` extra attempts once, instead of
/// refusing for as long as the clock was wrong. A step forward frees permits early; the clock is assumed to
/// be slewed by NTP.
///
/// A limiter never decides about capacity: it may lose all its state in a restart.
#[async_trait]
pub trait Limiter: Send + Sync {
    /// Attempts to take a permit now, and returns the decision.
    ///
    /// A call that is dropped before it returns may or may not have taken a permit. [`Unavailable`] if the
    /// shared state is unavailable.
    async fn attempt(&self, rule: Rule, key: &Key) -> Result<LimitDecision, Unavailable>;
}

/// The decision about an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitDecision {
    /// The rule of the attempt.
    pub rule: Rule,
    /// True if the attempt is allowed. It then counts as an admission.
    pub allowed: bool,
    /// Permits left now: 0 to one less than the limit; 0 if refused.
    pub remaining: u16,
    /// Time until the oldest admission leaves the window and its permit is available again, in whole
    /// microseconds by the wall clock. At most the window, or twice the window while a clock that stepped
    /// back catches up.
    pub reset_after: Duration,
}

impl LimitDecision {
    /// For a refused attempt, the time until one is allowed, exact to the microsecond; `None` for an allowed
    /// one.
    pub fn retry_after(&self) -> Option<Duration> {
        (!self.allowed).then_some(self.reset_after)
    }
}

/// A limiter without limits and without state.
///
/// Every decision reports the full limit as remaining. For callers that are exempt from limits, and for
/// benchmarks.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

#[async_trait]
impl Limiter for AllowAll {
    async fn attempt(&self, rule: Rule, _key: &Key) -> Result<LimitDecision, Unavailable> {
        Ok(LimitDecision { rule, allowed: true, remaining: rule.limit(), reset_after: Duration::ZERO })
    }
}
