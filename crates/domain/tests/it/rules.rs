//! Edge cases of the booking rules: the order of the refusals, and the exact bounds.

use std::collections::BTreeMap;

use domain::{
    Actor, Answer, Booking, BookingId, EventPatch, EventStatus, NewEvent, PaymentStatus, Refusal, State,
    TicketSelection,
};

use crate::fixture::start;
use crate::invariants;
use crate::world::{
    World, admin, at, eur, named_refund, new_event, new_ticket_type, outcome_code, service, shifted,
    ticket_type, user,
};

/// Two ticket types, each of which could use most of the event: 6 + 6 in an event of 8.
fn two_kinds() -> NewEvent {
    let ticket_types = vec![new_ticket_type(0, 4500, Some(6)), new_ticket_type(1, 9000, Some(6))];
    NewEvent { capacity: 8, ticket_types, ..new_event() }
}

fn items(first: u32, second: u32) -> TicketSelection {
    let requested = [(ticket_type(0), first), (ticket_type(1), second)];
    TicketSelection::Items(requested.into_iter().filter(|(_, quantity)| *quantity > 0).collect())
}

fn refusal(answer: Answer) -> Refusal {
    match answer {
        Answer::Refused(refusal) => refusal,
        Answer::Booking(_) | Answer::Event(_) | Answer::Refund(_) => panic!("not refused: {answer:?}"),
    }
}

fn booking_of(answer: &Answer) -> &Booking {
    match answer {
        Answer::Booking(booking) => booking,
        Answer::Event(_) | Answer::Refund(_) | Answer::Refused(_) => panic!("no booking: {answer:?}"),
    }
}

#[test]
fn sales_open_and_close_to_the_microsecond() {
    let (open, close) = (at("2030-02-01T10:00:00Z"), at("2030-03-01T10:00:00Z"));
    let check = |now, expected: &str| {
        let new = NewEvent { sales_start_at: Some(open), sales_end_at: Some(close), ..new_event() };
        let mut world = World::selling(new);
        world.now = now;
        assert_eq!(outcome_code(&world.book("ann", 1)), expected, "{now}");
    };
    check(shifted(open, -1), "sales_not_open");
    check(open, "ok");
    check(shifted(close, -1), "ok");
    check(close, "sales_closed");
    check(shifted(start(), -1), "sales_closed");
    check(start(), "event_started");

    let mut world = World::selling(new_event());
    world.now = shifted(start(), -1);
    assert_eq!(outcome_code(&world.book("ann", 1)), "ok", "without a window, sales last until the start");
    world.now = start();
    assert_eq!(outcome_code(&world.book("ann", 1)), "event_started");

    let mut world = World::selling(NewEvent { sales_start_at: Some(open), ..new_event() });
    assert_eq!(refusal(world.book("ann", 1)), Refusal::SalesNotOpen(open), "contains the start of sales");
}

#[test]
fn users_may_cancel_until_the_cut_off_inclusive() {
    let until = shifted(start(), -86_400_000_000);
    let check = |actor: Actor, now, expected: &str| {
        let mut world = World::selling(new_event());
        let id = world.book_and_pay("ann", 1, "t1");
        world.now = now;
        let answer = world.cancel(actor, id);
        assert_eq!(outcome_code(&answer), expected, "{now}");
        if let Answer::Refused(Refusal::CancelCutoffPassed { until: stated, .. }) = answer {
            assert_eq!(stated, until);
        }
        invariants::check(&world);
    };
    let ann = || Actor::User(user("ann"));
    check(ann(), shifted(until, -1), "ok");
    check(ann(), until, "ok");
    check(ann(), shifted(until, 1), "cancel_cutoff_passed");
    check(ann(), shifted(start(), 1), "cancel_cutoff_passed");
    // A service or an organiser may cancel at any time, even if their id equals the owner's.
    check(service(), shifted(start(), 1), "ok");
    check(Actor::Service(user("ann")), shifted(until, 1), "ok");
    check(admin(), shifted(start(), 1), "ok");
    check(Actor::System, shifted(start(), 1), "ok");
    // Ownership is compared exactly: another user gets the same refusal before and after the cut-off.
    check(Actor::User(user("Ann")), until, "not_found");
    check(Actor::User(user("bob")), shifted(start(), 1), "not_found");
}

