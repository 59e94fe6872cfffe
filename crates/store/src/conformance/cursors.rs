//! Queries of the relay: cursors, and ledger entries with their bookings.

use domain::{EventId, Timestamp};

use super::Harness;
use super::fixture::Fixture;
use crate::{Consumer, Cursor, CursorFilter};

fn instant(at: &str) -> Timestamp {
    at.parse().expect("an instant")
}

/// All cursors, read in pages of `limit`.
async fn walk(fixture: &Fixture<'_>, consumer: &Consumer, which: CursorFilter, limit: u32) -> Vec<Cursor> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = fixture.store.cursors(consumer, which, after, limit).await.expect("a page");
        assert!(page.len() <= limit as usize);
        after = page.last().map(|cursor| cursor.event);
        all.extend(page);
        if after.is_none() {
            return all;
        }
    }
}

pub(super) async fn events_behind_a_stream_are_listed(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let [first, second] =
        ["2026-01-01T00:00:00.000001Z", "2026-01-01T00:00:00.000002Z"].map(|at| Consumer::relay(instant(at)));
    let mut events: Vec<(EventId, u64)> = Vec::new();
    for bookings in [0, 3, 1, 2] {
        let event = fixture.create(fixture.new_event(100)).await.id;
        fixture.hold(event, &vec![("a", 1); bookings]).await;
        events.push((event, 1 + bookings as u64));
    }
    events.sort_unstable();
    let cursor = |(event, ledger): (EventId, u64), processed| Cursor { event, ledger, processed };
    let none: Vec<Cursor> = events.iter().map(|event| cursor(*event, 0)).collect();
    for limit in [1, 3, 100] {
        assert_eq!(walk(&fixture, &first, CursorFilter::Behind, limit).await, none, "pages of {limit}");
        assert_eq!(walk(&fixture, &first, CursorFilter::All, limit).await, none, "pages of {limit}");
    }
    fixture
        .store
        .save_cursors(&first, vec![(events[0].0, events[0].1), (events[2].0, 1)])
        .await
        .expect("cursors are saved");
    let all = vec![
        cursor(events[0], events[0].1),
        cursor(events[1], 0),
        cursor(events[2], 1),
        cursor(events[3], 0),
    ];
    assert_eq!(walk(&fixture, &first, CursorFilter::All, 100).await, all);
    let behind: Vec<Cursor> = all.iter().copied().filter(|each| each.processed < each.ledger).collect();
    assert_eq!(walk(&fixture, &first, CursorFilter::Behind, 100).await, behind);
    // A cursor of one stream does not count for another, and is replaced by the next one.
    assert_eq!(walk(&fixture, &second, CursorFilter::All, 100).await, none);
    fixture.store.save_cursors(&second, vec![(events[0].0, 1)]).await.expect("cursors are saved");
    assert_eq!(walk(&fixture, &second, CursorFilter::All, 1).await[0], cursor(events[0], 1));
    assert_eq!(walk(&fixture, &first, CursorFilter::All, 1).await[0], cursor(events[0], 0));
    fixture.store.save_cursors(&second, Vec::new()).await.expect("nothing to save");
    // The last saved cursor counts, on whichever stream: here one entry each, of two events.
    let entries: u64 = events.iter().map(|(_, ledger)| ledger).sum();
    assert_eq!(fixture.store.pending_entry_count(Consumer::RELAY).await.expect("a number"), entries - 2);
}

pub(super) async fn entries_are_read_with_their_bookings(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(100)).await.id;
    let held = fixture.hold(event, &[("a", 1), ("b", 2)]).await;
    fixture.run_ok(fixture.confirm(&held[1], "t")).await;
    fixture.run_ok(fixture.cancel(&held[0])).await;
    let ledger = fixture.store.ledger(event, 0, 100).await.expect("the ledger").rows;
    for (after, limit) in [(0, 100), (1, 2), (3, 100), (5, 100), (0, 1)] {
        let read = fixture.store.entries_with_bookings(event, after, limit).await.expect("entries");
        let wanted = ledger.iter().filter(|entry| entry.seq > after).take(limit as usize);
        assert!(wanted.eq(read.iter().map(|each| &each.entry)), "{after} {limit}");
        for each in read {
            let booking = match each.entry.booking_id {
                Some(id) => Some(fixture.booking(id).await),
                None => None,
            };
            assert_eq!(each.booking, booking);
        }
    }
    let unknown_event = EventId::from_bytes([7; 16]);
    assert!(fixture.store.entries_with_bookings(unknown_event, 0, 10).await.expect("nothing").is_empty());
}

