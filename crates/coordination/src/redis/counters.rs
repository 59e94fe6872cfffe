//! Counters of Redis operations, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A monotonic counter.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn add_time(&self, more: Duration) {
        self.add(u64::try_from(more.as_micros()).unwrap_or(u64::MAX));
    }
}

macro_rules! counters {
    ($(#[doc = $doc:literal] $name:ident,)+) => {
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)+
        }

        /// Counts of a [`Redis`](super::Redis) since its start.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counts {
            $(#[doc = $doc] pub $name: u64,)+
        }

        impl Counters {
            pub(super) fn read(&self) -> Counts {
                Counts { $($name: self.$name.0.load(Ordering::Relaxed),)+ }
            }
        }

        impl Counts {
            /// Each count's name, description and value.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $doc, self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Requests or batches of requests sent to Redis.
    round_trips,
    /// Connections opened.
    connections,
    /// Times the circuit breaker opened.
    breaker_openings,
    /// Subscriptions opened for the notifications of lock owners.
    subscriptions,
    /// Stored values of a wrong type or form, each treated as absent.
    corrupt_values,
    /// Attempts that Redis allowed.
    attempts_allowed,
    /// Attempts that Redis denied.
    attempts_denied,
    /// Attempts denied by the local deny cache, without a request to Redis.
    attempts_denied_locally,
    /// Attempts that Redis did not decide in time.
    attempts_unavailable,
    /// Locks acquired without waiting.
    locks_acquired_free,
    /// Locks acquired after waiting in the queue.
    locks_acquired_queued,
    /// Time spent waiting for locks that were acquired.
    lock_wait_micros,
    /// Grants whose notification was lost, found by a poll.
    grants_polled,
    /// Grants whose waiter had left, released at once.
    grants_returned,
    /// Lock requests that timed out in the queue.
    lock_timeouts,
    /// Lock requests rejected because the queue was full.
    queue_rejections,
    /// Lock requests that failed because Redis was unavailable.
    locks_unavailable,
    /// Locks released to a waiter of another instance or of this one.
    handovers,
    /// Time locks were owned.
    lock_owned_micros,
    /// Locks whose lease expired or could not be renewed.
    leases_lost,
    /// Waiters that Redis had forgotten and that were queued again.
    requeued,
}
