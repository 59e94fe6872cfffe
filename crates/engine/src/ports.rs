//! The ports of the engine: all its external dependencies.

use std::sync::Arc;

use coordination::{Limiter, Lock, Rule};
use domain::{Clock, EventId, Ids};
use store::Store;

/// The external dependencies of the engine.
#[derive(Clone)]
pub struct Ports {
    /// The system of record.
    pub store: Arc<dyn Store>,
    /// Serializes commands for the same booking, to reduce load on the database.
    pub lock: Arc<dyn Lock>,
    /// Serializes the desks of several instances that work on the same event. `None` if there is only one
    /// desk, whose own queue is sufficient.
    pub lease: Option<Arc<dyn Lock>>,
    /// Limits the rate of users' attempts.
    pub limiter: Arc<dyn Limiter>,
    /// The current time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers for new ids.
    pub ids: Arc<dyn Ids>,
    /// Is notified of commits.
    pub commit_listener: Arc<dyn CommitListener>,
}

/// A listener that is notified, after the commit, of the events whose ledgers have advanced. A notification
/// is only a wake-up: the receiver reads the ledger, so a lost notification delays entries, but loses none.
pub trait CommitListener: Send + Sync {
    /// Notifies that the ledgers of these events have advanced, or may have. Called once per batch; must not
    /// block.
    fn ledgers_advanced(&self, events: &[EventId]);
}

/// A listener that ignores all notifications; the entries remain in the ledger.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoopListener;

impl CommitListener for NoopListener {
    fn ledgers_advanced(&self, _events: &[EventId]) {}
}

/// The operator's settings for events and rate limits.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The time that a booking may stay unpaid, in seconds, for new events that do not specify it.
    pub hold_seconds: u32,
    /// The time before the start until which users may cancel paid bookings, in seconds, for new events that
    /// do not specify it.
    pub cancel_cutoff_seconds: u32,
    /// The rate limit of a user's booking attempts.
    pub book: Rule,
    /// The rate limit of a user's cancellation attempts.
    pub cancel: Rule,
}
