//! What the actor knows of one caller: what it asked for, and how far that has come.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::lock::{Caller, Lease, Request};
use crate::Key;

/// A caller's key, from the wish to the end of the tenure. There is none for a caller who has nothing.
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) max_hold: Duration,
    pub(super) queue_max: usize,
    pub(super) queues: bool,
    /// When to look at it again.
    pub(super) next: Instant,
    pub(super) stage: Stage,
    /// What the bell said last of others who wait, and when. It may be faster than the answer to a question that was
    /// asked before.
    pub(super) rung: Option<(Instant, bool)>,
}

pub(super) enum Stage {
    /// The server has not answered yet; the news of a grant may be faster than its answer.
    Asking { caller: Caller, granted: Option<Grant> },
    /// In the server's queue.
    Queued { caller: Caller, place: usize, asked: Moment },
    /// The owner, as far as is known.
    Held { token: u64, lease: Arc<Lease>, since: Instant, overdue_at: Instant },
}

/// One instant by two clocks: ours, not later than the server's.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) sent: Instant,
    pub(super) server_micros: u64,
}

/// What a hand-over says.
#[derive(Clone, Copy)]
pub(super) struct Grant {
    pub(super) token: u64,
    pub(super) waiting: u64,
    pub(super) server_micros: u64,
}

impl Moment {
    /// An instant of ours that is not later than the server's time `micros`, and not later than now. News may
    /// have been long on their way, e.g. while this process was stopped, so the time at which they are heard
    /// says little.
    pub(super) fn at(self, micros: u64) -> Instant {
        let since = Duration::from_micros(micros.saturating_sub(self.server_micros));
        self.sent.checked_add(since).map_or_else(Instant::now, |at| at.min(Instant::now()))
    }
}

impl Entry {
    /// Whether somebody else waits, as far as an answer to what was asked at `sent` and the bell together say.
    pub(super) fn is_contended(&self, waiting: u64, sent: Instant) -> bool {
        match self.rung {
            Some((at, contended)) if at >= sent => contended,
            Some(_) | None => waiting > 0,
        }
    }

    /// An entry for a wish that is about to be sent, and has to be answered by `answer_by`.
    pub(super) fn asking(request: Request, answer_by: Instant) -> (u64, Self) {
        let Request { number, key, caller, max_hold, queue_max, queues } = request;
        let stage = Stage::Asking { caller, granted: None };
        (number, Self { key, max_hold, queue_max, queues, next: answer_by, stage, rung: None })
    }
}
