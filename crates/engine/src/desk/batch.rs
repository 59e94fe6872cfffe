//! The execution of one batch, and the results of its commands.

use std::collections::BTreeSet;

use domain::{Answer, EventId, guard};
use store::{Cause, Fault, Reply, Store};
use tokio::time::Instant;

use super::command::QueuedCommand;
use crate::{CommandOutput, CommitListener, Error};

/// The lane of a batch. An event's commands are in one lane at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// Waits only a short time for locked rows.
    Main,
    /// Waits for rows that other sessions have locked.
    Busy,
}

/// Commands that are executed together, and the events of all commands that were taken from the queue for
/// this batch.
pub(super) struct Batch {
    pub(super) lane: Lane,
    pub(super) commands: Vec<QueuedCommand>,
    pub(super) events: BTreeSet<EventId>,
}

/// The rest of a batch after its execution.
pub(super) struct BatchResult {
    pub(super) lane: Lane,
    pub(super) events: BTreeSet<EventId>,
    pub(super) requeued: Vec<QueuedCommand>,
    /// Events whose commands could not run because another session has locked them.
    pub(super) locked_events: BTreeSet<EventId>,
}

/// Executes one batch and sends the results; returns the commands to requeue.
pub(super) async fn execute_batch(
    batch: Batch,
    store: &dyn Store,
    commit_listener: &dyn CommitListener,
) -> BatchResult {
    let Batch { lane, commands, events } = batch;
    if commands.is_empty() {
        // No command of the batch has run, so it is still unknown whether its events are locked.
        let locked_events = if lane == Lane::Busy { events.clone() } else { BTreeSet::new() };
        return BatchResult { lane, events, requeued: Vec::new(), locked_events };
    }
    let mut result = BatchResult { lane, events, requeued: Vec::new(), locked_events: BTreeSet::new() };
    let submissions = commands.iter().map(|queued| queued.submission.clone()).collect();
    let replies = match lane {
        Lane::Main => store.try_execute(submissions).await,
        Lane::Busy => store.execute(submissions).await,
    };
    let mut replies = replies.into_iter();
    let now = Instant::now();
    let mut advanced = BTreeSet::new();
    let mut free = BTreeSet::new();
    for queued in commands {
        let event = queued.event();
        let reply =
            replies.next().unwrap_or_else(|| Reply::Failed(Fault::OutcomeUnknown(Cause::new("no reply"))));
        if !matches!(reply, Reply::Busy | Reply::Failed(Fault::Unavailable(_))) {
            free.insert(event);
        } else if lane == Lane::Busy || matches!(reply, Reply::Busy) {
            result.locked_events.insert(event);
        }
        if matches!(reply, Reply::Requeue | Reply::Busy) && now < queued.deadline {
            result.requeued.push(queued);
            continue;
        }
        let output = to_output(reply);
        if may_have_advanced(&output) {
            advanced.insert(event);
        }
        // The sender may have been dropped; the change remains committed.
        let _ = queued.result_sender.send(output);
    }
    if lane == Lane::Busy {
        // An event is free again if one of its commands got a reply, even if others did not.
        result.locked_events.retain(|event| !free.contains(event));
    }
    if !advanced.is_empty() {
        commit_listener.ledgers_advanced(&advanced.into_iter().collect::<Vec<EventId>>());
    }
    result
}

/// The result of a command that is not requeued.
fn to_output(reply: Reply) -> Result<CommandOutput, Error> {
    match reply {
        Reply::Requeue => Err(Error::Overloaded),
        Reply::Busy => Err(Fault::Unavailable(Cause::new("another session has locked its event")).into()),
        Reply::Failed(Fault::OutcomeUnknown(cause)) if !guard!(UnknownOutcome) => {
            Err(Fault::Unavailable(cause).into())
        }
        Reply::Failed(fault) => Err(fault.into()),
        Reply::KeyReused => Err(Error::KeyReused),
        Reply::Decided(CommandOutput::Fresh(Answer::Refused(refusal))) => Err(refusal.into()),
        Reply::Decided(output) => Ok(output),
    }
}

/// False if the command has certainly added no ledger entries of its own: it was refused without a refund.
fn may_have_advanced(output: &Result<CommandOutput, Error>) -> bool {
    match output {
        Err(Error::Refused(refusal)) => refusal.refund().is_some(),
        Ok(_) | Err(_) => true,
    }
}
