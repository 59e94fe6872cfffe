//! Sections under a lock.

use std::cell::Cell;
use std::future::pending;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Calls, Harness, LONG_WAIT, TICK, enqueue, is_free, key, next_result, with_max_lease};
use crate::{LockError, with_lock};

pub(super) async fn sections_return_their_result_and_release(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let token = with_lock(&*lock, &key, LONG_WAIT, async |guard| guard.token()).await.expect("a free key");
    let (own_lock, own_key) = (lock.clone(), key.clone());
    // A section can run in its own task.
    let mut task = JoinSet::new();
    task.spawn(async move {
        with_lock(&*own_lock, &own_key, LONG_WAIT, async |guard| {
            sleep(TICK).await;
            assert!(!guard.is_lost());
            guard.token()
        })
        .await
    });
    sleep(TICK / 2).await;
    assert!(!is_free(&*lock, &key).await, "inside");
    assert!(task.join_all().await.into_iter().all(|later| later.is_ok_and(|later| later > token)));
    assert_eq!(harness.residue().await, 0);
}

pub(super) async fn a_nested_section_of_one_key_would_deadlock(harness: &dyn Harness) {
    let lock = &*harness.lock();
    let outer = key("outer");
    let inner = key("inner");
    let began = Instant::now();
    let section = with_lock(lock, &outer, LONG_WAIT, async |_| {
        with_lock(lock, &inner, LONG_WAIT, async |_| {
            for key in [&outer, &inner] {
                let nested = with_lock(lock, key, LONG_WAIT, async |_| ()).await;
                assert!(matches!(nested, Err(LockError::WouldDeadlock)), "{nested:?}");
                let plain = lock.acquire(key, LONG_WAIT).await;
                assert!(matches!(plain, Err(LockError::WouldDeadlock)), "{plain:?}");
                assert!(!is_free(lock, key).await, "try_acquire never waits, so it is not an error");
            }
        })
        .await
        .expect("another key");
        assert!(with_lock(lock, &inner, LONG_WAIT, async |_| ()).await.is_ok(), "the inner section is over");
    });
    section.await.expect("a free key");
    assert!(with_lock(lock, &outer, LONG_WAIT, async |_| ()).await.is_ok(), "the outer section is over");
    assert!(began.elapsed() < TICK * 5 + harness.slack(), "no call waited for itself");
    assert_eq!(harness.residue().await, 0);
}

pub(super) async fn concurrent_sections_are_not_nested(harness: &dyn Harness) {
    let lock = &*harness.lock();
    let key = key("a");
    let inside = Cell::new(0);
    let section = async || {
        with_lock(lock, &key, LONG_WAIT, async |_| {
            inside.set(inside.get() + 1);
            assert_eq!(inside.get(), 1);
            sleep(TICK).await;
            inside.set(inside.get() - 1);
        })
        .await
    };
    // In one task: a set of owned keys per task id would report a deadlock.
    let (one, two, three) = tokio::join!(section(), section(), section());
    assert!(one.is_ok() && two.is_ok() && three.is_ok(), "{one:?}, {two:?}, {three:?}");
}

pub(super) async fn a_section_that_hangs_loses_the_key(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let max_lease = TICK * 5;
    let began = Instant::now();
    let mut calls = Calls::new();
    let section = with_lock(&*lock, &key, with_max_lease(max_lease), async |_| {
        enqueue(&mut calls, &lock, &key, LONG_WAIT).await;
        pending::<()>().await;
    });
    let outcome = section.await;
    assert!(matches!(outcome, Err(LockError::Lost)), "{outcome:?}");
    let due = max_lease / 2..max_lease * 2 + harness.slack();
    assert!(due.contains(&began.elapsed()), "after {:?}", began.elapsed());
    drop(next_result(&mut calls).await.expect("the next waiter owns the key"));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(harness.residue().await, 0);
}

pub(super) async fn a_section_does_not_start_on_an_expired_lease(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let ran = Cell::new(false);
    let outcome = with_lock(&*lock, &key, with_max_lease(Duration::ZERO), async |_| ran.set(true)).await;
    assert!(matches!(outcome, Err(LockError::Lost)), "{outcome:?}");
    assert!(!ran.get());
    assert_eq!(harness.residue().await, 0);
}
