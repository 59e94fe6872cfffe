//! What has happened so far, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
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
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)+
        }

        /// What a [`Redis`](super::Redis) has done since it was started. Every number only grows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counts {
            $($(#[$doc])+ pub $name: u64,)+
        }

        impl Counters {
            pub(super) fn read(&self) -> Counts {
                Counts { $($name: self.$name.0.load(Ordering::Relaxed),)+ }
            }
        }

        impl Counts {
            /// Every number with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Requests or batches of requests sent to the server.
    round_trips,
    /// Connections made.
    connected,
    /// Times the breaker opened.
    breaker_opened,
    /// Times the connection that wakes waiters was made.
    subscribed,
    /// Stored values of a wrong type or form, each treated as absent.
    corrupt,
    /// Attempts the server let through.
    attempts_allowed,
    /// Attempts the server refused.
    attempts_denied,
    /// Attempts refused without asking, because the server's last refusal still holds.
    attempts_denied_locally,
    /// Attempts the server could not be asked about.
    attempts_unavailable,
    /// Keys taken that were free.
    locks_taken,
    /// Keys got by waiting.
    locks_granted,
    /// Time waited for them, in microseconds.
    wait_micros,
    /// Grants whose message did not arrive, found by asking.
    grants_found,
    /// Grants nobody was left to take, given back at once.
    grants_returned,
    /// Waits that ended without the key.
    locks_timed_out,
    /// Callers turned away by a full queue.
    queues_full,
    /// Callers told that the server could not be asked.
    locks_unavailable,
    /// Tenures given up that another took over.
    handed_over,
    /// Time keys were owned, in microseconds.
    hold_micros,
    /// Tenures that ended by themselves: overdue, or their lease could not be renewed.
    leases_lost,
    /// Places in a queue that the server had forgotten, taken anew.
    requeued,
}
