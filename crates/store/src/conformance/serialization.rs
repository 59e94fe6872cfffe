//! Every value that is written is read back unchanged, in every field and at the ends of every range.

use std::sync::Arc;

use domain::{
    Action, Actor, Booking, BookingId, BookingStatus, CANCEL_CUTOFF_SECONDS_MAX, CAPACITY_MAX, Cancellation,
    CapturedPayment, Confirmation, EntryLine, Event, EventId, EventPatch, EventStatus, HOLD_SECONDS_MAX,
    HOLD_SECONDS_MIN, LedgerStatus, Metadata, Money, Name, NewEvent, NewTicketType, Order, PRICE_MAX,
    Payment, Refund, RefundReason, RefundStatus, State, TICKET_TYPES_MAX, TicketSelection, TicketTypeId,
    TicketTypePatch,
};

use super::Harness;
use super::fixture::{
    Fixture, HOLD, at, command, command_by, edit, eur, expect_booking, expect_refund, expire, payment, user,
};

/// Texts that a careless store trims, case-folds, truncates or interprets as syntax.
const TEXTS: [&str; 6] =
    ["x", " 'quoted' \"twice\" \\ ; -- $1 ", "İstanbul ﬁ e\u{301} é", "עברית عربى", "[[\"", "NULL"];

fn text(number: usize) -> Name {
    TEXTS[number % TEXTS.len()].parse().expect("a text")
}

/// The longest text, in the widest characters.
fn longest<T: std::str::FromStr<Err: std::fmt::Debug>>() -> T {
    "\u{1f3ab}".repeat(200).parse().expect("a text")
}

fn price(amount: i64, currency: &str) -> Money {
    Money::new(amount, currency.parse().expect("a currency")).expect("an amount")
}

/// Every field at the upper end of its range, or set.
fn largest(fixture: &Fixture<'_>) -> NewEvent {
    let kind = |number: usize| NewTicketType {
        id: TicketTypeId::from_bytes(fixture.id()),
        name: text(number),
        price: price(if number.is_multiple_of(2) { PRICE_MAX } else { 0 }, "BHD"),
        capacity: (!number.is_multiple_of(3)).then_some(CAPACITY_MAX),
    };
    let mut ticket_types: Vec<_> = (0..TICKET_TYPES_MAX).map(kind).collect();
    // The order of the ticket types is not that of their ids.
    ticket_types.reverse();
    NewEvent {
        id: EventId::from_bytes(fixture.id()),
        name: longest(),
        venue: text(1),
        starts_at: at("9999-12-30T21:59:59.999999Z"),
        time_zone: Some("Europe/Berlin".parse().expect("a zone")),
        capacity: CAPACITY_MAX,
        ticket_types,
        single_price: false,
        sales_start_at: Some(at("0001-01-01T00:00:00.000001Z")),
        sales_end_at: Some(at("9999-12-30T21:59:59Z")),
        hold_seconds: HOLD_SECONDS_MAX,
        cancel_cutoff_seconds: CANCEL_CUTOFF_SECONDS_MAX,
        max_tickets_per_booking: CAPACITY_MAX,
        max_tickets_per_user: Some(CAPACITY_MAX),
    }
}

/// Every field at the lower end of its range, or unset.
fn smallest(fixture: &Fixture<'_>) -> NewEvent {
    let (id, name) = (TicketTypeId::from_bytes(fixture.id()), text(0));
    NewEvent {
        name: text(0),
        hold_seconds: HOLD_SECONDS_MIN,
        cancel_cutoff_seconds: 0,
        max_tickets_per_booking: 1,
        ticket_types: vec![NewTicketType { id, name, price: price(0, "JPY"), capacity: None }],
        ..fixture.new_event(1)
    }
}

