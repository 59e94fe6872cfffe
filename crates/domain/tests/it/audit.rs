//! Tests of the audit, with consistent data and with data in which one value or row was changed.

use domain::{
    Audit, Booking, BookingId, Entry, EntryKind, EventId, Inventory, Item, Items, LedgerStatus, Money,
    Refund, RefundId, RefundStatus, State, TicketSelection, Timestamp,
};

use crate::rows::{BookingIds, Rows, populated};
use crate::world::{World, new_event, outcome_code, payment, shifted, ticket_type, user};

/// Applies one edit to the rows and checks that the audit reports a violation that contains `text`.
fn assert_violation(text: &str, edit: impl Fn(&mut Rows, &BookingIds)) {
    let (mut rows, ids) = populated();
    edit(&mut rows, &ids);
    let violations = rows.report().violations;
    assert!(
        violations.iter().any(|line| line.contains(text)),
        "no violation contains “{text}”: {violations:#?}"
    );
}

#[test]
fn the_ledger_is_numbered_and_dated() {
    assert_violation("the ledger should continue with entry 6", |rows, _| drop(rows.entries.remove(5)));
    assert_violation("the ledger should continue with entry 1", |rows, _| drop(rows.entries.remove(0)));
    assert_violation("the ledger should continue with entry 7", |rows, _| {
        rows.entries.insert(5, rows.entries[5].clone());
    });
    assert_violation("the ledger should continue with entry 5", |rows, _| rows.entries.swap(4, 5));
    assert_violation("seq is stored as", |rows, _| drop(rows.entries.pop()));
    assert_violation("is dated before the previous entry", |rows, _| {
        rows.entries[4].at = Timestamp::from_micros(0).unwrap();
    });
}

#[test]
fn every_entry_accounts_for_available_tickets() {
    let kinds = [
        EntryKind::EventCreated,
        EntryKind::EventUpdated,
        EntryKind::BookingCreated,
        EntryKind::BookingConfirmed,
        EntryKind::BookingCancelled,
        EntryKind::BookingExpired,
        EntryKind::RefundRequested,
        EntryKind::RefundSettled,
    ];
    for kind in kinds {
        assert_violation("tickets after", |rows, _| rows.entry(kind).available_after += 1);
        assert_violation("tickets after", |rows, _| rows.entry(kind).available_after = 0);
    }
    assert_violation("tickets after", |rows, _| rows.entry(EntryKind::EventUpdated).quantity += 1);
    assert_violation("its lines move 3 tickets, not 4", |rows, _| {
        rows.entry(EntryKind::BookingCreated).quantity += 1;
    });
    assert_violation("its lines move 0 tickets, not 1", |rows, _| {
        rows.entry(EntryKind::RefundSettled).quantity += 1;
    });
    assert_violation("its lines move 1 tickets, not 3", |rows, _| {
        rows.entry(EntryKind::BookingExpired).lines.truncate(1);
    });
    assert_violation("moves other tickets than it booked", |rows, _| {
        rows.entry(EntryKind::BookingConfirmed).lines.swap(0, 1);
    });
}

#[test]
fn the_entries_of_a_booking_form_a_valid_path() {
    for kind in [EntryKind::BookingConfirmed, EntryKind::RefundRequested, EntryKind::RefundSettled] {
        assert_violation("as its previous entry, not", |rows, _| rows.entry(kind).previous_seq = None);
        assert_violation("as its previous entry, not", |rows, _| rows.entry(kind).previous_seq = Some(1));
    }
    assert_violation("as its previous entry, not None", |rows, _| {
        rows.entry(EntryKind::BookingCreated).previous_seq = Some(1);
    });
    let kinds = [EntryKind::BookingConfirmed, EntryKind::BookingCancelled, EntryKind::BookingExpired];
    for kind in kinds {
        assert_violation("does not follow on", |rows, _| {
            rows.entry(kind).from = Some(LedgerStatus::Confirmed);
        });
        for other in [EntryKind::BookingCreated, EntryKind::EventUpdated] {
            assert_violation("does not follow on", |rows, _| rows.entry(kind).kind = other.into());
        }
    }
    assert_violation("booking.created does not follow on", |rows, _| {
        rows.entry(EntryKind::BookingCreated).from = Some(LedgerStatus::Pending);
    });
    assert_violation("refund.requested does not follow on None", |rows, _| {
        rows.entry(EntryKind::RefundRequested).booking_id = Some(BookingId::from_bytes([99; 16]));
    });
    assert_violation("is in the ledger, but there is no such refund", |rows, _| {
        let refund = rows.refund("late").id;
        let last = rows.entries.iter_mut().rfind(|entry| entry.kind == EntryKind::RefundRequested);
        last.unwrap().refund_id = Some(refund);
    });
}

