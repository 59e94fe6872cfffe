//! The constraints of the database, which hold whatever the code above it does.

use domain::NewEvent;
use rusqlite::Connection;
use store::conformance::fixture::Fixture;

use crate::conformance::FileHarness;
use crate::corrupt_rows::dump;

/// An invalid write, and the constraint that rejects it.
const REJECTED: &[(&str, &str)] = &[
    ("UPDATE events SET held = capacity, sold = 1", "event_capacity"),
    ("UPDATE events SET capacity = 2", "event_capacity"),
    ("UPDATE events SET held = -1", "held >= 0"),
    ("UPDATE events SET sold = -1", "sold >= 0"),
    ("UPDATE events SET seq = 0", "seq >= 1"),
    ("UPDATE events SET pending = -1", "pending >= 0"),
    ("UPDATE events SET confirmed = -1", "confirmed >= 0"),
    ("UPDATE events SET cancelled = -1", "cancelled >= 0"),
    ("UPDATE events SET expired = -1", "expired >= 0"),
    ("UPDATE events SET held = 'many'", "cannot store TEXT value in INTEGER column"),
    ("UPDATE ticket_types SET held = capacity, sold = 1 WHERE capacity > 0", "ticket_type_capacity"),
    ("UPDATE ticket_types SET held = -1", "held >= 0"),
    ("UPDATE ticket_types SET sold = -1", "sold >= 0"),
    (
        "INSERT INTO ticket_types SELECT event_id, 7, id, name, price, capacity, 0, 0 FROM ticket_types",
        "UNIQUE constraint failed: ticket_types.id",
    ),
    ("INSERT INTO events SELECT * FROM events", "UNIQUE constraint failed: events.id"),
    ("UPDATE event_details SET status = 'gone'", "status IN"),
    ("UPDATE event_details SET event_id = X'00'", "FOREIGN KEY constraint failed"),
    ("UPDATE user_limits SET tickets = max_tickets + 1", "user_limit"),
    ("UPDATE user_limits SET tickets = -1", "tickets >= 0"),
    ("INSERT INTO bookings SELECT * FROM bookings", "UNIQUE constraint failed: bookings.id"),
    ("UPDATE bookings SET status = 'sold'", "booking_state"),
    ("UPDATE bookings SET status = 'confirmed' WHERE status = 'pending'", "booking_state"),
    ("UPDATE bookings SET status = 'pending' WHERE status = 'confirmed'", "booking_state"),
    ("UPDATE bookings SET status = 'expired' WHERE status = 'pending'", "booking_state"),
    ("UPDATE bookings SET status = 'cancelled' WHERE status = 'pending'", "booking_state"),
    ("UPDATE bookings SET transaction_id = 't' WHERE status = 'pending'", "booking_state"),
    ("UPDATE bookings SET confirmed_at = NULL WHERE status = 'confirmed'", "booking_state"),
    ("UPDATE bookings SET cancellation_reason = 'r' WHERE status = 'pending'", "booking_state"),
    ("UPDATE bookings SET refunded = 1 WHERE status = 'confirmed'", "booking_state"),
    ("UPDATE bookings SET expired_at = 1 WHERE status = 'cancelled'", "booking_state"),
    ("UPDATE bookings SET version = 0", "version >= 1"),
    ("INSERT INTO ledger SELECT * FROM ledger", "UNIQUE constraint failed: ledger.event_id, ledger.seq"),
    ("UPDATE ledger SET previous_seq = seq", "previous_seq < seq"),
    ("UPDATE ledger SET available_after = -1", "available_after >= 0"),
    (
        "INSERT INTO refunds SELECT randomblob(16), booking_id, event_id, transaction_id, amount, currency,
                status, reason, provider_reference, created_at, settled_at FROM refunds",
        "UNIQUE constraint failed: refunds.booking_id, refunds.transaction_id",
    ),
    ("UPDATE refunds SET status = 'succeeded'", "refund_settled"),
    ("UPDATE refunds SET settled_at = 1", "refund_settled"),
    ("UPDATE refunds SET status = 'lost'", "status IN"),
    ("INSERT INTO idempotency VALUES ('s', '', zeroblob(32), X'', 1)", "length(key)"),
    ("INSERT INTO idempotency VALUES ('s', 'k', zeroblob(31), X'', 1)", "length(fingerprint)"),
];

#[tokio::test]
async fn constraints_reject_invalid_rows() {
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let mut new = NewEvent { max_tickets_per_user: Some(4), ..fixture.new_event(9) };
    new.ticket_types = vec![fixture.ticket_type(Some(9))];
    let event = fixture.create(new).await.id;
    let paid = fixture.book_and_pay(event, "a", 2, "t").await;
    fixture.run_ok(fixture.cancel(&paid)).await;
    fixture.book_and_pay(event, "b", 2, "t").await;
    fixture.hold(event, &[("c", 2)]).await;

    let connection = Connection::open(&harness.path).unwrap();
    connection.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    let before = dump(&connection);
    for (sql, constraint) in REJECTED {
        let error = connection.execute(sql, []).expect_err(sql).to_string();
        assert!(error.contains(constraint), "{sql}: {error}");
    }
    assert_eq!(dump(&connection), before);
    fixture.assert_audit_clean().await;
}
