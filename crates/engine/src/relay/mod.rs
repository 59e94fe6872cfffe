//! The relay: publishes every ledger entry to the stream, exactly once and in order per event, across crashes
//! of any process (transactional outbox).
//!
//! Each instance runs one relay. Normally one of them is active, and the others stand by. Leadership saves
//! work and avoids conflicts; correctness does not depend on it.
//!
//! # Authority
//!
//! - The **ledger** in the database determines which entries exist, and their order.
//! - The **stream** determines which of them are published. A session starts by counting the messages of each
//!   event on the stream, and compares the last one with the ledger before it appends the next. The messages
//!   must be a prefix of the event's ledger: more messages, or other ones, are an error for an operator
//!   ([`StreamError::NeedsOperator`]), and nothing is overwritten.
//! - **Expected last sequence.** Each message names the sequence of its event's last message, and the stream
//!   stores it only if that message is still the last one (optimistic concurrency control). The sequence is
//!   one that the stream has returned, never a prediction, so an event has one message in flight. A message
//!   that is delayed, or sent by a relay that does not know the last message, is rejected
//!   ([`StreamError::Conflict`]). This guard, not the lock, ensures that no entry is missing, repeated or out
//!   of order.
//! - **Cursors** in the database (`Store::save_cursors`) are hints. They are saved after the fact, at
//!   intervals, and show which events may have unpublished entries. A cursor that differs from the stream is
//!   corrected.
//!
//! # Leadership
//!
//! A term is the time in which a relay holds the lock `relay:ledger`, at most `RELAY_LEADERSHIP_MAX`. Within
//! its term a relay has a session (`RelaySession`): the state of one stream as it is known. An error ends the
//! session and the term, and so does the loss of the lock. The end of a term releases the lock if it is still
//! owned, and drops cursors that are not saved yet.
//!
//! ```text
//!              ┌──────────────────────────────────────────────────────┐
//!              │ Standby                                              │
//!         ┌───▶│ waits for the lock; forwards its own wake-ups to the │
//!         │    │ active relay                                         │
//!         │    └───────────────┬──────────────────────────────────────┘
//!         │                    │ lock acquired, or the lock service is unavailable
//!         │                    ▼
//!         │    ┌──────────────────────────────────────────────────────┐
//!         │    │ Opening                                              │
//!         │    │ creates or opens the stream, counts its messages and │
//!         │    │ compares them with the ledgers                       │
//!         │    └───────────────┬──────────────────────────┬───────────┘
//!         │                    ▼                          │
//!         │    ┌──────────────────────────────────┐       │
//!         │    │ Active                           │       │
//!         │    │ publishes entries; verifies the  │       │ StreamError
//!         │    │ stream every RELAY_CHECK_EVERY   │       │
//!         │    └───────┬──────────────────┬───────┘       │
//!         │  lock lost │                  │ StreamError   │
//!         │            │                  ▼               ▼
//!         │            │       ┌──────────────────────────────────────┐
//!         │            │       │ Backoff                              │
//!         └────────────┴───────│ has no lock; forwards wake-ups       │
//!                              └──────────────────────────────────────┘
//! ```
//!
//! The loss of the lock ends *Opening*, too.
//!
//! # Wake-ups and polling
//!
//! After each commit the desk reports the events whose ledgers may have advanced ([`CommitListener`]). An
//! active relay publishes their entries; every other relay forwards the events to the active one over the
//! event bus. Wake-ups may be lost or dropped: every `RELAY_SCAN_EVERY` the active relay reads from the
//! database all events whose ledgers are ahead of their cursors.
//!
//! # Failures
//!
//! - The lock service is unavailable: several relays may be active. A relay whose message is rejected,
//!   because another relay was faster, backs off for 100 ms plus a random part of `RELAY_JITTER_MAX`.
//! - NATS or the database is unavailable: the session ends, and the relay tries again after 250 ms. Sales
//!   continue, and the entries wait in the ledger. Meanwhile the relay counts them, at most once per
//!   `RELAY_SCAN_EVERY`.
//! - The lock is lost: the session is dropped at once, also while it opens. Its messages in flight may still
//!   be stored; the next session counts them, or is rejected and counts again.
//! - The stream was deleted, replaced or has lost messages: the periodic check ends the session, and the next
//!   one starts from what the stream has.
//! - The entries of one event cannot be decoded: the error is reported, and other events are not affected.
//! - Entries are pending and none was published for `RELAY_STALL_MAX`: the status shows an error, whatever
//!   the sessions return (`Progress`).
//! - Shutdown: [`Relay::run`] never returns. The program drops it after everything else, so that the entries
//!   of the last commits can be published. Entries that are not published by then remain in the ledger for
//!   the next relay.

