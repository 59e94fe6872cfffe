//! One booking's history: its entries, its row and its refunds must tell the same.

use std::collections::BTreeMap;

use super::ledger::EventReplay;
use crate::{
    Booking, BookingId, Entry, EntryKind, EntryLine, Event, EventId, LedgerStatus, Money, Refund, RefundId,
    RefundStatus, State, TransactionId,
};

/// All that is stored of one booking.
#[derive(Clone, Debug)]
pub struct History {
    /// The booking that the entries name.
    pub id: BookingId,
    /// Every entry that names it, in the ledger's order.
    pub entries: Vec<Entry>,
    /// Its row; unset where there is none that can be read.
    pub booking: Option<Booking>,
    /// The refunds that name it, in any order.
    pub refunds: Vec<Refund>,
}

/// A booking's entries as far as they were read.
#[derive(Default)]
struct BookingReplay<'a> {
    /// The status after the last entry.
    status: Option<LedgerStatus>,
    /// The number of the last entry.
    seq: Option<u64>,
    lines: Option<&'a [EntryLine]>,
    /// Changes of the booking. The cancellation of a paid booking and the refund that it causes are two entries
    /// and one change.
    version: u64,
    /// Where the ledger leaves each refund.
    refunds: BTreeMap<RefundId, LedgerStatus>,
}

impl History {
    /// The booking's row, if it belongs to this event.
    pub(super) fn booking_of(&self, event: EventId) -> Option<&Booking> {
        self.booking.as_ref().filter(|booking| booking.event_id == event)
    }

    /// Compares entries, row and refunds, and adds the row to the event's sums.
    pub(super) fn check(&self, event_replay: &mut EventReplay) -> Vec<String> {
        let (id, event) = (self.id, event_replay.event().id);
        let mut wrong = Vec::new();
        let mut replay = BookingReplay::default();
        for entry in &self.entries {
            let place = |what: String| format!("{event} entry {}: {what}", entry.seq);
            wrong.extend(replay.apply(id, entry).into_iter().map(place));
        }
        match self.booking_of(event) {
            Some(booking) => {
                let place = |what: String| format!("{id} of {event}: {what}");
                wrong.extend(check_row(booking, &replay).into_iter().map(place));
                wrong.extend(check_money(booking, event_replay.event()).into_iter().map(place));
                wrong.extend(event_replay.add_booking(booking).into_iter().map(place));
            }
            None => wrong.push(format!("{event}: {id} has a ledger but no row")),
        }
        wrong.extend(self.check_refunds(replay.refunds, event_replay.event()));
        wrong
    }

    /// Refunds against the ledger and the booking: one for each payment that must be given back, of all that was
    /// captured, and none for a payment that still pays for the booking.
    fn check_refunds(
        &self,
        mut ledger_refunds: BTreeMap<RefundId, LedgerStatus>,
        event: &Event,
    ) -> Vec<String> {
        let (id, booking) = (self.id, self.booking_of(event.id));
        let mut wrong = Vec::new();
        let mut paid_out: BTreeMap<&TransactionId, bool> = BTreeMap::new();
        for refund in &self.refunds {
            let mut report = |what: String| wrong.push(format!("{}: {what}", refund.id));
            match ledger_refunds.remove(&refund.id) {
                None => report("has no entry in the ledger".to_owned()),
                Some(status) if status != refund.status.into() => {
                    report(format!("is {}, but the ledger says {status}", refund.status));
                }
                Some(_) => {}
            }
            if refund.event_id != event.id {
                report(format!("belongs to {}, but its booking to {}", refund.event_id, event.id));
            }
            if let Some(booking) = booking {
                check_amount(refund, booking, event).into_iter().for_each(&mut report);
            }
            if paid_out.insert(&refund.transaction, refund.status == RefundStatus::Succeeded).is_some() {
                report("gives back a payment for the second time".to_owned());
            }
        }
        let missing = |id: &RefundId| format!("{id} is in the ledger, but there is no such refund");
        wrong.extend(ledger_refunds.keys().map(missing));
        if let Some(Booking { state: State::Cancelled { payment: Some(payment), refunded, .. }, .. }) =
            booking
        {
            match paid_out.get(&payment.transaction) {
                None => wrong.push(format!("{id} was cancelled after it was paid, without a refund")),
                Some(paid_out) if paid_out != refunded => {
                    wrong.push(format!("{id} does not show whether its refund was paid out"));
                }
                Some(_) => {}
            }
        }
        wrong
    }
}

