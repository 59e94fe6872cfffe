//! The queue of the desk compared with a model: one queue of all commands in the order of their arrival,
//! which is searched from its start for each batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coordination::local::LocalLock;
use coordination::{Key, Lock as _, LockGuard, LockOptions};
use domain::{Action, Actor, BookingId, Command, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, advance, timeout};

use super::super::command::StartFlag;
use super::*;
use crate::limit::{LEASE_DURATION_MAX, LEASE_WAIT_MAX};

const EVENTS: u8 = 5;
/// Small, so that batches are full.
const BATCH_COMMANDS_MAX: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    Push {
        event: u8,
    },
    /// The sender of a command that has not started stops waiting.
    TimeOut {
        command: usize,
    },
    HoldLease {
        event: u8,
    },
    ReleaseLease {
        event: u8,
    },
    /// Time passes until requests for leases are refused, or until held leases are lost.
    Advance {
        past_lease: bool,
    },
    Begin {
        lane: Lane,
    },
    /// Two bits per command select its reply.
    Finish {
        lane: Lane,
        replies: u64,
    },
    Panic,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let event = 0..EVENTS;
    let lane = prop_oneof![Just(Lane::Main), Just(Lane::Busy)];
    let step = prop_oneof![
        12 => event.clone().prop_map(|event| Step::Push { event }),
        1 => (0_usize..100).prop_map(|command| Step::TimeOut { command }),
        1 => event.clone().prop_map(|event| Step::HoldLease { event }),
        1 => event.prop_map(|event| Step::ReleaseLease { event }),
        1 => any::<bool>().prop_map(|past_lease| Step::Advance { past_lease }),
        4 => lane.clone().prop_map(|lane| Step::Begin { lane }),
        4 => (lane, any::<u64>()).prop_map(|(lane, replies)| Step::Finish { lane, replies }),
        1 => Just(Step::Panic),
    ];
    vec(step, 0..300)
}

fn event_id(number: u8) -> EventId {
    EventId::new(Timestamp::from_micros(0).expect("an instant"), [number; 10])
}

fn command(event: EventId) -> (QueuedCommand, Arc<StartFlag>) {
    let booking_id = BookingId::new(Timestamp::from_micros(0).expect("an instant"), [0; 10]);
    let command = Command {
        actor: Actor::System,
        request: "r".parse().expect("a request id"),
        trace: None,
        action: Action::Expire { event_id: event, booking_id },
    };
    let start_flag = Arc::<StartFlag>::default();
    let queued = QueuedCommand {
        position: 0,
        permit: Arc::new(Semaphore::new(1)).try_acquire_owned().ok(),
        submission: command.into(),
        deadline: Instant::now() + Duration::from_hours(1),
        start_flag: start_flag.clone(),
        result_sender: oneshot::channel().0,
    };
    (queued, start_flag)
}

/// The queue as it would be without an index. A command is identified by its position, to which it returns
/// when it is requeued.
#[derive(Default)]
struct Model {
    waiting: Vec<(u64, EventId)>,
    locked_events: BTreeSet<EventId>,
    timed_out: BTreeSet<u64>,
}

impl Model {
    fn next_batch(&mut self, lane: Lane, max: usize, is_ready: impl Fn(EventId) -> bool) -> Vec<u64> {
        let mut batch = Vec::new();
        let mut kept = Vec::new();
        for (position, event) in std::mem::take(&mut self.waiting) {
            let runs_here = self.locked_events.contains(&event) == (lane == Lane::Busy) && is_ready(event);
            if !runs_here || batch.len() == max {
                kept.push((position, event));
            } else if !self.timed_out.contains(&position) {
                batch.push(position);
            }
        }
        self.waiting = kept;
        batch
    }

    fn requeue(&mut self, position: u64, event: EventId) {
        self.waiting.push((position, event));
        self.waiting.sort_unstable();
    }
}

struct Comparison {
    pending: PendingQueue,
    model: Model,
    lock: Arc<LocalLock>,
    /// Leases that another desk holds.
    guards: BTreeMap<u8, LockGuard>,
    flags: Vec<Arc<StartFlag>>,
    running: BTreeMap<Lane, Batch>,
    /// The number of final results of each command.
    results: BTreeMap<u64, u32>,
}

