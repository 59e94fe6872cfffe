//! The actor's record of one caller: the request and its state.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::lock::{AcquireRequest, Caller, Lease};
use crate::Key;

/// One caller and its key, from the request to the end of ownership. A caller that waits for nothing and owns
/// nothing has no entry.
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) max_lease: Duration,
    pub(super) queue_max: usize,
    pub(super) may_queue: bool,
    /// The time of the next check.
    pub(super) check_at: Instant,
    pub(super) state: State,
    /// The latest notification about other waiters: when it was received, and true if there are any. It may
    /// overtake the reply to a request that was sent before.
    pub(super) notified_contention: Option<(Instant, bool)>,
}

pub(super) enum State {
    /// Sent or about to be sent, without a reply. The notification of a grant may overtake the reply.
    Requested { caller: Caller, grant: Option<Grant> },
    /// In the server's queue.
    Queued { caller: Caller, position: usize, queued_at: ClockSample },
    /// The owner, as far as this process knows.
    Owned { token: u64, lease: Arc<Lease>, since: Instant, deadline: Instant },
}

/// One instant by two clocks; the local one is not later than the server's.
#[derive(Clone, Copy)]
pub(super) struct ClockSample {
    pub(super) sent: Instant,
    pub(super) server_micros: u64,
}

/// The content of a grant notification.
#[derive(Clone, Copy)]
pub(super) struct Grant {
    pub(super) token: u64,
    pub(super) waiting: u64,
    pub(super) server_micros: u64,
}

/// Ownership as the server granted it: from `from` its lease there lasts at least `lease`.
#[derive(Clone, Copy)]
pub(super) struct Ownership {
    pub(super) token: u64,
    pub(super) waiting: u64,
    pub(super) from: Instant,
    pub(super) lease: Duration,
}

impl ClockSample {
    /// A local instant that is neither later than the server's time `micros` nor later than now. A
    /// notification may be delayed for long, e.g. while this process was stopped, so its time of receipt does
    /// not bound the time of the grant.
    pub(super) fn local_instant(self, micros: u64) -> Instant {
        let since = Duration::from_micros(micros.saturating_sub(self.server_micros));
        self.sent.checked_add(since).map_or_else(Instant::now, |at| at.min(Instant::now()))
    }
}

impl Entry {
    /// True if other callers wait for the key, by the newer of two sources: the reply to a request sent at
    /// `sent`, and the latest notification.
    pub(super) fn is_contended(&self, waiting: u64, sent: Instant) -> bool {
        match self.notified_contention {
            Some((at, contended)) if at >= sent => contended,
            Some(_) | None => waiting > 0,
        }
    }

    /// The entry of a request that is about to be sent and needs a reply by `reply_by`.
    pub(super) fn new(request: AcquireRequest, reply_by: Instant) -> (u64, Self) {
        let AcquireRequest { number, key, caller, max_lease, queue_max, may_queue } = request;
        let state = State::Requested { caller, grant: None };
        let entry = Self {
            key,
            max_lease,
            queue_max,
            may_queue,
            check_at: reply_by,
            state,
            notified_contention: None,
        };
        (number, entry)
    }
}
