//! The bounds of the NATS gateway and the event bus, each with its reason.

use std::time::Duration;

/// Maximum number of requests in flight: some 20 kB each, and a quarter of the desk's queue.
pub(crate) const REQUESTS_MAX: usize = 4_096;
/// Maximum age of a request, by its own timestamp. The client of an older one has timed out.
pub(crate) const REQUEST_AGE_MAX: Duration = Duration::from_secs(15);
/// Furthest deadline of a request, in microseconds: a day, because no command waits that long.
pub(crate) const DEADLINE_MICROS_MAX: u64 = 86_400_000_000;
/// Maximum length of a decimal number, in characters: the largest amount has 16 digits.
pub(crate) const DECIMAL_CHARS_MAX: usize = 64;
/// Rows of a list if the request has no `limit`: the default of the MongoDB booking service whose subjects
/// the gateway serves.
pub(crate) const LIST_ROWS_DEFAULT: u32 = 10;
/// Maximum number of bookings that a list counts, and that its pages reach. Its pages are numbered, so the
/// cost of a page grows with the rows before it.
pub(crate) const LIST_ROWS_COUNTED_MAX: u32 = 10_000;
/// Room for the headers of a reply within the `max_payload` of the server, which counts them, too.
pub(crate) const REPLY_HEADERS_BYTES_MAX: usize = 1_024;
/// Maximum wait on shutdown for the requests that NATS has already sent.
pub(crate) const DRAIN_WAIT_MAX: Duration = Duration::from_secs(2);
/// Maximum wait at shutdown for sent messages to reach NATS.
pub(crate) const FLUSH_WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest pause between two attempts to connect.
pub(crate) const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Maximum wait of the relay for a JetStream reply or a publish ack.
pub(crate) const RELAY_REPLY_WAIT_MAX: Duration = Duration::from_secs(2);
/// Maximum wait of an inspection for a connection, and for a reply: an operator waits for it.
pub(crate) const INSPECT_WAIT_MAX: Duration = Duration::from_secs(3);
