//! The record of one change, written in the transaction that makes it. Entries are numbered 1, 2, 3 …
//! per event without a gap and are never altered or removed: audit trail, capacity log and outbox in one.

use std::fmt;
use std::str::FromStr;

use crate::refund::string_enum;
use crate::{Actor, BookingId, EventId, RefundId, RequestId, TicketTypeId, Timestamp, TraceParent};

/// One entry of an event's ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose ledger.
    pub event_id: EventId,
    /// Its number in that ledger, from 1.
    pub seq: u64,
    /// What happened.
    pub kind: EntryKind,
    /// The booking that changed.
    pub booking_id: Option<BookingId>,
    /// The refund that was recorded or settled.
    pub refund_id: Option<RefundId>,
    /// The tickets that moved, per ticket type; empty where none did.
    pub lines: Vec<EntryLine>,
    /// The tickets that moved, all together, without a sign. For entries of the event itself: by how
    /// much its capacity changed.
    pub quantity: u32,
    /// The status before; unset where there was none.
    pub from: Option<LedgerStatus>,
    /// The status after; unset where none is concerned.
    pub to: Option<LedgerStatus>,
    /// Tickets of the event left after this change.
    pub available_after: u32,
    /// The number of the booking's entry before this one; unset for its first.
    pub previous_seq: Option<u64>,
    /// On whose behalf.
    pub actor: Actor,
    /// The request that caused it.
    pub request: RequestId,
    /// Where that request belongs in its caller's trace; not shown over HTTP.
    pub trace: Option<TraceParent>,
    /// When. Never before the entry with the number below.
    pub at: Timestamp,
}

/// How many tickets of one ticket type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryLine {
    /// Which ticket type.
    pub ticket_type: TicketTypeId,
    /// How many tickets, at least 1.
    pub quantity: u32,
}

string_enum! {
    /// What happened; also the `type` of the message made from the entry.
    EntryKind {
        /// A booking took tickets.
        BookingCreated = "booking.created",
        /// A booking was paid.
        BookingConfirmed = "booking.confirmed",
        /// A booking was given up.
        BookingCancelled = "booking.cancelled",
        /// A booking was freed unpaid.
        BookingExpired = "booking.expired",
        /// A refund became due.
        RefundRequested = "refund.requested",
        /// The outcome of a refund became known.
        RefundSettled = "refund.settled",
        /// The event was created; always entry 1.
        EventCreated = "event.created",
        /// The event was edited, paused or resumed.
        EventUpdated = "event.updated",
        /// The event was cancelled.
        EventCancelled = "event.cancelled",
    }

    /// A status in the ledger, of whatever changed.
    LedgerStatus {
        /// Of a booking.
        Pending = "pending",
        /// Of a booking.
        Confirmed = "confirmed",
        /// Of a booking or an event.
        Cancelled = "cancelled",
        /// Of a booking.
        Expired = "expired",
        /// Of an event.
        OnSale = "onSale",
        /// Of an event.
        Paused = "paused",
        /// Of a refund.
        Requested = "requested",
        /// Of a refund.
        Succeeded = "succeeded",
        /// Of a refund.
        Failed = "failed",
    }
}

impl From<crate::BookingStatus> for LedgerStatus {
    fn from(status: crate::BookingStatus) -> Self {
        match status {
            crate::BookingStatus::Pending => Self::Pending,
            crate::BookingStatus::Confirmed => Self::Confirmed,
            crate::BookingStatus::Cancelled => Self::Cancelled,
            crate::BookingStatus::Expired => Self::Expired,
        }
    }
}

impl From<crate::EventStatus> for LedgerStatus {
    fn from(status: crate::EventStatus) -> Self {
        match status {
            crate::EventStatus::OnSale => Self::OnSale,
            crate::EventStatus::Paused => Self::Paused,
            crate::EventStatus::Cancelled => Self::Cancelled,
        }
    }
}

impl From<crate::RefundStatus> for LedgerStatus {
    fn from(status: crate::RefundStatus) -> Self {
        match status {
            crate::RefundStatus::Requested => Self::Requested,
            crate::RefundStatus::Succeeded => Self::Succeeded,
            crate::RefundStatus::Failed => Self::Failed,
        }
    }
}
