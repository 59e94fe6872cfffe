//! The audit of one event: its ledger, replayed in order, and the sums over its bookings.

use std::collections::BTreeMap;

use super::VIOLATIONS_MAX;
use crate::{
    Booking, BookingId, BookingStatus, Entry, EntryKind, Event, LedgerKind, LedgerStatus, Money, Tallies,
    TicketTypeId, Timestamp,
};

/// The state of one event after the ledger entries that were applied so far, and the sums over its bookings.
/// Its size depends only on the number of ticket types.
#[derive(Debug)]
pub(super) struct EventReplay {
    event: Event,
    seq: u64,
    last_at: Option<Timestamp>,
    /// The number of edits so far, including the creation.
    versions: u32,
    /// The event's status after the last entry: on sale, paused or cancelled. `None` if an entry of an
    /// unknown kind may have changed it.
    sales: Option<LedgerStatus>,
    available: u32,
    /// The price of each ticket type since the last edit of the event, and the last booking that proves it.
    prices: BTreeMap<TicketTypeId, (Money, BookingId)>,
    /// Bookings at other prices than the ones before, at most [`VIOLATIONS_MAX`]. They are reported at the
    /// end, because a later entry of an unknown kind may explain them.
    price_violations: Vec<String>,
    /// Tickets held and sold of each type.
    types: BTreeMap<TicketTypeId, (i64, i64)>,
    tallies: Tallies,
    /// True if no entry so far is of an unknown kind.
    is_interpreted: bool,
}

impl EventReplay {
    pub(super) fn new(event: Event) -> Self {
        let types = event.details.ticket_types.iter().map(|kind| (kind.id, (0, 0))).collect();
        Self {
            event,
            seq: 0,
            last_at: None,
            versions: 0,
            sales: Some(LedgerStatus::OnSale),
            available: 0,
            prices: BTreeMap::new(),
            price_violations: Vec::new(),
            types,
            tallies: Tallies::default(),
            is_interpreted: true,
        }
    }

    pub(super) fn event(&self) -> &Event {
        &self.event
    }

    pub(super) fn is_interpreted(&self) -> bool {
        self.is_interpreted
    }

    /// Applies one entry: checks its number and its date, and if its kind is known, the event's status and
    /// the available tickets.
    pub(super) fn apply(&mut self, entry: &Entry) -> Vec<String> {
        let mut violations = Vec::new();
        let expected = self.seq.saturating_add(1);
        if entry.seq != expected {
            violations.push(format!("the ledger should continue with entry {expected}"));
        }
        self.seq = entry.seq;
        if self.last_at.is_some_and(|before| entry.at < before) {
            violations.push("is dated before the previous entry".to_owned());
        }
        self.last_at = Some(entry.at);
        let LedgerKind::Known(kind) = entry.kind else {
            self.skip(entry);
            return violations;
        };
        if (kind == EntryKind::EventCreated) != (entry.seq == 1) {
            violations.push(format!("{} must be entry 1 and no other", EntryKind::EventCreated));
        }
        violations.extend(self.check_available(kind, entry));
        violations.extend(self.check_sales(kind, entry));
        self.record_edit(kind);
        violations
    }

    /// Skips an entry of an unknown kind, which may change anything about its event: further entries are
    /// checked from the available tickets after it.
    fn skip(&mut self, entry: &Entry) {
        self.available = entry.available_after;
        self.sales = None;
        self.prices.clear();
        self.is_interpreted = false;
    }

