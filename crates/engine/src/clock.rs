//! Detects jumps of the wall clock by comparing it with the monotonic clock: a jump shifts every deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::{Clock, Timestamp};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::limit::{CLOCK_CHECK_EVERY, CLOCK_JUMP_MIN};

/// Counts and logs jumps of the clock until `stop`.
pub(crate) async fn watch(clock: Arc<dyn Clock>, jumps: Arc<AtomicU64>, stop: CancellationToken) {
    let read = || (clock.now(), Instant::now());
    let mut before = read();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(CLOCK_CHECK_EVERY) => (),
        }
        let after = read();
        let jump = jump(before, after);
        before = after;
        if u128::from(jump.unsigned_abs()) > CLOCK_JUMP_MIN.as_micros() {
            jumps.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                seconds = jump / 1_000_000,
                "the system clock jumped; deadlines, token expiry and ids depend on it"
            );
        }
    }
}

/// The difference between the advances of the wall clock and of the monotonic clock, in microseconds.
fn jump(before: (Timestamp, Instant), after: (Timestamp, Instant)) -> i64 {
    let passed = i64::try_from((after.1 - before.1).as_micros()).unwrap_or(i64::MAX);
    after.0.micros().saturating_sub(before.0.micros()).saturating_sub(passed)
}
