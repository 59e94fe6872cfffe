//! Runs every command in every state; `docs/booking-states.md` is the printed result of this test.

use std::collections::BTreeSet;

use domain::{Actor, Answer, BookingId, BookingStatus, EntryKind, EventPatch, NewEvent, TicketSelection};

use crate::fixture::{self, BookingSetup, Condition, Fixture, PAID, RefundSetup};
use crate::invariants;
use crate::page::{
    CANCEL, CANCEL_OTHER_USER, CANCEL_SERVICE, CLEAN_UP, COMMANDS, CONFIRM, CONFIRM_REFUNDED, CONFIRM_SAME,
    OPENING, REFUNDS, SETTLE, SETTLE_BOOKING,
};
use crate::world::{
    World, admin, eur, named_refund, new_event, outcome_code, payment, service, shifted, user,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/booking-states.md");

/// The observed transitions: the status of a booking before and after.
type Transitions = BTreeSet<(Option<BookingStatus>, BookingStatus)>;

#[test]
fn the_booking_states_page_matches_the_rules() {
    let page = page();
    #[expect(
        clippy::disallowed_methods,
        reason = "not configuration: the caller of the test requests an update of the page"
    )]
    let update = std::env::var("UPDATE_DOCS").is_ok();
    if update {
        std::fs::write(FILE, &page).unwrap();
    }
    let current = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(current == page, "docs/booking-states.md is out of date: run UPDATE_DOCS=1 cargo test -p domain");
}

#[test]
fn a_wrong_amount_is_refused_in_every_state() {
    for setup in BookingSetup::ALL.into_iter().filter(|setup| *setup != BookingSetup::Missing) {
        for condition in Condition::ALL {
            let mut fixture = fixture::prepare(setup, condition);
            let before = fixture.world.clone();
            let answer = fixture.world.confirm(fixture.booking, "new", Some(eur(8999)));
            assert_eq!(outcome_code(&answer), "amount_mismatch", "{setup:?} {condition:?}");
            unchanged(&before, &fixture.world);
        }
    }
}

#[test]
fn earlier_bookings_of_the_buyer_make_no_difference() {
    let within_limit = BookingSetup::ALL.into_iter().filter(|setup| *setup != BookingSetup::ExpiredOverLimit);
    for setup in within_limit {
        for condition in Condition::ALL {
            let mut fixture = fixture::prepare(setup, condition);
            let before = fixture.world.bookings.get(&fixture.booking).cloned();
            let mut fresh = World::selling(new_event());
            fresh.now = fixture.world.now;
            fixture::set_condition(&mut fresh, condition);
            let (answer, expected) = (fixture.world.book("ann", 1), fresh.book("ann", 1));
            assert_eq!(outcome_code(&answer), outcome_code(&expected), "{setup:?} {condition:?}");
            let after = fixture.world.bookings.get(&fixture.booking);
            assert!(setup == BookingSetup::Missing || after == before.as_ref(), "{setup:?} {condition:?}");
        }
    }
}

fn page() -> String {
    let mut transitions = Transitions::new();
    let mut page = [
        OPENING,
        &states(),
        COMMANDS,
        &booking_table(&mut transitions),
        CONFIRM,
        &command_table(&mut transitions, BookingSetup::ALL.as_slice(), |world, id| world.pay(id, "new")),
        CONFIRM_SAME,
        &command_table(&mut transitions, PAID_ONCE, |world, id| world.pay(id, PAID)),
        CONFIRM_REFUNDED,
        &refunded_table(&mut transitions),
        CANCEL,
        &command_table(&mut transitions, CANCELLABLE, |world, id| world.cancel(Actor::User(user("ann")), id)),
        CANCEL_SERVICE,
        &service_table(&mut transitions),
        CANCEL_OTHER_USER,
        &command_table(&mut transitions, CANCELLABLE, |world, id| world.cancel(Actor::User(user("eve")), id)),
        CLEAN_UP,
        &command_table(&mut transitions, CANCELLABLE, World::expire),
        REFUNDS,
        &refunds(),
        SETTLE,
        &settle_table(&mut transitions),
        SETTLE_BOOKING,
        &payment_status_table(),
    ]
    .concat();
    page.truncate(page.trim_end().len());
    page.push('\n');
    let allowed = [
        (None, BookingStatus::Pending),
        (Some(BookingStatus::Pending), BookingStatus::Confirmed),
        (Some(BookingStatus::Pending), BookingStatus::Cancelled),
        (Some(BookingStatus::Pending), BookingStatus::Expired),
        (Some(BookingStatus::Confirmed), BookingStatus::Cancelled),
        (Some(BookingStatus::Expired), BookingStatus::Confirmed),
    ];
    assert_eq!(transitions, BTreeSet::from(allowed), "the arrows of the diagram");
    page
}

