//! Every bound of the engine, with its reason.

use std::time::Duration;

/// Most commands that wait for their turn: some seconds of work, and some ten megabytes. One more is
/// refused at once, which serves its sender better than a wait that ends in a refusal.
pub const QUEUE_MAX: usize = 16_384;

/// Longest wait of a command for its turn. One still queued then never runs: its sender is about to give
/// up, and a booking nobody knows of would hold tickets for nothing.
pub const QUEUE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Reads under way at once of each kind of callers: users, addresses and services. The database has more connections
/// than all of these together; the others are for commands, readiness and background tasks.
pub(crate) const KIND_READS_MAX: usize = 3;

/// Reads of one caller under way at once: fewer than its kind has, so that slow ones leave room for others.
pub(crate) const CALLER_READS_MAX: usize = 2;

/// Reads of one caller that wait or are under way: as many as requests over NATS may be, whose gateway is one caller,
/// as is everybody behind a proxy that is not trusted.
pub const CALLER_READS_QUEUED_MAX: usize = 4_096;

/// Longest wait of a read for its slot. What is left of [`READ_MAX`] is for the read itself.
pub const READ_WAIT_MAX: Duration = Duration::from_secs(2);

/// Longest time until a read of a caller is answered; one that is not finished by then is answered as unavailable.
pub const READ_MAX: Duration = Duration::from_secs(5);

const _: () = assert!(
    3 * KIND_READS_MAX + 3 <= store::READERS && CALLER_READS_MAX < KIND_READS_MAX,
    "reads of callers leave connections for commands, readiness and background tasks, and those of one caller leave \
     one for others"
);
const _: () = assert!(
    READ_WAIT_MAX.as_millis() + store::STATEMENT_MAX.as_millis() <= READ_MAX.as_millis(),
    "a read that waited as long as it may has time for its statement"
);

/// Bookings that are read at a time on the way to a page that is reached by number.
pub(crate) const NUMBERED_STEP: u32 = 100;

/// Most such steps for one page: some tens of milliseconds.
pub(crate) const NUMBERED_STEPS_MAX: u32 = 100;

/// Reads of the relay under way at once, of the connections that are left for commands, readiness and it.
pub(crate) const RELAY_READS_MAX: usize = 2;

/// Longest wait for `booking:{id}` before a confirmation or cancellation goes on without it. The lock
/// spares the database repeated work; the database alone decides who wins.
pub const BOOKING_LOCK_WAIT_MAX: Duration = Duration::from_millis(250);

const _: () = assert!(
    BOOKING_LOCK_WAIT_MAX.as_millis() < QUEUE_WAIT_MAX.as_millis(),
    "a lock is only a part of a turn"
);

/// Longest wait of commands for the lease of their event, `event:{id}`, before they go on without it: many batches of
/// another desk, and a small part of a turn. A desk that does not get it in this time is one of very many, or waits
/// for one that has stopped.
pub const LEASE_WAIT_MAX: Duration = Duration::from_millis(250);

/// Longest time that a desk keeps a lease nobody else is known to wait for; then it gives it up and asks anew, in case
/// nobody has told it.
pub(crate) const LEASE_KEPT_MAX: Duration = Duration::from_secs(5);

/// Longest time that a desk may own a lease: what it keeps, and a batch that takes as long as it may, with finding
/// out what became of it. A desk that hangs for longer has lost it.
pub(crate) const LEASE_DURATION_MAX: Duration = Duration::from_secs(15);

const _: () = assert!(
    LEASE_KEPT_MAX.as_millis() + 2 * store::TRANSACTION_MAX.as_millis() < LEASE_DURATION_MAX.as_millis(),
    "no lease ends in the middle of a batch"
);

const _: () = assert!(
    store::TRANSACTION_MAX.as_millis() < QUEUE_WAIT_MAX.as_millis(),
    "a transaction that hangs is given up before those behind it have waited in vain"
);

/// Bookings that a chore takes up at a time: half a batch, so that sales have the other half.
pub(crate) const CHORE_PAGE: u32 = 512;

/// How often the clean-up leaves a booking alone because somebody is working on it: once, so that even behind
/// a request that hangs a hold is freed within two rounds.
pub(crate) const SKIPS_MAX: u8 = 1;

/// Bookings of an event that a chore finds impossible to change in one run, with none that succeeds, before it leaves
/// the event's others for the next run: most likely the event itself is at fault.
pub(crate) const EVENT_FAILURES_MAX: u32 = 8;

/// Bookings that a chore remembers as impossible to change; more are tried every run.
pub(crate) const BACKOFF_BOOKINGS_MAX: usize = 10_000;

/// Most runs of a chore that skip a booking which could not be changed.
pub(crate) const BACKOFF_ROUNDS_MAX: u32 = 64;

/// How often the janitor tidies up: often enough that a day's answers are not two days'.
pub(crate) const KEY_EXPIRY_EVERY: Duration = Duration::from_mins(10);

/// How often the wall clock is compared with the monotonic one.
pub(crate) const CLOCK_CHECK_EVERY: Duration = Duration::from_secs(10);

/// The smallest jump of the clock that is reported: beyond what a daemon corrects step by step, and a part of the
/// shortest usual hold.
pub(crate) const CLOCK_JUMP_MIN: Duration = Duration::from_mins(1);

/// How often watched events are looked at: twice within the half second that watchers are promised.
pub(crate) const WATCH_EVERY: Duration = Duration::from_millis(250);

/// Ledger entries, or events, that the relay reads at a time: some 500 kB.
pub(crate) const RELAY_PAGE: u32 = 512;

/// Most events whose messages are on their way to the stream, one of each: enough to fill a connection.
pub const RELAY_EVENTS_MAX: usize = 256;

/// Most events that wait to be looked at because their ledgers have grown; more are found in the ledger.
pub const RELAY_WAKEUPS_MAX: usize = 10_000;

/// How often the relay looks for ledgers that have grown unnoticed: half of the lag that is promised.
pub(crate) const RELAY_SCAN_EVERY: Duration = Duration::from_secs(1);

/// How often the relay looks whether the stream is still there and whole.
pub(crate) const RELAY_CHECK_EVERY: Duration = Duration::from_secs(5);

/// How often the relay writes down how far it has got: each time is a flush to disk.
pub(crate) const RELAY_SAVE_EVERY: Duration = Duration::from_millis(500);

/// How long a relay that is not needed, or not able, waits before it looks again.
pub(crate) const RELAY_STANDBY: Duration = Duration::from_secs(2);

/// Longest turn of a relay; then whoever waits may be next.
pub(crate) const RELAY_LEADERSHIP_MAX: Duration = Duration::from_mins(10);

/// Oldest entry that is announced to those who do not read the stream: later it is no news.
pub(crate) const NOTIFICATION_AGE_MAX: Duration = Duration::from_mins(5);

/// Longest time that entries may wait while none is published; then the relay is in trouble, whatever it says. With
/// the pauses between two counts, that is noticed within 30 s.
pub(crate) const RELAY_STALL_MAX: Duration = Duration::from_secs(25);
