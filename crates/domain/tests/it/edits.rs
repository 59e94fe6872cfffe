//! Edge cases of the rules for creating and editing events.

use domain::{
    Answer, Currency, EntryKind, EventPatch, EventStatus, LedgerStatus, Money, NewEvent, Refusal,
    TicketTypePatch,
};

use crate::fixture::start;
use crate::invariants;
use crate::world::{World, eur, new_event, new_ticket_type, outcome_code, shifted, ticket_type};

fn patch() -> EventPatch {
    EventPatch::default()
}

fn type_patch(index: u8) -> TicketTypePatch {
    TicketTypePatch { id: ticket_type(index), name: None, price: None, capacity: None }
}

fn dollars(amount: i64) -> Money {
    Money::new(amount, "USD".parse::<Currency>().unwrap()).unwrap()
}

/// The pointers of the errors, in order; empty if there are none.
fn pointers(answer: &Answer) -> Vec<String> {
    match answer {
        Answer::Refused(Refusal::Invalid(errors)) => {
            errors.iter().map(|error| error.pointer.clone()).collect()
        }
        Answer::Booking(_) | Answer::Event(_) | Answer::Refund(_) => Vec::new(),
        Answer::Refused(other) => panic!("another refusal: {other:?}"),
    }
}

#[test]
fn new_events_are_checked_against_bounds() {
    let check = |pointer: &str, edit: &dyn Fn(&mut NewEvent)| {
        let mut new = new_event();
        edit(&mut new);
        let mut world = World::empty();
        let answer = world.create(new);
        let expected: Vec<&str> = Some(pointer).into_iter().filter(|pointer| !pointer.is_empty()).collect();
        assert_eq!(pointers(&answer), expected);
        assert_eq!(world.event.is_some(), expected.is_empty(), "created exactly if there is no error");
        invariants::check(&world);
    };
    let now = World::empty().now;
    check("", &|_| {});
    check("/capacity", &|new| new.capacity = 0);
    check("", &|new| new.capacity = 1);
    check("", &|new| new.capacity = 1_000_000_000);
    check("/capacity", &|new| new.capacity = 1_000_000_001);
    check("/holdSeconds", &|new| new.hold_seconds = 0);
    check("", &|new| new.hold_seconds = 1);
    check("", &|new| new.hold_seconds = 2_592_000);
    check("/holdSeconds", &|new| new.hold_seconds = 2_592_001);
    check("", &|new| new.cancel_cutoff_seconds = 0);
    check("/maxTicketsPerBooking", &|new| new.max_tickets_per_booking = 0);
    check("", &|new| new.max_tickets_per_booking = 1);
    check("/maxTicketsPerUser", &|new| new.max_tickets_per_user = Some(0));
    check("", &|new| new.max_tickets_per_user = Some(1));
    check("/startsAt", &|new| new.starts_at = shifted(now, -1));
    check("", &|new| new.starts_at = shifted(now, 1));
    check("/ticketTypes", &|new| new.ticket_types.clear());
    let kinds = |count: u8| (0..count).map(|index| new_ticket_type(index, 1, None)).collect::<Vec<_>>();
    check("", &|new| new.ticket_types = kinds(50));
    check("/ticketTypes", &|new| new.ticket_types = kinds(51));
    check("", &|new| new.ticket_types = vec![new_ticket_type(0, 0, Some(1))]);
    check("/ticketTypes/0/capacity", &|new| new.ticket_types = vec![new_ticket_type(0, 1, Some(0))]);
    check("/ticketTypes/0/capacity", &|new| {
        new.ticket_types = vec![new_ticket_type(0, 1, Some(1_000_000_001))];
    });
    // The capacity of a type may exceed that of the event, alone or in sum; both limits apply.
    check("", &|new| {
        new.ticket_types = vec![new_ticket_type(0, 1, Some(11)), new_ticket_type(1, 1, Some(10))];
    });
    check("", &|new| new.ticket_types = vec![new_ticket_type(0, 1_000_000_000_000, None)]);
    check("/ticketTypes/0/price/amount", &|new| {
        new.ticket_types = vec![new_ticket_type(0, 1_000_000_000_001, None)];
    });
    check("/ticketTypes/1/price/currency", &|new| {
        new.ticket_types = kinds(2);
        new.ticket_types[1].price = dollars(1);
    });
    let window = |new: &mut NewEvent, micros: i64| {
        (new.sales_start_at, new.sales_end_at) = (Some(now), Some(shifted(now, micros)));
    };
    check("/salesEndAt", &|new| window(new, 0));
    check("", &|new| window(new, 1));
}

