//! The exact sliding-window limiter in memory.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::limit::IDLE_KEYS_CHECKED;
use crate::{Clock, Key, LimitDecision, Limiter, Rule, Unavailable};

/// A [`Limiter`] for one process. See [`local`](crate::local).
///
/// Takes 8 bytes per admission in a window and about 200 bytes per key. Keys whose admissions have all left
/// the window are removed by later attempts, a few by each, so memory follows the traffic; there is no
/// background task. A removed key has no admissions, also if the clock then steps back.
pub struct LocalLimiter {
    clock: Arc<dyn Clock>,
    windows: Mutex<Windows>,
}

#[derive(Default)]
struct Windows {
    rings: HashMap<RingKey, Ring>,
    /// One entry per ring: the time at which to check if it is empty.
    checks: BinaryHeap<Reverse<(u64, RingKey)>>,
    /// The latest time of an attempt and the longest window, to detect a clock that stepped far back.
    latest_time: u64,
    longest_window: u64,
}

/// The rule's name and the key.
type RingKey = (&'static str, Key);

/// Admissions of one rule and key in its window, oldest first, as microseconds since the Unix epoch.
struct Ring {
    admissions: VecDeque<u64>,
    window: u64,
}

impl LocalLimiter {
    /// A limiter without admissions.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, windows: Mutex::default() }
    }

    /// Number of stored pairs of a rule and a key, including idle ones that are not removed yet; for a gauge.
    pub fn keys(&self) -> usize {
        self.windows().rings.len()
    }

    /// Removes every key whose admissions have all left the window. Each attempt removes a few, so only a
    /// process without attempts needs this.
    pub fn forget_idle(&self) {
        let now = self.clock.unix_micros();
        let mut windows = self.windows();
        windows.observe_clock(now);
        windows.sweep(now, usize::MAX);
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        // No change is interrupted by a panic; and a limiter may lose admissions, but must not block callers.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Limiter for LocalLimiter {
    async fn attempt(&self, rule: Rule, key: &Key) -> Result<LimitDecision, Unavailable> {
        let mut windows = self.windows();
        // Read under the mutex, so that attempts are decided in the order of their times.
        Ok(windows.attempt(rule, key, self.clock.unix_micros()))
    }
}

impl Windows {
    fn attempt(&mut self, rule: Rule, key: &Key, clock: u64) -> LimitDecision {
        let window = rule.window_micros();
        self.longest_window = self.longest_window.max(window);
        self.observe_clock(clock);
        self.sweep(clock, IDLE_KEYS_CHECKED);

        let ring_key = (rule.name(), key.clone());
        let ring = self.rings.entry(ring_key).or_insert_with_key(|ring_key| {
            self.checks.push(Reverse((clock.saturating_add(window), ring_key.clone())));
            Ring { admissions: VecDeque::new(), window }
        });
        ring.window = window;
        let allowed = ring.admit(usize::from(rule.limit()), clock);
        let oldest = ring.admissions.front().copied().unwrap_or(clock);
        let used = u16::try_from(ring.admissions.len()).unwrap_or(u16::MAX);
        LimitDecision {
            rule,
            allowed,
            remaining: rule.limit().saturating_sub(used),
            // From the clock, not from `now`: after a step back the caller also waits by the clock.
            reset_after: Duration::from_micros(oldest.saturating_add(window).saturating_sub(clock)),
        }
    }

    /// Records the time. After a clock step back by more than any window the check times of idle keys would
    /// be in the far future, so all keys are checked at once.
    fn observe_clock(&mut self, clock: u64) {
        if clock.saturating_add(self.longest_window) < self.latest_time {
            self.rings.retain(|_, ring| !ring.is_empty_at(clock) && !ring.is_in_future(clock));
            self.checks = self.rings.iter().map(|(key, ring)| Reverse((ring.end(), key.clone()))).collect();
            self.latest_time = clock;
        }
        self.latest_time = self.latest_time.max(clock);
    }

    /// Checks at most `max` due keys and removes those without admissions in the window.
    fn sweep(&mut self, clock: u64, max: usize) {
        for _ in 0..max {
            if self.checks.peek().is_none_or(|Reverse((due, _))| *due > clock) {
                return;
            }
            let Some(Reverse((_, key))) = self.checks.pop() else { return };
            match self.rings.get(&key) {
                Some(ring) if !ring.is_empty_at(clock) => self.checks.push(Reverse((ring.end(), key))),
                Some(_) => drop(self.rings.remove(&key)),
                None => {}
            }
        }
    }
}

impl Ring {
    /// Decides one attempt, and stores it if it is allowed.
    fn admit(&mut self, limit: usize, clock: u64) -> bool {
        if self.is_in_future(clock) {
            self.admissions.clear();
        }
        let now = self.admissions.back().copied().unwrap_or(0).max(clock);
        while self.admissions.front().is_some_and(|oldest| oldest.saturating_add(self.window) <= now) {
            self.admissions.pop_front();
        }
        let allowed = self.admissions.len() < limit;
        if allowed {
            self.admissions.push_back(now);
        }
        allowed
    }

    /// The time at which the newest admission leaves the window.
    fn end(&self) -> u64 {
        self.admissions.back().map_or(0, |newest| newest.saturating_add(self.window))
    }

    fn is_empty_at(&self, clock: u64) -> bool {
        self.end() <= clock
    }

    /// True if the newest admission is more than a window ahead: the clock has stepped back that far.
    fn is_in_future(&self, clock: u64) -> bool {
        self.admissions.back().is_some_and(|newest| *newest > clock.saturating_add(self.window))
    }
}
