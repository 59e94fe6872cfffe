//! Batches: the order of their commands, batches over many events, and several changes of one row in a batch.

use std::sync::Arc;

use domain::{Action, Booking, BookingStatus, Command, EventPatch, EventStatus};

use super::Harness;
use super::fixture::{Fixture, HOLD, command, confirm_with, edit, expect_booking, expire, outcome_codes};
use crate::BATCH_MAX;

pub(super) async fn an_empty_batch_has_no_replies(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    assert!(fixture.execute(Vec::new()).await.is_empty());
}

pub(super) async fn commands_are_applied_in_order(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(5)).await;
    let orders = [("a", 2), ("b", 4), ("c", 2), ("d", 2), ("e", 1), ("f", 1)];
    let commands = orders.map(|(name, quantity)| fixture.book(event.id, name, quantity)).to_vec();
    let ids: Vec<_> = commands.iter().map(Command::booking_id).collect();
    let replies = fixture.execute(commands).await;
    assert_eq!(
        outcome_codes(&replies),
        ["ok", "insufficient_availability", "ok", "insufficient_availability", "ok", "sold_out"]
    );
    let written: Vec<_> =
        fixture.ledger(event.id).await.iter().skip(1).map(|e| (e.booking_id, e.seq)).collect();
    assert_eq!(written, [(ids[0], 2), (ids[2], 3), (ids[4], 4)]);
    let booked: Vec<_> =
        [0, 2, 4].map(|position: usize| Some(expect_booking(&replies[position]).id)).to_vec();
    assert_eq!(booked, [ids[0], ids[2], ids[4]]);
    fixture.assert_audit_clean().await;
}

pub(super) async fn an_edit_applies_to_later_commands_of_its_batch(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let new = fixture.new_event(2);
    let id = new.id;
    let patch = |capacity, status| edit(id, EventPatch { capacity, status, ..EventPatch::default() });
    let commands = vec![
        fixture.book(id, "early", 1),
        command(Action::CreateEvent(Box::new(new))),
        fixture.book(id, "a", 2),
        fixture.book(id, "b", 1),
        patch(Some(4), None),
        fixture.book(id, "c", 1),
        patch(Some(2), None),
        patch(None, Some(EventStatus::Paused)),
        fixture.book(id, "d", 1),
        patch(Some(3), Some(EventStatus::OnSale)),
        fixture.book(id, "e", 1),
        patch(None, Some(EventStatus::Cancelled)),
        fixture.book(id, "f", 1),
    ];
    let expected = [
        "not_found",
        "ok",
        "ok",
        "sold_out",
        "ok",
        "ok",
        "capacity_in_use",
        "ok",
        "event_paused",
        "ok",
        "sold_out",
        "ok",
        "event_cancelled",
    ];
    assert_eq!(fixture.outcome_codes(commands).await, expected);
    let event = fixture.event(id).await;
    assert_eq!((event.details.version, event.details.status), (5, EventStatus::Cancelled));
    assert_eq!((event.inventory.capacity, event.inventory.held, event.inventory.seq), (3, 3, 7));
    fixture.assert_audit_clean().await;
}

pub(super) async fn a_batch_spans_many_events(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let mut commands: Vec<_> = (0..100).map(|_| fixture.new_event(2)).collect();
    let ids: Vec<_> = commands.iter().map(|new| new.id).collect();
    let mut rng = fastrand::Rng::with_seed(7);
    // The commands are not in the order of the event ids.
    rng.shuffle(&mut commands);
    let commands = commands.into_iter().map(|new| command(Action::CreateEvent(Box::new(new)))).collect();
    assert!(fixture.outcome_codes(commands).await.iter().all(|code| *code == "ok"));

    let mut orders: Vec<_> =
        ids.iter().flat_map(|id| ["a", "b", "c"].map(|name| fixture.book(*id, name, 1))).collect();
    rng.shuffle(&mut orders);
    let replies = fixture.execute(orders.clone()).await;
    for id in ids {
        let of_event: Vec<_> =
            orders.iter().zip(&replies).filter(|(order, _)| order.event_id() == id).collect();
        let codes: Vec<_> = of_event.iter().map(|(_, reply)| super::fixture::outcome_code(reply)).collect();
        assert_eq!(codes, ["ok", "ok", "sold_out"]);
        let winners: Vec<_> = of_event.iter().take(2).map(|(order, _)| order.booking_id()).collect();
        let written: Vec<_> = fixture.ledger(id).await.iter().skip(1).map(|entry| entry.booking_id).collect();
        assert_eq!(written, winners);
        let booked: Vec<_> =
            of_event.iter().take(2).map(|(_, reply)| Some(expect_booking(reply).id)).collect();
        assert_eq!(booked, winners);
    }
    fixture.assert_audit_clean().await;
}

pub(super) async fn a_full_batch_is_executed(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(1_000)).await;
    let commands = (0..BATCH_MAX).map(|_| fixture.book(event.id, "a", 1)).collect();
    let codes = fixture.outcome_codes(commands).await;
    assert!(codes[..1_000].iter().all(|code| *code == "ok"));
    assert!(codes[1_000..].iter().all(|code| *code == "sold_out"));
    assert_eq!(fixture.event(event.id).await.inventory.held, 1_000);
    fixture.assert_audit_clean().await;
}

