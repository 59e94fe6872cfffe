//! Many seeds, and whether together they met everything that they must.

use std::collections::BTreeMap;

use crate::mix::Fault;
use crate::run::{Report, run};

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
const SOMETIMES: &[&str] = &[];

/// What should have been met and was not.
pub fn missing(seen: &BTreeMap<String, u64>) -> Vec<&'static str> {
    let faults = Fault::ALL.iter().map(|fault| fault.name());
    faults.chain(SOMETIMES.iter().copied()).filter(|what| !seen.contains_key(*what)).collect()
}
