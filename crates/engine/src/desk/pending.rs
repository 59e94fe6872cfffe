//! The commands that wait at the desk, and the events whose commands may run.
//!
//! [`PendingQueue`] assembles batches. A batch costs a step for each command that it takes, and one for each
//! event that it would take from but whose lease turns out to be lost. Commands of an event whose lease is
//! requested, or which is in the other lane, cost nothing ([`super::queue`]).

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use domain::EventId;
use tokio::sync::mpsc;

use super::batch::{Batch, BatchResult, Lane};
use super::command::QueuedCommand;
use super::queue::EventQueues;
use crate::lease::Leases;

/// The queued commands in the order of their arrival, and the leases of their events.
pub(super) struct PendingQueue {
    queues: EventQueues,
    leases: Leases,
    /// Events that were locked by another session when their commands last ran.
    locked_events: BTreeSet<EventId>,
    /// Lanes with a batch in flight.
    running_lanes: BTreeSet<Lane>,
}

impl PendingQueue {
    pub(super) fn new(leases: Leases) -> Self {
        Self {
            queues: EventQueues::default(),
            leases,
            locked_events: BTreeSet::new(),
            running_lanes: BTreeSet::new(),
        }
    }

    /// Requests the leases of all queued commands again: after a panic the counts of [`Leases`] and the order
    /// of the events may be wrong.
    pub(super) fn rebuild(&mut self) {
        self.leases.clear();
        self.running_lanes.clear();
        for (event, commands) in self.queues.reset() {
            for _ in 0..commands {
                let _ = self.leases.command_queued(event);
            }
            self.update_lane(event);
        }
    }

    /// Appends a command; returns true if a batch could take it now.
    pub(super) fn push(&mut self, queued: QueuedCommand) -> bool {
        let event = queued.event();
        let is_ready = self.leases.command_queued(event);
        if self.queues.push(queued) {
            self.update_lane(event);
        }
        is_ready && !self.is_running(self.lane_of(event))
    }

    /// True if a batch of this lane is in flight.
    pub(super) fn is_running(&self, lane: Lane) -> bool {
        self.running_lanes.contains(&lane)
    }

    /// True if leases are used.
    pub(super) fn uses_leases(&self) -> bool {
        self.leases.enabled()
    }

    /// Number of events of a batch that run without their lease although leases are used.
    pub(super) fn events_without_lease(&self, batch: &Batch) -> usize {
        batch.events.iter().filter(|event| self.leases.runs_without_lease(**event)).count()
    }

    /// Takes up to `max` commands for an idle lane in the order of their arrival; those whose event has to
    /// wait stay.
    pub(super) fn next_batch(&mut self, lane: Lane, max: usize) -> Option<Batch> {
        if self.is_running(lane) {
            return None;
        }
        let mut batch = Batch { lane, commands: Vec::new(), events: BTreeSet::new() };
        while batch.commands.len() < max
            && let Some(event) = self.queues.first(lane)
        {
            if !self.leases.may_run(event) {
                self.queues.set_lane(event, None);
                continue;
            }
            let Some(mut queued) = self.queues.pop(event) else { break };
            self.leases.command_taken(event);
            batch.events.insert(event);
            if queued.try_start() {
                batch.commands.push(queued);
            }
        }
        if batch.events.is_empty() {
            return None;
        }
        self.running_lanes.insert(lane);
        Some(batch)
    }

    /// Completes a batch; requeued commands return to the front of the queues of their events.
    pub(super) fn batch_finished(&mut self, result: BatchResult) {
        let BatchResult { lane, events, requeued, locked_events } = result;
        self.running_lanes.remove(&lane);
        for queued in requeued.into_iter().rev() {
            let _ = self.leases.command_queued(queued.event());
            self.queues.requeue(queued);
        }
        self.leases.batch_finished(&events);
        self.locked_events.retain(|event| !events.contains(event));
        self.locked_events.extend(locked_events);
        for event in events {
            self.update_lane(event);
        }
    }

    /// Returns true when a batch may take more commands, and false when no more commands can arrive.
    pub(super) async fn wait_for_runnable(
        &mut self,
        queue: &mut mpsc::UnboundedReceiver<QueuedCommand>,
    ) -> bool {
        loop {
            tokio::select! {
                biased;
                Some(event) = self.leases.next_grant() => {
                    self.update_lane(event);
                    return true;
                }
                Some(queued) = queue.recv() => if self.push(queued) { return true },
                else => return false,
            }
        }
    }

    fn lane_of(&self, event: EventId) -> Lane {
        if self.locked_events.contains(&event) { Lane::Busy } else { Lane::Main }
    }

    /// Puts an event into the order of its lane, or out of it while its lease is requested.
    fn update_lane(&mut self, event: EventId) {
        let lane = (!self.leases.is_requested(event)).then(|| self.lane_of(event));
        self.queues.set_lane(event, lane);
    }
}
