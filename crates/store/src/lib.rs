//! Where bookings are kept: the [`Store`] trait, the databases behind it, and the one fold they share.
//!
//! A store takes a batch of commands, loads what they concern, asks [`domain::decide()`] about each in
//! turn and writes all that follows in one transaction. It decides nothing itself, so two databases can
//! differ only in plumbing, and [`conformance`] holds every one of them to the same promises.

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

/// Connections of a store that read: so many reads go on at once, and others wait for them.
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
