//! Opening a database file, and bringing its schema up to date.

use std::borrow::Cow;

use domain::sabotage::{Guard, removed};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

/// One script per schema version, from 1. Forward only; a script that has shipped never changes.
const MIGRATIONS: [&str; 4] = [
    include_str!("../../migrations/sqlite/0001_tickets.sql"),
    include_str!("../../migrations/sqlite/0002_published.sql"),
    include_str!("../../migrations/sqlite/0003_trace.sql"),
    include_str!("../../migrations/sqlite/0004_indexes.sql"),
];

/// The schema that this program reads and writes.
#[expect(clippy::cast_possible_truncation, reason = "there will be some dozens of scripts")]
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// Marks a file as ours (`PRAGMA application_id`): "boxo".
const APPLICATION_ID: i32 = 0x626f_786f;

/// Sets what every connection needs. Durable at COMMIT, also through a power cut (`synchronous=FULL`).
pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    keep_plans(connection)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -65536;
         PRAGMA wal_autocheckpoint = 4096; PRAGMA journal_size_limit = 67108864;",
    )
}

/// Sets what a connection needs that only reads.
pub(super) fn configure_reader(connection: &Connection) -> rusqlite::Result<()> {
    keep_plans(connection)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection
        .execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;")
}

/// Keeps a statement's plan whatever is bound to it. Otherwise SQLite parses and plans a statement anew each
/// time a bound of a range changes, which costs more than running it (<https://sqlite.org/queryplanner-ng.html#qpstab>).
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// The schema version of a file: 0 for an empty one, `None` for a database that is not ours.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<Option<u32>> {
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: u32 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let empty = application == 0 && version == 0 && tables == 0;
    Ok((application == APPLICATION_ID || empty).then_some(version))
}

/// Runs the scripts that are missing, each in its own transaction together with its number, so that it
/// can be interrupted anywhere and run again. Returns how many ran.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<u32> {
    let mut ran = 0;
    for (number, script) in (1..).zip(MIGRATIONS) {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: u32 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version < number {
            tx.execute_batch(&guarded(script))?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", number)?;
            ran += 1;
        }
        tx.commit()?;
    }
    Ok(ran)
}

/// A script, without the constraints that a test has taken away.
fn guarded(script: &str) -> Cow<'_, str> {
    let mut script = Cow::Borrowed(script);
    for (guard, constraint) in [
        (Guard::CapacityCheck, "CHECK (held + sold <= capacity)"),
        (Guard::CapacityCheck, "CHECK (capacity IS NULL OR held + sold <= capacity)"),
        (Guard::UserLimitCheck, "CHECK (tickets <= max_tickets)"),
        (Guard::RefundUnique, "UNIQUE (booking_id, transaction_id)"),
    ] {
        if removed(guard) {
            script = Cow::Owned(script.replace(constraint, "CHECK (1)"));
        }
    }
    script
}
