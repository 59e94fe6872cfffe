//! A command at the desk, and the race for its start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::{EventId, guard};
use store::Submission;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::{CommandOutput, Error};

/// A command in the queue, or in a batch.
pub(super) struct QueuedCommand {
    /// The number of its arrival, set by the queue.
    pub(super) position: u64,
    /// Released when the command starts; `None` for a requeued command.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    pub(super) submission: Submission,
    pub(super) deadline: Instant,
    pub(super) start_flag: Arc<StartFlag>,
    pub(super) result_sender: oneshot::Sender<Result<CommandOutput, Error>>,
}

/// Resolves the race between the desk that starts a command and its sender that times out: the one that sets
/// the flag first wins.
#[derive(Default)]
pub(super) struct StartFlag(AtomicBool);

impl StartFlag {
    pub(super) fn try_set(&self) -> bool {
        !guard!(StartFlag: self.0.swap(true, Ordering::AcqRel))
    }
}

impl QueuedCommand {
    pub(super) fn event(&self) -> EventId {
        self.submission.command.event_id()
    }

    /// Starts the command, unless its sender has timed out. A requeued command has been started before.
    pub(super) fn try_start(&mut self) -> bool {
        self.permit.take().is_none() || self.start_flag.try_set()
    }
}
