//! The audit checks the stored data, whichever program wrote it.

use domain::{AuditReport, Event, EventPatch, NewEvent};

use super::Harness;
use super::fixture::{Fixture, HOLD, edit, expire};

/// Creates an event with a booking in every state, a refund, and a limit per user.
async fn event_with_all_states(fixture: &Fixture<'_>) -> Event {
    let mut new = NewEvent { max_tickets_per_user: Some(9), ..fixture.new_event(50) };
    new.ticket_types.push(fixture.ticket_type(Some(40)));
    let both: Vec<_> = new.ticket_types.iter().map(|kind| (kind.id, 1)).collect();
    let event = fixture.create(new).await.id;
    let book = |name: &str| fixture.order(event, name, domain::TicketSelection::Items(both.clone()));
    let late = fixture.run_ok(book("late")).await;
    fixture.harness.advance(HOLD).await;
    fixture.run_ok(expire(&late)).await;
    for name in ["returned", "paid", "held", "cancelled"] {
        let booking = fixture.run_ok(book(name)).await;
        if name == "returned" || name == "paid" {
            fixture.run_ok(fixture.confirm(&booking, "t")).await;
        }
        if name == "returned" || name == "cancelled" {
            fixture.run_ok(fixture.cancel(&booking)).await;
        }
    }
    fixture.run(edit(event, EventPatch { capacity: Some(60), ..EventPatch::default() })).await;
    fixture.event(event).await
}

pub(super) async fn the_audit_counts_rows(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let report = fixture.store.audit().await.expect("an audit");
    assert_eq!(report, AuditReport::default());
    for _ in 0..3 {
        let event = event_with_all_states(&fixture).await;
        assert_eq!((event.inventory.held, event.inventory.sold, event.inventory.seq), (2, 2, 13));
    }
    let report = fixture.store.audit().await.expect("an audit");
    let expected = AuditReport { events: 3, bookings: 15, entries: 39, refunds: 3, ..AuditReport::default() };
    assert_eq!(report, expected);
}

/// A change of the rows of one event, and a part of the audit's violation after the id of the event or the
/// row.
const TAMPERINGS: &[(&str, &str)] = &[
    ("UPDATE events SET held = held + 1 WHERE id = :event", "held is stored as 3 and derived as 2"),
    ("UPDATE events SET sold = sold - 1 WHERE id = :event", "sold is stored as 1 and derived as 2"),
    ("UPDATE events SET held = held + 1, sold = sold - 1 WHERE id = :event", "held is stored as 3"),
    (
        "UPDATE events SET capacity = capacity + 1 WHERE id = :event",
        "available is stored as 57 and derived as 56",
    ),
    ("UPDATE events SET seq = seq + 1 WHERE id = :event", "seq is stored as 14 and derived as 13"),
    ("UPDATE events SET pending = pending + 1 WHERE id = :event", "pending bookings is stored as 2"),
    ("UPDATE events SET confirmed = confirmed - 1 WHERE id = :event", "confirmed bookings is stored as 0"),
    ("UPDATE events SET cancelled = cancelled + 1 WHERE id = :event", "cancelled bookings is stored as 3"),
    ("UPDATE events SET expired = expired - 1 WHERE id = :event", "expired bookings is stored as 0"),
    (
        "UPDATE events SET revenue = revenue - 1 WHERE id = :event",
        "revenue is stored as 8999 and derived as 9000",
    ),
    (
        "UPDATE ticket_types SET held = held + 1 WHERE event_id = :event AND place = 1",
        "is stored as 2 and derived as 1",
    ),
    (
        "UPDATE ticket_types SET sold = sold - 1 WHERE event_id = :event AND place = 0",
        "is stored as 0 and derived as 1",
    ),
    ("DELETE FROM bookings WHERE event_id = :event AND user_id = 'held'", "has a ledger but no row"),
    (
        "UPDATE bookings SET last_seq = last_seq - 1 WHERE event_id = :event AND user_id = 'paid'",
        "names entry 8 as its last, but that is 9",
    ),
    (
        "UPDATE bookings SET last_seq = 500 WHERE event_id = :event AND user_id = 'paid'",
        "names entry 500 as its last",
    ),
    (
        "UPDATE bookings SET status = 'expired', expired_at = created_at \
         WHERE event_id = :event AND user_id = 'held'",
        "is expired, but its ledger has pending",
    ),
    (
        "UPDATE bookings SET status = 'cancelled', cancelled_at = created_at \
         WHERE event_id = :event AND user_id = 'paid'",
        "is cancelled, but its ledger has confirmed",
    ),
    ("UPDATE bookings SET user_id = 'thief' WHERE event_id = :event AND user_id = 'paid'", "user thief"),
    (
        "UPDATE bookings SET total = total + 1 WHERE event_id = :event AND user_id = 'paid'",
        "costs 9001 EUR, but its items cost 9000",
    ),
    ("DELETE FROM ledger WHERE event_id = :event AND seq = 5", "the ledger should continue with entry 5"),
    ("DELETE FROM ledger WHERE event_id = :event AND seq = 13", "seq is stored as 13 and derived as 12"),
    (
        "UPDATE ledger SET quantity = quantity + 1 WHERE event_id = :event AND seq = 2",
        "its lines move 2 tickets, not 3",
    ),
    (
        "UPDATE ledger SET quantity = quantity + 1 WHERE event_id = :event AND seq = 13",
        "leaves 56 tickets after 46",
    ),
    (
        "UPDATE ledger SET available_after = available_after + 1 WHERE event_id = :event AND seq = 4",
        "leaves 49 tickets after 50",
    ),
    (
        "UPDATE ledger SET previous_seq = NULL WHERE event_id = :event AND seq = 3",
        "names None as its previous entry",
    ),
    ("UPDATE ledger SET from_status = 'expired' WHERE event_id = :event AND seq = 3", "does not follow on"),
    (
        "UPDATE ledger SET to_status = 'cancelled' WHERE event_id = :event AND seq = 3",
        "but its ledger has cancelled",
    ),
    (
        "UPDATE ledger SET at = (SELECT max(at) + 1 FROM ledger) WHERE event_id = :event AND seq = 3",
        "is dated before",
    ),
    (
        "UPDATE ledger SET type = 'booking.confirmed' WHERE event_id = :event AND seq = 3",
        "leaves 50 tickets after 48",
    ),
    ("DELETE FROM refunds WHERE event_id = :event", "there is no such refund"),
    (
        "UPDATE refunds SET transaction_id = 'x' WHERE event_id = :event",
        "cancelled after it was paid, without a refund",
    ),
    (
        "UPDATE user_limits SET tickets = tickets + 1 WHERE event_id = :event AND user_id = 'paid'",
        "is counted with 3",
    ),
    (
        "DELETE FROM user_limits WHERE event_id = :event AND user_id = 'held'",
        "holds tickets and is not counted",
    ),
];

/// Each change is made on an event of its own, with an audit after each.
pub(super) async fn the_audit_detects_tampering(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let mut known = Vec::new();
    for (sql, expected) in TAMPERINGS {
        let event = event_with_all_states(&fixture).await.id;
        if !harness.execute_directly(sql, event).await {
            return;
        }
        let report = fixture.store.audit().await.expect("an audit");
        let new: Vec<_> = report.violations.iter().filter(|violation| !known.contains(*violation)).collect();
        assert!(new.iter().any(|violation| violation.contains(expected)), "{sql}: {new:#?}");
        known = report.violations;
    }
}
