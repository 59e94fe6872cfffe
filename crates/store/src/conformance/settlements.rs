//! Settlements: the outcome of a refund is recorded once, and a paid refund stays paid.

use domain::{
    Action, Answer, Booking, BookingId, Command, EntryKind, LedgerStatus, Refund, RefundId, RefundOutcome,
    RefundStatus, Settlement, State,
};

use super::Harness;
use super::fixture::{Fixture, command, expect_refund, outcome_code, outcome_codes, payment};
use crate::Reply;

fn settle(booking: &Booking, transaction: &str, succeeded: bool, reference: &str) -> Command {
    command(Action::Settle(Box::new(Settlement {
        event_id: booking.event_id,
        booking_id: booking.id,
        transaction: payment(transaction),
        outcome: RefundOutcome { succeeded, provider_reference: reference.parse().expect("a reference") },
    })))
}

fn expect_settled_refund(reply: &Reply) -> Refund {
    match reply.answer() {
        Some(Answer::Refund(refund)) => (**refund).clone(),
        other => panic!("a refund was expected: {other:?}"),
    }
}

/// True if a cancelled booking is marked as refunded.
async fn shows_refund(fixture: &Fixture<'_>, booking: &Booking) -> bool {
    match fixture.booking(booking.id).await.state {
        State::Cancelled { refunded, .. } => refunded,
        other => panic!("a cancelled booking was expected: {other:?}"),
    }
}

async fn refunds_in(fixture: &Fixture<'_>, status: RefundStatus) -> Vec<RefundId> {
    let page = fixture.store.refunds(Some(status), None, 100).await.expect("a page");
    page.rows.iter().map(|refund| refund.id).collect()
}

pub(super) async fn a_refund_is_settled_once(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(10)).await.id;
    let paid = fixture.book_and_pay(event, "a", 2, "t").await;
    assert_eq!(outcome_code(&fixture.run(settle(&paid, "t", true, "r")).await), "not_found");
    fixture.run_ok(fixture.cancel(&paid)).await;
    let requested = fixture.refunds().await.pop().expect("a refund");
    assert!(!shows_refund(&fixture, &paid).await);

    let refund = expect_settled_refund(&fixture.run(settle(&paid, "t", true, " pay-out \u{1f4b8}")).await);
    let last = fixture.ledger(event).await.pop().expect("an entry");
    let expected = Refund {
        status: RefundStatus::Succeeded,
        provider_reference: Some(" pay-out \u{1f4b8}".parse().expect("a reference")),
        settled_at: Some(last.at),
        ..requested
    };
    assert_eq!(refund, expected);
    assert_eq!(fixture.store.refund(refund.id).await.expect("a read"), Some(refund.clone()));
    assert_eq!(fixture.refunds().await, std::slice::from_ref(&refund));
    assert!(shows_refund(&fixture, &paid).await);
    let about = (last.kind.known(), last.booking_id, last.refund_id, last.quantity, last.lines.len());
    assert_eq!(about, (Some(EntryKind::RefundSettled), Some(paid.id), Some(refund.id), 0, 0));
    assert_eq!((last.from, last.to), (Some(LedgerStatus::Requested), Some(LedgerStatus::Succeeded)));

    // The same settlement again, the opposite one, and the payment again: nothing changes.
    let commands =
        vec![settle(&paid, "t", true, "other"), settle(&paid, "t", false, "r"), fixture.confirm(&paid, "t")];
    let replies = fixture.execute(commands).await;
    assert_eq!(outcome_codes(&replies), ["ok", "invalid_state", "invalid_state"]);
    assert_eq!(expect_settled_refund(&replies[0]), refund);
    assert_eq!([expect_refund(&replies[1]), expect_refund(&replies[2])], [refund.clone(), refund]);
    assert_eq!(fixture.ledger(event).await.last(), Some(&last));
    fixture.assert_audit_clean().await;
}

pub(super) async fn a_failed_refund_may_succeed_later(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(10)).await.id;
    let paid = fixture.book_and_pay(event, "a", 2, "t").await;
    fixture.run_ok(fixture.cancel(&paid)).await;
    let id = fixture.refunds().await[0].id;
    for (succeeded, status) in
        [(false, RefundStatus::Failed), (false, RefundStatus::Failed), (true, RefundStatus::Succeeded)]
    {
        assert_eq!(
            expect_settled_refund(&fixture.run(settle(&paid, "t", succeeded, "r")).await).status,
            status
        );
        assert_eq!(
            (refunds_in(&fixture, status).await, shows_refund(&fixture, &paid).await),
            (vec![id], succeeded)
        );
    }
    assert!(refunds_in(&fixture, RefundStatus::Requested).await.is_empty());
    assert!(refunds_in(&fixture, RefundStatus::Failed).await.is_empty());
    assert_eq!(fixture.ledger(event).await.len(), 7);
    fixture.assert_audit_clean().await;
}

/// A refund may be requested and settled in one batch, even twice; a booking is marked as refunded only for
/// its own payment.
pub(super) async fn one_batch_may_contain_a_refund_lifecycle(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(10)).await.id;
    let paid = fixture.book_and_pay(event, "a", 2, "t").await;
    let commands = vec![
        fixture.confirm(&paid, "second"),
        settle(&paid, "second", true, "r"),
        fixture.cancel(&paid),
        settle(&paid, "t", false, "r"),
    ];
    assert_eq!(fixture.outcome_codes(commands).await, ["invalid_state", "ok", "ok", "ok"]);
    assert!(!shows_refund(&fixture, &paid).await, "another payment was refunded, not its own");
    let by_payment: Vec<_> =
        fixture.refunds().await.into_iter().map(|refund| (refund.transaction, refund.status)).collect();
    assert_eq!(
        by_payment,
        [(payment("t"), RefundStatus::Failed), (payment("second"), RefundStatus::Succeeded)]
    );
    let commands = vec![settle(&paid, "t", true, "r"), settle(&paid, "t", true, "r")];
    assert_eq!(fixture.outcome_codes(commands).await, ["ok"; 2]);
    assert!(shows_refund(&fixture, &paid).await);
    let missing = Booking { id: BookingId::from_bytes([0xbb; 16]), ..(*paid).clone() };
    let commands = vec![settle(&paid, "T", true, "r"), settle(&missing, "t", true, "r")];
    assert_eq!(fixture.outcome_codes(commands).await, ["not_found"; 2]);
    assert_eq!(fixture.store.refund(RefundId::from_bytes([0xbb; 16])).await.expect("a read"), None);
    fixture.assert_audit_clean().await;
}
