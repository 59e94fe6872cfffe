//! Inspection of a database file, for `boxoffice doctor`.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use domain::Timestamp;
use rusqlite::{Connection, MAIN_DB, OpenFlags};

use super::{rows, schema};
use crate::schema::{NEWEST_SCHEMA_VERSION, SCHEMA_VERSION};
use crate::sql::Sql;
use crate::{Consumer, OpenError};

/// The state of a database file.
#[derive(Debug)]
pub struct Inspection {
    /// The version of the SQLite library in this program.
    pub sqlite_version: &'static str,
    /// The version of the schema, 0 for an empty file; or the reason why this program cannot use it.
    pub schema_version: Result<u32, OpenError>,
    /// The journal mode of SQLite; boxoffice sets `wal`.
    pub journal_mode: String,
    /// True if this process may write the file.
    pub is_writable: bool,
    /// True if a running process owns the file.
    pub is_owned: bool,
    /// Ledger entries above the saved relay cursors; `None` if this program cannot use the schema.
    pub unpublished: Option<u64>,
    /// The latest date of a ledger entry; `None` if there is none.
    pub last_at: Option<Timestamp>,
}

/// Inspects a database file, also while its owner runs. Changes nothing.
pub fn inspect(path: &Path) -> Result<Inspection, OpenError> {
    if !path.exists() {
        return Err(OpenError::Missing(path.to_owned()));
    }
    // Not read-only: after a kill -9 the first connection rebuilds the WAL index in shared memory.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    schema::configure_reader(&connection)?;
    let schema_version = usable(schema::version(&connection)?, path);
    let (unpublished, last_at) = match &schema_version {
        Ok(_) => (
            Some(
                connection
                    .query_row(&rows::text(Sql::CursorPendingCount), [Consumer::RELAY], |row| row.get(0))?,
            ),
            connection.query_row("SELECT max(last_at) FROM events", [], |row| row.get(0))?,
        ),
        Err(_) => (None, None),
    };
    Ok(Inspection {
        sqlite_version: rusqlite::version(),
        schema_version,
        journal_mode: connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?,
        is_writable: !connection.is_readonly(MAIN_DB)?,
        is_owned: is_owned(path)?,
        unpublished,
        last_at: last_at.and_then(|micros| Timestamp::from_micros(micros).ok()),
    })
}

/// The schema version, if this program can use it; otherwise the error.
pub(super) fn usable(found: Option<u32>, path: &Path) -> Result<u32, OpenError> {
    match found {
        None => Err(OpenError::Foreign(path.to_owned())),
        Some(found) if found < SCHEMA_VERSION => Err(OpenError::Outdated { found }),
        Some(found) if found > NEWEST_SCHEMA_VERSION => Err(OpenError::TooNew { found }),
        Some(found) => Ok(found),
    }
}

/// Tries to take the owner's lock, and releases it at once. An owner that starts within those microseconds
/// fails as if another process owned the file.
fn is_owned(path: &Path) -> Result<bool, OpenError> {
    let lock_path = path.with_added_extension("lock");
    let io = |source| OpenError::Io { path: lock_path.clone(), source };
    let file = match File::open(&lock_path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}
