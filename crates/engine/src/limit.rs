//! The bounds of the engine, each with its reason.

use std::time::Duration;

/// Maximum number of queued commands: some seconds of work, and some ten megabytes. Further commands are
/// refused immediately, which is better for their senders than a wait that ends in a refusal.
pub const QUEUE_MAX: usize = 16_384;

/// Maximum time that a command waits in the queue. After that it never runs: its sender is about to time out,
/// and a booking that no client knows of would hold tickets for nothing.
pub(crate) const QUEUE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Maximum number of concurrent reads for each kind of caller: users, addresses and services. The database
/// has more connections than all of these together; the others are for commands, readiness and background
/// tasks.
pub(crate) const KIND_READS_MAX: usize = 3;

/// Maximum number of concurrent reads of one caller: fewer than those of its kind, so that slow reads leave
/// room for other callers.
pub(crate) const CALLER_READS_MAX: usize = 2;

/// Maximum number of reads of one caller that wait or run: as many as the concurrent requests over NATS,
/// whose gateway is one caller, as are all clients behind an untrusted proxy.
pub(crate) const CALLER_READS_QUEUED_MAX: usize = 4_096;

/// Maximum time that a read waits for its slot. The rest of [`READ_MAX`] is for the read itself.
pub(crate) const READ_WAIT_MAX: Duration = Duration::from_secs(2);

/// Maximum time until a read of a caller returns; after that it fails as unavailable.
pub(crate) const READ_MAX: Duration = Duration::from_secs(5);

const _: () = assert!(
    3 * KIND_READS_MAX + 3 <= store::READERS && CALLER_READS_MAX < KIND_READS_MAX,
    "reads of callers leave connections for commands, readiness and background tasks, and those of one \
     caller leave one for other callers"
);
const _: () = assert!(
    READ_WAIT_MAX.as_millis() + store::STATEMENT_MAX.as_millis() <= READ_MAX.as_millis(),
    "a read that waited for the maximum time has time for its statement"
);

/// Number of bookings per read when a list is paged by offset.
pub(crate) const OFFSET_STEP: u32 = 100;

/// Maximum number of such reads for one page: some tens of milliseconds.
pub(crate) const OFFSET_STEPS_MAX: u32 = 100;

/// Maximum number of concurrent reads of the relay, on the connections that it shares with commands and
/// readiness.
pub(crate) const RELAY_READS_MAX: usize = 2;

/// Maximum time that a confirmation or a cancellation waits for `booking:{id}` before it continues without
/// the lock. The lock saves the database repeated work; the database alone resolves conflicts.
pub(crate) const BOOKING_LOCK_WAIT_MAX: Duration = Duration::from_millis(250);

const _: () = assert!(
    BOOKING_LOCK_WAIT_MAX.as_millis() < QUEUE_WAIT_MAX.as_millis(),
    "the wait for a lock is only a part of the time in the queue"
);

/// Maximum time that commands wait for the lease of their event, `event:{id}`, before they run without it:
/// many batches of another desk, and a small part of `QUEUE_WAIT_MAX`. A desk that does not get the lease
/// in this time is one of very many, or waits for one that has stopped.
pub const LEASE_WAIT_MAX: Duration = Duration::from_millis(250);

/// Maximum time that a desk keeps a lease for which no other desk is known to wait. Then it releases the
/// lease and requests it again, in case the notification of a waiter was lost.
pub(crate) const LEASE_KEEP_MAX: Duration = Duration::from_secs(5);

/// Maximum duration of a lease: the time that a desk keeps it, and a batch of maximum duration including the
/// resolution of its outcome. A desk that hangs for longer has lost the lease.
pub(crate) const LEASE_DURATION_MAX: Duration = Duration::from_secs(15);

const _: () = assert!(
    LEASE_KEEP_MAX.as_millis() + 2 * store::TRANSACTION_MAX.as_millis() < LEASE_DURATION_MAX.as_millis(),
    "no lease expires during a batch"
);

