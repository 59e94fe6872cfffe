//! Tests of the guards: a change of a row between its load and its write fails the whole transaction.
//!
//! With a single writer no other session can make such a change, so each test makes the change on the
//! writer's own connection.

use std::sync::Arc;

use domain::{Action, Answer, Booking, Command, EventPatch, NewEvent, RefundOutcome, Settlement, Timestamp};
use futures_util::FutureExt as _;
use rusqlite::Connection;

use super::rows::fault;
use super::tx::SqliteWriter;
use super::{Sqlite, SqliteOptions, lock, schema};
use crate::conformance::StoreHarness;
use crate::conformance::fixture::{Fixture, command, edit, outcome_codes, payment};
use crate::execute::{LockWait, Writer as _};
use crate::fold::{Tx as _, fold};
use crate::{Fault, Reply};

/// Options with a clock that stands at an instant in January 2027.
fn options() -> SqliteOptions {
    let clock = || Timestamp::from_micros(1_800_000_000_000_000).unwrap();
    SqliteOptions { clock: Arc::new(clock), inline: true }
}

/// A store in memory whose writer the tests use directly.
fn memory_harness() -> StoreHarness<Sqlite> {
    StoreHarness(Arc::new(Sqlite::in_memory(&options()).unwrap()))
}

/// The result of a future of the SQLite store, which never waits.
fn ready<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("the futures of the SQLite store are ready at once")
}

/// Loads and decides the commands, executes `between`, and writes.
fn attempt(writer: &mut SqliteWriter, commands: Vec<Command>, between: &str) -> Result<Vec<Reply>, Fault> {
    let commands: Vec<_> = commands.into_iter().map(crate::Submission::from).collect();
    let mut tx = ready(writer.begin(LockWait::Long))?;
    let (replies, changes) = ready(fold(&mut tx, &commands))?;
    tx.connection().execute_batch(between).map_err(fault)?;
    ready(tx.commit(changes))?;
    Ok(replies)
}

fn dump(connection: &Connection) -> Vec<String> {
    let mut all = Vec::new();
    for table in [
        "events",
        "event_details",
        "ticket_types",
        "bookings",
        "user_limits",
        "ledger",
        "refunds",
        "idempotency",
    ] {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for column in 0..columns {
                all.push(format!("{:?}", row.get_ref(column).unwrap()));
            }
        }
    }
    all
}

/// The command of a case.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Create,
    Edit,
    Book,
    Confirm,
    CancelPaid,
    Settle,
}

