//! Runs campaigns from the command line: `sim --seeds N [--from M] [--results FILE]`, or `sim --seed N`, which
//! prints everything that happens in one.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

use std::io::Write as _;
use std::process::ExitCode;

use sim::{Campaign, missing, run};

/// Seeds between two lines of the results file: what an interruption can cost.
const CHUNK: u64 = 1_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1).cloned()
    };
    let number = |name: &str| value(name).and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("--seed") {
        return one(seed);
    }
    let Some(seeds) = number("--seeds") else {
        eprintln!("usage: sim --seeds N [--from M] [--results FILE] | sim --seed N");
        return ExitCode::from(2);
    };
    many(number("--from").unwrap_or(0), seeds, value("--results").as_deref())
}

fn one(seed: u64) -> ExitCode {
    let report = run(seed, true);
    report.trace.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: hash {:016x}, {} calls", report.hash, report.calls);
    report.wrong.iter().for_each(|what| println!("  {what}"));
    if report.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Goes on where the results file says that an earlier run ended.
fn many(from: u64, seeds: u64, results: Option<&str>) -> ExitCode {
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
        for report in &campaign.broken {
            println!(
                "seed {} broke {} promises:\n  {}",
                report.seed,
                report.wrong.len(),
                report.wrong.join("\n  ")
            );
        }
        let broken: Vec<String> = campaign.broken.iter().map(|report| report.seed.to_string()).collect();
        let line = format!(
            "seeds {next}..{until} calls {} simulated_hours {} broken [{}]",
            campaign.calls,
            campaign.simulated_millis / 3_600_000,
            broken.join(" ")
        );
        println!("{line}");
        if let Some(path) = results {
            let file = std::fs::File::options().create(true).append(true).open(path);
            if let Err(error) = file.and_then(|mut file| writeln!(file, "{line}")) {
                eprintln!("{path}: {error}");
                return ExitCode::FAILURE;
            }
        }
        all.absorb(campaign);
        next = until;
    }
    all.seen.iter().for_each(|(what, count)| println!("{count:>10} {what}"));
    let missing = missing(&all.seen);
    println!("{} seeds, {} calls, {} broken; never met: {missing:?}", all.seeds, all.calls, all.broken.len());
    if all.broken.is_empty() && (all.seeds < CHUNK || missing.is_empty()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
