//! The settlement of refunds, branch by branch.

use domain::{
    Action, Answer, BookingId, BookingStatus, Command, EntryKind, EventPatch, EventStatus, Inconsistent,
    Label, PaymentStatus, Refund, RefundStatus, Refusal, Scene, Settlement, State, decide,
};

use crate::invariants;
use crate::stage::{self, Condition, Stands};
use crate::world::{World, at, named_refund, new_event, service, tx, word};

/// A booking of two tickets, paid by `t1` and cancelled.
fn cancelled() -> (World, BookingId) {
    let mut world = World::selling(new_event());
    let id = world.paid("ann", 2, "t1");
    assert_eq!(word(&world.cancel(service(), id)), "ok");
    world.wait(60);
    (world, id)
}

/// Settles, and it must be recorded: one entry, one version, nothing but the refund and what it shows.
fn settled(world: &mut World, id: BookingId, transaction: &str, succeeded: bool, reference: &str) -> Refund {
    let before = world.clone();
    let answer = world.settle(id, transaction, succeeded, reference);
    let (was, is) = (before.refund(id, transaction), world.refund(id, transaction));
    assert_eq!(answer, Answer::Refund(Box::new(is.clone())), "the answer is the refund as it now is");
    let expected = Refund {
        status: if succeeded { RefundStatus::Succeeded } else { RefundStatus::Failed },
        provider_reference: Some(reference.parse().unwrap()),
        settled_at: Some(before.now),
        ..was.clone()
    };
    assert_eq!(*is, expected);
    let [known @ .., entry] = world.ledger.as_slice() else { panic!("no entry") };
    assert_eq!(known, before.ledger, "one entry");
    assert_eq!((entry.kind, entry.refund_id), (EntryKind::RefundSettled, Some(is.id)));
    assert_eq!((entry.from, entry.to), (Some(Label::from(was.status)), Some(Label::from(is.status))));
    assert_eq!((&entry.actor, entry.previous_seq), (&service(), Some(before.booking(id).last_seq)));
    assert_eq!(entry.available_after, before.event().available());
    let (old, new) = (before.booking(id), world.booking(id));
    assert_eq!((new.version, new.last_seq), (old.version + 1, entry.seq));
    assert_eq!((new.updated_at, new.status()), (before.now, old.status()));
    assert_eq!(entry.at, before.now.max(before.event().stock.last_at), "never dated before its request");
    let mut stock = world.event().stock.clone();
    (stock.seq, stock.last_at) = (before.event().stock.seq, before.event().stock.last_at);
    assert_eq!(stock, before.event().stock, "no ticket and no money of the event moves");
    assert_eq!(world.event().about, before.event().about);
    assert_eq!(world.user_tickets, before.user_tickets);
    invariants::check(world);
    expected
}

/// Settles, and nothing may be written.
fn unsettled(world: &mut World, id: BookingId, transaction: &str, succeeded: bool) -> Answer {
    let before = world.clone();
    world.wait(60);
    let answer = world.settle(id, transaction, succeeded, "another payout");
    assert_eq!(
        (&before.event, &before.bookings, &before.refunds, &before.ledger),
        (&world.event, &world.bookings, &world.refunds, &world.ledger),
    );
    answer
}

fn money(world: &World, id: BookingId) -> PaymentStatus {
    world.booking(id).payment_status()
}

#[test]
fn a_refund_is_paid_out_once() {
    let (mut world, id) = cancelled();
    assert_eq!(money(&world, id), PaymentStatus::RefundRequested);
    let paid_out = settled(&mut world, id, "t1", true, "payout 1");
    assert_eq!(money(&world, id), PaymentStatus::Refunded);
    let again = unsettled(&mut world, id, "t1", true);
    assert_eq!(again, Answer::Refund(Box::new(paid_out)), "the first reference and time stay");
}

