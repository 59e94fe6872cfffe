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
        !self.0.swap(true, Ordering::AcqRel) || removed(Guard::StartFlag)
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
        let leases = Leases::new(lease);
        let line =
            Line { waiting: VecDeque::new(), leases, busy: BTreeSet::new(), under_way: BTreeSet::new() };
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
    /// Events that others keep locked in the database, as far as is known.
    busy: BTreeSet<EventId>,
    /// Lanes in which a batch is under way.
    under_way: BTreeSet<Lane>,
}

/// Where a batch is carried out. An event's commands are in one lane at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// Waits for nobody for long.
    Main,
    /// Waits for what others have locked.
    Busy,
}

/// What is carried out together, and the events whose commands were looked at for it.
struct Batch {
    lane: Lane,
    commands: Vec<Queued>,
    events: BTreeSet<EventId>,
}

/// What is left of a batch that was carried out.
struct Done {
    lane: Lane,
    events: BTreeSet<EventId>,
    carried: Vec<Queued>,
    /// Events whose commands came to nothing because others have locked them.
    busy: BTreeSet<EventId>,
}

impl Line {
    /// Asks anew for the leases of all that waits: after a panic nobody knows which were counted.
    fn rebuild(&mut self) {
        self.leases.clear();
        self.under_way.clear();
        for queued in &self.waiting {
            let _ = self.leases.joined(queued.event());
        }
    }

    /// Whether a batch may take it now.
    fn push(&mut self, queued: Queued) -> bool {
        let event = queued.event();
        let lane = if self.busy.contains(&event) { Lane::Busy } else { Lane::Main };
        let ready = self.leases.joined(event);
        self.waiting.push_back(queued);
        ready && !self.under_way.contains(&lane)
    }

    /// Takes whoever's turn it is in a lane that is idle, in order; those whose event has to wait stay where they
    /// are.
    fn next_batch(&mut self, lane: Lane) -> Option<Batch> {
        if self.under_way.contains(&lane) || (lane == Lane::Busy && self.busy.is_empty()) {
            return None;
        }
        let mut batch = Batch { lane, commands: Vec::new(), events: BTreeSet::new() };
        let mut passed_over = Vec::new();
        while batch.commands.len() < BATCH_MAX
            && let Some(mut queued) = self.waiting.pop_front()
        {
            let event = queued.event();
            if self.busy.contains(&event) != (lane == Lane::Busy) || !self.leases.let_run(event) {
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
        if batch.events.is_empty() {
            return None;
        }
        self.under_way.insert(lane);
        Some(batch)
    }

    /// A batch is over; what is carried over stands first again.
    fn finished(&mut self, done: Done) {
        let Done { lane, events, carried, busy } = done;
        self.under_way.remove(&lane);
        for queued in carried.into_iter().rev() {
            let _ = self.leases.joined(queued.event());
            self.waiting.push_front(queued);
        }
        self.leases.finished(&events);
        self.busy.retain(|event| !events.contains(event));
        self.busy.extend(busy);
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
        let mut running = FuturesUnordered::new();
        let mut open = true;
        loop {
            while let Ok(queued) = queue.try_recv() {
                line.push(queued);
            }
            for lane in [Lane::Main, Lane::Busy] {
                if let Some(batch) = line.next_batch(lane) {
                    let refused = batch.events.iter().filter(|event| line.leases.is_refused(**event)).count();
                    counts.count(batch.commands.len(), refused);
                    running.push(run(batch, &**store, &**publish));
                }
            }
            // Leases of what comes meanwhile are asked for at once; without leases there is no hurry.
            let listens = open && (line.leases.are_needed() || !line.under_way.contains(&Lane::Main));
            tokio::select! {
                biased;
                Some(done) = running.next() => {
                    line.finished(done);
                    open = true;
                }
                more = line.news(queue), if listens => open = more,
                else => return,
            }
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
async fn run(batch: Batch, store: &dyn Store, publish: &dyn Publish) -> Done {
    let Batch { lane, commands, events } = batch;
    if commands.is_empty() {
        // Nobody waited long enough to learn whether they are still locked.
        let busy = if lane == Lane::Busy { events.clone() } else { BTreeSet::new() };
        return Done { lane, events, carried: commands, busy };
    }
    let mut done = Done { lane, events, carried: Vec::new(), busy: BTreeSet::new() };
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
            done.busy.insert(event);
        }
        let answer = match reply {
            Reply::Requeue | Reply::Busy if now < queued.deadline => {
                done.carried.push(queued);
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
            Reply::Answered(answer) => Ok(Given::Fresh(answer)),
            Reply::Stored { answer, replayed } => Ok(Given::Kept { answer, replayed }),
        };
        if !matches!(answer, Err(Error::Refused(_))) {
            grown.insert(event);
        }
        // A sender that has gone away does not hear the answer; what was done stands.
        let _ = queued.reply.send(answer);
    }
    if lane == Lane::Busy {
        // One that was reached is free again, whatever became of the others.
        done.busy.retain(|event| !reached.contains(event));
    }
    if !grown.is_empty() {
        publish.grown(&grown.into_iter().collect::<Vec<EventId>>());
    }
    done
}
