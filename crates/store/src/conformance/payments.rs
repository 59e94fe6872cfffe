//! Payments that come twice, late, or for what is no longer theirs: each either pays or is given back, once.

use domain::{
    Action, Booking, BookingStatus, Command, Confirmation, EntryKind, Money, Refund, RefundReason,
    RefundStatus,
};

use super::Rig;
use super::stage::{HOLD, Stage, command, eur, expire, named_refund, payment, word, words};

/// A payment of an amount that the service states.
fn stated(stage: &Stage<'_>, booking: &Booking, transaction: &str, amount: Money) -> Command {
    let paid = Confirmation {
        event_id: booking.event_id,
        booking_id: booking.id,
        transaction: payment(transaction),
        amount: Some(amount),
        refund_id: stage.refund_id(),
    };
    command(Action::Confirm(Box::new(paid)))
}

pub(super) async fn a_confirmation_repeated_changes_nothing(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(10)).await.id;
    let held = stage.hold(event, &[("a", 2), ("b", 1)]).await;
    let wrong = [eur(8_999), Money::new(9_000, "USD".parse().expect("a currency")).expect("an amount")];
    let wrong: Vec<_> = wrong.into_iter().map(|amount| stated(&stage, &held[0], "t", amount)).collect();
    assert_eq!(stage.words(wrong).await, ["amount_mismatch"; 2]);
    let paid = stage.done(stated(&stage, &held[0], "t", eur(9_000))).await;
    for commands in [1, 3] {
        let replies = stage.execute((0..commands).map(|_| stage.confirm(&held[0], "t")).collect()).await;
        assert!(replies.iter().all(|reply| super::stage::booked(reply) == paid));
    }
    let twice = vec![stage.confirm(&held[1], "t"), stage.confirm(&held[1], "t")];
    assert_eq!(stage.words(twice).await, ["ok"; 2]);
    assert_eq!((stage.ledger(event).await.len(), stage.refunds().await.len()), (5, 0));
    stage.clean().await;
}

/// Payments are told apart by every character of their name, and belong to one booking each.
pub(super) async fn a_payment_is_named_exactly(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(10)).await.id;
    let paid = stage.paid(event, "a", 1, "Pay\u{e9}").await;
    let names = ["pay\u{e9}", "Pay\u{e9} ", "Paye\u{301}", "PAY\u{c9}"];
    for _ in 0..2 {
        let commands = names.map(|name| stage.confirm(&paid, name)).to_vec();
        assert_eq!(stage.words(commands).await, ["invalid_state"; 4]);
    }
    assert_eq!(stage.refunds().await.len(), 4);
    let other = stage.done(stage.book(event, "b", 1)).await;
    assert_eq!(word(&stage.run(stage.confirm(&other, "pay\u{e9}")).await), "ok");
    stage.clean().await;
}

pub(super) async fn a_late_payment_takes_its_tickets_again(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(4)).await.id;
    let held = stage.hold(event, &[("a", 2), ("b", 2)]).await;
    rig.advance(HOLD).await;
    // Overdue, but not freed: the payment is simply in time.
    assert_eq!(stage.done(stage.confirm(&held[0], "t")).await.version, 2);
    stage.done(expire(&held[1])).await;
    let again = stage.done(stage.confirm(&held[1], "t")).await;
    assert_eq!((again.version, again.status()), (3, BookingStatus::Confirmed));
    assert_eq!(
        stage.words(vec![expire(&held[1]), stage.confirm(&held[1], "t")]).await,
        ["invalid_state", "ok"]
    );
    let stock = stage.event(event).await.stock;
    assert_eq!((stock.held, stock.sold, stock.tallies.revenue), (0, 4, 18_000));
    assert_eq!(stage.refunds().await, []);
    stage.clean().await;
}

pub(super) async fn a_late_payment_frees_overdue_holds(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(2)).await.id;
    let late = stage.done(stage.book(event, "a", 2)).await;
    rig.advance(HOLD).await;
    let others = stage.hold(event, &[("b", 1), ("c", 1)]).await;
    assert_eq!(stage.status(&late).await, BookingStatus::Expired);
    rig.advance(HOLD).await;
    assert_eq!(stage.words(vec![stage.confirm(&late, "t")]).await, ["ok"]);
    assert_eq!(stage.statuses(&others).await, [BookingStatus::Expired; 2]);
    stage.clean().await;
}

