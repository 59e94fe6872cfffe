//! All booking rules, as one pure function.
//!
//! [`decide()`] takes the stored data (a [`Snapshot`]), a [`Command`] and the time, and returns what changes.
//! It reads nothing else, so it is valid inside any transaction and a replay gives exactly the same result.

pub(crate) mod booking;
mod event;

use std::sync::Arc;

use crate::{
    Action, Booking, BookingStatus, Command, Entry, EntryKind, EntryLine, Event, EventDetails,
    InconsistencyError, Inventory, LedgerStatus, Refund, RefundStatus, Refusal, TicketTypeId, Timestamp,
    UserId, guard,
};

/// The stored data of a command's event and booking, as read inside the transaction.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The command's event.
    pub event: Option<&'a Event>,
    /// The command's booking.
    pub booking: Option<&'a Arc<Booking>>,
    /// The refund recorded for the captured payment of the command ([`Command::captured`]).
    pub refund: Option<&'a Refund>,
    /// Tickets of this event that the booking's user holds, pending and confirmed. Counted only if the event
    /// has a limit per user; otherwise 0.
    pub user_tickets: u32,
    /// True if a booking of the event has the external reference of the order ([`Command::external_ref`]).
    pub is_external_ref_in_use: bool,
    /// Scopes without any overdue hold left to free. See [`Decision::FreeOverdue`].
    pub exhausted_scopes: &'a [HoldScope],
}

/// The holds that compete with an order for tickets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldScope {
    /// All holds of the event.
    Event,
    /// Holds that contain this ticket type.
    TicketType(TicketTypeId),
    /// Holds of this user.
    User(UserId),
}

/// Missing tickets that overdue holds may still occupy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The holds whose expiry would help.
    pub scope: HoldScope,
    /// Number of missing tickets, at least 1.
    pub tickets: u32,
}

/// The result of [`crate::decide()`].
#[derive(Clone, Debug)]
pub enum Decision {
    /// Something changes. The whole change is written in one transaction, or not at all.
    Change(Box<Change>),
    /// Nothing changes.
    Answer(Answer),
    /// Tickets are missing. The caller frees overdue holds of this scope, oldest first, by deciding
    /// [`Action::Expire`] for each, and calls [`crate::decide()`] again; if there are none, it adds the scope
    /// to [`Snapshot::exhausted_scopes`]. Thus "sold out" is never returned while an overdue hold could be
    /// freed.
    FreeOverdue(Shortage),
}

/// The writes and the answer that follow from a command.
#[derive(Clone, Debug)]
pub struct Change {
    /// The event's new description, if the event is new or was edited.
    pub details: Option<Arc<EventDetails>>,
    /// The event's new counters.
    pub inventory: Inventory,
    /// The booking after the change.
    pub booking: Option<Arc<Booking>>,
    /// The refund that is now due or settled.
    pub refund: Option<Refund>,
    /// The user whose count changed, and the new count; only if the event has a limit per user.
    pub user_tickets: Option<(UserId, u32)>,
    /// The ledger entries, in order; at least one. Their numbers continue from the event's last entry.
    pub entries: Vec<Entry>,
    /// The answer to the caller. It can be a refusal: a payment that is too late is refused and refunded.
    pub answer: Answer,
}

/// The answer to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The booking after the command.
    Booking(Arc<Booking>),
    /// The event after the command.
    Event(Box<Event>),
    /// The refund after the command.
    Refund(Box<Refund>),
    /// The command is refused, for this reason.
    Refused(Refusal),
}

/// Decides one command.
///
/// Deadlines and sales windows are checked against `now` alone. Only the date of a ledger entry is raised to
/// that of the previous entry: the dates of a ledger never decrease, and one write under a wrong clock does
/// not shift later deadlines.
///
/// # Errors
///
/// [`InconsistencyError`] if the stored data contradicts itself, such as an existing booking without its
/// event.
#[cfg_attr(
    feature = "sabotage",
    expect(unreachable_pub, reason = "with the feature, the crate exports the function that wraps this one")
)]
pub fn decide(
    snapshot: &Snapshot<'_>,
    command: &Command,
    now: Timestamp,
) -> Result<Decision, InconsistencyError> {
    match (&command.action, snapshot.event, snapshot.booking.map(|booking| (booking, booking.status()))) {
        (Action::CreateEvent(_), Some(_), _) => Err(InconsistencyError("the id of a new event is taken")),
        (Action::CreateEvent(new), None, _) => event::create(new, command, now),
        (Action::UpdateEvent { patch, .. }, event, _) => event::update(event, patch, command, now),

        (Action::Book(_), None, _) => not_found("event"),
        (Action::Book(_), Some(_), Some(_)) => Err(InconsistencyError("the id of a new booking is taken")),
        (Action::Book(order), Some(event), None) => booking::book(snapshot, event, order, command, now),

        (Action::Confirm(_) | Action::Cancel(_) | Action::Expire { .. }, _, None) => not_found("booking"),
        (Action::Settle(_), _, None) => not_found("refund"),
        (
            Action::Confirm(_) | Action::Cancel(_) | Action::Expire { .. } | Action::Settle(_),
            None,
            Some(_),
        ) => Err(InconsistencyError("the event of a booking does not exist")),

        (Action::Confirm(confirmation), Some(event), Some((booking, status))) => {
            booking::confirm(&booking::Case { snapshot, event, booking, command, now }, status, confirmation)
        }
        (Action::Cancel(cancellation), Some(event), Some((booking, status))) => {
            booking::cancel(&booking::Case { snapshot, event, booking, command, now }, status, cancellation)
        }
        (Action::Settle(settlement), Some(event), Some((booking, status))) => {
            booking::settle(&booking::Case { snapshot, event, booking, command, now }, status, settlement)
        }
        (Action::Expire { .. }, Some(event), Some((booking, status))) => {
            booking::expire(&booking::Case { snapshot, event, booking, command, now }, status)
        }
    }
}

