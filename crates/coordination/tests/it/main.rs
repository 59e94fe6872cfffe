//! The conformance suites on the implementations for one process, and on mutants that must fail them.

mod deny_cache;
mod limiter_mutants;
mod local_limiter;
mod local_lock;
mod lock_mutants;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use coordination::Key;
use coordination::conformance::Case;
use tokio::runtime::Builder;
use tokio::time::timeout;

/// Runs each case on its own harness with a paused clock. Returns the names of those that fail; a case that
/// never finishes fails, too.
fn failed_cases<R: ?Sized>(cases: &[Case<R>], harness: impl Fn() -> Box<R>) -> Vec<&'static str> {
    let fails = |case: &&Case<R>| {
        let run = AssertUnwindSafe(|| {
            let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
            let runtime = runtime.expect("a runtime");
            let harness = harness();
            runtime.block_on(async {
                timeout(Duration::from_hours(100_000), case.run(&*harness)).await.expect("the case ends");
            });
        });
        catch_unwind(run).is_err()
    };
    cases.iter().filter(fails).map(|case| case.name).collect()
}

fn key(number: usize) -> Key {
    Key::new("test", &number.to_string()).expect("a number is an id")
}
