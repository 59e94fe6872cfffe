//! The conformance suite on every database, and what only one of them promises.

#[cfg(test)]
mod beside;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod conforms;
#[cfg(test)]
mod constraints;
#[cfg(test)]
mod money;
#[cfg(test)]
mod on_postgres;
#[cfg(test)]
mod opening;
#[cfg(test)]
mod planted;
#[cfg(test)]
mod poison;
#[cfg(test)]
mod shared;
#[cfg(test)]
mod tampering;
#[cfg(test)]
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};

use store::conformance::{CASES, Rig};
use tokio::runtime::Builder;

/// The names of the cases that fail, each run on a rig of its own.
fn failures<R: Rig>(rig: impl AsyncFn() -> R) -> Vec<&'static str> {
    let fails = |case: &&store::conformance::Case| {
        let run = AssertUnwindSafe(|| {
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(async { case.run(&rig().await).await });
        });
        catch_unwind(run).is_err()
    };
    CASES.iter().filter(fails).map(|case| case.name).collect()
}