pub(super) async fn a_late_payment_is_refunded_once(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(2)).await.id;
    let late = stage.done(stage.book(event, "a", 2)).await;
    rig.advance(HOLD).await;
    stage.hold(event, &[("b", 2)]).await;
    let replies = stage.execute(vec![stage.confirm(&late, "t"), stage.confirm(&late, "t")]).await;
    assert_eq!(words(&replies), ["hold_expired"; 2]);
    let refund = named_refund(&replies[0]);
    assert_eq!(named_refund(&replies[1]), refund);
    let expected = Refund {
        id: refund.id,
        booking_id: late.id,
        event_id: event,
        transaction: payment("t"),
        amount: eur(9_000),
        status: RefundStatus::Requested,
        reason: RefundReason::HoldExpired,
        provider_reference: None,
        created_at: refund.created_at,
        settled_at: None,
    };
    assert_eq!(refund, expected);
    let before = (stage.booking(late.id).await, stage.ledger(event).await);
    assert_eq!(before.0.status(), BookingStatus::Expired);
    assert_eq!(before.1.iter().filter(|entry| entry.kind == EntryKind::RefundRequested).count(), 1);
    assert_eq!(named_refund(&stage.run(stage.confirm(&late, "t")).await), refund);
    // Another payment of the same booking is another refund.
    let other = named_refund(&stage.run(stage.confirm(&late, "u")).await);
    assert_eq!(stage.refunds().await, [other, refund]);
    stage.clean().await;
}

/// A webhook that repeats after the tickets came back finds its refund, and takes nothing.
pub(super) async fn a_refunded_payment_is_never_accepted_again(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(2)).await.id;
    let late = stage.done(stage.book(event, "a", 2)).await;
    rig.advance(HOLD).await;
    let winner = stage.paid(event, "b", 2, "w").await;
    let refund = named_refund(&stage.run(stage.confirm(&late, "t")).await);
    // In one batch: the tickets come back, and the same webhook knocks before and after.
    let commands = vec![stage.confirm(&late, "t"), stage.cancel(&winner), stage.confirm(&late, "t")];
    let replies = stage.execute(commands).await;
    assert_eq!(words(&replies), ["hold_expired", "ok", "hold_expired"]);
    assert_eq!([named_refund(&replies[0]), named_refund(&replies[2])], [refund.clone(), refund.clone()]);
    let reply = stage.run(stage.confirm(&late, "t")).await;
    assert_eq!(named_refund(&reply), refund);
    // So does the payment of a booking that was given up.
    let reply = stage.run(stage.confirm(&winner, "w")).await;
    assert_eq!(
        (word(&reply), named_refund(&reply).reason),
        ("invalid_state", RefundReason::BookingCancelled)
    );
    assert_eq!(stage.event(event).await.available(), 2);
    // A new payment may still take them.
    assert_eq!(word(&stage.run(stage.confirm(&late, "fresh")).await), "ok");
    assert_eq!(stage.refunds().await.len(), 2);
    stage.clean().await;
}

pub(super) async fn two_late_payments_fight_for_one_place(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    for together in [true, false] {
        let event = stage.create(stage.concert(1)).await.id;
        let first = stage.done(stage.book(event, "a", 1)).await;
        rig.advance(HOLD).await;
        let second = stage.done(stage.book(event, "b", 1)).await;
        rig.advance(HOLD).await;
        stage.done(expire(&second)).await;
        let commands = vec![stage.confirm(&second, "t"), stage.confirm(&first, "t")];
        let heard = if together {
            stage.words(commands).await
        } else {
            let mut heard = Vec::new();
            for command in commands {
                heard.push(word(&stage.run(command).await));
            }
            heard
        };
        assert_eq!(heard, ["ok", "hold_expired"], "together: {together}");
    }
    stage.clean().await;
}
