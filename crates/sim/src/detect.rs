//! Mutation testing: a search for seeds that detect a removed guard.

use domain::sabotage::{Guard, remove_here};

use crate::run::{Report, run};
use crate::scenario::Scenario;

/// Returns the report of the first of `seeds` seeds that violates an invariant while these guards are
/// removed.
///
/// At each gap that a removed guard leaves, the process crashes one time in four. Guards of the relay are
/// tried on seeds with relays. The others are tried on seeds without relays, which run faster.
pub fn find_detecting_seed(guards: &[Guard], seeds: usize) -> Option<Report> {
    let relays = guards.iter().any(|guard| guard.name().starts_with("stream-"));
    (0..).filter(|seed| Scenario::has_relays(*seed) == relays).take(seeds).find_map(|seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let _removed = remove_here(guards, move || rng.u8(..4) == 0);
        Some(run(seed, false)).filter(|report| !report.violations.is_empty())
    })
}