/// Asserts that an event is read as it was replied, and that the reply has the requested values.
async fn check_event(fixture: &Fixture<'_>, new: &NewEvent, replied: &Event) {
    assert_eq!(fixture.event(replied.id).await, *replied);
    let about = &replied.details;
    let kinds = about.ticket_types.iter().zip(&replied.inventory.types);
    let requested = NewEvent {
        id: replied.id,
        name: about.name.clone(),
        venue: about.venue.clone(),
        starts_at: about.starts_at,
        time_zone: about.time_zone,
        capacity: replied.inventory.capacity,
        ticket_types: kinds
            .map(|(kind, stock)| NewTicketType {
                id: kind.id,
                name: kind.name.clone(),
                price: kind.price,
                capacity: stock.capacity,
            })
            .collect(),
        single_price: new.single_price,
        sales_start_at: about.sales_start_at,
        sales_end_at: about.sales_end_at,
        hold_seconds: about.hold_seconds,
        cancel_cutoff_seconds: about.cancel_cutoff_seconds,
        max_tickets_per_booking: about.max_tickets_per_booking,
        max_tickets_per_user: about.max_tickets_per_user,
    };
    assert_eq!(requested, *new);
    assert_eq!((about.created_at, replied.inventory.last_at), (about.updated_at, about.created_at));
}

pub(super) async fn events_read_back(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    for new in [largest(&fixture), smallest(&fixture)] {
        let created = fixture.create(new.clone()).await;
        check_event(&fixture, &new, &created).await;
        let kinds = |(position, kind): (usize, &NewTicketType)| TicketTypePatch {
            id: kind.id,
            name: Some(text(position + 2)),
            price: Some(Money::new(7, kind.price.currency()).expect("an amount")),
            capacity: Some(if position % 2 == 0 { Some(3) } else { None }),
        };
        let patch = EventPatch {
            if_match: Some(1),
            name: Some(text(3)),
            venue: Some(longest()),
            starts_at: Some(at("2198-01-01T00:00:00.5Z")),
            time_zone: Some(new.time_zone.is_none().then(|| "Asia/Kathmandu".parse().expect("a zone"))),
            capacity: Some(new.capacity / 2 + 1),
            price: None,
            ticket_types: new.ticket_types.iter().enumerate().map(kinds).collect(),
            sales_start_at: Some(new.sales_start_at.is_none().then(|| at("2100-01-01T00:00:00Z"))),
            sales_end_at: Some(new.sales_end_at.is_none().then(|| at("2101-01-01T00:00:00Z"))),
            hold_seconds: Some(77),
            cancel_cutoff_seconds: Some(78),
            max_tickets_per_booking: Some(79),
            max_tickets_per_user: Some(None),
            status: Some(EventStatus::Paused),
        };
        let before = created.details.clone();
        let reply = fixture.run(edit(created.id, patch)).await;
        let edited = fixture.event(created.id).await;
        assert_eq!(super::fixture::outcome_code(&reply), "ok", "{reply:?}");
        let about = &edited.details;
        assert_eq!((about.version, about.status), (2, EventStatus::Paused));
        assert_eq!((&about.name, &about.venue), (&text(3), &longest()));
        assert_ne!(about.time_zone, before.time_zone);
        assert_ne!(about.sales_start_at, before.sales_start_at);
        assert_ne!(about.sales_end_at, before.sales_end_at);
        assert_eq!((about.hold_seconds, about.cancel_cutoff_seconds), (77, 78));
        assert_eq!((about.max_tickets_per_booking, about.max_tickets_per_user), (79, None));
        for (position, kind) in about.ticket_types.iter().enumerate() {
            assert_eq!((&kind.name, kind.price.amount()), (&text(position + 2), 7));
            assert_eq!(
                edited.inventory.types[position].capacity,
                if position % 2 == 0 { Some(3) } else { None }
            );
        }
        assert_eq!(reply_event(&reply), edited);
    }
    fixture.assert_audit_clean().await;
}

fn reply_event(reply: &crate::Reply) -> Event {
    match reply.answer() {
        Some(domain::Answer::Event(event)) => (**event).clone(),
        other => panic!("an event was expected: {other:?}"),
    }
}

/// Asserts that a booking is read as it was replied.
async fn check_booking(fixture: &Fixture<'_>, replied: &Arc<Booking>, status: BookingStatus) {
    assert_eq!(replied.status(), status);
    assert_eq!(fixture.booking(replied.id).await, **replied);
}