    /// Checks that the available tickets after an entry follow from those before it.
    fn check_available(&mut self, kind: EntryKind, entry: &Entry) -> Option<String> {
        let before = self.available;
        self.available = entry.available_after;
        let possible = match kind {
            EntryKind::BookingCreated => vec![before.checked_sub(entry.quantity)],
            // A late payment reserves its tickets again; a payment in time already has them.
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
        let is_possible = possible.contains(&Some(entry.available_after));
        (!is_possible).then(|| format!("leaves {} tickets after {before}", entry.available_after))
    }

    /// Checks that nothing is booked while sales are paused, and nothing is booked or paid once the event is
    /// cancelled.
    fn check_sales(&mut self, kind: EntryKind, entry: &Entry) -> Option<String> {
        let before = self.sales;
        if entry.booking_id.is_none() {
            self.sales = entry.to.or(before);
        }
        let before = before?;
        let possible = match kind {
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
        (!possible).then(|| format!("{} while the event is {before}", entry.kind))
    }

    /// Records an edit of the event: it increments the version and may change the prices.
    fn record_edit(&mut self, kind: EntryKind) {
        match kind {
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

    /// Checks that between two edits of the event all bookings of a ticket type are made at the same price.
    pub(super) fn check_prices(&mut self, booking: &Booking) {
        for item in booking.items.iter() {
            let (kind, now) = (item.ticket_type, item.unit_price);
            let before = self.prices.insert(kind, (now, booking.id));
            if let Some((price, id)) = before.filter(|(price, _)| *price != now)
                && self.price_violations.len() < VIOLATIONS_MAX
            {
                let after = booking.id;
                self.price_violations.push(format!(
                    "{after} booked {kind} at {now}, but {id} at {price} with no edit in between"
                ));
            }
        }
    }

    /// Adds a booking's row to the sums; returns the reasons why it cannot be added.
    pub(super) fn add_booking(&mut self, booking: &Booking) -> Vec<String> {
        let mut violations = Vec::new();
        let held = booking.status() == BookingStatus::Pending;
        let live = held || booking.status() == BookingStatus::Confirmed;
        for item in booking.items.iter().filter(|_| live) {
            match self.types.get_mut(&item.ticket_type) {
                Some((sum, _)) if held => *sum = sum.saturating_add(item.quantity.into()),
                Some((_, sum)) => *sum = sum.saturating_add(item.quantity.into()),
                None => violations.push(format!("{} is not a ticket type of its event", item.ticket_type)),
            }
        }
        if self.tallies.count(None, booking.status(), booking.total.amount()).is_err() {
            violations.push("cannot be counted".to_owned());
        }
        violations
    }

    /// Compares the event's row with the replayed state. After entries that were skipped only the number of
    /// the last entry is known.
    pub(super) fn close(self) -> Vec<String> {
        let inventory = &self.event.inventory;
        if !self.is_interpreted {
            return compare("seq", inventory.seq.into(), self.seq.into()).into_iter().collect();
        }
        let mut violations = self.check_current_prices();
        violations.extend(self.price_violations);
        let mut exceeded = Vec::new();
        let mut compare = |what: &str, stored: i128, derived: i128| {
            violations.extend(compare(what, stored, derived));
        };
        let (mut held, mut sold) = (0_i128, 0_i128);
        for (kind, counters) in self.event.details.ticket_types.iter().zip(&inventory.types) {
            let (type_held, type_sold) = self.types.get(&kind.id).copied().unwrap_or_default();
            let (used, capacity) = (
                type_held.saturating_add(type_sold),
                i64::from(counters.capacity.unwrap_or(inventory.capacity)),
            );
            if used > capacity {
                exceeded.push(format!("{} uses {used} of its {capacity} tickets", kind.id));
            }
            compare(&format!("held of {}", kind.id), counters.held.into(), type_held.into());
            compare(&format!("sold of {}", kind.id), counters.sold.into(), type_sold.into());
            (held, sold) = (held + i128::from(type_held), sold + i128::from(type_sold));
        }
        compare("held", inventory.held.into(), held);
        compare("sold", inventory.sold.into(), sold);
        compare("available", inventory.available().into(), self.available.into());
        compare(
            "the sum of held, sold and available",
            inventory.capacity.into(),
            held + sold + i128::from(self.available),
        );
        compare("seq", inventory.seq.into(), self.seq.into());
        compare("version", self.event.details.version.into(), self.versions.into());
        compare("pending bookings", inventory.tallies.pending.into(), self.tallies.pending.into());
        compare("confirmed bookings", inventory.tallies.confirmed.into(), self.tallies.confirmed.into());
        compare("cancelled bookings", inventory.tallies.cancelled.into(), self.tallies.cancelled.into());
        compare("expired bookings", inventory.tallies.expired.into(), self.tallies.expired.into());
        compare("revenue", inventory.tallies.revenue, self.tallies.revenue);
        violations.extend(exceeded);
        violations
    }

    /// Compares the current prices with the bookings made since the last edit. The price of a ticket type
    /// without such a booking cannot be verified.
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

fn compare(what: &str, stored: i128, derived: i128) -> Option<String> {
    (stored != derived).then(|| format!("{what} is stored as {stored} and derived as {derived}"))
}
