//! The audit: derives every count again from the ledger and the bookings, and compares.
//!
//! It is fed rows in the ledger's own order and replays them in one pass, so it judges what the database
//! holds, whoever wrote it. Used by the program, and by the tests at the end of everything they do.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Booking, BookingId, BookingStatus, Entry, EntryKind, Event, EventId, Label, Line, Refund, RefundId,
    RefundStatus, State, Tallies, TicketTypeId, Timestamp, TransactionId, UserId,
};

/// What the audit found, and how much it looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Events looked at.
    pub events: u64,
    /// Bookings looked at.
    pub bookings: u64,
    /// Ledger entries replayed.
    pub entries: u64,
    /// Refunds looked at.
    pub refunds: u64,
    /// Every contradiction, in words; empty when the books are clean.
    pub violations: Vec<String>,
}

/// An audit under way. For each event: [`Audit::event`], then its entries in order, its refunds and its
/// counted users in any order; at the end [`Audit::finish`].
#[derive(Debug, Default)]
pub struct Audit {
    report: AuditReport,
    replay: Option<Replay>,
}

/// One event's ledger, replayed as far as it was read.
#[derive(Debug)]
struct Replay {
    event: Event,
    seq: u64,
    last_at: Option<Timestamp>,
    /// Whether the event was on sale, paused or cancelled after the last entry.
    sales: Label,
    available: u32,
    types: BTreeMap<TicketTypeId, (i64, i64)>,
    tallies: Tallies,
    live_of_user: BTreeMap<UserId, u32>,
    /// Bookings whose last entry has not been read yet.
    open: BTreeMap<BookingId, Walk>,
    /// Payments that must have a refund: cancelled after they were paid. And whether it was paid out.
    owed: BTreeMap<(BookingId, TransactionId), bool>,
    /// Payments that must not: they pay for a confirmed booking.
    paying: BTreeSet<(BookingId, TransactionId)>,
    /// Refunds that the ledger speaks of: whose, and where it leaves them.
    noted: BTreeMap<RefundId, (BookingId, Label)>,
    /// Refunds read so far, and whether each was paid out.
    refunded: BTreeMap<(BookingId, TransactionId), bool>,
}

/// A booking's history so far.
#[derive(Debug)]
struct Walk {
    status: Label,
    seq: u64,
    lines: Vec<Line>,
}

impl Audit {
    /// Begins with an event, and closes the one before.
    pub fn event(&mut self, event: Event) {
        self.close();
        self.report.events += 1;
        let types = event.about.ticket_types.iter().map(|kind| (kind.id, (0, 0))).collect();
        self.replay = Some(Replay {
            event,
            seq: 0,
            last_at: None,
            sales: Label::OnSale,
            available: 0,
            types,
            tallies: Tallies::default(),
            live_of_user: BTreeMap::new(),
            open: BTreeMap::new(),
            owed: BTreeMap::new(),
            paying: BTreeSet::new(),
            noted: BTreeMap::new(),
            refunded: BTreeMap::new(),
        });
    }

    /// The next ledger entry of the event, and the booking's row where this is its last entry.
    pub fn entry(&mut self, entry: &Entry, last_of: Option<&Booking>) {
        self.report.entries += 1;
        let Some(replay) = &mut self.replay else { return };
        let place = |what: String| format!("{} entry {}: {what}", entry.event_id, entry.seq);
        self.report.violations.extend(replay.step(entry).into_iter().map(place));
        if let Some(booking) = last_of {
            self.report.bookings += 1;
            let place = |what: String| format!("{} of {}: {what}", booking.id, booking.event_id);
            self.report.violations.extend(replay.settle(booking).into_iter().map(place));
        }
    }

    /// A refund of the event.
    pub fn refund(&mut self, refund: &Refund) {
        self.report.refunds += 1;
        let Some(replay) = &mut self.replay else { return };
        let paid = (refund.booking_id, refund.transaction.clone());
        let mut wrong = |what: &str| self.report.violations.push(format!("{}: {what}", refund.id));
        if replay.paying.contains(&paid) {
            wrong("gives back a payment that still pays for a confirmed booking");
        }
        match replay.noted.remove(&refund.id) {
            None => wrong("has no entry in the ledger"),
            Some((id, _)) if id != refund.booking_id => wrong("belongs to another booking in the ledger"),
            Some((_, status)) if status != refund.status.into() => {
                wrong(&format!("is {}, but the ledger says {status}", refund.status));
            }
            Some(_) => {}
        }
        if replay.refunded.insert(paid, refund.status == RefundStatus::Succeeded).is_some() {
            wrong("gives back a payment for the second time");
        }
    }

