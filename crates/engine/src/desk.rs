//! The desk: a bounded queue of commands, executed by group commit.
//!
//! One task takes all queued commands, at most [`BATCH_MAX`], and has the store execute them in one
//! transaction. While one batch commits, the next one is collected, so the duration of a commit determines
//! the batch size: one command when the service is idle, hundreds during a sale, without a timer. The desk
//! decides nothing (the store calls `domain::decide` for each command), and a batch that has started waits
//! for nothing but the store.
//!
//! # Life of a command
//!
//! ```text
//!  Desk::submit
//!    │ no permit ────────────────────────────────────────▶ Error::Overloaded
//!    ▼
//!  queued ◀──────────────────────────────────────────┐
//!    │ deadline, the sender sets the start flag ─────┼───▶ Error::Overloaded, never runs
//!    │ lane idle, lease held or refused,             │
//!    │ the desk sets the start flag                  │ Reply::Requeue or Reply::Busy,
//!    ▼                                               │ deadline not reached
//!  in a batch ── the store replies ──────────────────┘
//!    │ any other reply, or deadline reached
//!    ▼
//!  result to the sender
//! ```
//!
//! - **Queue.** A semaphore with [`QUEUE_MAX`] permits bounds the queue. A command holds a permit until it
//!   starts; without a permit it is refused immediately. Commands run in the order of their arrival, except
//!   that a command whose event has to wait stays in its position while later commands of other events run.
//! - **Deadline.** A sender waits for the start of its command until the deadline of its caller, at most
//!   [`QUEUE_WAIT_MAX`]. The desk and the sender race for [`StartFlag`]: the one that sets it first
//!   determines whether the command runs. Thus a command whose sender has timed out never runs, and a sender
//!   whose command has started waits for the result, however long the batch takes.
//! - **Lease.** If several instances share the database, a command is not taken before the lease of its event
//!   is granted or refused ([`Leases`]). Commands of other events do not wait for it. The desk requests
//!   leases as soon as commands arrive, also while a batch runs.
//! - **Result.** The store returns one reply per command, in their order, and the desk sends each sender its
//!   result. A sender that has been dropped is ignored; its change remains. After the batch, the
//!   [`CommitListener`] is notified of the events with a result other than a refusal. A refusal may also add
//!   ledger entries, such as freed holds; the periodic scan of the relay finds those.
//! - **Requeue.** The store leaves a command undecided if it needs more overdue holds than one batch frees
//!   ([`Reply::Requeue`]) or if another session has locked its event ([`Reply::Busy`]). Until its deadline
//!   the command returns to the front of the queue. Its start flag stays set, so its sender cannot time out
//!   any more, and it holds no permit.
//!
//! # Lanes
//!
//! ```text
//!             Reply::Busy
//!    Main ───────────────────▶ Busy      an event is in one lane at a time;
//!         ◀───────────────────           each lane runs one batch at a time
//!          a reply other than Busy
//!          and Fault::Unavailable
//! ```
//!
//! The main lane calls [`Store::try_execute`], which waits only a short time for rows that other sessions
//! have locked. Commands of events that are locked for longer run in the busy lane, by [`Store::execute`],
//! which waits longer for the locks, while the main lane continues with all other events.
//!
//! # Failures
//!
//! - A fault of the store is the result of each command that the store reports it for; the desk does not
//!   retry.
//! - If the task panics, the supervisor restarts it. The queue is part of [`Worker`] and survives; the leases
//!   are requested again. The senders of the batch in flight get [`Fault::OutcomeUnknown`], since the store
//!   may have committed it.
//! - The desk ends when all senders are dropped and the queue is empty.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use coordination::Lock;
use domain::sabotage::{Guard, removed};
use domain::{Answer, EventId};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use store::{BATCH_MAX, Cause, Fault, Reply, Store, Submission};
use supervisor::Work;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::lease::Leases;
use crate::limit::{QUEUE_MAX, QUEUE_WAIT_MAX};
use crate::{CommandOutput, CommitListener, Error};