#[test]
fn a_hold_is_overdue_from_its_expiry_on() {
    let check = |micros: i64, expected: &str| {
        let mut world = World::selling(new_event());
        let id = world.must_book("ann", 1);
        let until = world.booking(id).hold_expires_at;
        assert_eq!(until, shifted(world.now, 3_600_000_000));
        world.now = shifted(until, micros);
        assert_eq!(outcome_code(&world.expire(id)), expected, "{micros}");
    };
    check(-1, "invalid_state");
    check(0, "ok");
    check(1, "ok");
}

#[test]
fn an_order_must_name_tickets_that_can_be_sold() {
    let check = |new: NewEvent, selection: TicketSelection, expected: &str| {
        let mut world = World::selling(new);
        assert_eq!(outcome_code(&world.order("ann", selection.clone(), None)), expected, "{selection:?}");
        invariants::check(&world);
    };
    check(new_event(), TicketSelection::Quantity(0), "validation_failed");
    check(new_event(), TicketSelection::Quantity(1), "ok");
    check(new_event(), TicketSelection::Quantity(10), "ok");
    check(new_event(), TicketSelection::Quantity(11), "booking_limit_exceeded");
    check(new_event(), TicketSelection::Quantity(u32::MAX), "booking_limit_exceeded");
    check(new_event(), TicketSelection::Items(vec![(ticket_type(0), 1)]), "ok");
    check(new_event(), TicketSelection::Items(vec![]), "validation_failed");
    check(new_event(), TicketSelection::Items(vec![(ticket_type(7), 1)]), "validation_failed");
    check(two_kinds(), TicketSelection::Quantity(1), "validation_failed");
    check(two_kinds(), TicketSelection::Items(vec![(ticket_type(0), 0)]), "validation_failed");
    check(
        two_kinds(),
        TicketSelection::Items(vec![(ticket_type(0), 1), (ticket_type(1), 0)]),
        "validation_failed",
    );
    check(
        two_kinds(),
        TicketSelection::Items(vec![(ticket_type(0), 1), (ticket_type(0), 1)]),
        "validation_failed",
    );
    check(two_kinds(), TicketSelection::Items(vec![(ticket_type(1), 1), (ticket_type(0), 1)]), "ok");
    check(
        two_kinds(),
        TicketSelection::Items(vec![(ticket_type(0), u32::MAX), (ticket_type(1), u32::MAX)]),
        "booking_limit_exceeded",
    );
    // The limit counts the tickets of all types.
    let five = NewEvent { max_tickets_per_booking: 5, ..two_kinds() };
    check(five.clone(), items(3, 2), "ok");
    check(five, items(3, 3), "booking_limit_exceeded");
    // A total that a JSON parser could not represent is refused, and does not overflow.
    let expensive = NewEvent {
        capacity: 1_000_000,
        max_tickets_per_booking: 1_000_000,
        ticket_types: vec![new_ticket_type(0, 1_000_000_000_000, None)],
        ..new_event()
    };
    check(expensive.clone(), TicketSelection::Quantity(9_007), "ok");
    check(expensive, TicketSelection::Quantity(9_008), "validation_failed");
}

