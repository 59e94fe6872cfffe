//! Ledger entries: the record of one change, written in the transaction that makes it. The entries of an
//! event are numbered 1, 2, 3 … without a gap and are never changed or deleted. The ledger is the audit
//! trail, the history of the capacity and the transactional outbox at once.

use std::fmt;
use std::str::FromStr;

use crate::string_enum::string_enum;
use crate::text::{KindName, StatusName, TextError};
use crate::{Actor, BookingId, EventId, RefundId, RequestId, TicketTypeId, Timestamp, TraceParent};

/// One entry of an event's ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The event to whose ledger the entry belongs.
    pub event_id: EventId,
    /// The entry's number in that ledger, from 1.
    pub seq: u64,
    /// The kind of change.
    pub kind: LedgerKind,
    /// The booking that changed.
    pub booking_id: Option<BookingId>,
    /// The refund that was recorded or settled.
    pub refund_id: Option<RefundId>,
    /// The tickets that moved, per ticket type; empty if none moved.
    pub lines: Vec<EntryLine>,
    /// The total number of tickets that moved, without a sign. For entries of the event itself: the amount by
    /// which its capacity changed.
    pub quantity: u32,
    /// The previous status; `None` if there was none, or if the kind is unknown.
    pub from: Option<LedgerStatus>,
    /// The new status; `None` if the change concerns no status, or if the kind is unknown.
    pub to: Option<LedgerStatus>,
    /// The event's available tickets after this change.
    pub available_after: u32,
    /// The number of the booking's previous entry; `None` for its first.
    pub previous_seq: Option<u64>,
    /// The actor on whose behalf the change was made.
    pub actor: Actor,
    /// The id of the request that caused the change.
    pub request: RequestId,
    /// The request's position in its caller's trace; not shown over HTTP.
    pub trace: Option<TraceParent>,
    /// The time of the change, never before that of the previous entry.
    pub at: Timestamp,
}

/// A number of tickets of one ticket type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryLine {
    /// Which ticket type.
    pub ticket_type: TicketTypeId,
    /// The number of tickets, at least 1.
    pub quantity: u32,
}

/// The kind of an entry in a stored ledger. A later version of the program, which shares the database during
/// an upgrade, may write kinds that this version does not know. They are listed and published as they are.
/// The rules create entries of known kinds only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerKind {
    /// A kind of this version.
    Known(EntryKind),
    /// A kind of another version.
    Unknown(UnknownKind),
}

/// A kind that this version does not know, with the statuses of its entry. Only [`LedgerKind::parse`] creates
/// it, so it never has the name of a known kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKind {
    name: KindName,
    from: Option<StatusName>,
    to: Option<StatusName>,
}

impl LedgerKind {
    /// Parses the kind and the statuses of a stored entry. The statuses of an unknown kind become a part of
    /// it, because this version may not know them either.
    ///
    /// # Errors
    ///
    /// The kind has other characters than a kind of any version, or a known kind has an unknown status.
    pub fn parse(
        kind: &str,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<(Self, Option<LedgerStatus>, Option<LedgerStatus>), String> {
        if let Ok(known) = kind.parse() {
            return Ok((Self::Known(known), parse_if_set(from)?, parse_if_set(to)?));
        }
        let name = kind.parse().map_err(|error: TextError| error.to_string())?;
        let unknown = UnknownKind { name, from: parse_if_set(from)?, to: parse_if_set(to)? };
        Ok((Self::Unknown(unknown), None, None))
    }

    /// The kind, if this version knows it.
    pub fn known(&self) -> Option<EntryKind> {
        match self {
            Self::Known(kind) => Some(*kind),
            Self::Unknown(_) => None,
        }
    }

    /// The kind in JSON and in the database.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(kind) => kind.as_str(),
            Self::Unknown(unknown) => unknown.name.as_str(),
        }
    }
}

fn parse_if_set<T: FromStr<Err: fmt::Display>>(text: Option<&str>) -> Result<Option<T>, String> {
    text.map(str::parse).transpose().map_err(|error: T::Err| error.to_string())
}

impl From<EntryKind> for LedgerKind {
    fn from(kind: EntryKind) -> Self {
        Self::Known(kind)
    }
}

impl PartialEq<EntryKind> for LedgerKind {
    fn eq(&self, kind: &EntryKind) -> bool {
        self.known() == Some(*kind)
    }
}

impl fmt::Display for LedgerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Entry {
    /// The previous status in JSON and in the database, of a known or an unknown kind.
    pub fn from_status(&self) -> Option<&str> {
        match &self.kind {
            LedgerKind::Known(_) => self.from.map(LedgerStatus::as_str),
            LedgerKind::Unknown(unknown) => unknown.from.as_ref().map(StatusName::as_str),
        }
    }

    /// The new status in JSON and in the database, of a known or an unknown kind.
    pub fn to_status(&self) -> Option<&str> {
        match &self.kind {
            LedgerKind::Known(_) => self.to.map(LedgerStatus::as_str),
            LedgerKind::Unknown(unknown) => unknown.to.as_ref().map(StatusName::as_str),
        }
    }
}

string_enum! {
    /// The kind of a change that this version makes; also the `type` of the message that is published for it.
    EntryKind {
        /// A booking reserved tickets.
        BookingCreated = "booking.created",
        /// A booking was paid.
        BookingConfirmed = "booking.confirmed",
        /// A booking was cancelled.
        BookingCancelled = "booking.cancelled",
        /// An unpaid booking expired.
        BookingExpired = "booking.expired",
        /// A refund became due.
        RefundRequested = "refund.requested",
        /// The outcome of a refund was reported.
        RefundSettled = "refund.settled",
        /// The event was created; always entry 1.
        EventCreated = "event.created",
        /// The event was edited, paused or resumed.
        EventUpdated = "event.updated",
        /// The event was cancelled.
        EventCancelled = "event.cancelled",
    }

    /// A status in the ledger, of a booking, an event or a refund.
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