/// A handle to submit commands. Cheap to clone; the desk ends when the last handle is dropped and the queue
/// is empty.
#[derive(Clone)]
pub(crate) struct Desk {
    /// The channel is unbounded, but each sent command holds a permit.
    queue: mpsc::UnboundedSender<QueuedCommand>,
    permits: Arc<Semaphore>,
    counters: Arc<Counters>,
}

/// Counts since the start.
#[derive(Default)]
struct Counters {
    batches: AtomicU64,
    commands: AtomicU64,
    batches_without_lease: AtomicU64,
}

/// Statistics of the desk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeskStats {
    /// Number of commands in the queue that have not started.
    pub waiting: usize,
    /// Number of executed batches since the start.
    pub batches: u64,
    /// Number of commands in these batches.
    pub commands: u64,
    /// Number of times that an event's commands were in a batch without the event's lease, if leases are
    /// enabled.
    pub batches_without_lease: u64,
}

struct QueuedCommand {
    /// Released when the command starts; `None` for a requeued command.
    permit: Option<OwnedSemaphorePermit>,
    submission: Submission,
    deadline: Instant,
    start_flag: Arc<StartFlag>,
    result_sender: oneshot::Sender<Result<CommandOutput, Error>>,
}

/// Resolves the race between the desk that starts a command and its sender that times out: the one that sets
/// the flag first wins.
#[derive(Default)]
struct StartFlag(AtomicBool);

impl StartFlag {
    fn try_set(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel) || removed(Guard::StartFlag)
    }
}

impl QueuedCommand {
    fn event(&self) -> EventId {
        self.submission.command.event_id()
    }

    /// Starts the command, unless its sender has timed out. A requeued command has been started before.
    fn try_start(&mut self) -> bool {
        self.permit.take().is_none() || self.start_flag.try_set()
    }
}

impl Desk {
    /// Creates a desk, and the worker that must run as a task.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        commit_listener: Arc<dyn CommitListener>,
        lease: Option<Arc<dyn Lock>>,
    ) -> (Self, Worker) {
        let (sender, queue) = mpsc::unbounded_channel();
        let counters = Arc::new(Counters::default());
        let leases = Leases::new(lease);
        let pending = PendingQueue {
            waiting: VecDeque::new(),
            leases,
            locked_events: BTreeSet::new(),
            running_lanes: BTreeSet::new(),
        };
        let permits = Arc::new(Semaphore::new(QUEUE_MAX));
        let desk = Self { queue: sender, permits, counters: counters.clone() };
        (desk, Worker { queue, pending, store, commit_listener, counters })
    }

    /// The current statistics.
    pub(crate) fn stats(&self) -> DeskStats {
        DeskStats {
            waiting: QUEUE_MAX.saturating_sub(self.permits.available_permits()),
            batches: self.counters.batches.load(Ordering::Relaxed),
            commands: self.counters.commands.load(Ordering::Relaxed),
            batches_without_lease: self.counters.batches_without_lease.load(Ordering::Relaxed),
        }
    }

    /// Queues a command and returns its result. Waits for its start at most [`QUEUE_WAIT_MAX`], and not
    /// longer than until `caller_deadline`; after its start, waits until its batch has finished.
    ///
    /// # Errors
    ///
    /// [`Error::Overloaded`] if the queue is full or the command has timed out in it;
    /// [`Fault::OutcomeUnknown`] if the desk panicked or ended during its batch; otherwise the refusal or the
    /// fault of the command.
    pub(crate) async fn submit(
        &self,
        submission: Submission,
        caller_deadline: Option<Instant>,
    ) -> Result<CommandOutput, Error> {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| Error::Overloaded)?;
        let (result_sender, mut result) = oneshot::channel();
        let latest = Instant::now() + QUEUE_WAIT_MAX;
        let deadline = caller_deadline.map_or(latest, |instant| latest.min(instant));
        let start_flag = Arc::new(StartFlag::default());
        let queued = QueuedCommand {
            permit: Some(permit),
            submission,
            deadline,
            start_flag: start_flag.clone(),
            result_sender,
        };
        self.queue.send(queued).map_err(|_| Error::Overloaded)?;
        let result = match tokio::time::timeout_at(deadline, &mut result).await {
            Ok(result) => result,
            Err(_) if start_flag.try_set() => return Err(Error::Overloaded),
            Err(_) => result.await,
        };
        result.unwrap_or_else(|_| {
            Err(Fault::OutcomeUnknown(Cause::new("the desk ended or was restarted")).into())
        })
    }
}

