//! Every command alone: its reply, its writes, and unknown or duplicate ids.

use domain::{
    Action, BookingId, BookingStatus, Cancellation, EventId, EventPatch, EventStatus, NewEvent, RefundId,
    Tallies, TypeInventory,
};

use super::Harness;
use super::fixture::{Fixture, HOLD, command, edit, expire, outcome_code, outcome_codes};
use crate::{BookingList, Fault, Reply};

pub(super) async fn every_command_is_executed(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(10)).await;
    let held = fixture.hold(event.id, &[("a", 1), ("b", 2), ("c", 3), ("d", 4)]).await;
    assert_eq!(fixture.event(event.id).await.available(), 0);
    assert_eq!(fixture.outcome_codes(vec![fixture.book(event.id, "e", 1)]).await, ["sold_out"]);

    let paid = fixture.run_ok(fixture.confirm(&held[1], "t")).await;
    assert_eq!((paid.version, paid.status()), (2, BookingStatus::Confirmed));
    assert_eq!(fixture.run_ok(fixture.cancel(&held[2])).await.status(), BookingStatus::Cancelled);
    assert_eq!(outcome_code(&fixture.run(expire(&held[3])).await), "invalid_state");
    harness.advance(HOLD).await;
    assert_eq!(fixture.run_ok(expire(&held[3])).await.status(), BookingStatus::Expired);

    for (status, version) in [(EventStatus::Paused, 2), (EventStatus::OnSale, 3), (EventStatus::Cancelled, 4)]
    {
        let patch = EventPatch { status: Some(status), ..EventPatch::default() };
        assert_eq!(outcome_code(&fixture.run(edit(event.id, patch)).await), "ok");
        let about = fixture.event(event.id).await.details;
        assert_eq!((about.status, about.version), (status, version));
    }
    let stock = fixture.event(event.id).await.inventory;
    assert_eq!((stock.capacity, stock.held, stock.sold, stock.seq), (10, 1, 2, 11));
    assert_eq!(stock.types, [TypeInventory { capacity: None, held: 1, sold: 2 }]);
    let counts = Tallies { pending: 1, confirmed: 1, cancelled: 1, expired: 1, revenue: 9_000 };
    assert_eq!(stock.tallies, counts);
    assert_eq!(stock.last_at, fixture.ledger(event.id).await.last().expect("an entry").at);
    fixture.assert_audit_clean().await;
}

pub(super) async fn unknown_ids_are_not_found(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(10)).await;
    let known = fixture.run_ok(fixture.book(event.id, "a", 1)).await;
    let (unknown_event, unknown_booking) =
        (EventId::from_bytes([0xee; 16]), BookingId::from_bytes([0xbb; 16]));
    let mut missing = (*known).clone();
    missing.id = unknown_booking;
    let of_unknown_event = domain::Booking { event_id: unknown_event, ..missing.clone() };
    let rename = EventPatch { name: Some("New".parse().expect("a name")), ..EventPatch::default() };
    let commands = vec![
        fixture.book(unknown_event, "a", 1),
        edit(unknown_event, rename),
        fixture.confirm(&missing, "t"),
        fixture.cancel(&missing),
        expire(&missing),
        fixture.confirm(&of_unknown_event, "t"),
        fixture.cancel(&of_unknown_event),
        expire(&of_unknown_event),
    ];
    assert_eq!(fixture.outcome_codes(commands).await, ["not_found"; 8]);

    let store = &fixture.store;
    assert_eq!(store.event(unknown_event).await.expect("a read"), None);
    assert_eq!(store.booking(unknown_booking).await.expect("a read"), None);
    let entries = store.ledger(unknown_event, 0, 10).await.expect("a read");
    assert_eq!((entries.rows.len(), entries.next), (0, None));
    let user = known.user.clone();
    let lists = [
        BookingList::OfUser { user: "unknown".parse().expect("a user"), event: None, after: None },
        BookingList::OfUser { user, event: Some(unknown_event), after: None },
        BookingList::OfEvent { event: unknown_event, after: None },
        BookingList::All { after: Some(BookingId::from_bytes([0; 16])) },
    ];
    for list in lists {
        let page = store.bookings(list.clone(), None, 10).await.expect("a read");
        assert_eq!((page.rows.len(), page.next), (0, None), "{list:?}");
    }
    assert_eq!(fixture.refunds().await, []);
    assert_eq!(fixture.ledger(event.id).await.len(), 2);
    fixture.assert_audit_clean().await;
}

