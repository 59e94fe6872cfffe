//! The desk: where waiting commands are gathered into one commit.
//!
//! One task takes everything that is queued, up to a bound, and has the store carry it out in one
//! transaction. While one batch commits the next gathers, so batches find their own size: one command when
//! it is quiet, hundreds in a sale, and no timer in between. The queue is first come, first served.
//!
//! The desk decides nothing and waits for nothing while a batch runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use domain::sabotage::{Guard, removed};
use domain::{Answer, EventId};
use store::{BATCH_MAX, Cause, Fault, Reply, Store, Submission};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::limit::{QUEUE_MAX, TURN_WAIT_MAX};
use crate::{Error, Given, Publish};

/// The way to the desk. Cheap to clone; the desk ends when the last one is gone and the queue is empty.
#[derive(Clone)]
pub(crate) struct Desk {
    queue: mpsc::Sender<Queued>,
    counts: Arc<Counts>,
}

/// What the desk has done so far.
#[derive(Default)]
struct Counts {
    batches: AtomicU64,
    commands: AtomicU64,
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
}

struct Queued {
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

impl Desk {
    /// A desk, and the work it does, to be run as a task.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        publish: Arc<dyn Publish>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let counts = Arc::new(Counts::default());
        (Self { queue: sender, counts: counts.clone() }, serve(receiver, store, publish, counts))
    }

    /// How the desk is getting on.
    pub(crate) fn pulse(&self) -> Pulse {
        Pulse {
            waiting: self.queue.max_capacity().saturating_sub(self.queue.capacity()),
            batches: self.counts.batches.load(Ordering::Relaxed),
            commands: self.counts.commands.load(Ordering::Relaxed),
        }
    }

    /// Queues a command and waits for its answer: at most [`TURN_WAIT_MAX`], and not after `gives_up`, for its
    /// turn, and then as long as its batch takes.
    pub(crate) async fn submit(
        &self,
        submission: Submission,
        gives_up: Option<Instant>,
    ) -> Result<Given, Error> {
        let (reply, mut answer) = oneshot::channel();
        let latest = Instant::now() + TURN_WAIT_MAX;
        let deadline = gives_up.map_or(latest, |instant| latest.min(instant));
        let turn = Arc::new(Turn::default());
        let queued = Queued { submission, deadline, turn: turn.clone(), reply };
        self.queue.try_send(queued).map_err(|_| Error::Overloaded)?;
        let answer = match tokio::time::timeout_at(deadline, &mut answer).await {
            Ok(answer) => answer,
            Err(_) if turn.claim() => return Err(Error::Overloaded),
            Err(_) => answer.await,
        };
        answer.unwrap_or_else(|_| Err(Fault::OutcomeUnknown(Cause::new("the desk closed")).into()))
    }
}

async fn serve(
    mut queue: mpsc::Receiver<Queued>,
    store: Arc<dyn Store>,
    publish: Arc<dyn Publish>,
    counts: Arc<Counts>,
) {
    let mut batch: Vec<Queued> = Vec::new();
    loop {
        // What was carried over stands first; the rest of the room goes to those who queued meanwhile.
        let carried = batch.len();
        if carried == 0 {
            if queue.recv_many(&mut batch, BATCH_MAX).await == 0 {
                return;
            }
        } else {
            while batch.len() < BATCH_MAX
                && let Ok(queued) = queue.try_recv()
            {
                batch.push(queued);
            }
        }
        let newcomers = batch.split_off(carried);
        batch.extend(newcomers.into_iter().filter(|queued| queued.turn.claim()));
        if !batch.is_empty() {
            counts.batches.fetch_add(1, Ordering::Relaxed);
            counts.commands.fetch_add(batch.len() as u64, Ordering::Relaxed);
            batch = run(batch, &*store, &*publish).await;
        }
    }
}

/// Carries out one batch and answers it; returns what has to be carried over.
async fn run(batch: Vec<Queued>, store: &dyn Store, publish: &dyn Publish) -> Vec<Queued> {
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
            grown.insert(queued.submission.command.event_id());
        }
        // A sender that has gone away does not hear the answer; what was done stands.
        let _ = queued.reply.send(answer);
    }
    if !grown.is_empty() {
        publish.grown(&grown.into_iter().collect::<Vec<EventId>>());
    }
    carried
}