#[test]
fn a_failed_refund_is_still_owed_and_may_succeed() {
    let (mut world, id) = cancelled();
    let failed = settled(&mut world, id, "t1", false, "payout 1");
    assert_eq!(money(&world, id), PaymentStatus::RefundRequested);
    let again = unsettled(&mut world, id, "t1", false);
    assert_eq!(again, Answer::Refund(Box::new(failed.clone())), "the first reference and time stay");
    let paid_out = settled(&mut world, id, "t1", true, "payout 2");
    assert!(paid_out.settled_at > failed.settled_at);
    assert_eq!(money(&world, id), PaymentStatus::Refunded);
}

#[test]
fn what_was_paid_out_stays_so() {
    let (mut world, id) = cancelled();
    let paid_out = settled(&mut world, id, "t1", true, "payout 1");
    let answer = unsettled(&mut world, id, "t1", false);
    let named = Some(Box::new(paid_out));
    let refusal = Refusal::InvalidState { booking: BookingStatus::Cancelled, refund: named };
    assert_eq!(answer, Answer::Refused(refusal));
    assert_eq!(money(&world, id), PaymentStatus::Refunded);
}

#[test]
fn a_refund_that_is_not_recorded_cannot_be_settled() {
    let (mut world, cancelled) = cancelled();
    let paid = world.paid("bob", 1, "t1");
    let nobody = world.next_booking();
    let unknown = Answer::Refused(Refusal::NotFound("refund"));
    for succeeded in [true, false] {
        assert_eq!(unsettled(&mut world, nobody, "t1", succeeded), unknown, "no such booking");
        assert_eq!(unsettled(&mut world, cancelled, "t2", succeeded), unknown, "no such payment");
        assert_eq!(unsettled(&mut world, paid, "t1", succeeded), unknown, "this one still pays");
        assert_eq!(World::empty().settle(nobody, "t1", succeeded, "payout"), unknown, "no such event");
    }
    assert_eq!(world.refund(cancelled, "t1").status, RefundStatus::Requested);
}

#[test]
fn a_late_payment_is_given_back_behind_the_bookings_back() {
    let mut world = World::selling(new_event());
    let id = world.paid("ann", 2, "t1");
    assert_eq!(word(&world.pay(id, "t2")), "invalid_state");
    assert_eq!(word(&world.pay(id, "t3")), "invalid_state");
    settled(&mut world, id, "t2", true, "payout 2");
    settled(&mut world, id, "t3", false, "payout 3");
    assert_eq!((word(&world.pay(id, "t1")), money(&world, id)), ("ok", PaymentStatus::Paid));
    assert_eq!(word(&world.pay(id, "t2")), "invalid_state");
    // Its own payment is owed only now, and is neither paid out by the one nor kept back by the other.
    assert_eq!(word(&world.cancel(service(), id)), "ok");
    assert_eq!(money(&world, id), PaymentStatus::RefundRequested);
    settled(&mut world, id, "t3", true, "payout 4");
    assert_eq!(money(&world, id), PaymentStatus::RefundRequested);
    settled(&mut world, id, "t1", true, "payout 1");
    assert_eq!(money(&world, id), PaymentStatus::Refunded);
    assert_eq!(word(&world.pay(id, "t4")), "invalid_state");
    settled(&mut world, id, "t4", false, "payout 5");
    assert_eq!(money(&world, id), PaymentStatus::Refunded);
}

#[test]
fn the_same_transaction_on_another_booking_is_another_refund() {
    let (mut world, first) = cancelled();
    let second = world.paid("ann", 1, "t1");
    assert_eq!(word(&world.cancel(service(), second)), "ok");
    settled(&mut world, first, "t1", true, "payout 1");
    assert_eq!(world.refund(second, "t1").status, RefundStatus::Requested);
    assert_eq!(money(&world, second), PaymentStatus::RefundRequested);
}

