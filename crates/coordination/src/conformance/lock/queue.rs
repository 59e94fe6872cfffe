//! The order and the bounds of the queue.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Calls, Harness, LONG_WAIT, TICK, acquire, enqueue, is_free, key, next_result, with_max_lease, with_wait,
};
use crate::{LockError, LockOptions};

pub(super) async fn waiters_are_served_in_order(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let first = acquire(&*lock, &key).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut calls = JoinSet::new();
    for number in 0..40 {
        // Every third times out in the queue, which must not affect the others.
        let options = if number % 3 == 2 { with_wait(TICK * 2) } else { LONG_WAIT };
        let lock = lock.clone();
        let key = key.clone();
        let order = order.clone();
        calls.spawn(async move {
            if let Ok(guard) = lock.acquire(&key, options).await {
                order.lock().expect("no panic").push((number, guard.token()));
                sleep(Duration::from_millis(1)).await;
            }
        });
        sleep(TICK).await;
    }
    sleep(TICK * 2).await;
    let first_token = first.token();
    drop(first);
    calls.join_all().await;

    let order = order.lock().expect("no panic").clone();
    let numbers: Vec<i32> = order.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..40).filter(|number| number % 3 != 2).collect::<Vec<_>>());
    assert!(order[0].1 > first_token && order.is_sorted_by(|(_, one), (_, next)| one < next));
    assert_eq!(harness.residue().await, 0);
}

pub(super) async fn a_release_hands_over_to_the_first_waiter(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let mut calls = Calls::new();
    let mut owner = acquire(&*lock, &key).await;
    for _ in 0..10 {
        enqueue(&mut calls, &lock, &key, LONG_WAIT).await;
        drop(owner);
        // The waiter has not run yet, but already owns the key.
        assert!(!is_free(&*lock, &key).await);
        let no_wait = lock.acquire(&key, with_wait(Duration::ZERO)).await;
        assert!(matches!(no_wait, Err(LockError::Timeout { position: 1 })), "{no_wait:?}");
        owner = next_result(&mut calls).await.expect("the waiter owns the key");
    }
}

pub(super) async fn an_expired_key_goes_to_the_first_waiter(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let expired = lock.acquire(&key, with_max_lease(TICK * 2)).await.expect("a free key");
    let mut waiter = pin!(lock.acquire(&key, LONG_WAIT));
    // In the queue, but not polled when the owner's lease expires.
    assert!(timeout(TICK, waiter.as_mut()).await.is_err());
    expired.lost().await;
    sleep(TICK).await;
    assert!(!is_free(&*lock, &key).await);
    drop(waiter.await.expect("the waiter owns the key"));
    drop(expired);
    assert_eq!(harness.residue().await, 0);
}

pub(super) async fn a_wait_times_out_on_time(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let owner = acquire(&*lock, &key).await;
    let began = Instant::now();
    let wait = TICK * 4;
    let mut calls = Calls::new();
    for _ in 0..2 {
        enqueue(&mut calls, &lock, &key, with_wait(wait)).await;
    }
    for expected in 1..=2 {
        let outcome = next_result(&mut calls).await;
        assert!(
            matches!(outcome, Err(LockError::Timeout { position }) if position == expected),
            "{outcome:?}"
        );
        assert!((wait..wait * 4 + harness.slack()).contains(&began.elapsed()), "after {:?}", began.elapsed());
    }
    let at_once = Instant::now();
    let outcome = lock.acquire(&key, with_wait(Duration::ZERO)).await;
    assert!(matches!(outcome, Err(LockError::Timeout { position: 1 })), "{outcome:?}");
    assert!(at_once.elapsed() < TICK + harness.slack());
    drop(owner);
    assert!(lock.acquire(&key, with_wait(Duration::ZERO)).await.is_ok(), "a free key needs no wait");
    assert_eq!(harness.residue().await, 0);
}

pub(super) async fn a_full_queue_refuses_at_once(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let two = LockOptions { queue_max: 2, ..LONG_WAIT };
    let none = LockOptions { queue_max: 0, ..LONG_WAIT };
    let owner = lock.acquire(&key, none).await.expect("a free key needs no queue");
    let mut calls = Calls::new();
    for _ in 0..2 {
        enqueue(&mut calls, &lock, &key, two).await;
    }
    for options in [two, none] {
        let began = Instant::now();
        let outcome = lock.acquire(&key, options).await;
        assert!(matches!(outcome, Err(LockError::QueueFull { position: 3 })), "{outcome:?}");
        assert!(began.elapsed() < TICK + harness.slack());
    }
    drop(owner);
    for _ in 0..2 {
        drop(next_result(&mut calls).await.expect("callers in the queue are served"));
    }
    assert_eq!(harness.residue().await, 0);
}

