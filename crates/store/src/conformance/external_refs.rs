//! External references: unique within an event, and a filter of the list of bookings.

use std::sync::Arc;

use domain::{Action, Booking, BookingId, BookingStatus, Command, EventId, Order, TicketSelection};
use futures_util::future::join_all;

use super::Harness;
use super::fixture::{Fixture, command, expect_booking, outcome_code, user};
use crate::BookingList;

fn order(fixture: &Fixture<'_>, event: EventId, name: &str, reference: Option<&str>) -> Command {
    let booking = BookingId::from_bytes(fixture.id());
    let external_ref = reference.map(|text| text.parse().expect("a reference"));
    let order = Order::new(event, booking, user(name), TicketSelection::Quantity(1));
    command(Action::Book(Box::new(Order { external_ref, ..order })))
}

/// The bookings with a reference, newest first.
async fn with_reference(
    fixture: &Fixture<'_>,
    reference: &str,
    name: Option<&str>,
    event: Option<EventId>,
) -> Vec<BookingId> {
    let (external_ref, user) = (reference.parse().expect("a reference"), name.map(user));
    let list = BookingList::WithExternalRef { external_ref, user, event, after: None };
    let rows = fixture.store.bookings(list, None, 100).await.expect("a page").rows;
    rows.iter().map(|booking| booking.id).collect()
}

pub(super) async fn an_external_reference_is_unique_within_its_event(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let first = fixture.create(fixture.new_event(100)).await.id;
    let second = fixture.create(fixture.new_event(100)).await.id;
    let of = |event, name, reference| order(&fixture, event, name, Some(reference));
    // In one batch, then in another one.
    let batch = vec![
        of(first, "a", "order 1"),
        of(first, "b", "order 1"),
        of(second, "b", "order 1"),
        of(first, "b", "ORDER 1"),
        order(&fixture, first, "c", None),
        order(&fixture, first, "c", None),
    ];
    let replies = fixture.execute(batch).await;
    let codes: Vec<_> = replies.iter().map(outcome_code).collect();
    assert_eq!(codes, ["ok", "external_ref_in_use", "ok", "ok", "ok", "ok"]);
    let booked: Vec<Arc<Booking>> = [0, 2, 3].iter().map(|index| expect_booking(&replies[*index])).collect();
    let held = fixture.event(first).await.inventory.held;
    let again = fixture.run(of(first, "a", "order 1")).await;
    assert_eq!(outcome_code(&again), "external_ref_in_use");
    assert_eq!(fixture.event(first).await.inventory.held, held, "a refused order holds nothing");
    // A cancelled booking keeps its reference.
    let cancelled = fixture.run_ok(fixture.cancel(&booked[0])).await;
    assert_eq!(cancelled.external_ref, booked[0].external_ref);
    assert_eq!(outcome_code(&fixture.run(of(first, "a", "order 1")).await), "external_ref_in_use");

    assert_eq!(with_reference(&fixture, "order 1", None, None).await, [booked[1].id, booked[0].id]);
    assert_eq!(with_reference(&fixture, "order 1", Some("b"), None).await, [booked[1].id]);
    assert_eq!(with_reference(&fixture, "order 1", None, Some(first)).await, [booked[0].id]);
    assert_eq!(with_reference(&fixture, "ORDER 1", None, None).await, [booked[2].id]);
    assert_eq!(with_reference(&fixture, "order", None, None).await, []);
    let external_ref = "order 1".parse().expect("a reference");
    let list = BookingList::WithExternalRef { external_ref, user: None, event: None, after: None };
    let page = fixture.store.bookings(list.clone(), None, 1).await.expect("a page");
    let next = page.next.expect("a second page").parse().expect("an id");
    let second = fixture.store.bookings(list.clone().after(next), None, 1).await.expect("a page");
    assert_eq!((second.rows[0].id, second.next), (booked[0].id, None));
    let pending = fixture.store.bookings(list, Some(BookingStatus::Pending), 9).await.expect("a page");
    assert_eq!(pending.rows.iter().map(|booking| booking.id).collect::<Vec<_>>(), [booked[1].id]);
    fixture.assert_audit_clean().await;
}

pub(super) async fn one_of_concurrent_orders_gets_an_external_reference(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(1_000)).await.id;
    for round in 0..10 {
        let reference = format!("order {round}");
        let orders = (0..8).map(|buyer| order(&fixture, event, &format!("user-{buyer}"), Some(&reference)));
        let replies = join_all(orders.map(|order| fixture.run(order))).await;
        let mut codes: Vec<_> = replies.iter().map(outcome_code).collect();
        codes.sort_unstable();
        assert_eq!(codes[..7], ["external_ref_in_use"; 7], "{codes:?}");
        assert_eq!(codes[7], "ok");
    }
    assert_eq!(fixture.event(event).await.inventory.held, 10);
    fixture.assert_audit_clean().await;
}