fn not_found(what: &'static str) -> Result<Decision, InconsistencyError> {
    refuse(Refusal::NotFound(what))
}

// Every rule ends in a decision; wrapping it here keeps the rules readable.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the rules end in `refuse(…)` just as they end in `with_user_count(…)`"
)]
pub(crate) fn refuse(refusal: Refusal) -> Result<Decision, InconsistencyError> {
    Ok(Decision::Answer(Answer::Refused(refusal)))
}

/// Has the caller free overdue holds of the scope first, or refuses if none are left.
fn free_overdue_or_refuse(
    snapshot: &Snapshot<'_>,
    scope: HoldScope,
    tickets: u32,
    refusal: Refusal,
) -> Decision {
    if guard!(OverdueFirst: !snapshot.exhausted_scopes.contains(&scope)) {
        Decision::FreeOverdue(Shortage { scope, tickets })
    } else {
        Decision::Answer(Answer::Refused(refusal))
    }
}

/// A change in preparation: the event with its next ledger number, and the chain of the booking's entries.
struct Draft<'a> {
    event: Event,
    previous_seq: Option<u64>,
    entries: Vec<Entry>,
    command: &'a Command,
    now: Timestamp,
}

/// The fields of a ledger entry that its draft does not know.
struct EntryFields<'b> {
    kind: EntryKind,
    booking: Option<&'b Booking>,
    refund: Option<&'b Refund>,
    quantity: u32,
    from: Option<LedgerStatus>,
    to: Option<LedgerStatus>,
}

impl<'a> Draft<'a> {
    fn new(event: &Event, booking: Option<&Booking>, command: &'a Command, now: Timestamp) -> Self {
        let previous_seq = booking.map(|booking| booking.last_seq);
        Self { event: event.clone(), previous_seq, entries: Vec::with_capacity(1), command, now }
    }

    /// Appends an entry with the event's current state in the draft.
    fn append_entry(&mut self, fields: &EntryFields<'_>) -> Result<u64, InconsistencyError> {
        let seq = self.event.inventory.seq.checked_add(1).ok_or(InconsistencyError("the ledger is full"))?;
        let last_at = self.event.inventory.last_at;
        let at = if guard!(MonotonicLedgerDates: self.now < last_at) { last_at } else { self.now };
        self.event.inventory.seq = seq;
        self.event.inventory.last_at = at;
        let moved = fields.booking.filter(|_| fields.quantity > 0);
        let line = |item: &crate::Item| EntryLine { ticket_type: item.ticket_type, quantity: item.quantity };
        self.entries.push(Entry {
            event_id: self.event.id,
            seq,
            kind: fields.kind.into(),
            booking_id: fields.booking.map(|booking| booking.id),
            refund_id: fields.refund.map(|refund| refund.id),
            lines: moved.map(|booking| booking.items.iter().map(line).collect()).unwrap_or_default(),
            quantity: fields.quantity,
            from: fields.from,
            to: fields.to,
            available_after: self.event.available(),
            previous_seq: fields.booking.and(self.previous_seq),
            actor: self.command.actor.clone(),
            request: self.command.request.clone(),
            trace: self.command.trace.clone(),
            at,
        });
        self.previous_seq = fields.booking.map(|_| seq);
        Ok(seq)
    }

    /// Appends an entry for a booking whose status changed and all of whose tickets moved with it.
    fn append_booking_entry(
        &mut self,
        kind: EntryKind,
        booking: &Booking,
        from: Option<BookingStatus>,
    ) -> Result<u64, InconsistencyError> {
        self.append_entry(&EntryFields {
            kind,
            booking: Some(booking),
            refund: None,
            quantity: booking.items.quantity(),
            from: from.map(LedgerStatus::from),
            to: Some(booking.status().into()),
        })
    }

    /// Appends an entry for a refund that is now due (`from` is `None`) or settled.
    fn append_refund_entry(
        &mut self,
        booking: &Booking,
        refund: &Refund,
        from: Option<RefundStatus>,
    ) -> Result<u64, InconsistencyError> {
        let kind = if from.is_some() { EntryKind::RefundSettled } else { EntryKind::RefundRequested };
        self.append_entry(&EntryFields {
            kind,
            booking: Some(booking),
            refund: Some(refund),
            quantity: 0,
            from: from.map(LedgerStatus::from),
            to: Some(refund.status.into()),
        })
    }
}