    /// A user's stored count of live tickets of the event. Only for events with a limit per user.
    pub fn user(&mut self, user: &UserId, tickets: u32) {
        let Some(replay) = &mut self.replay else { return };
        let Some(limit) = replay.event.about.max_tickets_per_user else { return };
        let event = replay.event.id;
        let derived = replay.live_of_user.remove(user).unwrap_or(0);
        if derived > limit {
            let what = format!("{event}: user {user} holds {derived} tickets, more than the {limit} allowed");
            self.report.violations.push(what);
        }
        if derived != tickets {
            let what = format!("{event}: user {user} is counted with {tickets} tickets and holds {derived}");
            self.report.violations.push(what);
        }
    }

    /// A row that cannot be read.
    pub fn unreadable(&mut self, what: impl std::fmt::Display) {
        self.report.violations.push(format!("unreadable: {what}"));
    }

    /// Closes the last event and compares with the number of rows that the database counts in all.
    pub fn finish(mut self, bookings: u64, entries: u64, refunds: u64) -> AuditReport {
        self.close();
        let seen = [self.report.bookings, self.report.entries, self.report.refunds];
        for (what, seen, stored) in [
            ("bookings that their ledger leads to", seen[0], bookings),
            ("ledger entries that an event leads to", seen[1], entries),
            ("refunds that an event leads to", seen[2], refunds),
        ] {
            if seen != stored {
                self.report.violations.push(format!("{stored} rows are stored, but only {seen} {what}"));
            }
        }
        self.report
    }

    fn close(&mut self) {
        if let Some(replay) = self.replay.take() {
            let event: EventId = replay.event.id;
            self.report.violations.extend(replay.close().into_iter().map(|what| format!("{event}: {what}")));
        }
    }
}

impl Replay {
    /// One entry: numbering, time, the number of tickets left, and the booking's path.
    fn step(&mut self, entry: &Entry) -> Vec<String> {
        let mut wrong = Vec::new();
        let expected = self.seq.saturating_add(1);
        if entry.seq != expected {
            wrong.push(format!("the ledger should go on with {expected}"));
        }
        self.seq = entry.seq;
        if self.last_at.is_some_and(|before| entry.at < before) {
            wrong.push("is dated before the entry before it".to_owned());
        }
        self.last_at = Some(entry.at);
        wrong.extend(self.count(entry));
        wrong.extend(self.sale(entry));
        if let Some(id) = entry.booking_id {
            wrong.extend(self.walk(id, entry));
        }
        if let Some((booking, refund)) = entry.booking_id.zip(entry.refund_id) {
            wrong.extend(self.note(booking, refund, entry));
        }
        wrong
    }

    /// A refund's entries: requested once, then settled as failed at most once and as succeeded at most once.
    fn note(&mut self, booking: BookingId, refund: RefundId, entry: &Entry) -> Option<String> {
        let before = self.noted.get(&refund).copied();
        let follows = match (entry.kind, entry.from, entry.to) {
            (EntryKind::RefundRequested, None, Some(Label::Requested)) => before.is_none(),
            (
                EntryKind::RefundSettled,
                Some(from @ Label::Requested),
                Some(Label::Failed | Label::Succeeded),
            )
            | (EntryKind::RefundSettled, Some(from @ Label::Failed), Some(Label::Succeeded)) => {
                before == Some((booking, from))
            }
            _ => false,
        };
        self.noted.insert(refund, (booking, entry.to.unwrap_or(Label::Requested)));
        let before = before.map(|(_, status)| status);
        (!follows)
            .then(|| format!("{refund}: {} to {:?} does not follow on {before:?}", entry.kind, entry.to))
    }