#[test]
fn totals_are_computed_by_the_server() {
    let check = |selection: TicketSelection, expected_total: Option<i64>, total: Option<i64>| {
        let mut world = World::selling(two_kinds());
        let answer = world.order("ann", selection.clone(), expected_total.map(eur));
        match total {
            Some(total) => assert_eq!(booking_of(&answer).total, eur(total), "{selection:?}"),
            None => assert_eq!(outcome_code(&answer), "amount_mismatch", "{selection:?}"),
        }
    };
    check(items(2, 1), None, Some(18_000));
    check(items(2, 1), Some(18_000), Some(18_000));
    check(items(2, 1), Some(17_999), None);
    check(items(2, 1), Some(18_001), None);

    let mut world = World::selling(new_event());
    let dollars = domain::Money::new(4500, "USD".parse().unwrap()).unwrap();
    let answer = world.order("ann", TicketSelection::Quantity(1), Some(dollars));
    assert_eq!(refusal(answer), Refusal::AmountMismatch { expected: eur(4500) }, "4500 of another currency");

    let id = world.must_book("ann", 2);
    for amount in [Some(eur(8999)), Some(eur(9001)), Some(dollars)] {
        let answer = world.confirm(id, "t1", amount);
        assert_eq!(refusal(answer), Refusal::AmountMismatch { expected: eur(9000) });
    }
    assert_eq!(
        outcome_code(&world.confirm(id, "t1", Some(eur(9000)))),
        "ok",
        "nothing was recorded against t1"
    );
    assert_eq!(outcome_code(&world.confirm(id, "t1", Some(eur(1)))), "amount_mismatch", "also if repeated");
    invariants::check(&world);
}

#[test]
fn a_booking_that_costs_nothing_needs_confirmation() {
    let mut world =
        World::selling(NewEvent { ticket_types: vec![new_ticket_type(0, 0, None)], ..new_event() });
    let id = world.must_book("ann", 2);
    assert_eq!(world.booking(id).payment_status(), PaymentStatus::Pending);
    assert_eq!(outcome_code(&world.confirm(id, "t1", Some(eur(0)))), "ok");
    assert_eq!(world.booking(id).payment_status(), PaymentStatus::Paid);
    invariants::check(&world);
}

#[test]
fn all_tickets_or_none_of_every_type_and_of_the_event() {
    let check = |taken: (u32, u32), requested: (u32, u32), expected: Option<Refusal>| {
        let mut world = World::selling(two_kinds());
        if taken != (0, 0) {
            let answer = world.order("bob", items(taken.0, taken.1), None);
            let id = booking_of(&answer).id;
            assert_eq!(outcome_code(&world.pay(id, "t")), "ok");
        }
        let before = world.event().inventory.clone();
        let answer = world.order("ann", items(requested.0, requested.1), None);
        match expected {
            None => assert_eq!(outcome_code(&answer), "ok", "{taken:?} {requested:?}"),
            Some(expected) => {
                assert_eq!(refusal(answer), expected, "{taken:?} {requested:?}");
                assert_eq!(world.event().inventory, before, "no ticket was reserved");
            }
        }
        invariants::check(&world);
    };
    let sold_out = |requested, ticket_type| Some(Refusal::SoldOut { requested, ticket_type });
    let short = |requested, available, ticket_type| {
        Some(Refusal::InsufficientAvailability { requested, available, ticket_type })
    };
    check((0, 0), (6, 2), None);
    check((0, 0), (7, 0), short(7, 6, Some(ticket_type(0))));
    check((0, 0), (6, 4), short(10, 8, None));
    check((6, 0), (0, 2), None);
    check((6, 0), (1, 0), sold_out(1, Some(ticket_type(0))));
    check((6, 0), (0, 3), short(3, 2, Some(ticket_type(1))));
    check((6, 0), (1, 1), sold_out(1, Some(ticket_type(0))));
    check((5, 2), (1, 0), None);
    check((5, 2), (1, 1), short(2, 1, None));
    check((5, 3), (1, 0), sold_out(1, Some(ticket_type(0))));
    check((5, 3), (0, 1), sold_out(1, Some(ticket_type(1))));
}

#[test]
fn the_user_limit_counts_pending_and_confirmed_tickets() {
    let limited = || NewEvent { max_tickets_per_user: Some(4), ..new_event() };
    let check = |prepare: fn(&mut World), quantity: u32, expected: &str| {
        let mut world = World::selling(limited());
        prepare(&mut world);
        assert_eq!(outcome_code(&world.book("ann", quantity)), expected);
        invariants::check(&world);
    };
    check(|_| {}, 4, "ok");
    check(|_| {}, 5, "booking_limit_exceeded");
    let both: fn(&mut World) = |world| {
        world.must_book("ann", 1);
        world.book_and_pay("ann", 2, "t1");
        world.book_and_pay("bob", 4, "t1");
    };
    check(both, 1, "ok");
    check(both, 2, "booking_limit_exceeded");
    let cancelled: fn(&mut World) = |world| {
        let (first, second) = (world.book_and_pay("ann", 2, "t1"), world.must_book("ann", 2));
        for id in [first, second] {
            assert_eq!(outcome_code(&world.cancel(Actor::User(user("ann")), id)), "ok");
        }
    };
    check(cancelled, 4, "ok");
    // The limit is that of the owner of the booking, not of the caller.
    let mut world = World::selling(limited());
    world.book_and_pay("ann", 4, "t1");
    assert_eq!(outcome_code(&world.book("bob", 4)), "ok");
}