/// The queued commands in the order of their arrival, and the leases of their events.
struct PendingQueue {
    waiting: VecDeque<QueuedCommand>,
    leases: Leases,
    /// Events that were locked by another session when their commands last ran.
    locked_events: BTreeSet<EventId>,
    /// Lanes with a batch in flight.
    running_lanes: BTreeSet<Lane>,
}

/// The lane of a batch. An event's commands are in one lane at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// Waits only a short time for locked rows.
    Main,
    /// Waits for rows that other sessions have locked.
    Busy,
}

/// Commands that are executed together, and the events of all commands that were taken from the queue for
/// this batch.
struct Batch {
    lane: Lane,
    commands: Vec<QueuedCommand>,
    events: BTreeSet<EventId>,
}

/// The rest of a batch after its execution.
struct BatchResult {
    lane: Lane,
    events: BTreeSet<EventId>,
    requeued: Vec<QueuedCommand>,
    /// Events whose commands could not run because another session has locked them.
    locked_events: BTreeSet<EventId>,
}

impl PendingQueue {
    /// Requests the leases of all queued commands again: after a panic the counts of [`Leases`] may be wrong.
    fn rebuild(&mut self) {
        self.leases.clear();
        self.running_lanes.clear();
        for queued in &self.waiting {
            let _ = self.leases.command_queued(queued.event());
        }
    }

    /// Appends a command; returns true if a batch could take it now.
    fn push(&mut self, queued: QueuedCommand) -> bool {
        let event = queued.event();
        let lane = if self.locked_events.contains(&event) { Lane::Busy } else { Lane::Main };
        let ready = self.leases.command_queued(event);
        self.waiting.push_back(queued);
        ready && !self.running_lanes.contains(&lane)
    }

    /// Takes commands for an idle lane, in order; those whose event has to wait keep their position.
    fn next_batch(&mut self, lane: Lane) -> Option<Batch> {
        if self.running_lanes.contains(&lane) || (lane == Lane::Busy && self.locked_events.is_empty()) {
            return None;
        }
        let mut batch = Batch { lane, commands: Vec::new(), events: BTreeSet::new() };
        let mut not_ready = Vec::new();
        while batch.commands.len() < BATCH_MAX
            && let Some(mut queued) = self.waiting.pop_front()
        {
            let event = queued.event();
            if self.locked_events.contains(&event) != (lane == Lane::Busy) || !self.leases.may_run(event) {
                not_ready.push(queued);
                continue;
            }
            self.leases.command_taken(event);
            batch.events.insert(event);
            if queued.try_start() {
                batch.commands.push(queued);
            }
        }
        not_ready.into_iter().rev().for_each(|queued| self.waiting.push_front(queued));
        if batch.events.is_empty() {
            return None;
        }
        self.running_lanes.insert(lane);
        Some(batch)
    }

    /// Completes a batch; requeued commands return to the front of the queue.
    fn batch_finished(&mut self, result: BatchResult) {
        let BatchResult { lane, events, requeued, locked_events } = result;
        self.running_lanes.remove(&lane);
        for queued in requeued.into_iter().rev() {
            let _ = self.leases.command_queued(queued.event());
            self.waiting.push_front(queued);
        }
        self.leases.batch_finished(&events);
        self.locked_events.retain(|event| !events.contains(event));
        self.locked_events.extend(locked_events);
    }

