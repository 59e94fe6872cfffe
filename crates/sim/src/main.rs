//! The command line: `sim --seeds N [--from M] [--results FILE]` runs a campaign, and `sim --seed N` prints
//! the trace of one seed.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

use std::io::Write as _;
use std::process::ExitCode;

use sim::{Campaign, missing_coverage, run};

/// Seeds per line of the results file: the most that an interruption loses.
const CHUNK: u64 = 1_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let index = arguments.iter().position(|argument| argument == name)?;
        arguments.get(index + 1).cloned()
    };
    let number = |name: &str| value(name).and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("--seed") {
        return run_seed(seed);
    }
    let Some(seeds) = number("--seeds") else {
        eprintln!("usage: sim --seeds N [--from M] [--results FILE] | sim --seed N");
        return ExitCode::from(2);
    };
    run_campaign(number("--from").unwrap_or(0), seeds, value("--results").as_deref())
}

fn run_seed(seed: u64) -> ExitCode {
    let report = run(seed, true);
    report.trace.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: hash {:016x}, {} calls", report.hash, report.calls);
    report.violations.iter().for_each(|violation| println!("  {violation}"));
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the seeds from `from` on, and continues an earlier run if the results file records one.
fn run_campaign(from: u64, seeds: u64, results: Option<&str>) -> ExitCode {
    let done = |line: &str| line.split_whitespace().nth(1)?.split_once("..")?.1.parse::<u64>().ok();
    let written = results.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let end = from + seeds;
    let mut next = written
        .lines()
        .filter_map(done)
        .filter(|end| (from..=from + seeds).contains(end))
        .max()
        .unwrap_or(from);
    let mut all = Campaign::default();
    while next < end {
        let until = end.min(next + CHUNK);
        let mut campaign = Campaign::default();
        (next..until).for_each(|seed| campaign.add(seed));
        for report in &campaign.failed {
            println!(
                "seed {} had {} violations:\n  {}",
                report.seed,
                report.violations.len(),
                report.violations.join("\n  ")
            );
        }
        let failed: Vec<String> = campaign.failed.iter().map(|report| report.seed.to_string()).collect();
        let line = format!(
            "seeds {next}..{until} calls {} simulated_hours {} failed [{}]",
            campaign.calls,
            campaign.simulated_millis / 3_600_000,
            failed.join(" ")
        );
        println!("{line}");
        if let Some(path) = results {
            let file = std::fs::File::options().create(true).append(true).open(path);
            if let Err(error) = file.and_then(|mut file| writeln!(file, "{line}")) {
                eprintln!("{path}: {error}");
                return ExitCode::FAILURE;
            }
        }
        all.merge(campaign);
        next = until;
    }
    all.coverage.iter().for_each(|(goal, count)| println!("{count:>10} {goal}"));
    let missing = missing_coverage(&all.coverage);
    let seeds = all.seeds;
    let calls = all.calls;
    let failed = all.failed.len();
    println!("{seeds} seeds, {calls} calls, {failed} failed; goals not reached: {missing:?}");
    if all.failed.is_empty() && (all.seeds < CHUNK || missing.is_empty()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
