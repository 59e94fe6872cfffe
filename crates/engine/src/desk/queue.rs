//! Queued commands: a FIFO per event, and an order over the events that can run.
//!
//! Every command has a position, the number of its arrival. An event that can run is in the index of its
//! lane, by the position of its oldest command, so the oldest command of a lane is that of the first event in
//! its index. An event that cannot run is in no index: its commands cost nothing, however many they are.
//!
//! # Complexity
//!
//! With `E` events in an index: [`EventQueues::first`], [`EventQueues::pop`], [`EventQueues::requeue`] and
//! [`EventQueues::set_lane`] take O(log E), [`EventQueues::push`] takes O(1). None of them depends on the
//! number of queued commands. [`EventQueues::reset`], after a panic, takes O(E log E) over all events.

use std::collections::{BTreeMap, HashMap, VecDeque};

use domain::EventId;

use super::batch::Lane;
use super::command::QueuedCommand;

/// The queues of all events.
#[derive(Default)]
pub(super) struct EventQueues {
    events: HashMap<EventId, EventQueue>,
    main_index: BTreeMap<u64, EventId>,
    busy_index: BTreeMap<u64, EventId>,
    next_position: u64,
}

/// The queue of one event; never empty.
#[derive(Default)]
struct EventQueue {
    commands: VecDeque<QueuedCommand>,
    /// The lane whose index contains the event; `None` if the event cannot run.
    lane: Option<Lane>,
}

impl EventQueues {
    /// Appends a command. Returns true if it is the only one of its event, which then is in no index yet.
    pub(super) fn push(&mut self, mut queued: QueuedCommand) -> bool {
        queued.position = self.next_position;
        self.next_position += 1;
        let queue = self.events.entry(queued.event()).or_default();
        queue.commands.push_back(queued);
        queue.commands.len() == 1
    }

    /// The event in this lane with the oldest command.
    pub(super) fn first(&self, lane: Lane) -> Option<EventId> {
        let index = match lane {
            Lane::Main => &self.main_index,
            Lane::Busy => &self.busy_index,
        };
        index.first_key_value().map(|(_, event)| *event)
    }

    /// Takes the oldest command of an event.
    pub(super) fn pop(&mut self, event: EventId) -> Option<QueuedCommand> {
        let lane = self.remove_from_index(event);
        let queue = self.events.get_mut(&event)?;
        let first = queue.commands.pop_front();
        if queue.commands.is_empty() {
            self.events.remove(&event);
        } else {
            self.insert_into_index(event, lane);
        }
        first
    }

    /// Returns a command that was taken to the front of its event's queue, in its former position. Commands
    /// that were taken together must be returned last first.
    pub(super) fn requeue(&mut self, queued: QueuedCommand) {
        let event = queued.event();
        let lane = self.remove_from_index(event);
        self.events.entry(event).or_default().commands.push_front(queued);
        self.insert_into_index(event, lane);
    }

    /// Moves an event into the index of a lane, or out of its index. An event without commands is in none.
    pub(super) fn set_lane(&mut self, event: EventId, lane: Option<Lane>) {
        if self.events.get(&event).is_some_and(|queue| queue.lane != lane) {
            self.remove_from_index(event);
            self.insert_into_index(event, lane);
        }
    }

    /// Empties the indexes. Returns all events with the number of their commands, in the order of the oldest.
    pub(super) fn reset(&mut self) -> Vec<(EventId, usize)> {
        self.main_index.clear();
        self.busy_index.clear();
        self.events.retain(|_, queue| !queue.commands.is_empty());
        let mut by_age = BTreeMap::new();
        for (event, queue) in &mut self.events {
            queue.lane = None;
            by_age.insert(queue.commands[0].position, (*event, queue.commands.len()));
        }
        by_age.into_values().collect()
    }

    fn remove_from_index(&mut self, event: EventId) -> Option<Lane> {
        let queue = self.events.get_mut(&event)?;
        let lane = queue.lane.take()?;
        let position = queue.commands.front()?.position;
        self.index(lane).remove(&position);
        Some(lane)
    }

    fn insert_into_index(&mut self, event: EventId, lane: Option<Lane>) {
        let Some(queue) = self.events.get_mut(&event) else { return };
        let (Some(lane), Some(first)) = (lane, queue.commands.front()) else { return };
        let position = first.position;
        queue.lane = Some(lane);
        self.index(lane).insert(position, event);
    }

    fn index(&mut self, lane: Lane) -> &mut BTreeMap<u64, EventId> {
        match lane {
            Lane::Main => &mut self.main_index,
            Lane::Busy => &mut self.busy_index,
        }
    }
}