#[test]
fn overdue_holds_are_freed_before_anything_is_refused() {
    let world = |new: NewEvent, holds: &[(&str, u32, u32)]| {
        let mut world = World::selling(new);
        let ids: Vec<BookingId> = holds
            .iter()
            .map(|(name, first, second)| {
                world.wait(1);
                booking_of(&world.order(name, items(*first, *second), None)).id
            })
            .collect();
        world.wait(3600);
        (world, ids)
    };
    let check = |(mut world, ids): (World, Vec<BookingId>), requested: (u32, u32), freed: &[usize]| {
        assert_eq!(outcome_code(&world.order("ann", items(requested.0, requested.1), None)), "ok");
        let expected: Vec<BookingId> = freed.iter().map(|index| ids[*index]).collect();
        assert_eq!(world.freed, expected, "the freed holds: oldest first, and no more than needed");
        invariants::check(&world);
    };
    // No ticket is missing, so nothing is freed.
    check(world(two_kinds(), &[("bob", 2, 0)]), (2, 0), &[]);
    // The event is full: any hold helps, the oldest first.
    check(world(two_kinds(), &[("bob", 0, 3), ("cyd", 3, 0), ("dan", 2, 0)]), (1, 0), &[0]);
    check(world(two_kinds(), &[("bob", 0, 3), ("cyd", 3, 0), ("dan", 2, 0)]), (1, 3), &[0, 1]);
    // Only the ticket type is full: a hold of the other type would not help.
    check(world(two_kinds(), &[("bob", 0, 1), ("cyd", 6, 0)]), (1, 0), &[1]);
    // First the event is full, then the ticket type still is.
    check(world(two_kinds(), &[("bob", 0, 2), ("cyd", 6, 0)]), (2, 0), &[0, 1]);
    // The user's own overdue holds count until they are freed.
    let limited = || NewEvent { max_tickets_per_user: Some(4), ..two_kinds() };
    check(world(limited(), &[("bob", 1, 0), ("ann", 0, 2), ("ann", 1, 0)]), (2, 1), &[1]);
    check(world(limited(), &[("bob", 1, 0), ("ann", 0, 2), ("ann", 1, 0)]), (2, 2), &[1, 2]);

    // Holds are freed although it is not enough; the refusal contains the number of tickets that are then
    // left.
    let (mut world, ids) = world(two_kinds(), &[("bob", 3, 0), ("cyd", 0, 2)]);
    world.book_and_pay_items("dan", items(3, 0));
    let answer = world.order("ann", items(4, 0), None);
    let expected =
        Refusal::InsufficientAvailability { requested: 4, available: 3, ticket_type: Some(ticket_type(0)) };
    assert_eq!(refusal(answer), expected);
    assert_eq!(world.freed.first(), Some(&ids[0]));
    invariants::check(&world);
}

#[test]
fn a_late_payment_frees_overdue_holds_before_it_is_refused() {
    let check = |limit: Option<u32>, other_hold: (&str, u32)| {
        let mut world = World::selling(NewEvent { max_tickets_per_user: limit, ..new_event() });
        let late = world.must_book("ann", 2);
        world.wait(3600);
        assert_eq!(outcome_code(&world.expire(late)), "ok");
        let hold = world.must_book(other_hold.0, other_hold.1);
        let mut early = world.clone();
        assert_eq!(outcome_code(&early.pay(late, "t1")), "hold_expired", "the hold is not overdue yet");
        assert_eq!(early.freed, []);
        world.wait(3600);
        assert_eq!(outcome_code(&world.pay(late, "t1")), "ok");
        assert_eq!(world.freed, [hold]);
        invariants::check(&world);
        invariants::check(&early);
    };
    check(None, ("bob", 10));
    check(Some(2), ("ann", 2));
}

