//! What a caller leaves behind that is dropped: at every await, which means after every number of polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::sleep;

use super::{Calls, Harness, PATIENT, POLLS_MAX, TICK, answer, is_free, key, owned, polled, queue_up};
use crate::{Lock, with_lock};

pub(super) async fn a_dropped_call_for_a_free_key_leaves_it_free(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    for polls in 0..POLLS_MAX {
        drop(polled(polls, lock.acquire(&key, PATIENT)).await);
        drop(owned(&*lock, &key).await);
        drop(polled(polls, lock.try_acquire(&key, PATIENT)).await);
        drop(owned(&*lock, &key).await);
    }
    assert_eq!(rig.residue().await, 0);
}

pub(super) async fn a_call_dropped_while_queued_leaves_the_queue(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    for polls in 0..POLLS_MAX {
        let (owner, mut calls) = (owned(&*lock, &key).await, Calls::new());
        let (dropped, ()) = tokio::join!(polled(polls, lock.acquire(&key, PATIENT)), async {
            sleep(TICK / 2).await;
            queue_up(&mut calls, &lock, &key, PATIENT).await;
        });
        assert!(dropped.is_none(), "the key was not free");
        drop(owner);
        drop(answer(&mut calls).await.expect("the one behind moves up"));
    }
    assert_eq!(rig.residue().await, 0);
}

pub(super) async fn an_unclaimed_grant_goes_to_the_next_waiter(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    for polls in 2..8u8 {
        let (owner, mut calls) = (owned(&*lock, &key).await, Calls::new());
        let mut call = Box::pin(lock.acquire(&key, PATIENT));
        assert!(polled(1, &mut call).await.is_none(), "the key is not free");
        queue_up(&mut calls, &lock, &key, PATIENT).await;
        assert!(polled(usize::from(polls - 1), &mut call).await.is_none(), "the key is not free");
        // After the last poll of the call, so that it is granted a key it never learns of.
        drop(owner);
        sleep(TICK).await;
        drop(call);
        drop(answer(&mut calls).await.expect("the one behind moves up"));
    }
    assert_eq!(rig.residue().await, 0);
}

pub(super) async fn dropping_all_waiters_leaves_no_residue(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    for release_first in [true, false] {
        let (owner, mut calls) = (owned(&*lock, &key).await, Calls::new());
        for _ in 0..20 {
            queue_up(&mut calls, &lock, &key, PATIENT).await;
        }
        // Released first, the first waiter is dropped with the grant in its hands.
        if release_first {
            drop(owner);
            drop(calls);
        } else {
            drop(calls);
            drop(owner);
        }
        sleep(TICK).await;
        drop(owned(&*lock, &key).await);
        assert_eq!(rig.residue().await, 0);
    }
}

pub(super) async fn a_section_dropped_anywhere_frees_the_key(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    for waits_first in [false, true] {
        for polls in 0..POLLS_MAX {
            let mut owner = if waits_first { Some(owned(&*lock, &key).await) } else { None };
            let section = with_lock(&*lock, &key, PATIENT, async |_| {
                for _ in 0..3 {
                    sleep(TICK / 2).await;
                }
            });
            let release = async {
                sleep(TICK * 2).await;
                drop(owner.take());
            };
            let (finished, ()) = tokio::join!(polled(polls, section), release);
            assert!(
                polls < POLLS_MAX - 1 || finished.is_some_and(|done| done.is_ok()),
                "some polls finish it"
            );
            drop(owned(&*lock, &key).await);
            sleep(TICK).await;
            assert!(is_free(&*lock, &key).await);
        }
    }
    assert_eq!(rig.residue().await, 0);
}

/// Something a section owns, which notices when the section is dropped.
struct Working(Arc<AtomicBool>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

pub(super) async fn a_section_is_dropped_before_the_key_is_released(rig: &dyn Harness) {
    let (lock, key, working) = (rig.lock(), key("a"), Arc::new(AtomicBool::new(false)));
    for polls in 1..4 {
        let mut next = tokio::task::JoinSet::new();
        let section = with_lock(&*lock, &key, PATIENT, async |_| {
            working.store(true, Ordering::SeqCst);
            let _working = Working(working.clone());
            let (lock, key, working): (Arc<dyn Lock>, _, _) = (lock.clone(), key.clone(), working.clone());
            next.spawn(async move {
                let _tenure = owned(&*lock, &key).await;
                assert!(!working.load(Ordering::SeqCst), "the section before is still there");
            });
            std::future::pending::<()>().await;
        });
        assert!(polled(polls, section).await.is_none());
        next.join_all().await;
    }
    assert_eq!(rig.residue().await, 0);
}