#[test]
fn all_invalid_fields_are_reported_at_once() {
    let new = NewEvent { capacity: 0, hold_seconds: 0, starts_at: World::empty().now, ..new_event() };
    assert_eq!(pointers(&World::empty().create(new)), ["/capacity", "/holdSeconds", "/startsAt"]);
}

#[test]
fn capacity_cannot_go_below_held_and_sold() {
    let types = vec![new_ticket_type(0, 1, Some(9)), new_ticket_type(1, 1, None)];
    let check = |edit: EventPatch, expected: Result<u32, u32>| {
        let mut world = World::selling(NewEvent { ticket_types: types.clone(), ..new_event() });
        world.book_and_pay_items(
            "ann",
            domain::TicketSelection::Items(vec![(ticket_type(0), 3), (ticket_type(1), 1)]),
        );
        world.order(
            "bob",
            domain::TicketSelection::Items(vec![(ticket_type(0), 1), (ticket_type(1), 2)]),
            None,
        );
        let (before, entries) = (world.event().clone(), world.ledger.len());
        match (world.edit(edit.clone()), expected) {
            (Answer::Event(event), Ok(capacity)) => {
                assert_eq!(event.inventory.capacity, capacity);
                assert_eq!(*event, *world.event());
            }
            (Answer::Refused(Refusal::CapacityInUse { in_use }), Err(expected)) => {
                assert_eq!((in_use, world.ledger.len()), (expected, entries));
                assert_eq!(*world.event(), before);
            }
            (answer, _) => panic!("{edit:?}: {answer:?}"),
        }
        invariants::check(&world);
    };
    let whole = |capacity| EventPatch { capacity: Some(capacity), ..patch() };
    let part = |index, capacity| {
        let edit = TicketTypePatch { capacity: Some(capacity), ..type_patch(index) };
        EventPatch { ticket_types: vec![edit], ..patch() }
    };
    check(whole(11), Ok(11));
    check(whole(7), Ok(7));
    check(whole(6), Err(7));
    check(part(0, Some(4)), Ok(10));
    check(part(0, Some(3)), Err(4));
    check(part(0, None), Ok(10));
    check(part(1, Some(3)), Ok(10));
    check(part(1, Some(2)), Err(3));
}

#[test]
fn the_limit_per_user_is_only_raised_or_lifted() {
    let check = |before: Option<u32>, after: Option<u32>, allowed: bool| {
        let mut world = World::selling(NewEvent { max_tickets_per_user: before, ..new_event() });
        world.book_and_pay("ann", 2, "t1");
        let answer = world.edit(EventPatch { max_tickets_per_user: Some(after), ..patch() });
        let expected: &[&str] = if allowed { &[] } else { &["/maxTicketsPerUser"] };
        assert_eq!(pointers(&answer), expected, "{before:?} to {after:?}");
        assert_eq!(world.event().details.max_tickets_per_user, if allowed { after } else { before });
        invariants::check(&world);
    };
    check(Some(4), Some(5), true);
    check(Some(4), Some(4), true);
    check(Some(4), Some(3), false);
    check(Some(4), None, true);
    check(None, Some(1_000_000_000), false);
    check(None, None, true);

    let mut world = World::selling(NewEvent { max_tickets_per_user: Some(2), ..new_event() });
    world.book_and_pay("ann", 2, "t1");
    assert_eq!(outcome_code(&world.book("ann", 1)), "booking_limit_exceeded");
    assert_eq!(
        outcome_code(&world.edit(EventPatch { max_tickets_per_user: Some(Some(3)), ..patch() })),
        "ok"
    );
    assert_eq!(outcome_code(&world.book("ann", 2)), "booking_limit_exceeded");
    assert_eq!(outcome_code(&world.book("ann", 1)), "ok");
    assert_eq!(outcome_code(&world.edit(EventPatch { max_tickets_per_user: Some(None), ..patch() })), "ok");
    assert_eq!(outcome_code(&world.book("ann", 7)), "ok");
    invariants::check(&world);
}

