//! Persistent storage of bookings: the [`Store`] trait, its two databases, and the fold that they share.
//!
//! A store takes a batch of commands, loads the rows that they need, calls [`domain::decide()`] for each
//! command in order, and writes all changes in one transaction. It makes no decision itself, so the two
//! databases differ only in how they read and write, and the `conformance` suite tests both for the same
//! guarantees.

#[cfg(feature = "conformance")]
pub mod conformance;
mod execute;
mod fault;
mod fold;
mod open;
mod postgres;
mod row;
mod sqlite;
mod store;

/// Number of read connections of a store. This many reads run concurrently; further reads wait.
pub const READERS: usize = 12;

pub use fault::{Cause, Fault};
pub use fold::{BATCH_MAX, IDEMPOTENCY_TTL_SECONDS, OVERDUE_PER_BATCH_MAX};
pub use open::OpenError;
pub use postgres::{
    Postgres, PostgresInspection, PostgresUrl, STATEMENT_MAX, Standbys, TRANSACTION_MAX, UrlError,
    inspect_postgres, masked,
};
pub use sqlite::{BackupError, Inspection, SCHEMA_VERSION, Sqlite, SqliteOptions, inspect};
pub use store::{
    BookingList, CancelledEvent, Cursor, CursorFilter, DueHold, EntryWithBooking, Idempotency, Page, Reply,
    ResponseSerializer, Stats, Store, StoreHealth, Submission,
};