const PAID_ONCE: &[BookingSetup] =
    &[BookingSetup::Confirmed, BookingSetup::ConfirmedPastCutOff, BookingSetup::CancelledPaid];

/// The setups for cancellations and expiries: the number of tickets that are left makes no difference to
/// these.
const CANCELLABLE: &[BookingSetup] = &[
    BookingSetup::Missing,
    BookingSetup::PendingInTime,
    BookingSetup::PendingOverdue,
    BookingSetup::Confirmed,
    BookingSetup::ConfirmedPastCutOff,
    BookingSetup::CancelledUnpaid,
    BookingSetup::CancelledPaid,
    BookingSetup::Expired,
];

fn command_table(
    transitions: &mut Transitions,
    rows: &[BookingSetup],
    act: impl Fn(&mut World, BookingId) -> Answer,
) -> String {
    let row = |setup: &BookingSetup| {
        let cell = |condition| {
            let mut fixture = fixture::prepare(*setup, condition);
            cell(transitions, &mut fixture.world, fixture.booking, &act)
        };
        std::iter::once(setup.title().to_owned()).chain(Condition::ALL.map(cell)).collect()
    };
    table_by_condition("the booking is", rows.iter().map(row).collect())
}

fn refunded_table(transitions: &mut Transitions) -> String {
    let row = |setup: BookingSetup| {
        let cell = |condition| match fixture::prepare_refunded(setup, condition) {
            None => "–".to_owned(),
            Some((mut fixture, transaction)) => {
                cell(transitions, &mut fixture.world, fixture.booking, |world, id| world.pay(id, transaction))
            }
        };
        std::iter::once(setup.title().to_owned()).chain(Condition::ALL.map(cell)).collect()
    };
    let rows =
        BookingSetup::ALL.into_iter().filter(|setup| *setup != BookingSetup::Missing).map(row).collect();
    table_by_condition("the booking is", rows)
}

/// A service and an admin get the same results; the table is printed once.
fn service_table(transitions: &mut Transitions) -> String {
    let by = |transitions: &mut Transitions, actor: &Actor| {
        command_table(transitions, CANCELLABLE, |world, id| world.cancel(actor.clone(), id))
    };
    let table = by(transitions, &service());
    assert_eq!(table, by(transitions, &admin()), "an admin has the permissions of a service");
    assert_eq!(table, by(transitions, &Actor::System), "and so has the cancellation of an event");
    table
}

/// Runs one command and describes the result in a few words; the invariants must hold after it.
fn cell(
    transitions: &mut Transitions,
    world: &mut World,
    id: BookingId,
    act: impl Fn(&mut World, BookingId) -> Answer,
) -> String {
    let before = world.clone();
    let answer = act(world, id);
    invariants::check(world);
    let refunds = world.refunds.len() - before.refunds.len();
    match &answer {
        Answer::Event(_) => panic!("a command for a booking returned an event"),
        Answer::Refund(refund) => {
            let key = (id, refund.transaction.clone());
            assert_eq!(world.refunds[&key], **refund, "the answer is the current refund");
            assert_eq!((refunds, world.booking(id).status()), (0, before.booking(id).status()));
            if before.refunds[&key] == **refund {
                unchanged(&before, world);
                "no change".to_owned()
            } else {
                format!("→ {}", refund.status)
            }
        }
        Answer::Booking(booking) if before.bookings.get(&booking.id) == Some(booking) => {
            unchanged(&before, world);
            "no change".to_owned()
        }
        Answer::Booking(booking) => {
            assert_eq!(world.booking(booking.id), &**booking, "the answer is the current booking");
            let from = before.bookings.get(&booking.id).map(|booking| booking.status());
            transitions.insert((from, booking.status()));
            let reacquired = if from == Some(BookingStatus::Expired) { ", tickets taken again" } else { "" };
            let freed = if world.freed.is_empty() { "" } else { ", overdue holds freed first" };
            let refund = if refunds == 1 { ", **refund**" } else { "" };
            format!("→ {}{reacquired}{freed}{refund}", booking.status())
        }
        Answer::Refused(refusal) => {
            let refund = match (named_refund(&answer), refunds) {
                (Some(named), 1) => {
                    assert_eq!(world.refunds[&(named.booking_id, named.transaction.clone())], *named);
                    ", **refund**"
                }
                (Some(named), 0) => {
                    assert_eq!(before.refunds[&(named.booking_id, named.transaction.clone())], *named);
                    ", same refund"
                }
                (None, 0) => "",
                (named, new) => panic!("{new} refunds recorded, named {named:?}"),
            };
            if refunds == 0 {
                unchanged(&before, world);
            }
            format!("`{}`{refund}", refusal.code())
        }
    }
}

