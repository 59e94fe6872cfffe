//! The bounds that are the same over each transport, each with its reason.

/// Maximum size of a request body, in bytes: ten times the largest sensible one (an event with 50 ticket
/// types).
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Rows of a list if the request has no `limit`.
pub const LIST_ROWS_DEFAULT: u32 = 20;
/// Maximum number of rows of a list.
pub const LIST_ROWS_MAX: u32 = 100;
/// `Retry-After`, in seconds, where no better estimate is known.
pub(crate) const RETRY_SECONDS: u64 = 1;
/// Maximum length of an idempotency key, in characters.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