#[test]
fn edits_do_not_change_existing_bookings() {
    let mut world = World::selling(new_event());
    let old = world.must_book("ann", 2);
    let before = world.booking(old).clone();
    let kinds = vec![TicketTypePatch { name: Some("renamed".parse().unwrap()), ..type_patch(0) }];
    let edit = EventPatch { price: Some(eur(5000)), ticket_types: kinds, hold_seconds: Some(60), ..patch() };
    assert_eq!(outcome_code(&world.edit(edit)), "ok");
    assert_eq!(*world.booking(old), before);
    let new = world.must_book("bob", 2);
    assert_eq!(world.booking(new).total, eur(10_000));
    assert_eq!(world.booking(new).items[0].name.as_str(), "renamed");
    assert_eq!(world.booking(new).hold_expires_at, shifted(world.now, 60_000_000));
    assert_eq!(outcome_code(&world.confirm(old, "t1", Some(eur(9000)))), "ok");
    assert_eq!(outcome_code(&world.cancel(crate::world::service(), old)), "ok");
    assert_eq!(world.refunds.values().next().unwrap().amount, eur(9000));
    invariants::check(&world);
}

#[test]
fn a_patch_is_checked_against_its_event() {
    let check = |kinds: u8, edit: EventPatch, expected: &[&str]| {
        let ticket_types = (0..kinds).map(|index| new_ticket_type(index, 1, None)).collect();
        let mut world = World::selling(NewEvent { ticket_types, ..new_event() });
        let entries = world.ledger.len();
        assert_eq!(pointers(&world.edit(edit)), expected);
        assert_eq!(world.ledger.len() == entries, !expected.is_empty(), "written exactly if allowed");
        invariants::check(&world);
    };
    let price = |price| EventPatch { price: Some(price), ..patch() };
    let kind_edit = |edit| EventPatch { ticket_types: vec![edit], ..patch() };
    check(1, price(eur(2)), &[]);
    check(2, price(eur(2)), &["/price"]);
    check(2, kind_edit(TicketTypePatch { price: Some(eur(2)), ..type_patch(1) }), &[]);
    check(2, kind_edit(TicketTypePatch { price: Some(eur(2)), ..type_patch(2) }), &["/ticketTypes/0/id"]);
    let twice = |first, second| {
        let rename = |index| TicketTypePatch { name: Some("new".parse().unwrap()), ..type_patch(index) };
        EventPatch { ticket_types: vec![rename(first), rename(second)], ..patch() }
    };
    check(2, twice(0, 1), &[]);
    check(2, twice(1, 1), &["/ticketTypes/1/id"]);
    check(
        2,
        kind_edit(TicketTypePatch { price: Some(eur(1_000_000_000_001)), ..type_patch(1) }),
        &["/ticketTypes/0/price/amount"],
    );
    check(1, EventPatch { capacity: Some(0), ..patch() }, &["/capacity"]);
    let now = World::empty().now;
    check(1, EventPatch { starts_at: Some(now), ..patch() }, &["/startsAt"]);
    check(1, EventPatch { starts_at: Some(shifted(now, 1)), ..patch() }, &[]);
    let window =
        |end| EventPatch { sales_start_at: Some(Some(now)), sales_end_at: Some(Some(end)), ..patch() };
    check(1, window(now), &["/salesEndAt"]);
    check(1, window(shifted(now, 1)), &[]);
    // The currency of an event cannot be changed; here only the refusal matters.
    let mut world = World::selling(new_event());
    assert_eq!(outcome_code(&world.edit(price(dollars(4500)))), "validation_failed");
}

#[test]
fn an_edit_that_changes_nothing_writes_nothing() {
    let check = |edit: EventPatch| {
        let mut world = World::selling(new_event());
        world.must_book("ann", 1);
        let (before, entries) = (world.event().clone(), world.ledger.len());
        world.wait(60);
        let answer = world.edit(edit);
        assert_eq!(answer, Answer::Event(Box::new(before.clone())));
        assert_eq!((world.event(), world.ledger.len()), (&before, entries));
    };
    check(patch());
    check(EventPatch { if_match: Some(1), ..patch() });
    check(EventPatch { status: Some(EventStatus::OnSale), capacity: Some(10), ..patch() });
    check(EventPatch { price: Some(eur(4500)), ticket_types: vec![type_patch(0)], ..patch() });
    check(EventPatch { sales_start_at: Some(None), max_tickets_per_user: Some(None), ..patch() });
    check(EventPatch { starts_at: Some(start()), name: Some("Concert".parse().unwrap()), ..patch() });
}

