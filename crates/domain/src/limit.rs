//! The bounds of the domain, each with its reason. Units come last in a name.

/// Maximum number of tickets of one event: the sum of two counts still fits into 32 bits.
pub const CAPACITY_MAX: u32 = 1_000_000_000;
/// Maximum number of ticket types of one event: each is a row in every batch that touches the event.
pub const TICKET_TYPES_MAX: usize = 50;
/// Maximum price of one ticket, in minor units.
pub const PRICE_MAX: i64 = 1_000_000_000_000;
/// Maximum amount of a booking, in minor units: the largest integer that every JSON parser represents exactly
/// (2⁵³ − 1, RFC 8259 §6).
pub const AMOUNT_MAX: i64 = 9_007_199_254_740_991;
/// Minimum hold, in seconds.
pub const HOLD_SECONDS_MIN: u32 = 1;
/// Maximum hold, in seconds: 30 days.
pub const HOLD_SECONDS_MAX: u32 = 2_592_000;
/// Maximum cancellation cut-off, in seconds: ten years, so that a start minus a cut-off stays in range.
pub const CANCEL_CUTOFF_SECONDS_MAX: u32 = 315_360_000;
/// Maximum number of tickets of one booking if the event does not specify it.
pub const TICKETS_PER_BOOKING_DEFAULT: u32 = 10;
/// Maximum length of a name, venue, reason or reference, in characters.
pub const TEXT_CHARS_MAX: usize = 200;
/// Maximum number of keys in a booking's metadata: enough for references into other systems; it is not a
/// document store.
pub const METADATA_KEYS_MAX: usize = 20;
/// Maximum length of a key in a booking's metadata, in characters.
pub const METADATA_KEY_CHARS_MAX: usize = 100;
/// Maximum length of a value in a booking's metadata, in bytes. As JSON it has at most twice as many, so a
/// page of 100 bookings with full metadata stays below 3 MB.
pub const METADATA_VALUE_BYTES_MAX: usize = 500;
/// Maximum length of a user id, in characters (all ASCII).
pub const USER_ID_CHARS_MAX: usize = 128;
/// Maximum length of a request id, in characters (all ASCII).
pub const REQUEST_ID_CHARS_MAX: usize = 128;
/// Maximum length of a kind or a status in the ledger that this version does not know, in characters (all
/// ASCII): such a text is published and logged, so a corrupt one must not be large.
pub const LEDGER_WORD_CHARS_MAX: usize = 64;
/// Maximum number of kinds that an audit counts separately because this version does not know them: a corrupt
/// ledger must not let the report grow.
pub const UNKNOWN_KINDS_MAX: usize = 100;

const _: () = assert!(CAPACITY_MAX <= u32::MAX / 2, "held + sold must not overflow 32 bits");
const _: () = assert!(PRICE_MAX < AMOUNT_MAX, "one ticket can always be paid for");
