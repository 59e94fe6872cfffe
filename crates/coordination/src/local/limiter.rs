//! The exact sliding window in memory.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::{Clock, Key, LimitDecision, Limiter, Rule, Unavailable};

/// Idle keys looked at in one attempt. An attempt adds at most one key, so two would do; a few more make up
/// for the keys that turn out to be in use and are put back.
const SWEEP_MAX: usize = 4;

/// A [`Limiter`] for one process. See [`local`](crate::local).
///
/// Costs 8 bytes for each admission in a window and about 200 per key. Keys whose admissions have all left
/// the window are dropped by later attempts, a few each, so memory follows the traffic; nothing runs in the
/// background. A key dropped that way stays forgotten if the clock then steps back.
pub struct LocalLimiter {
    clock: Arc<dyn Clock>,
    windows: Mutex<Windows>,
}

#[derive(Default)]
struct Windows {
    rings: HashMap<RingKey, Ring>,
    /// One entry for every ring: when to look whether it still counts.
    checks: BinaryHeap<Reverse<(u64, RingKey)>>,
    /// The latest time seen and the longest window asked for, to notice a clock that stepped far back.
    seen: u64,
    longest: u64,
}

/// The rule's name and the key.
type RingKey = (&'static str, Key);

/// Admissions of one rule and key in its window, oldest first, as microseconds since the Unix epoch.
struct Ring {
    admissions: VecDeque<u64>,
    window: u64,
}

impl LocalLimiter {
    /// A limiter that has seen nobody yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, windows: Mutex::default() }
    }

    /// Rules and keys remembered, idle ones that no attempt has swept yet among them: the size for a gauge.
    pub fn keys(&self) -> usize {
        self.windows().rings.len()
    }

    /// Drops every key whose admissions have all left the window. Attempts do this by themselves, a few keys
    /// each; only a process without attempts has a use for it.
    pub fn forget_idle(&self) {
        let now = self.clock.unix_micros();
        let mut windows = self.windows();
        windows.follow(now);
        windows.sweep(now, usize::MAX);
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        // Nothing in here panics half-way; and a limiter may forget, but not stop the callers.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Limiter for LocalLimiter {
    async fn attempt(&self, rule: Rule, key: &Key) -> Result<LimitDecision, Unavailable> {
        let mut windows = self.windows();
        // Read under the lock, so that two attempts are decided in the order of their times.
        Ok(windows.attempt(rule, key, self.clock.unix_micros()))
    }
}

impl Windows {
    fn attempt(&mut self, rule: Rule, key: &Key, clock: u64) -> LimitDecision {
        let window = rule.window_micros();
        self.longest = self.longest.max(window);
        self.follow(clock);
        self.sweep(clock, SWEEP_MAX);

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
            // From the clock, not from `now`: after a step back the caller waits by the clock too.
            reset_after: Duration::from_micros(oldest.saturating_add(window).saturating_sub(clock)),
        }
    }

    /// Takes note of the time. A clock that stepped back by more than any window would leave the check times
    /// of idle keys in the far future, so then all are looked at.
    fn follow(&mut self, clock: u64) {
        if clock.saturating_add(self.longest) < self.seen {
            self.rings.retain(|_, ring| !ring.counts_nothing(clock) && !ring.is_ahead(clock));
            self.checks = self.rings.iter().map(|(key, ring)| Reverse((ring.end(), key.clone()))).collect();
            self.seen = clock;
        }
        self.seen = self.seen.max(clock);
    }

    /// Looks at no more than `max` keys that are due and drops those that count nothing any more.
    fn sweep(&mut self, clock: u64, max: usize) {
        for _ in 0..max {
            if self.checks.peek().is_none_or(|Reverse((due, _))| *due > clock) {
                return;
            }
            let Some(Reverse((_, key))) = self.checks.pop() else { return };
            match self.rings.get(&key) {
                Some(ring) if !ring.counts_nothing(clock) => self.checks.push(Reverse((ring.end(), key))),
                Some(_) => drop(self.rings.remove(&key)),
                None => {}
            }
        }
    }
}

impl Ring {
    /// Decides one attempt and stores it only if it is let through.
    fn admit(&mut self, limit: usize, clock: u64) -> bool {
        if self.is_ahead(clock) {
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

    /// When the newest admission leaves the window.
    fn end(&self) -> u64 {
        self.admissions.back().map_or(0, |newest| newest.saturating_add(self.window))
    }

    fn counts_nothing(&self, clock: u64) -> bool {
        self.end() <= clock
    }

    /// The newest admission is more than a window ahead: the clock has stepped back that far.
    fn is_ahead(&self, clock: u64) -> bool {
        self.admissions.back().is_some_and(|newest| *newest > clock.saturating_add(self.window))
    }
}
