//! The bounds of the crate, each with its reason.

use std::time::Duration;

/// Maximum length of a key's scope: a word or two.
pub(crate) const SCOPE_BYTES_MAX: usize = 32;

/// Maximum length of a key's id: enough for the subjects that identity providers issue.
pub(crate) const ID_BYTES_MAX: usize = 128;

/// Maximum length of a rule's name: it is a part of each key, and of response headers.
pub(crate) const RULE_NAME_BYTES_MAX: usize = 32;

/// Maximum number of attempts that a rule allows in its window. The time of every admission in the window is
/// stored, 8 bytes each; above this number an exact limit costs more than it is worth.
pub(crate) const RULE_LIMIT_MAX: u16 = 512;

/// Maximum window of a rule. A limit over weeks is a quota, and a quota must survive a restart.
pub(crate) const RULE_WINDOW_MAX: Duration = Duration::from_hours(24);

/// Maximum wait for a lock and maximum ownership; a larger option is reduced to it, so that no sum of times
/// overflows.
pub(crate) const LOCK_DURATION_MAX: Duration = Duration::from_hours(24);

/// Default wait for a lock: as long as a user does not notice it.
pub(crate) const LOCK_WAIT_DEFAULT: Duration = Duration::from_millis(250);

/// Default maximum ownership of a lock: longer than any transaction that it protects.
pub(crate) const LOCK_LEASE_DEFAULT: Duration = Duration::from_secs(10);

/// Default number of callers that may wait for a lock: a later one would not get it in time.
pub(crate) const LOCK_WAITERS_DEFAULT: usize = 1_000;

/// Number of keys that an attempt checks for idleness in the local limiter. An attempt adds at most one key,
/// so two would suffice; the others make up for keys that turn out to be in use and are scheduled again.
pub(crate) const IDLE_KEYS_CHECKED: usize = 4;

/// A queue of the local lock is compacted when its cancelled entries exceed the live ones by more than this,
/// so that a short queue is not compacted at each cancelled entry.
pub(crate) const CANCELLED_WAITERS_MAX: usize = 8;

/// Maximum length of an instance name: it is a part of the value of each lock on Redis.
pub(crate) const INSTANCE_BYTES_MAX: usize = 64;

/// Default lease of a lock on Redis: the time for which a key stays blocked after its process has ended.
pub(crate) const LEASE_DEFAULT: Duration = Duration::from_secs(2);

/// Minimum lease: a renewal after a third of it must have time for its round trip.
pub(crate) const LEASE_MIN: Duration = Duration::from_millis(100);

/// Default lease after a hand-over, until the new owner first renews it: several round trips.
pub(crate) const CLAIM_DEFAULT: Duration = Duration::from_millis(500);

/// Minimum lease after a hand-over: time for the notification and one renewal.
pub(crate) const CLAIM_MIN: Duration = Duration::from_millis(50);

const _: () = assert!(
    CLAIM_MIN.as_millis() <= LEASE_MIN.as_millis() && CLAIM_DEFAULT.as_millis() <= LEASE_DEFAULT.as_millis(),
    "the lease after a hand-over is not longer than a lease"
);

/// Default wait for a reply of Redis: a user is waiting for the response.
pub(crate) const REPLY_TIMEOUT_DEFAULT: Duration = Duration::from_millis(100);

/// Default timeout of an attempt to connect to Redis: a round trip and a TLS handshake, with a margin.
pub(crate) const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_millis(500);

/// Number of consecutive failed replies that open the circuit breaker. One slow reply is no outage, and three
/// cost a caller no more than a third of a second.
pub(crate) const FAILED_REPLIES_MAX: u32 = 3;

/// First pause between two attempts to connect: a restarted server is found at once.
pub(crate) const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(50);

/// Maximum pause between two attempts to connect; pauses double up to it. Callers continue without the server
/// for no longer than this after it is available again.
pub(crate) const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Minimum time for which a connection must last. One that is lost sooner counts as a failed attempt: a
/// server that accepts connections but fails every request must not be reconnected to in a loop without a
/// pause.
pub(crate) const STABLE_CONNECTION_MIN: Duration = Duration::from_millis(100);

/// Interval of health checks of the connection, which find an outage while there are no other requests.
pub(crate) const PING_EVERY: Duration = Duration::from_millis(500);

const _: () = assert!(
    RECONNECT_PAUSE_MIN.as_millis() < RECONNECT_PAUSE_MAX.as_millis()
        && STABLE_CONNECTION_MIN.as_millis() < PING_EVERY.as_millis(),
    "pauses can double, and a connection that passes its first health check is stable"
);

/// Maximum number of requests that wait to be written to Redis. The library's default of 50 would make many
/// concurrent callers wait.
pub(crate) const UNWRITTEN_REQUESTS_MAX: usize = 4_096;

/// Number of PINGs that an inspection measures: the fastest of them is the latency.
pub(crate) const PINGS_MEASURED: usize = 5;

/// Pause before the next attempt to subscribe: short, because grants are only polled until then.
pub(crate) const RESUBSCRIBE_PAUSE: Duration = Duration::from_millis(100);

/// Interval of the heartbeats that this instance publishes to its own channel. A heartbeat that does not
/// arrive before the next one is due shows that the subscription has failed.
pub(crate) const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);

/// Maximum number of commands that the lock task processes in one step of its event loop, so that every step
/// ends.
pub(crate) const COMMANDS_PER_STEP_MAX: usize = 512;

/// Maximum number of requests in one round trip of the lock task: a few milliseconds of the server's time.
pub(crate) const REQUESTS_PER_BATCH_MAX: usize = 512;

/// Maximum number of renewals among them. A hand-over waits for the reply to the batch in flight, and
/// renewals can wait; this number costs it a fraction of a millisecond. Ten thousand waiters still renew
/// within a tenth of a lease.
pub(crate) const RENEWALS_PER_BATCH_MAX: usize = 32;

const _: () =
    assert!(RENEWALS_PER_BATCH_MAX < REQUESTS_PER_BATCH_MAX, "renewals leave room for other requests");

/// Maximum number of milliseconds by which the polls of waiters for one key are spread, so that they do not
/// all arrive at once.
pub(crate) const POLL_SPREAD_MILLIS_MAX: u64 = 16;

/// Maximum number of cached refusals, at about 150 bytes each. Beyond that the oldest is evicted, which costs
/// one call of the other limiter.
pub(crate) const CACHED_REFUSALS_MAX: usize = 16_384;
