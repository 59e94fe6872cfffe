//! The cancellation of a large event: its bookings are cancelled at a constant rate.
//!
//! `CANCEL_BOOKINGS=1000000` runs a longer test with this number of bookings, and twice as many ledger
//! entries.

use std::sync::Arc;
use std::time::Duration;

use domain::{EventId, EventPatch, EventStatus};
use engine::Engine;
use store::{Sqlite, SqliteOptions, Store};
use testkit::number_from_environment;
use tokio::time::{Instant, sleep};

use crate::corrupt::{DatabaseAccess, SqliteFile, admin, confirm, create_large, engine_on, order};

/// Number of bookings by default: some pages of the chore.
const BOOKINGS: u32 = 3_000;
/// Maximum time per booking on the slowest machine.
const SLOWEST: Duration = Duration::from_millis(100);

/// Writes copies of an event's only booking, which is confirmed, each with its two ledger entries.
async fn copy_booking(database: &dyn DatabaseAccess, event: EventId, count: u32) {
    let (with, numbers) = database.numbers(count);
    let id = database.id("n.i");
    let event = database.literal(event.bytes());
    let entry = |from: u32, seq: &str, previous: &str| {
        format!(
            "INSERT INTO ledger (event_id, seq, type, booking_id, refund_id, lines, quantity, from_status,
                    to_status, available_after, previous_seq, actor, request_id, at)
             {with} SELECT event_id, {seq}, type, {id}, NULL, lines, quantity, from_status, to_status,
                    available_after - n.i, {previous}, actor, request_id,
                    (SELECT max(at) FROM ledger WHERE event_id = {event})
             FROM ledger, {numbers} WHERE event_id = {event} AND seq = {from}"
        )
    };
    let rows = u64::from(count);
    for (sql, changed) in [
        (
            format!(
                "INSERT INTO bookings (id, event_id, user_id, status, version, last_seq, items, currency,
                        total, hold_expires_at, payment_method, transaction_id, confirmed_at, cancelled_at,
                        cancellation_reason, refunded, expired_at, created_at, updated_at)
                 {with} SELECT {id}, event_id, 'user-' || n.i, status, version, 2 * n.i + 3, items, currency,
                        total, hold_expires_at, payment_method, 't-' || n.i, confirmed_at, cancelled_at,
                        cancellation_reason, refunded, expired_at, created_at, updated_at
                 FROM bookings b, {numbers} WHERE b.event_id = {event}"
            ),
            rows,
        ),
        (entry(2, "2 * n.i + 2", "previous_seq"), rows),
        (entry(3, "2 * n.i + 3", "2 * n.i + 2"), rows),
        (format!("UPDATE ticket_types SET sold = sold + {count} WHERE event_id = {event}"), 1),
        (
            format!(
                "UPDATE events SET sold = sold + {count}, confirmed = confirmed + {count},
                        seq = seq + 2 * {count}, revenue = (confirmed + {count}) * 4500 WHERE id = {event}"
            ),
            1,
        ),
    ] {
        assert_eq!(database.change(&sql).await, Ok(changed), "{sql}");
    }
    database.analyze().await;
}

/// The minimum duration of the queries of an idle sweep.
async fn idle_sweep_time(engine: &Engine, store: &dyn Store) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(store.due_holds(engine.now(), None, 512).await.unwrap(), []);
        let cancelled = store.cancelled_events(None, 512).await.unwrap();
        best = best.min(start.elapsed());
        assert!(cancelled.iter().all(|event| !event.has_live_bookings));
    }
    best
}

pub(crate) async fn a_large_event_is_cancelled(store: Arc<dyn Store>, database: &dyn DatabaseAccess) {
    let count = number_from_environment("CANCEL_BOOKINGS").unwrap_or(BOOKINGS);
    let engine = &engine_on(store.clone());
    let event = create_large(engine, count + 10).await.id;
    let first = order(engine, event, "first", None).await;
    confirm(engine, crate::corrupt::booking_of(first).id).await;
    copy_booking(database, event, count).await;
    let before = idle_sweep_time(engine, &*store).await;
    // Only the wake-up starts the chore.
    engine.start_chores(Duration::from_hours(1));
    sleep(Duration::from_millis(100)).await;
    let off = EventPatch { status: Some(EventStatus::Cancelled), ..EventPatch::default() };
    let start = Instant::now();
    engine.update_event(admin(), event, off).await.unwrap();
    let mut tenths = Vec::new();
    let mut cancelled_count = 0;
    while cancelled_count < u64::from(count) + 1 {
        assert!(start.elapsed() < SLOWEST * (count + 1_000), "{cancelled_count} of {count} were cancelled");
        sleep(Duration::from_millis(20)).await;
        cancelled_count = store.event(event).await.unwrap().expect("the event").inventory.tallies.cancelled;
        if cancelled_count * 10 >= u64::from(count) * (tenths.len() as u64 + 1) {
            tenths.push((start.elapsed(), cancelled_count));
        }
    }
    let took = start.elapsed();
    engine.drain().await;
    let after = idle_sweep_time(engine, &*store).await;
    assert_eq!(engine.audit().await.unwrap().violations, Vec::<String>::new());
    let mut last = (Duration::ZERO, 0);
    let rates = tenths.iter().map(|(at, cancelled_count)| {
        let rate = f64::from(u32::try_from(cancelled_count - last.1).unwrap())
            / at.saturating_sub(last.0).as_secs_f64();
        last = (*at, *cancelled_count);
        format!("{rate:.0}")
    });
    let rates: Vec<_> = rates.collect();
    println!(
        "{count} bookings cancelled in {took:?}; bookings/s by tenths: {}; an idle sweep takes {before:?} \
         before and {after:?} after",
        rates.join(" ")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_a_large_event_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("box.db");
    let options = SqliteOptions { clock: Arc::new(engine::SystemClock), inline: false };
    let store = Arc::new(Sqlite::open(&path, true, &options).unwrap());
    a_large_event_is_cancelled(store, &SqliteFile(path)).await;
}