pub(super) async fn bookings_read_back_in_every_state(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let new = NewEvent { max_tickets_per_user: None, ..largest(&fixture) };
    let event = fixture.create(new.clone()).await;
    // All types in one booking; the most expensive booking that is possible; a booking with total 0.
    let every = new.ticket_types.iter().map(|kind| (kind.id, 1)).collect();
    let dearest = new.ticket_types.iter().find(|kind| kind.price.amount() == PRICE_MAX).expect("a price").id;
    let free = new.ticket_types.iter().find(|kind| kind.price.amount() == 0).expect("a price").id;
    let longest_user = "A.b_c:d@e-".repeat(13)[..128].to_owned();
    let selections = [every, vec![(dearest, 9_007)], vec![(free, 1_000)]].map(TicketSelection::Items);
    for (selection, method) in selections.into_iter().zip([None, Some(""), Some("İ ' \\ \u{1f4b3}")]) {
        let payment_method = method.map(|method| method.parse().expect("a note"));
        let metadata = Metadata::new(method.map(|text| ("key \" \u{1f4b3}", text))).expect("metadata");
        let order = |selection: &TicketSelection| Order {
            event_id: event.id,
            booking_id: BookingId::from_bytes(fixture.id()),
            user: user(&longest_user),
            selection: selection.clone(),
            expected_total: None,
            payment_method: payment_method.clone(),
            external_ref: None,
            metadata: metadata.clone(),
        };
        let [first, second, third] = [0; 3]
            .map(|_| command_by(Actor::User(user(&longest_user)), Action::Book(Box::new(order(&selection)))));
        let held = [first, second, third];
        let held: Vec<_> = fixture.execute(held.to_vec()).await.iter().map(expect_booking).collect();
        for booking in &held {
            assert_eq!((&booking.payment_method, booking.version), (&payment_method, 1));
            assert_eq!(booking.metadata, metadata);
            assert_eq!(booking.hold_expires_at, booking.created_at.plus_seconds(HOLD_SECONDS_MAX));
            check_booking(&fixture, booking, BookingStatus::Pending).await;
        }
        let confirmed = fixture.run_ok(fixture.confirm(&held[0], longest::<Name>().as_str())).await;
        let payment = Payment { transaction: longest(), at: confirmed.updated_at };
        assert_eq!(confirmed.state, State::Confirmed(payment.clone()));
        check_booking(&fixture, &confirmed, BookingStatus::Confirmed).await;
        for (booking, reason, payment) in [
            (&confirmed, Some(""), Some(payment)),
            (&held[1], Some(" ' \u{1f44b}"), None),
            (&held[2], None, None),
        ] {
            let reason = reason.map(|reason| reason.parse().expect("a note"));
            let (booking_id, refund_id) = (booking.id, fixture.refund_id());
            let cancellation =
                Cancellation { event_id: event.id, booking_id, reason: reason.clone(), refund_id };
            let cancelled = fixture.run_ok(command(Action::Cancel(Box::new(cancellation)))).await;
            let at = cancelled.updated_at;
            assert_eq!(cancelled.state, State::Cancelled { at, reason, payment, refunded: false });
            check_booking(&fixture, &cancelled, BookingStatus::Cancelled).await;
        }
    }
    let new_event = fixture.create(fixture.new_event(5)).await;
    let late = fixture.hold(new_event.id, &[("a", 1), ("b", 2)]).await;
    harness.advance(HOLD).await;
    for booking in late {
        let expired = fixture.run_ok(expire(&booking)).await;
        assert_eq!(expired.state, State::Expired { at: expired.updated_at });
        let (read, before) = (fixture.booking(booking.id).await, expired.hold_expires_at);
        // A harness may have moved the deadline; everything else is as replied.
        assert_eq!(Booking { hold_expires_at: before, ..read }, *expired);
        let reacquired = fixture.run_ok(fixture.confirm(&booking, "late")).await;
        assert_eq!((reacquired.version, reacquired.status()), (3, BookingStatus::Confirmed));
        assert_eq!(fixture.booking(booking.id).await.state, reacquired.state);
    }
    fixture.assert_audit_clean().await;
}