#[test]
fn only_one_of_two_late_payments_gets_the_last_ticket() {
    let mut world = World::selling(NewEvent { capacity: 1, ..new_event() });
    let first = world.must_book("ann", 1);
    world.wait(3600);
    let second = world.must_book("bob", 1);
    world.wait(3600);
    assert_eq!(outcome_code(&world.expire(second)), "ok");
    assert_eq!(outcome_code(&world.pay(first, "t1")), "ok");
    let answer = world.pay(second, "t1");
    assert_eq!(outcome_code(&answer), "hold_expired");
    let refund = named_refund(&answer).unwrap().clone();
    // The ticket is available again, but a refunded payment stays refunded; a new payment may still buy it.
    assert_eq!(outcome_code(&world.cancel(service(), first)), "ok");
    let again = world.pay(second, "t1");
    assert_eq!((outcome_code(&again), named_refund(&again)), ("hold_expired", Some(&refund)));
    assert_eq!(outcome_code(&world.pay(second, "t2")), "ok");
    let again = world.pay(second, "t1");
    assert_eq!((outcome_code(&again), named_refund(&again)), ("hold_expired", Some(&refund)));
    invariants::check(&world);
}

#[test]
fn one_transaction_may_pay_several_bookings() {
    let mut world = World::selling(new_event());
    let (first, second) = (world.book_and_pay("ann", 1, "t1"), world.book_and_pay("ann", 2, "t1"));
    assert_eq!(outcome_code(&world.cancel(service(), first)), "ok");
    assert_eq!(outcome_code(&world.pay(first, "t1")), "invalid_state");
    assert_eq!(outcome_code(&world.pay(second, "t1")), "ok", "the other booking stays paid");
    assert_eq!(outcome_code(&world.cancel(service(), second)), "ok");
    assert_eq!(world.refunds.len(), 2);
    invariants::check(&world);
}

#[test]
fn the_ledger_stays_in_order_when_the_clock_steps_back() {
    let mut world = World::selling(new_event());
    let ids = world.now;
    world.wait(-86_400);
    let id = world.must_book("ann", 1);
    assert_eq!(outcome_code(&world.pay(id, "t1")), "ok");
    assert_eq!(outcome_code(&world.cancel(service(), id)), "ok");
    assert!(world.ledger.iter().all(|entry| entry.at == ids), "dated like the previous entry");
    invariants::check(&world);
}

#[test]
fn r2_one_write_under_a_wrong_clock_shifts_no_later_deadline() {
    const DAY: i64 = 86_400;
    let right = World::empty().now;
    let mut world = World::selling(NewEvent {
        starts_at: shifted(right, 10 * DAY * 1_000_000),
        sales_end_at: Some(shifted(right, 9 * DAY * 1_000_000)),
        ..new_event()
    });
    let paid = world.book_and_pay("ann", 1, "t1");
    world.wait(30 * DAY);
    assert_eq!(outcome_code(&world.edit(EventPatch { capacity: Some(11), ..EventPatch::default() })), "ok");
    assert_eq!(outcome_code(&world.book("ann", 1)), "event_started", "according to the wrong clock");

    world.now = right;
    let id = world.must_book("ann", 1);
    assert_eq!(world.booking(id).created_at, right);
    assert_eq!(world.booking(id).hold_expires_at, shifted(right, 3_600_000_000));
    assert_eq!(outcome_code(&world.expire(id)), "invalid_state", "not overdue");
    assert_eq!(outcome_code(&world.cancel(Actor::User(user("ann")), paid)), "ok", "before the cut-off");
    world.now = shifted(right, 3_600_000_000);
    assert_eq!(outcome_code(&world.expire(id)), "ok");
    assert_eq!(world.ledger.last().unwrap().at, shifted(right, 30 * DAY * 1_000_000));
    invariants::check(&world);
}