impl Comparison {
    fn new() -> Self {
        let lock = Arc::new(LocalLock::new(Arc::new(|| 43_200_000_000)));
        Self {
            pending: PendingQueue::new(Leases::new(Some(lock.clone()))),
            model: Model::default(),
            lock,
            guards: BTreeMap::new(),
            flags: Vec::new(),
            running: BTreeMap::new(),
            results: BTreeMap::new(),
        }
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Push { event } => {
                let (queued, start_flag) = command(event_id(event));
                self.model.waiting.push((self.flags.len() as u64, event_id(event)));
                self.flags.push(start_flag);
                self.pending.push(queued);
            }
            Step::TimeOut { command } => {
                let waiting = &self.model.waiting;
                let Some(&(position, _)) = waiting.get(command % waiting.len().max(1)) else { return };
                if self.flags[usize::try_from(position).expect("a position")].try_set() {
                    self.model.timed_out.insert(position);
                    *self.results.entry(position).or_default() += 1;
                }
            }
            Step::HoldLease { event } => {
                let key = [Key::new("event", &event_id(event).to_string()).expect("a key")];
                let guards = self.lock.try_acquire_each(&key, LockOptions::default()).await;
                self.guards
                    .extend(guards.expect("a local lock").into_iter().flatten().map(|guard| (event, guard)));
            }
            Step::ReleaseLease { event } => drop(self.guards.remove(&event)),
            Step::Advance { past_lease } => {
                advance(if past_lease { LEASE_DURATION_MAX } else { LEASE_WAIT_MAX }).await;
            }
            Step::Begin { lane } => self.begin(lane),
            Step::Finish { lane, replies } => self.finish(lane, replies),
            Step::Panic => {
                let lost = std::mem::take(&mut self.running).into_values();
                for queued in lost.flat_map(|batch| batch.commands) {
                    *self.results.entry(queued.position).or_default() += 1;
                }
                self.pending.rebuild();
            }
        }
        while let Ok(Some(event)) = timeout(Duration::ZERO, self.pending.leases.next_grant()).await {
            self.pending.update_lane(event);
        }
    }

    fn begin(&mut self, lane: Lane) {
        if self.running.contains_key(&lane) {
            return;
        }
        let waiting: BTreeSet<EventId> = self.model.waiting.iter().map(|(_, event)| *event).collect();
        // A lease that is lost is requested again here, before the batch is assembled.
        let ready: BTreeSet<EventId> =
            waiting.into_iter().filter(|event| self.pending.leases.may_run(*event)).collect();
        let expected = self.model.next_batch(lane, BATCH_COMMANDS_MAX, |event| ready.contains(&event));
        let batch = self.pending.next_batch(lane, BATCH_COMMANDS_MAX);
        let commands = batch.as_ref().map_or(&[][..], |batch| &batch.commands);
        assert_eq!(commands.iter().map(|queued| queued.position).collect::<Vec<_>>(), expected);
        self.running.extend(batch.map(|batch| (lane, batch)));
    }

    fn finish(&mut self, lane: Lane, replies: u64) {
        let Some(Batch { commands, events, .. }) = self.running.remove(&lane) else { return };
        let mut result = BatchResult { lane, events, requeued: Vec::new(), locked_events: BTreeSet::new() };
        let mut free = BTreeSet::new();
        for (index, queued) in commands.into_iter().enumerate() {
            let event = queued.event();
            match (replies >> (2 * index)) & 3 {
                3 => {
                    result.locked_events.insert(event);
                    self.model.requeue(queued.position, event);
                    result.requeued.push(queued);
                }
                2 => {
                    free.insert(event);
                    self.model.requeue(queued.position, event);
                    result.requeued.push(queued);
                }
                _ => {
                    free.insert(event);
                    *self.results.entry(queued.position).or_default() += 1;
                }
            }
        }
        if lane == Lane::Busy {
            result.locked_events.retain(|event| !free.contains(event));
        }
        self.model.locked_events.retain(|event| !result.events.contains(event));
        self.model.locked_events.extend(&result.locked_events);
        self.pending.batch_finished(result);
    }

    /// Runs all commands that are left.
    async fn drain(&mut self) {
        self.guards.clear();
        while !self.model.waiting.is_empty() || !self.running.is_empty() {
            for lane in [Lane::Main, Lane::Busy] {
                self.run(Step::Finish { lane, replies: 0 }).await;
                self.run(Step::Begin { lane }).await;
            }
        }
    }
}

proptest! {
    #[test]
    fn batches_are_those_of_one_queue_in_the_order_of_arrival(steps in steps()) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let mut comparison = Comparison::new();
            for step in steps {
                comparison.run(step).await;
            }
            comparison.drain().await;
            let once = |command: u64| comparison.results.get(&command) == Some(&1);
            assert!((0..comparison.flags.len() as u64).all(once), "every command has one result");
            assert!(comparison.pending.queues.reset().is_empty());
        });
    }
}