pub(super) async fn a_batch_of_refusals_writes_nothing(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(1)).await;
    let paid = fixture.book_and_pay(event.id, "a", 1, "t").await;
    let before = (fixture.event(event.id).await, fixture.ledger(event.id).await, fixture.refunds().await);
    let mut bad = fixture.new_event(0);
    bad.ticket_types.clear();
    let outdated = EventPatch { if_match: Some(9), ..EventPatch::default() };
    let commands = vec![
        fixture.book(event.id, "b", 1),
        fixture.book(event.id, "b", 0),
        fixture.book(event.id, "b", 99_999),
        expire(&paid),
        fixture.confirm(&paid, "t"),
        edit(event.id, outdated),
        command(Action::CreateEvent(Box::new(bad.clone()))),
    ];
    let expected = [
        "sold_out",
        "validation_failed",
        "booking_limit_exceeded",
        "invalid_state",
        "ok",
        "version_mismatch",
        "validation_failed",
    ];
    assert_eq!(fixture.outcome_codes(commands).await, expected);
    let after = (fixture.event(event.id).await, fixture.ledger(event.id).await, fixture.refunds().await);
    assert_eq!(after, before);
    assert_eq!(fixture.booking(paid.id).await, *paid);
    assert_eq!(fixture.store.event(bad.id).await.expect("a read"), None);
    fixture.assert_audit_clean().await;
}

/// A row may change several times in a batch: its last state is written, and every step is in the ledger.
pub(super) async fn one_batch_may_contain_a_booking_lifecycle(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(1)).await;
    // The later commands need a booking that does not exist yet, so a copy of one of another event stands in.
    let other = fixture.create(fixture.new_event(1)).await;
    let template = fixture.run_ok(fixture.book(other.id, "a", 1)).await;
    let order = fixture.book(event.id, "a", 1);
    let id = order.booking_id().expect("the booking id of an order");
    let planned = Booking { id, event_id: event.id, ..(*template).clone() };
    let commands = vec![
        order,
        fixture.confirm(&planned, "t"),
        fixture.cancel(&planned),
        fixture.confirm(&planned, "t"),
        fixture.confirm(&planned, "u"),
        fixture.book(event.id, "b", 1),
    ];
    let replies = fixture.execute(commands).await;
    assert_eq!(outcome_codes(&replies), ["ok", "ok", "ok", "invalid_state", "invalid_state", "ok"]);
    let booking = fixture.booking(id).await;
    assert_eq!((booking.version, booking.status(), booking.last_seq), (4, BookingStatus::Cancelled, 6));
    let chain: Vec<_> = fixture
        .ledger(event.id)
        .await
        .iter()
        .filter(|entry| entry.booking_id == Some(id))
        .map(|entry| (entry.seq, entry.previous_seq))
        .collect();
    assert_eq!(chain, [(2, None), (3, Some(2)), (4, Some(3)), (5, Some(4)), (6, Some(5))]);
    assert_eq!(fixture.refunds().await.len(), 2);
    fixture.assert_audit_clean().await;
}

const CONFIRM: usize = 0;
const CANCEL: usize = 1;
const EXPIRE: usize = 2;

/// An order of the three commands, their outcome codes while the hold runs and once it is overdue, and the
/// final status of the booking in both cases.
type Row = ([usize; 3], [&'static str; 3], [&'static str; 3], [BookingStatus; 2]);

const OK: &str = "ok";
const NO: &str = "invalid_state";
const END: BookingStatus = BookingStatus::Cancelled;

const ORDERS: [Row; 6] = [
    ([CONFIRM, CANCEL, EXPIRE], [OK, OK, NO], [OK, OK, NO], [END; 2]),
    ([CONFIRM, EXPIRE, CANCEL], [OK, NO, OK], [OK, NO, OK], [END; 2]),
    ([CANCEL, CONFIRM, EXPIRE], [OK, NO, NO], [OK, NO, NO], [END; 2]),
    ([CANCEL, EXPIRE, CONFIRM], [OK, NO, NO], [OK, NO, NO], [END; 2]),
    ([EXPIRE, CONFIRM, CANCEL], [NO, OK, OK], [OK, OK, OK], [END; 2]),
    ([EXPIRE, CANCEL, CONFIRM], [NO, OK, NO], [OK, NO, OK], [END, BookingStatus::Confirmed]),
];

pub(super) async fn commands_on_one_booking_are_applied_in_order(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    for (order, while_held, overdue, ends) in ORDERS {
        for (late, expected) in [(false, while_held), (true, overdue)] {
            for together in [true, false] {
                let event = fixture.create(fixture.new_event(3)).await;
                let held = fixture.run_ok(fixture.book(event.id, "a", 3)).await;
                if late {
                    harness.advance(HOLD).await;
                }
                let commands = order.map(|which| one_of_three(&fixture, &held, which)).to_vec();
                let codes = if together {
                    fixture.outcome_codes(commands).await
                } else {
                    let mut codes = Vec::new();
                    for command in commands {
                        codes.extend(fixture.outcome_codes(vec![command]).await);
                    }
                    codes
                };
                assert_eq!(codes, expected, "{order:?}, late: {late}, together: {together}");
                assert_eq!(fixture.status(&held).await, ends[usize::from(late)], "{order:?}, late: {late}");
            }
        }
    }
    fixture.assert_audit_clean().await;
}

fn one_of_three(fixture: &Fixture<'_>, held: &Arc<Booking>, which: usize) -> Command {
    match which {
        CONFIRM => confirm_with(held, "t", fixture.refund_id()),
        CANCEL => fixture.cancel(held),
        _ => expire(held),
    }
}
