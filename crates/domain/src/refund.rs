//! Money to be given back: at most one refund per captured payment, which is a booking and a transaction.

use std::fmt;
use std::str::FromStr;

use crate::{BookingId, EventId, Money, Name, RefundId, Timestamp, TransactionId};

/// A refund that somebody has to pay out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// Names the refund for its whole life.
    pub id: RefundId,
    /// The booking that was paid for.
    pub booking_id: BookingId,
    /// The event of that booking.
    pub event_id: EventId,
    /// The captured payment; unique together with the booking.
    pub transaction: TransactionId,
    /// How much is to be given back: all that was captured.
    pub amount: Money,
    /// Whether it was paid out.
    pub status: RefundStatus,
    /// Why it is owed.
    pub reason: RefundReason,
    /// The payment provider's name for the pay-out.
    pub provider_reference: Option<Name>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When its outcome was recorded.
    pub settled_at: Option<Timestamp>,
}

macro_rules! string_enum {
    ($($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$each])* $variant,)* }

        impl $name {
            /// Every one there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word on the wire and in the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = &'static str;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(concat!("must be one of" $(, " ", $word)*)),
                }
            }
        }
    )*};
}
pub(crate) use string_enum;

string_enum! {
    /// Whether a refund was paid out.
    RefundStatus {
        /// Owed.
        Requested = "requested",
        /// Paid out.
        Succeeded = "succeeded",
        /// The provider refused; it is still owed.
        Failed = "failed",
    }

    /// Why a refund is owed. Also says which refusal a late payment hears again when it repeats.
    RefundReason {
        /// A paid booking was cancelled.
        BookingCancelled = "booking_cancelled",
        /// A paid booking was cancelled with its event, or the payment came after that.
        EventCancelled = "event_cancelled",
        /// The payment came after the hold had expired and its tickets were gone.
        HoldExpired = "hold_expired",
        /// The payment came for a booking that was cancelled, or already paid by another transaction.
        InvalidState = "invalid_state",
    }
}
