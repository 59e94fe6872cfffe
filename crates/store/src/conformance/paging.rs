//! Pages while the list grows at its head: what was there at the beginning is seen once each, in order.

use std::sync::Arc;

use domain::{Booking, EventId};

use super::Rig;
use super::lists::walk;
use super::stage::{Stage, user};
use crate::BookingList;

const SHOWN: u32 = 4;

/// Walks a list while a booking is made, another confirmed and a third cancelled before each page.
async fn walk_while_selling(
    stage: &Stage<'_>,
    event: EventId,
    start: &[Arc<Booking>],
    list: impl Fn(Option<String>) -> BookingList,
) {
    let mut changing = start.iter();
    let seen = walk(SHOWN, |cursor| {
        let (list, changed) = (list(cursor), [changing.next(), changing.next_back()]);
        async move {
            let mut commands = vec![stage.book(event, "a", 1)];
            commands.extend(changed[0].map(|booking| stage.confirm(booking, "t")));
            commands.extend(changed[1].map(|booking| stage.cancel(booking)));
            stage.execute(commands).await;
            stage.store.bookings(list, None, SHOWN).await
        }
    })
    .await;
    let from_start: Vec<_> = seen.iter().map(|booking| booking.id).filter(|id| *id <= start[19].id).collect();
    assert_eq!(from_start, start.iter().rev().map(|booking| booking.id).collect::<Vec<_>>());
    // Of those made on the way only the first can have come before the first page.
    assert_eq!(seen.len(), start.len() + 1);
}

pub(super) async fn pages_have_no_gaps_while_rows_come_in(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    for number in 0..4 {
        let event = stage.create(stage.concert(1_000)).await.id;
        let name = format!("u{number}");
        let start = stage.hold(event, &vec![("a", 1); 20]).await;
        match number {
            0 => {
                let after = |cursor: Option<String>| cursor.map(|text| text.parse().expect("a cursor"));
                let list = |cursor| BookingList::OfEvent { event, after: after(cursor) };
                walk_while_selling(&stage, event, &start, list).await;
            }
            1 => {
                let after = |cursor: Option<String>| cursor.map(|text| text.parse().expect("a cursor"));
                let of = Some(event);
                let list = |cursor| BookingList::OfUser { user: user("a"), event: of, after: after(cursor) };
                walk_while_selling(&stage, event, &start, list).await;
            }
            2 => refunds_while_they_come_in(&stage, event, &name).await,
            _ => ledger_while_it_grows(&stage, event).await,
        }
    }
    stage.clean().await;
}

async fn refunds_while_they_come_in(stage: &Stage<'_>, event: EventId, name: &str) {
    let give_up = async || {
        let paid = stage.paid(event, name, 1, "t").await;
        stage.done(stage.cancel(&paid)).await;
        stage.refunds().await[0].id
    };
    let mut start = Vec::new();
    for _ in 0..10 {
        start.insert(0, give_up().await);
    }
    let seen = walk(SHOWN, async |cursor| {
        let after = cursor.map(|text: String| text.parse().expect("a cursor"));
        if after.is_some() {
            give_up().await;
        }
        stage.store.refunds(None, after, SHOWN).await
    })
    .await;
    let seen: Vec<_> = seen.iter().map(|refund| refund.id).collect();
    assert!(seen.starts_with(&start), "{seen:?} {start:?}");
}

/// The ledger grows where its last page ends, so a reader who goes on sees all of it.
async fn ledger_while_it_grows(stage: &Stage<'_>, event: EventId) {
    let (mut seen, mut after) = (Vec::new(), 0);
    for _ in 0..20 {
        stage.hold(event, &[("b", 1), ("c", 1)]).await;
        let page = stage.store.ledger(event, after, 3).await.expect("a page");
        assert_eq!(
            page.next,
            page.rows.last().filter(|_| page.next.is_some()).map(|last| last.seq.to_string())
        );
        seen.extend(page.rows.iter().map(|entry| entry.seq));
        after = *seen.last().expect("an entry");
    }
    assert_eq!(seen, (1..=60).collect::<Vec<_>>());
}
