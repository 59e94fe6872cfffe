//! Persistent storage of bookings: the [`Store`] trait, its two databases, and the fold that they share.
//!
//! A store takes a batch of commands, loads the rows that they need, calls [`domain::decide()`] for each
//! command in order, and writes all changes in one transaction. It makes no decision itself, so the two
//! databases differ only in how they read and write, and the `conformance` suite tests both for the same
//! guarantees.

mod cell;
mod columns;
#[cfg(feature = "conformance")]
pub mod conformance;
mod database;
mod decode;
mod encode;
mod execute;
mod fault;
mod fold;
mod json;
mod limit;
mod open;
mod postgres;
mod schema;
mod sql;
mod sqlite;
mod store;

pub use fault::{Cause, Fault};
pub use limit::{
    BATCH_MAX, IDEMPOTENCY_TTL_SECONDS, OVERDUE_PER_BATCH_MAX, READERS, STATEMENT_MAX, TRANSACTION_MAX,
};
pub use open::OpenError;
pub use postgres::{Postgres, PostgresInspection, PostgresUrl, Standbys, UrlError, inspect_postgres, masked};
pub use schema::SCHEMA_VERSION;
pub use sqlite::{BackupError, Inspection, Sqlite, SqliteOptions, inspect};
pub use store::{
    BookingList, CancelledEvent, CommandOutput, Consumer, Cursor, CursorFilter, DueHold, EntryWithBooking,
    Idempotency, Page, Reply, ResponseSerializer, Stats, Store, StoreHealth, Submission,
};
