//! The lock around a section.

use std::cell::Cell;
use std::future::pending;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Calls, Harness, PATIENT, TICK, answer, holding, is_free, key, queue_up};
use crate::{LockError, with_lock};

pub(super) async fn sections_return_their_result_and_release(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    let token = with_lock(&*lock, &key, PATIENT, async |tenure| tenure.token()).await.expect("a free key");
    let (own_lock, own_key) = (lock.clone(), key.clone());
    // A section can run in a task of its own.
    let mut task = JoinSet::new();
    task.spawn(async move {
        with_lock(&*own_lock, &own_key, PATIENT, async |tenure| {
            sleep(TICK).await;
            assert!(!tenure.is_lost());
            tenure.token()
        })
        .await
    });
    sleep(TICK / 2).await;
    assert!(!is_free(&*lock, &key).await, "inside");
    assert!(task.join_all().await.into_iter().all(|later| later.is_ok_and(|later| later > token)));
    assert_eq!(rig.residue().await, 0);
}

pub(super) async fn a_nested_section_of_one_key_would_deadlock(rig: &dyn Harness) {
    let (lock, outer, inner) = (&*rig.lock(), key("outer"), key("inner"));
    let began = Instant::now();
    let section = with_lock(lock, &outer, PATIENT, async |_| {
        with_lock(lock, &inner, PATIENT, async |_| {
            for key in [&outer, &inner] {
                let nested = with_lock(lock, key, PATIENT, async |_| ()).await;
                assert!(matches!(nested, Err(LockError::WouldDeadlock)), "{nested:?}");
                let plain = lock.acquire(key, PATIENT).await;
                assert!(matches!(plain, Err(LockError::WouldDeadlock)), "{plain:?}");
                assert!(!is_free(lock, key).await, "which waits for nobody, so it may ask");
            }
        })
        .await
        .expect("another key");
        assert!(with_lock(lock, &inner, PATIENT, async |_| ()).await.is_ok(), "the inner section is over");
    });
    section.await.expect("a free key");
    assert!(with_lock(lock, &outer, PATIENT, async |_| ()).await.is_ok(), "the outer section is over");
    assert!(began.elapsed() < TICK * 5 + rig.slack(), "it waited for itself");
    assert_eq!(rig.residue().await, 0);
}

pub(super) async fn concurrent_sections_are_not_nested(rig: &dyn Harness) {
    let (lock, key, inside) = (&*rig.lock(), key("a"), Cell::new(0));
    let section = async || {
        with_lock(lock, &key, PATIENT, async |_| {
            inside.set(inside.get() + 1);
            assert_eq!(inside.get(), 1);
            sleep(TICK).await;
            inside.set(inside.get() - 1);
        })
        .await
    };
    // In one task, where a set of held keys by task id would see a deadlock.
    let (one, two, three) = tokio::join!(section(), section(), section());
    assert!(one.is_ok() && two.is_ok() && three.is_ok(), "{one:?}, {two:?}, {three:?}");
}

pub(super) async fn a_section_that_hangs_loses_the_key(rig: &dyn Harness) {
    let (lock, key, max_hold) = (rig.lock(), key("a"), TICK * 5);
    let began = Instant::now();
    let mut calls = Calls::new();
    let section = with_lock(&*lock, &key, holding(max_hold), async |_| {
        queue_up(&mut calls, &lock, &key, PATIENT).await;
        pending::<()>().await;
    });
    let outcome = section.await;
    assert!(matches!(outcome, Err(LockError::Lost)), "{outcome:?}");
    let due = max_hold / 2..max_hold * 2 + rig.slack();
    assert!(due.contains(&began.elapsed()), "after {:?}", began.elapsed());
    drop(answer(&mut calls).await.expect("the next has it"));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.residue().await, 0);
}

pub(super) async fn a_section_does_not_start_on_an_expired_lease(rig: &dyn Harness) {
    let (lock, key, ran) = (rig.lock(), key("a"), Cell::new(false));
    let outcome = with_lock(&*lock, &key, holding(Duration::ZERO), async |_| ran.set(true)).await;
    assert!(matches!(outcome, Err(LockError::Lost)), "{outcome:?}");
    assert!(!ran.get());
    assert_eq!(rig.residue().await, 0);
}
