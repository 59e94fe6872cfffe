//! Lists: order, filters and page cursors.

use std::future::Future;

use domain::{BookingId, BookingStatus, Event, EventPatch, EventStatus, NewEvent, RefundStatus, UserId};

use super::Harness;
use super::fixture::{Fixture, HOLD, edit, expire, user};
use crate::{BookingList, Fault, Page};

/// Reads a list in pages of `limit` rows and returns all rows. Only the last page may be shorter, and only it
/// has no cursor.
pub(super) async fn walk<T, F>(limit: u32, mut page: impl FnMut(Option<String>) -> F) -> Vec<T>
where
    F: Future<Output = Result<Page<T>, Fault>>,
{
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let first = cursor.is_none();
        let Page { rows, next } = page(cursor).await.expect("a page");
        let full = rows.len() == limit as usize;
        assert!(
            full || (next.is_none() && rows.len() < limit as usize),
            "{} rows, then {next:?}",
            rows.len()
        );
        assert!(first || !rows.is_empty(), "a page after a cursor is empty");
        all.extend(rows);
        assert!(all.len() < 10_000, "the list has no end");
        cursor = next;
        if cursor.is_none() {
            return all;
        }
    }
}

fn parse_cursor<T: std::str::FromStr>(cursor: Option<String>) -> Option<T> {
    cursor.map(|text| text.parse().unwrap_or_else(|_| panic!("{text} is not a cursor of this list")))
}

/// Page sizes: one row, an odd number, a divisor of the length of most lists here, and all rows.
const LIMITS: [u32; 4] = [1, 7, 10, 1_000];

const ALL_STATUSES: [Option<BookingStatus>; 5] = [
    None,
    Some(BookingStatus::Pending),
    Some(BookingStatus::Confirmed),
    Some(BookingStatus::Cancelled),
    Some(BookingStatus::Expired),
];

/// A booking that a list must contain.
#[derive(Clone, Copy)]
struct ExpectedBooking {
    id: BookingId,
    event: usize,
    user: usize,
    status: BookingStatus,
}

const USERS: [&str; 3] = ["a", "A", "b"];

/// Creates 60 bookings of three users at two events, 15 in each status. Returns them oldest first.
async fn create_sixty(fixture: &Fixture<'_>) -> (Vec<Event>, Vec<ExpectedBooking>) {
    let mut events = Vec::new();
    for _ in 0..2 {
        events.push(fixture.create(fixture.new_event(100)).await);
    }
    let mut made = Vec::new();
    for number in 0..60 {
        let (event, user, status) = (number % 2, number % 3, BookingStatus::ALL[number / 5 % 4]);
        // Holds that expire are created first, so that the others are not overdue.
        if status == BookingStatus::Expired {
            made.push((
                event,
                user,
                status,
                Some(fixture.run_ok(fixture.book(events[event].id, USERS[user], 1)).await),
            ));
        } else {
            made.push((event, user, status, None));
        }
    }
    fixture.harness.advance(HOLD).await;
    let mut all = Vec::new();
    for (event, user, status, early) in made {
        let booking = match early {
            Some(booking) => fixture.run_ok(expire(&booking)).await,
            None => fixture.run_ok(fixture.book(events[event].id, USERS[user], 1)).await,
        };
        match status {
            BookingStatus::Confirmed => fixture.run_ok(fixture.confirm(&booking, "t")).await,
            BookingStatus::Cancelled => fixture.run_ok(fixture.cancel(&booking)).await,
            BookingStatus::Pending | BookingStatus::Expired => booking.clone(),
        };
        all.push(ExpectedBooking { id: booking.id, event, user, status });
    }
    all.sort_unstable_by_key(|made| made.id);
    (events, all)
}

/// For every page size and status, asserts that the list has exactly the bookings that match, newest first,
/// each in its current state.
async fn check_bookings(
    fixture: &Fixture<'_>,
    made: &[ExpectedBooking],
    matches: impl Fn(&ExpectedBooking) -> bool,
    list: impl Fn(Option<String>) -> BookingList,
) {
    for status in ALL_STATUSES {
        let wanted = made.iter().rev().filter(|made| status.is_none_or(|status| status == made.status));
        let wanted: Vec<_> = wanted.filter(|made| matches(made)).map(|made| (made.id, made.status)).collect();
        assert!(!wanted.is_empty(), "the case has no booking for {status:?}");
        for limit in LIMITS {
            let rows = walk(limit, |cursor| fixture.store.bookings(list(cursor), status, limit)).await;
            let seen: Vec<_> = rows.iter().map(|booking| (booking.id, booking.status())).collect();
            assert_eq!(seen, wanted, "{status:?}, pages of {limit}");
        }
        let rows = fixture.store.bookings(list(None), status, 1_000).await.expect("a page").rows;
        for booking in &rows {
            assert_eq!(fixture.booking(booking.id).await, *booking);
        }
    }
}