#[test]
fn r2_sales_open_by_the_clock_and_not_by_the_ledger() {
    let opens = shifted(World::empty().now, 86_400_000_000);
    let mut world = World::selling(NewEvent { sales_start_at: Some(opens), ..new_event() });
    world.wait(30 * 86_400);
    assert_eq!(outcome_code(&world.book("ann", 1)), "ok");
    world.wait(-30 * 86_400);
    assert_eq!(outcome_code(&world.book("ben", 1)), "sales_not_open");
    world.now = opens;
    assert_eq!(outcome_code(&world.book("ben", 1)), "ok");
    invariants::check(&world);
}

/// An exhaustive match, so that the compiler reports a new refusal here.
fn number(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::NotFound(_) => 0,
        Refusal::Invalid(_) => 1,
        Refusal::SoldOut { .. } => 2,
        Refusal::InsufficientAvailability { .. } => 3,
        Refusal::SalesNotOpen(_) => 4,
        Refusal::SalesClosed => 5,
        Refusal::EventStarted => 6,
        Refusal::EventPaused => 7,
        Refusal::EventCancelled { .. } => 8,
        Refusal::HoldExpired { .. } => 9,
        Refusal::InvalidState { .. } => 10,
        Refusal::CancelCutoffPassed { .. } => 11,
        Refusal::CapacityInUse { .. } => 12,
        Refusal::VersionMismatch { .. } => 13,
        Refusal::AmountMismatch { .. } => 14,
        Refusal::BookingLimitExceeded { .. } => 15,
        Refusal::ExternalRefInUse => 16,
    }
}

#[test]
fn every_refusal_is_reached() {
    let mut reached = BTreeMap::new();
    let mut record = |answer| {
        let refusal = refusal(answer);
        reached.insert(number(&refusal), refusal);
    };
    let patch = EventPatch::default;
    record(World::empty().book("ann", 1));
    let new = NewEvent { sales_start_at: Some(at("2030-01-02T00:00:00Z")), ..new_event() };
    record(World::selling(new).book("ann", 1));
    let mut world = World::selling(new_event());
    record(world.book("ann", 0));
    record(world.book("ann", 11));
    record(world.order("ann", TicketSelection::Quantity(1), Some(eur(1))));
    record(world.edit(EventPatch { if_match: Some(2), ..patch() }));
    let mut other = World::selling(new_event());
    assert_eq!(outcome_code(&other.book_with_reference("ann", "order 1")), "ok");
    assert_eq!(outcome_code(&other.book_with_reference("ann", "order 2")), "ok");
    record(other.book_with_reference("ben", "order 1"));
    let late = world.must_book("ann", 4);
    world.wait(3600);
    assert_eq!(outcome_code(&world.expire(late)), "ok");
    let id = world.book_and_pay("ann", 7, "t1");
    record(world.book("ann", 4));
    record(world.edit(EventPatch { capacity: Some(6), ..patch() }));
    record(world.pay(id, "t2"));
    record(world.pay(late, "t2"));
    world.book_and_pay("ann", 3, "t1");
    record(world.book("ann", 1));
    assert_eq!(outcome_code(&world.edit(EventPatch { status: Some(EventStatus::Paused), ..patch() })), "ok");
    record(world.book("ann", 1));
    let ends = EventPatch { sales_end_at: Some(Some(world.now)), ..patch() };
    assert_eq!(outcome_code(&world.edit(ends)), "ok");
    record(world.book("ann", 1));
    world.now = start();
    record(world.book("ann", 1));
    record(world.cancel(Actor::User(user("ann")), id));
    assert_eq!(
        outcome_code(&world.edit(EventPatch { status: Some(EventStatus::Cancelled), ..patch() })),
        "ok"
    );
    record(world.book("ann", 1));
    assert_eq!(reached.keys().copied().collect::<Vec<_>>(), (0..17).collect::<Vec<_>>());
    let codes: std::collections::BTreeSet<_> = reached.values().map(Refusal::code).collect();
    assert_eq!(codes.len(), reached.len(), "every refusal has its own code");
    assert!(matches!(world.booking(id).state, State::Confirmed(_)));
    invariants::check(&world);
}