#[test]
fn a_refund_may_be_settled_before_its_booking_ends() {
    let mut world = World::selling(new_event());
    let id = world.booked("ann", 2);
    let cancelled = EventPatch { status: Some(EventStatus::Cancelled), ..EventPatch::default() };
    assert_eq!(word(&world.edit(cancelled)), "ok");
    assert_eq!(word(&world.pay(id, "t1")), "event_cancelled");
    settled(&mut world, id, "t1", true, "payout 1");
    assert_eq!(money(&world, id), PaymentStatus::Pending);
    assert_eq!(word(&world.cancel(service(), id)), "ok");
    assert_eq!((money(&world, id), world.refunds.len()), (PaymentStatus::Failed, 1));
    invariants::check(&world);
}

#[test]
fn an_expired_booking_is_bought_anew_while_the_late_payment_is_given_back() {
    let (mut stage, late) = stage::set_refunded(Stands::Expired, Condition::OnSale).unwrap();
    settled(&mut stage.world, stage.booking, late, true, "payout 1");
    assert_eq!(money(&stage.world, stage.booking), PaymentStatus::Failed);
    assert_eq!(word(&stage.world.pay(stage.booking, late)), "hold_expired");
    assert_eq!(word(&stage.world.pay(stage.booking, "new")), "ok");
    assert_eq!(money(&stage.world, stage.booking), PaymentStatus::Paid);
    assert!(
        matches!(&stage.world.booking(stage.booking).state, State::Confirmed(by) if by.transaction == tx("new"))
    );
    invariants::check(&stage.world);
}

#[test]
fn a_settled_transaction_hears_its_refusal_with_the_refund_as_it_is() {
    for stands in Stands::ALL {
        for condition in Condition::ALL {
            let Some((stage, transaction)) = stage::set_refunded(stands, condition) else { continue };
            let id = stage.booking;
            let heard = stage.world.clone().pay(id, transaction);
            for outcomes in [&[true][..], &[false], &[false, true]] {
                let mut world = stage.world.clone();
                for outcome in outcomes {
                    settled(&mut world, id, transaction, *outcome, "payout 1");
                }
                let entries = world.ledger.len();
                let again = world.pay(id, transaction);
                assert_eq!(word(&again), word(&heard), "{stands:?} {condition:?} {outcomes:?}");
                assert_eq!(named_refund(&again), Some(world.refund(id, transaction)));
                assert_eq!(world.ledger.len(), entries);
            }
            assert_eq!(named_refund(&heard), Some(stage.world.refund(id, transaction)));
        }
    }
}

#[test]
fn a_settled_booking_stays_cancelled() {
    let (mut world, id) = cancelled();
    settled(&mut world, id, "t1", true, "payout 1");
    let before = world.booking(id).clone();
    assert_eq!(word(&world.cancel(service(), id)), "invalid_state");
    assert_eq!(word(&world.expire(id)), "invalid_state");
    assert_eq!(*world.booking(id), before);
}

#[test]
fn a_settlement_under_a_clock_that_stepped_back_keeps_the_ledger_in_order() {
    let (mut world, id) = cancelled();
    world.now = at("2029-01-01T00:00:00Z");
    let clock = world.now;
    settled(&mut world, id, "t1", true, "payout 1");
    assert!(clock < world.ledger.last().unwrap().at);
}

#[test]
fn a_booking_without_its_event_is_no_ones_fault_but_the_databases() {
    let (world, id) = cancelled();
    let event_id = world.event().id;
    let transaction = tx("t1");
    let provider_reference = "payout 1".parse().unwrap();
    let settlement =
        Settlement { event_id, booking_id: id, transaction, succeeded: true, provider_reference };
    let action = Action::Settle(Box::new(settlement));
    let command = Command { actor: service(), request: "req-1".parse().unwrap(), trace: None, action };
    assert_eq!(command.captured(), Some((id, tx("t1"))), "what is to be loaded");
    assert_eq!((command.event_id(), command.booking_id()), (event_id, Some(id)));
    let booking = world.bookings.get(&id);
    let refund = Some(world.refund(id, "t1"));
    let scene = Scene { event: None, booking, refund, user_tickets: 0, swept: &[] };
    assert!(matches!(decide(&scene, &command, world.now), Err(Inconsistent(_))));
}
