//! The FIFO lock in memory.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use crate::lock::{GuardBackend, Lock, LockError, LockGuard, LockOptions, check_not_held};
use crate::{Clock, Key};

/// Cancelled queue entries tolerated before a queue is cleaned, so that short queues are never copied for
/// one.
const CANCELLED_MIN: usize = 8;

/// A [`Lock`] for one process. See [`local`](crate::local).
///
/// The lease is [`LockOptions::max_hold`] itself, by the monotonic clock: a process cannot lose sight of its
/// own memory. When it runs out, the callers in the queue take the key from its owner; there is no task in
/// the background. Every operation is O(1) amortised, whatever the number of keys and waiters.
pub struct LocalLock {
    table: Arc<Table>,
}

/// What a [`LocalLock`] remembers at one moment: the size for a gauge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    /// Keys that are owned.
    pub keys: usize,
    /// Entries in all queues, among them some that were cancelled and not cleaned away yet.
    pub waiters: usize,
}

struct Table {
    clock: Arc<dyn Clock>,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    by_key: HashMap<Key, Slot>,
    /// The last token of any key: one number for all, so that an idle key need not be remembered for its own.
    last_token: u64,
}

/// A key that is owned; others are not in the table.
struct Slot {
    owner: Grant,
    queue: VecDeque<Waiter>,
    /// Entries of the queue whose caller is still waiting.
    live: usize,
}

/// A waiting caller. It is cancelled by closing the other end, and only with the table locked.
struct Waiter {
    max_hold: Duration,
    granted: oneshot::Sender<Grant>,
}

/// Ownership, told apart by its token. A plain value: dropping it releases nothing.
#[derive(Clone, Copy)]
struct Grant {
    token: u64,
    expires_at: Instant,
}

impl LocalLock {
    /// A lock of which nothing is owned. The clock is read for tokens only.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { table: Arc::new(Table { clock, slots: Mutex::default() }) }
    }

    /// What is remembered now; walks all keys.
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
        let mut place = match self.table.join(key, options)? {
            Joined::Owner(grant) => return Ok(self.table.tenure(key, grant)),
            Joined::Queue(place) => place,
        };
        let mut wait = std::pin::pin!(sleep(options.wait));
        loop {
            let look_again_at = self.table.pass_on_if_expired(key);
            tokio::select! {
                biased;
                Ok(grant) = &mut place.granted => return Ok(place.own(grant)),
                () = &mut wait => return place.give_up(),
                () = sleep_until(look_again_at) => {}
            }
        }
    }

    async fn try_acquire_each(
        &self,
        keys: &[Key],
        options: LockOptions,
    ) -> Result<Vec<Option<LockGuard>>, LockError> {
        let take = |key| Some(self.table.tenure(key, self.table.take(key, options.max_lease)?));
        Ok(keys.iter().map(take).collect())
    }
}

enum Joined<'a> {
    Owner(Grant),
    Queue(Place<'a>),
}

/// A caller's place in a queue. Dropping it leaves the queue, and hands on the key if it came meanwhile.
struct Place<'a> {
    table: &'a Arc<Table>,
    key: &'a Key,
    position: usize,
    granted: oneshot::Receiver<Grant>,
    left: bool,
}

impl Place<'_> {
    fn own(mut self, grant: Grant) -> LockGuard {
        self.left = true;
        self.table.tenure(self.key, grant)
    }

    /// The wait is over, unless the key came in the same moment.
    fn give_up(mut self) -> Result<LockGuard, LockError> {
        let position = self.position;
        match self.leave() {
            Some(grant) => Ok(self.own(grant)),
            None => Err(LockError::Timeout { position }),
        }
    }

    /// From here on no grant can come; answers the one that has.
    fn leave(&mut self) -> Option<Grant> {
        let mut slots = self.table.slots();
        self.left = true;
        self.granted.close();
        let grant = self.granted.try_recv().ok();
        if grant.is_none()
            && let Some(slot) = slots.by_key.get_mut(self.key)
        {
            slot.forget_one();
        }
        grant
    }
}

