//! The settlement of refunds, case by case.

use domain::{
    Action, Answer, BookingId, BookingStatus, Command, EntryKind, EventPatch, EventStatus,
    InconsistencyError, LedgerStatus, PaymentStatus, Refund, RefundOutcome, RefundStatus, Refusal,
    Settlement, Snapshot, State, decide,
};

use crate::fixture::{self, BookingSetup, Condition};
use crate::invariants;
use crate::world::{World, at, named_refund, new_event, outcome_code, payment, service};

/// A booking of two tickets, paid by `t1` and cancelled.
fn cancelled_booking() -> (World, BookingId) {
    let mut world = World::selling(new_event());
    let id = world.book_and_pay("ann", 2, "t1");
    assert_eq!(outcome_code(&world.cancel(service(), id)), "ok");
    world.wait(60);
    (world, id)
}

/// Settles a refund and checks that exactly one entry is written, and that only the refund and its effect on
/// the booking change.
fn settle_ok(
    world: &mut World,
    id: BookingId,
    transaction: &str,
    succeeded: bool,
    reference: &str,
) -> Refund {
    let before = world.clone();
    let answer = world.settle(id, transaction, succeeded, reference);
    let (was, is) = (before.refund(id, transaction), world.refund(id, transaction));
    assert_eq!(answer, Answer::Refund(Box::new(is.clone())), "the answer is the current refund");
    let expected = Refund {
        status: if succeeded { RefundStatus::Succeeded } else { RefundStatus::Failed },
        provider_reference: Some(reference.parse().unwrap()),
        settled_at: Some(before.now),
        ..was.clone()
    };
    assert_eq!(*is, expected);
    let [known @ .., entry] = world.ledger.as_slice() else { panic!("no entry") };
    assert_eq!(known, before.ledger, "one entry");
    assert_eq!((entry.kind.known(), entry.refund_id), (Some(EntryKind::RefundSettled), Some(is.id)));
    assert_eq!(
        (entry.from, entry.to),
        (Some(LedgerStatus::from(was.status)), Some(LedgerStatus::from(is.status)))
    );
    assert_eq!((&entry.actor, entry.previous_seq), (&service(), Some(before.booking(id).last_seq)));
    assert_eq!(entry.available_after, before.event().available());
    let (old, new) = (before.booking(id), world.booking(id));
    assert_eq!((new.version, new.last_seq), (old.version + 1, entry.seq));
    assert_eq!((new.updated_at, new.status()), (before.now, old.status()));
    assert_eq!(entry.at, before.now.max(before.event().inventory.last_at), "not dated before its request");
    let mut inventory = world.event().inventory.clone();
    (inventory.seq, inventory.last_at) = (before.event().inventory.seq, before.event().inventory.last_at);
    assert_eq!(inventory, before.event().inventory, "tickets and revenue of the event do not change");
    assert_eq!(world.event().details, before.event().details);
    assert_eq!(world.user_tickets, before.user_tickets);
    invariants::check(world);
    expected
}

/// Settles a refund and checks that nothing is written.
fn settle_without_change(world: &mut World, id: BookingId, transaction: &str, succeeded: bool) -> Answer {
    let before = world.clone();
    world.wait(60);
    let answer = world.settle(id, transaction, succeeded, "another payout");
    assert_eq!(
        (&before.event, &before.bookings, &before.refunds, &before.ledger),
        (&world.event, &world.bookings, &world.refunds, &world.ledger),
    );
    answer
}

fn payment_status(world: &World, id: BookingId) -> PaymentStatus {
    world.booking(id).payment_status()
}

#[test]
fn a_refund_is_paid_out_once() {
    let (mut world, id) = cancelled_booking();
    assert_eq!(payment_status(&world, id), PaymentStatus::RefundRequested);
    let paid_out = settle_ok(&mut world, id, "t1", true, "payout 1");
    assert_eq!(payment_status(&world, id), PaymentStatus::Refunded);
    let again = settle_without_change(&mut world, id, "t1", true);
    assert_eq!(again, Answer::Refund(Box::new(paid_out)), "the first reference and time are kept");
}

