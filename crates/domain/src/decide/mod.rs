//! Every rule of booking, as one pure function.
//!
//! [`decide()`] is given what is stored (a [`Scene`]), what is asked (a [`Command`]) and the time, and says
//! what changes. It reads nothing else, so it is true inside any transaction and replays exactly.

mod booking;
mod event;

use std::sync::Arc;

use crate::sabotage::{Guard, removed};
use crate::{
    Action, Booking, BookingStatus, Command, Entry, EntryKind, EntryLine, Event, EventDetails, Inventory,
    LedgerStatus, Refund, RefundStatus, Refusal, TicketTypeId, Timestamp, UserId,
};

/// What is stored about a command's event and booking, as it stands inside the transaction.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The command's event.
    pub event: Option<&'a Event>,
    /// The command's booking.
    pub booking: Option<&'a Arc<Booking>>,
    /// The refund recorded for the captured payment that the command is about ([`Command::captured`]).
    pub refund: Option<&'a Refund>,
    /// Tickets of this event that the booking's user holds, pending and confirmed. Counted only where
    /// the event has a limit per user; otherwise 0.
    pub user_tickets: u32,
    /// Where no overdue hold is left to free. See [`Verdict::Overdue`].
    pub exhausted_scopes: &'a [HoldScope],
}

/// Which holds stand in the way of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldScope {
    /// Any hold of the event.
    Event,
    /// Holds with this ticket type.
    TicketType(TicketTypeId),
    /// Holds of this user.
    User(UserId),
}

/// Tickets that are missing while overdue holds may still have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Whose holds would help.
    pub scope: HoldScope,
    /// How many tickets are missing, at least 1.
    pub tickets: u32,
}

/// What follows from a command.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Something changes; all of it is written in one transaction, or none.
    Change(Box<Change>),
    /// Nothing changes.
    Answer(Answer),
    /// Tickets are missing. The caller frees overdue holds of this scope, oldest first, by deciding
    /// [`Action::Expire`] for each, and asks again; when there are none it adds the scope to
    /// [`Scene::exhausted_scopes`]. So "sold out" is never said while a dead hold could be freed.
    Overdue(Shortage),
}

/// What a command changes.
#[derive(Clone, Debug)]
pub struct Change {
    /// The event's new description, where it was edited or is new.
    pub details: Option<Arc<EventDetails>>,
    /// The event's new counters.
    pub inventory: Inventory,
    /// The booking as it now is.
    pub booking: Option<Arc<Booking>>,
    /// The refund that is now due, or settled.
    pub refund: Option<Refund>,
    /// The user whose count changed and the new count; only where the event has a limit per user.
    pub user_tickets: Option<(UserId, u32)>,
    /// What is written down, in order, at least one. Numbered from the event's last entry on.
    pub entries: Vec<Entry>,
    /// What the asker hears. Can be a refusal: a payment that came too late is refused and refunded.
    pub answer: Answer,
}

/// What the asker hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The booking as it now is.
    Booking(Arc<Booking>),
    /// The event as it now is.
    Event(Box<Event>),
    /// The refund as it now is.
    Refund(Box<Refund>),
    /// No, and why.
    Refused(Refusal),
}

