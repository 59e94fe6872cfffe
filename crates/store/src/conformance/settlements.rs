//! Refunds that are paid out, or not: each outcome is recorded once, and what was paid out stays so.

use domain::{
    Action, Answer, Booking, BookingId, Command, EntryKind, Label, Refund, RefundId, RefundStatus,
    Settlement, State,
};

use super::Rig;
use super::stage::{Stage, command, named_refund, payment, word, words};
use crate::Reply;

fn settle(booking: &Booking, transaction: &str, succeeded: bool, reference: &str) -> Command {
    command(Action::Settle(Box::new(Settlement {
        event_id: booking.event_id,
        booking_id: booking.id,
        transaction: payment(transaction),
        succeeded,
        provider_reference: reference.parse().expect("a reference"),
    })))
}

fn settled(reply: &Reply) -> Refund {
    match reply {
        Reply::Answered(Answer::Refund(refund)) => (**refund).clone(),
        other => panic!("a refund was expected: {other:?}"),
    }
}

/// Whether a cancelled booking shows that its payment was given back.
async fn shows_refund(stage: &Stage<'_>, booking: &Booking) -> bool {
    match stage.booking(booking.id).await.state {
        State::Cancelled { refunded, .. } => refunded,
        other => panic!("a cancelled booking was expected: {other:?}"),
    }
}

async fn named(stage: &Stage<'_>, status: RefundStatus) -> Vec<RefundId> {
    let page = stage.store.refunds(Some(status), None, 100).await.expect("a page");
    page.rows.iter().map(|refund| refund.id).collect()
}

pub(super) async fn a_refund_is_settled_once(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(10)).await.id;
    let paid = stage.paid(event, "a", 2, "t").await;
    assert_eq!(word(&stage.run(settle(&paid, "t", true, "r")).await), "not_found");
    stage.done(stage.cancel(&paid)).await;
    let requested = stage.refunds().await.pop().expect("a refund");
    assert!(!shows_refund(&stage, &paid).await);

    let refund = settled(&stage.run(settle(&paid, "t", true, " pay-out \u{1f4b8}")).await);
    let last = stage.ledger(event).await.pop().expect("an entry");
    let expected = Refund {
        status: RefundStatus::Succeeded,
        provider_reference: Some(" pay-out \u{1f4b8}".parse().expect("a reference")),
        settled_at: Some(last.at),
        ..requested
    };
    assert_eq!(refund, expected);
    assert_eq!(stage.store.refund(refund.id).await.expect("a read"), Some(refund.clone()));
    assert_eq!(stage.refunds().await, std::slice::from_ref(&refund));
    assert!(shows_refund(&stage, &paid).await);
    let about = (last.kind, last.booking_id, last.refund_id, last.quantity, last.lines.len());
    assert_eq!(about, (EntryKind::RefundSettled, Some(paid.id), Some(refund.id), 0, 0));
    assert_eq!((last.from, last.to), (Some(Label::Requested), Some(Label::Succeeded)));

    // The same again, the opposite, and the payment itself: nothing moves any more.
    let commands =
        vec![settle(&paid, "t", true, "other"), settle(&paid, "t", false, "r"), stage.confirm(&paid, "t")];
    let replies = stage.execute(commands).await;
    assert_eq!(words(&replies), ["ok", "invalid_state", "invalid_state"]);
    assert_eq!(settled(&replies[0]), refund);
    assert_eq!([named_refund(&replies[1]), named_refund(&replies[2])], [refund.clone(), refund]);
    assert_eq!(stage.ledger(event).await.last(), Some(&last));
    stage.clean().await;
}

pub(super) async fn a_failed_refund_may_succeed_later(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(10)).await.id;
    let paid = stage.paid(event, "a", 2, "t").await;
    stage.done(stage.cancel(&paid)).await;
    let id = stage.refunds().await[0].id;
    for (succeeded, status) in
        [(false, RefundStatus::Failed), (false, RefundStatus::Failed), (true, RefundStatus::Succeeded)]
    {
        assert_eq!(settled(&stage.run(settle(&paid, "t", succeeded, "r")).await).status, status);
        assert_eq!((named(&stage, status).await, shows_refund(&stage, &paid).await), (vec![id], succeeded));
    }
    assert!(named(&stage, RefundStatus::Requested).await.is_empty());
    assert!(named(&stage, RefundStatus::Failed).await.is_empty());
    assert_eq!(stage.ledger(event).await.len(), 7);
    stage.clean().await;
}

/// A refund may become due and be settled, twice even, in one batch; and only its own payment is shown by
/// its booking.
pub(super) async fn a_refund_lives_its_life_in_one_batch(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(10)).await.id;
    let paid = stage.paid(event, "a", 2, "t").await;
    let commands = vec![
        stage.confirm(&paid, "second"),
        settle(&paid, "second", true, "r"),
        stage.cancel(&paid),
        settle(&paid, "t", false, "r"),
    ];
    assert_eq!(stage.words(commands).await, ["invalid_state", "ok", "ok", "ok"]);
    assert!(!shows_refund(&stage, &paid).await, "another payment was given back, not its own");
    let by_payment: Vec<_> =
        stage.refunds().await.into_iter().map(|refund| (refund.transaction, refund.status)).collect();
    assert_eq!(
        by_payment,
        [(payment("t"), RefundStatus::Failed), (payment("second"), RefundStatus::Succeeded)]
    );
    let commands = vec![settle(&paid, "t", true, "r"), settle(&paid, "t", true, "r")];
    assert_eq!(stage.words(commands).await, ["ok"; 2]);
    assert!(shows_refund(&stage, &paid).await);
    let ghost = Booking { id: BookingId::from_bytes([0xbb; 16]), ..(*paid).clone() };
    let commands = vec![settle(&paid, "T", true, "r"), settle(&ghost, "t", true, "r")];
    assert_eq!(stage.words(commands).await, ["not_found"; 2]);
    assert_eq!(stage.store.refund(RefundId::from_bytes([0xbb; 16])).await.expect("a read"), None);
    stage.clean().await;
}
