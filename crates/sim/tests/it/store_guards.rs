//! Tests of the store's guards. They bypass the rules: the store itself must reject each invalid write.

use std::sync::Arc;

use domain::{RefundOutcome, Settlement, Timestamp};
use store::conformance::StoreHarness;
use store::conformance::fixture::{Fixture, command, payment};
use store::{Fault, Reply, Sqlite, SqliteOptions};

/// Statements that the database must reject.
const FORBIDDEN: &[&str] = &[
    "UPDATE events SET held = capacity - sold + 1",
    "UPDATE ticket_types SET capacity = 1, held = 2",
    "UPDATE user_limits SET tickets = max_tickets + 1",
    "INSERT INTO refunds SELECT randomblob(16), booking_id, event_id, transaction_id, amount, currency,
            status, reason, provider_reference, created_at, settled_at FROM refunds",
];

/// Statements of another transaction between the read and the write of a command, which must then fail.
const CONCURRENT_WRITES: &[(&str, &str)] = &[
    ("book", "UPDATE events SET seq = seq + 1"),
    ("confirm", "UPDATE bookings SET version = version + 1 WHERE status = 'pending'"),
    ("settle", "UPDATE refunds SET status = 'failed', settled_at = 1"),
];

/// Returns the statements that the store did not reject; empty while its guards are in place.
pub(crate) async fn unrejected_statements() -> Vec<&'static str> {
    let mut accepted = Vec::new();
    for sql in FORBIDDEN {
        let harness = memory_harness();
        let _command = prepare(&Fixture::new(&harness), "book").await;
        if harness.0.execute_directly(sql).is_ok() {
            accepted.push(*sql);
        }
    }
    for (name, sql) in CONCURRENT_WRITES {
        let harness = memory_harness();
        let fixture = Fixture::new(&harness);
        let command = prepare(&fixture, name).await;
        harness.0.inject_before_write(sql);
        if !matches!(fixture.run(command).await, Reply::Failed(Fault::Broken(_))) {
            accepted.push(*sql);
        }
    }
    accepted
}

/// A store in memory, with a clock that stands.
fn memory_harness() -> StoreHarness<Sqlite> {
    let now: Timestamp = "2027-01-15T12:00:00Z".parse().expect("an instant");
    let options = SqliteOptions { clock: Arc::new(move || now), inline: true };
    StoreHarness(Arc::new(Sqlite::in_memory(&options).expect("a store")))
}

/// Creates an event with one pending booking and one that was paid and cancelled, and returns the named
/// command on it.
async fn prepare(fixture: &Fixture<'_>, name: &str) -> domain::Command {
    let new = domain::NewEvent { max_tickets_per_user: Some(5), ..fixture.new_event(9) };
    let event = fixture.create(new).await.id;
    let held = fixture.run_ok(fixture.book(event, "a", 1)).await;
    let paid = fixture.book_and_pay(event, "b", 1, "t").await;
    fixture.run_ok(fixture.cancel(&paid)).await;
    let settlement = Settlement {
        event_id: event,
        booking_id: paid.id,
        transaction: payment("t"),
        outcome: RefundOutcome { succeeded: true, provider_reference: "r".parse().expect("a name") },
    };
    match name {
        "book" => fixture.book(event, "a", 1),
        "confirm" => fixture.confirm(&held, "u"),
        _ => command(domain::Action::Settle(Box::new(settlement))),
    }
}

#[tokio::test]
async fn the_store_rejects_invalid_writes() {
    assert_eq!(unrejected_statements().await, Vec::<&str>::new());
}
