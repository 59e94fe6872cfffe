//! Refusals: the expected negative answers of the rules. A refusal is an answer, not an error: it contains
//! what the caller needs in order to continue, and is never logged as a fault.

use crate::{BookingStatus, Money, Refund, TicketTypeId, Timestamp};

/// The reason why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The named entity does not exist, or is not visible to the caller.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The request contradicts itself or the entity that it names.
    #[error("{}", .0.first().map_or("the request is invalid", |first| first.detail.as_str()))]
    Invalid(Vec<Invalid>),
    /// No tickets are left, of the ticket type or of the event.
    #[error("no tickets are left")]
    SoldOut {
        /// Number of requested tickets.
        requested: u32,
        /// The ticket type that lacks tickets; `None` if it is the event as a whole.
        ticket_type: Option<TicketTypeId>,
    },
    /// Some tickets are left, but fewer than requested.
    #[error("only {available} of {requested} tickets are left")]
    InsufficientAvailability {
        /// Number of requested tickets.
        requested: u32,
        /// Number of tickets left, at least 1.
        available: u32,
        /// The ticket type that lacks tickets; `None` if it is the event as a whole.
        ticket_type: Option<TicketTypeId>,
    },
    /// Sales have not opened yet; they open at this instant.
    #[error("sales open at {0}")]
    SalesNotOpen(Timestamp),
    /// Sales have ended.
    #[error("sales have closed")]
    SalesClosed,
    /// The event has started.
    #[error("the event has started")]
    EventStarted,
    /// The organiser has paused sales.
    #[error("sales are paused")]
    EventPaused,
    /// The event is cancelled.
    #[error("the event is cancelled")]
    EventCancelled {
        /// The status of the booking, if the command concerns one.
        booking: Option<BookingStatus>,
        /// The refund of the payment that was too late.
        refund: Option<Box<Refund>>,
    },
    /// The payment was captured after the hold had expired, and its tickets are no longer available.
    #[error("the hold has expired and its tickets are no longer available; the payment is refunded")]
    HoldExpired {
        /// The status of the booking.
        booking: BookingStatus,
        /// The refund of the payment.
        refund: Box<Refund>,
    },
    /// The status of the booking does not allow the command.
    #[error("the booking is {booking}")]
    InvalidState {
        /// The status of the booking.
        booking: BookingStatus,
        /// The refund of the payment that was too late.
        refund: Option<Box<Refund>>,
    },
    /// The time at which a user could still cancel a paid booking has passed.
    #[error("a paid booking could be cancelled until {until}")]
    CancelCutoffPassed {
        /// The status of the booking.
        booking: BookingStatus,
        /// The last instant at which the booking could be cancelled.
        until: Timestamp,
    },
    /// The capacity cannot be set below the number of tickets held and sold.
    #[error("{in_use} tickets are held or sold")]
    CapacityInUse {
        /// Number of tickets held and sold.
        in_use: u32,
    },
    /// The event was edited after the caller had read it.
    #[error("the event is at version {current}")]
    VersionMismatch {
        /// The current version of the event.
        current: u32,
    },
    /// The amount differs from the one that the server computed.
    #[error("the total is {} {}, in minor units", .expected.amount(), .expected.currency().code())]
    AmountMismatch {
        /// The total that the server computed.
        expected: Money,
    },
    /// Another booking of the event has the same external reference.
    #[error("another booking of the event has this externalRef")]
    ExternalRefInUse,
    /// More tickets than one booking or one user may have.
    #[error("{detail}")]
    BookingLimitExceeded {
        /// Describes the limit, and the remaining tickets if it is the limit per user.
        detail: String,
    },
}

/// One error in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// JSON pointer into the body (RFC 6901); empty for the body as a whole.
    pub pointer: String,
    /// Description of the error.
    pub detail: String,
}

impl Invalid {
    /// Creates an error at one position of the body.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

impl Refusal {
    /// The refund of the payment that was refused; `None` if there is no such payment.
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
            | Self::ExternalRefInUse
            | Self::BookingLimitExceeded { .. } => None,
        }
    }

    /// The stable code that clients match on.
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
            Self::ExternalRefInUse => "external_ref_in_use",
            Self::BookingLimitExceeded { .. } => "booking_limit_exceeded",
        }
    }
}
