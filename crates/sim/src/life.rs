//! Whether a simulated process runs, stands still, or is dead.
//!
//! A process that is killed runs nothing more, not even destructors. So a dead one is not dropped: whatever
//! it asks of the outside world from then on is never answered, and it gives nothing back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The life of one process.
#[derive(Clone, Default)]
pub(crate) struct Life {
    dead: CancellationToken,
    paused_until: Arc<Mutex<Option<Instant>>>,
}

impl Life {
    pub(crate) fn kill(&self) {
        self.dead.cancel();
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    pub(crate) async fn death(&self) {
        self.dead.cancelled().await;
    }

    pub(crate) fn pause(&self, time: Duration) {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + time);
    }

    pub(crate) fn resume(&self) {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Goes on as soon as the process does; never, once it is dead.
    pub(crate) async fn step(&self) {
        loop {
            if self.is_dead() {
                std::future::pending::<()>().await;
            }
            let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => sleep_until(until).await,
                None => return,
            }
        }
    }
}
