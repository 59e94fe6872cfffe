//! Holds that nobody paid in time are freed when their tickets are asked for: as many as needed, the oldest
//! first, and never "sold out" while one is left.

use std::sync::Arc;
use std::time::Duration;

use domain::{
    Actor, Ask, Booking, BookingStatus, EntryKind, Event, EventPatch, NewEvent, TicketTypeId, UserId,
};

use super::Rig;
use super::stage::{HOLD, Stage, command, edit, expire, user, word};
use crate::OVERDUE_PER_BATCH_MAX;

const PENDING: BookingStatus = BookingStatus::Pending;
const EXPIRED: BookingStatus = BookingStatus::Expired;

/// An event filled with so many bookings of one ticket, in their order, all overdue.
async fn full_of_overdue(stage: &Stage<'_>, count: u32) -> (Event, Vec<Arc<Booking>>) {
    let event = stage.create(stage.concert(count)).await;
    let wishes: Vec<_> = (0..count).map(|_| ("slow", 1)).collect();
    let mut holds = Vec::new();
    for part in wishes.chunks(crate::BATCH_MAX) {
        holds.extend(stage.hold(event.id, part).await);
    }
    stage.rig.advance(HOLD).await;
    (event, holds)
}

/// So many in the first status, then so many in the second.
fn first_then(first: (usize, BookingStatus), then: (usize, BookingStatus)) -> Vec<BookingStatus> {
    let mut all = vec![first.1; first.0];
    all.resize(first.0 + then.0, then.1);
    all
}

pub(super) async fn only_what_is_overdue_is_freed(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(1)).await;
    let held = stage.done(stage.book(event.id, "slow", 1)).await;
    let almost = HOLD.saturating_sub(Duration::from_mins(1));
    rig.advance(almost).await;
    let commands = vec![stage.book(event.id, "a", 1), expire(&held)];
    assert_eq!(stage.words(commands).await, ["sold_out", "invalid_state"]);
    rig.advance(Duration::from_mins(1)).await;
    assert_eq!(stage.status(&held).await, PENDING, "time alone changes nothing");
    assert_eq!(stage.words(vec![stage.book(event.id, "a", 1)]).await, ["ok"]);
    assert_eq!(stage.status(&held).await, EXPIRED);
    stage.clean().await;
}

pub(super) async fn holds_are_freed_by_event_oldest_first(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(8)).await;
    let mut holds = stage.hold(event.id, &[("a", 2), ("b", 2)]).await;
    // Made later, and overdue earlier.
    let shorter = EventPatch { hold_seconds: Some(300), ..EventPatch::default() };
    stage.run(edit(event.id, shorter)).await;
    holds.extend(stage.hold(event.id, &[("c", 2), ("d", 2)]).await);
    rig.advance(HOLD).await;

    let mut order = stage.book(event.id, "e", 3);
    order.request = "req-order".parse().expect("a request");
    assert_eq!(word(&stage.run(order).await), "ok");
    assert_eq!(stage.statuses(&holds).await, [PENDING, PENDING, EXPIRED, EXPIRED]);
    let ledger = stage.ledger(event.id).await;
    let last: Vec<_> = ledger[ledger.len() - 3..].iter().collect();
    assert_eq!([last[0].booking_id, last[1].booking_id], [Some(holds[2].id), Some(holds[3].id)]);
    let kinds = [EntryKind::BookingExpired, EntryKind::BookingExpired, EntryKind::BookingCreated];
    assert_eq!(last.iter().map(|entry| entry.kind).collect::<Vec<_>>(), kinds);
    assert!(last[..2].iter().all(|entry| entry.actor == Actor::System));
    assert!(last.iter().all(|entry| entry.request.as_str() == "req-order"));

    // Four were freed and three taken: the one left is used first.
    assert_eq!(stage.words(vec![stage.book(event.id, "f", 2)]).await, ["ok"]);
    assert_eq!(stage.statuses(&holds).await, [EXPIRED, PENDING, EXPIRED, EXPIRED]);
    let commands = vec![stage.book(event.id, "g", 4), stage.book(event.id, "g", 3)];
    assert_eq!(stage.words(commands).await, ["insufficient_availability", "ok"]);
    assert_eq!(stage.statuses(&holds).await, [EXPIRED; 4]);
    stage.clean().await;
}

