//! A consistent copy of the database, made beside running sales.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::Sqlite;
use crate::Fault;

/// Why there is no copy. None is left behind, whole or half.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is a file of that name.
    #[error("{0} exists; a backup overwrites nothing, so give another name or move it away")]
    Exists(PathBuf),
    /// The file system refused.
    #[error("cannot write {path}")]
    Io {
        /// The copy.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("cannot copy the database")]
    Sqlite(#[from] rusqlite::Error),
    /// The database could not be read.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Sqlite {
    /// Copies the database, as it is at one moment, to a file that does not exist yet; sales go on
    /// meanwhile. The copy is durable when this returns, and bears its name only from then on. Returns its
    /// size in bytes.
    ///
    /// The copy can be read by its owner only: it holds what people bought.
    pub async fn backup(&self, to: PathBuf) -> Result<u64, BackupError> {
        self.read(move |connection| Ok(copy(connection, &to))).await?
    }
}

fn copy(from: &Connection, to: &Path) -> Result<u64, BackupError> {
    let io = |source| BackupError::Io { path: to.to_owned(), source };
    if to.try_exists().map_err(io)? {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let folder = match to.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // Removed again wherever this ends early.
    let unfinished = tempfile::Builder::new().prefix(".boxoffice-backup-").tempfile_in(folder).map_err(io)?;
    let mut target = Connection::open(unfinished.path())?;
    target.pragma_update(None, "synchronous", "FULL")?;
    // In one step: one read transaction, so one moment, and the writer is not held up by it.
    let step = Backup::new(from, &mut target)?.step(-1)?;
    if step != StepResult::Done {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(rusqlite::Error::SqliteFailure(busy, None).into());
    }
    target.close().map_err(|(_, error)| error)?;
    let bytes = unfinished.as_file().metadata().map_err(io)?.len();
    unfinished.as_file().sync_all().map_err(io)?;
    unfinished.persist_noclobber(to).map_err(|refused| match refused.error.kind() {
        ErrorKind::AlreadyExists => BackupError::Exists(to.to_owned()),
        _ => io(refused.error),
    })?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| {
        // The name might be lost in a power cut, so there is no copy. The error that counts is the first.
        let _ = std::fs::remove_file(to);
        io(error)
    })?;
    Ok(bytes)
}
