//! What the relay asks for.

use domain::{EventId, Timestamp};

use super::Rig;
use super::stage::Stage;
use crate::{Cursor, Progress};

fn made(at: &str) -> Timestamp {
    at.parse().expect("an instant")
}

/// How far all events are, walked with pages of so many.
async fn walk(stage: &Stage<'_>, stream: Timestamp, which: Progress, limit: u32) -> Vec<Cursor> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = stage.store.cursors(stream, which, after, limit).await.expect("a page");
        assert!(page.len() <= limit as usize);
        after = page.last().map(|cursor| cursor.event);
        all.extend(page);
        if after.is_none() {
            return all;
        }
    }
}

pub(super) async fn events_behind_a_stream_are_listed(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let (first, second) = (made("2026-01-01T00:00:00.000001Z"), made("2026-01-01T00:00:00.000002Z"));
    let mut events: Vec<(EventId, u64)> = Vec::new();
    for bookings in [0, 3, 1, 2] {
        let event = stage.create(stage.concert(100)).await.id;
        stage.hold(event, &vec![("a", 1); bookings]).await;
        events.push((event, 1 + bookings as u64));
    }
    events.sort_unstable();
    let cursor = |(event, ledger): (EventId, u64), published| Cursor { event, ledger, published };
    let none: Vec<Cursor> = events.iter().map(|event| cursor(*event, 0)).collect();
    for limit in [1, 3, 100] {
        assert_eq!(walk(&stage, first, Progress::Behind, limit).await, none, "by {limit}");
        assert_eq!(walk(&stage, first, Progress::All, limit).await, none, "by {limit}");
    }
    stage.store.advance(first, vec![(events[0].0, events[0].1), (events[2].0, 1)]).await.expect("noted");
    let all = vec![
        cursor(events[0], events[0].1),
        cursor(events[1], 0),
        cursor(events[2], 1),
        cursor(events[3], 0),
    ];
    assert_eq!(walk(&stage, first, Progress::All, 100).await, all);
    let behind: Vec<Cursor> = all.iter().copied().filter(|each| each.published < each.ledger).collect();
    assert_eq!(walk(&stage, first, Progress::Behind, 100).await, behind);
    // What was noted of one stream says nothing about another, and is forgotten with the next note.
    assert_eq!(walk(&stage, second, Progress::All, 100).await, none);
    stage.store.advance(second, vec![(events[0].0, 1)]).await.expect("noted");
    assert_eq!(walk(&stage, second, Progress::All, 1).await[0], cursor(events[0], 1));
    assert_eq!(walk(&stage, first, Progress::All, 1).await[0], cursor(events[0], 0));
    stage.store.advance(second, Vec::new()).await.expect("nothing to note");
    // What was noted last counts, of whichever stream: here one entry each, of two events.
    let entries: u64 = events.iter().map(|(_, ledger)| ledger).sum();
    assert_eq!(stage.store.untold().await.expect("a number"), entries - 2);
}

pub(super) async fn entries_are_read_with_their_bookings(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(100)).await.id;
    let held = stage.hold(event, &[("a", 1), ("b", 2)]).await;
    stage.done(stage.confirm(&held[1], "t")).await;
    stage.done(stage.cancel(&held[0])).await;
    let ledger = stage.store.ledger(event, 0, 100).await.expect("the ledger").rows;
    for (after, limit) in [(0, 100), (1, 2), (3, 100), (5, 100), (0, 1)] {
        let read = stage.store.recorded(event, after, limit).await.expect("entries");
        let wanted = ledger.iter().filter(|entry| entry.seq > after).take(limit as usize);
        assert!(wanted.eq(read.iter().map(|recorded| &recorded.entry)), "{after} {limit}");
        for recorded in read {
            let booking = match recorded.entry.booking_id {
                Some(id) => Some(stage.booking(id).await),
                None => None,
            };
            assert_eq!(recorded.booking, booking);
        }
    }
    let nobodys = EventId::from_bytes([7; 16]);
    assert!(stage.store.recorded(nobodys, 0, 10).await.expect("nothing").is_empty());
}
