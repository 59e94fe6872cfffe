//! Runs of many seeds, and the coverage that they must reach together.

use std::collections::BTreeMap;

use crate::run::{Report, run};
use crate::scenario::Fault;

/// Totals of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Campaign {
    /// Number of seeds run.
    pub seeds: u64,
    /// Number of client calls.
    pub calls: u64,
    /// Simulated time in milliseconds.
    pub simulated_millis: u64,
    /// Coverage goals and other events that were reached, and how often.
    pub coverage: BTreeMap<String, u64>,
    /// Reports of the seeds that violated an invariant.
    pub failed: Vec<Report>,
}

impl Campaign {
    /// Runs one more seed. Two in a hundred are run twice, and must replay exactly.
    pub fn add(&mut self, seed: u64) {
        let mut report = run(seed, false);
        if seed % 100 < 2 && report.hash != run(seed, false).hash {
            report.violations.push("the seed does not replay".to_owned());
        }
        self.seeds += 1;
        self.calls += report.calls;
        self.simulated_millis += report.simulated_millis;
        for (goal, count) in &report.coverage {
            *self.coverage.entry(goal.clone()).or_default() += count;
        }
        if !report.violations.is_empty() {
            self.failed.push(report);
        }
    }

    /// Adds the totals of another campaign.
    pub fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.calls += other.calls;
        self.simulated_millis += other.simulated_millis;
        for (goal, count) in other.coverage {
            *self.coverage.entry(goal).or_default() += count;
        }
        self.failed.extend(other.failed);
    }
}

/// Goals that a campaign must reach besides every fault: each result of each command, each change of a
/// booking, each reason for a refund, and each outcome that a client may see.
const COVERAGE_GOALS: &[&str] = &[
    "book: booking_limit_exceeded",
    "book: event_cancelled",
    "book: event_paused",
    "book: event_started",
    "book: insufficient_availability",
    "book: key reused",
    "book: pending",
    "book: replayed",
    "book: sales_closed",
    "book: sales_not_open",
    "book: sold_out",
    "book: stored",
    "book: broken",
    "cancel: broken",
    "cancel: cancel_cutoff_passed",
    "cancel: cancelled",
    "cancel: invalid_state",
    "clock: corrected",
    "clock: jumps by weeks",
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
    "limiter: denied",
    "lock: not granted",
    "outcome: overloaded",
    "outcome: unavailable",
    "outcome: unknown",
    "probe: a client disconnects",
    "probe: booked",
    "probe: stream deleted",
    "probe: stream purged",
    "refund: booking_cancelled",
    "refund: event_cancelled",
    "refund: hold_expired",
    "refund: invalid_state",
    "settle: failed",
    "settle: invalid_state",
    "settle: succeeded",
    "store: batch of several commands",
    "stream: duplicate detected",
    "stream: opened while another relay has it open",
    "stream: refilled after a loss",
    "stream: rejected by the expected last sequence",
    "sweeper: skipped a locked booking",
];

/// Returns the faults and coverage goals that were not reached.
pub fn missing_coverage(coverage: &BTreeMap<String, u64>) -> Vec<&'static str> {
    let faults = Fault::ALL.iter().map(|fault| fault.name());
    faults.chain(COVERAGE_GOALS.iter().copied()).filter(|goal| !coverage.contains_key(*goal)).collect()
}
