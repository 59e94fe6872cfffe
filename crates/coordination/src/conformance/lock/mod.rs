//! The promises of a [`Lock`]: in what order and for how long, what a dropped caller leaves, what a section
//! may ask.

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
    /// The lock; every call answers the same one. Nothing is owned when a case begins.
    fn lock(&self) -> Arc<dyn Lock>;

    /// Lets all state expire that only time can clear, and says how many keys and queue entries are left.
    async fn residue(&self) -> usize;

    /// How much later than due a case may see something: nothing where time is paused, and on a real server as
    /// long as a busy machine may stand still.
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

/// Time enough for a call to reach the lock and stand in its queue, on a busy machine and in real time too.
const TICK: Duration = Duration::from_millis(150);

/// A wait that only a broken lock lets run out.
const PATIENT: LockOptions =
    LockOptions { wait: Duration::from_secs(20), max_lease: Duration::from_mins(1), queue_max: 1_000 };

fn waiting(wait: Duration) -> LockOptions {
    LockOptions { wait, ..PATIENT }
}

fn holding(max_hold: Duration) -> LockOptions {
    LockOptions { max_lease: max_hold, ..PATIENT }
}

fn key(id: &str) -> Key {
    super::key("suite", id)
}

async fn owned(lock: &dyn Lock, key: &Key) -> LockGuard {
    lock.acquire(key, PATIENT).await.expect("the key comes free")
}

async fn is_free(lock: &dyn Lock, key: &Key) -> bool {
    lock.try_acquire(key, PATIENT).await.expect("the lock is available").is_some()
}

/// Callers in tasks of their own.
type Calls = JoinSet<Result<LockGuard, LockError>>;

/// Starts a call and waits until it stands in the queue.
async fn queue_up(calls: &mut Calls, lock: &Arc<dyn Lock>, key: &Key, options: LockOptions) {
    let (lock, key) = (Arc::clone(lock), key.clone());
    calls.spawn(async move { lock.acquire(&key, options).await });
    sleep(TICK).await;
}

/// Waits until a hint says so, and panics if it does not: hints come by a way of their own, and may be late.
async fn soon(what: &str, hint: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if hint() {
            return;
        }
        sleep(TICK / 10).await;
    }
    panic!("in vain: {what}");
}

/// The next call to be answered.
async fn answer(calls: &mut Calls) -> Result<LockGuard, LockError> {
    calls.join_next().await.expect("a call is under way").expect("a call does not panic")
}

/// Polls a future so many times, with time for others after each, and drops it where it then stands. Answers
/// what it finished with, if it did.
async fn polled<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(output) = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
            return Some(output);
        }
        sleep(TICK).await;
    }
    None
}

/// Polls that let any of the futures under test finish.
const POLLS_MAX: usize = 12;