/// An event of many tickets with two ticket types, of two each.
fn two_types(stage: &Stage<'_>, capacity: u32) -> (NewEvent, [TicketTypeId; 2]) {
    let mut new = stage.concert(capacity);
    new.ticket_types = vec![stage.ticket_type(Some(2)), stage.ticket_type(Some(2))];
    let ids = [new.ticket_types[0].id, new.ticket_types[1].id];
    (new, ids)
}

pub(super) async fn holds_are_freed_by_ticket_type(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let (new, [stalls, balcony]) = two_types(&stage, 100);
    let event = stage.create(new).await.id;
    let mut holds = Vec::new();
    for kind in [balcony, stalls, balcony, stalls] {
        holds.push(stage.done(stage.order(event, "slow", Ask::Items(vec![(kind, 1)]))).await);
    }
    rig.advance(HOLD).await;
    let order = |kind| stage.order(event, "a", Ask::Items(vec![(kind, 1)]));
    assert_eq!(stage.words(vec![order(stalls)]).await, ["ok"]);
    assert_eq!(stage.statuses(&holds).await, [PENDING, EXPIRED, PENDING, PENDING]);
    assert_eq!(
        stage.words(vec![order(stalls), order(stalls), order(balcony)]).await,
        ["ok", "sold_out", "ok"]
    );
    assert_eq!(stage.statuses(&holds).await, [EXPIRED, EXPIRED, PENDING, EXPIRED]);
    stage.clean().await;
}

pub(super) async fn a_hold_with_several_types_frees_them_all(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let (new, [stalls, balcony]) = two_types(&stage, 100);
    let event = stage.create(new).await.id;
    let both = Ask::Items(vec![(stalls, 1), (balcony, 2)]);
    let held = stage.done(stage.order(event, "slow", both.clone())).await;
    rig.advance(HOLD).await;
    let fits = stage.order(event, "a", Ask::Items(vec![(stalls, 1)]));
    assert_eq!(stage.words(vec![fits]).await, ["ok"]);
    assert_eq!(stage.status(&held).await, PENDING, "nothing was missing");
    assert_eq!(stage.words(vec![stage.order(event, "b", both)]).await, ["ok"]);
    assert_eq!(stage.status(&held).await, EXPIRED);
    let types = stage.event(event).await.stock.types;
    assert_eq!([types[0].held, types[1].held], [2, 2]);
    stage.clean().await;
}

pub(super) async fn holds_are_freed_by_user(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(NewEvent { max_tickets_per_user: Some(3), ..stage.concert(100) }).await.id;
    let holds = stage.hold(event, &[("b", 2), ("a", 1), ("a", 2)]).await;
    rig.advance(HOLD).await;
    assert_eq!(stage.words(vec![stage.book(event, "a", 1)]).await, ["ok"]);
    assert_eq!(stage.statuses(&holds).await, [PENDING, EXPIRED, PENDING]);
    let commands = vec![stage.book(event, "a", 2), stage.book(event, "a", 1)];
    assert_eq!(stage.words(commands).await, ["ok", "booking_limit_exceeded"]);
    assert_eq!(stage.statuses(&holds).await, [PENDING, EXPIRED, EXPIRED]);
    stage.clean().await;
}

/// The user, the ticket type and the event itself stand in the way, one after the other.
pub(super) async fn several_scopes_are_freed_for_one_order(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let (mut new, [stalls, balcony]) = two_types(&stage, 4);
    new.max_tickets_per_user = Some(2);
    let event = stage.create(new).await.id;
    let order = |name: &str, kind, quantity| stage.order(event, name, Ask::Items(vec![(kind, quantity)]));
    let mut holds = Vec::new();
    for wish in [order("a", balcony, 1), order("a", balcony, 1), order("b", stalls, 1), order("c", stalls, 1)]
    {
        holds.push(stage.done(wish).await);
    }
    rig.advance(HOLD).await;
    assert_eq!(stage.words(vec![order("a", stalls, 1)]).await, ["ok"]);
    assert_eq!(stage.statuses(&holds).await, [EXPIRED, PENDING, EXPIRED, PENDING]);
    assert_eq!(
        stage.words(vec![order("d", stalls, 2), order("d", balcony, 2)]).await,
        ["insufficient_availability", "ok"]
    );
    // The order that was refused had freed what there was before it knew.
    assert_eq!(stage.statuses(&holds).await, [EXPIRED; 4]);
    let counted: Vec<UserId> = ["a", "b", "c", "d"].map(user).to_vec();
    let live = stage.store.bookings(crate::BookingList::All { after: None }, Some(PENDING), 10).await;
    let live: Vec<_> = live.expect("a read").rows.into_iter().map(|booking| booking.user).collect();
    assert_eq!(live, [counted[3].clone(), counted[0].clone()]);
    stage.clean().await;
}