fn unchanged(before: &World, after: &World) {
    assert_eq!(before.event, after.event);
    assert_eq!(before.bookings, after.bookings);
    assert_eq!(before.refunds, after.refunds);
    assert_eq!(before.ledger, after.ledger);
    assert_eq!(before.user_tickets, after.user_tickets);
}

/// An order, and the state of the event before it apart from its condition.
struct OrderCase {
    title: &'static str,
    new: NewEvent,
    before: fn(&mut World),
    order: fn(&mut World) -> Answer,
}

fn order_cases() -> Vec<OrderCase> {
    let plain = |title, before: fn(&mut World), order: fn(&mut World) -> Answer| OrderCase {
        title,
        new: new_event(),
        before,
        order,
    };
    let two: fn(&mut World) -> Answer = |world| world.book("ann", 2);
    let limited = |offer: OrderCase| OrderCase {
        new: NewEvent { max_tickets_per_user: Some(3), ..new_event() },
        ..offer
    };
    vec![
        plain("two tickets, enough left", |_| {}, two),
        plain("two tickets, one left", |world| sell(world, "bob", 9), two),
        plain("two tickets, none left", |world| sell(world, "bob", 10), two),
        plain("two tickets, the rest held by overdue bookings", |world| hold(world, "bob", 10), two),
        limited(plain("one more than the user's limit allows", |world| sell(world, "ann", 2), two)),
        limited(plain("the same, but the counted booking is overdue", |world| hold(world, "ann", 2), two)),
        plain("more tickets than one booking may have", |_| {}, |world| world.book("ann", 11)),
        plain(
            "a total other than the expected one",
            |_| {},
            |world| world.order("ann", TicketSelection::Quantity(2), Some(eur(8999))),
        ),
        plain("before `salesStartAt`", |world| set_window(world, Some(1), None), two),
        plain("from `salesEndAt` on", |world| set_window(world, None, Some(0)), two),
    ]
}

fn sell(world: &mut World, name: &str, quantity: u32) {
    world.book_and_pay(name, quantity, "other");
}

/// Sets the start or the end of sales to this number of microseconds from now.
fn set_window(world: &mut World, start: Option<i64>, end: Option<i64>) {
    let instant = |micros: Option<i64>| Some(micros.map(|micros| shifted(world.now, micros)));
    let (sales_start_at, sales_end_at) = (instant(start), instant(end));
    assert_eq!(
        outcome_code(&world.edit(EventPatch { sales_start_at, sales_end_at, ..EventPatch::default() })),
        "ok"
    );
}

/// Makes a booking that is overdue when the command runs.
fn hold(world: &mut World, name: &str, quantity: u32) {
    let now = world.now;
    world.wait(-3600);
    world.must_book(name, quantity);
    world.now = now;
}

