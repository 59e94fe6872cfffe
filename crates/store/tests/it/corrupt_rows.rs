//! Corrupt rows: each fails only the commands that need it.

use domain::{BookingStatus, EventId, NewEvent, TicketSelection};
use rusqlite::Connection;
use store::Fault;
use store::conformance::Harness;
use store::conformance::fixture::{Fixture, HOLD, edit, expire};

use crate::conformance::{FileHarness, literal};

/// Changes that make a booking undecodable.
const UNREADABLE: [&str; 11] = [
    "items = 'no JSON'",
    "items = '[\"x\"]'",
    "items = '[]'",
    "items = '7'",
    "items = CAST(X'5B5BFF' AS TEXT)",
    "items = replace(items, 'Seat', ' ')",
    "version = 1099511627776",
    "user_id = 'slow slow'",
    "currency = 'ZZZ'",
    "total = -1",
    "hold_expires_at = -9000000000000000000",
];

impl FileHarness {
    /// Executes a statement with the checks of the database disabled.
    pub(crate) fn corrupt(&self, sql: &str, rows: usize) {
        let connection = Connection::open(&self.path).unwrap();
        connection.execute_batch("PRAGMA ignore_check_constraints = ON").unwrap();
        assert_eq!(connection.execute(sql, []).unwrap(), rows, "{sql}");
    }

    /// All rows of the database.
    pub(crate) fn dump(&self) -> Vec<String> {
        dump(&Connection::open(&self.path).unwrap())
    }
}

pub(crate) fn dump(connection: &Connection) -> Vec<String> {
    let tables = [
        "events",
        "event_details",
        "ticket_types",
        "bookings",
        "user_limits",
        "ledger",
        "refunds",
        "idempotency",
    ];
    let mut all = Vec::new();
    for table in tables {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<_> = (0..columns).map(|column| row.get_ref(column).unwrap()).collect();
            all.push(format!("{table} {values:?}"));
        }
    }
    all
}

#[tokio::test]
async fn an_unreadable_booking_fails_only_its_own_commands() {
    for corruption in UNREADABLE {
        let harness = FileHarness::new();
        let fixture = Fixture::new(&harness);
        let (event, other) =
            (fixture.create(fixture.new_event(9)).await.id, fixture.create(fixture.new_event(9)).await.id);
        let held = fixture.hold(event, &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]).await;
        let [before, bad, after, last] = [0, 1, 2, 3].map(|position: usize| held[position].clone());
        harness
            .corrupt(&format!("UPDATE bookings SET {corruption} WHERE id = {}", literal(bad.id.bytes())), 1);
        let commands = vec![
            fixture.cancel(&before),
            fixture.confirm(&bad, "t"),
            fixture.book(other, "a", 1),
            fixture.cancel(&bad),
            fixture.confirm(&after, "t"),
            expire(&bad),
            fixture.book(event, "e", 2),
            fixture.cancel(&last),
        ];
        let expected = ["ok", "failed", "ok", "failed", "ok", "failed", "ok", "ok"];
        assert_eq!(fixture.outcome_codes(commands).await, expected, "{corruption}");
        assert!(matches!(fixture.store.booking(bad.id).await, Err(Fault::Broken(_))), "{corruption}");
        harness.advance(HOLD).await;
        let now = last.hold_expires_at;
        let due = fixture.store.due_holds(now, None, 100).await;
        // A due hold is listed even if it is corrupt; the sweeper then fails to free it.
        assert!(due.is_ok_and(|due| due.len() == 3), "{corruption}");
        assert_eq!(fixture.status(&after).await, BookingStatus::Confirmed);
        let report = fixture.store.audit().await.unwrap();
        assert!(
            report.violations.iter().any(|violation| violation.contains("unreadable")),
            "{corruption}: {report:?}"
        );
    }
}

/// The oldest hold cannot be decoded; the following ones are freed as if it did not exist.
#[tokio::test]
async fn an_unreadable_overdue_hold_blocks_no_order() {
    for corruption in UNREADABLE {
        // By event, by ticket type, by user.
        for (capacity, of_type, per_user, buyer) in
            [(3, None, None, "a"), (9, Some(3), None, "a"), (9, None, Some(3), "slow")]
        {
            let harness = FileHarness::new();
            let fixture = Fixture::new(&harness);
            let mut new = NewEvent { max_tickets_per_user: per_user, ..fixture.new_event(capacity) };
            new.ticket_types = vec![fixture.ticket_type(of_type), fixture.ticket_type(None)];
            let kind = new.ticket_types[0].id;
            let event = fixture.create(new).await.id;
            let order =
                |name, quantity| fixture.order(event, name, TicketSelection::Items(vec![(kind, quantity)]));
            let mut held = Vec::new();
            for _ in 0..3 {
                held.push(fixture.run_ok(order("slow", 1)).await);
            }
            harness.advance(HOLD).await;
            harness.corrupt(
                &format!("UPDATE bookings SET {corruption} WHERE id = {}", literal(held[0].id.bytes())),
                1,
            );
            let codes = fixture.outcome_codes(vec![order(buyer, 1), order(buyer, 1), order(buyer, 1)]).await;
            assert_eq!(codes[..2], ["ok"; 2], "{corruption}");
            assert!(["sold_out", "booking_limit_exceeded"].contains(&codes[2]), "{corruption}: {}", codes[2]);
            assert_eq!(fixture.statuses(&held[1..]).await, [BookingStatus::Expired; 2]);
        }
    }
}

