//! Bookings: one user's tickets of one event, and their states.

use crate::string_enum::string_enum;
use crate::{
    BookingId, EventId, ExternalRef, Metadata, Money, Name, Note, TicketTypeId, Timestamp, TransactionId,
    UserId,
};

/// A booking: a fixed part, and a state that contains only the data of that state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booking {
    /// The id; it never changes.
    pub id: BookingId,
    /// The event whose tickets are booked.
    pub event_id: EventId,
    /// The user who owns the booking.
    pub user: UserId,
    /// The booked tickets, at the prices at the time of booking.
    pub items: Items,
    /// The total price of the items.
    pub total: Money,
    /// The instant from which on the booking may expire if unpaid. Never extended.
    pub hold_expires_at: Timestamp,
    /// The intended payment method, as given by the caller.
    pub payment_method: Option<Note>,
    /// The caller's own id of the booking. No other booking of the event has it, whatever its status.
    pub external_ref: Option<ExternalRef>,
    /// Texts of the caller, which no rule reads.
    pub metadata: Metadata,
    /// The state of the booking.
    pub state: State,
    /// The number of changes of this booking, from 1; every write is conditional on it.
    pub version: u32,
    /// The number of the booking's last ledger entry, from which its history is followed backwards.
    pub last_seq: u64,
    /// The time at which the booking was made.
    pub created_at: Timestamp,
    /// The time of the last change.
    pub updated_at: Timestamp,
}

/// The state of a booking. The allowed transitions are implemented in [`crate::decide()`] and documented in
/// `docs/booking-states.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Has tickets, unpaid.
    Pending,
    /// Has tickets, paid.
    Confirmed(Payment),
    /// Cancelled by its user, the organiser or a service; has no tickets.
    Cancelled {
        /// The time of the cancellation.
        at: Timestamp,
        /// The reason, as given by the caller.
        reason: Option<Note>,
        /// The payment of the booking, which is to be refunded.
        payment: Option<Payment>,
        /// True if the payment has been refunded.
        refunded: bool,
    },
    /// Freed because it was not paid in time; has no tickets.
    Expired {
        /// The time of the expiry.
        at: Timestamp,
    },
}

/// The payment that confirmed a booking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The payment provider's id of the payment.
    pub transaction: TransactionId,
    /// The time at which the payment confirmed the booking.
    pub at: Timestamp,
}

string_enum! {
    /// The state of a booking, without its data.
    BookingStatus("must be pending, confirmed, cancelled or expired") {
        /// See [`State::Pending`].
        Pending = "pending",
        /// See [`State::Confirmed`].
        Confirmed = "confirmed",
        /// See [`State::Cancelled`].
        Cancelled = "cancelled",
        /// See [`State::Expired`].
        Expired = "expired",
    }

    /// The payment status of a booking; it follows from its state.
    PaymentStatus {
        /// Not yet paid.
        Pending = "pending",
        /// Paid.
        Paid = "paid",
        /// Not paid, and no longer due.
        Failed = "failed",
        /// Paid, and to be refunded.
        RefundRequested = "refundRequested",
        /// Refunded.
        Refunded = "refunded",
    }
}

/// The tickets of one ticket type in a booking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The id of the ticket type.
    pub ticket_type: TicketTypeId,
    /// The name of the ticket type at the time of booking.
    pub name: Name,
    /// The number of tickets, at least 1.
    pub quantity: u32,
    /// The price of one ticket at the time of booking.
    pub unit_price: Money,
}

/// The items of a booking: at least one, sorted by ticket type, each ticket type once. This is also the order
/// in which rows are locked, so two bookings cannot deadlock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Items(Vec<Item>);

impl Items {
    /// Sorts the items; `None` if there are none, one has quantity 0 or a ticket type is repeated.
    pub fn new(mut items: Vec<Item>) -> Option<Self> {
        items.sort_unstable_by_key(|item| item.ticket_type);
        let distinct = items.windows(2).all(|pair| pair[0].ticket_type != pair[1].ticket_type);
        let positive = items.iter().all(|item| item.quantity > 0);
        (distinct && positive && !items.is_empty()).then_some(Self(items))
    }

    /// The total number of tickets.
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
    /// The state, without its data.
    pub fn status(&self) -> BookingStatus {
        match self.state {
            State::Pending => BookingStatus::Pending,
            State::Confirmed(_) => BookingStatus::Confirmed,
            State::Cancelled { .. } => BookingStatus::Cancelled,
            State::Expired { .. } => BookingStatus::Expired,
        }
    }

    /// The payment status, which follows from the state.
    pub fn payment_status(&self) -> PaymentStatus {
        match &self.state {
            State::Pending => PaymentStatus::Pending,
            State::Confirmed(_) => PaymentStatus::Paid,
            State::Cancelled { payment: None, .. } | State::Expired { .. } => PaymentStatus::Failed,
            State::Cancelled { refunded: false, .. } => PaymentStatus::RefundRequested,
            State::Cancelled { refunded: true, .. } => PaymentStatus::Refunded,
        }
    }

    /// The payment that confirmed the booking, even if the booking was cancelled later.
    pub fn payment(&self) -> Option<&Payment> {
        match &self.state {
            State::Confirmed(payment) => Some(payment),
            State::Cancelled { payment, .. } => payment.as_ref(),
            State::Pending | State::Expired { .. } => None,
        }
    }

    /// True if the booking is an unpaid hold that has expired at `now`.
    pub fn overdue(&self, now: Timestamp) -> bool {
        self.state == State::Pending && self.hold_expires_at <= now
    }
}
