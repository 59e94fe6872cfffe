//! The guarantees of a [`Lock`]: order and bounds of the queue, ownership and its end, dropped callers, and
//! sections.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::cases;
use crate::{Key, Lock, LockError, LockGuard, LockOptions};

mod drops;
mod guard;
mod queue;
mod section;

use drops::{
    a_call_dropped_while_queued_leaves_the_queue, a_dropped_call_for_a_free_key_leaves_it_free,
    a_section_dropped_anywhere_frees_the_key, a_section_is_dropped_before_the_key_is_released,
    an_unclaimed_grant_goes_to_the_next_waiter, dropping_all_waiters_leaves_no_residue,
};
use guard::{
    a_guard_is_contended_while_others_wait, a_late_release_does_not_affect_the_next_owner,
    an_expired_owner_does_not_block_the_queue, max_lease_ends_ownership, tokens_only_grow,
};
use queue::{
    a_cancelled_waiter_frees_its_position, a_full_queue_refuses_at_once,
    a_release_hands_over_to_the_first_waiter, a_wait_times_out_on_time,
    an_expired_key_goes_to_the_first_waiter, many_keys_leave_no_residue, random_callers_never_share_a_key,
    try_acquire_never_waits, waiters_are_served_in_order,
};
use section::{
    a_nested_section_of_one_key_would_deadlock, a_section_does_not_start_on_an_expired_lease,
    a_section_that_hangs_loses_the_key, concurrent_sections_are_not_nested,
    sections_return_their_result_and_release,
};

/// A lock under test.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The lock; every call returns the same one. No key is owned when a case begins.
    fn lock(&self) -> Arc<dyn Lock>;

    /// Waits until all state that only time removes has expired; returns the number of keys and queue entries
    /// left.
    async fn residue(&self) -> usize;

    /// Tolerance for late events: none where time is paused; on a real server the longest pause of a busy
    /// machine.
    fn slack(&self) -> Duration {
        Duration::ZERO
    }
}

cases![
    dyn Harness:
    waiters_are_served_in_order,
    a_release_hands_over_to_the_first_waiter,
    an_expired_key_goes_to_the_first_waiter,
    a_wait_times_out_on_time,
    a_full_queue_refuses_at_once,
    a_cancelled_waiter_frees_its_position,
    try_acquire_never_waits,
    many_keys_leave_no_residue,
    random_callers_never_share_a_key,
    tokens_only_grow,
    a_guard_is_contended_while_others_wait,
    max_lease_ends_ownership,
    an_expired_owner_does_not_block_the_queue,
    a_late_release_does_not_affect_the_next_owner,
    sections_return_their_result_and_release,
    a_nested_section_of_one_key_would_deadlock,
    concurrent_sections_are_not_nested,
    a_section_that_hangs_loses_the_key,
    a_section_does_not_start_on_an_expired_lease,
    a_dropped_call_for_a_free_key_leaves_it_free,
    a_call_dropped_while_queued_leaves_the_queue,
    an_unclaimed_grant_goes_to_the_next_waiter,
    dropping_all_waiters_leaves_no_residue,
    a_section_dropped_anywhere_frees_the_key,
    a_section_is_dropped_before_the_key_is_released,
];

/// Long enough for a call to reach the lock and join its queue, also on a busy machine and in real time.
const TICK: Duration = Duration::from_millis(150);

/// Options whose wait expires only if the lock is broken.
const LONG_WAIT: LockOptions =
    LockOptions { wait: Duration::from_secs(20), max_lease: Duration::from_mins(1), queue_max: 1_000 };

fn with_wait(wait: Duration) -> LockOptions {
    LockOptions { wait, ..LONG_WAIT }
}

fn with_max_lease(max_lease: Duration) -> LockOptions {
    LockOptions { max_lease, ..LONG_WAIT }
}

fn key(id: &str) -> Key {
    super::key("suite", id)
}

async fn acquire(lock: &dyn Lock, key: &Key) -> LockGuard {
    lock.acquire(key, LONG_WAIT).await.expect("the key becomes free")
}

async fn is_free(lock: &dyn Lock, key: &Key) -> bool {
    lock.try_acquire(key, LONG_WAIT).await.expect("the lock is available").is_some()
}

/// Calls in their own tasks.
type Calls = JoinSet<Result<LockGuard, LockError>>;

/// Starts a call and waits until it has joined the queue.
async fn enqueue(calls: &mut Calls, lock: &Arc<dyn Lock>, key: &Key, options: LockOptions) {
    let lock = Arc::clone(lock);
    let key = key.clone();
    calls.spawn(async move { lock.acquire(&key, options).await });
    sleep(TICK).await;
}

/// Waits until a hint is true, and panics if it stays false. Hints are delivered separately and may be late.
async fn wait_for_hint(condition: &str, hint: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if hint() {
            return;
        }
        sleep(TICK / 10).await;
    }
    panic!("timed out: {condition}");
}

/// The result of the next call to finish.
async fn next_result(calls: &mut Calls) -> Result<LockGuard, LockError> {
    calls.join_next().await.expect("a call is pending").expect("a call does not panic")
}

/// Polls a future so many times, with time for other tasks after each poll, and then drops it. Returns its
/// output if it finished.
async fn poll_times<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(output) = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
            return Some(output);
        }
        sleep(TICK).await;
    }
    None
}

/// Number of polls after which each of the futures under test has finished.
const POLLS_MAX: usize = 12;
