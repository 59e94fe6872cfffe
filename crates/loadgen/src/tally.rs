//! Counts and latencies of requests by outcome.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::limit::LATENCY_MICROS_MAX;
use crate::mix::Step;

/// Significant digits of a latency: 0.1 %.
const DIGITS: u8 = 3;

/// The counts that all clients share.
#[derive(Default)]
pub(crate) struct Tally(Mutex<Counts>);

/// Counts and latencies of a run.
#[derive(Default)]
pub(crate) struct Counts {
    /// Latencies of successful responses by operation, in microseconds.
    pub(crate) done: BTreeMap<Step, Histogram<u64>>,
    /// Latencies of refusals and faults by code, in microseconds.
    pub(crate) refused: BTreeMap<String, Histogram<u64>>,
    /// Number of requests without a response, by error.
    pub(crate) broken: BTreeMap<String, u64>,
    /// Longest delay of a request behind its schedule.
    pub(crate) late: Duration,
    /// Number of scheduled requests that were dropped because the backlog was too long.
    pub(crate) dropped: u64,
}

/// The outcome of a request.
pub(crate) enum Outcome {
    Done(Step),
    Refused(String),
    Broken(String),
}

impl Tally {
    pub(crate) fn record(&self, outcome: Outcome, latency: Duration, late: Duration) {
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

    pub(crate) fn record_dropped(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).dropped += 1;
    }

    pub(crate) fn into_counts(self) -> Counts {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

fn histogram() -> Histogram<u64> {
    let bounds = Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, DIGITS);
    bounds.unwrap_or_else(|_| unreachable!("the bounds are valid"))
}
