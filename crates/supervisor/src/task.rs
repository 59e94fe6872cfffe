//! A supervised background task.

use std::any::Any;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// First pause before a restart: a single panic costs no more than this.
pub const RESTART_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Maximum pause before a restart; pauses double up to it. A task that panics at every start must not use up
/// the processor, and an operator should not wait long after its cause is removed.
pub const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Duration of a run after which the next pause is [`RESTART_PAUSE_MIN`] again.
pub const HEALTHY_AFTER: Duration = Duration::from_mins(1);

/// The work of a background task, and the state that survives its panics.
pub trait Work: Send {
    /// Works until nothing is left to do. Called again after a panic: it must first rebuild any state that
    /// the panic may have left inconsistent.
    fn run(&mut self) -> impl Future<Output = ()> + Send;

    /// Runs between a panic and the restart, which drops it: returns errors to callers that would otherwise
    /// wait.
    fn serve_while_down(&mut self) -> impl Future<Output = ()> + Send {
        pending()
    }
}

/// Work without state.
impl<F, R> Work for F
where
    F: FnMut() -> R + Send,
    R: Future<Output = ()> + Send,
{
    fn run(&mut self) -> impl Future<Output = ()> + Send {
        self()
    }
}

/// The name and the health of a background task.
#[derive(Debug)]
pub struct Task {
    name: &'static str,
    is_essential: bool,
    is_down: AtomicBool,
    restarts: AtomicU64,
    #[cfg(feature = "sabotage")]
    injected: AtomicU64,
}

impl Task {
    pub(crate) fn new(name: &'static str, is_essential: bool) -> Self {
        Self {
            name,
            is_essential,
            is_down: AtomicBool::new(false),
            restarts: AtomicU64::new(0),
            #[cfg(feature = "sabotage")]
            injected: AtomicU64::new(0),
        }
    }

    /// The name of the task in logs, metrics and readiness.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// True if the program cannot serve requests without the task.
    pub fn is_essential(&self) -> bool {
        self.is_essential
    }

    /// True if the task has panicked and was not restarted yet.
    pub fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    /// Number of panics since the start. Each is followed by a restart unless the program stops.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Runs `work` until it returns, and restarts it after each panic.
    pub async fn run(&self, work: &mut impl Work) {
        self.run_until(&CancellationToken::new(), work).await;
    }

    /// As [`Task::run`], for work that returns after `stop` is cancelled: after that, a panic is not followed
    /// by a restart.
    pub async fn run_until(&self, stop: &CancellationToken, work: &mut impl Work) {
        let mut pause = RESTART_PAUSE_MIN;
        loop {
            let start = Instant::now();
            let Err(panic) = AssertUnwindSafe(self.run_once(work)).catch_unwind().await else { return };
            if start.elapsed() >= HEALTHY_AFTER {
                pause = RESTART_PAUSE_MIN;
            }
            self.is_down.store(true, Ordering::Relaxed);
            let restarts = self.restarts.fetch_add(1, Ordering::Relaxed) + 1;
            let task = self.name;
            let reason = message(&*panic);
            tracing::error!(task, reason, restarts, ?pause, "a background task panicked; it is restarted");
            tokio::select! {
                biased;
                () = stop.cancelled() => (),
                () = sleep(pause) => (),
                never = serve_while_down(work) => never,
            }
            self.is_down.store(false, Ordering::Relaxed);
            if stop.is_cancelled() {
                return;
            }
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
    }

    #[cfg(not(feature = "sabotage"))]
    async fn run_once(&self, work: &mut impl Work) {
        work.run().await;
    }

    #[cfg(feature = "sabotage")]
    async fn run_once(&self, work: &mut impl Work) {
        tokio::select! {
            biased;
            never = crate::sabotage::panic_on_demand(self.name, &self.injected) => never,
            () = work.run() => (),
        }
    }
}

/// Runs the substitute. A panic in it is ignored.
async fn serve_while_down<T>(work: &mut impl Work) -> T {
    let _ = AssertUnwindSafe(work.serve_while_down()).catch_unwind().await;
    pending().await
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