#[test]
fn a_failed_refund_is_still_owed_and_may_succeed() {
    let (mut world, id) = cancelled_booking();
    let failed = settle_ok(&mut world, id, "t1", false, "payout 1");
    assert_eq!(payment_status(&world, id), PaymentStatus::RefundRequested);
    let again = settle_without_change(&mut world, id, "t1", false);
    assert_eq!(again, Answer::Refund(Box::new(failed.clone())), "the first reference and time are kept");
    let paid_out = settle_ok(&mut world, id, "t1", true, "payout 2");
    assert!(paid_out.settled_at > failed.settled_at);
    assert_eq!(payment_status(&world, id), PaymentStatus::Refunded);
}

#[test]
fn a_paid_out_refund_is_final() {
    let (mut world, id) = cancelled_booking();
    let paid_out = settle_ok(&mut world, id, "t1", true, "payout 1");
    let answer = settle_without_change(&mut world, id, "t1", false);
    let named = Some(Box::new(paid_out));
    let refusal = Refusal::InvalidState { booking: BookingStatus::Cancelled, refund: named };
    assert_eq!(answer, Answer::Refused(refusal));
    assert_eq!(payment_status(&world, id), PaymentStatus::Refunded);
}

#[test]
fn a_refund_that_is_not_recorded_cannot_be_settled() {
    let (mut world, cancelled) = cancelled_booking();
    let paid = world.book_and_pay("bob", 1, "t1");
    let unknown_booking = world.next_booking();
    let unknown = Answer::Refused(Refusal::NotFound("refund"));
    for succeeded in [true, false] {
        assert_eq!(
            settle_without_change(&mut world, unknown_booking, "t1", succeeded),
            unknown,
            "no such booking"
        );
        assert_eq!(settle_without_change(&mut world, cancelled, "t2", succeeded), unknown, "no such payment");
        assert_eq!(
            settle_without_change(&mut world, paid, "t1", succeeded),
            unknown,
            "the payment of a confirmed booking"
        );
        assert_eq!(
            World::empty().settle(unknown_booking, "t1", succeeded, "payout"),
            unknown,
            "no such event"
        );
    }
    assert_eq!(world.refund(cancelled, "t1").status, RefundStatus::Requested);
}

#[test]
fn settling_a_late_payment_does_not_change_the_booking() {
    let mut world = World::selling(new_event());
    let id = world.book_and_pay("ann", 2, "t1");
    assert_eq!(outcome_code(&world.pay(id, "t2")), "invalid_state");
    assert_eq!(outcome_code(&world.pay(id, "t3")), "invalid_state");
    settle_ok(&mut world, id, "t2", true, "payout 2");
    settle_ok(&mut world, id, "t3", false, "payout 3");
    assert_eq!((outcome_code(&world.pay(id, "t1")), payment_status(&world, id)), ("ok", PaymentStatus::Paid));
    assert_eq!(outcome_code(&world.pay(id, "t2")), "invalid_state");
    // The refund of its own payment is recorded only now; the outcomes of the other two have no effect on it.
    assert_eq!(outcome_code(&world.cancel(service(), id)), "ok");
    assert_eq!(payment_status(&world, id), PaymentStatus::RefundRequested);
    settle_ok(&mut world, id, "t3", true, "payout 4");
    assert_eq!(payment_status(&world, id), PaymentStatus::RefundRequested);
    settle_ok(&mut world, id, "t1", true, "payout 1");
    assert_eq!(payment_status(&world, id), PaymentStatus::Refunded);
    assert_eq!(outcome_code(&world.pay(id, "t4")), "invalid_state");
    settle_ok(&mut world, id, "t4", false, "payout 5");
    assert_eq!(payment_status(&world, id), PaymentStatus::Refunded);
}

#[test]
fn the_same_transaction_on_another_booking_is_another_refund() {
    let (mut world, first) = cancelled_booking();
    let second = world.book_and_pay("ann", 1, "t1");
    assert_eq!(outcome_code(&world.cancel(service(), second)), "ok");
    settle_ok(&mut world, first, "t1", true, "payout 1");
    assert_eq!(world.refund(second, "t1").status, RefundStatus::Requested);
    assert_eq!(payment_status(&world, second), PaymentStatus::RefundRequested);
}

