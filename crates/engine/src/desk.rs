//! The desk: where waiting commands are gathered into one commit.
//!
//! One task takes everything that is queued, up to a bound, and has the store carry it out in one
//! transaction. While one batch commits the next gathers, so batches find their own size: one command when
//! it is quiet, hundreds in a sale, and no timer in between. The queue is first come, first served; where desks of
//! several instances work on the same events, an event's commands come up once it has its lease ([`Leases`]), and
//! those of others do not wait for them.
//!
//! The desk decides nothing, and a batch that was begun waits for nothing but the store.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use coordination::Lock;
use domain::sabotage::{Guard, removed};
use domain::{Answer, EventId};
use store::{BATCH_MAX, Cause, Fault, Reply, Store, Submission};
use supervisor::Work;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::lease::Leases;
use crate::limit::{QUEUE_MAX, TURN_WAIT_MAX};
use crate::{Error, Given, Publish};

/// The way to the desk. Cheap to clone; the desk ends when the last one is gone and the queue is empty.
#[derive(Clone)]
pub(crate) struct Desk {
    /// Bounded by the places there are.
    queue: mpsc::UnboundedSender<Queued>,
    places: Arc<Semaphore>,
    counts: Arc<Counts>,
}

/// What the desk has done so far.
#[derive(Default)]
struct Counts {
    batches: AtomicU64,
    commands: AtomicU64,
    unleased: AtomicU64,
}

/// How the desk is getting on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Commands that wait for their turn.
    pub waiting: usize,
    /// Batches carried out since the start.
    pub batches: u64,
    /// Commands in those batches.
    pub commands: u64,
    /// How often an event's commands were in a batch without the event's lease, where leases are asked for.
    pub unleased: u64,
}

struct Queued {
    /// Given back when its turn has come; what is carried over to another batch has none any more.
    place: Option<OwnedSemaphorePermit>,
    submission: Submission,
    deadline: Instant,
    turn: Arc<Turn>,
    reply: oneshot::Sender<Result<Given, Error>>,
}

/// Settles whether a command is carried out or given up: whoever comes first, the desk that takes it or
/// the sender whose patience ends, has decided for both.
#[derive(Default)]
struct Turn(AtomicBool);

impl Turn {
    fn claim(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel) || removed(Guard::Turn)
    }
}

impl Queued {
    fn event(&self) -> EventId {
        self.submission.command.event_id()
    }

    /// Whether it is to be carried out: its sender has not given up before, nor can from now on.
    fn take_turn(&mut self) -> bool {
        self.place.take().is_none() || self.turn.claim()
    }
}

impl Desk {
    /// A desk, and its worker, to be run as a task.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        publish: Arc<dyn Publish>,
        lease: Option<Arc<dyn Lock>>,
    ) -> (Self, Worker) {
        let (sender, queue) = mpsc::unbounded_channel();
        let counts = Arc::new(Counts::default());
        let line = Line { waiting: VecDeque::new(), leases: Leases::new(lease) };
        let places = Arc::new(Semaphore::new(QUEUE_MAX));
        let desk = Self { queue: sender, places, counts: counts.clone() };
        (desk, Worker { queue, line, store, publish, counts })
    }

    /// How the desk is getting on.
    pub(crate) fn pulse(&self) -> Pulse {
        Pulse {
            waiting: QUEUE_MAX.saturating_sub(self.places.available_permits()),
            batches: self.counts.batches.load(Ordering::Relaxed),
            commands: self.counts.commands.load(Ordering::Relaxed),
            unleased: self.counts.unleased.load(Ordering::Relaxed),
        }
    }

    /// Queues a command and waits for its answer: at most [`TURN_WAIT_MAX`], and not after `gives_up`, for its
    /// turn, and then as long as its batch takes.
    pub(crate) async fn submit(
        &self,
        submission: Submission,
        gives_up: Option<Instant>,
    ) -> Result<Given, Error> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| Error::Overloaded)?;
        let (reply, mut answer) = oneshot::channel();
        let latest = Instant::now() + TURN_WAIT_MAX;
        let deadline = gives_up.map_or(latest, |instant| latest.min(instant));
        let turn = Arc::new(Turn::default());
        let queued = Queued { place: Some(place), submission, deadline, turn: turn.clone(), reply };
        self.queue.send(queued).map_err(|_| Error::Overloaded)?;
        let answer = match tokio::time::timeout_at(deadline, &mut answer).await {
            Ok(answer) => answer,
            Err(_) if turn.claim() => return Err(Error::Overloaded),
            Err(_) => answer.await,
        };
        answer.unwrap_or_else(|_| {
            Err(Fault::OutcomeUnknown(Cause::new("the desk closed, or was restarted")).into())
        })
    }
}

/// Commands that wait for their turn, in the order in which they came, and the leases of their events.
struct Line {
    waiting: VecDeque<Queued>,
    leases: Leases,
}

/// What is carried out together, and the events whose commands were looked at for it.
struct Batch {
    commands: Vec<Queued>,
    events: BTreeSet<EventId>,
}

