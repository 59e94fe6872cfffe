//! Batches: their order, their reach, and the changes of one row that meet in one of them.

use std::sync::Arc;

use domain::{Action, Booking, BookingStatus, Command, EventPatch, EventStatus};

use super::Rig;
use super::luck::Luck;
use super::stage::{HOLD, Stage, booked, command, confirm_with, edit, expire, words};
use crate::BATCH_MAX;

pub(super) async fn an_empty_batch_has_no_replies(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    assert!(stage.execute(Vec::new()).await.is_empty());
}

pub(super) async fn commands_take_effect_in_their_order(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(5)).await;
    let wishes = [("a", 2), ("b", 4), ("c", 2), ("d", 2), ("e", 1), ("f", 1)];
    let commands = wishes.map(|(name, quantity)| stage.book(event.id, name, quantity)).to_vec();
    let ids: Vec<_> = commands.iter().map(Command::booking_id).collect();
    let replies = stage.execute(commands).await;
    assert_eq!(
        words(&replies),
        ["ok", "insufficient_availability", "ok", "insufficient_availability", "ok", "sold_out"]
    );
    let written: Vec<_> =
        stage.ledger(event.id).await.iter().skip(1).map(|e| (e.booking_id, e.seq)).collect();
    assert_eq!(written, [(ids[0], 2), (ids[2], 3), (ids[4], 4)]);
    let answered: Vec<_> = [0, 2, 4].map(|place: usize| Some(booked(&replies[place]).id)).to_vec();
    assert_eq!(answered, [ids[0], ids[2], ids[4]]);
    stage.clean().await;
}

pub(super) async fn an_edit_reaches_the_commands_after_it(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let new = stage.concert(2);
    let id = new.id;
    let patch = |capacity, status| edit(id, EventPatch { capacity, status, ..EventPatch::default() });
    let commands = vec![
        stage.book(id, "early", 1),
        command(Action::CreateEvent(Box::new(new))),
        stage.book(id, "a", 2),
        stage.book(id, "b", 1),
        patch(Some(4), None),
        stage.book(id, "c", 1),
        patch(Some(2), None),
        patch(None, Some(EventStatus::Paused)),
        stage.book(id, "d", 1),
        patch(Some(3), Some(EventStatus::OnSale)),
        stage.book(id, "e", 1),
        patch(None, Some(EventStatus::Cancelled)),
        stage.book(id, "f", 1),
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
    assert_eq!(stage.words(commands).await, expected);
    let event = stage.event(id).await;
    assert_eq!((event.about.version, event.about.status), (5, EventStatus::Cancelled));
    assert_eq!((event.stock.capacity, event.stock.held, event.stock.seq), (3, 3, 7));
    stage.clean().await;
}

pub(super) async fn a_batch_spans_many_events(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let mut commands: Vec<_> = (0..100).map(|_| stage.concert(2)).collect();
    let ids: Vec<_> = commands.iter().map(|new| new.id).collect();
    let mut luck = Luck(7);
    // The order in which events are named is not the order of their ids.
    luck.shuffle(&mut commands);
    let commands = commands.into_iter().map(|new| command(Action::CreateEvent(Box::new(new)))).collect();
    assert!(stage.words(commands).await.iter().all(|word| *word == "ok"));

    let mut orders: Vec<_> =
        ids.iter().flat_map(|id| ["a", "b", "c"].map(|name| stage.book(*id, name, 1))).collect();
    luck.shuffle(&mut orders);
    let replies = stage.execute(orders.clone()).await;
    for id in ids {
        let of_event: Vec<_> =
            orders.iter().zip(&replies).filter(|(order, _)| order.event_id() == id).collect();
        let heard: Vec<_> = of_event.iter().map(|(_, reply)| super::stage::word(reply)).collect();
        assert_eq!(heard, ["ok", "ok", "sold_out"]);
        let winners: Vec<_> = of_event.iter().take(2).map(|(order, _)| order.booking_id()).collect();
        let written: Vec<_> = stage.ledger(id).await.iter().skip(1).map(|entry| entry.booking_id).collect();
        assert_eq!(written, winners);
        let answered: Vec<_> = of_event.iter().take(2).map(|(_, reply)| Some(booked(reply).id)).collect();
        assert_eq!(answered, winners);
    }
    stage.clean().await;
}

pub(super) async fn a_full_batch_is_carried_out(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(1_000)).await;
    let commands = (0..BATCH_MAX).map(|_| stage.book(event.id, "a", 1)).collect();
    let heard = stage.words(commands).await;
    assert!(heard[..1_000].iter().all(|word| *word == "ok"));
    assert!(heard[1_000..].iter().all(|word| *word == "sold_out"));
    assert_eq!(stage.event(event.id).await.stock.held, 1_000);
    stage.clean().await;
}

