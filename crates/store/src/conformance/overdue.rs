//! Overdue holds are freed when an order needs their tickets: as many as needed, the oldest first. "Sold out"
//! is never returned while one is left.

use std::sync::Arc;
use std::time::Duration;

use domain::{
    Actor, Booking, BookingStatus, EntryKind, Event, EventPatch, NewEvent, TicketSelection, TicketTypeId,
    UserId,
};

use super::Harness;
use super::fixture::{Fixture, HOLD, command, edit, expire, outcome_code, user};
use crate::OVERDUE_PER_BATCH_MAX;

const PENDING: BookingStatus = BookingStatus::Pending;
const EXPIRED: BookingStatus = BookingStatus::Expired;

/// Creates an event that is full with `count` overdue bookings of one ticket each. Returns them in their
/// order.
async fn create_full_of_overdue(fixture: &Fixture<'_>, count: u32) -> (Event, Vec<Arc<Booking>>) {
    let event = fixture.create(fixture.new_event(count)).await;
    let orders: Vec<_> = (0..count).map(|_| ("slow", 1)).collect();
    let mut holds = Vec::new();
    for part in orders.chunks(crate::BATCH_MAX) {
        holds.extend(fixture.hold(event.id, part).await);
    }
    fixture.harness.advance(HOLD).await;
    (event, holds)
}

/// A number of the first status, followed by a number of the second.
fn first_then(first: (usize, BookingStatus), then: (usize, BookingStatus)) -> Vec<BookingStatus> {
    let mut all = vec![first.1; first.0];
    all.resize(first.0 + then.0, then.1);
    all
}

pub(super) async fn only_overdue_holds_are_freed(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(1)).await;
    let held = fixture.run_ok(fixture.book(event.id, "slow", 1)).await;
    let almost = HOLD.saturating_sub(Duration::from_mins(1));
    harness.advance(almost).await;
    let commands = vec![fixture.book(event.id, "a", 1), expire(&held)];
    assert_eq!(fixture.outcome_codes(commands).await, ["sold_out", "invalid_state"]);
    harness.advance(Duration::from_mins(1)).await;
    assert_eq!(fixture.status(&held).await, PENDING, "time alone does not change a booking");
    assert_eq!(fixture.outcome_codes(vec![fixture.book(event.id, "a", 1)]).await, ["ok"]);
    assert_eq!(fixture.status(&held).await, EXPIRED);
    fixture.assert_audit_clean().await;
}

pub(super) async fn holds_are_freed_by_event_oldest_first(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(8)).await;
    let mut holds = fixture.hold(event.id, &[("a", 2), ("b", 2)]).await;
    // Created later, but overdue earlier.
    let shorter = EventPatch { hold_seconds: Some(300), ..EventPatch::default() };
    fixture.run(edit(event.id, shorter)).await;
    holds.extend(fixture.hold(event.id, &[("c", 2), ("d", 2)]).await);
    harness.advance(HOLD).await;

    let mut order = fixture.book(event.id, "e", 3);
    order.request = "req-order".parse().expect("a request");
    assert_eq!(outcome_code(&fixture.run(order).await), "ok");
    assert_eq!(fixture.statuses(&holds).await, [PENDING, PENDING, EXPIRED, EXPIRED]);
    let ledger = fixture.ledger(event.id).await;
    let last: Vec<_> = ledger[ledger.len() - 3..].iter().collect();
    assert_eq!([last[0].booking_id, last[1].booking_id], [Some(holds[2].id), Some(holds[3].id)]);
    let kinds = [EntryKind::BookingExpired, EntryKind::BookingExpired, EntryKind::BookingCreated];
    assert_eq!(last.iter().map(|entry| entry.kind.clone()).collect::<Vec<_>>(), kinds);
    assert!(last[..2].iter().all(|entry| entry.actor == Actor::System));
    assert!(last.iter().all(|entry| entry.request.as_str() == "req-order"));

    // Four tickets were freed and three booked: the one left is used first.
    assert_eq!(fixture.outcome_codes(vec![fixture.book(event.id, "f", 2)]).await, ["ok"]);
    assert_eq!(fixture.statuses(&holds).await, [EXPIRED, PENDING, EXPIRED, EXPIRED]);
    let commands = vec![fixture.book(event.id, "g", 4), fixture.book(event.id, "g", 3)];
    assert_eq!(fixture.outcome_codes(commands).await, ["insufficient_availability", "ok"]);
    assert_eq!(fixture.statuses(&holds).await, [EXPIRED; 4]);
    fixture.assert_audit_clean().await;
}

/// A new event with two ticket types, of two tickets each, and their ids.
fn two_types(fixture: &Fixture<'_>, capacity: u32) -> (NewEvent, [TicketTypeId; 2]) {
    let mut new = fixture.new_event(capacity);
    new.ticket_types = vec![fixture.ticket_type(Some(2)), fixture.ticket_type(Some(2))];
    let ids = [new.ticket_types[0].id, new.ticket_types[1].id];
    (new, ids)
}

