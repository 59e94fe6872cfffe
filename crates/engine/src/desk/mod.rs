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
//!   starts; without a permit it is refused immediately. There is one FIFO per event, and a batch takes the
//!   commands of the events that can run in the order of their arrival ([`queue`]). Commands whose
//!   event has to wait keep their positions and cost nothing until then.
//! - **Deadline.** A sender waits for the start of its command until the deadline of its caller, at most
//!   [`QUEUE_WAIT_MAX`]. The desk and the sender race for [`StartFlag`]: the one that sets it first
//!   determines whether the command runs. Thus a command whose sender has timed out never runs, and a sender
//!   whose command has started waits for the result, however long the batch takes.
//! - **Lease.** If several instances share the database, a command is not taken before the lease of its event
//!   is granted or refused ([`Leases`]). Commands of other events do not wait for it. The desk requests
//!   leases as soon as commands arrive, also while a batch runs.
//! - **Result.** The store returns one reply per command, in their order, and the desk sends each sender its
//!   result. A sender that has been dropped is ignored; its change remains. After the batch, the
//!   [`CommitListener`] is notified of the events with a result other than a refusal, and of those with a
//!   refusal that recorded a refund. Another refusal may have freed holds as well; the periodic scan of the
//!   relay finds those entries.
//! - **Requeue.** The store leaves a command undecided if it needs more overdue holds than one batch frees
//!   ([`store::Reply::Requeue`]) or if another session has locked its event ([`store::Reply::Busy`]). Until
//!   its deadline the command returns to the front of its event's queue, in its former position. Its start
//!   flag stays set, so its sender cannot time out any more, and it holds no permit.
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

mod batch;
mod command;
mod pending;
mod queue;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coordination::Lock;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use store::{BATCH_MAX, Cause, Fault, Store, Submission};
use supervisor::Work;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use self::batch::{Lane, execute_batch};
use self::command::{QueuedCommand, StartFlag};
use self::pending::PendingQueue;
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

impl Desk {
    /// Creates a desk, and the worker that must run as a task.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        commit_listener: Arc<dyn CommitListener>,
        lease: Option<Arc<dyn Lock>>,
    ) -> (Self, Worker) {
        let (sender, queue) = mpsc::unbounded_channel();
        let counters = Arc::new(Counters::default());
        let pending = PendingQueue::new(Leases::new(lease));
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
            position: 0,
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
                if let Some(batch) = pending.next_batch(lane, BATCH_MAX) {
                    counters.record(batch.commands.len(), pending.events_without_lease(&batch));
                    running.push(execute_batch(batch, &**store, &**commit_listener));
                }
            }
            // With leases, commands are received during a batch so that their leases are requested
            // immediately; without leases it is sufficient to receive them after it.
            let listens = open && (pending.uses_leases() || !pending.is_running(Lane::Main));
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