fn booking_table(transitions: &mut Transitions) -> String {
    let row = |offer: OrderCase| {
        let cell = |condition| {
            let mut world = World::selling(offer.new.clone());
            // Just before the start, so that the preparation is still allowed.
            world.now = shifted(fixture::start(), -1_000_000);
            (offer.before)(&mut world);
            fixture::set_condition(&mut world, condition);
            if condition == Condition::Started {
                world.now = fixture::start();
            }
            let id = world.next_booking();
            cell(transitions, &mut world, id, |world, _| (offer.order)(world))
        };
        std::iter::once(offer.title.to_owned()).chain(Condition::ALL.map(cell)).collect()
    };
    table_by_condition("the order is for", order_cases().into_iter().map(row).collect())
}

fn states() -> String {
    let row = |(setup, refund, meaning): (BookingSetup, RefundSetup, &str)| {
        let mut fixture = fixture::prepare(setup, Condition::OnSale);
        refund.apply(&mut fixture.world, fixture.booking, PAID);
        let booking = fixture.world.booking(fixture.booking);
        let holds = match booking.status() {
            BookingStatus::Pending => "yes, held",
            BookingStatus::Confirmed => "yes, sold",
            BookingStatus::Cancelled | BookingStatus::Expired => "no",
        };
        let payment = booking.payment_status().as_str();
        vec![format!("`{}`", booking.status()), meaning.into(), holds.into(), format!("`{payment}`")]
    };
    let meanings = [
        (
            BookingSetup::PendingInTime,
            RefundSetup::Missing,
            "booked, not paid yet; held until `holdExpiresAt`",
        ),
        (BookingSetup::Confirmed, RefundSetup::Missing, "paid"),
        (BookingSetup::CancelledUnpaid, RefundSetup::Missing, "cancelled before payment"),
        (BookingSetup::CancelledPaid, RefundSetup::Requested, "cancelled after payment"),
        (BookingSetup::CancelledPaid, RefundSetup::Succeeded, "cancelled after payment, refund paid out"),
        (BookingSetup::Expired, RefundSetup::Missing, "not paid in time, tickets freed"),
    ];
    table(&["status", "meaning", "keeps tickets", "paymentStatus"], meanings.into_iter().map(row).collect())
}

/// The origins of refunds: the answer to the payer and the recorded reason.
fn refunds() -> String {
    let row = |(situation, setup, condition, act): (&str, BookingSetup, Condition, Act)| {
        let mut fixture = fixture::prepare(setup, condition);
        let before = fixture.world.booking(fixture.booking).clone();
        let answer = act(&mut fixture.world, fixture.booking);
        if named_refund(&answer).is_some() {
            assert_eq!(fixture.world.booking(fixture.booking).state, before.state, "{situation}");
        }
        let entry = fixture.world.ledger.last().unwrap();
        assert_eq!(entry.kind, EntryKind::RefundRequested, "{situation}");
        let refund =
            fixture.world.refunds.values().find(|refund| Some(refund.id) == entry.refund_id).unwrap();
        assert_eq!(refund.amount, fixture.world.booking(fixture.booking).total);
        let outcomes = match &answer {
            Answer::Refused(refusal) => format!("`{}`", refusal.code()),
            Answer::Booking(_) => "the cancelled booking".to_owned(),
            Answer::Event(_) | Answer::Refund(_) => panic!("{situation}: {answer:?}"),
        };
        vec![situation.to_owned(), outcomes, format!("`{}`", refund.reason)]
    };
    let rows: [(&str, BookingSetup, Condition, Act); 7] = [
        ("a paid booking is cancelled", BookingSetup::Confirmed, Condition::OnSale, |w, id| {
            w.cancel(service(), id)
        }),
        (
            "a paid booking is cancelled with its event",
            BookingSetup::Confirmed,
            Condition::Cancelled,
            |w, id| w.cancel(Actor::System, id),
        ),
        (
            "a payment arrives after the event was cancelled",
            BookingSetup::PendingInTime,
            Condition::Cancelled,
            pay_late,
        ),
        (
            "a payment arrives for a cancelled booking",
            BookingSetup::CancelledUnpaid,
            Condition::OnSale,
            pay_late,
        ),
        (
            "a second transaction pays for the same booking",
            BookingSetup::Confirmed,
            Condition::OnSale,
            pay_late,
        ),
        (
            "a payment arrives after expiry, tickets gone",
            BookingSetup::ExpiredTicketsGone,
            Condition::OnSale,
            pay_late,
        ),
        (
            "a payment arrives after expiry, limit used up",
            BookingSetup::ExpiredOverLimit,
            Condition::OnSale,
            pay_late,
        ),
    ];
    table(&["situation", "response", "refund reason"], rows.into_iter().map(row).collect())
}

