//! Detects that publishing has stalled: entries are pending, and none is published.

use tokio::time::Instant;

use crate::limit::RELAY_STALL_MAX;

/// The number of pending entries, and the time since one was last published.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Number of entries that were not on the stream when they were last counted.
    unpublished: u64,
    /// The time at which an entry was last published, or at which the first one became pending; `None` if
    /// none is pending.
    since: Option<Instant>,
    /// The error that ended the last session.
    reason: Option<String>,
    is_reported: bool,
}

impl Progress {
    /// Records that an entry was published.
    pub(super) fn record_published(&mut self) {
        self.since = self.since.map(|_| Instant::now());
    }

    /// Records the number of entries that are not on the stream. A decrease is progress, whichever relay made
    /// it.
    pub(super) fn record_pending(&mut self, unpublished: u64) {
        let fell = unpublished < self.unpublished;
        self.since = match self.since {
            _ if unpublished == 0 => None,
            Some(since) if !fell => Some(since),
            _ => Some(Instant::now()),
        };
        self.unpublished = unpublished;
        self.report();
    }

    /// Records that another instance is active, which counts instead.
    pub(super) fn stand_by(&mut self) {
        self.since = None;
        self.report();
    }

    /// Records the error that ended a session.
    pub(super) fn record_end(&mut self, reason: String) {
        self.reason = Some(reason);
    }

    /// The number of pending entries, and the seconds since one was last published; `None` if none is
    /// pending.
    pub(super) fn waiting(&self) -> Option<(u64, u64)> {
        Some((self.unpublished, self.since?.elapsed().as_secs()))
    }

    /// A description of the stall, if none was published for [`RELAY_STALL_MAX`].
    pub(super) fn stall(&self) -> Option<String> {
        let waited = self.since?.elapsed();
        (waited >= RELAY_STALL_MAX).then(|| {
            let reason = self.reason.as_deref().unwrap_or("the reason is unknown");
            let seconds = waited.as_secs();
            format!(
                "{} entries are not on the stream, and none was published for {seconds} s: {reason}",
                self.unpublished
            )
        })
    }

    /// Logs the beginning and the end of a stall, once each.
    fn report(&mut self) {
        let stall = self.stall();
        match &stall {
            Some(stall) if !self.is_reported => tracing::error!(stall, "messages are not published"),
            None if self.is_reported => tracing::info!("messages are published again"),
            _ => {}
        }
        self.is_reported = stall.is_some();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// C3: publishing is healthy only if entries are published.
    #[tokio::test(start_paused = true)]
    async fn c3_a_pending_count_that_does_not_fall_is_a_stall() {
        let mut progress = Progress::default();
        progress.record_end("refused".to_owned());
        progress.record_pending(3);
        advance(RELAY_STALL_MAX.saturating_sub(SECOND)).await;
        assert_eq!(progress.stall(), None);
        // More sales are not progress.
        progress.record_pending(5);
        advance(SECOND).await;
        let stall = progress.stall().unwrap();
        assert!(stall.contains("5 entries") && stall.ends_with("refused"), "{stall}");
        progress.record_pending(4);
        assert_eq!(progress.stall(), None, "fewer than before");
        advance(RELAY_STALL_MAX).await;
        assert!(progress.stall().is_some());
        progress.record_published();
        assert_eq!(progress.stall(), None, "one was published");
        progress.record_pending(0);
        advance(RELAY_STALL_MAX).await;
        assert_eq!(progress.stall(), None, "none is pending");
        progress.record_published();
        assert_eq!(progress.waiting(), None);
    }
}