    /// Nothing is booked while sales are paused; nothing is booked or paid once the event is cancelled.
    fn sale(&mut self, entry: &Entry) -> Option<String> {
        let before = self.sales;
        let possible = match entry.kind {
            EntryKind::BookingCreated => before == Label::OnSale,
            EntryKind::BookingConfirmed | EntryKind::EventUpdated | EntryKind::EventCancelled => {
                before != Label::Cancelled
            }
            EntryKind::EventCreated
            | EntryKind::BookingCancelled
            | EntryKind::BookingExpired
            | EntryKind::RefundRequested
            | EntryKind::RefundSettled => true,
        };
        if entry.booking_id.is_none() {
            self.sales = entry.to.unwrap_or(before);
        }
        (!possible).then(|| format!("{} while the event is {before}", entry.kind))
    }

    /// What is left after an entry follows from what was left before it.
    fn count(&mut self, entry: &Entry) -> Option<String> {
        let before = self.available;
        self.available = entry.available_after;
        let possible = match entry.kind {
            EntryKind::BookingCreated => vec![before.checked_sub(entry.quantity)],
            // A late payment takes its tickets again; a timely one has them.
            EntryKind::BookingConfirmed if entry.from == Some(Label::Expired) => {
                vec![before.checked_sub(entry.quantity)]
            }
            EntryKind::BookingCancelled | EntryKind::BookingExpired | EntryKind::EventCreated => {
                vec![before.checked_add(entry.quantity)]
            }
            EntryKind::EventUpdated | EntryKind::EventCancelled => {
                vec![before.checked_add(entry.quantity), before.checked_sub(entry.quantity)]
            }
            EntryKind::BookingConfirmed | EntryKind::RefundRequested | EntryKind::RefundSettled => {
                vec![Some(before)]
            }
        };
        let tickets: u64 = entry.lines.iter().map(|line| u64::from(line.quantity)).sum();
        if entry.booking_id.is_some() && tickets != u64::from(entry.quantity) {
            return Some(format!("its lines move {tickets} tickets, not {}", entry.quantity));
        }
        let explained = possible.contains(&Some(entry.available_after));
        (!explained).then(|| format!("leaves {} tickets after {before}", entry.available_after))
    }

    /// A booking's entries form a path of the state table, each naming the one before it.
    fn walk(&mut self, id: BookingId, entry: &Entry) -> Vec<String> {
        let mut wrong = Vec::new();
        let walk = self.open.get(&id);
        let (status, seq) = (walk.map(|walk| walk.status), walk.map(|walk| walk.seq));
        if entry.previous_seq != seq {
            wrong.push(format!("{id}: names entry {:?} before it, not {seq:?}", entry.previous_seq));
        }
        let allowed = match entry.kind {
            EntryKind::BookingCreated => status.is_none(),
            EntryKind::BookingConfirmed => matches!(status, Some(Label::Pending | Label::Expired)),
            EntryKind::BookingCancelled => matches!(status, Some(Label::Pending | Label::Confirmed)),
            EntryKind::BookingExpired => status == Some(Label::Pending),
            EntryKind::RefundRequested | EntryKind::RefundSettled => status.is_some(),
            EntryKind::EventCreated | EntryKind::EventUpdated | EntryKind::EventCancelled => false,
        };
        let moves = entry.refund_id.is_none();
        if !allowed || (moves && entry.from != status) {
            wrong.push(format!("{id}: {} does not follow on {status:?}", entry.kind));
        }
        let status = entry.to.filter(|_| moves).or(status).unwrap_or(Label::Pending);
        let known = walk.map(|walk| walk.lines.clone());
        let lines = known.unwrap_or_else(|| entry.lines.clone());
        if moves && lines != entry.lines {
            wrong.push(format!("{id}: moves other tickets than it booked"));
        }
        self.open.insert(id, Walk { status, seq: entry.seq, lines });
        wrong
    }