impl<'a> BookingReplay<'a> {
    /// A booking's entries form a path of the state table, each naming the one before it.
    fn apply(&mut self, id: BookingId, entry: &'a Entry) -> Vec<String> {
        let mut wrong = Vec::new();
        let status = self.status;
        if entry.previous_seq != self.seq {
            wrong.push(format!("{id}: names entry {:?} before it, not {:?}", entry.previous_seq, self.seq));
        }
        let allowed = match entry.kind {
            EntryKind::BookingCreated => status.is_none(),
            EntryKind::BookingConfirmed => {
                matches!(status, Some(LedgerStatus::Pending | LedgerStatus::Expired))
            }
            EntryKind::BookingCancelled => {
                matches!(status, Some(LedgerStatus::Pending | LedgerStatus::Confirmed))
            }
            EntryKind::BookingExpired => status == Some(LedgerStatus::Pending),
            EntryKind::RefundRequested | EntryKind::RefundSettled => status.is_some(),
            EntryKind::EventCreated | EntryKind::EventUpdated | EntryKind::EventCancelled => false,
        };
        let moves = entry.refund_id.is_none();
        if !allowed || (moves && entry.from != status) {
            wrong.push(format!("{id}: {} does not follow on {status:?}", entry.kind));
        }
        self.status = Some(entry.to.filter(|_| moves).or(status).unwrap_or(LedgerStatus::Pending));
        let lines = *self.lines.get_or_insert(&entry.lines);
        if moves && lines != entry.lines {
            wrong.push(format!("{id}: moves other tickets than it booked"));
        }
        let refunds_too =
            entry.kind == EntryKind::BookingCancelled && status == Some(LedgerStatus::Confirmed);
        self.version += u64::from(!refunds_too);
        self.seq = Some(entry.seq);
        if let Some(refund) = entry.refund_id {
            wrong.extend(self.apply_refund(refund, entry));
        }
        wrong
    }

    /// A refund's entries: requested once, then settled as failed at most once and as succeeded at most once.
    fn apply_refund(&mut self, refund: RefundId, entry: &Entry) -> Option<String> {
        let before = self.refunds.get(&refund).copied();
        let follows = match (entry.kind, entry.from, entry.to) {
            (EntryKind::RefundRequested, None, Some(LedgerStatus::Requested)) => before.is_none(),
            (
                EntryKind::RefundSettled,
                Some(from @ LedgerStatus::Requested),
                Some(LedgerStatus::Failed | LedgerStatus::Succeeded),
            )
            | (EntryKind::RefundSettled, Some(from @ LedgerStatus::Failed), Some(LedgerStatus::Succeeded)) => {
                before == Some(from)
            }
            _ => false,
        };
        self.refunds.insert(refund, entry.to.unwrap_or(LedgerStatus::Requested));
        (!follows)
            .then(|| format!("{refund}: {} to {:?} does not follow on {before:?}", entry.kind, entry.to))
    }
}

/// A booking's row stands where its entries end.
fn check_row(booking: &Booking, replay: &BookingReplay<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let booked = booking.items.iter().map(|item| (item.ticket_type, item.quantity));
    let lines = replay.lines.unwrap_or_default().iter().map(|line| (line.ticket_type, line.quantity));
    let status = replay.status.map_or("nothing", LedgerStatus::as_str);
    if replay.status != Some(booking.status().into()) || !lines.eq(booked) {
        wrong.push(format!("is {}, but its ledger says {status}", booking.status()));
    }
    if replay.seq != Some(booking.last_seq) {
        let last = replay.seq.unwrap_or(0);
        wrong.push(format!("names entry {} as its last, but that is {last}", booking.last_seq));
    }
    if u64::from(booking.version) != replay.version {
        wrong.push(format!("has version {} after {} changes", booking.version, replay.version));
    }
    match &booking.state {
        State::Cancelled { payment: None, refunded: true, .. } => {
            wrong.push("is refunded, but was never paid".to_owned());
        }
        State::Expired { at } if *at < booking.hold_expires_at => {
            wrong.push("expired before its time".to_owned());
        }
        State::Cancelled { .. } | State::Pending | State::Expired { .. } | State::Confirmed(_) => {}
    }
    wrong
}

/// The total is the sum of the items, in the currency of the event.
fn check_money(booking: &Booking, event: &Event) -> Vec<String> {
    let mut wrong = Vec::new();
    let cost = |item: &crate::Item| i128::from(item.unit_price.amount()) * i128::from(item.quantity);
    let sum: i128 = booking.items.iter().map(cost).sum();
    if i128::from(booking.total.amount()) != sum {
        wrong.push(format!("costs {}, but its items cost {sum}", booking.total));
    }
    wrong.extend(check_currency(booking.total, event));
    wrong
}

/// A payment is captured in full or not at all, and nothing but the booking's total is.
fn check_amount(refund: &Refund, booking: &Booking, event: &Event) -> Vec<String> {
    let mut wrong = Vec::new();
    if refund.amount.amount() != booking.total.amount() {
        wrong.push(format!("gives back {}, but {} was paid", refund.amount, booking.total));
    }
    if let State::Confirmed(payment) = &booking.state
        && payment.transaction == refund.transaction
    {
        wrong.push("gives back a payment that still pays for a confirmed booking".to_owned());
    }
    wrong.extend(check_currency(refund.amount, event));
    wrong
}

fn check_currency(money: Money, event: &Event) -> Option<String> {
    let (own, other) = (event.details.currency, money.currency());
    (own != other).then(|| format!("is in {}, but {} sells in {}", other.code(), event.id, own.code()))
}