#[test]
fn a_refund_may_be_settled_before_its_booking_ends() {
    let mut world = World::selling(new_event());
    let id = world.must_book("ann", 2);
    let cancelled = EventPatch { status: Some(EventStatus::Cancelled), ..EventPatch::default() };
    assert_eq!(outcome_code(&world.edit(cancelled)), "ok");
    assert_eq!(outcome_code(&world.pay(id, "t1")), "event_cancelled");
    settle_ok(&mut world, id, "t1", true, "payout 1");
    assert_eq!(payment_status(&world, id), PaymentStatus::Pending);
    assert_eq!(outcome_code(&world.cancel(service(), id)), "ok");
    assert_eq!((payment_status(&world, id), world.refunds.len()), (PaymentStatus::Failed, 1));
    invariants::check(&world);
}

#[test]
fn an_expired_booking_can_be_paid_again_while_a_late_payment_is_refunded() {
    let (mut fixture, late) = fixture::prepare_refunded(BookingSetup::Expired, Condition::OnSale).unwrap();
    settle_ok(&mut fixture.world, fixture.booking, late, true, "payout 1");
    assert_eq!(payment_status(&fixture.world, fixture.booking), PaymentStatus::Failed);
    assert_eq!(outcome_code(&fixture.world.pay(fixture.booking, late)), "hold_expired");
    assert_eq!(outcome_code(&fixture.world.pay(fixture.booking, "new")), "ok");
    assert_eq!(payment_status(&fixture.world, fixture.booking), PaymentStatus::Paid);
    let paid = fixture.world.booking(fixture.booking);
    assert!(matches!(&paid.state, State::Confirmed(by) if by.transaction == payment("new")));
    invariants::check(&fixture.world);
}

#[test]
fn a_repeated_refusal_names_the_settled_refund() {
    for setup in BookingSetup::ALL {
        for condition in Condition::ALL {
            let Some((fixture, transaction)) = fixture::prepare_refunded(setup, condition) else { continue };
            let id = fixture.booking;
            let first = fixture.world.clone().pay(id, transaction);
            for outcomes in [&[true][..], &[false], &[false, true]] {
                let mut world = fixture.world.clone();
                for outcome in outcomes {
                    settle_ok(&mut world, id, transaction, *outcome, "payout 1");
                }
                let entries = world.ledger.len();
                let again = world.pay(id, transaction);
                assert_eq!(
                    outcome_code(&again),
                    outcome_code(&first),
                    "{setup:?} {condition:?} {outcomes:?}"
                );
                assert_eq!(named_refund(&again), Some(world.refund(id, transaction)));
                assert_eq!(world.ledger.len(), entries);
            }
            assert_eq!(named_refund(&first), Some(fixture.world.refund(id, transaction)));
        }
    }
}

#[test]
fn a_settled_booking_stays_cancelled() {
    let (mut world, id) = cancelled_booking();
    settle_ok(&mut world, id, "t1", true, "payout 1");
    let before = world.booking(id).clone();
    assert_eq!(outcome_code(&world.cancel(service(), id)), "invalid_state");
    assert_eq!(outcome_code(&world.expire(id)), "invalid_state");
    assert_eq!(*world.booking(id), before);
}

#[test]
fn a_settlement_under_a_clock_that_stepped_back_keeps_the_ledger_in_order() {
    let (mut world, id) = cancelled_booking();
    world.now = at("2029-01-01T00:00:00Z");
    let clock = world.now;
    settle_ok(&mut world, id, "t1", true, "payout 1");
    assert!(clock < world.ledger.last().unwrap().at);
}

#[test]
fn a_booking_without_its_event_is_inconsistent() {
    let (world, id) = cancelled_booking();
    let event_id = world.event().id;
    let transaction = payment("t1");
    let outcome = RefundOutcome { succeeded: true, provider_reference: "payout 1".parse().unwrap() };
    let settlement = Settlement { event_id, booking_id: id, transaction, outcome };
    let action = Action::Settle(Box::new(settlement));
    let command = Command { actor: service(), request: "req-1".parse().unwrap(), trace: None, action };
    assert_eq!(command.captured(), Some((id, payment("t1"))), "the refund to load");
    assert_eq!((command.event_id(), command.booking_id()), (event_id, Some(id)));
    let booking = world.bookings.get(&id);
    let refund = Some(world.refund(id, "t1"));
    let snapshot = Snapshot {
        event: None,
        booking,
        refund,
        user_tickets: 0,
        is_external_ref_in_use: false,
        exhausted_scopes: &[],
    };
    assert!(matches!(decide(&snapshot, &command, world.now), Err(InconsistencyError(_))));
}
