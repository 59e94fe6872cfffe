//! The FIFO lock on a server, as its callers see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::connection::Link;
use super::error::Trouble;
use crate::lock::{GuardBackend, Lock, LockError, LockGuard, LockOptions, check_not_held};
use crate::{Key, Unavailable};

/// A wait or a hold longer than this is none that anybody sees the end of.
const LONGEST: Duration = Duration::from_hours(24);

/// What callers tell the actor. The channel is unbounded so that dropping something never waits; its length is
/// bounded by the callers there are.
pub(super) enum Command {
    /// Somebody wants keys: all of them are asked for in one round trip.
    Acquire(Vec<Request>),
    /// The caller with this number is gone, or its tenure over.
    Leave(u64),
    /// Give everything back and stop.
    Close,
}

/// One caller's wish for one key.
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) key: Key,
    pub(super) caller: Caller,
    pub(super) max_hold: Duration,
    pub(super) queue_max: usize,
    /// Stand in the queue if the key is taken.
    pub(super) queues: bool,
}

/// Somebody who waits for an answer.
pub(super) struct Caller {
    pub(super) answer: oneshot::Sender<Result<LockGuard, LockError>>,
    pub(super) since: Instant,
    /// When the wait is over.
    pub(super) until: Instant,
}

/// A [`Lock`] whose state lies on a Redis server. Callers of one process share an actor (see
/// [`actor`](super::actor)), which alone speaks to the server.
pub(super) struct RedisLock {
    pub(super) link: Arc<Link>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) numbers: AtomicU64,
}

/// A wish that was sent to the actor. Dropped before it is answered, it is withdrawn.
struct Wish<'a> {
    commands: &'a mpsc::UnboundedSender<Command>,
    number: u64,
    answered: oneshot::Receiver<Result<LockGuard, LockError>>,
    over: bool,
}

impl Wish<'_> {
    async fn answer(mut self) -> Result<LockGuard, LockError> {
        let answer = (&mut self.answered).await;
        self.over = true;
        answer.unwrap_or_else(|_| Err(Unavailable::from(Trouble::Closed).into()))
    }
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        if !self.over {
            // An actor that is gone has given everything back.
            let _ = self.commands.send(Command::Leave(self.number));
        }
    }
}

impl RedisLock {
    /// Sends wishes for keys in one command, so that they travel together.
    fn wish<'a>(&'a self, keys: &[Key], options: LockOptions, queues: bool) -> Vec<Wish<'a>> {
        let now = Instant::now();
        let until = now + options.wait.min(LONGEST);
        let wish = |key: &Key| {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let (answer, answered) = oneshot::channel();
            let request = Request {
                number,
                key: key.clone(),
                caller: Caller { answer, since: now, until },
                max_hold: options.max_lease.min(LONGEST),
                queue_max: options.queue_max,
                queues,
            };
            (Wish { commands: &self.commands, number, answered, over: false }, request)
        };
        let (wishes, requests): (Vec<_>, Vec<_>) = keys.iter().map(wish).unzip();
        let _ = self.commands.send(Command::Acquire(requests));
        wishes
    }

    /// Says at once that there is nobody to ask.
    fn check_up(&self) -> Result<(), Unavailable> {
        if self.link.is_up() {
            return Ok(());
        }
        self.link.counters.locks_unavailable.add(1);
        Err(Trouble::Down.into())
    }
}

#[async_trait]
impl Lock for RedisLock {
    async fn acquire(&self, key: &Key, options: LockOptions) -> Result<LockGuard, LockError> {
        check_not_held(key)?;
        self.check_up()?;
        let queues = !options.wait.is_zero();
        let wish = self.wish(std::slice::from_ref(key), options, queues).pop();
        wish.ok_or(Trouble::Closed).map_err(Unavailable::from)?.answer().await
    }

    async fn try_acquire_each(
        &self,
        keys: &[Key],
        options: LockOptions,
    ) -> Result<Vec<Option<LockGuard>>, LockError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.check_up()?;
        let mut tenures = Vec::with_capacity(keys.len());
        let asking = LockOptions { wait: Duration::ZERO, queue_max: usize::MAX, ..options };
        for wish in self.wish(keys, asking, false) {
            match wish.answer().await {
                Ok(tenure) => tenures.push(Some(tenure)),
                Err(LockError::Unavailable(unavailable)) => return Err(unavailable.into()),
                Err(_) => tenures.push(None),
            }
        }
        Ok(tenures)
    }
}

/// What the actor and a tenure know of it together.
pub(super) struct Lease {
    /// When it ends, if nothing is heard before.
    ends: watch::Sender<Instant>,
    contended: AtomicBool,
}

impl Lease {
    pub(super) fn new(ends: Instant, contended: bool) -> Arc<Self> {
        Arc::new(Self { ends: watch::Sender::new(ends), contended: AtomicBool::new(contended) })
    }

    /// Puts the end off; false if it has come already. The time is read under the lock of the end, as it is
    /// where the end is looked at, so nobody sees it come and go.
    pub(super) fn renew(&self, ends: Instant) -> bool {
        let mut renewed = false;
        self.ends.send_if_modified(|end| {
            renewed = Instant::now() < *end;
            if renewed {
                *end = ends;
            }
            renewed
        });
        renewed
    }

    /// Ends it now.
    pub(super) fn end(&self) {
        self.ends.send_if_modified(|end| {
            let now = Instant::now();
            let early = now < *end;
            *end = now.min(*end);
            early
        });
    }

    pub(super) fn ends(&self) -> Instant {
        *self.ends.borrow()
    }

    pub(super) fn set_contended(&self, contended: bool) {
        self.contended.store(contended, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        let end = self.ends.borrow();
        *end <= Instant::now()
    }
}

/// What a [`Tenure`] of this lock is made of.
pub(super) struct RedisHold {
    pub(super) number: u64,
    pub(super) lease: Arc<Lease>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
}

#[async_trait]
impl GuardBackend for RedisHold {
    fn is_lost(&self) -> bool {
        self.lease.is_over()
    }

    async fn lost(&self) {
        let mut ends = self.lease.ends.subscribe();
        while !self.lease.is_over() {
            let end = *ends.borrow_and_update();
            tokio::select! {
                () = sleep_until(end) => {}
                _ = ends.changed() => {}
            }
        }
    }

    fn contended(&self) -> bool {
        // Whoever has lost the key has probably lost it to somebody.
        self.lease.contended.load(Ordering::Relaxed) || self.lease.is_over()
    }
}

impl Drop for RedisHold {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Leave(self.number));
    }
}
