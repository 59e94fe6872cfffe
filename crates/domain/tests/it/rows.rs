//! The rows of one event, as a database stores them, and their audit.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    Audit, AuditReport, Booking, BookingId, Entry, EntryKind, Event, EventPatch, History, NewEvent, Refund,
    State, TicketSelection, UserId,
};

use crate::invariants;
use crate::world::{World, admin, new_event, new_ticket_type, outcome_code, payment, service, ticket_type};

/// The rows of one event in a database.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub(crate) event: Event,
    pub(crate) entries: Vec<Entry>,
    pub(crate) bookings: Vec<Booking>,
    pub(crate) refunds: Vec<Refund>,
    pub(crate) users: Vec<(UserId, u32)>,
}

impl Rows {
    pub(crate) fn of(world: &World) -> Self {
        Self {
            event: world.event().clone(),
            entries: world.ledger.clone(),
            bookings: world.bookings.values().map(|booking| Booking::clone(booking)).collect(),
            refunds: world.refunds.values().cloned().collect(),
            users: world.user_tickets.iter().map(|(user, tickets)| (user.clone(), *tickets)).collect(),
        }
    }

    /// Feeds an audit as a store does: the ledger in order, then each booking with its entries and refunds.
    pub(crate) fn feed(&self, audit: &mut Audit) {
        audit.event(self.event.clone());
        for entry in &self.entries {
            let created = entry.booking_id.filter(|_| entry.kind == EntryKind::BookingCreated);
            let created_by = |booking: &&Booking| created == Some(booking.id);
            audit.entry(entry, self.bookings.iter().find(created_by));
        }
        let booking_ids: BTreeSet<BookingId> =
            self.entries.iter().filter_map(|entry| entry.booking_id).collect();
        for id in booking_ids {
            let of_booking = |entry: &&Entry| entry.booking_id == Some(id);
            audit.history(&History {
                id,
                entries: self.entries.iter().filter(of_booking).cloned().collect(),
                booking: self.bookings.iter().find(|booking| booking.id == id).cloned(),
                refunds: self.refunds.iter().filter(|refund| refund.booking_id == id).cloned().collect(),
            });
        }
        for (user, holds, counted) in self.user_counts() {
            audit.user(&user, holds, counted);
        }
    }

    /// The number of tickets that each user has, and the stored count.
    fn user_counts(&self) -> Vec<(UserId, u64, Option<u32>)> {
        let mut users: BTreeMap<UserId, (u64, Option<u32>)> = BTreeMap::new();
        for booking in &self.bookings {
            let is_live = matches!(booking.state, State::Pending | State::Confirmed(_));
            let tickets = if is_live { booking.items.quantity() } else { 0 };
            users.entry(booking.user.clone()).or_default().0 += u64::from(tickets);
        }
        for (user, tickets) in &self.users {
            users.entry(user.clone()).or_default().1 = Some(*tickets);
        }
        users.into_iter().map(|(user, (holds, counted))| (user, holds, counted)).collect()
    }

    pub(crate) fn row_counts(&self) -> [u64; 3] {
        [self.bookings.len(), self.entries.len(), self.refunds.len()].map(|n| u64::try_from(n).unwrap())
    }

    pub(crate) fn report(&self) -> AuditReport {
        let mut audit = Audit::default();
        self.feed(&mut audit);
        let [bookings, entries, refunds] = self.row_counts();
        audit.finish(bookings, entries, refunds)
    }

    pub(crate) fn entry(&mut self, kind: EntryKind) -> &mut Entry {
        self.entries.iter_mut().find(|entry| entry.kind == kind).unwrap()
    }

    pub(crate) fn booking(&mut self, id: BookingId) -> &mut Booking {
        self.bookings.iter_mut().find(|booking| booking.id == id).unwrap()
    }

    pub(crate) fn refund(&mut self, transaction: &str) -> &mut Refund {
        self.refunds.iter_mut().find(|refund| refund.transaction == payment(transaction)).unwrap()
    }
}

/// Panics with the report of the audit if it contains a violation.
pub(crate) fn assert_audit_clean(world: &World) {
    let rows = Rows::of(world);
    let [bookings, entries, refunds] = rows.row_counts();
    let expected = AuditReport { events: 1, bookings, entries, refunds, ..AuditReport::default() };
    assert_eq!(rows.report(), expected);
}

/// The ids of the bookings that [`populated`] creates, by their state.
pub(crate) struct BookingIds {
    pub(crate) held: BookingId,
    pub(crate) paid: BookingId,
    pub(crate) unpaid: BookingId,
    pub(crate) refunded: BookingId,
    pub(crate) expired: BookingId,
}

/// A world with at least one booking in each state, and with refunds and edits.
pub(crate) fn populated() -> (Rows, BookingIds) {
    let ticket_types = vec![new_ticket_type(0, 4500, Some(9)), new_ticket_type(1, 9000, None)];
    let new = NewEvent { capacity: 20, ticket_types, max_tickets_per_user: Some(8), ..new_event() };
    let mut world = World::selling(new);
    let ok = |answer| assert_eq!(outcome_code(&answer), "ok");
    let items =
        |first, second| TicketSelection::Items(vec![(ticket_type(0), first), (ticket_type(1), second)]);
    let order = |world: &mut World, name: &str| {
        let id = world.next_booking();
        world.wait(1);
        assert_eq!(outcome_code(&world.order(name, items(1, 2), None)), "ok");
        id
    };
    let expired = order(&mut world, "eve");
    let paid = order(&mut world, "ann");
    world.wait(3600);
    ok(world.expire(expired));
    ok(world.expire(paid));
    ok(world.pay(paid, "own"));
    assert_eq!(outcome_code(&world.pay(paid, "late")), "invalid_state");
    let (held, unpaid, refunded) =
        (order(&mut world, "bob"), order(&mut world, "ann"), order(&mut world, "cyd"));
    ok(world.edit(EventPatch { capacity: Some(25), ..EventPatch::default() }));
    ok(world.edit(EventPatch { capacity: Some(12), ..EventPatch::default() }));
    ok(world.cancel(service(), unpaid));
    ok(world.pay(refunded, "back"));
    ok(world.cancel(admin(), refunded));
    world.wait(1);
    ok(world.settle(refunded, "back", false, "payout 1"));
    ok(world.settle(refunded, "back", true, "payout 2"));
    ok(world.settle(paid, "late", true, "payout 3"));
    invariants::check(&world);
    (Rows::of(&world), BookingIds { held, paid, unpaid, refunded, expired })
}
