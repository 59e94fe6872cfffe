//! Tampering that is possible only on SQLite; the conformance suite has the other cases.

use rusqlite::Connection;
use store::conformance::Harness;
use store::conformance::fixture::HOLD;
use store::conformance::fixture::{Fixture, expire};

use crate::conformance::FileHarness;

/// A change of the rows of one event, with all checks disabled, and a part of the audit's violation.
const TAMPERINGS: &[(&str, &str)] = &[
    // Without the constraints: more tickets sold than exist, and two refunds of one payment.
    ("UPDATE events SET capacity = 3", "the sum of held, sold and available"),
    ("UPDATE ticket_types SET held = held + 900", "held of tt_"),
    (
        "CREATE TABLE loose AS SELECT * FROM refunds;
         INSERT INTO loose SELECT randomblob(16), booking_id, event_id, transaction_id, amount, currency,
                status, reason, provider_reference, created_at, settled_at FROM refunds;
         DROP TABLE refunds; ALTER TABLE loose RENAME TO refunds",
        "refunds a payment a second time",
    ),
    (
        "INSERT INTO refunds SELECT randomblob(16), booking_id, event_id, 'other', amount, currency, status,
                reason, provider_reference, created_at, settled_at FROM refunds",
        "has no entry in the ledger",
    ),
    (
        "UPDATE refunds SET (booking_id, transaction_id) =
                (SELECT id, transaction_id FROM bookings WHERE status = 'confirmed')",
        "refunds the payment of a confirmed booking",
    ),
    // Rows that belong to no event.
    (
        "INSERT INTO bookings (id, event_id, user_id, status, version, last_seq, items, currency, total,
                hold_expires_at, payment_method, transaction_id, confirmed_at, cancelled_at,
                cancellation_reason, refunded, expired_at, created_at, updated_at)
         SELECT randomblob(16), event_id, user_id, status, version, last_seq, items,
                currency, total, hold_expires_at, payment_method, transaction_id, confirmed_at, cancelled_at,
                cancellation_reason, refunded, expired_at, created_at, updated_at
         FROM bookings WHERE status = 'cancelled'",
        "5 rows are stored, but only 4 bookings are reachable from their ledger",
    ),
    ("UPDATE bookings SET event_id = X'00' WHERE status = 'pending'", "has a ledger but no row"),
    (
        "UPDATE ledger SET event_id = randomblob(16) WHERE seq = 10",
        "but only 9 ledger entries are reachable from an event",
    ),
    ("UPDATE refunds SET event_id = randomblob(16)", "belongs to evt_"),
    ("DELETE FROM event_details", "has counters but no description"),
    (
        "DELETE FROM event_details; DELETE FROM ticket_types; DELETE FROM events",
        "4 rows are stored, but only 0 bookings",
    ),
    // Rows that cannot be decoded.
    ("UPDATE events SET revenue = 'much'", "unreadable: evt_"),
    ("UPDATE events SET sold = -1", "unreadable: evt_"),
    ("UPDATE event_details SET currency = 'ZZZ'", "unreadable: evt_"),
    ("UPDATE event_details SET status = 'soon'", "unreadable: evt_"),
    ("DELETE FROM ticket_types", "has no ticket type"),
    ("UPDATE ticket_types SET price = -1", "unreadable: evt_"),
    ("UPDATE bookings SET items = '{}' WHERE status = 'pending'", "unreadable: a booking of evt_"),
    ("UPDATE bookings SET status = 'paid' WHERE status = 'pending'", "status paid contradicts its dates"),
    ("UPDATE bookings SET version = 1 << 40 WHERE status = 'pending'", "unreadable: a booking of evt_"),
    ("UPDATE ledger SET type = 'Booking.Sold' WHERE seq = 3", "unreadable: a ledger entry of evt_"),
    ("UPDATE ledger SET to_status = 'sold' WHERE seq = 3", "unreadable: a ledger entry of evt_"),
    ("UPDATE ledger SET lines = '[[1,2]]' WHERE seq = 3", "unreadable: a ledger entry of evt_"),
    ("UPDATE ledger SET actor = 'nobody' WHERE seq = 3", "unreadable: a ledger entry of evt_"),
    ("UPDATE refunds SET reason = 'mood'", "unreadable: a refund of evt_"),
    ("UPDATE user_limits SET user_id = 'a b' WHERE user_id = 'b'", "unreadable: a counted user of evt_"),
    ("UPDATE user_limits SET tickets = 1 << 40 WHERE user_id = 'b'", "unreadable: a counted user of evt_"),
];

#[tokio::test]
async fn the_audit_finds_rows_that_bypassed_constraints() {
    for (sql, expected) in TAMPERINGS {
        let harness = FileHarness::new();
        let fixture = Fixture::new(&harness);
        let event = domain::NewEvent { max_tickets_per_user: Some(9), ..fixture.new_event(9) };
        let event = fixture.create(event).await.id;
        let late = fixture.run_ok(fixture.book(event, "late", 1)).await;
        harness.advance(HOLD).await;
        fixture.run_ok(expire(&late)).await;
        let paid = fixture.book_and_pay(event, "a", 2, "t").await;
        fixture.run_ok(fixture.cancel(&paid)).await;
        fixture.book_and_pay(event, "b", 2, "t").await;
        fixture.hold(event, &[("c", 2)]).await;
        fixture.assert_audit_clean().await;
        let entries = fixture.ledger(event).await.len();
        assert_eq!(entries, 10);

        let connection = Connection::open(&harness.path).unwrap();
        connection.execute_batch("PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF").unwrap();
        connection.execute_batch(sql).unwrap();
        let report = fixture.store.audit().await.unwrap();
        assert!(report.violations.iter().any(|violation| violation.contains(expected)), "{sql}: {report:#?}");
    }
}
