//! The FIFO lock in memory.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use crate::limit::CANCELLED_WAITERS_MAX;
use crate::lock::{GuardBackend, Lock, LockError, LockGuard, LockOptions, check_not_held};
use crate::{Clock, Key};

/// A [`Lock`] for one process. See [`local`](crate::local).
///
/// The lease is [`LockOptions::max_lease`] itself, by the monotonic clock: the owner and the lock are in one
/// process, so no shorter lease is needed. When it expires, the waiters take the key from its owner; there is
/// no background task. Every operation is O(1) amortised, for any number of keys and waiters.
pub struct LocalLock {
    table: Arc<Table>,
}

/// The number of keys and queue entries in a [`LocalLock`], for a gauge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    /// Owned keys.
    pub keys: usize,
    /// Entries in all queues, including cancelled ones that are not removed yet.
    pub waiters: usize,
}

struct Table {
    clock: Arc<dyn Clock>,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    by_key: HashMap<Key, Slot>,
    /// The last token of all keys. With a token per key, idle keys would have to be stored.
    last_token: u64,
}

/// An owned key. A key without an owner has no slot.
struct Slot {
    owner: Grant,
    queue: VecDeque<Waiter>,
    /// Entries of the queue whose caller still waits.
    live: usize,
}

/// A waiting caller. It is cancelled by closing the receiver, only while the table is locked.
struct Waiter {
    max_lease: Duration,
    granted: oneshot::Sender<Grant>,
}

/// Ownership, identified by its token. A plain value: dropping it releases nothing.
#[derive(Clone, Copy)]
struct Grant {
    token: u64,
    expires_at: Instant,
}

impl LocalLock {
    /// A lock without owned keys. The clock is read for tokens only.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { table: Arc::new(Table { clock, slots: Mutex::default() }) }
    }

    /// Counts keys and queue entries; O(keys).
    pub fn footprint(&self) -> Footprint {
        let slots = self.table.slots();
        let waiters = slots.by_key.values().map(|slot| slot.queue.len()).sum();
        Footprint { keys: slots.by_key.len(), waiters }
    }
}

#[async_trait]
impl Lock for LocalLock {
    async fn acquire(&self, key: &Key, options: LockOptions) -> Result<LockGuard, LockError> {
        check_not_held(key)?;
        let mut queued = match self.table.join(key, options)? {
            JoinResult::Owner(grant) => return Ok(self.table.guard(key, grant)),
            JoinResult::Queued(queued) => queued,
        };
        let mut wait = std::pin::pin!(sleep(options.wait));
        loop {
            let check_at = self.table.hand_over_if_expired(key);
            tokio::select! {
                biased;
                Ok(grant) = &mut queued.granted => return Ok(queued.own(grant)),
                () = &mut wait => return queued.time_out(),
                () = sleep_until(check_at) => {}
            }
        }
    }

    async fn try_acquire_each(
        &self,
        keys: &[Key],
        options: LockOptions,
    ) -> Result<Vec<Option<LockGuard>>, LockError> {
        let take = |key| Some(self.table.guard(key, self.table.take(key, options.max_lease)?));
        Ok(keys.iter().map(take).collect())
    }
}

enum JoinResult<'a> {
    Owner(Grant),
    Queued(QueuePosition<'a>),
}

/// A caller's position in a queue. Dropping it leaves the queue, and releases the key if it was already
/// granted.
struct QueuePosition<'a> {
    table: &'a Arc<Table>,
    key: &'a Key,
    position: usize,
    granted: oneshot::Receiver<Grant>,
    left: bool,
}

impl QueuePosition<'_> {
    fn own(mut self, grant: Grant) -> LockGuard {
        self.left = true;
        self.table.guard(self.key, grant)
    }

    /// Ends the wait: a timeout, unless the key was granted in the same moment.
    fn time_out(mut self) -> Result<LockGuard, LockError> {
        let position = self.position;
        match self.leave() {
            Some(grant) => Ok(self.own(grant)),
            None => Err(LockError::Timeout { position }),
        }
    }

    /// Leaves the queue. No grant can arrive afterwards; returns one that already has.
    fn leave(&mut self) -> Option<Grant> {
        let mut slots = self.table.slots();
        self.left = true;
        self.granted.close();
        let grant = self.granted.try_recv().ok();
        if grant.is_none()
            && let Some(slot) = slots.by_key.get_mut(self.key)
        {
            slot.cancel_one();
        }
        grant
    }
}

impl Drop for QueuePosition<'_> {
    fn drop(&mut self) {
        if !self.left
            && let Some(grant) = self.leave()
        {
            self.table.release(self.key, grant);
        }
    }
}

