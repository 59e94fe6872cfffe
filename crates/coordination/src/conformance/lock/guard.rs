//! Ownership: tokens, contention and expiry.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{
    Calls, Harness, LONG_WAIT, TICK, acquire, enqueue, is_free, key, next_result, wait_for_hint,
    with_max_lease,
};

pub(super) async fn tokens_only_grow(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let mut last = 0;
    for round in 0..100 {
        let guard = acquire(&*lock, &key).await;
        assert!(guard.token() > last, "round {round}");
        assert_eq!(guard.key(), &key);
        last = guard.token();
        drop(guard);
        // Between owners the lock stores nothing about the key.
        if round % 10 == 0 {
            assert_eq!(harness.residue().await, 0);
        }
    }
}

pub(super) async fn a_guard_is_contended_while_others_wait(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let owner = acquire(&*lock, &key).await;
    assert!(!owner.contended());
    let mut calls = Calls::new();
    enqueue(&mut calls, &lock, &key, LONG_WAIT).await;
    wait_for_hint("a caller waits", || owner.contended()).await;
    calls.abort_all();
    while calls.join_next().await.is_some() {}
    wait_for_hint("no caller waits", || !owner.contended()).await;
    enqueue(&mut calls, &lock, &key, LONG_WAIT).await;
    enqueue(&mut calls, &lock, &key, LONG_WAIT).await;
    drop(owner);
    let second = next_result(&mut calls).await.expect("the next waiter is served");
    wait_for_hint("the third still waits", || second.contended()).await;
    drop(second);
    let third = next_result(&mut calls).await.expect("the next waiter is served");
    wait_for_hint("no caller waits behind the third", || !third.contended()).await;
}

pub(super) async fn max_lease_ends_ownership(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let max_lease = TICK * 10;
    let began = Instant::now();
    let guard = lock.acquire(&key, with_max_lease(max_lease)).await.expect("a free key");
    assert!(!guard.is_lost());
    guard.lost().await;
    let due = max_lease / 2..max_lease * 2 + harness.slack();
    assert!(due.contains(&began.elapsed()), "after {:?}", began.elapsed());
    assert!(guard.is_lost());
    guard.lost().await;
    assert!(
        lock.try_acquire(&key, LONG_WAIT).await.is_ok_and(|next| next.is_some()),
        "the key is free again"
    );
    drop(guard);
    assert_eq!(harness.residue().await, 0);
}

pub(super) async fn an_expired_owner_does_not_block_the_queue(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let max_lease = TICK * 10;
    let began = Instant::now();
    let expired = lock.acquire(&key, with_max_lease(max_lease)).await.expect("a free key");
    let mut calls = Calls::new();
    for _ in 0..3 {
        enqueue(&mut calls, &lock, &key, with_max_lease(max_lease)).await;
    }
    // Each keeps its guard after it is lost, and the next waiter is served nevertheless.
    let mut guards = vec![expired];
    for number in 1..=3 {
        guards.push(next_result(&mut calls).await.expect("the next waiter is served"));
        assert!(guards[usize::from(number) - 1].is_lost(), "the previous guard is lost");
        let due = max_lease * u32::from(number + 1u16) + harness.slack();
        assert!(began.elapsed() < due, "after {:?}", began.elapsed());
    }
    assert!(guards.is_sorted_by(|one, next| one.token() < next.token()));
    assert!(guards[0].contended(), "another caller owns it");
    drop(guards);
    assert_eq!(harness.residue().await, 0);
}

pub(super) async fn a_late_release_does_not_affect_the_next_owner(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let expired = lock.acquire(&key, with_max_lease(TICK)).await.expect("a free key");
    expired.lost().await;
    let second = acquire(&*lock, &key).await;
    let mut calls = Calls::new();
    enqueue(&mut calls, &lock, &key, LONG_WAIT).await;
    drop(expired);
    assert!(timeout(TICK * 2, calls.join_next()).await.is_err(), "the second still owns the key");
    assert!(!is_free(&*lock, &key).await && !second.is_lost());
    drop(second);
    drop(next_result(&mut calls).await.expect("the next waiter is served"));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(harness.residue().await, 0);
}
