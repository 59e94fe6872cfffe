//! The bounds of the HTTP transport, each with its reason.

use std::time::Duration;

/// Maximum size of a request head, in bytes: a token, one or two cookies, and a margin.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Maximum size of a bearer token, in bytes: the size limit of a cookie.
pub(crate) const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Minimum length of a token-signing secret, in bytes: the size of the digest (RFC 7518 §3.2).
pub const SECRET_BYTES_MIN: usize = 32;
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
/// Maximum number of concurrent availability streams: some 20 kB each.
pub(crate) const STREAMS_MAX: usize = 10_000;
/// Maximum number of availability streams of one address. Loopback addresses are exempt: a local proxy
/// forwards all clients.
pub(crate) const STREAMS_PER_ADDRESS_MAX: usize = 200;
/// Interval of heartbeats on an idle availability stream: proxies close idle connections after a minute or
/// less.
pub(crate) const STREAM_HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
