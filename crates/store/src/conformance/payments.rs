//! Repeated and late payments: each either confirms its booking or is refunded, once.

use domain::{
    Action, Booking, BookingStatus, CapturedPayment, Command, Confirmation, EntryKind, Money, Refund,
    RefundReason, RefundStatus,
};

use super::Harness;
use super::fixture::{
    Fixture, HOLD, command, eur, expect_refund, expire, outcome_code, outcome_codes, payment,
};

/// A confirmation with an amount.
fn confirm_amount(fixture: &Fixture<'_>, booking: &Booking, transaction: &str, amount: Money) -> Command {
    let confirmation = Confirmation {
        event_id: booking.event_id,
        booking_id: booking.id,
        payment: CapturedPayment { transaction: payment(transaction), amount: Some(amount) },
        refund_id: fixture.refund_id(),
    };
    command(Action::Confirm(Box::new(confirmation)))
}

pub(super) async fn a_repeated_confirmation_changes_nothing(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(10)).await.id;
    let held = fixture.hold(event, &[("a", 2), ("b", 1)]).await;
    let wrong = [eur(8_999), Money::new(9_000, "USD".parse().expect("a currency")).expect("an amount")];
    let wrong: Vec<_> =
        wrong.into_iter().map(|amount| confirm_amount(&fixture, &held[0], "t", amount)).collect();
    assert_eq!(fixture.outcome_codes(wrong).await, ["amount_mismatch"; 2]);
    let paid = fixture.run_ok(confirm_amount(&fixture, &held[0], "t", eur(9_000))).await;
    for commands in [1, 3] {
        let replies = fixture.execute((0..commands).map(|_| fixture.confirm(&held[0], "t")).collect()).await;
        assert!(replies.iter().all(|reply| super::fixture::expect_booking(reply) == paid));
    }
    let twice = vec![fixture.confirm(&held[1], "t"), fixture.confirm(&held[1], "t")];
    assert_eq!(fixture.outcome_codes(twice).await, ["ok"; 2]);
    assert_eq!((fixture.ledger(event).await.len(), fixture.refunds().await.len()), (5, 0));
    fixture.assert_audit_clean().await;
}

/// Payment ids are distinct if any character differs, and each payment belongs to one booking.
pub(super) async fn payment_ids_are_compared_exactly(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(10)).await.id;
    let paid = fixture.book_and_pay(event, "a", 1, "Pay\u{e9}").await;
    let names = ["pay\u{e9}", "Pay\u{e9} ", "Paye\u{301}", "PAY\u{c9}"];
    for _ in 0..2 {
        let commands = names.map(|name| fixture.confirm(&paid, name)).to_vec();
        assert_eq!(fixture.outcome_codes(commands).await, ["invalid_state"; 4]);
    }
    assert_eq!(fixture.refunds().await.len(), 4);
    let other = fixture.run_ok(fixture.book(event, "b", 1)).await;
    assert_eq!(outcome_code(&fixture.run(fixture.confirm(&other, "pay\u{e9}")).await), "ok");
    fixture.assert_audit_clean().await;
}

pub(super) async fn a_late_payment_reacquires_its_tickets(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(4)).await.id;
    let held = fixture.hold(event, &[("a", 2), ("b", 2)]).await;
    harness.advance(HOLD).await;
    // Overdue, but not freed: the payment is accepted as in time.
    assert_eq!(fixture.run_ok(fixture.confirm(&held[0], "t")).await.version, 2);
    fixture.run_ok(expire(&held[1])).await;
    let again = fixture.run_ok(fixture.confirm(&held[1], "t")).await;
    assert_eq!((again.version, again.status()), (3, BookingStatus::Confirmed));
    assert_eq!(
        fixture.outcome_codes(vec![expire(&held[1]), fixture.confirm(&held[1], "t")]).await,
        ["invalid_state", "ok"]
    );
    let stock = fixture.event(event).await.inventory;
    assert_eq!((stock.held, stock.sold, stock.tallies.revenue), (0, 4, 18_000));
    assert_eq!(fixture.refunds().await, []);
    fixture.assert_audit_clean().await;
}

