//! Whether a simulated process runs, stands still, or is dead.
//!
//! A process that is killed runs nothing more, not even destructors. So a dead one is not dropped: whatever
//! it asks of the outside world from then on is never answered, and it gives nothing back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The life of one process.
#[derive(Clone, Default)]
pub(crate) struct Process {
    dead: CancellationToken,
    paused_until: Arc<Mutex<Option<Instant>>>,
    resumed: Arc<Notify>,
}

impl Process {
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
        self.resumed.notify_waiters();
    }

    /// Goes on as soon as the process does; never, once it is dead.
    pub(crate) async fn step(&self) {
        loop {
            if self.is_dead() {
                std::future::pending::<()>().await;
            }
            let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => tokio::select! {
                    biased;
                    () = self.resumed.notified() => (),
                    () = sleep_until(until) => (),
                },
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed (1,181,717, of the mixes before leases) once waited for a process that slept on.
    #[tokio::test(start_paused = true)]
    async fn a_resumed_process_continues_at_once() {
        let (life, began) = (Process::default(), Instant::now());
        life.pause(Duration::from_mins(1));
        tokio::join!(life.step(), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            life.resume();
        });
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    }
}
