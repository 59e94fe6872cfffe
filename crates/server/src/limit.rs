//! Every bound of the front door, with its reason.

use std::time::Duration;

/// Largest request body, in bytes: ten times the largest sensible one (an event with 50 ticket types).
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;
/// Largest request head, in bytes: a token, a cookie or two, and room.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Largest bearer token, in bytes: what fits a cookie.
pub(crate) const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Longest wait for a request head, also between two requests of a connection: a slow or idle sender must
/// not keep its place.
pub(crate) const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a request body.
pub(crate) const BODY_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a reader to take some of an answer.
pub(crate) const WRITE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest wait, when a connection is closed, for the peer to close it, too.
pub(crate) const LINGER_WAIT_MAX: Duration = Duration::from_secs(1);
/// Most bytes, when a connection is closed, that are still read of a request that was refused early.
pub(crate) const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Most connections at once: some 30 kB each. More wait in the listener's backlog.
pub(crate) const CONNECTIONS_MAX: usize = 16_384;
/// Most connections of one address; not of this machine's own, where a proxy speaks for everybody.
pub(crate) const CONNECTIONS_PER_ADDRESS_MAX: usize = 512;
/// Rows of a list where the caller does not say.
pub(crate) const LIST_ROWS_DEFAULT: u32 = 20;
/// Most rows of a list.
pub(crate) const LIST_ROWS_MAX: u32 = 100;
/// Fewest bytes of a secret that signs tokens: as many as the digest has (RFC 7518 §3.2).
pub(crate) const SECRET_BYTES_MIN: usize = 32;
/// Seconds after which a refused caller may come again when the service cannot say better.
pub(crate) const RETRY_SECONDS: u64 = 1;
/// Longest idempotency key, in characters.
pub(crate) const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// Most requests over NATS under way at once: some 20 kB each, and a quarter of what may wait for its turn.
pub(crate) const NATS_REQUESTS_MAX: usize = 4_096;
/// Oldest request over NATS that is still carried out, by its own timestamp: whoever sent it has given up.
pub(crate) const NATS_REQUEST_AGE_MAX: Duration = Duration::from_secs(15);
/// Rows of a list over NATS where the caller does not say: what the original service answered.
pub(crate) const NATS_LIST_ROWS_DEFAULT: u32 = 10;
/// Bookings of a list over NATS that are counted, and that pages reach: its pages are numbered, so each one
/// costs what lies before it.
pub(crate) const NATS_LIST_REACH: u32 = 10_000;
/// Longest wait, when the program is told to stop, for what was sent to reach NATS.
pub(crate) const NATS_FLUSH_WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest wait of the relay for an answer of the stream.
pub(crate) const RELAY_REPLY_WAIT_MAX: Duration = Duration::from_secs(2);
/// Most live streams at once: some 20 kB each.
pub(crate) const STREAMS_MAX: usize = 10_000;
/// Most live streams of one address; not of this machine's own, where a proxy speaks for everybody.
pub(crate) const STREAMS_PER_ADDRESS_MAX: usize = 200;
/// How often a quiet stream says that it is alive; proxies give up after a minute or less.
pub(crate) const STREAM_HEARTBEAT: Duration = Duration::from_secs(15);
