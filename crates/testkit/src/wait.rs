//! Waiting for the thing itself, never for time.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long a test waits for what must happen: more than ten times what the slowest takes on a busy
/// machine. It only ends tests that would otherwise hang; nothing is measured by it.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// How often a probe looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until `probe` finds something; panics when it has not by the [`DEADLINE`].
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    within_deadline(what, async {
        loop {
            looks.tick().await;
            if let Some(found) = probe().await {
                return found;
            }
        }
    })
    .await
}

/// What `work` comes to; panics when it has not by the [`DEADLINE`].
pub fn within_deadline<T>(what: &str, work: impl Future<Output = T>) -> impl Future<Output = T> {
    within(DEADLINE, what, work)
}

/// As [`within_deadline`], for what takes longer: a build.
pub(crate) async fn within<T>(deadline: Duration, what: &str, work: impl Future<Output = T>) -> T {
    timeout(deadline, work).await.unwrap_or_else(|_| panic!("timed out after {deadline:?}: {what}"))
}