pub(super) async fn a_cancelled_waiter_frees_its_position(harness: &dyn Harness) {
    let lock = harness.lock();
    let key = key("a");
    let _owner = acquire(&*lock, &key).await;
    let one = LockOptions { queue_max: 1, ..LONG_WAIT };
    for _ in 0..50 {
        let dropped = timeout(TICK, lock.acquire(&key, one)).await;
        assert!(dropped.is_err(), "neither refused nor served: {dropped:?}");
        let timed_out = lock.acquire(&key, LockOptions { wait: TICK, ..one }).await;
        assert!(matches!(timed_out, Err(LockError::Timeout { position: 1 })), "{timed_out:?}");
    }
}

pub(super) async fn try_acquire_never_waits(harness: &dyn Harness) {
    let lock = harness.lock();
    let began = Instant::now();
    let keys = ["a", "b", "c", "b"].map(key);
    let taken = acquire(&*lock, &keys[0]).await;
    let guards = lock.try_acquire_each(&keys, LONG_WAIT).await.expect("the lock is available");
    let owned_keys: Vec<Option<&str>> =
        guards.iter().map(|guard| Some(guard.as_ref()?.key().as_str())).collect();
    assert_eq!(owned_keys, [None, Some("suite:b"), Some("suite:c"), None]);
    assert!(lock.try_acquire_each(&[], LONG_WAIT).await.is_ok_and(|none| none.is_empty()));
    drop((taken, guards));
    assert!(is_free(&*lock, &keys[0]).await);
    assert!(began.elapsed() < TICK * 2 + harness.slack());
    assert_eq!(harness.residue().await, 0);
}

pub(super) async fn many_keys_leave_no_residue(harness: &dyn Harness) {
    let lock = harness.lock();
    let keys: Vec<_> = (0..500).map(|number| key(&number.to_string())).collect();
    let guards = lock.try_acquire_each(&keys, LONG_WAIT).await.expect("the lock is available");
    assert!(guards.iter().all(Option::is_some), "keys are independent");
    let mut calls = Calls::new();
    for key in &keys {
        let (lock, key) = (lock.clone(), key.clone());
        calls.spawn(async move { lock.acquire(&key, LONG_WAIT).await });
    }
    sleep(TICK).await;
    drop(guards);
    for _ in &keys {
        drop(next_result(&mut calls).await.expect("every key becomes free"));
    }
    assert_eq!(harness.residue().await, 0);
}

/// Per key: true while a caller owns it, and the token of the last owner.
type Observed = Arc<Mutex<HashMap<usize, (bool, u64)>>>;

pub(super) async fn random_callers_never_share_a_key(harness: &dyn Harness) {
    let observed = Observed::default();
    let mut callers = JoinSet::new();
    for seed in 0..24 {
        let lock = harness.lock();
        let observed = observed.clone();
        let mut rng = fastrand::Rng::with_seed(seed);
        callers.spawn(async move {
            let mut served = 0;
            for _ in 0..60 {
                let number = rng.usize(..3);
                let key = key(&number.to_string());
                let [wait, dropped_after, work] =
                    [60, 90, 5].map(|max| Duration::from_millis(rng.u64(..max)));
                // Some time out, some are dropped, some are served.
                let Ok(Ok(guard)) = timeout(dropped_after, lock.acquire(&key, with_wait(wait))).await else {
                    continue;
                };
                {
                    let mut observed = observed.lock().expect("no panic");
                    let (is_owned, token) = observed.entry(number).or_default();
                    assert!(!*is_owned, "two callers own one key");
                    assert!(guard.token() > *token, "a token did not increase");
                    (*is_owned, *token) = (true, guard.token());
                }
                sleep(work).await;
                observed.lock().expect("no panic").entry(number).or_default().0 = false;
                drop(guard);
                served += 1;
            }
            served
        });
    }
    assert!(callers.join_all().await.into_iter().sum::<i32>() > 100, "callers are served");
    assert_eq!(harness.residue().await, 0);
}