pub(super) async fn holds_are_freed_by_ticket_type(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let (new, [stalls, balcony]) = two_types(&fixture, 100);
    let event = fixture.create(new).await.id;
    let mut holds = Vec::new();
    for kind in [balcony, stalls, balcony, stalls] {
        holds.push(
            fixture.run_ok(fixture.order(event, "slow", TicketSelection::Items(vec![(kind, 1)]))).await,
        );
    }
    harness.advance(HOLD).await;
    let order = |kind| fixture.order(event, "a", TicketSelection::Items(vec![(kind, 1)]));
    assert_eq!(fixture.outcome_codes(vec![order(stalls)]).await, ["ok"]);
    assert_eq!(fixture.statuses(&holds).await, [PENDING, EXPIRED, PENDING, PENDING]);
    assert_eq!(
        fixture.outcome_codes(vec![order(stalls), order(stalls), order(balcony)]).await,
        ["ok", "sold_out", "ok"]
    );
    assert_eq!(fixture.statuses(&holds).await, [EXPIRED, EXPIRED, PENDING, EXPIRED]);
    fixture.assert_audit_clean().await;
}

pub(super) async fn a_hold_with_several_types_frees_them_all(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let (new, [stalls, balcony]) = two_types(&fixture, 100);
    let event = fixture.create(new).await.id;
    let both = TicketSelection::Items(vec![(stalls, 1), (balcony, 2)]);
    let held = fixture.run_ok(fixture.order(event, "slow", both.clone())).await;
    harness.advance(HOLD).await;
    let fits = fixture.order(event, "a", TicketSelection::Items(vec![(stalls, 1)]));
    assert_eq!(fixture.outcome_codes(vec![fits]).await, ["ok"]);
    assert_eq!(fixture.status(&held).await, PENDING, "no ticket was missing");
    assert_eq!(fixture.outcome_codes(vec![fixture.order(event, "b", both)]).await, ["ok"]);
    assert_eq!(fixture.status(&held).await, EXPIRED);
    let types = fixture.event(event).await.inventory.types;
    assert_eq!([types[0].held, types[1].held], [2, 2]);
    fixture.assert_audit_clean().await;
}

pub(super) async fn holds_are_freed_by_user(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(NewEvent { max_tickets_per_user: Some(3), ..fixture.new_event(100) }).await.id;
    let holds = fixture.hold(event, &[("b", 2), ("a", 1), ("a", 2)]).await;
    harness.advance(HOLD).await;
    assert_eq!(fixture.outcome_codes(vec![fixture.book(event, "a", 1)]).await, ["ok"]);
    assert_eq!(fixture.statuses(&holds).await, [PENDING, EXPIRED, PENDING]);
    let commands = vec![fixture.book(event, "a", 2), fixture.book(event, "a", 1)];
    assert_eq!(fixture.outcome_codes(commands).await, ["ok", "booking_limit_exceeded"]);
    assert_eq!(fixture.statuses(&holds).await, [PENDING, EXPIRED, EXPIRED]);
    fixture.assert_audit_clean().await;
}

/// The limit of the user, the ticket type and the event are exhausted, one after the other.
pub(super) async fn several_scopes_are_freed_for_one_order(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let (mut new, [stalls, balcony]) = two_types(&fixture, 4);
    new.max_tickets_per_user = Some(2);
    let event = fixture.create(new).await.id;
    let order = |name: &str, kind, quantity| {
        fixture.order(event, name, TicketSelection::Items(vec![(kind, quantity)]))
    };
    let mut holds = Vec::new();
    for order in
        [order("a", balcony, 1), order("a", balcony, 1), order("b", stalls, 1), order("c", stalls, 1)]
    {
        holds.push(fixture.run_ok(order).await);
    }
    harness.advance(HOLD).await;
    assert_eq!(fixture.outcome_codes(vec![order("a", stalls, 1)]).await, ["ok"]);
    assert_eq!(fixture.statuses(&holds).await, [EXPIRED, PENDING, EXPIRED, PENDING]);
    assert_eq!(
        fixture.outcome_codes(vec![order("d", stalls, 2), order("d", balcony, 2)]).await,
        ["insufficient_availability", "ok"]
    );
    // The refused order had freed the overdue holds before it was refused.
    assert_eq!(fixture.statuses(&holds).await, [EXPIRED; 4]);
    let users: Vec<UserId> = ["a", "b", "c", "d"].map(user).to_vec();
    let pending = fixture.store.bookings(crate::BookingList::All { after: None }, Some(PENDING), 10).await;
    let owners: Vec<_> = pending.expect("a read").rows.into_iter().map(|booking| booking.user).collect();
    assert_eq!(owners, [users[3].clone(), users[0].clone()]);
    fixture.assert_audit_clean().await;
}