#[test]
fn a_booking_row_matches_its_last_entry() {
    assert_violation("is confirmed, but its ledger has pending", |rows, ids| {
        rows.booking(ids.held).state = rows.booking(ids.paid).state.clone();
    });
    assert_violation("is pending, but its ledger has confirmed", |rows, ids| {
        rows.booking(ids.paid).state = State::Pending;
    });
    assert_violation("is pending, but its ledger has expired", |rows, ids| {
        rows.booking(ids.expired).state = State::Pending;
    });
    assert_violation("is expired, but its ledger has cancelled", |rows, ids| {
        rows.booking(ids.unpaid).state = rows.booking(ids.expired).state.clone();
    });
    assert_violation("expired before its hold ended", |rows, ids| {
        let booking = rows.booking(ids.expired);
        let at = shifted(booking.hold_expires_at, -1);
        booking.state = State::Expired { at };
    });
    let other_items = |items: &Items, edit: fn(&mut Vec<domain::Item>)| {
        let mut items = items.to_vec();
        edit(&mut items);
        Items::new(items).unwrap()
    };
    assert_violation("is pending, but its ledger has pending", |rows, ids| {
        let booking = rows.booking(ids.held);
        booking.items = other_items(&booking.items, |items| items[0].quantity += 1);
    });
    assert_violation("is not a ticket type of its event", |rows, ids| {
        let booking = rows.booking(ids.held);
        booking.items = other_items(&booking.items, |items| items[0].ticket_type = ticket_type(7));
    });
    assert_violation("has a ledger but no row", |rows, ids| {
        rows.bookings.retain(|booking| booking.id != ids.held);
    });
    assert_violation("names entry 0 as its last, but that is 8", |rows, ids| {
        rows.booking(ids.held).last_seq = 0;
    });
    assert_violation("as its last, but that is", |rows, ids| {
        let of_booking = |entry: &&Entry| entry.booking_id == Some(ids.paid);
        let last_but_one = rows.entries.iter().rfind(of_booking).and_then(|entry| entry.previous_seq);
        rows.booking(ids.paid).last_seq = last_but_one.unwrap();
    });
    assert_violation("9 rows are stored, but only 5 bookings", |rows, ids| {
        for id in 90..94 {
            let id = BookingId::from_bytes([id; 16]);
            let stray = Booking { id, ..rows.booking(ids.held).clone() };
            rows.bookings.push(stray);
        }
    });
}

#[test]
fn every_payment_confirms_or_is_refunded_once() {
    assert_violation("refunds the payment of a confirmed booking", |rows, ids| {
        let State::Confirmed(own) = &mut rows.booking(ids.paid).state else { panic!() };
        own.transaction = payment("late");
    });
    assert_violation("refunds a payment a second time", |rows, ids| {
        let stray = Refund { id: RefundId::from_bytes([9; 16]), ..rows.refund("back").clone() };
        assert_eq!(stray.booking_id, ids.refunded);
        rows.refunds.push(stray);
    });
    assert_violation("has no entry in the ledger", |rows, _| {
        rows.refund("late").id = RefundId::from_bytes([9; 16]);
    });
    assert_violation("there is no such refund", |rows, _| {
        rows.refund("late").id = RefundId::from_bytes([9; 16]);
    });
    assert_violation("there is no such refund", |rows, _| {
        rows.refunds.retain(|refund| refund.transaction == payment("back"));
    });
    assert_violation("was cancelled after it was paid, without a refund", |rows, _| {
        rows.refunds.retain(|refund| refund.transaction == payment("late"));
    });
    assert_violation("was cancelled after it was paid, without a refund", |rows, _| {
        rows.refund("back").transaction = payment("another");
    });
}

