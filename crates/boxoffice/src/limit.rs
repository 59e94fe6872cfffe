//! The bounds of the HTTP API and the NATS gateway, each with its reason.

use std::time::Duration;

/// Maximum size of a request body, in bytes: ten times the largest sensible one (an event with 50 ticket
/// types).
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;
/// Maximum size of a request head, in bytes: a token, one or two cookies, and a margin.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Maximum size of a bearer token, in bytes: the size limit of a cookie.
pub(crate) const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Maximum wait for a request head, also between two requests of a connection: a slow or idle client must
/// not keep its connection permit.
pub(crate) const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
/// Maximum wait for a request body.
pub(crate) const BODY_WAIT_MAX: Duration = Duration::from_secs(10);
/// Maximum wait for a client to read part of a response.
pub(crate) const WRITE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Maximum wait for the peer to close a connection after this side has closed it.
pub(crate) const LINGER_WAIT_MAX: Duration = Duration::from_secs(1);
/// Maximum number of bytes that are read from an already refused request before its connection is closed.
pub(crate) const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Maximum number of concurrent connections: some 30 kB each. More wait in the listener's backlog.
pub(crate) const CONNECTIONS_MAX: usize = 16_384;
/// Maximum number of connections of one address. Loopback addresses are exempt: a local proxy forwards all
/// clients.
pub(crate) const CONNECTIONS_PER_ADDRESS_MAX: usize = 512;
/// Rows of a list if the request has no `limit`.
pub(crate) const LIST_ROWS_DEFAULT: u32 = 20;
/// Maximum number of rows of a list.
pub(crate) const LIST_ROWS_MAX: u32 = 100;
/// Minimum length of a token-signing secret, in bytes: the size of the digest (RFC 7518 §3.2).
pub(crate) const SECRET_BYTES_MIN: usize = 32;
/// `Retry-After`, in seconds, where no better estimate is known.
pub(crate) const RETRY_SECONDS: u64 = 1;
/// Maximum length of an idempotency key, in characters.
pub(crate) const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// Maximum number of requests over NATS in flight: some 20 kB each, and a quarter of the desk's queue.
pub(crate) const NATS_REQUESTS_MAX: usize = 4_096;
/// Maximum age of a request over NATS, by its own timestamp. The client of an older one has timed out.
pub(crate) const NATS_REQUEST_AGE_MAX: Duration = Duration::from_secs(15);
/// Rows of a list over NATS if the request has no `limit`: the default of the MongoDB booking service whose
/// subjects the gateway serves.
pub(crate) const NATS_LIST_ROWS_DEFAULT: u32 = 10;
/// Maximum number of bookings that a list over NATS counts, and that its pages reach. Its pages are numbered,
/// so the cost of a page grows with the rows before it.
pub(crate) const NATS_LIST_ROWS_COUNTED_MAX: u32 = 10_000;
/// Maximum wait at shutdown for sent messages to reach NATS.
pub(crate) const NATS_FLUSH_WAIT_MAX: Duration = Duration::from_secs(2);
/// Maximum wait of the relay for a JetStream reply or a publish ack.
pub(crate) const RELAY_REPLY_WAIT_MAX: Duration = Duration::from_secs(2);
/// Maximum number of concurrent availability streams: some 20 kB each.
pub(crate) const STREAMS_MAX: usize = 10_000;
/// Maximum number of availability streams of one address. Loopback addresses are exempt: a local proxy
/// forwards all clients.
pub(crate) const STREAMS_PER_ADDRESS_MAX: usize = 200;
/// Interval of heartbeats on an idle availability stream: proxies close idle connections after a minute or
/// less.
pub(crate) const STREAM_HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
