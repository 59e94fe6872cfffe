//! Concurrent callers, each with one command per batch: the database resolves the races.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use domain::{BookingStatus, Command, NewEvent};
use tokio::task::JoinSet;

use super::Harness;
use super::fixture::{Fixture, HOLD, expire, outcome_code};
use crate::{Reply, Submission};

/// Submits every command in a task of its own, in an order determined by the seed, and returns all replies.
async fn execute_concurrently(fixture: &Fixture<'_>, mut commands: Vec<Command>, seed: u64) -> Vec<Reply> {
    fastrand::Rng::with_seed(seed).shuffle(&mut commands);
    let mut callers = JoinSet::new();
    for command in commands {
        let store = Arc::clone(&fixture.store);
        callers.spawn(async move { store.execute(vec![command.into()]).await });
    }
    callers.join_all().await.into_iter().flatten().collect()
}

fn count(replies: &[Reply], code: &str) -> usize {
    replies.iter().filter(|reply| outcome_code(reply) == code).count()
}

pub(super) async fn tickets_are_never_sold_twice(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    for (callers, tickets, quantity) in [(40, 1, 1), (60, 20, 1), (40, 25, 3)] {
        let event = fixture.create(fixture.new_event(tickets)).await.id;
        let orders =
            (0..callers).map(|number| fixture.book(event, &format!("u{number}"), quantity)).collect();
        let replies = execute_concurrently(&fixture, orders, u64::from(tickets)).await;
        let winners = tickets / quantity;
        assert_eq!(count(&replies, "ok"), winners as usize, "{tickets} tickets by {quantity}");
        let losers = count(&replies, "sold_out") + count(&replies, "insufficient_availability");
        assert_eq!(losers, (callers - winners) as usize);
        let stock = fixture.event(event).await.inventory;
        assert_eq!((stock.held, stock.seq), (winners * quantity, u64::from(winners) + 1));
        assert_eq!(fixture.ledger(event).await.len(), winners as usize + 1);
    }
    fixture.assert_audit_clean().await;
}

pub(super) async fn users_never_exceed_their_limit(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(NewEvent { max_tickets_per_user: Some(4), ..fixture.new_event(100) }).await.id;
    let orders = (0..30).map(|number| fixture.book(event, ["a", "b", "c"][number % 3], 1)).collect();
    let replies = execute_concurrently(&fixture, orders, 3).await;
    assert_eq!((count(&replies, "ok"), count(&replies, "booking_limit_exceeded")), (12, 18));
    fixture.assert_audit_clean().await;
}

/// A webhook repeated by many callers, concurrently with a cancellation and an expiry of the same booking.
pub(super) async fn a_payment_reported_concurrently_is_accepted_once(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    for seed in 0..12 {
        let event = fixture.create(fixture.new_event(1)).await.id;
        let held = fixture.run_ok(fixture.book(event, "a", 1)).await;
        harness.advance(HOLD).await;
        let mut commands: Vec<_> = (0..4).map(|_| fixture.confirm(&held, "t")).collect();
        commands.extend([fixture.cancel(&held), expire(&held), fixture.book(event, "b", 1)]);
        let replies = execute_concurrently(&fixture, commands, seed).await;
        assert_eq!(count(&replies, "failed") + count(&replies, "requeue"), 0, "{replies:?}");
        let booking = fixture.booking(held.id).await;
        let refunds: Vec<_> =
            fixture.refunds().await.into_iter().filter(|refund| refund.booking_id == held.id).collect();
        // The payment either confirms the booking or is refunded, once.
        let pays = usize::from(booking.status() == BookingStatus::Confirmed);
        assert_eq!(refunds.len() + pays, 1, "seed {seed}: {booking:?} {refunds:?}");
    }
    fixture.assert_audit_clean().await;
}

/// If a caller drops its call, the batch is committed as a whole, or was never started.
pub(super) async fn a_dropped_call_commits_fully_or_not_at_all(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(1_000)).await.id;
    for polls in 0..8 {
        let commands: Vec<_> = (0..20).map(|_| Submission::from(fixture.book(event, "a", 1))).collect();
        let ids: Vec<_> = commands.iter().filter_map(|each| each.command.booking_id()).collect();
        {
            let mut call = pin!(fixture.store.execute(commands));
            for _ in 0..polls {
                let done = poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await;
                if done {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        let before = count_existing(&fixture, &ids).await;
        assert!(before == 0 || before == ids.len(), "{before} of {}", ids.len());
        // A later command of the event waits for a batch that was started.
        assert_eq!(fixture.outcome_codes(vec![fixture.book(event, "b", 1)]).await, ["ok"]);
        let after = count_existing(&fixture, &ids).await;
        assert!(after == 0 || after == ids.len(), "{after} of {}", ids.len());
    }
    fixture.assert_audit_clean().await;
}

/// The number of these bookings that exist, by one query.
async fn count_existing(fixture: &Fixture<'_>, ids: &[domain::BookingId]) -> usize {
    let all = crate::BookingList::All { after: None };
    let page = fixture.store.bookings(all, None, 1_000).await.expect("a page");
    page.rows.iter().filter(|booking| ids.contains(&booking.id)).count()
}
