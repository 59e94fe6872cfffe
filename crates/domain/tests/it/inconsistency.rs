//! Stored data that contradicts itself: the command fails and changes nothing.

use std::sync::Arc;

use domain::{
    Action, Booking, BookingId, Cancellation, CapturedPayment, Command, Confirmation, Decision,
    InconsistencyError, NewEvent, Snapshot, Tallies, decide,
};

use crate::world::{World, new_event, payment, service};

/// A world with a pending booking of two tickets, at an event with a limit per user.
fn held() -> (World, BookingId) {
    let mut world = World::selling(NewEvent { max_tickets_per_user: Some(4), ..new_event() });
    let id = world.must_book("ann", 2);
    (world, id)
}

fn run(world: &World, action: Action, user_tickets: u32) -> Result<Decision, InconsistencyError> {
    let command = Command { actor: service(), request: "req-1".parse().unwrap(), trace: None, action };
    let booking = command.booking_id().and_then(|id| world.bookings.get(&id));
    let event = world.event.as_ref();
    let snapshot = Snapshot {
        event,
        booking,
        refund: None,
        user_tickets,
        is_external_ref_in_use: false,
        exhausted_scopes: &[],
    };
    decide(&snapshot, &command, world.now)
}

fn confirm(world: &World, id: BookingId) -> Result<Decision, InconsistencyError> {
    let confirmation = Confirmation {
        event_id: world.event().id,
        booking_id: id,
        payment: CapturedPayment { transaction: payment("t1"), amount: None },
        refund_id: domain::RefundId::from_bytes([1; 16]),
    };
    run(world, Action::Confirm(Box::new(confirmation)), 2)
}

fn cancel(world: &World, id: BookingId, user_tickets: u32) -> Result<Decision, InconsistencyError> {
    let cancellation = Cancellation {
        event_id: world.event().id,
        booking_id: id,
        reason: None,
        refund_id: domain::RefundId::from_bytes([1; 16]),
    };
    run(world, Action::Cancel(Box::new(cancellation)), user_tickets)
}

/// Checks that neither a payment nor a cancellation is possible after an edit of the stored data.
fn assert_inconsistent(edit: impl Fn(&mut domain::Event, &mut Booking), confirms: bool, cancels: bool) {
    let (mut world, id) = held();
    assert!(confirm(&world, id).is_ok() && cancel(&world, id, 2).is_ok());
    let booking = world.bookings.get_mut(&id).unwrap();
    edit(world.event.as_mut().unwrap(), Arc::make_mut(booking));
    assert_eq!((confirm(&world, id).is_ok(), cancel(&world, id, 2).is_ok()), (confirms, cancels));
}

#[test]
fn counts_stay_in_their_range() {
    // More tickets are held and sold than exist, of the event or of the ticket type.
    assert_inconsistent(|event, _| event.inventory.capacity = 1, false, true);
    assert_inconsistent(|event, _| event.inventory.types[0].capacity = Some(1), false, true);
    assert_inconsistent(|event, _| event.inventory.held = 1, false, false);
    assert_inconsistent(|event, _| event.inventory.types[0].held = 1, false, false);
    assert_inconsistent(|event, _| event.inventory.sold = u32::MAX, false, false);
    assert_inconsistent(|event, _| event.inventory.tallies.pending = 0, false, false);
    assert_inconsistent(|event, _| event.inventory.tallies.confirmed = u64::MAX, false, true);
    assert_inconsistent(|event, _| event.inventory.tallies.revenue = i128::MAX, false, true);
    assert_inconsistent(|event, _| event.inventory.seq = u64::MAX, false, false);
    assert_inconsistent(|_, booking| booking.version = u32::MAX, false, false);
    assert_inconsistent(|event, _| event.inventory.types.clear(), false, false);
    let (world, id) = held();
    assert!(cancel(&world, id, 1).is_err(), "the user's count would fall below 0");
}

#[test]
fn ids_of_new_entities_are_not_taken() {
    let (mut world, id) = held();
    assert!(run(&world, Action::CreateEvent(Box::new(new_event())), 0).is_err());
    let booking = Arc::unwrap_or_clone(world.bookings.remove(&id).unwrap());
    let order = domain::Order {
        event_id: world.event().id,
        booking_id: id,
        user: booking.user.clone(),
        selection: domain::TicketSelection::Quantity(1),
        expected_total: None,
        payment_method: None,
        external_ref: None,
        metadata: domain::Metadata::default(),
    };
    assert!(run(&world, Action::Book(Box::new(order.clone())), 2).is_ok());
    world.bookings.insert(id, Arc::new(booking));
    assert!(run(&world, Action::Book(Box::new(order)), 2).is_err());
}

#[test]
fn tallies_are_added_field_by_field() {
    let tallies = |factor: u64| Tallies {
        pending: factor,
        confirmed: 2 * factor,
        cancelled: 3 * factor,
        expired: 4 * factor,
        revenue: i128::from(5 * factor),
    };
    assert_eq!(tallies(1).plus(tallies(10)), tallies(11));
}
