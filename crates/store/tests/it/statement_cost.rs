//! The cost of statements: they read their page, and not the whole table. Measured on an event of 50,000
//! bookings.

use std::collections::BTreeSet;

use domain::{Booking, EventPatch, EventStatus};
use rusqlite::types::Value;
use rusqlite::{Connection, StatementStatus};
use store::conformance::fixture::{Fixture, edit};
use store::conformance::statements;
use store::{Idempotency, Submission};

use crate::conformance::{FileHarness, literal};
use crate::large_event::{Dialect, FIRST_ID, copies};

/// Number of bookings of the large event.
pub(crate) const BOOKINGS: u32 = 50_000;
/// Number of a user's bookings that a filtered page reads.
const USER_WINDOW: i64 = 1_000;

/// A parameter of a statement.
pub(crate) enum Arg {
    Id([u8; 16]),
    Text(&'static str),
    Number(i64),
    Null,
}

/// A statement, its parameters, and the maximum number of rows that it may read from all tables and indexes
/// together.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) args: Vec<Arg>,
    pub(crate) rows_max: i64,
}

/// Statements without a case, by a part of their names, with the reason.
pub(crate) const EXEMPT: &[(&str, &str)] = &[
    ("audit_", "the audit reads everything"),
    ("event_list_all", "the audit reads everything"),
    ("refund_list_of_booking", "the refunds of a page of bookings, by their key, for the audit"),
    ("event_stats", "a row for each event, none for a booking"),
    ("cursor_", "a row for each event, none for a booking"),
    ("backend_", "reads the state of the session"),
    ("commit_status", "reads the state of the session"),
    ("commit_empty", "writes a WAL record and no row"),
    ("event_lock_skip_locked", "locks rows by their keys"),
    ("health", "reads the state of the server"),
    ("tx_info", "reads the state of the session"),
    ("_insert", "writes rows by their keys"),
    ("_update", "writes rows by their keys"),
    ("_upsert", "writes rows by their keys"),
];

/// A case for every reading statement that is not exempt.
pub(crate) fn cases(template: &Booking) -> Vec<Case> {
    use Arg::{Id, Null, Number, Text};
    let (event, booking) = (*template.event_id.bytes(), *template.id.bytes());
    let (first, last, now) = ([0; 16], [0xff; 16], 1_000_000_000_000_i64);
    let case = |name, args, rows_max| Case { name, args, rows_max };
    // A booking of the user `heavy`, 999 of its bookings before the newest.
    let mut window_end = [0; 16];
    window_end[8..].copy_from_slice(&(FIRST_ID + u64::from(BOOKINGS) - 2 * 999).to_be_bytes());
    let mut all = vec![
        case("booking_list_all", vec![Id(last), Number(101)], 101),
        case("booking_list_of_event", vec![Id(event), Id(last), Number(101)], 6 * 101),
        case("booking_list_of_user", vec![Text("heavy"), Id(last), Id(first), Null, Null, Number(101)], 101),
        case(
            "booking_list_of_user",
            vec![Text("heavy"), Id(last), Id(window_end), Id(event), Text("expired"), Number(101)],
            USER_WINDOW,
        ),
        case("booking_window_of_user", vec![Text("heavy"), Id(last), Number(USER_WINDOW - 1)], USER_WINDOW),
        case("booking_external_refs", vec![Id(event), Text("no such reference")], 1),
        case(
            "booking_list_by_external_ref",
            vec![Text("no such reference"), Id(last), Null, Null, Null, Number(101)],
            1,
        ),
        case("booking_load", vec![Id(booking)], 1),
        case(
            "booking_overdue",
            vec![Id(event), Number(now), Number(i64::MIN), Id(first), Null, Number(64)],
            2 * 64,
        ),
        case("chore_cancelled_events", vec![Id(first), Number(512)], 4),
        case("chore_due_holds", vec![Number(now), Number(i64::MIN), Id(first), Number(512)], 512),
        case("chore_due_holds", vec![Number(now), Number(now), Id(first), Number(512)], 0),
        case("chore_prune_keys", vec![Number(now), Number(512)], 4 * 512),
        case("event_list", vec![Id(last), Number(101)], 4 * 101),
        case("event_load", vec![Id(event)], 3),
        case("idempotency_load", vec![Text("s"), Text("k7"), Number(0)], 2),
        case("ledger_list", vec![Id(event), Number(30_000), Number(101)], 101),
        case("ledger_with_bookings", vec![Id(event), Number(30_000), Number(512)], 2 * 512),
        case("refund_find", vec![Id(booking)], 1),
        case("refund_list", vec![Id(last), Number(101)], 101),
        case("refund_load", vec![Id(booking), Text("t")], 2),
        case("user_limit_load", vec![Id(event), Text("heavy")], 3),
    ];
    for status in ["pending", "confirmed", "cancelled", "expired"] {
        all.push(case("booking_list_in_status", vec![Text(status), Id(last), Number(101)], 101));
        let args = vec![Id(event), Text(status), Id(last), Number(101)];
        all.push(case("booking_list_of_event_in_status", args, 101));
        let args = vec![Id(event), Text(status), Id(first), Number(512)];
        all.push(case("chore_bookings_in_status", args, 512));
    }
    for status in ["requested", "succeeded", "failed"] {
        all.push(case("refund_list_in_status", vec![Text(status), Id(last), Number(101)], 101));
    }
    all
}

