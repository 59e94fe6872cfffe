//! The desk: where waiting commands are gathered into one commit.
//!
//! One task takes everything that is queued, up to a bound, and has the store carry it out in one
//! transaction. While one batch commits the next gathers, so batches find their own size: one command when
//! it is quiet, hundreds in a sale, and no timer in between. The queue is first come, first served; where desks of
//! several instances work on the same events, an event's commands come up once it has its lease ([`Leases`]), and
//! those of others do not wait for them. Commands on events that others keep locked in the database go in a second lane,
//! which waits for the lock beside the first.
//!
//! The desk decides nothing, and a batch that was begun waits for nothing but the store.

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

/// The way to the desk. Cheap to clone; the desk ends when the last one is gone and the queue is empty.
#[derive(Clone)]
pub(crate) struct Desk {
    /// Bounded by the permits there are.
    queue: mpsc::UnboundedSender<QueuedCommand>,
    permits: Arc<Semaphore>,
    counters: Arc<Counters>,
}

/// What the desk has done so far.
#[derive(Default)]
struct Counters {
    batches: AtomicU64,
    commands: AtomicU64,
    batches_without_lease: AtomicU64,
}

/// How the desk is getting on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeskStats {
    /// Commands that wait for their start_flag.
    pub waiting: usize,
    /// Batches requeued out since the start.
    pub batches: u64,
    /// Commands in those batches.
    pub commands: u64,
    /// How often an event's commands were in a batch without the event's lease, where leases are asked for.
    pub batches_without_lease: u64,
}

struct QueuedCommand {
    /// Given back when its start_flag has come; what is requeued over to another batch has none any more.
    permit: Option<OwnedSemaphorePermit>,
    submission: Submission,
    deadline: Instant,
    start_flag: Arc<StartFlag>,
    result_sender: oneshot::Sender<Result<CommandOutput, Error>>,
}

/// Settles whether a command is requeued out or given up: whoever comes first, the desk that takes it or
/// the sender whose patience ends, has decided for both.
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

    /// Whether it is to be requeued out: its sender has not given up before, nor can from now on.
    fn try_start(&mut self) -> bool {
        self.permit.take().is_none() || self.start_flag.try_set()
    }
}

impl Desk {
    /// A desk, and its worker, to be run as a task.
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

    /// How the desk is getting on.
    pub(crate) fn stats(&self) -> DeskStats {
        DeskStats {
            waiting: QUEUE_MAX.saturating_sub(self.permits.available_permits()),
            batches: self.counters.batches.load(Ordering::Relaxed),
            commands: self.counters.commands.load(Ordering::Relaxed),
            batches_without_lease: self.counters.batches_without_lease.load(Ordering::Relaxed),
        }
    }

    /// Queues a command and waits for its answer: at most [`TURN_WAIT_MAX`], and not after `gives_up`, for its
    /// start_flag, and then as long as its batch takes.
    pub(crate) async fn submit(
        &self,
        submission: Submission,
        caller_deadline: Option<Instant>,
    ) -> Result<CommandOutput, Error> {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| Error::Overloaded)?;
        let (reply, mut answer) = oneshot::channel();
        let latest = Instant::now() + QUEUE_WAIT_MAX;
        let deadline = caller_deadline.map_or(latest, |instant| latest.min(instant));
        let start_flag = Arc::new(StartFlag::default());
        let queued = QueuedCommand {
            permit: Some(permit),
            submission,
            deadline,
            start_flag: start_flag.clone(),
            result_sender: reply,
        };
        self.queue.send(queued).map_err(|_| Error::Overloaded)?;
        let answer = match tokio::time::timeout_at(deadline, &mut answer).await {
            Ok(answer) => answer,
            Err(_) if start_flag.try_set() => return Err(Error::Overloaded),
            Err(_) => answer.await,
        };
        answer.unwrap_or_else(|_| {
            Err(Fault::OutcomeUnknown(Cause::new("the desk closed, or was restarted")).into())
        })
    }
}

/// Commands that wait for their start_flag, in the order in which they came, and the leases of their events.
struct PendingQueue {
    waiting: VecDeque<QueuedCommand>,
    leases: Leases,
    /// Events that others keep locked in the database, as far as is known.
    locked_events: BTreeSet<EventId>,
    /// Lanes in which a batch is under way.
    running_lanes: BTreeSet<Lane>,
}

/// Where a batch is requeued out. An event's commands are in one lane at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// Waits for nobody for long.
    Main,
    /// Waits for what others have locked.
    Busy,
}

/// What is requeued out together, and the events whose commands were looked at for it.
struct Batch {
    lane: Lane,
    commands: Vec<QueuedCommand>,
    events: BTreeSet<EventId>,
}

/// What is left of a batch that was requeued out.
struct BatchResult {
    lane: Lane,
    events: BTreeSet<EventId>,
    requeued: Vec<QueuedCommand>,
    /// Events whose commands came to nothing because others have locked them.
    locked_events: BTreeSet<EventId>,
}

impl PendingQueue {
    /// Asks anew for the leases of all that waits: after a panic nobody knows which were counted.
    fn rebuild(&mut self) {
        self.leases.clear();
        self.running_lanes.clear();
        for queued in &self.waiting {
            let _ = self.leases.command_queued(queued.event());
        }
    }

