//! Queries of the background chores: due holds, live bookings of cancelled events, statistics.

use std::sync::Arc;

use domain::{
    Booking, BookingId, BookingStatus, EventId, EventPatch, EventStatus, Money, Tallies, Timestamp,
};

use super::Harness;
use super::fixture::{Fixture, HOLD, edit, expire};
use crate::{CancelledEvent, DueHold};

/// All holds that are due at an instant, read in pages of `limit`.
async fn due(fixture: &Fixture<'_>, now: Timestamp, limit: u32) -> Vec<DueHold> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = fixture.store.due_holds(now, after, limit).await.expect("a page");
        assert!(page.len() <= limit as usize);
        after = page.last().copied();
        all.extend(page);
        if after.is_none() {
            return all;
        }
    }
}

pub(super) async fn due_holds_are_listed_oldest_first(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let mut holds: Vec<Arc<Booking>> = Vec::new();
    for _ in 0..3 {
        let event = fixture.create(fixture.new_event(100)).await.id;
        let mut made = fixture.hold(event, &[("a", 1); 5]).await;
        let shorter = EventPatch { hold_seconds: Some(60), ..EventPatch::default() };
        fixture.run(edit(event, shorter)).await;
        // Created later, due earlier.
        made.extend(fixture.hold(event, &[("a", 1); 3]).await);
        fixture.run_ok(fixture.confirm(&made[0], "t")).await;
        fixture.run_ok(fixture.cancel(&made[1])).await;
        holds.extend(made.drain(2..));
    }
    // An event without pending bookings: its only one has expired.
    let idle = fixture.create(fixture.new_event(100)).await.id;
    let expired = fixture.hold(idle, &[("a", 1)]).await;
    harness.advance(HOLD).await;
    fixture.run_ok(expire(&expired[0])).await;

    let mut wanted = Vec::new();
    for hold in holds {
        let read = fixture.booking(hold.id).await;
        let at_micros = read.hold_expires_at.micros();
        wanted.push(DueHold { event: read.event_id, at_micros, booking: read.id });
    }
    wanted.sort_unstable_by_key(|hold| (hold.at_micros, hold.booking));
    let instant = |micros| Timestamp::from_micros(micros).expect("an instant");
    let last = instant(wanted.iter().map(|hold| hold.at_micros).max().expect("a hold"));
    for limit in [1, 4, 6, 100] {
        assert_eq!(due(&fixture, last, limit).await, wanted, "pages of {limit}");
    }
    // A hold is due at its deadline, and not before.
    let first = instant(wanted[0].at_micros);
    let early: Vec<_> = wanted.iter().filter(|hold| hold.at_micros <= first.micros()).copied().collect();
    assert_eq!(due(&fixture, first, 100).await, early);
    assert_eq!(due(&fixture, first.minus_seconds(1), 100).await, []);
}

/// All bookings of an event in a status, read in pages of `limit`.
async fn in_status(
    fixture: &Fixture<'_>,
    event: EventId,
    status: BookingStatus,
    limit: u32,
) -> Vec<BookingId> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = fixture.store.bookings_in_status(event, status, after, limit).await.expect("a page");
        assert!(page.len() <= limit as usize);
        after = page.last().copied();
        all.extend(page);
        if after.is_none() {
            return all;
        }
    }
}

pub(super) async fn live_bookings_of_cancelled_events_are_listed(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let (mut events, mut live): (Vec<EventId>, Vec<BookingId>) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let event = fixture.create(fixture.new_event(100)).await.id;
        let made = fixture.hold(event, &[("a", 1); 6]).await;
        fixture.run_ok(fixture.confirm(&made[1], "t")).await;
        fixture.run_ok(fixture.cancel(&made[2])).await;
        let returned = fixture.run_ok(fixture.confirm(&made[3], "t")).await;
        fixture.run_ok(fixture.cancel(&returned)).await;
        let mut pending = [0, 4, 5].map(|position: usize| made[position].id);
        pending.sort_unstable();
        for limit in [1, 2, 3, 100] {
            assert_eq!(
                in_status(&fixture, event, BookingStatus::Pending, limit).await,
                pending,
                "pages of {limit}"
            );
            assert_eq!(in_status(&fixture, event, BookingStatus::Confirmed, limit).await, [made[1].id]);
            assert_eq!(in_status(&fixture, event, BookingStatus::Expired, limit).await, []);
        }
        events.push(event);
        live = pending.into_iter().chain([made[1].id]).collect();
    }
    assert_eq!(fixture.store.cancelled_events(None, 100).await.expect("a page"), []);
    for position in [3, 0, 2] {
        let off = EventPatch { status: Some(EventStatus::Cancelled), ..EventPatch::default() };
        fixture.run(edit(events[position], off)).await;
    }
    // An event whose last live booking is cancelled has none left.
    for id in live {
        let booking = fixture.booking(id).await;
        fixture.run_ok(fixture.cancel(&booking)).await;
    }
    let mut wanted = [(events[0], true), (events[2], true), (events[3], false)]
        .map(|(event, has_live_bookings)| CancelledEvent { event, has_live_bookings });
    wanted.sort_unstable_by_key(|cancelled| cancelled.event);
    for limit in [1, 2, 3, 100] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = fixture.store.cancelled_events(after, limit).await.expect("a page");
            assert!(page.len() <= limit as usize);
            let Some(last) = page.last() else { break };
            after = Some(last.event);
            seen.extend(page);
        }
        assert_eq!(seen, wanted, "pages of {limit}");
    }
    fixture.assert_audit_clean().await;
}

pub(super) async fn statistics_add_up_by_currency(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    assert_eq!(fixture.store.stats().await.expect("statistics").per_currency, []);
    for code in ["JPY", "EUR", "JPY"] {
        let mut new = fixture.new_event(100);
        new.ticket_types[0].price = Money::new(500, code.parse().expect("a currency")).expect("an amount");
        let event = fixture.create(new).await.id;
        let made = fixture.hold(event, &[("a", 1), ("b", 2), ("c", 3), ("d", 4)]).await;
        fixture.run_ok(fixture.confirm(&made[1], "t")).await;
        fixture.run_ok(fixture.cancel(&made[2])).await;
        harness.advance(HOLD).await;
        fixture.run_ok(expire(&made[3])).await;
    }
    let once = Tallies { pending: 1, confirmed: 1, cancelled: 1, expired: 1, revenue: 1_000 };
    let twice = Tallies { pending: 2, confirmed: 2, cancelled: 2, expired: 2, revenue: 2_000 };
    let expected =
        [("EUR", once), ("JPY", twice)].map(|(code, sum)| (code.parse().expect("a currency"), sum));
    assert_eq!(fixture.store.stats().await.expect("statistics").per_currency, expected);
    fixture.store.health().await.expect("a healthy store");
}

pub(super) async fn events_are_found_by_ids(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let mut events = Vec::new();
    for _ in 0..5 {
        events.push(fixture.create(fixture.new_event(9)).await);
    }
    let unknown = EventId::from_bytes([0xee; 16]);
    let named = vec![events[3].id, unknown, events[0].id];
    let mut found = fixture.store.events_by_ids(named).await.expect("a read");
    found.sort_unstable_by_key(|(id, _)| *id);
    let found: Vec<_> = found.into_iter().map(|(_, event)| event.expect("an event")).collect();
    assert_eq!(found, [events[0].clone(), events[3].clone()]);
    assert!(fixture.store.events_by_ids(Vec::new()).await.expect("a read").is_empty());
}