/// Asserts that every statement of a database has a case or is exempt.
pub(crate) fn assert_complete(database: &str, cases: &[Case], elsewhere: &[&str]) {
    let names: BTreeSet<&str> = statements(database).into_iter().map(|(name, _)| name).collect();
    let counted: BTreeSet<&str> =
        cases.iter().map(|case| case.name).chain(elsewhere.iter().copied()).collect();
    let is_exempt = |name: &str| EXEMPT.iter().any(|(part, _)| name.contains(part));
    let missing: Vec<_> = names.iter().filter(|name| !counted.contains(*name) && !is_exempt(name)).collect();
    assert!(missing.is_empty(), "statements without a case: {missing:?}");
}

/// The SQL text of a statement.
pub(crate) fn text(database: &str, name: &str) -> String {
    statements(database).into_iter().find(|(found, _)| *found == name).expect("a statement").1
}

/// Creates a booking to copy, with a stored response, and a few other events, one of them cancelled and
/// empty.
pub(crate) async fn template(fixture: &Fixture<'_>) -> Booking {
    for _ in 0..5 {
        let event = fixture.create(fixture.new_event(10)).await.id;
        fixture.book_and_pay(event, "a", 1, "t").await;
    }
    let cancelled = fixture.create(fixture.new_event(10)).await.id;
    fixture
        .run(edit(cancelled, EventPatch { status: Some(EventStatus::Cancelled), ..EventPatch::default() }))
        .await;
    let event = fixture.create(fixture.new_event(100_000)).await.id;
    let order = fixture.book(event, "a", 1);
    let id = order.booking_id().unwrap();
    let serialize_response = Box::new(|_: &_, _| Some(b"response".to_vec()));
    let idempotency = Idempotency {
        scope: "s".to_owned(),
        key: "key".to_owned(),
        fingerprint: [0; 32],
        serialize_response,
    };
    let order = Submission { command: order.into(), idempotency: Some(idempotency.into()) };
    fixture.store.execute(vec![order]).await;
    fixture.booking(id).await
}

const SQLITE: Dialect = Dialect {
    series: |count| {
        format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})")
    },
    table: "n",
    few: "n",
    id: |number| format!("unhex(printf('%032x', {number}))"),
    literal,
    no: "0",
};

fn create_large_event(connection: &Connection, template: &Booking) {
    let transaction = connection.unchecked_transaction().unwrap();
    for sql in copies(&SQLITE, template, BOOKINGS) {
        assert!(connection.execute(&sql, []).unwrap() >= 5_000, "{sql}");
    }
    transaction.commit().unwrap();
}