#[test]
fn if_match_must_name_the_current_version() {
    let check = |if_match: Option<u32>, expected: &str| {
        let mut world = World::selling(new_event());
        assert_eq!(outcome_code(&world.edit(EventPatch { capacity: Some(11), ..patch() })), "ok");
        world.book_and_pay("ann", 1, "t1");
        assert_eq!(world.event().details.version, 2, "sales do not count");
        let answer = world.edit(EventPatch { if_match, capacity: Some(12), ..patch() });
        assert_eq!(outcome_code(&answer), expected, "{if_match:?}");
        assert_eq!(world.event().details.version, if expected == "ok" { 3 } else { 2 });
        if let Answer::Refused(refusal) = answer {
            assert_eq!(refusal, Refusal::VersionMismatch { current: 2 });
        }
    };
    check(None, "ok");
    check(Some(2), "ok");
    check(Some(1), "version_mismatch");
    check(Some(3), "version_mismatch");
}

#[test]
fn a_cancelled_event_refuses_every_edit() {
    let mut world = World::selling(new_event());
    world.must_book("ann", 1);
    assert_eq!(
        outcome_code(&world.edit(EventPatch { status: Some(EventStatus::Cancelled), ..patch() })),
        "ok"
    );
    let (before, entries) = (world.event().clone(), world.ledger.len());
    let edits = [
        patch(),
        EventPatch { status: Some(EventStatus::OnSale), ..patch() },
        EventPatch { status: Some(EventStatus::Paused), ..patch() },
        EventPatch { status: Some(EventStatus::Cancelled), ..patch() },
        EventPatch { capacity: Some(11), ..patch() },
        EventPatch { if_match: Some(2), name: Some("Other".parse().unwrap()), ..patch() },
    ];
    for edit in edits {
        assert_eq!(outcome_code(&world.edit(edit)), "event_cancelled");
    }
    assert_eq!((world.event(), world.ledger.len()), (&before, entries));
    invariants::check(&world);
}

#[test]
fn the_ledger_records_what_an_edit_changed() {
    let check = |edit: EventPatch, entry_kind, quantity, transition: Option<(LedgerStatus, LedgerStatus)>| {
        let mut world = World::selling(new_event());
        assert_eq!(outcome_code(&world.edit(edit)), "ok");
        let entry = world.ledger.last().unwrap();
        assert_eq!((entry.kind.known(), entry.quantity), (Some(entry_kind), quantity));
        assert_eq!(entry.from.zip(entry.to), transition);
        assert_eq!(world.event().details.updated_at, entry.at);
        invariants::check(&world);
    };
    let to = |status| EventPatch { status: Some(status), ..patch() };
    check(EventPatch { capacity: Some(12), ..patch() }, EntryKind::EventUpdated, 2, None);
    check(EventPatch { capacity: Some(7), ..patch() }, EntryKind::EventUpdated, 3, None);
    let pause = Some((LedgerStatus::OnSale, LedgerStatus::Paused));
    check(to(EventStatus::Paused), EntryKind::EventUpdated, 0, pause);
    let cancel = Some((LedgerStatus::OnSale, LedgerStatus::Cancelled));
    check(to(EventStatus::Cancelled), EntryKind::EventCancelled, 0, cancel);
}

#[test]
fn an_event_is_created_once_and_found_by_its_id() {
    let mut world = World::empty();
    assert_eq!(outcome_code(&world.edit(patch())), "not_found");
    assert_eq!(outcome_code(&world.book("ann", 1)), "not_found");
    assert_eq!(outcome_code(&world.create(new_event())), "ok");
    let entry = &world.ledger[0];
    assert_eq!((entry.seq, entry.kind.known(), entry.quantity), (1, Some(EntryKind::EventCreated), 10));
    assert_eq!((entry.from, entry.to, entry.available_after), (None, Some(LedgerStatus::OnSale), 10));
    assert_eq!(world.event().details.version, 1);
}
