//! Every command alone: what it is answered, what it writes, and what it does when what it names is missing
//! or taken.

use domain::{
    Action, BookingId, BookingStatus, Cancellation, EventId, EventPatch, EventStatus, NewEvent, RefundId,
    Tallies, TypeStock,
};

use super::Rig;
use super::stage::{HOLD, Stage, command, edit, expire, word, words};
use crate::{BookingList, Fault, Reply};

pub(super) async fn every_command_is_carried_out(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(10)).await;
    let held = stage.hold(event.id, &[("a", 1), ("b", 2), ("c", 3), ("d", 4)]).await;
    assert_eq!(stage.event(event.id).await.available(), 0);
    assert_eq!(stage.words(vec![stage.book(event.id, "e", 1)]).await, ["sold_out"]);

    let paid = stage.done(stage.confirm(&held[1], "t")).await;
    assert_eq!((paid.version, paid.status()), (2, BookingStatus::Confirmed));
    assert_eq!(stage.done(stage.cancel(&held[2])).await.status(), BookingStatus::Cancelled);
    assert_eq!(word(&stage.run(expire(&held[3])).await), "invalid_state");
    rig.advance(HOLD).await;
    assert_eq!(stage.done(expire(&held[3])).await.status(), BookingStatus::Expired);

    for (status, version) in [(EventStatus::Paused, 2), (EventStatus::OnSale, 3), (EventStatus::Cancelled, 4)]
    {
        let patch = EventPatch { status: Some(status), ..EventPatch::default() };
        assert_eq!(word(&stage.run(edit(event.id, patch)).await), "ok");
        let about = stage.event(event.id).await.about;
        assert_eq!((about.status, about.version), (status, version));
    }
    let stock = stage.event(event.id).await.stock;
    assert_eq!((stock.capacity, stock.held, stock.sold, stock.seq), (10, 1, 2, 11));
    assert_eq!(stock.types, [TypeStock { capacity: None, held: 1, sold: 2 }]);
    let counts = Tallies { pending: 1, confirmed: 1, cancelled: 1, expired: 1, revenue: 9_000 };
    assert_eq!(stock.tallies, counts);
    assert_eq!(stock.last_at, stage.ledger(event.id).await.last().expect("an entry").at);
    stage.clean().await;
}

pub(super) async fn unknown_ids_are_not_found(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(10)).await;
    let known = stage.done(stage.book(event.id, "a", 1)).await;
    let (nowhere, never) = (EventId::from_bytes([0xee; 16]), BookingId::from_bytes([0xbb; 16]));
    let mut ghost = (*known).clone();
    ghost.id = never;
    let elsewhere = domain::Booking { event_id: nowhere, ..ghost.clone() };
    let rename = EventPatch { name: Some("New".parse().expect("a name")), ..EventPatch::default() };
    let commands = vec![
        stage.book(nowhere, "a", 1),
        edit(nowhere, rename),
        stage.confirm(&ghost, "t"),
        stage.cancel(&ghost),
        expire(&ghost),
        stage.confirm(&elsewhere, "t"),
        stage.cancel(&elsewhere),
        expire(&elsewhere),
    ];
    assert_eq!(stage.words(commands).await, ["not_found"; 8]);

    let store = &stage.store;
    assert_eq!(store.event(nowhere).await.expect("a read"), None);
    assert_eq!(store.booking(never).await.expect("a read"), None);
    let entries = store.ledger(nowhere, 0, 10).await.expect("a read");
    assert_eq!((entries.rows.len(), entries.next), (0, None));
    let user = known.user.clone();
    let lists = [
        BookingList::OfUser { user: "nobody".parse().expect("a user"), event: None, after: None },
        BookingList::OfUser { user, event: Some(nowhere), after: None },
        BookingList::OfEvent { event: nowhere, after: None },
        BookingList::All { after: Some(BookingId::from_bytes([0; 16])) },
    ];
    for list in lists {
        let page = store.bookings(list.clone(), None, 10).await.expect("a read");
        assert_eq!((page.rows.len(), page.next), (0, None), "{list:?}");
    }
    assert_eq!(stage.refunds().await, []);
    assert_eq!(stage.ledger(event.id).await.len(), 2);
    stage.clean().await;
}

