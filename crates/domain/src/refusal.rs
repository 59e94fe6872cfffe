//! The ways in which the domain says no. A refusal is an answer, not an error: it is expected, carries
//! what the asker needs to go on, and is never logged as a fault.

use crate::{BookingStatus, Money, Refund, TicketTypeId, Timestamp};

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such thing, or it is not the asker's.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The request contradicts itself or what it names.
    #[error("{}", .0.first().map_or("the request is invalid", |first| first.detail.as_str()))]
    Invalid(Vec<Invalid>),
    /// Nothing is left, of the ticket type or of the event.
    #[error("no tickets are left")]
    SoldOut {
        /// Tickets asked for.
        requested: u32,
        /// The ticket type that lacks them, where it is one.
        ticket_type: Option<TicketTypeId>,
    },
    /// Something is left, but less than was asked for.
    #[error("only {available} of {requested} tickets are left")]
    InsufficientAvailability {
        /// Tickets asked for.
        requested: u32,
        /// Tickets left, at least 1.
        available: u32,
        /// The ticket type that lacks them, where it is one.
        ticket_type: Option<TicketTypeId>,
    },
    /// Sales begin later.
    #[error("sales open at {0}")]
    SalesNotOpen(Timestamp),
    /// Sales have ended.
    #[error("sales have closed")]
    SalesClosed,
    /// The event has begun.
    #[error("the event has started")]
    EventStarted,
    /// The organiser has paused sales.
    #[error("sales are paused")]
    EventPaused,
    /// The event will not take place.
    #[error("the event is cancelled")]
    EventCancelled {
        /// The state of the booking concerned, where one is.
        booking: Option<BookingStatus>,
        /// What is given back for the payment that came too late.
        refund: Option<Box<Refund>>,
    },
    /// The payment came after the hold had expired, and its tickets are gone.
    #[error("the hold has expired and its tickets are gone; the payment is refunded")]
    HoldExpired {
        /// The state of the booking.
        booking: BookingStatus,
        /// What is given back.
        refund: Box<Refund>,
    },
    /// The booking is in a state that does not allow this.
    #[error("the booking is {booking}")]
    InvalidState {
        /// The state of the booking.
        booking: BookingStatus,
        /// What is given back for the payment that came too late.
        refund: Option<Box<Refund>>,
    },
    /// A paid booking can no longer be given back by its user.
    #[error("a paid booking could be cancelled until {until}")]
    CancelCutoffPassed {
        /// The state of the booking.
        booking: BookingStatus,
        /// The last moment.
        until: Timestamp,
    },
    /// The capacity cannot go below what is held and sold.
    #[error("{in_use} tickets are held or sold")]
    CapacityInUse {
        /// Tickets held and sold.
        in_use: u32,
    },
    /// The event was edited since the asker read it.
    #[error("the event is at version {current}")]
    VersionMismatch {
        /// The version that stands.
        current: u32,
    },
    /// The amount is not what the server computed.
    #[error("the total is {} {}, in minor units", .expected.amount(), .expected.currency().code())]
    AmountMismatch {
        /// The server's total.
        expected: Money,
    },
    /// More tickets than one booking or one user may have.
    #[error("{detail}")]
    BookingLimitExceeded {
        /// Which limit, and how far it leaves.
        detail: String,
    },
}

/// One thing wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Where in the body (RFC 6901); empty for the body as a whole.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

impl Invalid {
    /// A complaint about one place of the body.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

impl Refusal {
    /// What is given back for the payment that was refused, where something is.
    pub fn refund(&self) -> Option<&Refund> {
        match self {
            Self::HoldExpired { refund, .. } => Some(refund),
            Self::EventCancelled { refund, .. } | Self::InvalidState { refund, .. } => refund.as_deref(),
            Self::NotFound(_)
            | Self::Invalid(_)
            | Self::SoldOut { .. }
            | Self::InsufficientAvailability { .. }
            | Self::SalesNotOpen(_)
            | Self::SalesClosed
            | Self::EventStarted
            | Self::EventPaused
            | Self::CancelCutoffPassed { .. }
            | Self::CapacityInUse { .. }
            | Self::VersionMismatch { .. }
            | Self::AmountMismatch { .. }
            | Self::BookingLimitExceeded { .. } => None,
        }
    }

    /// The stable code that clients switch on.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Invalid(_) => "validation_failed",
            Self::SoldOut { .. } => "sold_out",
            Self::InsufficientAvailability { .. } => "insufficient_availability",
            Self::SalesNotOpen(_) => "sales_not_open",
            Self::SalesClosed => "sales_closed",
            Self::EventStarted => "event_started",
            Self::EventPaused => "event_paused",
            Self::EventCancelled { .. } => "event_cancelled",
            Self::HoldExpired { .. } => "hold_expired",
            Self::InvalidState { .. } => "invalid_state",
            Self::CancelCutoffPassed { .. } => "cancel_cutoff_passed",
            Self::CapacityInUse { .. } => "capacity_in_use",
            Self::VersionMismatch { .. } => "version_mismatch",
            Self::AmountMismatch { .. } => "amount_mismatch",
            Self::BookingLimitExceeded { .. } => "booking_limit_exceeded",
        }
    }
}
