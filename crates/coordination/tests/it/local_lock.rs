//! The in-memory lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coordination::conformance::ManualClock;
use coordination::conformance::lock::{CASES, Harness};
use coordination::local::{Footprint, LocalLock};
use coordination::{Lock, LockOptions};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{failed_cases, key};

struct LocalHarness(Arc<LocalLock>);

impl LocalHarness {
    fn new() -> Self {
        Self(Arc::new(LocalLock::new(Arc::new(ManualClock::new()))))
    }
}

#[async_trait]
impl Harness for LocalHarness {
    fn lock(&self) -> Arc<dyn Lock> {
        self.0.clone()
    }

    async fn residue(&self) -> usize {
        let Footprint { keys, waiters } = self.0.footprint();
        keys + waiters
    }
}

#[test]
fn the_local_lock_conforms() {
    assert_eq!(failed_cases(CASES, || Box::new(LocalHarness::new())), Vec::<&str>::new());
}

#[tokio::test]
async fn tokens_follow_the_clock_and_never_go_back() {
    let clock = Arc::new(ManualClock::new());
    let lock = LocalLock::new(clock.clone());
    let mut tokens = Vec::new();
    for offset in [0, 0, 5, 1_000, 10, 0, 1_001] {
        clock.set(ManualClock::START + offset);
        tokens
            .push(lock.acquire(&key(0), LockOptions::default()).await.unwrap().token() - ManualClock::START);
    }
    assert_eq!(tokens, [0, 1, 5, 1_000, 1_001, 1_002, 1_003]);
    clock.set(ManualClock::START + 1_000_000);
    let token = lock.acquire(&key(0), LockOptions::default()).await.unwrap().token();
    assert_eq!(token, ManualClock::START + 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_key_held_for_long_does_not_accumulate_cancelled_waiters() {
    let harness = LocalHarness::new();
    let owner = harness.0.acquire(&key(0), LockOptions::default()).await.unwrap();
    let mut most = 0;
    for _ in 0..1_000 {
        let left =
            timeout(Duration::from_millis(1), harness.0.acquire(&key(0), LockOptions::default())).await;
        assert!(left.is_err());
        most = most.max(harness.0.footprint().waiters);
    }
    assert!(most < 16, "{most} entries");
    drop(owner);
    assert_eq!(harness.0.footprint(), Footprint::default());
}

#[tokio::test]
async fn maximum_durations_are_accepted() {
    let harness = LocalHarness::new();
    let longest = LockOptions { wait: Duration::MAX, max_lease: Duration::MAX, queue_max: usize::MAX };
    let owner = harness.0.acquire(&key(0), longest).await.unwrap();
    assert!(!owner.is_lost());
    let own_key = key(0);
    let mut waiter = JoinSet::new();
    let lock = harness.0.clone();
    waiter.spawn(async move { lock.acquire(&own_key, longest).await.is_ok() });
    tokio::task::yield_now().await;
    drop(owner);
    assert_eq!(waiter.join_all().await, [true]);
}

/// Real threads: grants race with timeouts and drops.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_threads_never_share_a_key_and_leave_no_residue() {
    let harness = LocalHarness::new();
    let (inside, last_token) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut threads = JoinSet::new();
    for number in 0..8u64 {
        let lock = harness.0.clone();
        let inside = inside.clone();
        let last_token = last_token.clone();
        threads.spawn(async move {
            let key = key(0);
            let mut served = 0;
            for round in 0..2_000u64 {
                let wait = Duration::from_millis((number + round) % 3);
                let options = LockOptions { wait, ..LockOptions::default() };
                let call = timeout(Duration::from_millis(round % 2), lock.acquire(&key, options));
                let Ok(Ok(guard)) = call.await else { continue };
                assert!(!inside.swap(true, Ordering::SeqCst), "two callers own one key");
                assert!(last_token.swap(guard.token(), Ordering::SeqCst) < guard.token());
                if round % 7 == 0 {
                    tokio::task::yield_now().await;
                }
                inside.store(false, Ordering::SeqCst);
                drop(guard);
                served += 1;
            }
            served
        });
    }
    assert!(threads.join_all().await.into_iter().all(|served: u64| served > 0));
    assert_eq!(harness.0.footprint(), Footprint::default());
}
