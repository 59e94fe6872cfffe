//! What an owner may rely on, and how its time ends.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Calls, Harness, PATIENT, TICK, answer, holding, is_free, key, owned, queue_up, soon};

pub(super) async fn tokens_only_grow(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    let mut last = 0;
    for round in 0..100 {
        let tenure = owned(&*lock, &key).await;
        assert!(tenure.token() > last, "round {round}");
        assert_eq!(tenure.key(), &key);
        last = tenure.token();
        drop(tenure);
        // In between the lock remembers nothing.
        if round % 10 == 0 {
            assert_eq!(rig.residue().await, 0);
        }
    }
}

pub(super) async fn a_guard_is_contended_while_others_wait(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    let owner = owned(&*lock, &key).await;
    assert!(!owner.contended());
    let mut calls = Calls::new();
    queue_up(&mut calls, &lock, &key, PATIENT).await;
    soon("a waiter shows", || owner.contended()).await;
    calls.abort_all();
    while calls.join_next().await.is_some() {}
    soon("the waiter is gone", || !owner.contended()).await;
    queue_up(&mut calls, &lock, &key, PATIENT).await;
    queue_up(&mut calls, &lock, &key, PATIENT).await;
    drop(owner);
    let second = answer(&mut calls).await.expect("its turn");
    soon("the third still waits", || second.contended()).await;
    drop(second);
    let third = answer(&mut calls).await.expect("its turn");
    soon("nobody waits behind the third", || !third.contended()).await;
}

pub(super) async fn max_lease_ends_ownership(rig: &dyn Harness) {
    let (lock, key, max_hold) = (rig.lock(), key("a"), TICK * 10);
    let began = Instant::now();
    let tenure = lock.acquire(&key, holding(max_hold)).await.expect("a free key");
    assert!(!tenure.is_lost());
    tenure.lost().await;
    let due = max_hold / 2..max_hold * 2 + rig.slack();
    assert!(due.contains(&began.elapsed()), "after {:?}", began.elapsed());
    assert!(tenure.is_lost());
    tenure.lost().await;
    assert!(lock.try_acquire(&key, PATIENT).await.is_ok_and(|next| next.is_some()), "the key is free again");
    drop(tenure);
    assert_eq!(rig.residue().await, 0);
}

pub(super) async fn an_expired_owner_does_not_block_the_queue(rig: &dyn Harness) {
    let (lock, key, max_hold) = (rig.lock(), key("a"), TICK * 10);
    let began = Instant::now();
    let overdue = lock.acquire(&key, holding(max_hold)).await.expect("a free key");
    let mut calls = Calls::new();
    for _ in 0..3 {
        queue_up(&mut calls, &lock, &key, holding(max_hold)).await;
    }
    // Each keeps its tenure beyond its time, and the next is served all the same.
    let mut tenures = vec![overdue];
    for place in 1..=3 {
        tenures.push(answer(&mut calls).await.expect("its turn"));
        assert!(tenures[usize::from(place) - 1].is_lost(), "whoever comes in finds the one before lost");
        let due = max_hold * u32::from(place + 1u16) + rig.slack();
        assert!(began.elapsed() < due, "after {:?}", began.elapsed());
    }
    assert!(tenures.is_sorted_by(|one, next| one.token() < next.token()));
    assert!(tenures[0].contended(), "another owns it by now");
    drop(tenures);
    assert_eq!(rig.residue().await, 0);
}

pub(super) async fn a_late_release_does_not_affect_the_next_owner(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    let overdue = lock.acquire(&key, holding(TICK)).await.expect("a free key");
    overdue.lost().await;
    let second = owned(&*lock, &key).await;
    let mut calls = Calls::new();
    queue_up(&mut calls, &lock, &key, PATIENT).await;
    drop(overdue);
    assert!(timeout(TICK * 2, calls.join_next()).await.is_err(), "the second still owns the key");
    assert!(!is_free(&*lock, &key).await && !second.is_lost());
    drop(second);
    drop(answer(&mut calls).await.expect("its turn"));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.residue().await, 0);
}