pub(super) async fn consumers_have_their_own_cursors(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let at = instant("2026-01-01T00:00:00Z");
    let event = fixture.create(fixture.new_event(100)).await.id;
    fixture.hold(event, &[("a", 1), ("b", 1)]).await;
    let relay = Consumer::relay(at);
    let other = Consumer { name: "webhook:1".into(), destination: at };
    fixture.store.save_cursors(&relay, vec![(event, 3)]).await.expect("cursors are saved");
    fixture.store.save_cursors(&other, vec![(event, 1)]).await.expect("cursors are saved");
    let cursor = |processed| vec![Cursor { event, ledger: 3, processed }];
    assert_eq!(walk(&fixture, &relay, CursorFilter::All, 9).await, cursor(3));
    assert_eq!(walk(&fixture, &other, CursorFilter::All, 9).await, cursor(1));
    assert_eq!(walk(&fixture, &relay, CursorFilter::Behind, 9).await, []);
    assert_eq!(walk(&fixture, &other, CursorFilter::Behind, 9).await, cursor(1));
    for (name, pending) in [(Consumer::RELAY, 0), ("webhook:1", 2), ("webhook:2", 3)] {
        assert_eq!(fixture.store.pending_entry_count(name).await.expect("a number"), pending, "{name}");
    }
    let unnamed = Consumer { name: "".into(), destination: at };
    fixture.store.save_cursors(&unnamed, vec![(event, 1)]).await.expect_err("a consumer without a name");
}
/// The statements by which a later version adds an entry of a kind of its own to booking 2 of the event.
const TRANSFER: [&str; 3] = [
    "INSERT INTO ledger (event_id, seq, type, booking_id, lines, quantity, from_status, to_status,
            available_after, previous_seq, actor, request_id, at)
     SELECT event_id, 4, 'booking.transferred', booking_id, '[]', 0, 'confirmed', 'inTransfer',
            available_after, seq, actor, request_id, at
     FROM ledger WHERE event_id = :event AND seq = 3",
    "UPDATE bookings SET last_seq = 4 WHERE event_id = :event",
    "UPDATE events SET seq = 4 WHERE id = :event",
];

pub(super) async fn entries_of_unknown_kinds_are_carried(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(100)).await.id;
    let paid = fixture.book_and_pay(event, "a", 2, "t").await;
    for sql in TRANSFER {
        if !harness.execute_directly(sql, event).await {
            return;
        }
    }
    fixture.run_ok(fixture.cancel(&paid)).await;
    let ledger = fixture.ledger(event).await;
    let kinds: Vec<_> = ledger.iter().map(|entry| entry.kind.as_str()).collect();
    let wanted = [
        "event.created",
        "booking.created",
        "booking.confirmed",
        "booking.transferred",
        "booking.cancelled",
        "refund.requested",
    ];
    assert_eq!(kinds, wanted);
    let transfer = &ledger[3];
    assert_eq!((transfer.from_status(), transfer.to_status()), (Some("confirmed"), Some("inTransfer")));
    assert_eq!((transfer.booking_id, transfer.previous_seq), (Some(paid.id), Some(3)));
    assert_eq!(ledger[4].previous_seq, Some(4));
    let read = fixture.store.entries_with_bookings(event, 0, 100).await.expect("entries");
    assert!(read.iter().map(|each| &each.entry).eq(&ledger));
    assert_eq!(read[3].booking, Some(fixture.booking(paid.id).await));
    let report = fixture.store.audit().await.expect("an audit");
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!(report.unknown_kinds, [("booking.transferred".to_owned(), 1)].into());
}
