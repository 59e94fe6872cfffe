//! The protocol, searched exhaustively: every order in which a few clients, webhooks and chores can meet on
//! one event with two bookings, with locks that vanish and a process that dies at any step.
//!
//! What a command does is asked of the real [`domain::decide()`]; only locks, transactions and the guards of
//! the writes are modelled. A search ends with all states seen, or with the shortest way to a broken promise.

mod rules;
mod search;

pub use rules::Response;
pub use search::{Counterexample, SearchStats, search};

/// The tickets and bookings of a search: small, so that all orders can be tried.
#[derive(Clone, Copy, Debug)]
pub struct ModelConfig {
    /// Tickets of the event, 1 or 2.
    pub capacity: u8,
    /// Whether both bookings are one user's, who may hold one ticket.
    pub one_user: bool,
    /// What is going on, each once.
    pub operations: &'static [Operation],
}

/// Something that happens once. A number names a booking: 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Somebody orders one ticket.
    Book(usize),
    /// A payment, 0 or 1, is reported.
    Confirm(usize, usize),
    /// Its user gives the booking up.
    Cancel(usize),
    /// Somebody else tries to.
    CancelForeign(usize),
    /// The clean-up comes by.
    Expire(usize),
    /// The organiser cancels the event.
    CancelEvent,
    /// The bookings of a cancelled event are cancelled.
    CancelEventBooking(usize),
}

/// Where a deed stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// It has not begun.
    Ahead,
    /// It has the lock of its booking, or has given up waiting for it.
    Asked,
    /// Its transaction has read.
    Read,
    /// It was answered.
    Over,
    /// Its process has died; nobody heard anything.
    Dead,
}

/// A booking as it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum BookingState {
    #[default]
    Absent,
    Pending,
    /// By this payment.
    Confirmed(u8),
    /// With the payment that it had.
    Cancelled(Option<u8>),
    Expired,
}

/// Everything that is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Db {
    pub(crate) ended: bool,
    pub(crate) held: u8,
    pub(crate) sold: u8,
    pub(crate) seq: u8,
    pub(crate) bookings: [BookingState; 2],
    pub(crate) versions: [u8; 2],
    /// Refunds by booking and payment: the reason, counted from 1; 0 for none.
    pub(crate) refunds: [[u8; 2]; 2],
}