/// The command, the change between load and write, and a part of the resulting error.
const MISSES: &[(Operation, &str, &str)] = &[
    (
        Operation::Book,
        "UPDATE events SET seq = seq + 1",
        "guard missed (0 rows): -- Updates the counters of an event",
    ),
    (
        Operation::Confirm,
        "UPDATE events SET seq = seq - 1",
        "guard missed (0 rows): -- Updates the counters of an event",
    ),
    (
        Operation::Edit,
        "UPDATE events SET seq = seq + 1",
        "guard missed (0 rows): -- Updates the counters of an event",
    ),
    (
        Operation::Book,
        "PRAGMA foreign_keys = OFF; DELETE FROM ticket_types",
        "guard missed (0 rows): -- Updates the counters of a ticket type",
    ),
    (
        Operation::Edit,
        "UPDATE event_details SET version = version + 1",
        "guard missed (0 rows): -- Inserts or updates the description",
    ),
    (
        Operation::Edit,
        "UPDATE ticket_types SET id = randomblob(16)",
        "guard missed (0 rows): -- Inserts or updates a ticket type",
    ),
    (
        Operation::Confirm,
        "UPDATE bookings SET version = version + 1",
        "guard missed (0 rows): -- Updates a booking",
    ),
    (
        Operation::CancelPaid,
        "UPDATE bookings SET version = version + 1",
        "guard missed (0 rows): -- Updates a booking",
    ),
    (Operation::Confirm, "DELETE FROM bookings", "guard missed (0 rows): -- Updates a booking"),
    (
        Operation::Settle,
        "UPDATE refunds SET status = 'failed', settled_at = 1",
        "guard missed (0 rows): -- Updates a refund",
    ),
    (Operation::Settle, "DELETE FROM refunds", "guard missed (0 rows): -- Updates a refund"),
    (Operation::Create, "INSERT INTO events SELECT :new, 1, 0, 0, 1, 0, 0, 0, 0, 0, '0'", "events.id"),
    (
        Operation::Book,
        "INSERT INTO bookings (id, event_id, user_id, status, version, last_seq, items, currency, total,
                hold_expires_at, payment_method, transaction_id, confirmed_at, cancelled_at,
                cancellation_reason, refunded, expired_at, created_at, updated_at)
         SELECT :new, event_id, user_id, status, version, last_seq, items, currency,
                total, hold_expires_at, payment_method, transaction_id, confirmed_at, cancelled_at,
                cancellation_reason,
                refunded, expired_at, created_at, updated_at FROM bookings WHERE status = 'pending'",
        "bookings.id",
    ),
    (
        Operation::Book,
        "INSERT INTO ledger SELECT event_id, seq + 1, type, booking_id, refund_id, lines, quantity,
                from_status, to_status, available_after, previous_seq, actor, request_id, at, trace
                FROM ledger ORDER BY seq DESC LIMIT 1",
        "ledger.event_id, ledger.seq",
    ),
    (
        Operation::CancelPaid,
        "INSERT INTO refunds SELECT randomblob(16), id, event_id, transaction_id, total, currency,
                'requested',
                'invalid_state', NULL, 1, NULL FROM bookings WHERE status = 'confirmed'",
        "refunds.booking_id, refunds.transaction_id",
    ),
];

/// Creates an event with a pending and a confirmed booking. Returns the command under test, and the id of
/// the row that it inserts.
fn set_up(fixture: &Fixture<'_>, operation: Operation) -> (Command, [u8; 16]) {
    let event = ready(fixture.create(NewEvent { max_tickets_per_user: Some(5), ..fixture.new_event(9) })).id;
    let paid = ready(fixture.book_and_pay(event, "a", 1, "t"));
    let held: Arc<Booking> = ready(fixture.run_ok(fixture.book(event, "a", 1)));
    let new = fixture.new_event(9);
    let order = fixture.book(event, "a", 1);
    match operation {
        Operation::Create => (command(Action::CreateEvent(Box::new(new.clone()))), *new.id.bytes()),
        Operation::Edit => (edit(event, EventPatch { capacity: Some(8), ..EventPatch::default() }), [0; 16]),
        Operation::Book => (order.clone(), *order.booking_id().unwrap().bytes()),
        Operation::Confirm => (fixture.confirm(&held, "t"), [0; 16]),
        Operation::CancelPaid => (fixture.cancel(&paid), [0; 16]),
        Operation::Settle => {
            ready(fixture.run_ok(fixture.cancel(&paid)));
            let settlement = Settlement {
                event_id: event,
                booking_id: paid.id,
                transaction: payment("t"),
                outcome: RefundOutcome { succeeded: true, provider_reference: "r".parse().unwrap() },
            };
            (command(Action::Settle(Box::new(settlement))), [0; 16])
        }
    }
}

#[test]
fn a_guard_that_misses_fails_the_transaction() {
    for (operation, between, expected) in MISSES {
        let harness = memory_harness();
        let fixture = Fixture::new(&harness);
        let (command, new) = set_up(&fixture, *operation);
        let between = between.replace(":new", &format!("X'{:032x}'", u128::from_be_bytes(new)));
        let writer = harness.0.writer.clone().unwrap();
        let mut writer = lock(&writer);
        let before = dump(writer.connection_mut());
        match attempt(&mut writer, vec![command.clone()], &between) {
            Err(Fault::Broken(cause)) => {
                assert!(cause.to_string().contains(expected), "{operation:?}: {cause}");
            }
            other => panic!("{operation:?}, {between}: {other:?}"),
        }
        assert_eq!(dump(writer.connection_mut()), before, "{operation:?}, {between}");
        // The connection remains usable.
        let replies = attempt(&mut writer, vec![command], "").unwrap();
        assert!(
            replies[0].answer().is_some_and(|answer| !matches!(answer, Answer::Refused(_))),
            "{replies:?}"
        );
    }
}