pub(super) async fn bookings_are_listed_by_user(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let (events, made) = create_sixty(&fixture).await;
    for (index, name) in USERS.into_iter().enumerate() {
        let user: UserId = user(name);
        let list =
            |event, cursor| BookingList::OfUser { user: user.clone(), event, after: parse_cursor(cursor) };
        check_bookings(&fixture, &made, |made| made.user == index, |cursor| list(None, cursor)).await;
        for (event_index, event) in events.iter().enumerate() {
            let matches = |made: &ExpectedBooking| made.user == index && made.event == event_index;
            check_bookings(&fixture, &made, matches, |cursor| list(Some(event.id), cursor)).await;
        }
    }
}

pub(super) async fn bookings_are_listed_by_event(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let (events, made) = create_sixty(&fixture).await;
    for (event_index, event) in events.iter().enumerate() {
        let list = |cursor| BookingList::OfEvent { event: event.id, after: parse_cursor(cursor) };
        check_bookings(&fixture, &made, |made| made.event == event_index, list).await;
    }
}

pub(super) async fn all_bookings_are_listed(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let (_, made) = create_sixty(&fixture).await;
    let list = |cursor| BookingList::All { after: parse_cursor(cursor) };
    check_bookings(&fixture, &made, |_| true, list).await;
}

pub(super) async fn events_are_listed_newest_first(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let mut wanted = Vec::new();
    for number in 0..20 {
        let mut new = NewEvent { max_tickets_per_user: Some(3), ..fixture.new_event(10) };
        new.ticket_types.push(fixture.ticket_type(Some(4)));
        let event = fixture.create(new).await;
        if number % 4 == 0 {
            let off = EventPatch { status: Some(EventStatus::Cancelled), ..EventPatch::default() };
            fixture.run(edit(event.id, off)).await;
        }
        wanted.insert(0, fixture.event(event.id).await);
    }
    for limit in [1, 7, 10, 20, 1_000] {
        let seen = walk(limit, |cursor| fixture.store.events(parse_cursor(cursor), limit)).await;
        assert_eq!(seen, wanted, "pages of {limit}");
    }
}

pub(super) async fn refunds_are_listed_by_status(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(100)).await.id;
    let mut wanted = Vec::new();
    for _ in 0..20 {
        let paid = fixture.book_and_pay(event, "a", 1, "t").await;
        fixture.run_ok(fixture.cancel(&paid)).await;
        wanted.insert(0, paid.id);
    }
    for status in [None, Some(RefundStatus::Requested)] {
        for limit in [1, 7, 10, 20, 1_000] {
            let seen = walk(limit, |cursor| fixture.store.refunds(status, parse_cursor(cursor), limit)).await;
            let of: Vec<_> = seen.iter().map(|refund| refund.booking_id).collect();
            assert_eq!(of, wanted, "{status:?}, pages of {limit}");
        }
    }
    for status in [RefundStatus::Succeeded, RefundStatus::Failed] {
        let page = fixture.store.refunds(Some(status), None, 10).await.expect("a page");
        assert_eq!((page.rows.len(), page.next), (0, None));
    }
}

pub(super) async fn the_ledger_is_listed_oldest_first(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let (event, other) =
        (fixture.create(fixture.new_event(100)).await.id, fixture.create(fixture.new_event(100)).await.id);
    for _ in 0..3 {
        fixture.hold(event, &[("a", 1); 13]).await;
        fixture.hold(other, &[("a", 1)]).await;
    }
    for limit in LIMITS {
        let next = |cursor| fixture.store.ledger(event, parse_cursor(cursor).unwrap_or(0), limit);
        let seen: Vec<_> = walk(limit, next).await.iter().map(|entry| (entry.event_id, entry.seq)).collect();
        assert_eq!(seen, (1..=40).map(|seq| (event, seq)).collect::<Vec<_>>(), "pages of {limit}");
    }
    let after = async |seq| fixture.store.ledger(event, seq, 100).await.expect("a page");
    for (seq, left) in [(0, 40), (1, 39), (39, 1), (40, 0), (u64::MAX, 0)] {
        let page = after(seq).await;
        assert_eq!((page.rows.len(), page.next), (left, None), "after {seq}");
        assert!(page.rows.first().is_none_or(|entry| entry.seq == seq + 1));
    }
}
