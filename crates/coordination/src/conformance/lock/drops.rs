//! Dropped callers leave no residue, whichever await they are dropped at: after any number of polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::sleep;

use super::{
    Calls, Harness, LONG_WAIT, POLLS_MAX, TICK, acquire, enqueue, is_free, key, next_result, poll_times,
};
use crate::{Lock, with_lock};

pub(super) async fn a_dropped_call_for_a_free_key_leaves_it_free(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    for polls in 0..POLLS_MAX {
        drop(poll_times(polls, lock.acquire(&key, LONG_WAIT)).await);
        drop(acquire(&*lock, &key).await);
        drop(poll_times(polls, lock.try_acquire(&key, LONG_WAIT)).await);
        drop(acquire(&*lock, &key).await);
    }
    assert_eq!(harness.residue().await, 0);
}

pub(super) async fn a_call_dropped_while_queued_leaves_the_queue(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    for polls in 0..POLLS_MAX {
        let owner = acquire(&*lock, &key).await;
        let mut calls = Calls::new();
        let (dropped, ()) = tokio::join!(poll_times(polls, lock.acquire(&key, LONG_WAIT)), async {
            sleep(TICK / 2).await;
            enqueue(&mut calls, &lock, &key, LONG_WAIT).await;
        });
        assert!(dropped.is_none(), "the key was not free");
        drop(owner);
        drop(next_result(&mut calls).await.expect("the next waiter is served"));
    }
    assert_eq!(harness.residue().await, 0);
}

pub(super) async fn an_unclaimed_grant_goes_to_the_next_waiter(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    for polls in 2..8u8 {
        let owner = acquire(&*lock, &key).await;
        let mut calls = Calls::new();
        let mut call = Box::pin(lock.acquire(&key, LONG_WAIT));
        assert!(poll_times(1, &mut call).await.is_none(), "the key is not free");
        enqueue(&mut calls, &lock, &key, LONG_WAIT).await;
        assert!(poll_times(usize::from(polls - 1), &mut call).await.is_none(), "the key is not free");
        // After the last poll of the call, so that the call does not observe its grant.
        drop(owner);
        sleep(TICK).await;
        drop(call);
        drop(next_result(&mut calls).await.expect("the next waiter is served"));
    }
    assert_eq!(harness.residue().await, 0);
}

pub(super) async fn dropping_all_waiters_leaves_no_residue(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    for release_first in [true, false] {
        let owner = acquire(&*lock, &key).await;
        let mut calls = Calls::new();
        for _ in 0..20 {
            enqueue(&mut calls, &lock, &key, LONG_WAIT).await;
        }
        // If released first, the first waiter is dropped with an unobserved grant.
        if release_first {
            drop(owner);
            drop(calls);
        } else {
            drop(calls);
            drop(owner);
        }
        sleep(TICK).await;
        drop(acquire(&*lock, &key).await);
        assert_eq!(harness.residue().await, 0);
    }
}

pub(super) async fn a_section_dropped_anywhere_frees_the_key(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    for waits_first in [false, true] {
        for polls in 0..POLLS_MAX {
            let mut owner = if waits_first { Some(acquire(&*lock, &key).await) } else { None };
            let section = with_lock(&*lock, &key, LONG_WAIT, async |_| {
                for _ in 0..3 {
                    sleep(TICK / 2).await;
                }
            });
            let release = async {
                sleep(TICK * 2).await;
                drop(owner.take());
            };
            let (finished, ()) = tokio::join!(poll_times(polls, section), release);
            assert!(
                polls < POLLS_MAX - 1 || finished.is_some_and(|done| done.is_ok()),
                "the last number of polls finishes it"
            );
            drop(acquire(&*lock, &key).await);
            sleep(TICK).await;
            assert!(is_free(&*lock, &key).await);
        }
    }
    assert_eq!(harness.residue().await, 0);
}

/// Owned by a section; clears its flag when the section is dropped.
struct RunningFlag(Arc<AtomicBool>);

impl Drop for RunningFlag {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

pub(super) async fn a_section_is_dropped_before_the_key_is_released(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let running = Arc::new(AtomicBool::new(false));
    for polls in 1..4 {
        let mut next = tokio::task::JoinSet::new();
        let section = with_lock(&*lock, &key, LONG_WAIT, async |_| {
            running.store(true, Ordering::SeqCst);
            let _running = RunningFlag(running.clone());
            let lock: Arc<dyn Lock> = lock.clone();
            let key = key.clone();
            let running = running.clone();
            next.spawn(async move {
                let _guard = acquire(&*lock, &key).await;
                assert!(!running.load(Ordering::SeqCst), "the previous section is not dropped yet");
            });
            std::future::pending::<()>().await;
        });
        assert!(poll_times(polls, section).await.is_none());
        next.join_all().await;
    }
    assert_eq!(harness.residue().await, 0);
}
