//! A write transaction on SQLite.

use std::sync::Arc;

use domain::sabotage::{Guard, interrupted, removed};
use domain::{Clock, Timestamp};
use rusqlite::{Connection, ErrorCode};

use super::files::Files;
use super::read;
use super::rows::{self, fault, list};
use crate::encode;
use crate::execute::{LockWait, Writer};
use crate::fold::{Changes, LoadedRows, OverdueHoldPage, OverdueQuery, Tx};
use crate::limit::IDEMPOTENCY_TTL_SECONDS;
use crate::sql::Sql;
use crate::{Cause, Fault, Submission, decode};

/// The only write connection. SQLite has one write transaction at a time, which replaces the row locks.
pub(super) struct SqliteWriter {
    connection: Connection,
    clock: Arc<dyn Clock>,
    /// True after a commit with an unknown outcome or a failed rollback: only recovery at the next opening
    /// determines the content of the file, so nothing more is written.
    failed: bool,
    /// The files of the database; `None` in memory.
    files: Option<Files>,
    /// True if the last check found one of them missing, so that it is logged once.
    is_missing: bool,
    /// Statements that a test injects between the next load and its writes.
    #[cfg(feature = "conformance")]
    pub(super) injected_sql: Option<String>,
}

pub(super) struct SqliteTx<'w> {
    writer: &'w mut SqliteWriter,
}

impl SqliteWriter {
    pub(super) fn new(connection: Connection, clock: Arc<dyn Clock>, files: Option<Files>) -> Self {
        Self {
            connection,
            clock,
            failed: false,
            files,
            is_missing: false,
            #[cfg(feature = "conformance")]
            injected_sql: None,
        }
    }

    /// The clock for deadlines.
    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// The connection, for reads of a store in memory, which has no other.
    pub(super) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// The connection, if it can write to the file that the next start will open.
    pub(super) fn writable(&mut self) -> Result<&mut Connection, Fault> {
        if self.failed {
            let cause = "an earlier commit failed with an I/O error; restart to recover the file";
            return Err(Fault::Unavailable(Cause::new(cause)));
        }
        match self.missing() {
            Some(missing) => Err(Fault::Unavailable(Cause::new(missing))),
            None => Ok(&mut self.connection),
        }
    }

    /// Describes a file that is not at its path; `None` if all are.
    fn missing(&mut self) -> Option<String> {
        let missing = self.files.as_ref()?.missing();
        match (&missing, self.is_missing) {
            (Some(problem), false) => tracing::error!(
                "{problem}: nothing is written until it is back; put it back, or restart with the right file"
            ),
            (None, true) => tracing::info!("the database file is at its path again"),
            (Some(_), true) | (None, false) => {}
        }
        self.is_missing = missing.is_some();
        missing
    }
}

impl Writer for SqliteWriter {
    type Tx<'w> = SqliteTx<'w>;

    async fn begin(&mut self, _: LockWait) -> Result<SqliteTx<'_>, Fault> {
        self.writable()?.execute_batch("BEGIN IMMEDIATE").map_err(fault)?;
        Ok(SqliteTx { writer: self })
    }
}

/// Rolls back a transaction that is not committed, also after an error or a panic.
impl Drop for SqliteTx<'_> {
    fn drop(&mut self) {
        if !self.writer.connection.is_autocommit()
            && let Err(error) = self.writer.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "rollback failed");
            self.writer.failed = true;
        }
    }
}

