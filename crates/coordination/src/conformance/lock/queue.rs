//! Who gets the key, and when.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::super::TestRng;
use super::{Calls, Harness, PATIENT, TICK, answer, holding, is_free, key, owned, queue_up, waiting};
use crate::{LockError, LockOptions};

pub(super) async fn waiters_are_served_in_order(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    let first = owned(&*lock, &key).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut calls = JoinSet::new();
    for number in 0..40 {
        // Every third gives up while it waits, and must not be missed by the others.
        let options = if number % 3 == 2 { waiting(TICK * 2) } else { PATIENT };
        let (lock, key, order) = (lock.clone(), key.clone(), order.clone());
        calls.spawn(async move {
            if let Ok(tenure) = lock.acquire(&key, options).await {
                order.lock().expect("no panic").push((number, tenure.token()));
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
    assert_eq!(rig.residue().await, 0);
}

pub(super) async fn a_release_hands_over_to_the_first_waiter(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    let mut calls = Calls::new();
    let mut owner = owned(&*lock, &key).await;
    for _ in 0..10 {
        queue_up(&mut calls, &lock, &key, PATIENT).await;
        drop(owner);
        // The waiter has not run yet, and the key is its own already.
        assert!(!is_free(&*lock, &key).await);
        let late = lock.acquire(&key, waiting(Duration::ZERO)).await;
        assert!(matches!(late, Err(LockError::Timeout { position: 1 })), "{late:?}");
        owner = answer(&mut calls).await.expect("the waiter owns the key");
    }
}

pub(super) async fn an_expired_key_goes_to_the_first_waiter(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    let overdue = lock.acquire(&key, holding(TICK * 2)).await.expect("a free key");
    let mut waiter = pin!(lock.acquire(&key, PATIENT));
    // In the queue, but not polled when its turn comes.
    assert!(timeout(TICK, waiter.as_mut()).await.is_err());
    overdue.lost().await;
    sleep(TICK).await;
    assert!(!is_free(&*lock, &key).await);
    drop(waiter.await.expect("its turn"));
    drop(overdue);
    assert_eq!(rig.residue().await, 0);
}

pub(super) async fn a_wait_times_out_on_time(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    let owner = owned(&*lock, &key).await;
    let (began, wait) = (Instant::now(), TICK * 4);
    let mut calls = Calls::new();
    for _ in 0..2 {
        queue_up(&mut calls, &lock, &key, waiting(wait)).await;
    }
    for place in 1..=2 {
        let outcome = answer(&mut calls).await;
        assert!(matches!(outcome, Err(LockError::Timeout { position }) if position == place), "{outcome:?}");
        assert!((wait..wait * 4 + rig.slack()).contains(&began.elapsed()), "after {:?}", began.elapsed());
    }
    let at_once = Instant::now();
    let outcome = lock.acquire(&key, waiting(Duration::ZERO)).await;
    assert!(matches!(outcome, Err(LockError::Timeout { position: 1 })), "{outcome:?}");
    assert!(at_once.elapsed() < TICK + rig.slack());
    drop(owner);
    assert!(lock.acquire(&key, waiting(Duration::ZERO)).await.is_ok(), "a free key needs no wait");
    assert_eq!(rig.residue().await, 0);
}

pub(super) async fn a_full_queue_refuses_at_once(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    let two = LockOptions { queue_max: 2, ..PATIENT };
    let none = LockOptions { queue_max: 0, ..PATIENT };
    let owner = lock.acquire(&key, none).await.expect("a free key needs no queue");
    let mut calls = Calls::new();
    for _ in 0..2 {
        queue_up(&mut calls, &lock, &key, two).await;
    }
    for options in [two, none] {
        let (began, outcome) = (Instant::now(), lock.acquire(&key, options).await);
        assert!(matches!(outcome, Err(LockError::QueueFull { position: 3 })), "{outcome:?}");
        assert!(began.elapsed() < TICK + rig.slack());
    }
    drop(owner);
    for _ in 0..2 {
        drop(answer(&mut calls).await.expect("those inside are served"));
    }
    assert_eq!(rig.residue().await, 0);
}

pub(super) async fn a_cancelled_waiter_frees_its_position(rig: &dyn Harness) {
    let (lock, key) = (rig.lock(), key("a"));
    let _owner = owned(&*lock, &key).await;
    let one = LockOptions { queue_max: 1, ..PATIENT };
    for _ in 0..50 {
        let dropped = timeout(TICK, lock.acquire(&key, one)).await;
        assert!(dropped.is_err(), "neither refused nor served: {dropped:?}");
        let timed_out = lock.acquire(&key, LockOptions { wait: TICK, ..one }).await;
        assert!(matches!(timed_out, Err(LockError::Timeout { position: 1 })), "{timed_out:?}");
    }
}

pub(super) async fn try_acquire_never_waits(rig: &dyn Harness) {
    let (lock, began) = (rig.lock(), Instant::now());
    let keys = ["a", "b", "c", "b"].map(key);
    let taken = owned(&*lock, &keys[0]).await;
    let tenures = lock.try_acquire_each(&keys, PATIENT).await.expect("the lock is available");
    let owned_keys: Vec<Option<&str>> =
        tenures.iter().map(|tenure| Some(tenure.as_ref()?.key().as_str())).collect();
    assert_eq!(owned_keys, [None, Some("suite:b"), Some("suite:c"), None]);
    assert!(lock.try_acquire_each(&[], PATIENT).await.is_ok_and(|none| none.is_empty()));
    drop((taken, tenures));
    assert!(is_free(&*lock, &keys[0]).await);
    assert!(began.elapsed() < TICK * 2 + rig.slack());
    assert_eq!(rig.residue().await, 0);
}

pub(super) async fn many_keys_leave_no_residue(rig: &dyn Harness) {
    let lock = rig.lock();
    let keys: Vec<_> = (0..500).map(|number| key(&number.to_string())).collect();
    let tenures = lock.try_acquire_each(&keys, PATIENT).await.expect("the lock is available");
    assert!(tenures.iter().all(Option::is_some), "no key is in another's way");
    let mut calls = Calls::new();
    for key in &keys {
        let (lock, key) = (lock.clone(), key.clone());
        calls.spawn(async move { lock.acquire(&key, PATIENT).await });
    }
    sleep(TICK).await;
    drop(tenures);
    for _ in &keys {
        drop(answer(&mut calls).await.expect("every key comes free"));
    }
    assert_eq!(rig.residue().await, 0);
}

/// What the crowd knows of a key: whether somebody is in it, and the token of the last who was.
type Seen = Arc<Mutex<HashMap<usize, (bool, u64)>>>;

pub(super) async fn random_callers_never_share_a_key(rig: &dyn Harness) {
    let (seen, mut crowd) = (Seen::default(), JoinSet::new());
    for seed in 0..24 {
        let (lock, seen, mut dice) = (rig.lock(), seen.clone(), TestRng(seed));
        crowd.spawn(async move {
            let mut served = 0;
            for _ in 0..60 {
                let number = usize::try_from(dice.below(3)).unwrap_or(0);
                let key = key(&number.to_string());
                let [wait, patience, work] = [60, 90, 5].map(|max| Duration::from_millis(dice.below(max)));
                // Some give up, some are dropped, some are served.
                let Ok(Ok(tenure)) = timeout(patience, lock.acquire(&key, waiting(wait))).await else {
                    continue;
                };
                {
                    let mut seen = seen.lock().expect("no panic");
                    let (inside, token) = seen.entry(number).or_default();
                    assert!(!*inside, "two own one key");
                    assert!(tenure.token() > *token, "a token came twice or went back");
                    (*inside, *token) = (true, tenure.token());
                }
                sleep(work).await;
                seen.lock().expect("no panic").entry(number).or_default().0 = false;
                drop(tenure);
                served += 1;
            }
            served
        });
    }
    assert!(crowd.join_all().await.into_iter().sum::<i32>() > 100, "the crowd was served");
    assert_eq!(rig.residue().await, 0);
}
