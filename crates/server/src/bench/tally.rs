//! What came of the requests: how many, how long, and what was said.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::mix::Step;

/// Significant digits of a latency: 0.1 %.
const DIGITS: u8 = 3;
/// Longest latency that is told apart from longer ones: a client waits half as long.
const LONGEST_MICROS: u64 = 60_000_000;

/// Shared by all clients.
#[derive(Default)]
pub(super) struct Tally(Mutex<Counts>);

/// Everything that was counted.
#[derive(Default)]
pub(super) struct Counts {
    /// Answers that carried the step out, and how long they took, in microseconds.
    pub(super) done: BTreeMap<Step, Histogram<u64>>,
    /// Refusals by code, and how long they took.
    pub(super) refused: BTreeMap<String, Histogram<u64>>,
    /// Requests that were not answered, by what broke.
    pub(super) broken: BTreeMap<String, u64>,
    /// The furthest that a request went out behind its schedule.
    pub(super) late: Duration,
    /// Requests of the schedule that were given up, because too many stood before them.
    pub(super) dropped: u64,
}

/// How a request ended.
pub(super) enum Outcome {
    Done(Step),
    Refused(String),
    Broken(String),
}

impl Tally {
    pub(super) fn count(&self, end: Outcome, took: Duration, late: Duration) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.late = counts.late.max(late);
        let histogram = match end {
            Outcome::Done(step) => counts.done.entry(step).or_insert_with(histogram),
            Outcome::Refused(code) => counts.refused.entry(code).or_insert_with(histogram),
            Outcome::Broken(what) => {
                *counts.broken.entry(what).or_default() += 1;
                return;
            }
        };
        histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn drop_one(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).dropped += 1;
    }

    pub(super) fn into_counts(self) -> Counts {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

fn histogram() -> Histogram<u64> {
    let bounds = Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS);
    bounds.unwrap_or_else(|_| unreachable!("these bounds are possible"))
}