mod port;
mod progress;
mod session;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coordination::{Key, Lock, LockError, LockGuard, LockOptions};
use domain::{Clock, EventId, Ids};
use store::{Consumer, Store};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use self::progress::Progress;
use self::session::RelaySession;
use crate::CommitListener;
use crate::limit::{
    RELAY_JITTER_MAX, RELAY_LEADERSHIP_MAX, RELAY_LOCK_WAIT_MAX, RELAY_OPERATOR_BACKOFF, RELAY_SCAN_EVERY,
    RELAY_WAKEUPS_MAX,
};

pub use self::port::{EntryId, EventBus, PublishAck, Stream, StreamCounts, StreamError, StreamInfo};

/// The external dependencies of the relay.
#[derive(Clone)]
pub struct RelayDependencies {
    /// The ledgers and the cursors.
    pub store: Arc<dyn Store>,
    /// The lock for leadership.
    pub lock: Arc<dyn Lock>,
    /// The current time, for the age of entries and the first sequence of a new stream.
    pub clock: Arc<dyn Clock>,
    /// Random numbers, for the jitter of the backoff.
    pub ids: Arc<dyn Ids>,
    /// The port to the stream and to other relays.
    pub event_bus: Arc<dyn EventBus>,
}

/// The status of this process's relay.
#[derive(Clone, Debug, Default)]
pub struct RelayStatus {
    /// True if this relay has a session in which it publishes.
    pub is_active: bool,
    /// Number of known entries that are not on the stream yet, if this relay is active or would be if the
    /// stream were available; 0 on other instances.
    pub pending: u64,
    /// Age of the last published entry when it was published, in microseconds.
    pub lag_micros: u64,
    /// Number of entries published since the start.
    pub published: u64,
    /// Seconds since an entry was last published, or since the first one became pending; 0 if none is
    /// pending.
    pub waiting_seconds: u64,
    /// The reason why entries cannot be published, or are not.
    pub error: Option<String>,
}

/// The relay of this process.
#[derive(Default)]
pub struct Relay {
    status: Mutex<RelayStatus>,
    progress: Mutex<Progress>,
    advanced: Mutex<BTreeSet<EventId>>,
    wake: Notify,
}

impl CommitListener for Relay {
    fn ledgers_advanced(&self, events: &[EventId]) {
        let mut advanced = self.advanced.lock().unwrap_or_else(PoisonError::into_inner);
        let room = RELAY_WAKEUPS_MAX.saturating_sub(advanced.len());
        // Overflow is safe: the periodic scan finds these events.
        advanced.extend(events.iter().take(room));
        drop(advanced);
        self.wake.notify_one();
    }
}

impl Relay {
    /// The current status.
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

    /// Records that an entry was published.
    fn record_published(&self) {
        self.progress().record_published();
    }

    /// Records the number of entries that are not on the stream.
    fn record_pending(&self, unpublished: u64) {
        self.progress().record_pending(unpublished);
    }

