//! Waiting for conditions instead of fixed times.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

/// Longest wait of a test for a condition: more than ten times the slowest one on a busy machine. It only
/// ends tests that would otherwise hang; it is no measurement.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Polling interval of a probe.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Calls `probe` until it returns a value; panics after the [`DEADLINE`].
pub async fn eventually<T>(condition: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    within_deadline(condition, async {
        loop {
            ticks.tick().await;
            if let Some(found) = probe().await {
                return found;
            }
        }
    })
    .await
}

/// The output of `work`; panics if it is not ready by the [`DEADLINE`].
pub fn within_deadline<T>(condition: &str, work: impl Future<Output = T>) -> impl Future<Output = T> {
    within(DEADLINE, condition, work)
}

/// [`within_deadline`] with another deadline, for longer operations such as a build.
pub(crate) async fn within<T>(deadline: Duration, condition: &str, work: impl Future<Output = T>) -> T {
    timeout(deadline, work).await.unwrap_or_else(|_| panic!("timed out after {deadline:?}: {condition}"))
}
