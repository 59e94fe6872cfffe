//! The scripts and the version of the schema, which is the same for both databases.

macro_rules! migrations {
    ($($file:literal,)*) => {
        /// One script per schema version, from 1. Forward only; a released script never changes.
        pub(crate) const SQLITE: &[&str] =
            &[$(include_str!(concat!("../migrations/sqlite/", $file, ".sql")),)*];

        /// The same schema versions for PostgreSQL.
        pub(crate) const POSTGRES: &[&str] =
            &[$(include_str!(concat!("../migrations/postgres/", $file, ".sql")),)*];
    };
}

migrations! {
    "0001_tickets",
    "0002_published",
    "0003_trace",
    "0004_indexes",
    "0005_cursors",
}

/// The schema version of this program.
#[expect(clippy::cast_possible_truncation, reason = "there are far fewer than 2³² scripts")]
pub const SCHEMA_VERSION: u32 = SQLITE.len() as u32;

/// The newest schema that this program can use: one version above its own. A schema works for the release
/// that introduced it and for the one before, so that instances can be upgraded one by one.
pub(crate) const NEWEST_SCHEMA_VERSION: u32 = SCHEMA_VERSION + 1;