#[test]
fn a_refund_row_matches_its_last_entry() {
    assert_violation("is requested, but the ledger has succeeded", |rows, _| {
        rows.refund("back").status = RefundStatus::Requested;
    });
    assert_violation("is failed, but the ledger has succeeded", |rows, _| {
        rows.refund("late").status = RefundStatus::Failed;
    });
    for text in ["has no entry in the ledger", "is in the ledger, but there is no such refund"] {
        assert_violation(text, |rows, ids| rows.refund("late").booking_id = ids.held);
    }
    for status in [LedgerStatus::Failed, LedgerStatus::Succeeded, LedgerStatus::Confirmed] {
        assert_violation("refund.settled to Some(Failed) does not follow on Some(Requested)", |rows, _| {
            rows.entry(EntryKind::RefundSettled).from = Some(status);
        });
        assert_violation("does not follow on None", |rows, _| {
            rows.entry(EntryKind::RefundRequested).from = Some(status);
        });
    }
    for status in [LedgerStatus::Requested, LedgerStatus::Confirmed] {
        assert_violation("does not follow on Some(Requested)", |rows, _| {
            rows.entry(EntryKind::RefundSettled).to = Some(status);
        });
    }
    // A second settlement after a success, and a settlement of a refund that was never requested.
    assert_violation("refund.settled to Some(Succeeded) does not follow on Some(Succeeded)", |rows, _| {
        rows.entry(EntryKind::RefundSettled).to = Some(LedgerStatus::Succeeded);
    });
    assert_violation("refund.settled to Some(Failed) does not follow on None", |rows, _| {
        rows.entry(EntryKind::RefundSettled).refund_id = Some(RefundId::from_bytes([9; 16]));
    });
    for text in ["does not show whether its refund was paid out", "is refunded, but was never paid"] {
        assert_violation(text, |rows, ids| {
            for id in [ids.unpaid, ids.refunded] {
                let State::Cancelled { refunded, .. } = &mut rows.booking(id).state else { panic!() };
                *refunded = !*refunded;
            }
        });
    }
}

#[test]
fn the_counters_of_the_event_are_derived() {
    let inventory = |text: &str, edit: fn(&mut Inventory)| {
        assert_violation(text, |rows, _| edit(&mut rows.event.inventory));
    };
    inventory("held is stored as 4 and derived as 3", |inventory| inventory.held += 1);
    inventory("sold is stored as 2 and derived as 3", |inventory| inventory.sold -= 1);
    inventory("available is stored as", |inventory| inventory.capacity += 1);
    inventory("the sum of held, sold and available is stored as 13", |inventory| inventory.capacity += 1);
    inventory("held of", |inventory| inventory.types[0].held += 1);
    inventory("sold of", |inventory| inventory.types[1].sold -= 1);
    inventory("uses 4 of its 3 tickets", |inventory| inventory.types[1].capacity = Some(3));
    inventory("seq is stored as", |inventory| inventory.seq += 1);
    inventory("pending bookings is stored as 2", |inventory| inventory.tallies.pending += 1);
    inventory("confirmed bookings is stored as 2", |inventory| inventory.tallies.confirmed += 1);
    inventory("cancelled bookings is stored as 1", |inventory| inventory.tallies.cancelled -= 1);
    inventory("expired bookings is stored as 0", |inventory| inventory.tallies.expired -= 1);
    inventory("revenue is stored as 22501 and derived as 22500", |inventory| inventory.tallies.revenue += 1);
}

#[test]
fn the_counts_of_users_are_derived_where_there_is_a_limit() {
    let count =
        |rows: &mut Rows, name: &str| rows.users.iter().position(|(known, _)| *known == user(name)).unwrap();
    assert_violation("user bob is counted with 4 tickets and holds 3", |rows, _| {
        let bob = count(rows, "bob");
        rows.users[bob].1 += 1;
    });
    assert_violation("user bob holds tickets and is not counted", |rows, _| {
        let bob = count(rows, "bob");
        rows.users.remove(bob);
    });
    assert_violation("user dan is counted with 1 tickets and holds 0", |rows, _| {
        rows.users.push((user("dan"), 1));
    });
    assert_violation("user bob holds 3 tickets, more than the 2 allowed", |rows, _| {
        std::sync::Arc::make_mut(&mut rows.event.details).max_tickets_per_user = Some(2);
    });
    // A user without tickets need not be counted, and without a limit no user is.
    let (mut rows, _) = populated();
    let cyd = count(&mut rows, "cyd");
    assert_eq!(rows.users.remove(cyd).1, 0);
    assert_eq!(rows.report().violations, Vec::<String>::new());
    std::sync::Arc::make_mut(&mut rows.event.details).max_tickets_per_user = None;
    rows.users = vec![(user("bob"), 99)];
    assert_eq!(rows.report().violations, Vec::<String>::new());
}

#[test]
fn rows_that_are_not_reached_are_reported() {
    let (rows, _) = populated();
    let [bookings, entries, refunds] = rows.row_counts();
    let totals = |bookings, entries, refunds| {
        let mut audit = Audit::default();
        rows.feed(&mut audit);
        audit.finish(bookings, entries, refunds).violations.join("; ")
    };
    assert_eq!(totals(bookings, entries, refunds), "");
    assert_eq!(
        totals(6, entries, refunds),
        "6 rows are stored, but only 5 bookings are reachable from their ledger"
    );
    assert!(totals(bookings, entries + 1, refunds).contains("ledger entries are reachable from an event"));
    assert!(totals(bookings, entries, refunds + 1).contains("refunds are reachable from their booking"));
    // A report has a bounded size, and states how many violations it omits.
    let mut audit = Audit::default();
    (0..10_003).for_each(|number| audit.unreadable(number));
    let violations = audit.finish(0, 0, 0).violations;
    assert_eq!((violations.len(), &*violations[10_000]), (10_001, "3 more violations are omitted"));
    let mut audit = Audit::default();
    audit.unreadable("a booking");
    assert_eq!(audit.finish(0, 0, 0).violations, ["unreadable: a booking"]);
}

