//! Checks the history of client calls against the ledger.
//!
//! Every entry has the id of the request that caused it, and entries are numbered in the order in which they
//! took effect. Therefore a history of any length is checked in one pass over the calls and one over the
//! ledger, without a search for an order that explains it.
//!
//! Types use the terms of the API, so a history may come from clients over HTTP or from a simulation. Rules
//! about the ledger alone are not checked here but by the audit (`boxoffice audit`), which replays it.
//! Messages are checked by [`check_stream`]: a stream is also a list of [`LedgerRow`]s.

mod check;
mod payments;
mod stream;

use std::collections::BTreeMap;

pub use check::check;
pub use stream::check_stream;

/// One call of one client.
#[derive(Clone, Debug)]
pub struct Call {
    /// The request id in its ledger entries; unique.
    pub request: String,
    /// The actor, in the form of the ledger: `user:ada`.
    pub actor: String,
    /// The event, if the client knew it.
    pub event: Option<String>,
    /// The requested operation.
    pub operation: Operation,
    /// With an idempotency key: its scope, the key, and the digest of the request.
    pub key: Option<(String, String, u64)>,
    /// Time at which it was sent, in microseconds of a monotonic clock.
    pub start: u64,
    /// Time of the response; `None` without one.
    pub end: Option<u64>,
    /// The outcome, as the client observed it.
    pub outcome: Outcome,
}

/// The operation of a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Book tickets.
    Book {
        /// The owner of the booking.
        user: String,
        /// The number of tickets.
        quantity: u32,
    },
    /// Confirm a booking by a captured payment.
    Confirm {
        /// The booking's id.
        booking: String,
        /// The payment's transaction id.
        transaction: String,
        /// The captured amount in minor units, if it was sent.
        amount: Option<i64>,
    },
    /// Cancel a booking.
    Cancel {
        /// The booking's id.
        booking: String,
    },
    /// Record the result of a refund.
    Settle {
        /// The refund's id.
        refund: String,
    },
    /// Create, edit or cancel an event.
    Edit,
    /// Read the availability of an event.
    ReadAvailability,
}

/// The outcome of a [`Call`], as the client observed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Done(CallResult),
    /// It was refused and certainly had no effect, except that a payment that bought nothing is refunded.
    Refused {
        /// The code of the refusal.
        code: String,
        /// The refund in the refusal.
        refund: Option<String>,
    },
    /// It failed and certainly had no effect.
    Failed,
    /// Unknown: a timeout, a lost connection, or a 5xx that does not exclude an effect.
    Unknown,
}

/// The content of a successful response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallResult {
    /// The booking's id.
    pub booking: Option<String>,
    /// The booking's status.
    pub status: Option<String>,
    /// The refund's id.
    pub refund: Option<String>,
    /// True if it is the stored response to an earlier call under the same key.
    pub replayed: bool,
    /// For [`Operation::ReadAvailability`]: the number of the latest entry, and the tickets left.
    pub availability: Option<(u64, u32)>,
}

/// One entry of an event's ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// The event's id.
    pub event: String,
    /// The number in the ledger of the event.
    pub seq: u64,
    /// The kind, in the form of the API: `booking.created`.
    pub kind: String,
    /// The booking's id.
    pub booking: Option<String>,
    /// The refund's id.
    pub refund: Option<String>,
    /// The number of tickets affected.
    pub quantity: u32,
    /// The previous status.
    pub from: Option<String>,
    /// The tickets left after it.
    pub available_after: u32,
    /// The actor.
    pub actor: String,
    /// The id of the request that caused it.
    pub request: String,
    /// The time, in microseconds since the Unix epoch.
    pub at: i64,
}

/// A booking in the final state.
#[derive(Clone, Debug)]
pub struct BookingRow {
    /// The event's id.
    pub event: String,
    /// The owner.
    pub user: String,
    /// The status.
    pub status: String,
    /// The number of tickets.
    pub quantity: u32,
    /// The price in minor units.
    pub total: i64,
    /// The payment that confirmed it; also after a cancellation.
    pub transaction: Option<String>,
    /// The time of cancellation by the clock of the decision, in microseconds since the Unix epoch.
    pub cancelled_at: Option<i64>,
}

/// A refund in the final state.
#[derive(Clone, Debug)]
pub struct RefundRow {
    /// The booking's id.
    pub booking: String,
    /// The payment's transaction id.
    pub transaction: String,
    /// The amount in minor units.
    pub amount: i64,
}

/// The content of the database at the end.
#[derive(Clone, Debug, Default)]
pub struct FinalState {
    /// The entries of all ledgers, each ledger in its order.
    pub entries: Vec<LedgerRow>,
    /// All bookings, by id.
    pub bookings: BTreeMap<String, BookingRow>,
    /// All refunds, by id.
    pub refunds: BTreeMap<String, RefundRow>,
    /// The cut-off until which users may cancel paid bookings, in microseconds since the Unix epoch, by
    /// event.
    pub cut_offs: BTreeMap<String, i64>,
}
