//! The bounds of the load generator, each with its reason.

use std::time::Duration;

/// Maximum number of bookings that one client remembers to confirm or cancel later: some 50 kB. Beyond it,
/// the oldest are left to expire.
pub(crate) const OPEN_BOOKINGS_MAX: usize = 1_000;
/// Time after the end of a schedule in which its backlog is still sent. The rest is dropped.
pub(crate) const BACKLOG_WAIT_MAX: Duration = Duration::from_secs(10);
/// Number of clients that create events: enough that the servers execute full batches.
pub(crate) const ORGANISERS: usize = 64;
/// Maximum wait for a response: far longer than a request can wait in the queue of a server.
pub(crate) const RESPONSE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest latency that is distinguished from longer ones, in microseconds. A client waits half as long.
pub(crate) const LATENCY_MICROS_MAX: u64 = 60_000_000;
