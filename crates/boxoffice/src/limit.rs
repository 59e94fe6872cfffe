//! The bounds of the commands and the log, each with its reason. Those of the server are in its crates.

use std::time::Duration;

use engine::QUEUE_MAX;

/// Maximum number of buffered bytes of the log: some ten thousand lines, more than a second of a busy server
/// at debug level.
pub(crate) const LOG_BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Maximum wait for the last lines of the log at exit. A healthy log accepts them within a millisecond; a
/// pipe without a reader never does.
pub(crate) const LOG_FLUSH_WAIT_MAX: Duration = Duration::from_secs(1);
/// Maximum wait for Redis at startup before the server continues without it.
pub(crate) const REDIS_WAIT_MAX: Duration = Duration::from_secs(1);
/// Additional time on shutdown, after the timeout for requests, for the changes that they have started.
pub(crate) const DRAIN_MARGIN: Duration = Duration::from_secs(1);
/// Maximum wait of `dev` for requests in progress on shutdown: its user waits, too.
pub(crate) const DEV_SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(2);
/// Maximum wait of `doctor` for a connection to Redis: its user waits, too.
pub(crate) const DOCTOR_REDIS_WAIT_MAX: Duration = Duration::from_secs(3);
/// The largest acceptable difference between two clocks, in seconds: no hold is shorter.
pub(crate) const CLOCK_DIFFERENCE_SECONDS_MAX: u64 = 60;
/// Maximum number of buyers of a demo: it then runs for some minutes.
pub(crate) const DEMO_BUYERS_MAX: i64 = 1_000_000;
/// Maximum number of concurrent buyers of a demo. With the clicks of impatient buyers they fit into the queue
/// of the engine.
pub(crate) const CONCURRENT_BUYERS_MAX: usize = 10_000;
const _: () = assert!(
    CONCURRENT_BUYERS_MAX + CONCURRENT_BUYERS_MAX / 10 * 5 <= QUEUE_MAX,
    "the queue has room for all concurrent requests"
);
/// Maximum number of concurrent payments and cancellations of a demo: enough for full batches.
pub(crate) const CONCURRENT_SETTLEMENTS_MAX: usize = 256;
/// Maximum request rate of the load generator: more than two processors can send.
pub(crate) const BENCH_RATE_MAX: i64 = 1_000_000;
/// Maximum number of connections of the load generator: within the usual limit of open files, with some
/// reserve.
pub(crate) const BENCH_CONNECTIONS_MAX: i64 = 16_384;
/// Maximum number of events of the load generator: their creation takes some seconds.
pub(crate) const BENCH_EVENTS_MAX: i64 = 100_000;
/// Maximum weight of one operation of the load generator: a share of a thousandth is rare enough.
pub(crate) const BENCH_WEIGHT_MAX: u32 = 1_000;