impl Drop for Place<'_> {
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
        // Every change below is complete before anything that could panic.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tenure(self: &Arc<Self>, key: &Key, grant: Grant) -> LockGuard {
        let hold = LocalHold { table: Arc::clone(self), key: key.clone(), grant };
        LockGuard::new(key.clone(), grant.token, hold)
    }

    /// Owns the key if nobody does and nobody waits.
    fn take(&self, key: &Key, max_hold: Duration) -> Option<Grant> {
        self.slots().take(key, max_hold, self.clock.unix_micros())
    }

    /// Owns the key or stands in its queue, in one step, so that no release in between can be missed.
    fn join<'a>(self: &'a Arc<Self>, key: &'a Key, options: LockOptions) -> Result<Joined<'a>, LockError> {
        let mut slots = self.slots();
        if let Some(grant) = slots.take(key, options.max_lease, self.clock.unix_micros()) {
            return Ok(Joined::Owner(grant));
        }
        let slot = slots.by_key.get_mut(key).expect("a key that cannot be taken is in the table");
        let position = slot.live + 1;
        if position > options.queue_max {
            return Err(LockError::QueueFull { position });
        }
        let (sender, granted) = oneshot::channel();
        slot.queue.push_back(Waiter { max_hold: options.max_lease, granted: sender });
        slot.live = position;
        Ok(Joined::Queue(Place { table: self, key, position, granted, left: false }))
    }

    /// Takes the key from an owner whose time is over, for the first in the queue, and says when to look
    /// again. Every waiter does this, since no one of them is sure to be polled: one wake-up each per owner
    /// that overstays.
    fn pass_on_if_expired(&self, key: &Key) -> Instant {
        let now = Instant::now();
        let mut slots = self.slots();
        let Slots { by_key, last_token } = &mut *slots;
        // Without a slot the caller's own grant has come and gone, and it is about to see so.
        let Some(slot) = by_key.get_mut(key) else { return now };
        if slot.owner.expires_at <= now {
            slot.hand_over(last_token, self.clock.unix_micros());
        }
        slot.owner.expires_at
    }

    /// Hands the key to the first in the queue; without effect if the grant is not the owner's any more.
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
    fn take(&mut self, key: &Key, max_hold: Duration, clock: u64) -> Option<Grant> {
        let Self { by_key, last_token } = self;
        match by_key.entry(key.clone()) {
            Entry::Vacant(entry) => {
                let owner = Grant::new(last_token, max_hold, clock);
                entry.insert(Slot { owner, queue: VecDeque::new(), live: 0 });
                Some(owner)
            }
            Entry::Occupied(mut entry) => {
                let slot = entry.get_mut();
                if slot.owner.expires_at > Instant::now() || slot.hand_over(last_token, clock) {
                    return None;
                }
                slot.owner = Grant::new(last_token, max_hold, clock);
                Some(slot.owner)
            }
        }
    }
}

impl Slot {
    /// Makes the first caller still waiting the owner; false if there is none.
    fn hand_over(&mut self, last_token: &mut u64, clock: u64) -> bool {
        while let Some(waiter) = self.queue.pop_front() {
            if waiter.granted.is_closed() {
                continue;
            }
            self.live -= 1;
            self.owner = Grant::new(last_token, waiter.max_hold, clock);
            // It cannot fail: the other end is closed only with the table locked.
            let _ = waiter.granted.send(self.owner);
            return true;
        }
        false
    }

    /// Counts out a cancelled waiter. Its entry stays until it is popped or until the cancelled outnumber the
    /// waiting, so that a key held for long cannot collect them.
    fn forget_one(&mut self) {
        self.live -= 1;
        if self.queue.len() > 2 * self.live + CANCELLED_MIN {
            self.queue.retain(|waiter| !waiter.granted.is_closed());
        }
    }
}

impl Grant {
    fn new(last_token: &mut u64, max_hold: Duration, clock: u64) -> Self {
        *last_token = clock.max(*last_token + 1);
        let now = Instant::now();
        // A hold too long to add up is bounded by a day, which nobody will see the end of.
        let expires_at = now.checked_add(max_hold).unwrap_or(now + Duration::from_hours(24));
        Self { token: *last_token, expires_at }
    }
}

/// What a [`Tenure`] of this lock is made of.
struct LocalHold {
    table: Arc<Table>,
    key: Key,
    grant: Grant,
}

#[async_trait]
impl GuardBackend for LocalHold {
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

impl Drop for LocalHold {
    fn drop(&mut self) {
        self.table.release(&self.key, self.grant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::ManualClock;

    /// Only two threads can meet like this, and they hardly ever do.
    #[tokio::test]
    async fn a_grant_at_the_moment_of_timeout_is_taken() {
        let (lock, key) = (LocalLock::new(Arc::new(ManualClock::new())), Key::new("test", "1").unwrap());
        let options = LockOptions::default();
        let owner = lock.acquire(&key, options).await.unwrap();
        let Ok(Joined::Queue(place)) = lock.table.join(&key, options) else { panic!("the key is taken") };
        drop(owner);
        drop(place.give_up().unwrap());
        assert_eq!(lock.footprint(), Footprint::default());
    }

    /// Between leaving and being gone, a release must pass it by.
    #[tokio::test]
    async fn an_abandoned_position_is_not_granted() {
        let (lock, key) = (LocalLock::new(Arc::new(ManualClock::new())), Key::new("test", "1").unwrap());
        let options = LockOptions::default();
        let owner = lock.acquire(&key, options).await.unwrap();
        let Ok(Joined::Queue(mut place)) = lock.table.join(&key, options) else { panic!("the key is taken") };
        assert!(place.leave().is_none());
        drop(owner);
        assert_eq!(lock.footprint(), Footprint::default());
    }
}
