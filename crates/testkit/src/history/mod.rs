//! What clients did and heard, held against what the ledger says.
//!
//! Every change carries the name of the request that caused it, and the ledger is numbered in the order in
//! which changes took effect. With that witness a history of any length is judged in one pass over it and
//! one over the ledger; no search for an order that would explain it is needed.
//!
//! It speaks the words of the wire, so a history may come from clients over HTTP or from a simulation. What
//! the ledger alone can tell is not judged here but by the audit (`boxoffice audit`), which replays it.
//! Messages are judged beside it ([`check_stream`]): a stream is a list of [`Line`]s, too.

mod check;
mod payments;
mod stream;

use std::collections::BTreeMap;

pub use check::check;
pub use stream::check_stream;

/// One call of one client.
#[derive(Clone, Debug)]
pub struct Call {
    /// The name under which its changes stand in the ledger; unique.
    pub request: String,
    /// On whose behalf, as the ledger spells it.
    pub actor: String,
    /// The event that it concerns, where the client knew.
    pub event: Option<String>,
    /// What was asked.
    pub operation: Operation,
    /// Scope, key and digest of what was asked, where it was asked under an idempotency key.
    pub key: Option<(String, String, u64)>,
    /// When it was sent, in microseconds of a clock that never steps back.
    pub start: u64,
    /// When the answer came; unset where none came.
    pub end: Option<u64>,
    /// What was heard.
    pub outcome: Outcome,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Tickets.
    Book {
        /// Who will own the booking.
        user: String,
        /// How many tickets.
        quantity: u32,
    },
    /// A payment was captured.
    Confirm {
        /// The booking.
        booking: String,
        /// The payment.
        transaction: String,
        /// How much was captured, in minor units, where it was said.
        amount: Option<i64>,
    },
    /// To give a booking up.
    Cancel {
        /// The booking.
        booking: String,
    },
    /// To record what became of a refund.
    Settle {
        /// The refund.
        refund: String,
    },
    /// To make or edit an event.
    Edit,
    /// To see what is left of an event.
    ReadAvailability,
}

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done(CallResult),
    /// It was refused: definitely not done, except that a payment which bought nothing is given back.
    Refused {
        /// The code of the refusal.
        code: String,
        /// The refund that the refusal names.
        refund: Option<String>,
    },
    /// It failed: definitely not done.
    Failed,
    /// Nobody knows. Every time-out, cut connection and 5xx that does not say more.
    Unknown,
}

/// What an answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallResult {
    /// The booking.
    pub booking: Option<String>,
    /// Where the booking stands.
    pub status: Option<String>,
    /// The refund.
    pub refund: Option<String>,
    /// Whether it is the answer to an earlier call under the same key.
    pub replayed: bool,
    /// How far the ledger was, and what was left, for [`Ask::Look`].
    pub availability: Option<(u64, u32)>,
}

/// One entry of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// Its event.
    pub event: String,
    /// Its number in the ledger of the event.
    pub seq: u64,
    /// What happened, as the wire spells it: `booking.created`.
    pub kind: String,
    /// The booking.
    pub booking: Option<String>,
    /// The refund.
    pub refund: Option<String>,
    /// How many tickets moved.
    pub quantity: u32,
    /// The status before.
    pub from: Option<String>,
    /// Tickets left after it.
    pub available_after: u32,
    /// On whose behalf.
    pub actor: String,
    /// The request that caused it.
    pub request: String,
    /// When, in microseconds since the Unix epoch.
    pub at: i64,
}

/// A booking as it stands at the end.
#[derive(Clone, Debug)]
pub struct BookingRow {
    /// Its event.
    pub event: String,
    /// Who owns it.
    pub user: String,
    /// Where it stands.
    pub status: String,
    /// How many tickets.
    pub quantity: u32,
    /// What it costs, in minor units.
    pub total: i64,
    /// The payment that confirmed it, also after it was cancelled.
    pub transaction: Option<String>,
    /// When it was cancelled, by the clock that decided, in microseconds since the Unix epoch.
    pub cancelled_at: Option<i64>,
}

/// A refund as it stands at the end.
#[derive(Clone, Debug)]
pub struct RefundRow {
    /// The booking.
    pub booking: String,
    /// The payment.
    pub transaction: String,
    /// How much, in minor units.
    pub amount: i64,
}

/// What the database holds at the end.
#[derive(Clone, Debug, Default)]
pub struct FinalState {
    /// Every ledger, each in its own order.
    pub entries: Vec<LedgerRow>,
    /// Every booking, by id.
    pub bookings: BTreeMap<String, BookingRow>,
    /// Every refund, by id.
    pub refunds: BTreeMap<String, RefundRow>,
    /// Until when users may give back what they paid, in microseconds since the Unix epoch, by event.
    pub cut_offs: BTreeMap<String, i64>,
}