impl Line {
    /// Asks anew for the leases of all that waits: after a panic nobody knows which were counted.
    fn rebuild(&mut self) {
        self.leases.clear();
        for queued in &self.waiting {
            let _ = self.leases.joined(queued.event());
        }
    }

    /// Whether the next batch may take it.
    fn push(&mut self, queued: Queued) -> bool {
        let ready = self.leases.joined(queued.event());
        self.waiting.push_back(queued);
        ready
    }

    /// Takes whoever's turn it is, in order; those whose event has to wait stay where they are.
    fn next_batch(&mut self) -> Batch {
        let mut batch = Batch { commands: Vec::new(), events: BTreeSet::new() };
        let mut passed_over = Vec::new();
        while batch.commands.len() < BATCH_MAX
            && let Some(mut queued) = self.waiting.pop_front()
        {
            let event = queued.event();
            if !self.leases.let_run(event) {
                passed_over.push(queued);
                continue;
            }
            self.leases.left(event);
            batch.events.insert(event);
            if queued.take_turn() {
                batch.commands.push(queued);
            }
        }
        passed_over.into_iter().rev().for_each(|queued| self.waiting.push_front(queued));
        batch
    }

    /// A batch is over; what is carried over stands first again.
    fn finished(&mut self, events: &BTreeSet<EventId>, carried: Vec<Queued>) {
        for queued in carried.into_iter().rev() {
            let _ = self.leases.joined(queued.event());
            self.waiting.push_front(queued);
        }
        self.leases.finished(events);
    }

    /// Returns when there is more that a batch may take; false once nothing can come any more.
    async fn news(&mut self, queue: &mut mpsc::UnboundedReceiver<Queued>) -> bool {
        loop {
            tokio::select! {
                biased;
                Some(()) = self.leases.settled() => return true,
                Some(queued) = queue.recv() => if self.push(queued) { return true },
                else => return false,
            }
        }
    }
}

/// What carries out batches. What waits outlives a panic; the senders of the batch under way get `outcome_unknown`,
/// since the store may have committed it.
pub(crate) struct Worker {
    queue: mpsc::UnboundedReceiver<Queued>,
    line: Line,
    store: Arc<dyn Store>,
    publish: Arc<dyn Publish>,
    counts: Arc<Counts>,
}

impl Work for Worker {
    /// Ends with the last sender.
    async fn run(&mut self) {
        let Self { queue, line, store, publish, counts } = self;
        line.rebuild();
        loop {
            while let Ok(queued) = queue.try_recv() {
                line.push(queued);
            }
            let Batch { commands, events } = line.next_batch();
            if events.is_empty() {
                if !line.news(queue).await {
                    return;
                }
                continue;
            }
            let refused = events.iter().filter(|event| line.leases.is_refused(**event)).count();
            counts.count(commands.len(), refused);
            let mut running = std::pin::pin!(run(commands, &**store, &**publish));
            // Leases of what comes meanwhile are asked for at once; without leases there is no hurry.
            let mut open = line.leases.are_needed();
            let carried = loop {
                tokio::select! {
                    biased;
                    carried = &mut running => break carried,
                    more = line.news(queue), if open => open = more,
                }
            };
            line.finished(&events, carried);
        }
    }
}

impl Counts {
    fn count(&self, commands: usize, unleased: usize) {
        self.batches.fetch_add(u64::from(commands > 0), Ordering::Relaxed);
        self.commands.fetch_add(commands as u64, Ordering::Relaxed);
        self.unleased.fetch_add(unleased as u64, Ordering::Relaxed);
    }
}

/// Carries out one batch and answers it; returns what has to be carried over.
async fn run(batch: Vec<Queued>, store: &dyn Store, publish: &dyn Publish) -> Vec<Queued> {
    if batch.is_empty() {
        return batch;
    }
    let submissions = batch.iter().map(|queued| queued.submission.clone()).collect();
    let mut replies = store.execute(submissions).await.into_iter();
    let now = Instant::now();
    let mut carried = Vec::new();
    let mut grown = BTreeSet::new();
    for queued in batch {
        let reply =
            replies.next().unwrap_or_else(|| Reply::Failed(Fault::OutcomeUnknown(Cause::new("no answer"))));
        let answer = match reply {
            Reply::Carried if now < queued.deadline => {
                carried.push(queued);
                continue;
            }
            Reply::Carried => Err(Error::Overloaded),
            Reply::Failed(Fault::OutcomeUnknown(cause)) if removed(Guard::UnknownTold) => {
                Err(Fault::Unavailable(cause).into())
            }
            Reply::Failed(fault) => Err(fault.into()),
            Reply::KeyReused => Err(Error::KeyReused),
            Reply::Answered(Answer::Refused(refusal)) => Err(refusal.into()),
            Reply::Answered(answer) => Ok(Given::Fresh(answer)),
            Reply::Kept { answer, replayed } => Ok(Given::Kept { answer, replayed }),
        };
        if !matches!(answer, Err(Error::Refused(_))) {
            grown.insert(queued.event());
        }
        // A sender that has gone away does not hear the answer; what was done stands.
        let _ = queued.reply.send(answer);
    }
    if !grown.is_empty() {
        publish.grown(&grown.into_iter().collect::<Vec<EventId>>());
    }
    carried
}