    fn update_status(&self, change: impl FnOnce(&mut RelayStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The events whose ledgers have advanced since the last call.
    fn take_advanced(&self) -> BTreeSet<EventId> {
        std::mem::take(&mut *self.advanced.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs sessions whenever this relay has leadership. Never returns.
    pub async fn run<T>(&self, dependencies: &RelayDependencies) -> T {
        let mut counted_at = None;
        // The status of a session that has panicked is outdated.
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
                status.error = error.as_ref().and_then(StreamError::status_message);
            });
            if let Some(error) = &error {
                self.progress().record_end(error.to_string());
            }
            let pause = async {
                match &error {
                    // The lock was lost: another relay may take over.
                    None => self.stand_by(),
                    Some(error) => self.count_pending(&*dependencies.store, error, &mut counted_at).await,
                }
                sleep(backoff(error.as_ref(), dependencies.ids.random()[0])).await;
            };
            tokio::select! {
                biased;
                never = self.forward_wakeups(&*dependencies.event_bus) => never,
                () = pause => (),
            }
        }
    }

    /// Runs one session until it ends; returns its error, or `None` if leadership was lost.
    async fn run_session(
        &self,
        dependencies: &RelayDependencies,
        guard: Option<LockGuard>,
    ) -> Option<StreamError> {
        let session = async {
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
        let error = tokio::select! { biased; error = session => error, () = lost => return None };
        match &error {
            StreamError::Conflict(why) => {
                tracing::debug!(why, "another relay is active, or the stream was changed");
            }
            StreamError::Unavailable(why) => tracing::debug!(why, "entries cannot be published now"),
            StreamError::NeedsOperator(_) | StreamError::Store(_) => {
                tracing::error!(%error, "entries are not published");
            }
        }
        Some(error)
    }

    /// Counts the entries that no cursor marks as published, at most once per [`RELAY_SCAN_EVERY`], after an
    /// error has ended the session. If another relay is active, that one shows the number.
    async fn count_pending(&self, store: &dyn Store, error: &StreamError, counted_at: &mut Option<Instant>) {
        if matches!(error, StreamError::Conflict(_)) {
            self.update_status(|status| status.pending = 0);
        }
        if counted_at.is_some_and(|at| at.elapsed() < RELAY_SCAN_EVERY) {
            return;
        }
        *counted_at = Some(Instant::now());
        // If the ledger cannot be read, the last count remains.
        let Ok(unpublished) = store.pending_entry_count(Consumer::RELAY).await else { return };
        self.record_pending(unpublished);
        if !matches!(error, StreamError::Conflict(_)) {
            self.update_status(|status| status.pending = unpublished);
        }
    }

    /// Reports no pending entries and no error, since the active relay reports them.
    fn stand_by(&self) {
        self.progress().stand_by();
        self.update_status(|status| (status.pending, status.error) = (0, None));
    }

    /// Waits for leadership. Returns `None`, to continue without the lock, if the lock service is
    /// unavailable.
    async fn acquire_leadership(&self, dependencies: &RelayDependencies) -> Option<LockGuard> {
        let key = Key::new("relay", "ledger").ok()?;
        let options = LockOptions {
            wait: RELAY_LOCK_WAIT_MAX,
            max_lease: RELAY_LEADERSHIP_MAX,
            ..LockOptions::default()
        };
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

    /// Forwards the events whose ledgers have advanced here to the active relay. Never returns.
    async fn forward_wakeups<T>(&self, event_bus: &dyn EventBus) -> T {
        loop {
            self.wake.notified().await;
            if !event_bus.is_up() {
                continue;
            }
            let advanced = self.take_advanced();
            if !advanced.is_empty() {
                event_bus.wake(advanced).await;
            }
        }
    }
}

impl StreamError {
    /// The error to show in the status; `None` if another relay is active.
    fn status_message(&self) -> Option<String> {
        match self {
            Self::Unavailable(_) | Self::NeedsOperator(_) | Self::Store(_) => Some(self.to_string()),
            Self::Conflict(_) => None,
        }
    }
}

/// The time before the next session. A rejected relay waits longer than the active one needs to continue,
/// plus a random jitter, so that two rejected relays do not return at the same time.
fn backoff(error: Option<&StreamError>, jitter: u8) -> Duration {
    match error {
        None => Duration::ZERO,
        Some(StreamError::Unavailable(_) | StreamError::Store(_)) => Duration::from_millis(250),
        Some(StreamError::Conflict(_)) => {
            Duration::from_millis(100) + RELAY_JITTER_MAX.mul_f64(f64::from(jitter) / 256.0)
        }
        Some(StreamError::NeedsOperator(_)) => RELAY_OPERATOR_BACKOFF,
    }
}
