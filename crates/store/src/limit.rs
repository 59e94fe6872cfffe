//! All limits of the store, each with its reason.

use std::time::Duration;

/// Number of read connections of a store. This many reads run concurrently; further reads wait.
pub const READERS: usize = 12;
/// Maximum number of commands in a batch. It bounds the time for which a transaction locks its rows (some
/// milliseconds).
pub const BATCH_MAX: usize = 1_024;
/// Maximum number of overdue holds that one batch frees for its orders. Orders that need more are requeued.
pub const OVERDUE_PER_BATCH_MAX: usize = 1_024;
/// Time for which a response is stored under its idempotency key, in seconds: one day.
pub const IDEMPOTENCY_TTL_SECONDS: u32 = 24 * 60 * 60;
/// Overdue holds fetched per query.
pub(crate) const OVERDUE_PAGE: u32 = 64;
/// Maximum number of pages of one event's overdue holds that a batch reads: enough for all holds that it may
/// free, and for three times as many that cannot be decoded or freed. If there are more of those, the event's
/// data is at fault, and no order waits until all are read.
pub(crate) const OVERDUE_PAGES_MAX: u32 = 64;
/// Number of a user's newest bookings that one filtered page reads, and that an order reads when it looks for
/// the user's own overdue holds.
pub(crate) const USER_WINDOW: u32 = 1_000;

/// Retries of a batch after conflicts with concurrent transactions. More conflicts in a row are not
/// accidental.
pub(crate) const CONFLICT_RETRIES_MAX: u32 = 8;
/// Splits of a batch because of locks: enough to isolate one locked event in a full batch. Bounds the time
/// spent if many events are locked.
pub(crate) const BLOCKED_SPLITS_MAX: u32 = 12;
/// Attempts of a batch over several events that may wait long, each for the events that have been unlocked
/// since the previous one: as many as there are short waits in a long one. The last event left is awaited in
/// the database's own lock queue.
pub(crate) const BUSY_TRIES_MAX: u32 = 8;
/// Longest wait of a batch for rows that another session has locked, before its commands on other events are
/// executed without the blocked ones. Many batches of another instance fit into it.
pub(crate) const LOCK_WAIT_SHORT_MAX: Duration = Duration::from_millis(250);
/// Longest wait of a statement for a row that another session has locked.
pub(crate) const LOCK_WAIT_LONG_MAX: Duration = Duration::from_secs(2);
/// Timeout of a statement, including its waits for locks.
pub const STATEMENT_MAX: Duration = Duration::from_secs(3);
/// Timeout of a transaction, from its beginning to its end as the client sees it. Shorter than the longest
/// time for which the engine queues a command, so that commands behind one slow transaction do not time out.
pub const TRANSACTION_MAX: Duration = Duration::from_secs(4);
/// Timeout for resolving the outcome of a COMMIT whose response was lost.
pub(crate) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay before a batch is retried after a conflict with a concurrent transaction.
pub(crate) const CONFLICT_PAUSE: Duration = Duration::from_millis(3);
/// Maximum wait of a batch for the replication of an earlier commit. Short: no batch can begin meanwhile,
/// and its senders soon get the reply that nothing was done.
pub(crate) const REPLICATION_WAIT_MAX: Duration = Duration::from_secs(1);
/// Timeout for opening a session, from the first packet to its last setting.
pub(crate) const SESSION_OPEN_MAX: Duration = Duration::from_secs(4);
/// Longest time for which a transaction waits for its client, enforced by the server: a stopped process must
/// not keep its rows locked.
pub(crate) const IDLE_IN_TRANSACTION_MAX: Duration = Duration::from_secs(1);
/// Base of the exponential backoff: it doubles with each failure to connect.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest backoff, and so the longest delay until a database that is available again is used.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Timeout for a connection, if the URL has no `connect_timeout`.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Idle time before the first TCP keepalive probe, which detects a silently lost peer.
pub(crate) const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Interval of the checks for the end of the backend, and of the attempts to connect.
pub(crate) const RESOLVE_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Longest wait for another migrator, which may be building an index on a large table.
pub(crate) const MIGRATOR_WAIT_MAX: Duration = Duration::from_mins(10);
/// Interval of the attempts to get the lock from another migrator.
pub(crate) const MIGRATOR_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait of a concurrent index build for transactions that began before it (a dump, an audit). No
/// other session waits behind it.
pub(crate) const INDEX_BUILD_WAIT_MAX: Duration = Duration::from_mins(1);
/// Maximum number of attempts to build the indexes of a script.
pub(crate) const INDEX_BUILDS_MAX: u32 = 3;
/// Longest wait of a script for a table lock: all sessions that need the table wait behind it. Shorter than
/// `deadlock_timeout` (1 s by default), so in a deadlock with a batch the script fails.
pub(crate) const TABLE_LOCK_WAIT_MAX: Duration = Duration::from_millis(500);
/// Maximum number of attempts of a script that did not get its table locks: about 12 s with the delays
/// between them.
pub(crate) const SCRIPT_TRIES_MAX: u32 = 10;
/// Number of entries whose bookings are checked together: some megabytes, and three statements.
pub(crate) const AUDIT_PAGE: i32 = 4_096;
/// Longest normal wait of a commit for its standbys. After it, the transaction's own timeout has passed, and
/// the standbys count as not responding.
pub(crate) const COMMIT_WAIT_MAX: Duration = TRANSACTION_MAX;

const _: () = assert!(
    LOCK_WAIT_LONG_MAX.as_millis() < STATEMENT_MAX.as_millis()
        && STATEMENT_MAX.as_millis() < TRANSACTION_MAX.as_millis(),
    "the inner wait must time out first, because its error names the cause"
);

const _: () = assert!(
    IDLE_IN_TRANSACTION_MAX.as_millis() < LOCK_WAIT_LONG_MAX.as_millis(),
    "a wait for rows that a stopped process has locked must outlast that transaction"
);
