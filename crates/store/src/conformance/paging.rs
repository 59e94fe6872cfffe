//! Paging while rows are inserted: each row that exists at the beginning is returned once, in order.

use std::sync::Arc;

use domain::{Booking, EventId};

use super::Harness;
use super::fixture::{Fixture, user};
use super::lists::walk;
use crate::BookingList;

const PAGE_ROWS: u32 = 4;

/// Reads a list in pages; before each page, a booking is created, another one confirmed and a third one
/// cancelled.
async fn page_during_sales(
    fixture: &Fixture<'_>,
    event: EventId,
    start: &[Arc<Booking>],
    list: impl Fn(Option<String>) -> BookingList,
) {
    let mut changing = start.iter();
    let seen = walk(PAGE_ROWS, |cursor| {
        let (list, changed) = (list(cursor), [changing.next(), changing.next_back()]);
        async move {
            let mut commands = vec![fixture.book(event, "a", 1)];
            commands.extend(changed[0].map(|booking| fixture.confirm(booking, "t")));
            commands.extend(changed[1].map(|booking| fixture.cancel(booking)));
            fixture.execute(commands).await;
            fixture.store.bookings(list, None, PAGE_ROWS).await
        }
    })
    .await;
    let from_start: Vec<_> = seen.iter().map(|booking| booking.id).filter(|id| *id <= start[19].id).collect();
    assert_eq!(from_start, start.iter().rev().map(|booking| booking.id).collect::<Vec<_>>());
    // Of the bookings created meanwhile, only the first was created before the first page.
    assert_eq!(seen.len(), start.len() + 1);
}

pub(super) async fn pages_have_no_gaps_during_inserts(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    for number in 0..4 {
        let event = fixture.create(fixture.new_event(1_000)).await.id;
        let name = format!("u{number}");
        let start = fixture.hold(event, &vec![("a", 1); 20]).await;
        match number {
            0 => {
                let after = |cursor: Option<String>| cursor.map(|text| text.parse().expect("a cursor"));
                let list = |cursor| BookingList::OfEvent { event, after: after(cursor) };
                page_during_sales(&fixture, event, &start, list).await;
            }
            1 => {
                let after = |cursor: Option<String>| cursor.map(|text| text.parse().expect("a cursor"));
                let of = Some(event);
                let list = |cursor| BookingList::OfUser { user: user("a"), event: of, after: after(cursor) };
                page_during_sales(&fixture, event, &start, list).await;
            }
            2 => check_refund_pages(&fixture, event, &name).await,
            _ => check_ledger_pages(&fixture, event).await,
        }
    }
    fixture.assert_audit_clean().await;
}

async fn check_refund_pages(fixture: &Fixture<'_>, event: EventId, name: &str) {
    let refund = async || {
        let paid = fixture.book_and_pay(event, name, 1, "t").await;
        fixture.run_ok(fixture.cancel(&paid)).await;
        fixture.refunds().await[0].id
    };
    let mut start = Vec::new();
    for _ in 0..10 {
        start.insert(0, refund().await);
    }
    let seen = walk(PAGE_ROWS, async |cursor| {
        let after = cursor.map(|text: String| text.parse().expect("a cursor"));
        if after.is_some() {
            refund().await;
        }
        fixture.store.refunds(None, after, PAGE_ROWS).await
    })
    .await;
    let seen: Vec<_> = seen.iter().map(|refund| refund.id).collect();
    assert!(seen.starts_with(&start), "{seen:?} {start:?}");
}

/// The ledger is read oldest first and grows at its end, so a client that continues gets all entries.
async fn check_ledger_pages(fixture: &Fixture<'_>, event: EventId) {
    let (mut seen, mut after) = (Vec::new(), 0);
    for _ in 0..20 {
        fixture.hold(event, &[("b", 1), ("c", 1)]).await;
        let page = fixture.store.ledger(event, after, 3).await.expect("a page");
        assert_eq!(
            page.next,
            page.rows.last().filter(|_| page.next.is_some()).map(|last| last.seq.to_string())
        );
        seen.extend(page.rows.iter().map(|entry| entry.seq));
        after = *seen.last().expect("an entry");
    }
    assert_eq!(seen, (1..=60).collect::<Vec<_>>());
}
