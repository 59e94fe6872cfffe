//! The relay: fills the stream from the ledger, every entry once and in order per event, whatever dies.
//!
//! One relay at a time, by a lock; where the lock fails, the stream itself is the guard. Each message names the
//! sequence of its event's last message, as the stream has said it, so that one that is sent late, or by a relay that
//! does not know the latest, is refused. After any refusal the stream is asked what is on it, and the relay goes on
//! from there. Where there are notes of how far it had got, they spare work and decide nothing.

mod port;
mod progress;
mod session;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coordination::{Key, Lock, LockError, LockGuard, LockOptions};
use domain::{Clock, EventId, Ids};
use store::Store;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use self::progress::Progress;
use self::session::RelaySession;
use crate::CommitListener;
use crate::limit::{RELAY_LEADERSHIP_MAX, RELAY_SCAN_EVERY, RELAY_STANDBY, RELAY_WAKEUPS_MAX};

pub use self::port::{EntryId, EventBus, PublishAck, Stream, StreamCounts, StreamError, StreamInfo};

/// What the relay needs of the rest of the program.
#[derive(Clone)]
pub struct RelayDependencies {
    /// Where the ledgers are, and the notes of how far they were told.
    pub store: Arc<dyn Store>,
    /// Lets one relay at a time fill the stream.
    pub lock: Arc<dyn Lock>,
    /// Tells how old news are.
    pub clock: Arc<dyn Clock>,
    /// Keeps relays that beat each other apart.
    pub ids: Arc<dyn Ids>,
    /// The way to the stream.
    pub event_bus: Arc<dyn EventBus>,
}

/// How the relay of this process is getting on.
#[derive(Clone, Debug, Default)]
pub struct RelayStatus {
    /// Whether it is the one that fills the stream.
    pub is_active: bool,
    /// Entries that are not on the stream yet, as far as is known to who fills it, or would if it could be reached;
    /// elsewhere 0.
    pub pending: u64,
    /// Between the latest entry that was put on the stream and that moment, in microseconds.
    pub lag_micros: u64,
    /// Entries put on the stream since the start.
    pub published: u64,
    /// For how many seconds entries have waited while none was published; 0 where none waits.
    pub waiting_seconds: u64,
    /// Why the stream cannot be filled, or is not.
    pub error: Option<String>,
}

/// The relay of this process.
#[derive(Default)]
pub struct Relay {
    status: Mutex<RelayStatus>,
    progress: Mutex<Progress>,
    grown: Mutex<BTreeSet<EventId>>,
    wake: Notify,
}

impl CommitListener for Relay {
    fn ledgers_advanced(&self, events: &[EventId]) {
        let mut grown = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        let room = RELAY_WAKEUPS_MAX.saturating_sub(grown.len());
        // What finds no room is found in the ledger.
        grown.extend(events.iter().take(room));
        drop(grown);
        self.wake.notify_one();
    }
}