impl Table {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        // A poisoned table is consistent: every change below completes before anything that could panic.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guard(self: &Arc<Self>, key: &Key, grant: Grant) -> LockGuard {
        let backend = LocalGuard { table: Arc::clone(self), key: key.clone(), grant };
        LockGuard::new(key.clone(), grant.token, backend)
    }

    /// Takes the key if it has no owner and no waiters.
    fn take(&self, key: &Key, max_lease: Duration) -> Option<Grant> {
        self.slots().take(key, max_lease, self.clock.unix_micros())
    }

    /// Takes the key or joins its queue, atomically, so that no release in between is missed.
    fn join<'a>(
        self: &'a Arc<Self>,
        key: &'a Key,
        options: LockOptions,
    ) -> Result<JoinResult<'a>, LockError> {
        let mut slots = self.slots();
        if let Some(grant) = slots.take(key, options.max_lease, self.clock.unix_micros()) {
            return Ok(JoinResult::Owner(grant));
        }
        let slot = slots.by_key.get_mut(key).expect("a key that cannot be taken is in the table");
        let position = slot.live + 1;
        if position > options.queue_max {
            return Err(LockError::QueueFull { position });
        }
        let (sender, granted) = oneshot::channel();
        slot.queue.push_back(Waiter { max_lease: options.max_lease, granted: sender });
        slot.live = position;
        Ok(JoinResult::Queued(QueuePosition { table: self, key, position, granted, left: false }))
    }

    /// Hands the key over to the first waiter if the owner's lease has expired. Returns when to check again.
    /// Every waiter does this, because no particular waiter is certain to be polled; the cost is one wake-up
    /// of each waiter per expired lease.
    fn hand_over_if_expired(&self, key: &Key) -> Instant {
        let now = Instant::now();
        let mut slots = self.slots();
        let Slots { by_key, last_token } = &mut *slots;
        // Without a slot the caller's own grant has arrived and expired, and the caller is about to receive
        // it.
        let Some(slot) = by_key.get_mut(key) else { return now };
        if slot.owner.expires_at <= now {
            slot.hand_over(last_token, self.clock.unix_micros());
        }
        slot.owner.expires_at
    }

    /// Hands the key over to the first waiter; no effect if the grant is no longer the owner's.
    fn release(&self, key: &Key, grant: Grant) {
        let mut slots = self.slots();
        let Slots { by_key, last_token } = &mut *slots;
        if let Some(slot) = by_key.get_mut(key)
            && slot.owner.token == grant.token
            && !slot.hand_over(last_token, self.clock.unix_micros())
        {
            by_key.remove(key);
        }
    }
}

impl Slots {
    fn take(&mut self, key: &Key, max_lease: Duration, clock: u64) -> Option<Grant> {
        let Self { by_key, last_token } = self;
        match by_key.entry(key.clone()) {
            Entry::Vacant(entry) => {
                let owner = Grant::new(last_token, max_lease, clock);
                entry.insert(Slot { owner, queue: VecDeque::new(), live: 0 });
                Some(owner)
            }
            Entry::Occupied(mut entry) => {
                let slot = entry.get_mut();
                if slot.owner.expires_at > Instant::now() || slot.hand_over(last_token, clock) {
                    return None;
                }
                slot.owner = Grant::new(last_token, max_lease, clock);
                Some(slot.owner)
            }
        }
    }
}

impl Slot {
    /// Makes the first caller that still waits the owner; false if there is none.
    fn hand_over(&mut self, last_token: &mut u64, clock: u64) -> bool {
        while let Some(waiter) = self.queue.pop_front() {
            if waiter.granted.is_closed() {
                continue;
            }
            self.live -= 1;
            self.owner = Grant::new(last_token, waiter.max_lease, clock);
            // It cannot fail: the receiver is closed only while the table is locked.
            let _ = waiter.granted.send(self.owner);
            return true;
        }
        false
    }

    /// Counts a cancelled waiter. Its entry stays until it is popped or the queue is compacted, which happens
    /// once cancelled entries outnumber live ones, so that they do not accumulate while a key stays owned.
    fn cancel_one(&mut self) {
        self.live -= 1;
        if self.queue.len() > 2 * self.live + CANCELLED_WAITERS_MAX {
            self.queue.retain(|waiter| !waiter.granted.is_closed());
        }
    }
}

impl Grant {
    fn new(last_token: &mut u64, max_lease: Duration, clock: u64) -> Self {
        *last_token = clock.max(*last_token + 1);
        let now = Instant::now();
        // A lease whose end overflows is reduced to a day.
        let expires_at = now.checked_add(max_lease).unwrap_or(now + Duration::from_hours(24));
        Self { token: *last_token, expires_at }
    }
}

/// The backend of a [`LockGuard`] of this lock.
struct LocalGuard {
    table: Arc<Table>,
    key: Key,
    grant: Grant,
}

#[async_trait]
impl GuardBackend for LocalGuard {
    fn is_lost(&self) -> bool {
        self.grant.expires_at <= Instant::now()
    }

    async fn lost(&self) {
        sleep_until(self.grant.expires_at).await;
    }

    fn contended(&self) -> bool {
        match self.table.slots().by_key.get(&self.key) {
            Some(slot) => slot.owner.token != self.grant.token || slot.live > 0,
            None => false,
        }
    }
}

impl Drop for LocalGuard {
    fn drop(&mut self) {
        self.table.release(&self.key, self.grant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::ManualClock;

    /// A race of two threads that tests with threads hardly ever hit.
    #[tokio::test]
    async fn a_grant_at_the_moment_of_timeout_is_taken() {
        let lock = LocalLock::new(Arc::new(ManualClock::new()));
        let key = Key::new("test", "1").unwrap();
        let options = LockOptions::default();
        let owner = lock.acquire(&key, options).await.unwrap();
        let Ok(JoinResult::Queued(queued)) = lock.table.join(&key, options) else {
            panic!("the key was free")
        };
        drop(owner);
        drop(queued.time_out().unwrap());
        assert_eq!(lock.footprint(), Footprint::default());
    }

    /// A release between leaving the queue and the drop must skip the waiter.
    #[tokio::test]
    async fn an_abandoned_position_is_not_granted() {
        let lock = LocalLock::new(Arc::new(ManualClock::new()));
        let key = Key::new("test", "1").unwrap();
        let options = LockOptions::default();
        let owner = lock.acquire(&key, options).await.unwrap();
        let Ok(JoinResult::Queued(mut queued)) = lock.table.join(&key, options) else {
            panic!("the key was free")
        };
        assert!(queued.leave().is_none());
        drop(owner);
        assert_eq!(lock.footprint(), Footprint::default());
    }
}