pub(super) async fn holds_are_freed_page_by_page(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let (event, holds) = create_full_of_overdue(&fixture, 200).await;
    assert_eq!(fixture.outcome_codes(vec![fixture.book(event.id, "a", 150)]).await, ["ok"]);
    assert_eq!(fixture.statuses(&holds).await, first_then((150, EXPIRED), (50, PENDING)));
    let commands = vec![
        fixture.book(event.id, "b", 51),
        fixture.book(event.id, "b", 50),
        fixture.book(event.id, "b", 1),
    ];
    assert_eq!(fixture.outcome_codes(commands).await, ["insufficient_availability", "ok", "sold_out"]);
    assert_eq!(fixture.statuses(&holds).await, vec![EXPIRED; 200]);
    fixture.assert_audit_clean().await;
}

pub(super) async fn orders_of_a_batch_share_freed_tickets(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let (event, holds) = create_full_of_overdue(&fixture, 200).await;
    let commands = [10, 70, 30].map(|quantity| fixture.book(event.id, "a", quantity)).to_vec();
    assert_eq!(fixture.outcome_codes(commands).await, ["ok"; 3]);
    assert_eq!(fixture.statuses(&holds).await, first_then((110, EXPIRED), (90, PENDING)));

    let event = fixture.create(fixture.new_event(10)).await.id;
    let holds = fixture.hold(event, &[("a", 2); 5]).await;
    harness.advance(HOLD).await;
    assert_eq!(
        fixture.outcome_codes(vec![fixture.book(event, "b", 3), fixture.book(event, "c", 3)]).await,
        ["ok"; 2]
    );
    assert_eq!(fixture.statuses(&holds).await, first_then((3, EXPIRED), (2, PENDING)));
    fixture.assert_audit_clean().await;
}

pub(super) async fn a_hold_changed_by_its_batch_is_not_freed_again(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let (event, holds) = create_full_of_overdue(&fixture, 5).await;
    let commands = vec![
        fixture.confirm(&holds[0], "t"),
        fixture.cancel(&holds[1]),
        expire(&holds[2]),
        fixture.book(event.id, "a", 3),
        fixture.book(event.id, "a", 2),
        fixture.book(event.id, "a", 1),
        expire(&holds[3]),
        fixture.confirm(&holds[4], "u"),
    ];
    let expected =
        ["ok", "ok", "ok", "ok", "insufficient_availability", "ok", "invalid_state", "hold_expired"];
    assert_eq!(fixture.outcome_codes(commands).await, expected);
    let ends = [BookingStatus::Confirmed, BookingStatus::Cancelled, EXPIRED, EXPIRED, EXPIRED];
    assert_eq!(fixture.statuses(&holds).await, ends);
    fixture.assert_audit_clean().await;
}

pub(super) async fn commands_are_requeued_when_a_batch_frees_its_maximum(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let other = fixture.create(fixture.new_event(1)).await.id;
    fixture.hold(other, &[("slow", 1)]).await;
    let idle = fixture.create(fixture.new_event(1)).await.id;
    let count = u32::try_from(OVERDUE_PER_BATCH_MAX).expect("a small bound") + 276;
    let (event, holds) = create_full_of_overdue(&fixture, count).await;
    let large = fixture.book(event.id, "a", 1_200);
    let waiting = fixture.book(other, "a", 1);
    let commands =
        vec![large.clone(), waiting.clone(), fixture.book(idle, "a", 1), fixture.book(event.id, "b", 1)];
    // Two commands need tickets that this batch may not free any more; the others get the tickets that are
    // left.
    assert_eq!(fixture.outcome_codes(commands).await, ["requeue", "requeue", "ok", "ok"]);
    let id = large.booking_id().expect("the booking id of an order");
    assert_eq!(fixture.store.booking(id).await.expect("a read"), None, "a requeued order changes nothing");
    let freed = first_then((OVERDUE_PER_BATCH_MAX, EXPIRED), (276, PENDING));
    assert_eq!(fixture.statuses(&holds).await, freed);
    fixture.assert_audit_clean().await;

    assert_eq!(fixture.outcome_codes(vec![large, waiting]).await, ["ok", "ok"]);
    let freed = first_then((OVERDUE_PER_BATCH_MAX + 177, EXPIRED), (99, PENDING));
    assert_eq!(fixture.statuses(&holds).await, freed);
    let too_many = command(fixture.book(event.id, "c", 1_300).action);
    assert_eq!(fixture.outcome_codes(vec![too_many]).await, ["insufficient_availability"]);
    assert_eq!(fixture.event(event.id).await.available(), 99);
    fixture.assert_audit_clean().await;
}
