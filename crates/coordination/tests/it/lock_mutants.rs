//! Common incorrect locks. The suite must reject each of them.

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

use crate::failed_cases;

/// A harness for mutants: a lock whose state cannot be inspected.
struct UninspectedHarness<L>(Arc<L>);

#[async_trait]
impl<L: Lock + 'static> Harness for UninspectedHarness<L> {
    fn lock(&self) -> Arc<dyn Lock> {
        self.0.clone()
    }

    async fn residue(&self) -> usize {
        0
    }
}

/// The suite must reject the mutant by each of these cases, possibly among others.
fn assert_rejected<L: Lock + 'static>(lock: impl Fn() -> L, by: &[&str]) {
    let failed = failed_cases(CASES, || Box::new(UninspectedHarness(Arc::new(lock()))));
    for case in by {
        assert!(failed.contains(case), "{case} passed; failed cases: {failed:?}");
    }
}

/// Polls every few milliseconds, like most locks on a store without a queue. Its release is unconditional,
/// and its guards are never lost.
#[derive(Default)]
struct PollingLock {
    clock: ManualClock,
    taken: Arc<Mutex<HashSet<Key>>>,
}

struct PollingGuard(Arc<Mutex<HashSet<Key>>>, Key);

#[async_trait]
impl GuardBackend for PollingGuard {
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

impl Drop for PollingGuard {
    fn drop(&mut self) {
        self.0.lock().expect("no panic").remove(&self.1);
    }
}

#[async_trait]
impl Lock for PollingLock {
    async fn acquire(&self, key: &Key, options: LockOptions) -> Result<LockGuard, LockError> {
        let polling = async {
            loop {
                if let Some(guard) = self.try_acquire(key, options).await? {
                    return Ok(guard);
                }
                sleep(Duration::from_millis(7)).await;
            }
        };
        timeout(options.wait, polling).await.unwrap_or(Err(LockError::Timeout { position: 1 }))
    }

    async fn try_acquire_each(
        &self,
        keys: &[Key],
        _: LockOptions,
    ) -> Result<Vec<Option<LockGuard>>, LockError> {
        let take = |key: &Key| {
            let free = self.taken.lock().expect("no panic").insert(key.clone());
            let backend = PollingGuard(self.taken.clone(), key.clone());
            // The clock alone does not give increasing tokens.
            if free {
                Some(LockGuard::new(key.clone(), self.clock.unix_micros(), backend))
            } else {
                std::mem::forget(backend);
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
    assert_rejected(PollingLock::default, &by);
}

/// Acquires in a task that outlives a dropped caller, and does not release an unclaimed key.
struct DetachedLock {
    lock: Arc<LocalLock>,
    tasks: Mutex<JoinSet<()>>,
}

#[async_trait]
impl Lock for DetachedLock {
    async fn acquire(&self, key: &Key, options: LockOptions) -> Result<LockGuard, LockError> {
        let (sender, receiver) = oneshot::channel();
        let (lock, key) = (self.lock.clone(), key.clone());
        self.tasks.lock().expect("no panic").spawn(async move {
            let guard = lock.acquire(&key, options).await;
            drop(sender.send(ManuallyDrop::new(guard)));
        });
        ManuallyDrop::into_inner(receiver.await.expect("a result"))
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
    let detached = || DetachedLock {
        lock: Arc::new(LocalLock::new(Arc::new(ManualClock::new()))),
        tasks: Mutex::default(),
    };
    let by = [
        "a_cancelled_waiter_frees_its_position",
        "a_nested_section_of_one_key_would_deadlock",
        "a_call_dropped_while_queued_leaves_the_queue",
        "an_unclaimed_grant_goes_to_the_next_waiter",
        "a_section_dropped_anywhere_frees_the_key",
    ];
    assert_rejected(detached, &by);
}

/// A correct lock whose guards never expire.
struct UnexpiringLock(LocalLock);

#[async_trait]
impl Lock for UnexpiringLock {
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
    assert_rejected(|| UnexpiringLock(LocalLock::new(Arc::new(ManualClock::new()))), &by);
}
