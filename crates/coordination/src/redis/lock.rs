//! The FIFO lock on a Redis server: the side of the callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use super::error::RedisError;
use crate::limit::LOCK_DURATION_MAX;
use crate::lock::{GuardBackend, Lock, LockError, LockGuard, LockOptions, check_not_held};
use crate::{Key, Unavailable};

/// A command of a caller to the actor. The channel is unbounded so that a drop never waits; its length is
/// bounded by the number of callers.
pub(super) enum Command {
    /// Acquire these keys, in one round trip.
    Acquire(Vec<AcquireRequest>),
    /// The caller with this number was dropped, or its guard.
    Release(u64),
    /// Release everything and stop.
    Close,
}

/// One caller's request for one key.
pub(super) struct AcquireRequest {
    pub(super) number: u64,
    pub(super) key: Key,
    pub(super) caller: Caller,
    pub(super) max_lease: Duration,
    pub(super) queue_max: usize,
    /// Join the queue if the key is taken.
    pub(super) may_queue: bool,
}

/// A caller that waits for the result.
pub(super) struct Caller {
    pub(super) reply: oneshot::Sender<Result<LockGuard, LockError>>,
    pub(super) since: Instant,
    /// The time at which the wait times out.
    pub(super) deadline: Instant,
}

/// A [`Lock`] whose state is on a Redis server. All callers of a process share one actor (see
/// [`actor`](super::actor)), and only the actor sends lock commands.
pub(super) struct RedisLock {
    pub(super) connection: Arc<Connection>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) numbers: AtomicU64,
}

/// A request that was sent to the actor. Dropping it before the result cancels the request.
struct PendingAcquire<'a> {
    commands: &'a mpsc::UnboundedSender<Command>,
    number: u64,
    receiver: oneshot::Receiver<Result<LockGuard, LockError>>,
    is_done: bool,
}

impl PendingAcquire<'_> {
    async fn result(mut self) -> Result<LockGuard, LockError> {
        let result = (&mut self.receiver).await;
        self.is_done = true;
        result.unwrap_or_else(|_| Err(Unavailable::from(RedisError::Closed).into()))
    }
}

impl Drop for PendingAcquire<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            // A send error means that the actor has ended, and it releases everything before.
            let _ = self.commands.send(Command::Release(self.number));
        }
    }
}

impl RedisLock {
    /// Sends the requests for all keys in one command, so that they share a round trip.
    fn enqueue<'a>(&'a self, keys: &[Key], options: LockOptions, may_queue: bool) -> Vec<PendingAcquire<'a>> {
        let now = Instant::now();
        let deadline = now + options.wait.min(LOCK_DURATION_MAX);
        let request = |key: &Key| {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let (reply, receiver) = oneshot::channel();
            let request = AcquireRequest {
                number,
                key: key.clone(),
                caller: Caller { reply, since: now, deadline },
                max_lease: options.max_lease.min(LOCK_DURATION_MAX),
                queue_max: options.queue_max,
                may_queue,
            };
            (PendingAcquire { commands: &self.commands, number, receiver, is_done: false }, request)
        };
        let (pending, requests): (Vec<_>, Vec<_>) = keys.iter().map(request).unzip();
        let _ = self.commands.send(Command::Acquire(requests));
        pending
    }

    /// Fails at once while the breaker is open.
    fn check_connection(&self) -> Result<(), Unavailable> {
        if self.connection.is_up() {
            return Ok(());
        }
        self.connection.counters.locks_unavailable.add(1);
        Err(RedisError::Down.into())
    }
}

#[async_trait]
impl Lock for RedisLock {
    async fn acquire(&self, key: &Key, options: LockOptions) -> Result<LockGuard, LockError> {
        check_not_held(key)?;
        self.check_connection()?;
        let may_queue = !options.wait.is_zero();
        let pending = self.enqueue(std::slice::from_ref(key), options, may_queue).pop();
        pending.ok_or(RedisError::Closed).map_err(Unavailable::from)?.result().await
    }

    async fn try_acquire_each(
        &self,
        keys: &[Key],
        options: LockOptions,
    ) -> Result<Vec<Option<LockGuard>>, LockError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.check_connection()?;
        let mut guards = Vec::with_capacity(keys.len());
        let no_wait = LockOptions { wait: Duration::ZERO, queue_max: usize::MAX, ..options };
        for pending in self.enqueue(keys, no_wait, false) {
            match pending.result().await {
                Ok(guard) => guards.push(Some(guard)),
                Err(LockError::Unavailable(unavailable)) => return Err(unavailable.into()),
                Err(_) => guards.push(None),
            }
        }
        Ok(guards)
    }
}

/// The end of ownership, shared by the actor, which moves it, and a guard, which observes it.
pub(super) struct Lease {
    /// The time at which ownership ends, unless it is renewed before.
    ends: watch::Sender<Instant>,
    contended: AtomicBool,
}

impl Lease {
    pub(super) fn new(ends: Instant, contended: bool) -> Arc<Self> {
        Arc::new(Self { ends: watch::Sender::new(ends), contended: AtomicBool::new(contended) })
    }

    /// Moves the end to `ends`; false if the lease has already expired. The clock is read while the channel
    /// is locked, as in [`Lease::is_over`], so no observer sees an expired lease become valid again.
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
            let is_early = now < *end;
            *end = now.min(*end);
            is_early
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

/// The backend of a [`LockGuard`] of this lock.
pub(super) struct RedisGuard {
    pub(super) number: u64,
    pub(super) lease: Arc<Lease>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
}

#[async_trait]
impl GuardBackend for RedisGuard {
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
        // A lost key probably has another owner.
        self.lease.contended.load(Ordering::Relaxed) || self.lease.is_over()
    }
}

impl Drop for RedisGuard {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Release(self.number));
    }
}