    /// Whether a batch may take it now.
    fn push(&mut self, queued: QueuedCommand) -> bool {
        let event = queued.event();
        let lane = if self.locked_events.contains(&event) { Lane::Busy } else { Lane::Main };
        let ready = self.leases.command_queued(event);
        self.waiting.push_back(queued);
        ready && !self.running_lanes.contains(&lane)
    }

    /// Takes whoever's start_flag it is in a lane that is idle, in order; those whose event has to wait stay where they
    /// are.
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

    /// A batch is over; what is requeued over stands first again.
    fn batch_finished(&mut self, done: BatchResult) {
        let BatchResult { lane, events, requeued, locked_events } = done;
        self.running_lanes.remove(&lane);
        for queued in requeued.into_iter().rev() {
            let _ = self.leases.command_queued(queued.event());
            self.waiting.push_front(queued);
        }
        self.leases.batch_finished(&events);
        self.locked_events.retain(|event| !events.contains(event));
        self.locked_events.extend(locked_events);
    }

    /// Returns when there is more that a batch may take; false once nothing can come any more.
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

/// What carries out batches. What waits outlives a panic; the senders of the batch under way get `outcome_unknown`,
/// since the store may have committed it.
pub(crate) struct Worker {
    queue: mpsc::UnboundedReceiver<QueuedCommand>,
    pending: PendingQueue,
    store: Arc<dyn Store>,
    commit_listener: Arc<dyn CommitListener>,
    counters: Arc<Counters>,
}

impl Work for Worker {
    /// Ends with the last sender.
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
                    let refused = batch
                        .events
                        .iter()
                        .filter(|event| pending.leases.runs_without_lease(**event))
                        .count();
                    counters.count(batch.commands.len(), refused);
                    running.push(run(batch, &**store, &**commit_listener));
                }
            }
            // Leases of what comes meanwhile are asked for at once; without leases there is no hurry.
            let listens = open && (pending.leases.enabled() || !pending.running_lanes.contains(&Lane::Main));
            tokio::select! {
                biased;
                Some(done) = running.next() => {
                    pending.batch_finished(done);
                    open = true;
                }
                more = pending.wait_for_runnable(queue), if listens => open = more,
                else => return,
            }
        }
    }
}

impl Counters {
    fn count(&self, commands: usize, unleased: usize) {
        self.batches.fetch_add(u64::from(commands > 0), Ordering::Relaxed);
        self.commands.fetch_add(commands as u64, Ordering::Relaxed);
        self.batches_without_lease.fetch_add(unleased as u64, Ordering::Relaxed);
    }
}

/// Carries out one batch and answers it; returns what has to be requeued over.
async fn run(batch: Batch, store: &dyn Store, commit_listener: &dyn CommitListener) -> BatchResult {
    let Batch { lane, commands, events } = batch;
    if commands.is_empty() {
        // Nobody waited long enough to learn whether they are still locked.
        let busy = if lane == Lane::Busy { events.clone() } else { BTreeSet::new() };
        return BatchResult { lane, events, requeued: commands, locked_events: busy };
    }
    let mut done = BatchResult { lane, events, requeued: Vec::new(), locked_events: BTreeSet::new() };
    let submissions = commands.iter().map(|queued| queued.submission.clone()).collect();
    let replies = match lane {
        Lane::Main => store.try_execute(submissions).await,
        Lane::Busy => store.execute(submissions).await,
    };
    let mut replies = replies.into_iter();
    let now = Instant::now();
    let mut grown = BTreeSet::new();
    let mut reached = BTreeSet::new();
    for queued in commands {
        let event = queued.event();
        let reply =
            replies.next().unwrap_or_else(|| Reply::Failed(Fault::OutcomeUnknown(Cause::new("no answer"))));
        if !matches!(reply, Reply::Busy | Reply::Failed(Fault::Unavailable(_))) {
            reached.insert(event);
        } else if lane == Lane::Busy || matches!(reply, Reply::Busy) {
            done.locked_events.insert(event);
        }
        let answer = match reply {
            Reply::Requeue | Reply::Busy if now < queued.deadline => {
                done.requeued.push(queued);
                continue;
            }
            Reply::Requeue => Err(Error::Overloaded),
            Reply::Busy => Err(Fault::Unavailable(Cause::new("others keep its event locked")).into()),
            Reply::Failed(Fault::OutcomeUnknown(cause)) if removed(Guard::UnknownReported) => {
                Err(Fault::Unavailable(cause).into())
            }
            Reply::Failed(fault) => Err(fault.into()),
            Reply::KeyReused => Err(Error::KeyReused),
            Reply::Answered(Answer::Refused(refusal)) => Err(refusal.into()),
            Reply::Answered(answer) => Ok(CommandOutput::Fresh(answer)),
            Reply::Stored { answer, replayed } => Ok(CommandOutput::Stored { answer, replayed }),
        };
        if !matches!(answer, Err(Error::Refused(_))) {
            grown.insert(event);
        }
        // A sender that has gone away does not hear the answer; what was done stands.
        let _ = queued.result_sender.send(answer);
    }
    if lane == Lane::Busy {
        // One that was reached is free again, whatever became of the others.
        done.locked_events.retain(|event| !reached.contains(event));
    }
    if !grown.is_empty() {
        commit_listener.ledgers_advanced(&grown.into_iter().collect::<Vec<EventId>>());
    }
    done
}