pub(super) async fn refunds_read_back(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(10)).await;
    let paid = fixture.book_and_pay(event.id, "a", 2, longest::<Name>().as_str()).await;
    let held = fixture.hold(event.id, &[("b", 1), ("c", 1)]).await;
    // A second payment for a paid booking.
    let reply = fixture.run(fixture.confirm(&paid, " \u{1f4b8} ")).await;
    let second = expect_refund(&reply);
    let cancellation = |booking: &Booking, refund_id| Cancellation {
        event_id: event.id,
        booking_id: booking.id,
        reason: None,
        refund_id,
    };
    let first_id = fixture.refund_id();
    let cancelled_booking =
        fixture.run_ok(command(Action::Cancel(Box::new(cancellation(&paid, first_id))))).await;
    let first = Refund {
        id: first_id,
        booking_id: paid.id,
        event_id: event.id,
        transaction: longest(),
        amount: eur(9_000),
        status: RefundStatus::Requested,
        reason: RefundReason::BookingCancelled,
        provider_reference: None,
        created_at: cancelled_booking.updated_at,
        settled_at: None,
    };
    fixture.run_ok(fixture.cancel(&held[0])).await;
    let after_cancel = Confirmation {
        event_id: event.id,
        booking_id: held[0].id,
        payment: CapturedPayment { transaction: payment("t"), amount: Some(eur(4_500)) },
        refund_id: fixture.refund_id(),
    };
    let after_cancellation =
        expect_refund(&fixture.run(command(Action::Confirm(Box::new(after_cancel)))).await);
    let off = EventPatch { status: Some(EventStatus::Cancelled), ..EventPatch::default() };
    fixture.run(edit(event.id, off)).await;
    let after_event_cancellation = expect_refund(&fixture.run(fixture.confirm(&held[1], "t")).await);
    let reasons = [&second, &after_cancellation, &after_event_cancellation].map(|refund| refund.reason);
    assert_eq!(
        reasons,
        [RefundReason::InvalidState, RefundReason::InvalidState, RefundReason::EventCancelled]
    );
    assert_eq!(fixture.refunds().await, [after_event_cancellation, after_cancellation, first, second]);
    fixture.assert_audit_clean().await;
}

pub(super) async fn ledger_entries_read_back(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let mut new = fixture.new_event(10);
    new.ticket_types.push(fixture.ticket_type(Some(5)));
    let [first, second] = [new.ticket_types[0].id, new.ticket_types[1].id];
    let event = fixture.create(new).await;
    let actors =
        [Actor::User(user("u@x")), Actor::Service(user("gate")), Actor::Admin(user("org")), Actor::System];
    let request: String = ('!'..='~').chain('!'..='~').take(128).collect();
    let mut order = fixture.order(event.id, "u@x", TicketSelection::Items(vec![(second, 3), (first, 1)]));
    order.actor = actors[0].clone();
    order.request = request.parse().expect("a request");
    let held = fixture.run_ok(order).await;
    fixture.run_ok(command_by(actors[1].clone(), fixture.confirm(&held, "t").action)).await;
    let cancellation = command_by(actors[2].clone(), fixture.cancel(&held).action);
    let cancelled_booking = fixture.run_ok(cancellation).await;
    let more = EventPatch { capacity: Some(12), status: Some(EventStatus::Paused), ..EventPatch::default() };
    let mut update = edit(event.id, more);
    update.actor = actors[3].clone();
    fixture.run(update).await;

    let entries = fixture.ledger(event.id).await;
    let refund = fixture.refunds().await[0].id;
    let lines =
        vec![EntryLine { ticket_type: first, quantity: 1 }, EntryLine { ticket_type: second, quantity: 3 }];
    let kinds: Vec<_> = entries.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "event.created",
            "booking.created",
            "booking.confirmed",
            "booking.cancelled",
            "refund.requested",
            "event.updated"
        ]
    );
    let about: Vec<_> = entries.iter().map(|entry| (entry.booking_id, entry.refund_id)).collect();
    let of = Some(held.id);
    assert_eq!(about, [(None, None), (of, None), (of, None), (of, None), (of, Some(refund)), (None, None)]);
    let moved: Vec<_> = entries.iter().map(|entry| (entry.lines.clone(), entry.quantity)).collect();
    let all = (lines, 4);
    assert_eq!(moved, [(vec![], 10), all.clone(), all.clone(), all, (vec![], 0), (vec![], 2)]);
    let steps: Vec<_> = entries.iter().map(|entry| (entry.from, entry.to)).collect();
    let (pending, confirmed, cancelled) =
        (Some(LedgerStatus::Pending), Some(LedgerStatus::Confirmed), Some(LedgerStatus::Cancelled));
    assert_eq!(
        steps,
        [
            (None, Some(LedgerStatus::OnSale)),
            (None, pending),
            (pending, confirmed),
            (confirmed, cancelled),
            (None, Some(LedgerStatus::Requested)),
            (Some(LedgerStatus::OnSale), Some(LedgerStatus::Paused)),
        ]
    );
    let numbers: Vec<_> = entries.iter().map(|e| (e.seq, e.previous_seq, e.available_after)).collect();
    let chain =
        [(1, None, 10), (2, None, 6), (3, Some(2), 6), (4, Some(3), 10), (5, Some(4), 10), (6, None, 12)];
    assert_eq!(numbers, chain);
    let by: Vec<_> = entries.iter().skip(1).map(|entry| entry.actor.clone()).collect();
    assert_eq!(by, [&actors[0], &actors[1], &actors[2], &actors[2], &actors[3]].map(Clone::clone));
    assert_eq!(entries[1].request.as_str(), request);
    assert!(entries.iter().all(|entry| entry.event_id == event.id));
    assert_eq!((entries[1].at, entries[3].at), (held.created_at, cancelled_booking.updated_at));
    assert!(entries.windows(2).all(|pair| pair[0].at <= pair[1].at));
    fixture.assert_audit_clean().await;
}

