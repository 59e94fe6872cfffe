//! The history of one booking: its ledger entries, its row and its refunds must agree.

use std::collections::BTreeMap;

use super::ledger::EventReplay;
use crate::{
    Booking, BookingId, Entry, EntryKind, EntryLine, Event, EventId, LedgerKind, LedgerStatus, Money, Refund,
    RefundId, RefundStatus, State, TransactionId,
};

/// All stored data of one booking.
#[derive(Clone, Debug)]
pub struct History {
    /// The id of the booking.
    pub id: BookingId,
    /// All entries with this booking id, in the order of the ledger.
    pub entries: Vec<Entry>,
    /// The booking's row; `None` if there is none that can be decoded.
    pub booking: Option<Booking>,
    /// The refunds with this booking id, in any order.
    pub refunds: Vec<Refund>,
}

/// The state of a booking after the entries that were applied so far.
#[derive(Default)]
struct BookingReplay<'a> {
    /// The status after the last entry.
    status: Option<LedgerStatus>,
    /// The number of the last entry.
    seq: Option<u64>,
    lines: Option<&'a [EntryLine]>,
    /// The number of changes of the booking. The cancellation of a paid booking and the refund that it causes
    /// are two entries and one change.
    version: u64,
    /// The status of each refund after its last entry.
    refunds: BTreeMap<RefundId, LedgerStatus>,
}

impl History {
    /// The booking's row, if it belongs to this event.
    pub(super) fn booking_of(&self, event: EventId) -> Option<&Booking> {
        self.booking.as_ref().filter(|booking| booking.event_id == event)
    }

    /// Compares entries, row and refunds, and adds the row to the event's sums. Returns the violations. If an
    /// entry is of an unknown kind, checks only that each entry names the previous one, and the row the last.
    pub(super) fn check(&self, event_replay: &mut EventReplay) -> Vec<String> {
        let (id, event) = (self.id, event_replay.event().id);
        let mut violations = Vec::new();
        let mut replay = BookingReplay::default();
        let is_interpreted = self.entries.iter().all(|entry| entry.kind.known().is_some());
        for entry in &self.entries {
            let locate = |text: String| format!("{event} entry {}: {text}", entry.seq);
            violations.extend(replay.link(id, entry).map(locate));
            if let LedgerKind::Known(kind) = entry.kind
                && is_interpreted
            {
                violations.extend(replay.apply(id, kind, entry).into_iter().map(locate));
            }
        }
        let locate = |text: String| format!("{id} of {event}: {text}");
        let booking = self.booking_of(event);
        violations.extend(booking.and_then(|booking| check_last_entry(booking, &replay)).map(locate));
        if !is_interpreted {
            return violations;
        }
        match booking {
            Some(booking) => {
                violations.extend(check_row(booking, &replay).into_iter().map(locate));
                violations.extend(check_money(booking, event_replay.event()).into_iter().map(locate));
                if event_replay.is_interpreted() {
                    violations.extend(event_replay.add_booking(booking).into_iter().map(locate));
                }
            }
            None => violations.push(format!("{event}: {id} has a ledger but no row")),
        }
        violations.extend(self.check_refunds(replay.refunds, event_replay.event()));
        violations
    }

    /// Compares the refunds with the ledger and the booking: one refund of the whole captured amount for each
    /// payment that must be refunded, and none for the payment of a confirmed booking.
    fn check_refunds(
        &self,
        mut ledger_refunds: BTreeMap<RefundId, LedgerStatus>,
        event: &Event,
    ) -> Vec<String> {
        let (id, booking) = (self.id, self.booking_of(event.id));
        let mut violations = Vec::new();
        let mut paid_out: BTreeMap<&TransactionId, bool> = BTreeMap::new();
        for refund in &self.refunds {
            let mut report = |text: String| violations.push(format!("{}: {text}", refund.id));
            match ledger_refunds.remove(&refund.id) {
                None => report("has no entry in the ledger".to_owned()),
                Some(status) if status != refund.status.into() => {
                    report(format!("is {}, but the ledger has {status}", refund.status));
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
                report("refunds a payment a second time".to_owned());
            }
        }
        let missing = |id: &RefundId| format!("{id} is in the ledger, but there is no such refund");
        violations.extend(ledger_refunds.keys().map(missing));
        if let Some(Booking { state: State::Cancelled { payment: Some(payment), refunded, .. }, .. }) =
            booking
        {
            match paid_out.get(&payment.transaction) {
                None => violations.push(format!("{id} was cancelled after it was paid, without a refund")),
                Some(paid_out) if paid_out != refunded => {
                    violations.push(format!("{id} does not show whether its refund was paid out"));
                }
                Some(_) => {}
            }
        }
        violations
    }
}

impl<'a> BookingReplay<'a> {
    /// Checks that an entry names the previous one.
    fn link(&mut self, id: BookingId, entry: &Entry) -> Option<String> {
        let before = self.seq.replace(entry.seq);
        (entry.previous_seq != before)
            .then(|| format!("{id}: names {:?} as its previous entry, not {before:?}", entry.previous_seq))
    }