pub(super) async fn a_late_payment_frees_overdue_holds(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(2)).await.id;
    let late = fixture.run_ok(fixture.book(event, "a", 2)).await;
    harness.advance(HOLD).await;
    let others = fixture.hold(event, &[("b", 1), ("c", 1)]).await;
    assert_eq!(fixture.status(&late).await, BookingStatus::Expired);
    harness.advance(HOLD).await;
    assert_eq!(fixture.outcome_codes(vec![fixture.confirm(&late, "t")]).await, ["ok"]);
    assert_eq!(fixture.statuses(&others).await, [BookingStatus::Expired; 2]);
    fixture.assert_audit_clean().await;
}

pub(super) async fn a_late_payment_is_refunded_once(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(2)).await.id;
    let late = fixture.run_ok(fixture.book(event, "a", 2)).await;
    harness.advance(HOLD).await;
    fixture.hold(event, &[("b", 2)]).await;
    let replies = fixture.execute(vec![fixture.confirm(&late, "t"), fixture.confirm(&late, "t")]).await;
    assert_eq!(outcome_codes(&replies), ["hold_expired"; 2]);
    let refund = expect_refund(&replies[0]);
    assert_eq!(expect_refund(&replies[1]), refund);
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
    let before = (fixture.booking(late.id).await, fixture.ledger(event).await);
    assert_eq!(before.0.status(), BookingStatus::Expired);
    assert_eq!(before.1.iter().filter(|entry| entry.kind == EntryKind::RefundRequested).count(), 1);
    assert_eq!(expect_refund(&fixture.run(fixture.confirm(&late, "t")).await), refund);
    // Another payment of the same booking gets another refund.
    let other = expect_refund(&fixture.run(fixture.confirm(&late, "u")).await);
    assert_eq!(fixture.refunds().await, [other, refund]);
    fixture.assert_audit_clean().await;
}

/// A webhook that is repeated after the tickets are available again gets its refund, and books nothing.
pub(super) async fn a_refunded_payment_is_never_accepted_again(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(2)).await.id;
    let late = fixture.run_ok(fixture.book(event, "a", 2)).await;
    harness.advance(HOLD).await;
    let winner = fixture.book_and_pay(event, "b", 2, "w").await;
    let refund = expect_refund(&fixture.run(fixture.confirm(&late, "t")).await);
    // In one batch: the tickets are returned, and the same webhook arrives before and after.
    let commands = vec![fixture.confirm(&late, "t"), fixture.cancel(&winner), fixture.confirm(&late, "t")];
    let replies = fixture.execute(commands).await;
    assert_eq!(outcome_codes(&replies), ["hold_expired", "ok", "hold_expired"]);
    assert_eq!([expect_refund(&replies[0]), expect_refund(&replies[2])], [refund.clone(), refund.clone()]);
    let reply = fixture.run(fixture.confirm(&late, "t")).await;
    assert_eq!(expect_refund(&reply), refund);
    // So does the payment of a cancelled booking.
    let reply = fixture.run(fixture.confirm(&winner, "w")).await;
    assert_eq!(
        (outcome_code(&reply), expect_refund(&reply).reason),
        ("invalid_state", RefundReason::BookingCancelled)
    );
    assert_eq!(fixture.event(event).await.available(), 2);
    // A new payment can still book them.
    assert_eq!(outcome_code(&fixture.run(fixture.confirm(&late, "fresh")).await), "ok");
    assert_eq!(fixture.refunds().await.len(), 2);
    fixture.assert_audit_clean().await;
}

pub(super) async fn only_one_of_two_late_payments_gets_the_last_ticket(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    for together in [true, false] {
        let event = fixture.create(fixture.new_event(1)).await.id;
        let first = fixture.run_ok(fixture.book(event, "a", 1)).await;
        harness.advance(HOLD).await;
        let second = fixture.run_ok(fixture.book(event, "b", 1)).await;
        harness.advance(HOLD).await;
        fixture.run_ok(expire(&second)).await;
        let commands = vec![fixture.confirm(&second, "t"), fixture.confirm(&first, "t")];
        let codes = if together {
            fixture.outcome_codes(commands).await
        } else {
            let mut codes = Vec::new();
            for command in commands {
                codes.push(outcome_code(&fixture.run(command).await));
            }
            codes
        };
        assert_eq!(codes, ["ok", "hold_expired"], "together: {together}");
    }
    fixture.assert_audit_clean().await;
}
