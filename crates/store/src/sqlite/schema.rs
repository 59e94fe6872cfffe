//! Settings of SQLite connections, and migration of the schema.

use std::borrow::Cow;

use domain::sabotage::{Guard, removed};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

/// Identifies a file as one of boxoffice (`PRAGMA application_id`): "boxo".
const APPLICATION_ID: i32 = 0x626f_786f;

/// Applies the settings of the write connection. A COMMIT is durable, also after a power failure
/// (`synchronous=FULL`).
pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    stabilize_plans(connection)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -65536;
         PRAGMA wal_autocheckpoint = 4096; PRAGMA journal_size_limit = 67108864;",
    )
}

/// Applies the settings of a read connection.
pub(super) fn configure_reader(connection: &Connection) -> rusqlite::Result<()> {
    stabilize_plans(connection)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection
        .execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;")
}

/// Enables the query planner stability guarantee: the plan of a statement does not depend on its parameters.
/// Otherwise SQLite parses and plans a statement again each time a bound of a range changes, which costs more
/// than running it (<https://sqlite.org/queryplanner-ng.html#qpstab>).
fn stabilize_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// The schema version of a file: 0 for an empty one, `None` for a database of another program.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<Option<u32>> {
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: u32 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let empty = application == 0 && version == 0 && tables == 0;
    Ok((application == APPLICATION_ID || empty).then_some(version))
}

/// Runs the missing scripts, each in one transaction together with the update of the version, so that it can
/// be interrupted at any point and run again. Returns the number of scripts that ran.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<u32> {
    let mut ran = 0;
    for (number, script) in (1..).zip(crate::schema::SQLITE) {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: u32 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version < number {
            tx.execute_batch(&without_removed_guards(script))?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", number)?;
            ran += 1;
        }
        tx.commit()?;
    }
    Ok(ran)
}

/// The script, without the constraints whose guards a test has removed.
fn without_removed_guards(script: &str) -> Cow<'_, str> {
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
