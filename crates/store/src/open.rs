//! Errors of opening a database.

use std::path::PathBuf;

use crate::SCHEMA_VERSION;

/// The reason why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file does not exist.
    #[error("there is no database at {0}")]
    Missing(PathBuf),
    /// Another process owns the file.
    #[error("{0} is owned by another running boxoffice; stop it first, or use another file")]
    Owned(PathBuf),
    /// The file is a database of another program.
    #[error("{0} is a SQLite database, but not one of boxoffice")]
    Foreign(PathBuf),
    /// The schema is older than this program.
    #[error(
        "the schema is at version {found} and this program needs {SCHEMA_VERSION}; run `boxoffice migrate`"
    )]
    Outdated {
        /// The schema version of the database.
        found: u32,
    },
    /// The schema is newer than this program.
    #[error(
        "the schema is at version {found} and this program knows only {SCHEMA_VERSION}; use a newer boxoffice"
    )]
    TooNew {
        /// The schema version of the database.
        found: u32,
    },
    /// The file system returned an error.
    #[error("cannot use {path}")]
    Io {
        /// The file that could not be used.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// SQLite returned an error.
    #[error("cannot open the database")]
    Sqlite(#[from] rusqlite::Error),
    /// No PostgreSQL server responds there, or it rejects the connection.
    #[error("cannot reach {url}: {why}")]
    Unreachable {
        /// The URL, without its password.
        url: String,
        /// The error.
        why: String,
    },
    /// The PostgreSQL server is too old.
    #[error("{url} is PostgreSQL {found}; boxoffice needs 14 or newer")]
    Unsupported {
        /// The URL, without its password.
        url: String,
        /// The major version of the server.
        found: i32,
    },
    /// A migration script failed. The schema has the version of the last script that succeeded.
    #[error("the schema cannot be migrated: {0}")]
    Migration(String),
}