pub(super) async fn holds_are_freed_page_after_page(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let (event, holds) = full_of_overdue(&stage, 200).await;
    assert_eq!(stage.words(vec![stage.book(event.id, "a", 150)]).await, ["ok"]);
    assert_eq!(stage.statuses(&holds).await, first_then((150, EXPIRED), (50, PENDING)));
    let commands =
        vec![stage.book(event.id, "b", 51), stage.book(event.id, "b", 50), stage.book(event.id, "b", 1)];
    assert_eq!(stage.words(commands).await, ["insufficient_availability", "ok", "sold_out"]);
    assert_eq!(stage.statuses(&holds).await, vec![EXPIRED; 200]);
    stage.clean().await;
}

pub(super) async fn orders_of_a_batch_share_what_is_freed(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let (event, holds) = full_of_overdue(&stage, 200).await;
    let commands = [10, 70, 30].map(|quantity| stage.book(event.id, "a", quantity)).to_vec();
    assert_eq!(stage.words(commands).await, ["ok"; 3]);
    assert_eq!(stage.statuses(&holds).await, first_then((110, EXPIRED), (90, PENDING)));

    let event = stage.create(stage.concert(10)).await.id;
    let holds = stage.hold(event, &[("a", 2); 5]).await;
    rig.advance(HOLD).await;
    assert_eq!(stage.words(vec![stage.book(event, "b", 3), stage.book(event, "c", 3)]).await, ["ok"; 2]);
    assert_eq!(stage.statuses(&holds).await, first_then((3, EXPIRED), (2, PENDING)));
    stage.clean().await;
}

pub(super) async fn a_hold_touched_by_its_batch_is_not_freed_again(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let (event, holds) = full_of_overdue(&stage, 5).await;
    let commands = vec![
        stage.confirm(&holds[0], "t"),
        stage.cancel(&holds[1]),
        expire(&holds[2]),
        stage.book(event.id, "a", 3),
        stage.book(event.id, "a", 2),
        stage.book(event.id, "a", 1),
        expire(&holds[3]),
        stage.confirm(&holds[4], "u"),
    ];
    let expected =
        ["ok", "ok", "ok", "ok", "insufficient_availability", "ok", "invalid_state", "hold_expired"];
    assert_eq!(stage.words(commands).await, expected);
    let ends = [BookingStatus::Confirmed, BookingStatus::Cancelled, EXPIRED, EXPIRED, EXPIRED];
    assert_eq!(stage.statuses(&holds).await, ends);
    stage.clean().await;
}

pub(super) async fn more_holds_than_a_batch_frees_are_carried_over(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let other = stage.create(stage.concert(1)).await.id;
    stage.hold(other, &[("slow", 1)]).await;
    let idle = stage.create(stage.concert(1)).await.id;
    let count = u32::try_from(OVERDUE_PER_BATCH_MAX).expect("a small bound") + 276;
    let (event, holds) = full_of_overdue(&stage, count).await;
    let large = stage.book(event.id, "a", 1_200);
    let waiting = stage.book(other, "a", 1);
    let commands =
        vec![large.clone(), waiting.clone(), stage.book(idle, "a", 1), stage.book(event.id, "b", 1)];
    // Two lack tickets that this batch may no longer free; the others are served from what is left.
    assert_eq!(stage.words(commands).await, ["carried", "carried", "ok", "ok"]);
    let id = large.booking_id().expect("an order makes a booking");
    assert_eq!(stage.store.booking(id).await.expect("a read"), None, "nothing changed for it");
    let freed = first_then((OVERDUE_PER_BATCH_MAX, EXPIRED), (276, PENDING));
    assert_eq!(stage.statuses(&holds).await, freed);
    stage.clean().await;

    assert_eq!(stage.words(vec![large, waiting]).await, ["ok", "ok"]);
    let freed = first_then((OVERDUE_PER_BATCH_MAX + 177, EXPIRED), (99, PENDING));
    assert_eq!(stage.statuses(&holds).await, freed);
    let too_many = command(stage.book(event.id, "c", 1_300).action);
    assert_eq!(stage.words(vec![too_many]).await, ["insufficient_availability"]);
    assert_eq!(stage.event(event.id).await.available(), 99);
    stage.clean().await;
}
