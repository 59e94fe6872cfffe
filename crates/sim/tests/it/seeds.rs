//! Seeds that every test run simulates, and regression seeds.

use sim::{Campaign, missing_coverage, run};

/// Number of seeds. Even ones test safety under continuous faults, odd ones also test liveness after faults
/// end.
const SEEDS: u64 = 2_000;

#[test]
fn no_seed_violates_an_invariant_and_all_coverage_goals_are_met() {
    let halves: Vec<Campaign> = std::thread::scope(|scope| {
        let half = |first: u64| {
            scope.spawn(move || {
                let mut campaign = Campaign::default();
                (first..SEEDS).step_by(2).for_each(|seed| campaign.add(seed));
                campaign
            })
        };
        [half(0), half(1)].map(|half| half.join().unwrap()).into()
    });
    let mut all = Campaign::default();
    for half in halves {
        all.merge(half);
    }
    let failed: Vec<_> = all.failed.iter().map(|report| (report.seed, &report.violations)).collect();
    assert!(failed.is_empty(), "failed, see `make sim SEED=…`: {failed:#?}");
    let missing = missing_coverage(&all.coverage);
    assert_eq!(missing, Vec::<&str>::new(), "goals not reached in {SEEDS} seeds");
}

/// Seeds that once failed, each with the bug that it found.
const REGRESSION_SEEDS: &[(&str, u64)] = &[
    ("the checker of late payments took a settled refund for a new one", 501),
    ("R4: a command whose row stays locked until its deadline is refused as unavailable", 9_003_966),
    ("a message survived the connections that a power cut of the stream breaks", 5_015_985),
    ("R14: a late message for a deleted stream was stored by the next one", 6_021_394),
    ("R14: a late message for a deleted stream was stored by the next one", 6_031_936),
    ("R14: a late message for a deleted stream was stored by the next one", 6_104_001),
];

#[test]
fn regression_seeds_pass() {
    for (bug, seed) in REGRESSION_SEEDS {
        assert_eq!(run(*seed, false).violations, Vec::<String>::new(), "{bug}");
    }
}

#[test]
fn a_seed_replays() {
    for seed in 0..20 {
        let first = run(seed, true);
        assert_eq!(first, run(seed, true), "seed {seed}");
        assert!(!first.trace.is_empty());
    }
}