/// A batch that counts a user's tickets and then removes the limit succeeds.
#[test]
fn a_limit_is_lifted_in_one_transaction() {
    let harness = memory_harness();
    let fixture = Fixture::new(&harness);
    let (order, _) = set_up(&fixture, Operation::Book);
    let lifted = EventPatch { max_tickets_per_user: Some(None), ..EventPatch::default() };
    let lift = edit(order.event_id(), lifted);
    let writer = harness.0.writer.clone().unwrap();
    let replies = attempt(&mut lock(&writer), vec![order, lift], "").unwrap();
    assert_eq!(replies.len(), 2);
    ready(fixture.assert_audit_clean());
}

/// A command sees the changes of earlier commands of its batch, so it does not run into a constraint.
#[test]
fn a_payment_repeated_in_one_batch_needs_no_second_transaction() {
    let harness = memory_harness();
    let fixture = Fixture::new(&harness);
    let event = ready(fixture.create(fixture.new_event(9))).id;
    let held = ready(fixture.run_ok(fixture.book(event, "a", 1)));
    let commands = vec![fixture.cancel(&held), fixture.confirm(&held, "t"), fixture.confirm(&held, "t")];
    let writer = harness.0.writer.clone().unwrap();
    let replies = attempt(&mut lock(&writer), commands, "").unwrap();
    assert_eq!(outcome_codes(&replies), ["ok", "invalid_state", "invalid_state"]);
    assert_eq!(ready(fixture.refunds()).len(), 1);
}

/// A batch that is dropped changes nothing and leaves no transaction open.
#[test]
fn a_dropped_transaction_is_rolled_back() {
    let harness = memory_harness();
    let fixture = Fixture::new(&harness);
    let (order, _) = set_up(&fixture, Operation::Book);
    let writer = harness.0.writer.clone().unwrap();
    let mut writer = lock(&writer);
    let before = dump(writer.connection_mut());
    let tx = ready(writer.begin(LockWait::Long)).unwrap();
    tx.connection().execute_batch("DELETE FROM ledger").unwrap();
    drop(tx);
    assert_eq!(dump(writer.connection_mut()), before);
    attempt(&mut writer, vec![order], "").unwrap();
}

/// The write lock is taken at BEGIN, so a connection that bypasses the lock on `FILE.lock` is blocked, too.
#[test]
fn a_transaction_takes_the_write_lock_before_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("box.db");
    let store = Sqlite::open(&path, true, &options()).unwrap();
    let other = Connection::open(&path).unwrap();
    other.busy_timeout(std::time::Duration::ZERO).unwrap();
    let writer = store.writer.clone().unwrap();
    let mut writer = lock(&writer);
    let tx = ready(writer.begin(LockWait::Long)).unwrap();
    let refused = other.execute("DELETE FROM ledger", []).unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy));
    drop(tx);
    other.execute("DELETE FROM ledger", []).unwrap();
}

/// The settings that a commit needs to survive a power failure, in the linked version of SQLite.
#[test]
fn commits_are_durable() {
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
    let folder = tempfile::tempdir().unwrap();
    let connection = Connection::open(folder.path().join("box.db")).unwrap();
    schema::configure(&connection).unwrap();
    let number =
        |pragma: &str| connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
    assert_eq!(number("synchronous").unwrap(), 2, "FULL");
    assert_eq!(number("foreign_keys").unwrap(), 1);
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}