impl Relay {
    /// How it is getting on.
    pub fn status(&self) -> RelayStatus {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let progress = self.progress();
        if let Some((unpublished, seconds)) = progress.waiting() {
            status.waiting_seconds = seconds;
            if let Some(stall) = progress.stall() {
                status.pending = status.pending.max(unpublished);
                status.error.get_or_insert(stall);
            }
        }
        status
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An entry was published.
    fn record_published(&self) {
        self.progress().record_published();
    }

    /// So many entries are not on the stream.
    fn record_pending(&self, unpublished: u64) {
        self.progress().record_pending(unpublished);
    }

    fn update_status(&self, change: impl FnOnce(&mut RelayStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The ledgers that have grown since this was last asked.
    fn take_advanced(&self) -> BTreeSet<EventId> {
        std::mem::take(&mut *self.grown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fills the stream whenever it is this relay's turn, for as long as it is let.
    pub async fn run<T>(&self, dependencies: &RelayDependencies) -> T {
        let mut counted = None;
        // A turn that a panic has ended says nothing of itself.
        self.update_status(|status| status.is_active = false);
        loop {
            let guard = tokio::select! {
                biased;
                never = self.forward_wakeups(&*dependencies.event_bus) => never,
                guard = self.acquire_leadership(dependencies) => guard,
            };
            let error = self.run_session(dependencies, guard).await;
            self.update_status(|status| {
                status.is_active = false;
                status.error = error.as_ref().and_then(StreamError::told);
            });
            if let Some(error) = &error {
                self.progress().record_end(error.to_string());
            }
            let rest = async {
                self.count_pending(&*dependencies.store, error.as_ref(), &mut counted).await;
                sleep(backoff(error.as_ref(), dependencies.ids.random()[0])).await;
            };
            tokio::select! { biased; never = self.forward_wakeups(&*dependencies.event_bus) => never, () = rest => () }
        }
    }

    /// One turn: from a look at the stream to whatever ends it; nothing where the turn itself has ended.
    async fn run_session(
        &self,
        dependencies: &RelayDependencies,
        guard: Option<LockGuard>,
    ) -> Option<StreamError> {
        let turn = async {
            match RelaySession::open(self, dependencies).await {
                Ok(mut session) => session.run().await,
                Err(error) => error,
            }
        };
        let lost = async {
            match &guard {
                Some(guard) => guard.lost().await,
                None => std::future::pending().await,
            }
        };
        let error = tokio::select! { biased; error = turn => error, () = lost => return None };
        match &error {
            StreamError::Changed(why) => {
                tracing::debug!(why, "the stream is filled elsewhere, or was changed");
            }
            StreamError::Unavailable(why) => tracing::debug!(why, "the stream cannot be filled now"),
            StreamError::Operator(_) | StreamError::Store(_) => {
                tracing::error!(%error, "the stream is not filled")
            }
        }
        Some(error)
    }

    /// Counts, now and then, what no update_status says to be on the stream, while this relay does not fill it. Where another
    /// instance fills it, that one shows the number.
    async fn count_pending(
        &self,
        store: &dyn Store,
        error: Option<&StreamError>,
        counted: &mut Option<Instant>,
    ) {
        let Some(error) = error else { return self.stand_by() };
        if matches!(error, StreamError::Changed(_)) {
            self.update_status(|status| status.pending = 0);
        }
        if counted.is_some_and(|at| at.elapsed() < RELAY_SCAN_EVERY) {
            return;
        }
        *counted = Some(Instant::now());
        // A ledger that cannot be read tells nothing new.
        let Ok(unpublished) = store.unpublished_entry_count().await else { return };
        self.record_pending(unpublished);
        if !matches!(error, StreamError::Changed(_)) {
            self.update_status(|status| status.pending = unpublished);
        }
    }

    /// Another instance has the turn: what this one could not do is no error any more.
    fn stand_by(&self) {
        self.progress().stand_by();
        self.update_status(|status| (status.pending, status.error) = (0, None));
    }

    /// Waits for its turn; goes on without the lock where that cannot be asked for.
    async fn acquire_leadership(&self, dependencies: &RelayDependencies) -> Option<LockGuard> {
        let key = Key::new("relay", "ledger").ok()?;
        let options =
            LockOptions { wait: RELAY_STANDBY, max_lease: RELAY_LEADERSHIP_MAX, ..LockOptions::default() };
        loop {
            match dependencies.lock.acquire(&key, options).await {
                Ok(guard) => return Some(guard),
                Err(LockError::Unavailable(_)) => return None,
                Err(_) => {
                    self.stand_by();
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Tells the instance that fills the stream what has grown here.
    async fn forward_wakeups<T>(&self, event_bus: &dyn EventBus) -> T {
        loop {
            self.wake.notified().await;
            if !event_bus.is_up() {
                continue;
            }
            let grown = self.take_advanced();
            if !grown.is_empty() {
                event_bus.wake(grown).await;
            }
        }
    }
}

impl StreamError {
    /// What is said about it. That another instance fills the stream is none.
    fn told(&self) -> Option<String> {
        match self {
            Self::Unavailable(_) | Self::Operator(_) | Self::Store(_) => Some(self.to_string()),
            Self::Changed(_) => None,
        }
    }
}

/// How long to leave the stream alone. Whoever was beaten to it stays away for longer than the other needs to
/// go on; by chance, so that two do not come back together.
fn backoff(error: Option<&StreamError>, jitter: u8) -> Duration {
    match error {
        None => Duration::ZERO,
        Some(StreamError::Unavailable(_) | StreamError::Store(_)) => Duration::from_millis(250),
        Some(StreamError::Changed(_)) => {
            Duration::from_millis(100) + RELAY_STANDBY.mul_f64(f64::from(jitter) / 256.0)
        }
        Some(StreamError::Operator(_)) => RELAY_STANDBY,
    }
}
