//! An exhaustive model check of the protocol: every interleaving of a few clients, webhooks and chores on one
//! event with two bookings, with locks that are lost and one process that crashes at any step.
//!
//! The effect of a command comes from the real [`domain::decide()`]. Only locks, transactions and the guards
//! of the writes are modelled. A search ends with all states visited, or with a shortest path to a
//! violation of an invariant.

mod rules;
mod search;

pub use rules::Response;
pub use search::{Counterexample, SearchStats, search};

/// The event and the operations of a search: few, so that all interleavings can be visited.
#[derive(Clone, Copy, Debug)]
pub struct ModelConfig {
    /// Number of tickets of the event, 1 or 2.
    pub capacity: u8,
    /// True if both bookings belong to one user, with a limit of one ticket per user.
    pub one_user: bool,
    /// The concurrent operations. Each is executed at most once.
    pub operations: &'static [Operation],
}

/// An operation. The first number is the index of a booking, 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A user books one ticket.
    Book(usize),
    /// A webhook reports a payment; the second number is its index, 0 or 1.
    Confirm(usize, usize),
    /// The user of the booking cancels it.
    Cancel(usize),
    /// Another user tries to cancel the booking.
    CancelForeign(usize),
    /// The sweeper expires the booking.
    Expire(usize),
    /// The organiser cancels the event.
    CancelEvent,
    /// The chore cancels a booking of the cancelled event.
    CancelEventBooking(usize),
}

/// The phase of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    NotStarted,
    /// It has the lock of its booking, or continues without it after a timeout.
    Ready,
    /// Its transaction has read, and not yet written.
    Read,
    /// It has written and responded.
    Done,
    /// Its process has crashed without a response.
    Crashed,
}

/// The stored state of a booking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum BookingState {
    #[default]
    Absent,
    Pending,
    /// Paid by the payment with this index.
    Confirmed(u8),
    /// Cancelled, with the index of its payment if it was paid.
    Cancelled(Option<u8>),
    Expired,
}

/// The contents of the modelled database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Db {
    pub(crate) event_cancelled: bool,
    pub(crate) held: u8,
    pub(crate) sold: u8,
    pub(crate) seq: u8,
    pub(crate) bookings: [BookingState; 2],
    pub(crate) versions: [u8; 2],
    /// Refunds by booking and payment: the number of the reason, from 1; 0 for no refund.
    pub(crate) refunds: [[u8; 2]; 2],
}
