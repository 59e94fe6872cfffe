//! A write transaction on SQLite.

use std::borrow::Cow;
use std::sync::Arc;

use domain::sabotage::{Guard, interrupted, removed};
use domain::{Booking, BookingId, Clock, Event, EventId, HoldScope, Refund, RefundStatus, Timestamp, UserId};
use rusqlite::{Connection, ErrorCode, params};

use super::files::Files;
use super::lists::list;
use super::read::{self, opt_id};
use super::sql;
use crate::execute::{LockWait, Writer};
use crate::fold::{
    Changes, EventChange, LoadedRows, NewStoredResponse, OverdueHold, OverdueHoldPage, OverdueQuery, Tx,
};
use crate::row::{self, StateColumns, hex};
use crate::store::USER_WINDOW;
use crate::{Cause, Fault, IDEMPOTENCY_TTL_SECONDS, Submission};

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
                && let Some(stored) = read::key(connection, key, stored_since).map_err(fault)?
            {
                loaded.keys.insert((key.scope.clone(), key.key.clone()), stored);
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
                    let tickets = user_tickets(connection, event_id, &key.1)?;
                    loaded.user_tickets.insert(key, tickets);
                }
            }
        }
        Ok(loaded)
    }

    async fn now(&mut self) -> Result<Timestamp, Fault> {
        Ok(self.writer.clock.now())
    }

    async fn overdue(&mut self, query: &OverdueQuery<'_>) -> Result<OverdueHoldPage, Fault> {
        let ticket_type = match query.scope {
            HoldScope::Event => None,
            HoldScope::TicketType(id) => Some(hex(*id)),
            HoldScope::User(user) => return self.overdue_of_user(query, user),
        };
        let (after_time, after_id) = match &query.after {
            Some((at, id)) => (*at, id.bytes().as_slice()),
            None => (i64::MIN, [].as_slice()),
        };
        let (event, until) = (query.event.bytes(), query.now.micros());
        let values = params![event, until, after_time, after_id, ticket_type, query.limit];
        let rows = self.hold_rows(sql::BOOKING_OVERDUE, values, query.event)?;
        let next = rows.last().filter(|_| rows.len() == query.limit as usize).map(|(key, _)| *key);
        Ok(OverdueHoldPage { holds: rows.into_iter().filter_map(|(_, hold)| hold).collect(), next })
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
    /// The overdue holds of a user, in one page, because they are few.
    fn overdue_of_user(&self, query: &OverdueQuery<'_>, user: &UserId) -> Result<OverdueHoldPage, Fault> {
        let values = params![query.event.bytes(), query.now.micros(), user.as_str(), USER_WINDOW - 1];
        let mut rows = self.hold_rows(sql::BOOKING_OVERDUE_OF_USER, values, query.event)?;
        rows.sort_unstable_by_key(|(key, _)| *key);
        Ok(OverdueHoldPage { holds: rows.into_iter().filter_map(|(_, hold)| hold).collect(), next: None })
    }

    /// Runs a statement that returns overdue holds.
    fn hold_rows(
        &self,
        sql: &str,
        values: &[&dyn rusqlite::ToSql],
        event: EventId,
    ) -> Result<Vec<KeyedHold>, Fault> {
        let connection = &self.writer.connection;
        list(connection, sql, values, |row| {
            let hold = read::booking_row(row).map_err(Cause::new).and_then(Booking::try_from);
            let hold = hold.and_then(|booking| {
                let counted = read::user_tickets(connection, event, &booking.user);
                Ok(OverdueHold { user_tickets: counted.map_err(Cause::new)?, booking })
            });
            let log = |cause: &Cause| {
                tracing::error!(%cause, "overdue hold cannot be decoded; it is skipped");
            };
            let key = (row.get(HOLD_EXPIRES_AT)?, BookingId::from_bytes(row.get(0)?));
            Ok((key, hold.inspect_err(log).ok()))
        })
    }

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
        for change in changes.events.values() {
            self.write_event(change)?;
        }
        self.split_transaction(Guard::OneTransaction)?;
        for ((event, user), tickets) in &changes.user_tickets {
            let limit =
                changes.events.get(event).and_then(|change| change.event.details.max_tickets_per_user);
            self.run(sql::USER_LIMIT_UPSERT, params![event.bytes(), user.as_str(), tickets, limit])?;
        }
        for change in changes.bookings.values() {
            self.write_booking(&change.booking, change.loaded_version)?;
        }
        for change in changes.refunds.values() {
            self.write_refund(&change.refund, change.loaded_status)?;
        }
        for ((scope, key), NewStoredResponse { stored, at }) in &changes.keys {
            let scope = if removed(Guard::KeyScope) { "" } else { scope };
            let row = params![scope, key, stored.fingerprint, &*stored.response, at.micros()];
            self.run(sql::IDEMPOTENCY_UPSERT, row)?;
        }
        self.split_transaction(Guard::LedgerInTransaction)?;
        for entry in &changes.entries {
            let values = params![
                entry.event_id.bytes(),
                entry.seq,
                entry.kind.as_str(),
                opt_id(entry.booking_id.as_ref().map(domain::BookingId::bytes)),
                opt_id(entry.refund_id.as_ref().map(domain::RefundId::bytes)),
                row::lines_to(&entry.lines),
                entry.quantity,
                entry.from.map(domain::LedgerStatus::as_str),
                entry.to.map(domain::LedgerStatus::as_str),
                entry.available_after,
                entry.previous_seq,
                entry.actor.to_string(),
                entry.request.as_str(),
                entry.at.micros(),
                entry.trace.as_ref().map(domain::TraceParent::as_str),
            ];
            self.run(sql::LEDGER_INSERT, values)?;
        }
        Ok(())
    }

    fn write_event(&self, change: &EventChange) -> Result<(), Fault> {
        let Event { id, inventory, .. } = &change.event;
        let tallies = &inventory.tallies;
        let counters = params![
            id.bytes(),
            inventory.capacity,
            inventory.held,
            inventory.sold,
            inventory.seq,
            inventory.last_at.micros(),
            tallies.pending,
            tallies.confirmed,
            tallies.cancelled,
            tallies.expired,
            tallies.revenue.to_string(),
        ];
        match change.loaded_seq {
            None => self.run(sql::EVENT_INSERT, counters)?,
            Some(seq) => {
                let values: Vec<&dyn rusqlite::ToSql> =
                    counters.iter().copied().chain([&seq as &dyn rusqlite::ToSql]).collect();
                let sql = guarded_by(Guard::SequenceCheck, sql::EVENT_UPDATE, "seq = ?12");
                self.run(&sql, values.as_slice())?;
            }
        }
        if change.details_changed {
            self.write_details(&change.event)?;
        }
        for (position, (kind, counts)) in
            (0u32..).zip(change.event.details.ticket_types.iter().zip(&inventory.types))
        {
            if change.details_changed {
                let (id, name, price) = (id.bytes(), kind.name.as_str(), kind.price.amount());
                let row = params![
                    id,
                    position,
                    kind.id.bytes(),
                    name,
                    price,
                    counts.capacity,
                    counts.held,
                    counts.sold
                ];
                self.run(sql::TICKET_TYPE_UPSERT, row)?;
            } else {
                self.run(sql::TICKET_TYPE_UPDATE, params![id.bytes(), position, counts.held, counts.sold])?;
            }
        }
        Ok(())
    }

    fn write_details(&self, event: &Event) -> Result<(), Fault> {
        let details = &event.details;
        let row = params![
            event.id.bytes(),
            details.name.as_str(),
            details.venue.as_str(),
            details.starts_at.micros(),
            details.time_zone.map(|zone| zone.as_str()),
            details.currency.code(),
            details.sales_start_at.map(Timestamp::micros),
            details.sales_end_at.map(Timestamp::micros),
            details.hold_seconds,
            details.cancel_cutoff_seconds,
            details.max_tickets_per_booking,
            details.max_tickets_per_user,
            details.status.as_str(),
            details.version,
            details.created_at.micros(),
            details.updated_at.micros(),
        ];
        self.run(sql::EVENT_DETAILS_UPSERT, row)
    }

    fn write_booking(&self, booking: &Booking, loaded_version: Option<u32>) -> Result<(), Fault> {
        let state = StateColumns::from(booking);
        let (id, status, version) = (booking.id.bytes(), booking.status().as_str(), booking.version);
        let updated_at = booking.updated_at.micros();
        let StateColumns {
            transaction_id,
            confirmed_at,
            cancelled_at,
            cancellation_reason,
            refunded,
            expired_at,
        } = state;
        if let Some(loaded) = loaded_version {
            let row = params![
                id,
                status,
                version,
                booking.last_seq,
                transaction_id,
                confirmed_at,
                cancelled_at,
                cancellation_reason,
                refunded,
                expired_at,
                updated_at,
                loaded,
            ];
            let sql = guarded_by(Guard::VersionCheck, sql::BOOKING_UPDATE, "version = ?12");
            return self.run(&sql, row);
        }
        let row = params![
            id,
            booking.event_id.bytes(),
            booking.user.as_str(),
            status,
            version,
            booking.last_seq,
            row::items_to(&booking.items),
            booking.total.currency().code(),
            booking.total.amount(),
            booking.hold_expires_at.micros(),
            booking.payment_method.as_ref().map(domain::Note::as_str),
            transaction_id,
            confirmed_at,
            cancelled_at,
            cancellation_reason,
            refunded,
            expired_at,
            booking.created_at.micros(),
            updated_at,
        ];
        self.run(sql::BOOKING_INSERT, row)
    }

    fn write_refund(&self, refund: &Refund, loaded_status: Option<RefundStatus>) -> Result<(), Fault> {
        if let Some(loaded) = loaded_status {
            let reference = refund.provider_reference.as_ref().map(domain::Text::as_str);
            let settled_at = refund.settled_at.map(Timestamp::micros);
            let row =
                params![refund.id.bytes(), refund.status.as_str(), reference, settled_at, loaded.as_str()];
            return self.run(&guarded_by(Guard::StatusCheck, sql::REFUND_UPDATE, "status = ?5"), row);
        }
        let row = params![
            refund.id.bytes(),
            refund.booking_id.bytes(),
            refund.event_id.bytes(),
            refund.transaction.as_str(),
            refund.amount.amount(),
            refund.amount.currency().code(),
            refund.status.as_str(),
            refund.reason.as_str(),
            refund.provider_reference.as_ref().map(domain::Name::as_str),
            refund.created_at.micros(),
            refund.settled_at.map(Timestamp::micros),
        ];
        self.run(sql::REFUND_INSERT, row)
    }

    /// Runs a statement that must change exactly one row; otherwise a guard missed, and the transaction
    /// fails.
    fn run(&self, sql: &str, row: impl rusqlite::Params) -> Result<(), Fault> {
        let mut statement = self.writer.connection.prepare_cached(sql).map_err(fault)?;
        match statement.execute(row).map_err(fault)? {
            1 => Ok(()),
            _ if removed(Guard::RowCountCheck) => Ok(()),
            rows => {
                let first = sql.lines().next().unwrap_or_default();
                Err(Fault::Broken(Cause::new(format!("a guard missed ({rows} rows): {first}"))))
            }
        }
    }
}

/// The statement, without the condition if a test has removed that guard.
fn guarded_by(guard: Guard, sql: &'static str, condition: &str) -> Cow<'static, str> {
    if !removed(guard) {
        return Cow::Borrowed(sql);
    }
    let parameter = condition.split_once('?').map_or("1", |(_, number)| number);
    Cow::Owned(sql.replace(&format!("AND {condition}"), &format!("AND ?{parameter} IS NOT NULL")))
}

/// The deadline and id of an overdue hold, and the hold; `None` if it cannot be decoded.
type KeyedHold = ((i64, BookingId), Option<OverdueHold>);

/// The column of a booking's deadline.
const HOLD_EXPIRES_AT: usize = 9;

fn user_tickets(connection: &Connection, event: EventId, user: &UserId) -> Result<u32, Fault> {
    read::user_tickets(connection, event, user).map_err(fault)
}

/// The fault for an error of SQLite, except an I/O error at COMMIT: nothing was done.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn fault(error: rusqlite::Error) -> Fault {
    let cause = Cause::new(&error);
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::OutOfMemory
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase,
        ) => Fault::Unavailable(cause),
        Some(_) | None => Fault::Broken(cause),
    }
}
