//! The behaviour of a desk that shares its events with other desks.

use std::sync::Arc;
use std::time::Duration;

use coordination::local::LocalLock;
use coordination::{Key, Lock, LockGuard, LockOptions};
use domain::{Event, Order, TicketSelection};
use engine::{CommandOutput, Engine, Error, LEASE_WAIT_MAX, Ports};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::fixture::{as_user, event_in, start, user};

/// An engine whose desk uses leases, two events of ten tickets, and the lock, which the test can acquire as
/// well.
async fn start_with_leases() -> (Arc<Engine>, [Event; 2], Arc<LocalLock>) {
    let (template, ports) = start(0);
    let lock = Arc::new(LocalLock::new(Arc::new(|| 43_200_000_000)));
    let engine = Engine::start(Ports { lease: Some(lock.clone()), ..ports }, *template.policy());
    let events = [event_in(&engine, 3_600).await, event_in(&engine, 3_600).await];
    (engine, events, lock)
}

/// Acquires the lease of an event as another desk would.
async fn take_lease(lock: &LocalLock, event: &Event) -> LockGuard {
    let key = Key::new("event", &event.id.to_string()).expect("a key");
    lock.acquire(&key, LockOptions::default()).await.expect("free")
}

/// Books four tickets; returns true if they were available, and the time that the call took.
async fn book_four(engine: &Arc<Engine>, name: &str, event: &Event) -> (bool, Duration) {
    let order = Order::new(event.id, engine.booking_id(), user(name), TicketSelection::Quantity(4));
    let start_time = Instant::now();
    match engine.book(as_user(name), order, None).await.outcome {
        Ok(CommandOutput::Fresh(_)) => (true, start_time.elapsed()),
        Err(Error::Refused(_)) => (false, start_time.elapsed()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn commands_wait_in_order_for_their_own_events_lease_up_to_the_bound() {
    let (engine, [hot, cold], lock) = start_with_leases().await;
    let _other = take_lease(&lock, &hot).await;
    let waiting = ["a", "b", "c", "d"].map(|name| book_four(&engine, name, &hot));
    let (waited, passed) = tokio::join!(join_all(waiting), book_four(&engine, "e", &cold));
    assert_eq!(passed, (true, Duration::ZERO), "it does not wait for another event");
    let (got, times): (Vec<bool>, Vec<Duration>) = waited.into_iter().unzip();
    assert_eq!(got, [true, true, false, false], "first come, first served");
    assert!(times.iter().all(|time| *time == LEASE_WAIT_MAX), "no longer than the bound: {times:?}");
    assert_eq!(engine.desk_stats().batches_without_lease, 1, "one batch ran without the lease");
    assert_eq!(engine.desk_stats().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_used_at_once_and_released_when_idle() {
    let (engine, [hot, _], lock) = start_with_leases().await;
    let other = take_lease(&lock, &hot).await;
    let release = async {
        sleep(Duration::from_millis(100)).await;
        drop(other);
    };
    let (booked, ()) = tokio::join!(book_four(&engine, "a", &hot), release);
    assert_eq!(booked, (true, Duration::from_millis(100)));
    assert_eq!(engine.desk_stats().batches_without_lease, 0);
    // The desk ends its batch after it has sent the results.
    tokio::task::yield_now().await;
    assert_eq!(lock.footprint().keys, 0, "no lease is kept");
}