/// A row that is there already makes the store refuse, and only the command that wanted it hears so.
pub(super) async fn an_id_that_is_taken_fails_alone(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(10)).await;
    let paid = stage.paid(event.id, "a", 1, "t").await;
    stage.done(stage.cancel(&paid)).await;
    let second = stage.paid(event.id, "b", 1, "t").await;
    let taken_refund: RefundId = stage.refunds().await[0].id;

    let taken_event = NewEvent { id: event.id, ..stage.concert(5) };
    let mut twice_the_type = stage.concert(5);
    twice_the_type.ticket_types[0].id = event.about.ticket_types[0].id;
    let mut taken_booking = stage.book(event.id, "c", 1);
    if let Action::Book(order) = &mut taken_booking.action {
        order.booking_id = paid.id;
    }
    let wish =
        Cancellation { event_id: event.id, booking_id: second.id, reason: None, refund_id: taken_refund };
    let commands = vec![
        stage.book(event.id, "d", 1),
        command(Action::CreateEvent(Box::new(taken_event))),
        stage.book(event.id, "e", 1),
        taken_booking,
        command(Action::CreateEvent(Box::new(twice_the_type.clone()))),
        stage.book(event.id, "f", 1),
        command(Action::Cancel(Box::new(wish))),
        stage.book(event.id, "g", 1),
    ];
    let replies = stage.execute(commands).await;
    assert_eq!(words(&replies), ["ok", "failed", "ok", "failed", "failed", "ok", "failed", "ok"]);
    for reply in &replies {
        assert!(
            !matches!(reply, Reply::Failed(Fault::Unavailable(_) | Fault::OutcomeUnknown(_))),
            "{reply:?}"
        );
    }
    assert_eq!(stage.event(event.id).await.about, event.about);
    assert_eq!(stage.store.event(twice_the_type.id).await.expect("a read"), None);
    assert_eq!(stage.booking(paid.id).await.user, paid.user);
    assert_eq!(stage.booking(second.id).await, *second);
    assert_eq!(stage.ledger(event.id).await.len(), 11);
    stage.clean().await;
}

/// The books of one event never speak of a booking of another.
pub(super) async fn a_booking_named_with_another_event_is_not_found(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let (event, other) = (stage.create(stage.concert(10)).await, stage.create(stage.concert(10)).await);
    let held = stage.done(stage.book(event.id, "a", 1)).await;
    let given_up = stage.done(stage.book(event.id, "a", 1)).await;
    stage.done(stage.cancel(&given_up)).await;
    for booking in [&held, &given_up] {
        let astray = domain::Booking { event_id: other.id, ..(**booking).clone() };
        let commands = vec![stage.confirm(&astray, "t"), stage.cancel(&astray), expire(&astray)];
        assert_eq!(stage.words(commands).await, ["not_found"; 3]);
    }
    assert_eq!((stage.ledger(other.id).await.len(), stage.refunds().await.len()), (1, 0));
    assert_eq!(stage.booking(held.id).await, *held);
    stage.clean().await;
}

pub(super) async fn an_edit_that_changes_nothing_writes_nothing(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(10)).await;
    let about = event.about.clone();
    for patch in [
        EventPatch::default(),
        EventPatch { name: Some(about.name.clone()), capacity: Some(10), ..EventPatch::default() },
    ] {
        assert_eq!(word(&stage.run(edit(event.id, patch)).await), "ok");
    }
    let outdated = EventPatch { if_match: Some(2), capacity: Some(5), ..EventPatch::default() };
    assert_eq!(word(&stage.run(edit(event.id, outdated)).await), "version_mismatch");
    assert_eq!(stage.event(event.id).await, event);
    assert_eq!(stage.ledger(event.id).await.len(), 1);
}

/// An entry that was written under a clock 30 days ahead dates later entries, and moves no deadline.
pub(super) async fn r2_deadlines_go_by_the_clock_not_by_the_ledger(rig: &dyn Rig) {
    const AHEAD: i64 = 30 * 86_400 * 1_000_000;
    let stage = Stage::new(rig);
    let made = stage.create(stage.concert(1)).await;
    let about = made.about.clone();
    let starts_at = Some(about.created_at.plus_seconds(10 * 86_400));
    let soon = EventPatch { starts_at, cancel_cutoff_seconds: Some(0), ..EventPatch::default() };
    assert_eq!(word(&stage.run(edit(made.id, soon)).await), "ok");
    for sql in [
        format!("UPDATE ledger SET at = at + {AHEAD} WHERE event_id = :event AND seq = 2"),
        format!("UPDATE events SET last_at = last_at + {AHEAD} WHERE id = :event"),
    ] {
        if !rig.tamper(&sql, made.id).await {
            return;
        }
    }
    let booking = stage.done(stage.book(made.id, "a", 1)).await;
    assert_eq!(booking.hold_expires_at, booking.created_at.plus_seconds(about.hold_seconds));
    assert!(booking.created_at < about.created_at.plus_seconds(86_400), "made today, not in a month");
    let ledger = stage.ledger(made.id).await;
    assert!(ledger.is_sorted_by_key(|entry| entry.at), "a ledger never runs backwards");
    assert_eq!(stage.words(vec![expire(&booking)]).await, ["invalid_state"]);
    rig.advance(HOLD).await;
    assert_eq!(stage.words(vec![stage.book(made.id, "b", 1)]).await, ["ok"]);
    assert_eq!(stage.status(&booking).await, BookingStatus::Expired);
    stage.clean().await;
}