const _: () = assert!(
    store::TRANSACTION_MAX.as_millis() < QUEUE_WAIT_MAX.as_millis(),
    "a transaction that hangs times out before the commands behind it do"
);

/// Number of bookings in one page of a chore: half a batch, so that sales have the other half.
pub(crate) const CHORE_PAGE: u32 = 512;

/// Number of times that the clean-up skips a booking that another request has locked: once, so that a hold is
/// freed within two rounds even if that request hangs.
pub(crate) const SKIPS_MAX: u8 = 1;

/// Number of bookings of an event that a chore fails to change in one run, without a success, before it
/// leaves the others of the event to the next run: most likely the event itself is the cause.
pub(crate) const EVENT_FAILURES_MAX: u32 = 8;

/// Maximum number of failed bookings for which a chore remembers a backoff; further ones are tried in every
/// run.
pub(crate) const BACKOFF_BOOKINGS_MAX: usize = 10_000;

/// Maximum number of runs of a chore that skip a failed booking.
pub(crate) const BACKOFF_ROUNDS_MAX: u32 = 64;

/// Interval in which expired idempotency keys are deleted: short compared with the day for which they are
/// stored.
pub(crate) const KEY_EXPIRY_EVERY: Duration = Duration::from_mins(10);

/// Interval in which the wall clock is compared with the monotonic clock.
pub(crate) const CLOCK_CHECK_EVERY: Duration = Duration::from_secs(10);

/// Minimum jump of the clock that is reported: larger than the steps of a time daemon, and a part of the
/// shortest common hold.
pub(crate) const CLOCK_JUMP_MIN: Duration = Duration::from_mins(1);

/// Interval in which watched events are polled: two polls fit into the half second that subscribers are
/// guaranteed.
pub(crate) const WATCH_EVERY: Duration = Duration::from_millis(250);

/// Number of ledger entries, or events, in one page of the relay: some 500 kB.
pub(crate) const RELAY_PAGE: u32 = 512;

/// Maximum number of events that are published concurrently, with one message in flight for each: enough to
/// saturate a connection.
pub const RELAY_EVENTS_MAX: usize = 256;

/// Maximum number of events with a pending wake-up; the scan of the ledgers finds further ones.
pub const RELAY_WAKEUPS_MAX: usize = 10_000;

/// Interval in which the relay scans the ledgers for entries without a wake-up: half of the guaranteed lag.
pub(crate) const RELAY_SCAN_EVERY: Duration = Duration::from_secs(1);

/// Interval in which the relay verifies that the stream still exists and is complete.
pub(crate) const RELAY_CHECK_EVERY: Duration = Duration::from_secs(5);

/// Minimum time between two saves of the relay's cursors: each save is a flush to disk.
pub(crate) const RELAY_SAVE_EVERY: Duration = Duration::from_millis(500);

/// Maximum time that one request of a standby relay for the lock waits in the queue.
pub(crate) const RELAY_LOCK_WAIT_MAX: Duration = Duration::from_secs(2);

/// Time before a relay retries after an error that an operator has to fix.
pub(crate) const RELAY_OPERATOR_BACKOFF: Duration = Duration::from_secs(2);

/// Maximum jitter before a relay retries after the stream has rejected a message: longer than the active
/// relay needs for its next message.
pub(crate) const RELAY_JITTER_MAX: Duration = Duration::from_secs(2);

/// Maximum duration of a relay's leadership; then a waiting relay may take over.
pub(crate) const RELAY_LEADERSHIP_MAX: Duration = Duration::from_mins(10);

/// Maximum age of an entry for which a notification is published to clients that do not read the stream.
pub(crate) const NOTIFICATION_AGE_MAX: Duration = Duration::from_mins(5);

/// Maximum time that entries may be pending while none is published; then the relay is reported as failed.
/// With the pauses between two counts, this is detected within 30 s.
pub(crate) const RELAY_STALL_MAX: Duration = Duration::from_secs(25);