/// A trace is stored with the entries of its command, and returned by every query of entries.
pub(super) async fn traces_read_back(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(10)).await.id;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().ok();
    assert!(trace.is_some());
    let mut order = fixture.order(event, "ada", TicketSelection::Quantity(1));
    order.trace.clone_from(&trace);
    let held = fixture.run_ok(order).await;
    let paid = fixture.run_ok(fixture.confirm(&held, "t")).await;
    let mut cancellation = fixture.cancel(&paid);
    cancellation.trace.clone_from(&trace);
    fixture.run_ok(cancellation).await;
    let entries = fixture.ledger(event).await;
    let traces: Vec<_> = entries.iter().map(|entry| entry.trace.clone()).collect();
    assert_eq!(
        traces,
        [None, trace.clone(), None, trace.clone(), trace],
        "a refund entry has the trace of its cause"
    );
    let each = fixture.store.entries_with_bookings(event, 0, 10).await.expect("entries and bookings");
    assert_eq!(each.into_iter().map(|each| each.entry).collect::<Vec<_>>(), entries);
    fixture.assert_audit_clean().await;
}

/// The revenue of the most expensive bookings of one event exceeds 64 bits.
pub(super) async fn revenue_beyond_64_bits_reads_back(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let mut new = fixture.new_event(CAPACITY_MAX);
    new.ticket_types[0].price = eur(PRICE_MAX);
    let event = fixture.create(new).await.id;
    let mut bookings = Vec::new();
    for _ in 0..2 {
        let held = fixture.hold(event, &vec![("a", 9_007); 515]).await;
        let payments = held.iter().map(|booking| fixture.confirm(booking, "t")).collect();
        assert!(fixture.outcome_codes(payments).await.iter().all(|code| *code == "ok"));
        bookings.extend(held);
    }
    let revenue = 1_030 * 9_007 * i128::from(PRICE_MAX);
    assert!(revenue > i128::from(i64::MAX));
    assert_eq!(fixture.event(event).await.inventory.tallies.revenue, revenue);
    fixture.assert_audit_clean().await;
    fixture.run_ok(fixture.cancel(&bookings[0])).await;
    assert_eq!(
        fixture.event(event).await.inventory.tallies.revenue,
        revenue - i128::from(bookings[0].total.amount())
    );
    fixture.assert_audit_clean().await;
}