/// A command that inserts an existing id fails, and no other command of its batch does.
pub(super) async fn a_duplicate_id_fails_only_its_command(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(10)).await;
    let paid = fixture.book_and_pay(event.id, "a", 1, "t").await;
    fixture.run_ok(fixture.cancel(&paid)).await;
    let second = fixture.book_and_pay(event.id, "b", 1, "t").await;
    let taken_refund: RefundId = fixture.refunds().await[0].id;

    let taken_event = NewEvent { id: event.id, ..fixture.new_event(5) };
    let mut twice_the_type = fixture.new_event(5);
    twice_the_type.ticket_types[0].id = event.details.ticket_types[0].id;
    let mut taken_booking = fixture.book(event.id, "c", 1);
    if let Action::Book(order) = &mut taken_booking.action {
        order.booking_id = paid.id;
    }
    let cancellation =
        Cancellation { event_id: event.id, booking_id: second.id, reason: None, refund_id: taken_refund };
    let commands = vec![
        fixture.book(event.id, "d", 1),
        command(Action::CreateEvent(Box::new(taken_event))),
        fixture.book(event.id, "e", 1),
        taken_booking,
        command(Action::CreateEvent(Box::new(twice_the_type.clone()))),
        fixture.book(event.id, "f", 1),
        command(Action::Cancel(Box::new(cancellation))),
        fixture.book(event.id, "g", 1),
    ];
    let replies = fixture.execute(commands).await;
    assert_eq!(outcome_codes(&replies), ["ok", "failed", "ok", "failed", "failed", "ok", "failed", "ok"]);
    for reply in &replies {
        assert!(
            !matches!(reply, Reply::Failed(Fault::Unavailable(_) | Fault::OutcomeUnknown(_))),
            "{reply:?}"
        );
    }
    assert_eq!(fixture.event(event.id).await.details, event.details);
    assert_eq!(fixture.store.event(twice_the_type.id).await.expect("a read"), None);
    assert_eq!(fixture.booking(paid.id).await.user, paid.user);
    assert_eq!(fixture.booking(second.id).await, *second);
    assert_eq!(fixture.ledger(event.id).await.len(), 11);
    fixture.assert_audit_clean().await;
}

/// A command cannot change a booking of another event, and the ledger of an event has no entries of one.
pub(super) async fn a_booking_of_another_event_is_not_found(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let (event, other) =
        (fixture.create(fixture.new_event(10)).await, fixture.create(fixture.new_event(10)).await);
    let held = fixture.run_ok(fixture.book(event.id, "a", 1)).await;
    let cancelled = fixture.run_ok(fixture.book(event.id, "a", 1)).await;
    fixture.run_ok(fixture.cancel(&cancelled)).await;
    for booking in [&held, &cancelled] {
        let misplaced = domain::Booking { event_id: other.id, ..(**booking).clone() };
        let commands = vec![fixture.confirm(&misplaced, "t"), fixture.cancel(&misplaced), expire(&misplaced)];
        assert_eq!(fixture.outcome_codes(commands).await, ["not_found"; 3]);
    }
    assert_eq!((fixture.ledger(other.id).await.len(), fixture.refunds().await.len()), (1, 0));
    assert_eq!(fixture.booking(held.id).await, *held);
    fixture.assert_audit_clean().await;
}

pub(super) async fn an_edit_that_changes_nothing_writes_nothing(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(10)).await;
    let about = event.details.clone();
    for patch in [
        EventPatch::default(),
        EventPatch { name: Some(about.name.clone()), capacity: Some(10), ..EventPatch::default() },
    ] {
        assert_eq!(outcome_code(&fixture.run(edit(event.id, patch)).await), "ok");
    }
    let outdated = EventPatch { if_match: Some(2), capacity: Some(5), ..EventPatch::default() };
    assert_eq!(outcome_code(&fixture.run(edit(event.id, outdated)).await), "version_mismatch");
    assert_eq!(fixture.event(event.id).await, event);
    assert_eq!(fixture.ledger(event.id).await.len(), 1);
}

/// An entry that was written under a clock 30 days ahead determines the dates of later entries, but no
/// deadlines.
pub(super) async fn r2_deadlines_go_by_the_clock_not_by_the_ledger(harness: &dyn Harness) {
    const AHEAD: i64 = 30 * 86_400 * 1_000_000;
    let fixture = Fixture::new(harness);
    let made = fixture.create(fixture.new_event(1)).await;
    let about = made.details.clone();
    let starts_at = Some(about.created_at.plus_seconds(10 * 86_400));
    let soon = EventPatch { starts_at, cancel_cutoff_seconds: Some(0), ..EventPatch::default() };
    assert_eq!(outcome_code(&fixture.run(edit(made.id, soon)).await), "ok");
    for sql in [
        format!("UPDATE ledger SET at = at + {AHEAD} WHERE event_id = :event AND seq = 2"),
        format!("UPDATE events SET last_at = last_at + {AHEAD} WHERE id = :event"),
    ] {
        if !harness.execute_directly(&sql, made.id).await {
            return;
        }
    }
    let booking = fixture.run_ok(fixture.book(made.id, "a", 1)).await;
    assert_eq!(booking.hold_expires_at, booking.created_at.plus_seconds(about.hold_seconds));
    assert!(booking.created_at < about.created_at.plus_seconds(86_400), "created today, not in a month");
    let ledger = fixture.ledger(made.id).await;
    assert!(ledger.is_sorted_by_key(|entry| entry.at), "the dates of a ledger never decrease");
    assert_eq!(fixture.outcome_codes(vec![expire(&booking)]).await, ["invalid_state"]);
    harness.advance(HOLD).await;
    assert_eq!(fixture.outcome_codes(vec![fixture.book(made.id, "b", 1)]).await, ["ok"]);
    assert_eq!(fixture.status(&booking).await, BookingStatus::Expired);
    fixture.assert_audit_clean().await;
}
