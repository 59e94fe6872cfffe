//! Every bound of the domain, with its reason. Units come last in a name.

/// Most tickets one event may hold: counts fit 32 bits with room to add two of them.
pub const CAPACITY_MAX: u32 = 1_000_000_000;
/// Most ticket types of one event: each is a row in every batch that touches the event.
pub const TICKET_TYPES_MAX: usize = 50;
/// Highest price of one ticket, in minor units.
pub const PRICE_MAX: i64 = 1_000_000_000_000;
/// Highest amount of a booking, in minor units: the largest integer that every JSON reader holds
/// exactly (2⁵³ − 1, RFC 8259 §6).
pub const AMOUNT_MAX: i64 = 9_007_199_254_740_991;
/// Shortest hold, in seconds.
pub const HOLD_SECONDS_MIN: u32 = 1;
/// Longest hold, in seconds: 30 days.
pub const HOLD_SECONDS_MAX: u32 = 2_592_000;
/// Longest cancellation cut-off, in seconds: ten years, so that a start minus a cut-off stays a date.
pub const CANCEL_CUTOFF_SECONDS_MAX: u32 = 315_360_000;
/// Tickets one booking may take where the event does not say.
pub const TICKETS_PER_BOOKING_DEFAULT: u32 = 10;
/// Longest name, venue, reason or reference, in characters.
pub const TEXT_CHARS_MAX: usize = 200;
/// Longest user id, in characters (all ASCII).
pub const USER_ID_CHARS_MAX: usize = 128;
/// Longest request id, in characters (all ASCII).
pub const REQUEST_ID_CHARS_MAX: usize = 128;

const _: () = assert!(CAPACITY_MAX <= u32::MAX / 2, "held + sold must not overflow 32 bits");
const _: () = assert!(PRICE_MAX < AMOUNT_MAX, "one ticket can always be paid for");
