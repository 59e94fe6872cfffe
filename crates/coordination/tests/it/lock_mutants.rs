//! Locks as they are often built. The suite must tell each from one that keeps its promises.

use std::collections::HashSet;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use coordination::conformance::ManualClock;
use coordination::conformance::lock::{CASES, Harness};
use coordination::local::LocalLock;
use coordination::{Clock, GuardBackend, Key, Lock, LockError, LockGuard, LockOptions};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::failures;

/// What the mutants have in common: a lock, and nothing to look behind it.
struct Blind<L>(Arc<L>);

#[async_trait]
impl<L: Lock + 'static> Harness for Blind<L> {
    fn lock(&self) -> Arc<dyn Lock> {
        self.0.clone()
    }

    async fn residue(&self) -> usize {
        0
    }
}

/// The suite must reject the mutant by each of these cases, if by others too.
fn assert_rejected<L: Lock + 'static>(lock: impl Fn() -> L, by: &[&str]) {
    let failures = failures(CASES, || Box::new(Blind(Arc::new(lock()))));
    for case in by {
        assert!(failures.contains(case), "{case} did not notice; those that did: {failures:?}");
    }
}

/// Asks again every few milliseconds, like most locks on a store without a queue; its release takes away
/// whatever is there, and it never loses anything.
#[derive(Default)]
struct Polling {
    clock: ManualClock,
    taken: Arc<Mutex<HashSet<Key>>>,
}

struct PollingHold(Arc<Mutex<HashSet<Key>>>, Key);

#[async_trait]
impl GuardBackend for PollingHold {
    fn is_lost(&self) -> bool {
        false
    }

    async fn lost(&self) {
        std::future::pending::<()>().await;
    }

    fn contended(&self) -> bool {
        false
    }
}

impl Drop for PollingHold {
    fn drop(&mut self) {
        self.0.lock().expect("no panic").remove(&self.1);
    }
}

#[async_trait]
impl Lock for Polling {
    async fn acquire(&self, key: &Key, options: LockOptions) -> Result<LockGuard, LockError> {
        let asking = async {
            loop {
                if let Some(tenure) = self.try_acquire(key, options).await? {
                    return Ok(tenure);
                }
                sleep(Duration::from_millis(7)).await;
            }
        };
        timeout(options.wait, asking).await.unwrap_or(Err(LockError::Timeout { position: 1 }))
    }

    async fn try_acquire_each(
        &self,
        keys: &[Key],
        _: LockOptions,
    ) -> Result<Vec<Option<LockGuard>>, LockError> {
        let take = |key: &Key| {
            let free = self.taken.lock().expect("no panic").insert(key.clone());
            let hold = PollingHold(self.taken.clone(), key.clone());
            // The clock alone is no token.
            if free {
                Some(LockGuard::new(key.clone(), self.clock.unix_micros(), hold))
            } else {
                std::mem::forget(hold);
                None
            }
        };
        Ok(keys.iter().map(take).collect())
    }
}

#[test]
fn a_lock_that_polls_is_rejected() {
    let by = [
        "waiters_are_served_in_order",
        "a_release_hands_over_to_the_first_waiter",
        "a_wait_times_out_on_time",
        "a_full_queue_refuses_at_once",
        "tokens_only_grow",
        "a_guard_is_contended_while_others_wait",
        "a_nested_section_of_one_key_would_deadlock",
    ];
    assert_rejected(Polling::default, &by);
}

/// Acquires in a task that outlives a dropped caller, and forgets to release what nobody came for.
struct Detached {
    lock: Arc<LocalLock>,
    tasks: Mutex<JoinSet<()>>,
}

#[async_trait]
impl Lock for Detached {
    async fn acquire(&self, key: &Key, options: LockOptions) -> Result<LockGuard, LockError> {
        let (answer, answered) = oneshot::channel();
        let (lock, key) = (self.lock.clone(), key.clone());
        self.tasks.lock().expect("no panic").spawn(async move {
            let tenure = lock.acquire(&key, options).await;
            drop(answer.send(ManuallyDrop::new(tenure)));
        });
        ManuallyDrop::into_inner(answered.await.expect("an answer"))
    }

    async fn try_acquire_each(
        &self,
        keys: &[Key],
        options: LockOptions,
    ) -> Result<Vec<Option<LockGuard>>, LockError> {
        self.lock.try_acquire_each(keys, options).await
    }
}

#[test]
fn a_lock_that_leaks_dropped_callers_is_rejected() {
    let detached =
        || Detached { lock: Arc::new(LocalLock::new(Arc::new(ManualClock::new()))), tasks: Mutex::default() };
    let by = [
        "a_cancelled_waiter_frees_its_position",
        "a_nested_section_of_one_key_would_deadlock",
        "a_call_dropped_while_queued_leaves_the_queue",
        "an_unclaimed_grant_goes_to_the_next_waiter",
        "a_section_dropped_anywhere_frees_the_key",
    ];
    assert_rejected(detached, &by);
}

/// A correct lock whose tenures end when their owners say so, and never before.
struct Endless(LocalLock);

#[async_trait]
impl Lock for Endless {
    async fn acquire(&self, key: &Key, options: LockOptions) -> Result<LockGuard, LockError> {
        self.0.acquire(key, LockOptions { max_lease: Duration::MAX, ..options }).await
    }

    async fn try_acquire_each(
        &self,
        keys: &[Key],
        options: LockOptions,
    ) -> Result<Vec<Option<LockGuard>>, LockError> {
        self.0.try_acquire_each(keys, LockOptions { max_lease: Duration::MAX, ..options }).await
    }
}

#[test]
fn a_lock_without_a_max_lease_is_rejected() {
    let by = ["max_lease_ends_ownership", "an_expired_owner_does_not_block_the_queue"];
    assert_rejected(|| Endless(LocalLock::new(Arc::new(ManualClock::new()))), &by);
}
