//! The audit of a running server, and of a file that was tampered with.

use std::path::Path;

use rusqlite::Connection;
use testkit::{Exit, Load, event_body, id_of};

use crate::server;

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_clean_at_any_time_under_load() {
    let server = server().await;
    let mut admin = server.admin();
    let events =
        [admin.create_event(&event_body(1_000_000)).await, admin.create_event(&event_body(20)).await];
    let mut load = Load::start(&server, &events, 8);
    let mut entries = Vec::new();
    for _ in 0..12 {
        let before = load.acknowledged_count();
        // At least 20 changes since the audit before.
        load.wait_for_acknowledged(before + 20).await;
        entries.push(server.expect_clean().await["entries"].as_u64().unwrap());
    }
    assert!(entries.is_sorted() && entries.first() < entries.last(), "the load continued: {entries:?}");
    let journal = load.stop().await;
    let text = server.program().run(["audit", "--database", &url(server.database())]).await;
    assert_eq!(text.exit, Exit::Code(0));
    assert!(text.stdout.starts_with("clean: 2 events, "), "{text:?}");
    journal.check(&mut admin).await;
}

fn url(database: &Path) -> String {
    format!("sqlite://{}", database.display())
}

/// Changes each kind of data that the audit checks.
#[tokio::test]
async fn the_audit_detects_tampering() {
    let mut server = server().await;
    let mut admin = server.admin();
    let limited = testkit::with_fields(event_body(100), &serde_json::json!({"maxTicketsPerUser": 5}));
    let event = admin.create_event(&limited).await;
    for (number, user) in ["ada", "bob", "eve"].into_iter().enumerate() {
        let booking = id_of(&admin.book_for(user, &event, 2).await.expect(201));
        if number > 0 {
            admin.confirm(&booking, "pay-1").await.expect(200);
        }
        if number > 1 {
            admin.cancel(&booking).await.expect(200);
        }
    }
    server.terminate();
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
    server.expect_clean().await;
    let tampers = [
        "UPDATE events SET held = held + 1",
        "UPDATE events SET sold = sold - 1",
        "UPDATE events SET seq = seq + 1",
        "UPDATE events SET capacity = capacity - 1",
        "UPDATE events SET revenue = revenue + 1",
        "UPDATE events SET pending = pending + 1",
        "UPDATE ticket_types SET held = held - 1",
        "UPDATE user_limits SET tickets = tickets + 1 WHERE user_id = 'ada'",
        "DELETE FROM user_limits WHERE user_id = 'bob'",
        "DELETE FROM bookings WHERE user_id = 'ada'",
        "UPDATE bookings SET total = total + 1 WHERE user_id = 'bob'",
        "UPDATE bookings SET user_id = 'mallory' WHERE user_id = 'ada'",
        "UPDATE bookings SET status = 'expired', expired_at = 1 WHERE user_id = 'ada'",
        "UPDATE bookings SET transaction_id = 'pay-2' WHERE user_id = 'eve'",
        "DELETE FROM ledger WHERE seq = 3",
        "DELETE FROM ledger WHERE seq = (SELECT max(seq) FROM ledger)",
        "UPDATE ledger SET available_after = available_after + 1 WHERE seq = 2",
        "UPDATE ledger SET quantity = 1 WHERE seq = 2",
        "UPDATE ledger SET type = 'booking.expired' WHERE seq = 2",
        "UPDATE ledger SET previous_seq = NULL WHERE type = 'booking.confirmed'",
        "UPDATE bookings SET total = total - 1 WHERE user_id = 'ada'",
        "UPDATE bookings SET currency = 'USD' WHERE user_id = 'eve'",
        "UPDATE bookings SET items = replace(items, ',4500,', ',1,') WHERE user_id = 'ada'",
        "UPDATE bookings SET version = version + 1 WHERE user_id = 'ada'",
        "UPDATE refunds SET amount = amount * 1000",
        "UPDATE refunds SET currency = 'USD'",
        "UPDATE ticket_types SET price = price + 1",
        "UPDATE event_details SET currency = 'USD'",
        "UPDATE event_details SET version = version + 1",
        "DELETE FROM refunds",
        "UPDATE refunds SET transaction_id = 'pay-9'",
        "UPDATE refunds SET status = 'succeeded', settled_at = 1",
    ];
    let mut undetected = Vec::new();
    for tamper in tampers {
        let copy = server.database().with_file_name("tampered.db");
        std::fs::copy(server.database(), &copy).unwrap();
        let file = Connection::open(&copy).unwrap();
        assert!(file.execute(tamper, []).unwrap() >= 1, "{tamper}");
        drop(file);
        let (code, report) = server.program().audit(&copy).await;
        let violations = report["violations"].as_array().map_or(0, Vec::len);
        if (code, violations > 0) != (1, true) {
            undetected.push(tamper);
        }
        std::fs::remove_file(&copy).unwrap();
    }
    assert_eq!(undetected, [] as [&str; 0]);
}

#[tokio::test]
async fn the_audit_reports_violations_as_text() {
    let mut server = server().await;
    let event = server.admin().create_event(&event_body(10)).await;
    server.kill9();
    Connection::open(server.database()).unwrap().execute("UPDATE events SET sold = 3", []).unwrap();
    let audit = server.program().run(["audit", "--database", &url(server.database())]).await;
    assert_eq!(audit.exit, Exit::Code(1));
    assert!(audit.stdout.contains(&format!("- {event}")), "{audit:?}");
}

/// A later version wrote an entry of a kind that this version does not know, and was put back.
#[tokio::test]
async fn entries_of_unknown_kinds_are_listed_and_reported_by_the_audit() {
    let mut server = server().await;
    let event = server.admin().create_event(&event_body(10)).await;
    server.kill9();
    let file = Connection::open(server.database()).unwrap();
    let insert = "INSERT INTO ledger (event_id, seq, type, lines, quantity, from_status, to_status,
                         available_after, actor, request_id, at)
                  SELECT event_id, 2, 'event.moved', '[]', 0, 'onSale', 'inTransit', available_after, actor,
                         request_id, at FROM ledger";
    assert_eq!(file.execute(insert, []).unwrap(), 1);
    assert_eq!(file.execute("UPDATE events SET seq = 2", []).unwrap(), 1);
    drop(file);
    let mut server = server.restart().await;
    let mut admin = server.admin();
    admin.book_for("ada", &event, 1).await.expect(201);
    let ledger = admin.all(&format!("/v1/events/{event}/ledger")).await;
    let types: Vec<_> = ledger.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["event.created", "event.moved", "booking.created"]);
    assert_eq!((&ledger[1]["from"], &ledger[1]["to"]), (&"onSale".into(), &"inTransit".into()));
    server.terminate();
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
    let (code, report) = server.program().audit(server.database()).await;
    assert_eq!((code, &report["clean"], &report["violations"]), (4, &false.into(), &serde_json::json!([])));
    assert_eq!(report["unknownKinds"], serde_json::json!({"event.moved": 1}));
    let text = server.program().run(["audit", "--database", &url(server.database())]).await;
    assert_eq!(text.exit, Exit::Code(4));
    assert!(
        text.stdout.contains("not interpreted: 1 ledger entries of the unknown kind event.moved"),
        "{text:?}"
    );
}
