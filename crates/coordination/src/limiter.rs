//! The limiter as its users see it.

use std::time::Duration;

use async_trait::async_trait;

use crate::{Key, Rule, Unavailable};

/// An exact sliding-window rate limiter.
///
/// The state of a rule and a key is the times of the last `limit` admissions, in microseconds. An attempt is
/// decided at `now`, the wall clock or the newest admission, whichever is later. Every implementation keeps:
///
/// - **Safety.** Of the stored admissions a₁ ≤ a₂ ≤ …, a₍ᵢ₊limit₎ − aᵢ ≥ window: no window, wherever it is
///   laid, holds more than `limit`.
/// - **Maximality.** An attempt is refused only if exactly `limit` admissions lie in (now − window, now].
/// - **Exact retry.** An attempt made [`Verdict::retry_after`] later by the wall clock passes, unless another
///   took the permit; 1 µs earlier it does not.
/// - **No residue.** A key that nobody uses for a window costs nothing any more.
///
/// A refused attempt changes nothing, so knocking does not prolong a ban. Clock steps: a wall clock up to one
/// window behind a key's newest admission is absorbed by `now`; further behind, the key's admissions are
/// forgotten, which lets at most `limit` extra through once, instead of banning for as long as the clock was
/// wrong. A step forward frees permits early; a clock slewed by NTP is assumed.
///
/// A limiter never decides capacity: it may forget everything in a restart.
#[async_trait]
pub trait Limiter: Send + Sync {
    /// Asks to be let through now, once, and takes a permit if there is one.
    ///
    /// Dropping the call before it answers may or may not have taken a permit. [`Unavailable`] if the shared
    /// state could not be asked.
    async fn attempt(&self, rule: Rule, key: &Key) -> Result<LimitDecision, Unavailable>;
}

/// What a limiter says to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitDecision {
    /// The rule that was asked.
    pub rule: Rule,
    /// Whether the attempt was let through and now counts.
    pub allowed: bool,
    /// Permits left at this moment, from 0 to one less than the limit; 0 when refused.
    pub remaining: u16,
    /// How long until the oldest admission leaves the window and a permit comes back, in whole microseconds
    /// by the wall clock. At most the window, or twice that while a clock that stepped back catches up.
    pub reset_after: Duration,
}

impl LimitDecision {
    /// For a refused attempt, how long to wait until one passes, exact to the microsecond; `None` when
    /// allowed.
    pub fn retry_after(&self) -> Option<Duration> {
        (!self.allowed).then_some(self.reset_after)
    }
}

/// A limiter that lets everybody through and remembers nobody.
///
/// Every verdict shows the full limit as remaining. For callers that are not limited, and for measuring
/// without one.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

#[async_trait]
impl Limiter for AllowAll {
    async fn attempt(&self, rule: Rule, _key: &Key) -> Result<LimitDecision, Unavailable> {
        Ok(LimitDecision { rule, allowed: true, remaining: rule.limit(), reset_after: Duration::ZERO })
    }
}