#[test]
fn events_are_audited_separately() {
    let (rows, _) = populated();
    let mut other = rows.clone();
    let id = EventId::from_bytes([2; 16]);
    other.event.id = id;
    other.event.inventory.held += 1;
    other.entries.iter_mut().for_each(|entry| entry.event_id = id);
    other.bookings.iter_mut().for_each(|booking| booking.event_id = id);
    other.refunds.iter_mut().for_each(|refund| refund.event_id = id);
    let mut audit = Audit::default();
    for rows in [&rows, &other, &rows] {
        rows.feed(&mut audit);
    }
    let report = audit.finish(15, rows.row_counts()[1] * 3, 6);
    assert_eq!((report.events, report.bookings, report.refunds), (3, 15, 6));
    assert!(report.violations.iter().all(|line| line.starts_with(&format!("{id}: "))), "{report:#?}");
    assert!(!report.violations.is_empty());
    // Rows that belong to no event are not audited, so that the totals differ.
    let mut stray = Audit::default();
    stray.entry(&rows.entries[0], None);
    stray.user(&rows.bookings[0].user, 1, None);
    let report = stray.finish(1, 1, 1);
    assert_eq!((report.entries, report.bookings, report.refunds, report.violations.len()), (1, 0, 0, 2));
}

/// A changed amount, currency or count is reported with its row.
#[test]
fn r5_every_amount_is_cross_checked() {
    let more = |money: Money| Money::new(money.amount() + 1, money.currency()).unwrap();
    let usd = |money: Money| Money::new(money.amount(), "USD".parse().unwrap()).unwrap();
    let reprice = |booking: &mut Booking, edit: &dyn Fn(Money) -> Money| {
        let items =
            booking.items.iter().map(|item| Item { unit_price: edit(item.unit_price), ..item.clone() });
        booking.items = Items::new(items.collect()).unwrap();
        let costs = booking.items.iter().map(|item| item.unit_price.times(item.quantity).unwrap());
        booking.total = costs.reduce(|sum, cost| sum.plus(cost).unwrap()).unwrap();
    };
    let edits: [&dyn Fn(Money) -> Money; 2] = [&more, &usd];
    for edit in edits {
        for transaction in ["back", "late"] {
            assert_violation(&format!("{}: ", populated().0.refund(transaction).id), |rows, _| {
                let refund = rows.refund(transaction);
                refund.amount = edit(refund.amount);
            });
        }
        for select in
            [|ids: &BookingIds| ids.held, |ids: &BookingIds| ids.refunded, |ids: &BookingIds| ids.expired]
        {
            let id = select(&populated().1);
            assert_violation(&format!("{id} of "), |rows, _| {
                rows.booking(id).total = edit(rows.booking(id).total);
            });
            // Even if items and total agree, the other bookings show the price.
            assert_violation("with no edit in between", |rows, _| reprice(rows.booking(id), edit));
        }
    }
    for edit in edits {
        let mut world = World::selling(new_event());
        assert_eq!(outcome_code(&world.order("ann", TicketSelection::Quantity(1), None)), "ok");
        let mut rows = Rows::of(&world);
        let ticket_types = &mut std::sync::Arc::make_mut(&mut rows.event.details).ticket_types;
        ticket_types[0].price = edit(ticket_types[0].price);
        let violations = rows.report().violations.join("; ");
        assert!(violations.contains(&format!("{} costs 450", ticket_type(0))), "{violations}");
    }
    assert_violation("is in EUR, but evt_", |rows, _| {
        std::sync::Arc::make_mut(&mut rows.event.details).currency = "USD".parse().unwrap();
    });
    assert_violation("has version 6 after 5 changes", |rows, ids| rows.booking(ids.refunded).version += 1);
    assert_violation("has version 1 after 2 changes", |rows, ids| rows.booking(ids.expired).version -= 1);
    assert_violation("version is stored as 4 and derived as 3", |rows, _| {
        std::sync::Arc::make_mut(&mut rows.event.details).version += 1;
    });
    assert_violation("event.created must be entry 1 and no other", |rows, _| {
        rows.entry(EntryKind::EventUpdated).kind = EntryKind::EventCreated.into();
    });
    assert_violation("event.created must be entry 1 and no other", |rows, _| {
        rows.entry(EntryKind::EventCreated).kind = EntryKind::EventUpdated.into();
    });
}
