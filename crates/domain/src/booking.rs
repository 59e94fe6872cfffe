//! One user's claim on tickets of one event, for its whole life.

use std::fmt;
use std::str::FromStr;

use crate::{BookingId, EventId, Money, Name, Note, TicketTypeId, Timestamp, TransactionId, UserId};

/// A booking: a fixed part, and a state that carries what exists in that state only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booking {
    /// Names the booking for its whole life.
    pub id: BookingId,
    /// What is attended.
    pub event_id: EventId,
    /// Who booked.
    pub user: UserId,
    /// What was booked, at the prices of that moment.
    pub items: Items,
    /// The price of all items.
    pub total: Money,
    /// From when on the tickets may be freed if unpaid. Never extended.
    pub hold_expires_at: Timestamp,
    /// How the buyer means to pay, as the caller said.
    pub payment_method: Option<Note>,
    /// Where the booking stands.
    pub state: State,
    /// Counts the changes of this booking, from 1; guards every write.
    pub version: u32,
    /// The number of its last ledger entry, where a walk back through its history begins.
    pub last_seq: u64,
    /// When it was booked.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Where a booking stands. Which state may follow which is written in [`crate::decide()`] and printed in
/// `docs/booking-states.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Holds tickets, unpaid.
    Pending,
    /// Holds tickets, paid.
    Confirmed(Payment),
    /// Given up by its user, the organiser or a service; holds nothing.
    Cancelled {
        /// When it was given up.
        at: Timestamp,
        /// Why, as the caller said.
        reason: Option<Note>,
        /// The payment it had, which is to be given back.
        payment: Option<Payment>,
        /// Whether the payment has been given back.
        refunded: bool,
    },
    /// Freed because it was never paid in time; holds nothing.
    Expired {
        /// When it was freed.
        at: Timestamp,
    },
}

/// The payment that confirmed a booking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The payment provider's name for it.
    pub transaction: TransactionId,
    /// When it confirmed the booking.
    pub at: Timestamp,
}

/// The state of a booking without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BookingStatus {
    /// See [`State::Pending`].
    Pending,
    /// See [`State::Confirmed`].
    Confirmed,
    /// See [`State::Cancelled`].
    Cancelled,
    /// See [`State::Expired`].
    Expired,
}

/// Where the money of a booking stands; follows from its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PaymentStatus {
    /// Not yet paid.
    Pending,
    /// Paid.
    Paid,
    /// Never paid, and no longer due.
    Failed,
    /// Paid, and to be given back.
    RefundRequested,
    /// Given back.
    Refunded,
}

/// One ticket type of a booking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which ticket type.
    pub ticket_type: TicketTypeId,
    /// What it was called when booked.
    pub name: Name,
    /// How many tickets, at least 1.
    pub quantity: u32,
    /// What one cost when booked.
    pub unit_price: Money,
}

/// The items of a booking: at least one, sorted by ticket type, each ticket type once. The sort is the
/// order in which rows are locked, so that two bookings cannot wait for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Items(Vec<Item>);

impl Items {
    /// Sorts the items; `None` when there are none, one has quantity 0 or a ticket type stands twice.
    pub fn new(mut items: Vec<Item>) -> Option<Self> {
        items.sort_unstable_by_key(|item| item.ticket_type);
        let distinct = items.windows(2).all(|pair| pair[0].ticket_type != pair[1].ticket_type);
        let positive = items.iter().all(|item| item.quantity > 0);
        (distinct && positive && !items.is_empty()).then_some(Self(items))
    }

    /// All tickets together.
    pub fn quantity(&self) -> u32 {
        self.0.iter().fold(0, |sum, item| sum.saturating_add(item.quantity))
    }
}

impl std::ops::Deref for Items {
    type Target = [Item];

    fn deref(&self) -> &[Item] {
        &self.0
    }
}

impl Booking {
    /// The state without its data.
    pub fn status(&self) -> BookingStatus {
        match self.state {
            State::Pending => BookingStatus::Pending,
            State::Confirmed(_) => BookingStatus::Confirmed,
            State::Cancelled { .. } => BookingStatus::Cancelled,
            State::Expired { .. } => BookingStatus::Expired,
        }
    }

    /// Where the money stands.
    pub fn payment_status(&self) -> PaymentStatus {
        match &self.state {
            State::Pending => PaymentStatus::Pending,
            State::Confirmed(_) => PaymentStatus::Paid,
            State::Cancelled { payment: None, .. } | State::Expired { .. } => PaymentStatus::Failed,
            State::Cancelled { refunded: false, .. } => PaymentStatus::RefundRequested,
            State::Cancelled { refunded: true, .. } => PaymentStatus::Refunded,
        }
    }

    /// The payment that confirmed it, also after it was cancelled.
    pub fn payment(&self) -> Option<&Payment> {
        match &self.state {
            State::Confirmed(payment) => Some(payment),
            State::Cancelled { payment, .. } => payment.as_ref(),
            State::Pending | State::Expired { .. } => None,
        }
    }

    /// Whether it is an unpaid hold whose time has passed.
    pub fn overdue(&self, now: Timestamp) -> bool {
        self.state == State::Pending && self.hold_expires_at <= now
    }
}

impl BookingStatus {
    /// All four, in the order of a booking's life.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Confirmed, Self::Cancelled, Self::Expired];

    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for BookingStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BookingStatus {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let wanted = Self::ALL.into_iter().find(|status| status.as_str() == word);
        wanted.ok_or("must be pending, confirmed, cancelled or expired")
    }
}

impl PaymentStatus {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Paid => "paid",
            Self::Failed => "failed",
            Self::RefundRequested => "refundRequested",
            Self::Refunded => "refunded",
        }
    }
}
