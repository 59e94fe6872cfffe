//! Counts and latencies of requests by outcome.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::mix::Step;

/// Significant digits of a latency: 0.1 %.
const DIGITS: u8 = 3;
/// Longest latency that is distinguished from longer ones. A client waits half as long.
const LONGEST_MICROS: u64 = 60_000_000;

/// The counts that all clients share.
#[derive(Default)]
pub(super) struct Tally(Mutex<Counts>);

/// Counts and latencies of a run.
#[derive(Default)]
pub(super) struct Counts {
    /// Latencies of successful responses by operation, in microseconds.
    pub(super) done: BTreeMap<Step, Histogram<u64>>,
    /// Latencies of refusals and faults by code, in microseconds.
    pub(super) refused: BTreeMap<String, Histogram<u64>>,
    /// Number of requests without a response, by error.
    pub(super) broken: BTreeMap<String, u64>,
    /// Longest delay of a request behind its schedule.
    pub(super) late: Duration,
    /// Number of scheduled requests that were dropped because the backlog was too long.
    pub(super) dropped: u64,
}

/// The outcome of a request.
pub(super) enum Outcome {
    Done(Step),
    Refused(String),
    Broken(String),
}

impl Tally {
    pub(super) fn record(&self, outcome: Outcome, latency: Duration, late: Duration) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.late = counts.late.max(late);
        let histogram = match outcome {
            Outcome::Done(step) => counts.done.entry(step).or_insert_with(histogram),
            Outcome::Refused(code) => counts.refused.entry(code).or_insert_with(histogram),
            Outcome::Broken(error) => {
                *counts.broken.entry(error).or_default() += 1;
                return;
            }
        };
        histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn record_dropped(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).dropped += 1;
    }

    pub(super) fn into_counts(self) -> Counts {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

fn histogram() -> Histogram<u64> {
    let bounds = Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS);
    bounds.unwrap_or_else(|_| unreachable!("the bounds are valid"))
}