/// What is stored contradicts itself. The command fails and changes nothing; the audit will say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored data is inconsistent: {0}")]
pub struct Inconsistent(pub &'static str);

/// Decides one command.
///
/// Deadlines and sales windows go by `now` alone. Only the date of a ledger entry is raised to the entry before
/// it: a ledger never runs backwards, and one write under a wrong clock shifts no later deadline.
pub fn decide(snapshot: &Snapshot<'_>, command: &Command, now: Timestamp) -> Result<Decision, Inconsistent> {
    let last_at = snapshot.event.filter(|_| removed(Guard::ClockAlone)).map(|event| event.inventory.last_at);
    let now = last_at.map_or(now, |last_at| now.max(last_at));
    match (&command.action, snapshot.event, snapshot.booking.map(|booking| (booking, booking.status()))) {
        (Action::CreateEvent(_), Some(_), _) => Err(Inconsistent("the id of a new event is taken")),
        (Action::CreateEvent(new), None, _) => event::create(new, command, now),
        (Action::UpdateEvent { patch, .. }, event, _) => event::update(event, patch, command, now),

        (Action::Book(_), None, _) => not_found("event"),
        (Action::Book(_), Some(_), Some(_)) => Err(Inconsistent("the id of a new booking is taken")),
        (Action::Book(order), Some(event), None) => booking::book(snapshot, event, order, command, now),

        (Action::Confirm(_) | Action::Cancel(_) | Action::Expire { .. }, _, None) => not_found("booking"),
        (Action::Settle(_), _, None) => not_found("refund"),
        (
            Action::Confirm(_) | Action::Cancel(_) | Action::Expire { .. } | Action::Settle(_),
            None,
            Some(_),
        ) => Err(Inconsistent("the event of a booking is gone")),

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

fn not_found(what: &'static str) -> Result<Decision, Inconsistent> {
    refuse(Refusal::NotFound(what))
}

// Every rule ends in a verdict; wrapping it here keeps the rules readable as sentences.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the rules end in `refuse(…)` as they end in `change.verdict(…)`"
)]
fn refuse(refusal: Refusal) -> Result<Decision, Inconsistent> {
    Ok(Decision::Answer(Answer::Refused(refusal)))
}

/// Tickets are missing: ask for overdue holds first, refuse only when there are none.
fn shortage_or_refusal(
    snapshot: &Snapshot<'_>,
    scope: HoldScope,
    tickets: u32,
    refusal: Refusal,
) -> Decision {
    if snapshot.exhausted_scopes.contains(&scope) || removed(Guard::OverdueFirst) {
        Decision::Answer(Answer::Refused(refusal))
    } else {
        Decision::Overdue(Shortage { scope, tickets })
    }
}

/// A change being written: the next ledger number, and the booking's place in its own history.
struct Draft<'a> {
    event: Event,
    previous_seq: Option<u64>,
    entries: Vec<Entry>,
    command: &'a Command,
    now: Timestamp,
}

/// What a ledger entry says beyond what its draft knows.
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

    /// Appends an entry about the event as it stands in the draft.
    fn append_entry(&mut self, fields: &EntryFields<'_>) -> Result<u64, Inconsistent> {
        let seq = self.event.inventory.seq.checked_add(1).ok_or(Inconsistent("the ledger is full"))?;
        let last_at = self.event.inventory.last_at;
        let at = if removed(Guard::LedgerForward) { self.now } else { self.now.max(last_at) };
        self.event.inventory.seq = seq;
        self.event.inventory.last_at = at;
        let moved = fields.booking.filter(|_| fields.quantity > 0);
        let line = |item: &crate::Item| EntryLine { ticket_type: item.ticket_type, quantity: item.quantity };
        self.entries.push(Entry {
            event_id: self.event.id,
            seq,
            kind: fields.kind,
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

    /// An entry about a booking that came to a new status and moved all its tickets on the way.
    fn append_booking_entry(
        &mut self,
        kind: EntryKind,
        booking: &Booking,
        from: Option<BookingStatus>,
    ) -> Result<u64, Inconsistent> {
        self.append_entry(&EntryFields {
            kind,
            booking: Some(booking),
            refund: None,
            quantity: booking.items.quantity(),
            from: from.map(LedgerStatus::from),
            to: Some(booking.status().into()),
        })
    }

    /// An entry about a refund that is now due (`from` unset) or settled.
    fn append_refund_entry(
        &mut self,
        booking: &Booking,
        refund: &Refund,
        from: Option<RefundStatus>,
    ) -> Result<u64, Inconsistent> {
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