impl Tx for SqliteTx<'_> {
    async fn load(&mut self, batch: &[Submission]) -> Result<LoadedRows, Fault> {
        let connection = &self.writer.connection;
        let mut loaded = LoadedRows::default();
        let stored_since = self.writer.clock.now().minus_seconds(IDEMPOTENCY_TTL_SECONDS);
        for Submission { command, idempotency } in batch {
            if let Some(key) = idempotency
                && let Some(stored) = read::stored_response(connection, key, stored_since).map_err(fault)?
            {
                let (key, stored) = stored.map_err(Fault::Broken)?;
                loaded.keys.insert(key, stored);
            }
            let event_id = command.event_id();
            if !loaded.events.contains_key(&event_id)
                && let Some(event) = read::event(connection, event_id).map_err(fault)?
            {
                loaded.events.insert(event_id, event);
            }
            if let Some(id) = command.booking_id()
                && command.booked_user().is_none()
                && !loaded.bookings.contains_key(&id)
                && let Some(booking) = read::booking(connection, id).map_err(fault)?
            {
                loaded.bookings.insert(id, booking.map(Arc::new));
            }
            if let Some(reference) = command.external_ref() {
                let known = read::external_ref(connection, event_id, reference).map_err(fault)?;
                loaded.external_refs.extend(known.transpose().map_err(Fault::Broken)?);
            }
            if let Some((booking, transaction)) = command.captured()
                && let Some(refund) = read::refund(connection, booking, &transaction).map_err(fault)?
            {
                loaded.refunds.insert((booking, transaction), refund);
            }
            let known = command.booking_id().and_then(|id| loaded.bookings.get(&id)?.as_ref().ok().cloned());
            let user = command.booked_user().or_else(|| known.as_ref().map(|booking| &booking.user)).cloned();
            if let (Some(user), Some(Ok(event))) = (user, loaded.events.get(&event_id)) {
                let key = (event_id, user);
                if event.details.max_tickets_per_user.is_some() && !loaded.user_tickets.contains_key(&key) {
                    let counted = read::user_tickets(connection, event_id, &key.1).map_err(fault)?;
                    let counted = counted.transpose().map_err(Fault::Broken)?;
                    loaded.user_tickets.insert(key, counted.map_or(0, |(_, tickets)| tickets));
                }
            }
        }
        Ok(loaded)
    }

    async fn now(&mut self) -> Result<Timestamp, Fault> {
        Ok(self.writer.clock.now())
    }

    async fn overdue(&mut self, query: &OverdueQuery<'_>) -> Result<OverdueHoldPage, Fault> {
        let (sql, values) = query.statement();
        let rows = list(&self.writer.connection, sql, &values, decode::overdue_hold)?;
        Ok(OverdueHoldPage::from_rows(rows, query))
    }

    async fn commit(self, changes: Changes) -> Result<(), Fault> {
        #[cfg(feature = "conformance")]
        if let Some(sql) = self.writer.injected_sql.take() {
            self.writer.connection.execute_batch(&sql).map_err(fault)?;
        }
        self.write(&changes)?;
        let Err(error) = self.writer.connection.execute_batch("COMMIT") else {
            // Acknowledged only if the next start will open the file that contains it.
            let missing = self.writer.missing();
            return missing.map_or(Ok(()), |missing| Err(Fault::OutcomeUnknown(Cause::new(missing))));
        };
        if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) {
            // The WAL may contain the whole commit although its flush failed: a restart may find it.
            self.writer.failed = true;
            return Err(Fault::OutcomeUnknown(Cause::new(error)));
        }
        Err(fault(error))
    }
}

impl SqliteTx<'_> {
    /// The connection, for tests that change rows between the load and the writes.
    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.writer.connection
    }

    /// If a test has removed this guard, splits the transaction in two, and may simulate a crash in between.
    fn split_transaction(&self, guard: Guard) -> Result<(), Fault> {
        if !removed(guard) {
            return Ok(());
        }
        self.writer.connection.execute_batch("COMMIT").map_err(fault)?;
        if interrupted() {
            return Err(Fault::OutcomeUnknown(Cause::new("interrupted between two transactions")));
        }
        self.writer.connection.execute_batch("BEGIN IMMEDIATE").map_err(fault)
    }

    fn write(&self, changes: &Changes) -> Result<(), Fault> {
        let writes = encode::writes(changes);
        let first_after_counters = writes.iter().position(|write| !write.is_of_counters());
        for (position, write) in writes.iter().enumerate() {
            if Some(position) == first_after_counters {
                self.split_transaction(Guard::OneTransaction)?;
            }
            if write.sql == Sql::LedgerInsert {
                self.split_transaction(Guard::LedgerInTransaction)?;
            }
            rows::write(&self.writer.connection, write)?;
        }
        Ok(())
    }
}
