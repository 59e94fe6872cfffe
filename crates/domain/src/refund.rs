//! Refunds: at most one per captured payment. A captured payment is identified by a booking and a
//! transaction.

use crate::string_enum::string_enum;
use crate::{BookingId, EventId, Money, ProviderReference, RefundId, Timestamp, TransactionId};

/// A refund that has to be paid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// The id; it never changes.
    pub id: RefundId,
    /// The booking that was paid for.
    pub booking_id: BookingId,
    /// The event of that booking.
    pub event_id: EventId,
    /// The captured payment; unique together with the booking.
    pub transaction: TransactionId,
    /// The amount to refund: everything that was captured.
    pub amount: Money,
    /// The status of the pay-out.
    pub status: RefundStatus,
    /// The reason of the refund.
    pub reason: RefundReason,
    /// The payment provider's reference of the pay-out.
    pub provider_reference: Option<ProviderReference>,
    /// The time at which the refund was recorded.
    pub created_at: Timestamp,
    /// The time at which its outcome was recorded.
    pub settled_at: Option<Timestamp>,
}

string_enum! {
    /// The status of a refund's pay-out.
    RefundStatus {
        /// The refund is due.
        Requested = "requested",
        /// The refund was paid out.
        Succeeded = "succeeded",
        /// The payment provider rejected the pay-out; the refund is still due.
        Failed = "failed",
    }

    /// The reason of a refund. It also determines the refusal that a repeated late payment gets.
    RefundReason {
        /// A paid booking was cancelled.
        BookingCancelled = "booking_cancelled",
        /// A paid booking was cancelled with its event, or the payment was captured after that.
        EventCancelled = "event_cancelled",
        /// The payment was captured after the hold had expired and its tickets were no longer available.
        HoldExpired = "hold_expired",
        /// The payment was captured for a booking that was cancelled, or already paid by another transaction.
        InvalidState = "invalid_state",
    }
}