    /// Applies an entry: a booking's entries follow the state table.
    fn apply(&mut self, id: BookingId, kind: EntryKind, entry: &'a Entry) -> Vec<String> {
        let mut violations = Vec::new();
        let status = self.status;
        let allowed = match kind {
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
        let moves_tickets = entry.refund_id.is_none();
        if !allowed || (moves_tickets && entry.from != status) {
            violations.push(format!("{id}: {kind} does not follow on {status:?}"));
        }
        self.status = Some(entry.to.filter(|_| moves_tickets).or(status).unwrap_or(LedgerStatus::Pending));
        let lines = *self.lines.get_or_insert(&entry.lines);
        if moves_tickets && lines != entry.lines {
            violations.push(format!("{id}: moves other tickets than it booked"));
        }
        let is_paid_cancellation =
            kind == EntryKind::BookingCancelled && status == Some(LedgerStatus::Confirmed);
        self.version += u64::from(!is_paid_cancellation);
        if let Some(refund) = entry.refund_id {
            violations.extend(self.apply_refund(refund, kind, entry));
        }
        violations
    }

    /// Applies an entry of a refund: requested once, then settled as failed at most once and as succeeded at
    /// most once.
    fn apply_refund(&mut self, refund: RefundId, kind: EntryKind, entry: &Entry) -> Option<String> {
        use LedgerStatus::{Failed, Requested, Succeeded};
        let before = self.refunds.get(&refund).copied();
        let follows = match (kind, entry.from, entry.to) {
            (EntryKind::RefundRequested, None, Some(Requested)) => before.is_none(),
            (EntryKind::RefundSettled, Some(from @ Requested), Some(Failed | Succeeded))
            | (EntryKind::RefundSettled, Some(from @ Failed), Some(Succeeded)) => before == Some(from),
            _ => false,
        };
        self.refunds.insert(refund, entry.to.unwrap_or(Requested));
        (!follows).then(|| format!("{refund}: {kind} to {:?} does not follow on {before:?}", entry.to))
    }
}

/// Checks that a booking's row names its last entry.
fn check_last_entry(booking: &Booking, replay: &BookingReplay<'_>) -> Option<String> {
    let (named, last) = (booking.last_seq, replay.seq.unwrap_or(0));
    (replay.seq != Some(named)).then(|| format!("names entry {named} as its last, but that is {last}"))
}

/// Compares a booking's row with the state after its last entry.
fn check_row(booking: &Booking, replay: &BookingReplay<'_>) -> Vec<String> {
    let mut violations = Vec::new();
    let booked = booking.items.iter().map(|item| (item.ticket_type, item.quantity));
    let lines = replay.lines.unwrap_or_default().iter().map(|line| (line.ticket_type, line.quantity));
    let status = replay.status.map_or("nothing", LedgerStatus::as_str);
    if replay.status != Some(booking.status().into()) || !lines.eq(booked) {
        violations.push(format!("is {}, but its ledger has {status}", booking.status()));
    }
    if u64::from(booking.version) != replay.version {
        violations.push(format!("has version {} after {} changes", booking.version, replay.version));
    }
    match &booking.state {
        State::Cancelled { payment: None, refunded: true, .. } => {
            violations.push("is refunded, but was never paid".to_owned());
        }
        State::Expired { at } if *at < booking.hold_expires_at => {
            violations.push("expired before its hold ended".to_owned());
        }
        State::Cancelled { .. } | State::Pending | State::Expired { .. } | State::Confirmed(_) => {}
    }
    violations
}

/// Checks that the total is the sum of the items, in the currency of the event.
fn check_money(booking: &Booking, event: &Event) -> Vec<String> {
    let mut violations = Vec::new();
    let cost = |item: &crate::Item| i128::from(item.unit_price.amount()) * i128::from(item.quantity);
    let sum: i128 = booking.items.iter().map(cost).sum();
    if i128::from(booking.total.amount()) != sum {
        violations.push(format!("costs {}, but its items cost {sum}", booking.total));
    }
    violations.extend(check_currency(booking.total, event));
    violations
}

/// Checks that a refund is of the booking's total, since a payment is captured in full or not at all.
fn check_amount(refund: &Refund, booking: &Booking, event: &Event) -> Vec<String> {
    let mut violations = Vec::new();
    if refund.amount.amount() != booking.total.amount() {
        violations.push(format!("refunds {}, but {} was paid", refund.amount, booking.total));
    }
    if let State::Confirmed(payment) = &booking.state
        && payment.transaction == refund.transaction
    {
        violations.push("refunds the payment of a confirmed booking".to_owned());
    }
    violations.extend(check_currency(refund.amount, event));
    violations
}

fn check_currency(money: Money, event: &Event) -> Option<String> {
    let (own, other) = (event.details.currency, money.currency());
    (own != other).then(|| format!("is in {}, but {} sells in {}", other.code(), event.id, own.code()))
}