    /// A booking's row, at its last entry: it stands where its history ends, and counts.
    fn settle(&mut self, booking: &Booking) -> Vec<String> {
        let mut wrong = Vec::new();
        let walk = self.open.remove(&booking.id);
        let lines = |walk: &Walk| {
            let booked = booking.items.iter().map(|item| (item.ticket_type, item.quantity));
            walk.lines.iter().map(|line| (line.ticket_type, line.quantity)).eq(booked)
        };
        match walk {
            Some(walk) if walk.status == Label::from(booking.status()) && lines(&walk) => {}
            Some(walk) => wrong.push(format!("is {}, but its ledger says {}", booking.status(), walk.status)),
            None => wrong.push("has no ledger".to_owned()),
        }
        let held = booking.status() == BookingStatus::Pending;
        let live = held || booking.status() == BookingStatus::Confirmed;
        for item in booking.items.iter().filter(|_| live) {
            match self.types.get_mut(&item.ticket_type) {
                Some((sum, _)) if held => *sum = sum.saturating_add(item.quantity.into()),
                Some((_, sum)) => *sum = sum.saturating_add(item.quantity.into()),
                None => wrong.push(format!("{} is no ticket type of its event", item.ticket_type)),
            }
        }
        if live {
            let count = self.live_of_user.entry(booking.user.clone()).or_default();
            *count = count.saturating_add(booking.items.quantity());
        }
        if self.tallies.count(None, booking.status(), booking.total.amount()).is_err() {
            wrong.push("cannot be counted".to_owned());
        }
        match &booking.state {
            State::Confirmed(payment) => {
                self.paying.insert((booking.id, payment.transaction.clone()));
            }
            State::Cancelled { payment: Some(payment), refunded, .. } => {
                self.owed.insert((booking.id, payment.transaction.clone()), *refunded);
            }
            State::Cancelled { payment: None, refunded: true, .. } => {
                wrong.push("is refunded, but was never paid".to_owned());
            }
            State::Expired { at } if *at < booking.hold_expires_at => {
                wrong.push("expired before its time".to_owned());
            }
            State::Cancelled { payment: None, .. } | State::Pending | State::Expired { .. } => {}
        }
        wrong
    }

    /// The counters of the event against all that was replayed.
    fn close(mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut over = Vec::new();
        let stock = &self.event.stock;
        let mut same = |what: &str, stored: i128, derived: i128| {
            if stored != derived {
                wrong.push(format!("{what} is stored as {stored} and derived as {derived}"));
            }
        };
        let (mut held, mut sold) = (0_i128, 0_i128);
        for (kind, counters) in self.event.about.ticket_types.iter().zip(&stock.types) {
            let (type_held, type_sold) = self.types.get(&kind.id).copied().unwrap_or_default();
            let (taken, room) =
                (type_held.saturating_add(type_sold), i64::from(counters.capacity.unwrap_or(stock.capacity)));
            if taken > room {
                over.push(format!("{} takes {taken} tickets of its {room}", kind.id));
            }
            same(&format!("held of {}", kind.id), counters.held.into(), type_held.into());
            same(&format!("sold of {}", kind.id), counters.sold.into(), type_sold.into());
            (held, sold) = (held + i128::from(type_held), sold + i128::from(type_sold));
        }
        same("held", stock.held.into(), held);
        same("sold", stock.sold.into(), sold);
        same("available", stock.available().into(), self.available.into());
        same(
            "the sum of held, sold and available",
            stock.capacity.into(),
            held + sold + i128::from(self.available),
        );
        same("seq", stock.seq.into(), self.seq.into());
        same("pending bookings", stock.tallies.pending.into(), self.tallies.pending.into());
        same("confirmed bookings", stock.tallies.confirmed.into(), self.tallies.confirmed.into());
        same("cancelled bookings", stock.tallies.cancelled.into(), self.tallies.cancelled.into());
        same("expired bookings", stock.tallies.expired.into(), self.tallies.expired.into());
        same("revenue", stock.tallies.revenue, self.tallies.revenue);
        wrong.extend(over);
        if self.event.about.max_tickets_per_user.is_some() {
            self.live_of_user.retain(|_, tickets| *tickets > 0);
            wrong.extend(
                self.live_of_user.keys().map(|user| format!("user {user} holds tickets and is not counted")),
            );
        }
        wrong.extend(
            self.open.keys().map(|id| format!("{id} has a ledger but no row that stands where it ends")),
        );
        wrong.extend(
            self.noted.keys().map(|id| format!("{id} is in the ledger, but there is no such refund")),
        );
        for ((id, transaction), shown) in self.owed {
            match self.refunded.get(&(id, transaction)) {
                None => wrong.push(format!("{id} was cancelled after it was paid, without a refund")),
                Some(paid_out) if *paid_out != shown => {
                    wrong.push(format!("{id} does not show whether its refund was paid out"));
                }
                Some(_) => {}
            }
        }
        wrong
    }
}
