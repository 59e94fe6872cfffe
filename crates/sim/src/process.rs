//! The state of a simulated process: running, paused or killed.
//!
//! A process that is killed runs nothing more, not even destructors. So a killed one is not dropped: its
//! calls to the outside world never return from then on, and it releases nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// A handle to pause, resume and kill one process.
#[derive(Clone, Default)]
pub(crate) struct Process {
    killed: CancellationToken,
    paused_until: Arc<Mutex<Option<Instant>>>,
    resumed: Arc<Notify>,
}

impl Process {
    pub(crate) fn kill(&self) {
        self.killed.cancel();
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.killed.is_cancelled()
    }

    /// Returns once the process is killed.
    pub(crate) async fn wait_until_killed(&self) {
        self.killed.cancelled().await;
    }

    pub(crate) fn pause(&self, duration: Duration) {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + duration);
    }

    pub(crate) fn resume(&self) {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.resumed.notify_waiters();
    }

    /// Returns as soon as the process runs; never, once it is killed.
    pub(crate) async fn wait_until_running(&self) {
        loop {
            if self.is_killed() {
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

    /// Regression: a seed (1,181,717, of the scenarios before leases) waited for a process that stayed
    /// paused.
    #[tokio::test(start_paused = true)]
    async fn a_resumed_process_continues_at_once() {
        let process = Process::default();
        let began = Instant::now();
        process.pause(Duration::from_mins(1));
        tokio::join!(process.wait_until_running(), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            process.resume();
        });
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    }
}