type Act = fn(&mut World, BookingId) -> Answer;

fn pay_late(world: &mut World, id: BookingId) -> Answer {
    world.pay(id, "new")
}

/// Settles with both outcomes for every state of the refund's booking and event, which must make no
/// difference.
fn settle_table(transitions: &mut Transitions) -> String {
    let mut cell = |before: RefundSetup, succeeded: bool| {
        let mut outcomes = BTreeSet::new();
        for (setup, condition) in all_setups() {
            let Some((mut fixture, transaction)) = fixture::prepare_refunded(setup, condition) else {
                continue;
            };
            let transaction = if before == RefundSetup::Missing { "never used" } else { transaction };
            before.apply(&mut fixture.world, fixture.booking, transaction);
            fixture.world.wait(1);
            outcomes.insert(cell(transitions, &mut fixture.world, fixture.booking, |world, id| {
                world.settle(id, transaction, succeeded, "payout 2")
            }));
        }
        assert_eq!(outcomes.len(), 1, "{before:?} depends on the booking: {outcomes:?}");
        outcomes.pop_first().unwrap()
    };
    let row = |before: RefundSetup| vec![before.title().to_owned(), cell(before, true), cell(before, false)];
    table(
        &["the refund is", "settled as `succeeded`", "settled as `failed`"],
        RefundSetup::ALL.into_iter().map(row).collect(),
    )
}

/// The payment status of a booking after a refund of its own payment, and of another one.
fn payment_status_table() -> String {
    let row = |title: String, (fixture, transaction): (Fixture, &str)| {
        let recorded = [RefundSetup::Requested, RefundSetup::Failed, RefundSetup::Succeeded];
        let cell = |refund: RefundSetup| {
            let mut world = fixture.world.clone();
            refund.apply(&mut world, fixture.booking, transaction);
            invariants::check(&world);
            format!("`{}`", world.booking(fixture.booking).payment_status().as_str())
        };
        std::iter::once(title).chain(recorded.map(cell)).collect()
    };
    let own = fixture::prepare_refunded(BookingSetup::CancelledPaid, Condition::OnSale).unwrap();
    let mut rows = vec![row("cancelled; the payment that bought it".to_owned(), own)];
    for setup in BookingSetup::ALL.into_iter().filter(|setup| *setup != BookingSetup::Missing) {
        let late = |condition| {
            let mut fixture = fixture::prepare(setup, condition);
            pay_late(&mut fixture.world, fixture.booking);
            fixture.world.refunds.contains_key(&(fixture.booking, payment("new"))).then_some((fixture, "new"))
        };
        let late = late(Condition::OnSale).or_else(|| late(Condition::Cancelled)).unwrap();
        rows.push(row(format!("{}; another payment", setup.title()), late));
    }
    table(&["booking state; refunded payment", "requested", "failed", "succeeded"], rows)
}

fn all_setups() -> impl Iterator<Item = (BookingSetup, Condition)> {
    BookingSetup::ALL.into_iter().flat_map(|setup| Condition::ALL.map(|condition| (setup, condition)))
}

fn table_by_condition(corner: &str, rows: Vec<Vec<String>>) -> String {
    let titles = Condition::ALL.map(|condition| format!("event {}", condition.title()));
    let head: Vec<&str> = std::iter::once(corner).chain(titles.iter().map(String::as_str)).collect();
    table(&head, rows)
}

fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|&title| title.to_owned()).collect();
    let columns = 0..head.len();
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = columns.map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let padded = line.iter().zip(&widths).map(|(cell, width)| format!(" {cell:width$} "));
        text += &["|", &padded.collect::<Vec<_>>().join("|"), "|\n"].concat();
        if number == 0 {
            let dashes = widths.iter().map(|width| "-".repeat(width + 2));
            text += &["|", &dashes.collect::<Vec<_>>().join("|"), "|\n"].concat();
        }
    }
    text + "\n"
}