    /// Returns true when a batch may take more commands, and false when no more commands can arrive.
    async fn wait_for_runnable(&mut self, queue: &mut mpsc::UnboundedReceiver<QueuedCommand>) -> bool {
        loop {
            tokio::select! {
                biased;
                Some(()) = self.leases.next_grant() => return true,
                Some(queued) = queue.recv() => if self.push(queued) { return true },
                else => return false,
            }
        }
    }
}

/// Executes batches. The queue survives a panic; the senders of the batch in flight get
/// [`Fault::OutcomeUnknown`], since the store may have committed it.
pub(crate) struct Worker {
    queue: mpsc::UnboundedReceiver<QueuedCommand>,
    pending: PendingQueue,
    store: Arc<dyn Store>,
    commit_listener: Arc<dyn CommitListener>,
    counters: Arc<Counters>,
}

impl Work for Worker {
    /// Ends when the last sender is dropped.
    async fn run(&mut self) {
        let Self { queue, pending, store, commit_listener, counters } = self;
        pending.rebuild();
        let mut running = FuturesUnordered::new();
        let mut open = true;
        loop {
            while let Ok(queued) = queue.try_recv() {
                pending.push(queued);
            }
            for lane in [Lane::Main, Lane::Busy] {
                if let Some(batch) = pending.next_batch(lane) {
                    let without_lease = batch
                        .events
                        .iter()
                        .filter(|event| pending.leases.runs_without_lease(**event))
                        .count();
                    counters.record(batch.commands.len(), without_lease);
                    running.push(execute_batch(batch, &**store, &**commit_listener));
                }
            }
            // With leases, commands are received during a batch so that their leases are requested
            // immediately; without leases it is sufficient to receive them after it.
            let listens = open && (pending.leases.enabled() || !pending.running_lanes.contains(&Lane::Main));
            tokio::select! {
                biased;
                Some(result) = running.next() => {
                    pending.batch_finished(result);
                    open = true;
                }
                more = pending.wait_for_runnable(queue), if listens => open = more,
                else => return,
            }
        }
    }
}

impl Counters {
    fn record(&self, commands: usize, without_lease: usize) {
        self.batches.fetch_add(u64::from(commands > 0), Ordering::Relaxed);
        self.commands.fetch_add(commands as u64, Ordering::Relaxed);
        self.batches_without_lease.fetch_add(without_lease as u64, Ordering::Relaxed);
    }
}

/// Executes one batch and sends the results; returns the commands to requeue.
async fn execute_batch(batch: Batch, store: &dyn Store, commit_listener: &dyn CommitListener) -> BatchResult {
    let Batch { lane, commands, events } = batch;
    if commands.is_empty() {
        // No command of the batch has run, so it is still unknown whether its events are locked.
        let locked_events = if lane == Lane::Busy { events.clone() } else { BTreeSet::new() };
        return BatchResult { lane, events, requeued: commands, locked_events };
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
        let output = match reply {
            Reply::Requeue | Reply::Busy if now < queued.deadline => {
                result.requeued.push(queued);
                continue;
            }
            Reply::Requeue => Err(Error::Overloaded),
            Reply::Busy => Err(Fault::Unavailable(Cause::new("another session has locked its event")).into()),
            Reply::Failed(Fault::OutcomeUnknown(cause)) if removed(Guard::UnknownOutcome) => {
                Err(Fault::Unavailable(cause).into())
            }
            Reply::Failed(fault) => Err(fault.into()),
            Reply::KeyReused => Err(Error::KeyReused),
            Reply::Decided(CommandOutput::Fresh(Answer::Refused(refusal))) => Err(refusal.into()),
            Reply::Decided(output) => Ok(output),
        };
        if !matches!(output, Err(Error::Refused(_))) {
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
