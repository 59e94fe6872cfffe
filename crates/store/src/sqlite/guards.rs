//! Guards that miss: whatever changes between the load and the write fails the transaction as a whole.
//!
//! With one writer nobody can come in between, so each test does it itself, on the writer's own connection.

use std::sync::Arc;

use domain::{Action, Answer, Booking, Clock, Command, EventPatch, NewEvent, Settlement, Timestamp};
use futures_util::FutureExt as _;
use rusqlite::Connection;

use super::tx::{SqliteWriter, fault};
use super::{Sqlite, SqliteOptions, lock, schema};
use crate::conformance::Harness;
use crate::conformance::fixture::{Fixture, command, edit, outcome_codes, payment};
use crate::execute::{LockWait, Writer as _};
use crate::fold::{Tx as _, fold};
use crate::{Fault, Reply, Store};

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000).unwrap()
    }
}

/// A store in memory whose writer the tests take into their own hands.
struct MemoryHarness(Arc<Sqlite>);

#[async_trait::async_trait]
impl Harness for MemoryHarness {
    fn store(&self) -> Arc<dyn Store> {
        self.0.clone()
    }

    async fn advance(&self, _by: std::time::Duration) {
        unreachable!("time stands still here");
    }

    async fn tamper(&self, _sql: &str, _event: domain::EventId) -> bool {
        false
    }
}

fn memory_harness() -> MemoryHarness {
    MemoryHarness(Arc::new(
        Sqlite::in_memory(&SqliteOptions { clock: Arc::new(FixedClock), inline: true }).unwrap(),
    ))
}

fn now<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("SQLite answers at once")
}

/// Loads and decides, lets `between` happen, and writes.
fn attempt(writer: &mut SqliteWriter, commands: Vec<Command>, between: &str) -> Result<Vec<Reply>, Fault> {
    let commands: Vec<_> = commands.into_iter().map(crate::Submission::from).collect();
    let mut tx = now(writer.begin(LockWait::Long))?;
    let (replies, changes) = now(fold(&mut tx, &commands))?;
    tx.connection().execute_batch(between).map_err(fault)?;
    now(tx.commit(changes))?;
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

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Create,
    Edit,
    Book,
    Confirm,
    CancelPaid,
    Settle,
}

/// What is asked, what happens in between, and what the store then says.
const MISSES: &[(Ask, &str, &str)] = &[
    (Ask::Book, "UPDATE events SET seq = seq + 1", "guard missed (0 rows): -- The hot update"),
    (Ask::Confirm, "UPDATE events SET seq = seq - 1", "guard missed (0 rows): -- The hot update"),
    (Ask::Edit, "UPDATE events SET seq = seq + 1", "guard missed (0 rows): -- The hot update"),
    (Ask::Book, "PRAGMA foreign_keys = OFF; DELETE FROM ticket_types", "guard missed (0 rows): -- The counters"),
    (Ask::Edit, "UPDATE event_details SET version = version + 1", "guard missed (0 rows): -- The description"),
    (Ask::Edit, "UPDATE ticket_types SET id = randomblob(16)", "guard missed (0 rows): -- A new or edited ticket"),
    (Ask::Confirm, "UPDATE bookings SET version = version + 1", "guard missed (0 rows): -- A booking that changed"),
    (Ask::CancelPaid, "UPDATE bookings SET version = version + 1", "guard missed (0 rows): -- A booking that changed"),
    (Ask::Confirm, "DELETE FROM bookings", "guard missed (0 rows): -- A booking that changed"),
    (
        Ask::Settle,
        "UPDATE refunds SET status = 'failed', settled_at = 1",
        "guard missed (0 rows): -- A refund that was settled",
    ),
    (Ask::Settle, "DELETE FROM refunds", "guard missed (0 rows): -- A refund that was settled"),
    (Ask::Create, "INSERT INTO events SELECT :new, 1, 0, 0, 1, 0, 0, 0, 0, 0, '0'", "events.id"),
    (
        Ask::Book,
        "INSERT INTO bookings SELECT :new, event_id, user_id, status, version, last_seq, items, currency, total,
                hold_expires_at, payment_method, transaction_id, confirmed_at, cancelled_at, cancellation_reason,
                refunded, expired_at, created_at, updated_at FROM bookings WHERE status = 'pending'",
        "bookings.id",
    ),
    (
        Ask::Book,
        "INSERT INTO ledger SELECT event_id, seq + 1, type, booking_id, refund_id, lines, quantity, from_status,
                to_status, available_after, previous_seq, actor, request_id, at, trace FROM ledger ORDER BY seq DESC LIMIT 1",
        "ledger.event_id, ledger.seq",
    ),
    (
        Ask::CancelPaid,
        "INSERT INTO refunds SELECT randomblob(16), id, event_id, transaction_id, total, currency, 'requested',
                'invalid_state', NULL, 1, NULL FROM bookings WHERE status = 'confirmed'",
        "refunds.booking_id, refunds.transaction_id",
    ),
];

