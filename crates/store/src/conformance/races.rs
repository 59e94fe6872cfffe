//! Many callers at once: the database decides, each command alone in its batch.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use domain::{BookingStatus, Command, NewEvent};
use tokio::task::JoinSet;

use super::Rig;
use super::luck::Luck;
use super::stage::{HOLD, Stage, expire, word};
use crate::{Reply, Submission};

/// Submits every command in a task of its own, in an order by the seed, and answers all replies.
async fn at_once(stage: &Stage<'_>, mut commands: Vec<Command>, seed: u64) -> Vec<Reply> {
    Luck(seed).shuffle(&mut commands);
    let mut callers = JoinSet::new();
    for command in commands {
        let store = Arc::clone(&stage.store);
        callers.spawn(async move { store.execute(vec![command.into()]).await });
    }
    callers.join_all().await.into_iter().flatten().collect()
}

fn count(replies: &[Reply], what: &str) -> usize {
    replies.iter().filter(|reply| word(reply) == what).count()
}

pub(super) async fn tickets_are_never_given_out_twice(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    for (callers, tickets, quantity) in [(40, 1, 1), (60, 20, 1), (40, 25, 3)] {
        let event = stage.create(stage.concert(tickets)).await.id;
        let orders = (0..callers).map(|number| stage.book(event, &format!("u{number}"), quantity)).collect();
        let replies = at_once(&stage, orders, u64::from(tickets)).await;
        let winners = tickets / quantity;
        assert_eq!(count(&replies, "ok"), winners as usize, "{tickets} tickets by {quantity}");
        let losers = count(&replies, "sold_out") + count(&replies, "insufficient_availability");
        assert_eq!(losers, (callers - winners) as usize);
        let stock = stage.event(event).await.stock;
        assert_eq!((stock.held, stock.seq), (winners * quantity, u64::from(winners) + 1));
        assert_eq!(stage.ledger(event).await.len(), winners as usize + 1);
    }
    stage.clean().await;
}

pub(super) async fn users_never_exceed_their_limit(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(NewEvent { max_tickets_per_user: Some(4), ..stage.concert(100) }).await.id;
    let orders = (0..30).map(|number| stage.book(event, ["a", "b", "c"][number % 3], 1)).collect();
    let replies = at_once(&stage, orders, 3).await;
    assert_eq!((count(&replies, "ok"), count(&replies, "booking_limit_exceeded")), (12, 18));
    stage.clean().await;
}

/// A webhook repeated by many callers, beside a cancellation and an expiry of the same booking.
pub(super) async fn one_payment_reported_by_many_is_taken_once(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    for seed in 0..12 {
        let event = stage.create(stage.concert(1)).await.id;
        let held = stage.done(stage.book(event, "a", 1)).await;
        rig.advance(HOLD).await;
        let mut commands: Vec<_> = (0..4).map(|_| stage.confirm(&held, "t")).collect();
        commands.extend([stage.cancel(&held), expire(&held), stage.book(event, "b", 1)]);
        let replies = at_once(&stage, commands, seed).await;
        assert_eq!(count(&replies, "failed") + count(&replies, "carried"), 0, "{replies:?}");
        let booking = stage.booking(held.id).await;
        let refunds: Vec<_> =
            stage.refunds().await.into_iter().filter(|refund| refund.booking_id == held.id).collect();
        // The money either pays for the booking or is given back, once.
        let pays = usize::from(booking.status() == BookingStatus::Confirmed);
        assert_eq!(refunds.len() + pays, 1, "seed {seed}: {booking:?} {refunds:?}");
    }
    stage.clean().await;
}

/// A caller that goes away takes nothing with it: its batch stands as a whole, or was never begun.
pub(super) async fn a_call_that_is_dropped_is_all_or_nothing(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(stage.concert(1_000)).await.id;
    for polls in 0..8 {
        let commands: Vec<_> = (0..20).map(|_| Submission::from(stage.book(event, "a", 1))).collect();
        let ids: Vec<_> = commands.iter().filter_map(|each| each.command.booking_id()).collect();
        {
            let mut call = pin!(stage.store.execute(commands));
            for _ in 0..polls {
                let done = poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await;
                if done {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        let before = made(&stage, &ids).await;
        assert!(before == 0 || before == ids.len(), "{before} of {}", ids.len());
        // A later command of the event waits for what was begun.
        assert_eq!(stage.words(vec![stage.book(event, "b", 1)]).await, ["ok"]);
        let after = made(&stage, &ids).await;
        assert!(after == 0 || after == ids.len(), "{after} of {}", ids.len());
    }
    stage.clean().await;
}

/// How many of these there are, in one look.
async fn made(stage: &Stage<'_>, ids: &[domain::BookingId]) -> usize {
    let all = crate::BookingList::All { after: None };
    let page = stage.store.bookings(all, None, 1_000).await.expect("a page");
    page.rows.iter().filter(|booking| ids.contains(&booking.id)).count()
}
