//! The conformance suite on every database, and tests of single databases.

#[cfg(test)]
mod clock;
#[cfg(test)]
mod concurrent_readers;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod constraints;
#[cfg(test)]
mod corrupt_rows;
#[cfg(test)]
mod large_event;
#[cfg(test)]
mod money;
#[cfg(test)]
mod on_postgres;
#[cfg(test)]
mod open;
#[cfg(test)]
mod round_robin;
#[cfg(test)]
mod statement_cost;
#[cfg(test)]
mod tampering;

use std::panic::{AssertUnwindSafe, catch_unwind};

use store::conformance::{CASES, Harness};
use tokio::runtime::Builder;

/// Runs each case on a harness of its own. Returns the names of those that fail.
fn failures<H: Harness>(harness: impl AsyncFn() -> H) -> Vec<&'static str> {
    let fails = |case: &&store::conformance::Case| {
        let run = AssertUnwindSafe(|| {
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(async { case.run(&harness().await).await });
        });
        catch_unwind(run).is_err()
    };
    CASES.iter().filter(fails).map(|case| case.name).collect()
}