/// An event with a booking that is held and one that is paid, and the command that the test is about.
fn scene(fixture: &Fixture<'_>, ask: Ask) -> (Command, [u8; 16]) {
    let event = now(fixture.create(NewEvent { max_tickets_per_user: Some(5), ..fixture.new_event(9) })).id;
    let paid = now(fixture.book_and_pay(event, "a", 1, "t"));
    let held: Arc<Booking> = now(fixture.run_ok(fixture.book(event, "a", 1)));
    let new = fixture.new_event(9);
    let order = fixture.book(event, "a", 1);
    match ask {
        Ask::Create => (command(Action::CreateEvent(Box::new(new.clone()))), *new.id.bytes()),
        Ask::Edit => (edit(event, EventPatch { capacity: Some(8), ..EventPatch::default() }), [0; 16]),
        Ask::Book => (order.clone(), *order.booking_id().unwrap().bytes()),
        Ask::Confirm => (fixture.confirm(&held, "t"), [0; 16]),
        Ask::CancelPaid => (fixture.cancel(&paid), [0; 16]),
        Ask::Settle => {
            now(fixture.run_ok(fixture.cancel(&paid)));
            let settlement = Settlement {
                event_id: event,
                booking_id: paid.id,
                transaction: payment("t"),
                succeeded: true,
                provider_reference: "r".parse().unwrap(),
            };
            (command(Action::Settle(Box::new(settlement))), [0; 16])
        }
    }
}

#[test]
fn a_guard_that_misses_fails_the_transaction() {
    for (ask, between, expected) in MISSES {
        let harness = memory_harness();
        let fixture = Fixture::new(&harness);
        let (command, new) = scene(&fixture, *ask);
        let between = between.replace(":new", &format!("X'{:032x}'", u128::from_be_bytes(new)));
        let writer = harness.0.writer.clone().unwrap();
        let mut writer = lock(&writer);
        let before = dump(writer.connection_mut());
        match attempt(&mut writer, vec![command.clone()], &between) {
            Err(Fault::Broken(cause)) => assert!(cause.to_string().contains(expected), "{ask:?}: {cause}"),
            other => panic!("{ask:?}, {between}: {other:?}"),
        }
        assert_eq!(dump(writer.connection_mut()), before, "{ask:?}, {between}");
        // The connection is as good as before.
        let replies = attempt(&mut writer, vec![command], "").unwrap();
        assert!(
            matches!(replies[0], Reply::Answered(ref answer) if !matches!(answer, Answer::Refused(_))),
            "{replies:?}"
        );
    }
}

/// A limit that is lifted in the batch that still counted for it is no reason to refuse the batch.
#[test]
fn a_limit_is_lifted_in_one_transaction() {
    let harness = memory_harness();
    let fixture = Fixture::new(&harness);
    let (order, _) = scene(&fixture, Ask::Book);
    let lifted = EventPatch { max_tickets_per_user: Some(None), ..EventPatch::default() };
    let lift = edit(order.event_id(), lifted);
    let writer = harness.0.writer.clone().unwrap();
    let replies = attempt(&mut lock(&writer), vec![order, lift], "").unwrap();
    assert_eq!(replies.len(), 2);
    now(fixture.assert_audit_clean());
}

/// What a batch has written so far is known to the rest of it, so that no constraint has to teach it.
#[test]
fn a_payment_repeated_in_one_batch_needs_no_second_transaction() {
    let harness = memory_harness();
    let fixture = Fixture::new(&harness);
    let event = now(fixture.create(fixture.new_event(9))).id;
    let held = now(fixture.run_ok(fixture.book(event, "a", 1)));
    let commands = vec![fixture.cancel(&held), fixture.confirm(&held, "t"), fixture.confirm(&held, "t")];
    let writer = harness.0.writer.clone().unwrap();
    let replies = attempt(&mut lock(&writer), commands, "").unwrap();
    assert_eq!(outcome_codes(&replies), ["ok", "invalid_state", "invalid_state"]);
    assert_eq!(now(fixture.refunds()).len(), 1);
}

/// A batch that is given up leaves nothing behind, not even an open transaction.
#[test]
fn a_dropped_transaction_is_rolled_back() {
    let harness = memory_harness();
    let fixture = Fixture::new(&harness);
    let (order, _) = scene(&fixture, Ask::Book);
    let writer = harness.0.writer.clone().unwrap();
    let mut writer = lock(&writer);
    let before = dump(writer.connection_mut());
    let tx = now(writer.begin(LockWait::Long)).unwrap();
    tx.connection().execute_batch("DELETE FROM ledger").unwrap();
    drop(tx);
    assert_eq!(dump(writer.connection_mut()), before);
    attempt(&mut writer, vec![order], "").unwrap();
}

/// What a transaction reads is its own from the first moment on, also against a hand that reaches past the
/// owner's lock (F-65).
#[test]
fn a_transaction_takes_the_write_lock_before_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("box.db");
    let options = SqliteOptions { clock: Arc::new(FixedClock), inline: true };
    let store = Sqlite::open(&path, true, &options).unwrap();
    let other = Connection::open(&path).unwrap();
    other.busy_timeout(std::time::Duration::ZERO).unwrap();
    let writer = store.writer.clone().unwrap();
    let mut writer = lock(&writer);
    let tx = now(writer.begin(LockWait::Long)).unwrap();
    let refused = other.execute("DELETE FROM ledger", []).unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy));
    drop(tx);
    other.execute("DELETE FROM ledger", []).unwrap();
}

/// What a commit needs to survive a power cut, in this build of SQLite (F-66).
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
