//! One event's books: its ledger, replayed in order, and the sums over its bookings.

use std::collections::BTreeMap;

use crate::{
    Booking, BookingId, BookingStatus, Entry, EntryKind, Event, LedgerStatus, Money, Tallies, TicketTypeId,
    Timestamp,
};

/// One event's ledger, replayed as far as it was read, and what its bookings add up to. Its size depends on the
/// number of ticket types alone.
#[derive(Debug)]
pub(super) struct EventReplay {
    event: Event,
    seq: u64,
    last_at: Option<Timestamp>,
    /// Edits of the event so far, its creation included.
    versions: u32,
    /// Whether the event was on sale, paused or cancelled after the last entry.
    sales: LedgerStatus,
    available: u32,
    /// What a ticket of each type has cost since the last edit of the event, and the last booking that shows it.
    prices: BTreeMap<TicketTypeId, (Money, BookingId)>,
    /// Tickets held and sold of each type.
    types: BTreeMap<TicketTypeId, (i64, i64)>,
    tallies: Tallies,
}

impl EventReplay {
    pub(super) fn new(event: Event) -> Self {
        let types = event.details.ticket_types.iter().map(|kind| (kind.id, (0, 0))).collect();
        Self {
            event,
            seq: 0,
            last_at: None,
            versions: 0,
            sales: LedgerStatus::OnSale,
            available: 0,
            prices: BTreeMap::new(),
            types,
            tallies: Tallies::default(),
        }
    }

    pub(super) fn event(&self) -> &Event {
        &self.event
    }

    /// One entry: numbering, time, the event's own path, and the number of tickets left.
    pub(super) fn apply(&mut self, entry: &Entry) -> Vec<String> {
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
        if (entry.kind == EntryKind::EventCreated) != (entry.seq == 1) {
            wrong.push(format!("{} is not entry 1 and no other", EntryKind::EventCreated));
        }
        wrong.extend(self.check_available(entry));
        wrong.extend(self.check_sales(entry));
        self.record_edit(entry);
        wrong
    }

    /// What is left after an entry follows from what was left before it.
    fn check_available(&mut self, entry: &Entry) -> Option<String> {
        let before = self.available;
        self.available = entry.available_after;
        let possible = match entry.kind {
            EntryKind::BookingCreated => vec![before.checked_sub(entry.quantity)],
            // A late payment takes its tickets again; a timely one has them.
            EntryKind::BookingConfirmed if entry.from == Some(LedgerStatus::Expired) => {
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

    /// Nothing is booked while sales are paused; nothing is booked or paid once the event is cancelled.
    fn check_sales(&mut self, entry: &Entry) -> Option<String> {
        let before = self.sales;
        let possible = match entry.kind {
            EntryKind::BookingCreated => before == LedgerStatus::OnSale,
            EntryKind::BookingConfirmed | EntryKind::EventUpdated | EntryKind::EventCancelled => {
                before != LedgerStatus::Cancelled
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

    /// Every edit of the event counts, and may change its prices.
    fn record_edit(&mut self, entry: &Entry) {
        match entry.kind {
            EntryKind::EventCreated | EntryKind::EventUpdated | EntryKind::EventCancelled => {
                self.versions = self.versions.saturating_add(1);
                self.prices.clear();
            }
            EntryKind::BookingCreated
            | EntryKind::BookingConfirmed
            | EntryKind::BookingCancelled
            | EntryKind::BookingExpired
            | EntryKind::RefundRequested
            | EntryKind::RefundSettled => {}
        }
    }

    /// Between two edits of the event, all bookings of a ticket type are made at one price.
    pub(super) fn check_prices(&mut self, booking: &Booking) -> Vec<String> {
        let mut wrong = Vec::new();
        for item in booking.items.iter() {
            let (kind, now) = (item.ticket_type, item.unit_price);
            let before = self.prices.insert(kind, (now, booking.id));
            if let Some((price, id)) = before.filter(|(price, _)| *price != now) {
                let after = booking.id;
                wrong.push(format!(
                    "{after} booked {kind} at {now}, but {id} at {price} with no edit in between"
                ));
            }
        }
        wrong
    }

    /// Adds a booking's row to the sums; says what keeps it from being added.
    pub(super) fn add_booking(&mut self, booking: &Booking) -> Vec<String> {
        let mut wrong = Vec::new();
        let held = booking.status() == BookingStatus::Pending;
        let live = held || booking.status() == BookingStatus::Confirmed;
        for item in booking.items.iter().filter(|_| live) {
            match self.types.get_mut(&item.ticket_type) {
                Some((sum, _)) if held => *sum = sum.saturating_add(item.quantity.into()),
                Some((_, sum)) => *sum = sum.saturating_add(item.quantity.into()),
                None => wrong.push(format!("{} is no ticket type of its event", item.ticket_type)),
            }
        }
        if self.tallies.count(None, booking.status(), booking.total.amount()).is_err() {
            wrong.push("cannot be counted".to_owned());
        }
        wrong
    }

    /// The event's row against all that was replayed.
    pub(super) fn close(self) -> Vec<String> {
        let mut wrong = self.check_current_prices();
        let mut over = Vec::new();
        let stock = &self.event.inventory;
        let mut same = |what: &str, stored: i128, derived: i128| {
            if stored != derived {
                wrong.push(format!("{what} is stored as {stored} and derived as {derived}"));
            }
        };
        let (mut held, mut sold) = (0_i128, 0_i128);
        for (kind, counters) in self.event.details.ticket_types.iter().zip(&stock.types) {
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
        same("version", self.event.details.version.into(), self.versions.into());
        same("pending bookings", stock.tallies.pending.into(), self.tallies.pending.into());
        same("confirmed bookings", stock.tallies.confirmed.into(), self.tallies.confirmed.into());
        same("cancelled bookings", stock.tallies.cancelled.into(), self.tallies.cancelled.into());
        same("expired bookings", stock.tallies.expired.into(), self.tallies.expired.into());
        same("revenue", stock.tallies.revenue, self.tallies.revenue);
        wrong.extend(over);
        wrong
    }

    /// Today's prices against the bookings made since the last edit. A type that none of them booked has no
    /// second witness.
    fn check_current_prices(&self) -> Vec<String> {
        let differs = |kind: &&crate::TicketType| {
            self.prices.get(&kind.id).is_some_and(|(price, _)| *price != kind.price)
        };
        let types = self.event.details.ticket_types.iter().filter(differs);
        types
            .filter_map(|kind| {
                let (price, booking) = self.prices.get(&kind.id)?;
                let (id, now) = (kind.id, kind.price);
                Some(format!("{id} costs {now}, but {booking} booked it at {price} after the last edit"))
            })
            .collect()
    }
}