/// Runs a statement. Returns the number of rows, and of steps of SQLite's virtual machine.
fn run(connection: &Connection, case: &Case) -> (i64, i64) {
    let mut statement = connection.prepare(&text("sqlite", case.name)).unwrap();
    let args = case.args.iter().map(|arg| match arg {
        Arg::Id(id) => Value::Blob(id.to_vec()),
        Arg::Text(text) => Value::Text((*text).to_owned()),
        Arg::Number(number) => Value::Integer(*number),
        Arg::Null => Value::Null,
    });
    let mut rows = 0;
    if statement.readonly() {
        let mut found = statement.query(rusqlite::params_from_iter(args)).unwrap();
        while found.next().unwrap().is_some() {
            rows += 1;
        }
    } else {
        rows = i64::try_from(statement.execute(rusqlite::params_from_iter(args)).unwrap()).unwrap();
    }
    assert_eq!(statement.get_status(StatementStatus::FullscanStep), 0, "{} scans", case.name);
    assert_eq!(statement.get_status(StatementStatus::Sort), 0, "{} sorts", case.name);
    (rows, statement.get_status(StatementStatus::VmStep).into())
}

/// Maximum number of steps per row read.
const STEPS_PER_ROW: i64 = 70;
/// Maximum number of steps for the statement itself.
const STEPS_ONCE: i64 = 1_000;

#[tokio::test]
async fn r3_statements_read_only_their_page() {
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let template = template(&fixture).await;
    let connection = Connection::open(&harness.path).unwrap();
    create_large_event(&connection, &template);
    let mut cases = cases(&template);
    let overdue = vec![
        Arg::Id(*template.event_id.bytes()),
        Arg::Number(1_000_000_000_000),
        Arg::Text("heavy"),
        Arg::Number(USER_WINDOW),
    ];
    cases.push(Case { name: "booking_overdue_of_user", args: overdue, rows_max: 2 * USER_WINDOW });
    let types =
        Case { name: "ticket_types_load", args: vec![Arg::Id(*template.event_id.bytes())], rows_max: 2 };
    cases.push(types);
    let event = *template.event_id.bytes();
    let types = Case { name: "ticket_types_list", args: vec![Arg::Id(event), Arg::Id(event)], rows_max: 2 };
    cases.push(types);
    assert_complete("sqlite", &cases, &[]);
    for case in &cases {
        let (rows, steps) = run(&connection, case);
        assert!(rows <= case.rows_max, "{}: {rows} rows", case.name);
        assert!(
            steps <= STEPS_ONCE + STEPS_PER_ROW * case.rows_max,
            "{}: {steps} steps for {rows} rows",
            case.name
        );
    }
    // The data is complete: pages of the rarest status are full.
    for (name, full) in [("booking_list_in_status", 101), ("chore_bookings_in_status", 512)] {
        assert!(cases.iter().filter(|case| case.name == name).all(|case| run(&connection, case).0 == full));
    }
}

/// The sweep runs every 30 s on every instance, also while nothing is overdue and no cancelled event has
/// bookings.
#[tokio::test]
async fn r3_an_idle_sweep_reads_no_ledger() {
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let template = template(&fixture).await;
    let connection = Connection::open(&harness.path).unwrap();
    create_large_event(&connection, &template);
    let mut steps = 0;
    for case in cases(&template).iter().filter(|case| case.name.starts_with("chore_")) {
        let is_idle = case.name == "chore_cancelled_events" || case.rows_max == 0;
        steps += if is_idle { run(&connection, case).1 } else { 0 };
    }
    assert!((1..200).contains(&steps), "{steps} steps");
}

/// A cancelled booking is not read again, so the last page costs as much as the first one.
#[tokio::test]
async fn r3_pages_of_live_bookings_cost_the_same_to_the_end() {
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let template = template(&fixture).await;
    let connection = Connection::open(&harness.path).unwrap();
    create_large_event(&connection, &template);
    let event = literal(template.event_id.bytes());
    let cases = cases(&template);
    let pending = |case: &&Case| {
        case.name == "chore_bookings_in_status" && matches!(case.args[1], Arg::Text("pending"))
    };
    let case = cases.iter().find(pending).unwrap();
    let mut steps = Vec::new();
    loop {
        let (rows, taken) = run(&connection, case);
        if rows < 512 {
            break;
        }
        steps.push(taken);
        let cancel = format!(
            "UPDATE bookings SET status = 'cancelled', cancelled_at = 1 WHERE id IN
                 (SELECT id FROM bookings WHERE event_id = {event} AND status = 'pending'
                  ORDER BY id LIMIT 512)"
        );
        assert_eq!(connection.execute(&cancel, []).unwrap(), 512);
    }
    assert!(steps.len() > 15 && steps.iter().all(|taken| *taken == steps[0]), "{steps:?}");
}
