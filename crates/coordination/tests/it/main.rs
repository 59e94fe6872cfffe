//! The conformance suites on the implementations for one process, and on mutants that must not pass them.

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

/// The names of the cases that fail, each run on a rig of its own with time standing still; one that still
/// waits when nothing else can happen has failed too.
fn failures<R: ?Sized>(cases: &[Case<R>], rig: impl Fn() -> Box<R>) -> Vec<&'static str> {
    let fails = |case: &&Case<R>| {
        let run = AssertUnwindSafe(|| {
            let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
            let (runtime, rig) = (runtime.expect("a runtime"), rig());
            runtime.block_on(async {
                timeout(Duration::from_hours(100_000), case.run(&*rig)).await.expect("an end");
            });
        });
        catch_unwind(run).is_err()
    };
    cases.iter().filter(fails).map(|case| case.name).collect()
}

fn key(number: usize) -> Key {
    Key::new("test", &number.to_string()).expect("a number is an id")
}
