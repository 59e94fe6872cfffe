//! The doors of the engine: everything it needs from outside comes in through one of these.

use std::sync::Arc;

use coordination::{Limiter, Lock, Rule};
use domain::{Clock, EventId, Ids};
use store::Store;

/// What stands behind the engine.
#[derive(Clone)]
pub struct Ports {
    /// Where truth lives.
    pub store: Arc<dyn Store>,
    /// Orders those who want the same booking.
    pub lock: Arc<dyn Lock>,
    /// Orders the desks that work on one event, each in its instance, one after the other; unset where there is one
    /// desk alone, which needs no order but its own.
    pub lease: Option<Arc<dyn Lock>>,
    /// Refuses those who ask too often.
    pub limiter: Arc<dyn Limiter>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes ids.
    pub ids: Arc<dyn Ids>,
    /// Hears what was committed.
    pub commit_listener: Arc<dyn CommitListener>,
}

/// Hears which ledgers have grown, after the commit. A hint, never the news itself: whoever tells others
/// reads the ledger, so a lost hint makes news late and loses nothing.
pub trait CommitListener: Send + Sync {
    /// The ledgers of these events have grown, or may have. Called once per batch; must not block.
    fn ledgers_advanced(&self, events: &[EventId]);
}

/// Tells nobody; the ledger keeps everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoopListener;

impl CommitListener for NoopListener {
    fn ledgers_advanced(&self, _events: &[EventId]) {}
}

/// What the operator decides.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How long a booking of a new event may stay unpaid, in seconds, where the event does not say.
    pub hold_seconds: u32,
    /// How long before the start of a new event a user may last give back a paid booking, in seconds,
    /// where the event does not say.
    pub cancel_cutoff_seconds: u32,
    /// How often one user may try to book.
    pub book: Rule,
    /// How often one user may try to cancel.
    pub cancel: Rule,
}
