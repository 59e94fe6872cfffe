//! Many seeds, and whether together they met everything that they must.

use std::collections::BTreeMap;

use crate::run::{Report, run};
use crate::scenario::Fault;

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Campaign {
    /// Seeds that were run.
    pub seeds: u64,
    /// Calls of clients.
    pub calls: u64,
    /// Simulated time in milliseconds.
    pub simulated_millis: u64,
    /// What was met, and how often.
    pub seen: BTreeMap<String, u64>,
    /// Seeds that broke a promise.
    pub broken: Vec<Report>,
}

impl Campaign {
    /// Runs one more seed. One in a hundred is run twice, and must come to the same.
    pub fn add(&mut self, seed: u64) {
        let mut report = run(seed, false);
        if seed % 100 < 2 && report.hash != run(seed, false).hash {
            report.wrong.push("the seed does not replay".to_owned());
        }
        self.seeds += 1;
        self.calls += report.calls;
        self.simulated_millis += report.simulated_millis;
        for (what, count) in &report.seen {
            *self.seen.entry(what.clone()).or_default() += count;
        }
        if !report.wrong.is_empty() {
            self.broken.push(report);
        }
    }

    /// Takes over what another one came to.
    pub fn absorb(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.calls += other.calls;
        self.simulated_millis += other.simulated_millis;
        for (what, count) in other.seen {
            *self.seen.entry(what).or_default() += count;
        }
        self.broken.extend(other.broken);
    }
}

/// What a campaign must have met besides every fault: each command in each way it can end, each change of a
/// booking, each reason for a refund, and what clients may hear.
const COVERAGE_GOALS: &[&str] = &[
    "book: booking_limit_exceeded",
    "book: event_cancelled",
    "book: event_paused",
    "book: event_started",
    "book: insufficient_availability",
    "book: kept",
    "book: key reused",
    "book: pending",
    "book: replayed",
    "book: sales_closed",
    "book: sales_not_open",
    "book: sold_out",
    "book: broken",
    "cancel: broken",
    "cancel: cancel_cutoff_passed",
    "cancel: cancelled",
    "cancel: invalid_state",
    "clock: jumps by weeks",
    "clock: right again",
    "confirm: amount_mismatch",
    "confirm: broken",
    "confirm: confirmed",
    "confirm: event_cancelled",
    "confirm: hold_expired",
    "confirm: invalid_state",
    "edit: capacity_in_use",
    "edit: event",
    "edit: event_cancelled",
    "expire: broken",
    "expire: expired",
    "expire: invalid_state",
    "heard: overloaded",
    "heard: unavailable",
    "heard: unknown",
    "ledger: booking.cancelled from confirmed",
    "ledger: booking.cancelled from pending",
    "ledger: booking.confirmed from expired",
    "ledger: booking.confirmed from pending",
    "ledger: booking.expired from pending",
    "ledger: event.cancelled from onSale",
    "ledger: event.cancelled from paused",
    "ledger: event.updated from onSale",
    "ledger: event.updated from paused",
    "ledger: refund.settled from failed",
    "ledger: refund.settled from requested",
    "limiter: refuses",
    "lock: not granted",
    "probe: a client hangs up",
    "probe: booked",
    "probe: the stream is deleted",
    "probe: the stream is emptied",
    "refund: booking_cancelled",
    "refund: event_cancelled",
    "refund: hold_expired",
    "refund: invalid_state",
    "settle: failed",
    "settle: invalid_state",
    "settle: succeeded",
    "store: a batch of several",
    "stream: calls a message a repetition",
    "stream: filled again",
    "stream: opened while another relay has it",
    "stream: refuses a message, by its event's last one",
    "sweeper: leaves a busy booking alone",
];

/// What should have been met and was not.
pub fn missing(seen: &BTreeMap<String, u64>) -> Vec<&'static str> {
    let faults = Fault::ALL.iter().map(|fault| fault.name());
    faults.chain(COVERAGE_GOALS.iter().copied()).filter(|what| !seen.contains_key(*what)).collect()
}
