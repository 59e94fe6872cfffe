//! Why a database cannot be used.

use std::path::PathBuf;

use crate::SCHEMA_VERSION;

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file.
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
        /// The version of the file.
        found: u32,
    },
    /// The schema is newer than this program.
    #[error(
        "the schema is at version {found} and this program knows only {SCHEMA_VERSION}; use a newer boxoffice"
    )]
    TooNew {
        /// The version of the file.
        found: u32,
    },
    /// The file system refused.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("cannot open the database")]
    Sqlite(#[from] rusqlite::Error),
    /// No PostgreSQL answers there, or it refuses us.
    #[error("cannot reach {url}: {why}")]
    Unreachable {
        /// Where, without its password.
        url: String,
        /// Why.
        why: String,
    },
    /// The PostgreSQL there is too old.
    #[error("{url} is PostgreSQL {found}; boxoffice needs 14 or newer")]
    Unsupported {
        /// Where, without its password.
        url: String,
        /// The major version of the server.
        found: i32,
    },
    /// The schema could not be brought up to date. It is as it was.
    #[error("the schema cannot be brought up to date: {0}")]
    Migration(String),
}