pub(super) async fn a_batch_of_refusals_writes_nothing(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(1)).await;
    let paid = stage.paid(event.id, "a", 1, "t").await;
    let before = (stage.event(event.id).await, stage.ledger(event.id).await, stage.refunds().await);
    let mut bad = stage.concert(0);
    bad.ticket_types.clear();
    let outdated = EventPatch { if_match: Some(9), ..EventPatch::default() };
    let commands = vec![
        stage.book(event.id, "b", 1),
        stage.book(event.id, "b", 0),
        stage.book(event.id, "b", 99_999),
        expire(&paid),
        stage.confirm(&paid, "t"),
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
    assert_eq!(stage.words(commands).await, expected);
    let after = (stage.event(event.id).await, stage.ledger(event.id).await, stage.refunds().await);
    assert_eq!(after, before);
    assert_eq!(stage.booking(paid.id).await, *paid);
    assert_eq!(stage.store.event(bad.id).await.expect("a read"), None);
    stage.clean().await;
}

/// One row may change several times in a batch; what is written is where it ends, with its whole history.
pub(super) async fn a_booking_lives_its_life_in_one_batch(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(1)).await;
    // A booking of another event lends its shape to the commands that name one not yet made.
    let other = stage.create(stage.concert(1)).await;
    let shape = stage.done(stage.book(other.id, "a", 1)).await;
    let order = stage.book(event.id, "a", 1);
    let id = order.booking_id().expect("an order makes a booking");
    let to_be = Booking { id, event_id: event.id, ..(*shape).clone() };
    let commands = vec![
        order,
        stage.confirm(&to_be, "t"),
        stage.cancel(&to_be),
        stage.confirm(&to_be, "t"),
        stage.confirm(&to_be, "u"),
        stage.book(event.id, "b", 1),
    ];
    let replies = stage.execute(commands).await;
    assert_eq!(words(&replies), ["ok", "ok", "ok", "invalid_state", "invalid_state", "ok"]);
    let booking = stage.booking(id).await;
    assert_eq!((booking.version, booking.status(), booking.last_seq), (4, BookingStatus::Cancelled, 6));
    let chain: Vec<_> = stage
        .ledger(event.id)
        .await
        .iter()
        .filter(|entry| entry.booking_id == Some(id))
        .map(|entry| (entry.seq, entry.previous_seq))
        .collect();
    assert_eq!(chain, [(2, None), (3, Some(2)), (4, Some(3)), (5, Some(4)), (6, Some(5))]);
    assert_eq!(stage.refunds().await.len(), 2);
    stage.clean().await;
}

const CONFIRM: usize = 0;
const CANCEL: usize = 1;
const EXPIRE: usize = 2;

/// What each order of the three commands is answered while the hold runs, and once it is overdue; and where
/// the booking ends.
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

pub(super) async fn commands_on_one_booking_take_effect_in_their_order(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    for (order, while_held, overdue, ends) in ORDERS {
        for (late, expected) in [(false, while_held), (true, overdue)] {
            for together in [true, false] {
                let event = stage.create(stage.concert(3)).await;
                let held = stage.done(stage.book(event.id, "a", 3)).await;
                if late {
                    rig.advance(HOLD).await;
                }
                let commands = order.map(|which| one_of_three(&stage, &held, which)).to_vec();
                let heard = if together {
                    stage.words(commands).await
                } else {
                    let mut heard = Vec::new();
                    for command in commands {
                        heard.extend(stage.words(vec![command]).await);
                    }
                    heard
                };
                assert_eq!(heard, expected, "{order:?}, late: {late}, together: {together}");
                assert_eq!(stage.status(&held).await, ends[usize::from(late)], "{order:?}, late: {late}");
            }
        }
    }
    stage.clean().await;
}

fn one_of_three(stage: &Stage<'_>, held: &Arc<Booking>, which: usize) -> Command {
    match which {
        CONFIRM => confirm_with(held, "t", stage.refund_id()),
        CANCEL => stage.cancel(held),
        _ => expire(held),
    }
}
