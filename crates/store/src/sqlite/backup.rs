//! A consistent backup of the database while sales continue.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::Sqlite;
use crate::Fault;

/// The reason why a backup failed. No file is left behind, neither complete nor partial.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file exists.
    #[error("{0} exists; a backup overwrites nothing, so give another name or move it away")]
    Exists(PathBuf),
    /// The file system returned an error.
    #[error("cannot write {path}")]
    Io {
        /// The backup file.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// SQLite returned an error.
    #[error("cannot copy the database")]
    Sqlite(#[from] rusqlite::Error),
    /// The database could not be read.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Sqlite {
    /// Copies a snapshot of the database to a new file while sales continue. Returns the size of the copy in
    /// bytes. The copy gets its name once it is complete, and is durable when this returns.
    ///
    /// The copy is readable by its owner only, because it contains personal data.
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
    // Deleted when it is dropped, that is, on every early return.
    let unfinished = tempfile::Builder::new().prefix(".boxoffice-backup-").tempfile_in(folder).map_err(io)?;
    let mut target = Connection::open(unfinished.path())?;
    target.pragma_update(None, "synchronous", "FULL")?;
    // In one step, which is one read transaction: it is one snapshot, and it does not block the writer.
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
        // The name may be lost in a power cut, so the backup has failed. The first error is returned.
        let _ = std::fs::remove_file(to);
        io(error)
    })?;
    Ok(bytes)
}