#[tokio::test]
async fn pages_of_unreadable_holds_are_skipped() {
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let event = fixture.create(fixture.new_event(170)).await.id;
    let held = fixture.hold(event, &vec![("slow", 1); 170]).await;
    harness.advance(HOLD).await;
    let last_bad = literal(held[139].id.bytes());
    harness.corrupt(&format!("UPDATE bookings SET items = 'no JSON' WHERE id <= {last_bad}"), 140);
    assert_eq!(
        fixture.outcome_codes(vec![fixture.book(event, "a", 30), fixture.book(event, "a", 1)]).await,
        ["ok", "sold_out"]
    );
}

/// A count that cannot be decoded fails only the commands of its user.
#[tokio::test]
async fn an_unreadable_count_fails_only_its_user() {
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let event = fixture.create(NewEvent { max_tickets_per_user: Some(2), ..fixture.new_event(2) }).await.id;
    let held = fixture.hold(event, &[("bad", 1), ("good", 1)]).await;
    harness.advance(HOLD).await;
    harness.corrupt("UPDATE user_limits SET tickets = 1099511627776 WHERE user_id = 'bad'", 1);
    let commands = vec![fixture.book(event, "a", 1), fixture.cancel(&held[0]), fixture.book(event, "b", 1)];
    assert_eq!(fixture.outcome_codes(commands).await, ["ok", "failed", "sold_out"]);
    let report = fixture.store.audit().await.unwrap();
    assert!(report.violations.iter().any(|violation| violation.contains("bad")), "{report:?}");
}

/// Changes that make every write of one event fail, or its rows undecodable. `:event` stands for its id.
const BAD_EVENTS: [&str; 6] = [
    // The rows are decoded, the rules allow the command, and the database rejects the writes.
    "UPDATE events SET capacity = 0 WHERE id = :event",
    "INSERT INTO ledger SELECT event_id, 3, type, booking_id, refund_id, lines, quantity, from_status,
            to_status,
            available_after, 2, actor, request_id, at, trace FROM ledger WHERE event_id = :event AND seq = 2",
    "CREATE TRIGGER refuse BEFORE UPDATE ON bookings WHEN OLD.event_id = :event
     BEGIN SELECT RAISE(ABORT, 'refused'); END",
    "CREATE TRIGGER vanish BEFORE UPDATE ON bookings WHEN OLD.event_id = :event
     BEGIN SELECT RAISE(IGNORE); END",
    "UPDATE event_details SET currency = 'ZZZ' WHERE event_id = :event",
    "UPDATE events SET revenue = 'much' WHERE id = :event",
];

fn corrupt_event(harness: &FileHarness, sql: &str, event: EventId) {
    let connection = Connection::open(&harness.path).unwrap();
    connection.execute_batch("PRAGMA ignore_check_constraints = ON").unwrap();
    connection.execute_batch(&sql.replace(":event", &literal(event.bytes()))).unwrap();
}

#[tokio::test]
async fn an_event_that_cannot_be_written_fails_only_its_own_commands() {
    for sql in BAD_EVENTS {
        let harness = FileHarness::new();
        let fixture = Fixture::new(&harness);
        let (mut events, mut held) = (Vec::new(), Vec::new());
        for _ in 0..7 {
            let event = fixture.create(fixture.new_event(9)).await.id;
            held.extend(fixture.hold(event, &[("a", 1)]).await);
            events.push(event);
        }
        corrupt_event(&harness, sql, events[3]);
        let bad_rows = |rows: Vec<String>| -> Vec<String> {
            let id = format!("{:?}", rusqlite::types::ValueRef::Blob(events[3].bytes()));
            rows.into_iter().filter(|row| row.contains(&id)).collect()
        };
        let before = bad_rows(harness.dump());
        assert!(before.len() >= 5, "{before:?}");
        let mut commands = Vec::new();
        for round in 0..3 {
            commands.extend(held.iter().map(|booking| match round {
                1 => fixture.cancel(booking),
                _ => fixture.confirm(booking, "t"),
            }));
        }
        let codes = fixture.outcome_codes(commands).await;
        for (position, code) in codes.iter().enumerate() {
            let (bad, again) = (position % 7 == 3, position >= 14);
            let expected = if bad {
                "failed"
            } else if again {
                "invalid_state"
            } else {
                "ok"
            };
            assert_eq!(*code, expected, "{sql}: {position}");
        }
        assert_eq!(bad_rows(harness.dump()), before, "{sql}");
        for event in events.into_iter().filter(|event| *event != held[3].event_id) {
            let seqs: Vec<_> = fixture.ledger(event).await.iter().map(|entry| entry.seq).collect();
            assert_eq!(seqs, [1, 2, 3, 4, 5], "{sql}");
        }
    }
}

/// Commands keep their order when a batch is halved several times because of failing commands.
#[tokio::test]
async fn order_survives_halving() {
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let event = fixture.create(fixture.new_event(100)).await.id;
    let taken = fixture.run_ok(fixture.book(event, "a", 1)).await.id;
    let mut commands: Vec<_> = (0..64).map(|_| fixture.book(event, "a", 1)).collect();
    let mut expected = vec!["ok"; 64];
    for position in [0, 13, 14, 40, 63] {
        if let domain::Action::Book(order) = &mut commands[position].action {
            order.booking_id = taken;
        }
        expected[position] = "failed";
    }
    let capacity = Some(60);
    commands.push(edit(event, domain::EventPatch { capacity, ..domain::EventPatch::default() }));
    commands.push(fixture.book(event, "a", 1));
    expected.extend(["ok", "sold_out"]);
    let ids = commands.iter().zip(&expected).filter(|(_, code)| **code == "ok");
    let ids: Vec<_> = ids.map(|(command, _)| command.booking_id()).collect();
    assert_eq!(fixture.outcome_codes(commands).await, expected);
    let written: Vec<_> = fixture.ledger(event).await.iter().skip(2).map(|entry| entry.booking_id).collect();
    assert_eq!(written, ids);
    fixture.assert_audit_clean().await;
}
