//! A write transaction on PostgreSQL: two round trips, one to lock and load, one to write and commit.
//!
//! The second round trip pipelines the writes, COMMIT and a query of the transaction's status. If its
//! response is lost, or the wait for the synchronous standbys was cancelled, the commit is followed up: see
//! [`super::outcome`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use domain::{BookingId, EventId, ExternalRef, Timestamp, UserId};
use futures_util::FutureExt as _;
use futures_util::future::{join, join3};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, Row};

use super::connection_state::ConnectionState;
use super::outcome::{self, Witness};
use super::replication::ReplicationCheck;
use super::session::{Call, Connector, Role, Session, Value, describe, fault};
use super::{read, rows};
use crate::cell::{Cell, Cells};
use crate::execute::{LockWait, Writer};
use crate::fold::{Changes, LoadedRows, OverdueHoldPage, OverdueQuery, Tx};
use crate::limit::{
    CONFLICT_PAUSE, IDEMPOTENCY_TTL_SECONDS, LOCK_WAIT_LONG_MAX, LOCK_WAIT_SHORT_MAX, REPLICATION_WAIT_MAX,
    TRANSACTION_MAX,
};
use crate::sql::{Dialect, Sql};
use crate::{Cause, Fault, Submission, decode, encode};

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
const COMMIT: &str = "COMMIT";

/// A connection that executes batches. It is opened again after it is lost.
pub(super) struct PostgresWriter {
    connector: Arc<Connector>,
    state: ConnectionState,
    /// True if the last transaction failed only because of a concurrent one.
    conflicted: bool,
    /// True if the last transaction failed because another session has locked a row that it needs.
    blocked: bool,
}

pub(super) struct PostgresTx<'w> {
    writer: &'w mut PostgresWriter,
    /// The deadline of the batch: after it, nothing more is sent.
    deadline: Instant,
    /// True between BEGIN and COMMIT or ROLLBACK.
    is_open: bool,
    /// Longest wait for a row that another session has locked.
    row_wait: Duration,
    now: Timestamp,
    /// The transaction id of PostgreSQL.
    xid: String,
    /// True if commits wait for synchronous standbys.
    has_standbys: bool,
}

impl PostgresWriter {
    pub(super) fn new(connector: Arc<Connector>) -> Self {
        Self { connector, state: ConnectionState::Disconnected, conflicted: false, blocked: false }
    }

    /// Connects if there is no connection. If an earlier commit may not be on the standbys, it is confirmed
    /// first: no batch builds on it before, and commits that hang do not accumulate.
    pub(super) async fn connect(&mut self) -> Result<(), Fault> {
        match &self.state {
            ConnectionState::Ready(session) if !session.is_closed() => return Ok(()),
            ConnectionState::Ready(_) | ConnectionState::Disconnected => {
                self.state = ConnectionState::Disconnected;
                self.state = ConnectionState::Ready(self.connector.open(Role::Writer).await?);
                return Ok(());
            }
            ConnectionState::ReplicationUnknown => {
                let session = self.connector.open(Role::Writer).await?;
                self.state = ConnectionState::CheckingReplication(ReplicationCheck::start(session));
            }
            ConnectionState::CheckingReplication(_) => {}
        }
        self.await_replication(Instant::now() + REPLICATION_WAIT_MAX).await
    }

    /// Checks that everything that was committed before is on the standbys.
    async fn check_replication(&mut self, deadline: Instant) -> Result<(), Fault> {
        match std::mem::take(&mut self.state) {
            ConnectionState::Ready(session) => {
                self.state = ConnectionState::CheckingReplication(ReplicationCheck::start(session));
            }
            state => self.state = state,
        }
        self.await_replication(deadline).await
    }

    /// Waits for the replication check that is running.
    async fn await_replication(&mut self, deadline: Instant) -> Result<(), Fault> {
        let ConnectionState::CheckingReplication(check) = &mut self.state else {
            return Err(Fault::Unavailable(Cause::new("there is no connection")));
        };
        match check.wait(deadline).await {
            Some(Ok(session)) => {
                self.state = ConnectionState::Ready(session);
                Ok(())
            }
            Some(Err(fault)) => {
                self.state = ConnectionState::ReplicationUnknown;
                Err(fault)
            }
            None => Err(Fault::Unavailable(Cause::new("commits wait for a standby that does not respond"))),
        }
    }
}

impl Writer for PostgresWriter {
    type Tx<'w> = PostgresTx<'w>;

    async fn begin(&mut self, lock_wait: LockWait) -> Result<PostgresTx<'_>, Fault> {
        self.blocked = false;
        if std::mem::take(&mut self.conflicted) {
            // Long enough for the other transaction to finish; different for different processes.
            sleep(CONFLICT_PAUSE.saturating_mul(1 + std::process::id() % 5)).await;
        }
        self.connect().await?;
        let deadline = Instant::now() + TRANSACTION_MAX;
        let now = Timestamp::from_micros(0).map_err(|error| Fault::Broken(Cause::new(error)))?;
        let row_wait = match lock_wait {
            LockWait::Short => LOCK_WAIT_SHORT_MAX,
            LockWait::Long => LOCK_WAIT_LONG_MAX,
        };
        let (xid, has_standbys) = (String::new(), false);
        Ok(PostgresTx { writer: self, deadline, is_open: false, row_wait, now, xid, has_standbys })
    }

    fn has_conflicted(&self) -> bool {
        self.conflicted
    }

    fn is_blocked(&self) -> bool {
        self.blocked
    }
}

/// Rolls back a transaction that is not committed, also after an error.
impl Drop for PostgresTx<'_> {
    fn drop(&mut self) {
        self.roll_back();
    }
}

impl Tx for PostgresTx<'_> {
    async fn load(&mut self, batch: &[Submission]) -> Result<LoadedRows, Fault> {
        let keys = BatchKeys::from_batch(batch);
        match self.lock_and_load(&keys, Sql::EventLock).await {
            Err(_) if self.writer.blocked => {
                self.roll_back();
                self.writer.blocked = false;
                self.row_wait = LOCK_WAIT_SHORT_MAX;
                let loaded = self.lock_and_load(&keys, Sql::EventLockSkipLocked).await;
                // Rows are skipped, so this waited for a table lock, which blocks all events.
                if std::mem::take(&mut self.writer.blocked) {
                    return Ok(LoadedRows { busy: keys.events, ..LoadedRows::default() });
                }
                loaded
            }
            done => done,
        }
    }

    async fn now(&mut self) -> Result<Timestamp, Fault> {
        Ok(self.now)
    }

    async fn overdue(&mut self, query: &OverdueQuery<'_>) -> Result<OverdueHoldPage, Fault> {
        let (sql, values) = query.statement();
        let call = Call { sql, values: values.into_iter().map(|cell| Box::new(cell) as Value<'_>).collect() };
        let response = timeout_at(self.deadline, session(self.writer)?.call(&call)).await;
        let Ok(found) = response else { return Err(self.timed_out()) };
        let found = found.map_err(|error| self.map_error(&error))?;
        let found = rows::decode(&found, decode::overdue_hold).map_err(Fault::Broken)?;
        Ok(OverdueHoldPage::from_rows(found, query))
    }

    async fn commit(mut self, changes: Changes) -> Result<(), Fault> {
        let writes: Vec<_> = encode::writes(&changes).into_iter().map(rows::write).map(Some).collect();
        let witness = Witness::of(&changes);
        let status = Call { sql: Sql::CommitStatus, values: vec![Box::new(self.xid.clone())] };
        let session = session(self.writer)?;
        let (backend, warnings) = (session.backend, session.warnings());
        // The transaction ends with the COMMIT below, either way.
        self.is_open = false;
        let sent =
            join3(session.pipeline(&writes), session.client.batch_execute(COMMIT), session.call(&status));
        let why = match timeout_at(self.deadline, sent).await {
            Ok((written, committed, status)) => {
                let calls = writes.iter().flatten();
                for (call, error) in calls.zip(written).filter_map(|(call, row)| Some((call, row.err()?))) {
                    // The server rejected a write, so the COMMIT after it rolled the transaction back.
                    if error.as_db_error().is_some() {
                        return Err(self.map_write_error(call, &error));
                    }
                }
                match committed.and(status).as_deref().map(is_committed) {
                    Ok(true) if session.warnings() == warnings => return Ok(()),
                    // Committed on the primary, but the wait for the standbys was cancelled.
                    Ok(true) => {
                        return self.writer.check_replication(self.deadline).await.map_err(outcome_unknown);
                    }
                    Ok(false) => return Err(Fault::Broken(Cause::new("the transaction was rolled back"))),
                    Err(error) => describe(error),
                }
            }
            Err(_) => "the database does not respond".to_owned(),
        };
        self.writer.state = ConnectionState::ReplicationUnknown;
        tracing::warn!(%why, "connection lost at COMMIT; resolving the outcome");
        let (outcome, state) =
            outcome::resolve_outcome(&self.writer.connector, backend, &witness, &why).await;
        self.writer.state = state;
        outcome
    }

    async fn await_replication(mut self) -> Result<(), Fault> {
        if !self.has_standbys {
            return Ok(());
        }
        // Before the empty commit, on the same connection: no rows stay locked while it waits for the
        // standbys.
        self.roll_back();
        self.writer.check_replication(self.deadline).await
    }
}

/// The fault if the change is committed on the primary and perhaps not on the standbys.
fn outcome_unknown(fault: Fault) -> Fault {
    let (Fault::Unavailable(cause) | Fault::OutcomeUnknown(cause) | Fault::Broken(cause)) = fault;
    Fault::OutcomeUnknown(cause)
}

/// True if the transaction's status is "committed".
fn is_committed(rows: &[Row]) -> bool {
    rows.first().is_some_and(|row| row.try_get::<_, &str>(0).is_ok_and(|status| status == "committed"))
}

fn session(writer: &PostgresWriter) -> Result<&Session, Fault> {
    match &writer.state {
        ConnectionState::Ready(session) => Ok(session),
        ConnectionState::Disconnected
        | ConnectionState::ReplicationUnknown
        | ConnectionState::CheckingReplication(_) => {
            Err(Fault::Unavailable(Cause::new("there is no connection")))
        }
    }
}

impl PostgresTx<'_> {
    /// Begins a transaction, locks the events of a batch with the statement `lock`, and loads the rows of the
    /// batch.
    async fn lock_and_load(&mut self, keys: &BatchKeys<'_>, lock: Sql) -> Result<LoadedRows, Fault> {
        let calls = keys.calls(lock);
        let begin = format!("{BEGIN}; SET LOCAL lock_timeout = {}", self.row_wait.as_millis());
        let session = session(self.writer)?;
        self.is_open = true;
        let start = session.client.batch_execute(&begin);
        let responses = timeout_at(self.deadline, join(start, session.pipeline(&calls))).await;
        let Ok((started, responses)) = responses else { return Err(self.timed_out()) };
        started.map_err(|error| self.map_error(&error))?;
        let mut rows = Vec::with_capacity(responses.len());
        for response in responses {
            rows.push(response.map_err(|error| {
                let fault = self.map_error(&error);
                // The statement timed out while it waited for one locked row after the other.
                self.writer.blocked |=
                    lock == Sql::EventLock && error.code() == Some(&SqlState::QUERY_CANCELED);
                fault
            })?);
        }
        let [locked, clock, loaded @ ..] = rows.as_slice() else {
            return Err(Fault::Broken(Cause::new("a response is missing")));
        };
        self.read_clock_and_xid(clock).map_err(Fault::Broken)?;
        let mut loaded = decode_loaded(loaded).map_err(Fault::Broken)?;
        if lock == Sql::EventLockSkipLocked {
            let locked = rows::decode(locked, |cells| cells.next().map(EventId::from_bytes));
            let locked: BTreeSet<EventId> = locked.map_err(Fault::Broken)?.into_iter().collect();
            loaded.busy = loaded.events.keys().copied().filter(|event| !locked.contains(event)).collect();
        }
        Ok(loaded)
    }

    /// Sends a ROLLBACK if the transaction is open, and does not wait for the response.
    fn roll_back(&mut self) {
        if std::mem::take(&mut self.is_open)
            && let Ok(session) = session(self.writer)
        {
            let _ = session.client.batch_execute("ROLLBACK").now_or_never();
        }
    }

    /// The server did not respond before the deadline. Nothing was committed; it rolls back once it notices
    /// that the connection is closed.
    fn timed_out(&mut self) -> Fault {
        self.is_open = false;
        self.writer.state = ConnectionState::Disconnected;
        Fault::Unavailable(Cause::new("the database does not respond"))
    }

    /// The fault for an error before COMMIT.
    fn map_error(&mut self, error: &Error) -> Fault {
        let conflicts = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        self.writer.conflicted = error.code().is_some_and(|code| conflicts.contains(code));
        self.writer.blocked = error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE);
        fault(error)
    }

    /// The fault for an error of a write. A division by zero means that rows are missing: a guard missed.
    fn map_write_error(&mut self, call: &Call<'_>, error: &Error) -> Fault {
        if error.code() != Some(&SqlState::DIVISION_BY_ZERO) {
            return self.map_error(error);
        }
        // Another transaction has stored a response under the key since the load. A retry finds that
        // response.
        self.writer.conflicted = call.sql == Sql::IdempotencyUpsert;
        let text = call.sql.text(Dialect::Postgres);
        let first = text.lines().next().unwrap_or_default();
        Fault::Broken(Cause::new(format!("a guard missed: {first}")))
    }

    fn read_clock_and_xid(&mut self, rows: &[Row]) -> Result<(), Cause> {
        let row = rows.first().ok_or_else(|| Cause::new("the query of the clock returned no row"))?;
        let mut cells = Cells::new(row);
        self.now = Timestamp::from_micros(cells.next()?).map_err(Cause::new)?;
        self.xid = cells.next::<Cow<'_, str>>()?.into_owned();
        self.has_standbys = cells.next()?;
        Ok(())
    }
}

/// The keys of all rows that the commands of a batch need, each once and in order.
#[derive(Default)]
struct BatchKeys<'b> {
    events: BTreeSet<EventId>,
    bookings: BTreeSet<BookingId>,
    payments: BTreeSet<(BookingId, String)>,
    users: BTreeSet<(EventId, &'b UserId)>,
    external_refs: BTreeSet<(EventId, &'b ExternalRef)>,
    keys: BTreeSet<(&'b str, &'b str)>,
}

impl<'b> BatchKeys<'b> {
    fn from_batch(batch: &'b [Submission]) -> Self {
        let mut all = Self::default();
        for Submission { command, idempotency } in batch {
            let event = command.event_id();
            all.events.insert(event);
            match command.booked_user() {
                Some(user) => {
                    all.users.insert((event, user));
                }
                None => all.bookings.extend(command.booking_id()),
            }
            all.external_refs.extend(command.external_ref().map(|reference| (event, reference)));
            let payment = command.captured();
            all.payments.extend(payment.map(|(id, transaction)| (id, transaction.as_str().to_owned())));
            all.keys.extend(idempotency.as_deref().map(|key| (key.scope(), key.key.as_str())));
        }
        all
    }

    /// The statements that lock and load the rows. None depends on the result of another.
    fn calls(&self, lock: Sql) -> [Option<Call<'b>>; 8] {
        let events: Vec<Cell<'b>> = self.events.iter().map(|id| Cell::Id(*id.bytes())).collect();
        let bookings: Vec<Cell<'b>> = self.bookings.iter().map(|id| Cell::Id(*id.bytes())).collect();
        let of_payments = self.payments.iter().map(|(id, _)| Cell::Id(*id.bytes())).collect();
        let payments = self.payments.iter().map(|(_, payment)| payment.clone().into()).collect();
        let of_users = self.users.iter().map(|(event, _)| Cell::Id(*event.bytes())).collect();
        let users = self.users.iter().map(|(_, user)| user.as_str().into()).collect();
        let scopes = self.keys.iter().map(|(scope, _)| (*scope).into()).collect();
        let keys = self.keys.iter().map(|(_, key)| (*key).into()).collect();
        let of_references = self.external_refs.iter().map(|(event, _)| Cell::Id(*event.bytes())).collect();
        let references = self.external_refs.iter().map(|(_, reference)| reference.as_str().into()).collect();
        let has_users = !self.users.is_empty() || !bookings.is_empty();
        [
            Some(Call { sql: lock, values: arrays([events.clone()]) }),
            Some(Call { sql: Sql::TxInfo, values: Vec::new() }),
            Some(Call { sql: Sql::EventLoad, values: arrays([events]) }),
            (!bookings.is_empty())
                .then(|| Call { sql: Sql::BookingLoad, values: arrays([bookings.clone()]) }),
            (!self.payments.is_empty())
                .then(|| Call { sql: Sql::RefundLoad, values: arrays([of_payments, payments]) }),
            has_users.then(|| Call {
                sql: Sql::UserLimitLoad,
                values: arrays([of_users, users, bookings.clone()]),
            }),
            (!self.keys.is_empty()).then(|| {
                let mut values = arrays([scopes, keys]);
                values.push(Box::new(i64::from(IDEMPOTENCY_TTL_SECONDS)));
                Call { sql: Sql::IdempotencyLoad, values }
            }),
            (!self.external_refs.is_empty())
                .then(|| Call { sql: Sql::BookingExternalRefs, values: arrays([of_references, references]) }),
        ]
    }
}

/// Array parameters.
fn arrays<'b, const N: usize>(arrays: [Vec<Cell<'b>>; N]) -> Vec<Value<'b>> {
    arrays.into_iter().map(|array| Box::new(array) as Value<'b>).collect()
}

/// Decodes the loaded rows. A row that cannot be decoded fails only the commands that need it.
fn decode_loaded(responses: &[Vec<Row>]) -> Result<LoadedRows, Cause> {
    let [events, bookings, refunds, users, keys, external_refs] = responses else {
        return Err(Cause::new("a response is missing"));
    };
    let mut loaded =
        LoadedRows { events: read::events(events)?.into_iter().collect(), ..LoadedRows::default() };
    for (id, booking) in rows::decode(bookings, decode::booking_with_id)? {
        loaded.bookings.insert(id, booking.map(Arc::new));
    }
    loaded.refunds = rows::decode(refunds, decode::refund_with_payment)?.into_iter().collect();
    for (event, counted) in rows::decode(users, decode::user_tickets)? {
        // If the event has no limit per user any more, its old counts are meaningless.
        let counts = loaded.events.get(&event).and_then(|event| event.as_ref().ok());
        if counts.is_some_and(|event| event.details.max_tickets_per_user.is_some()) {
            let (user, tickets) = counted?;
            loaded.user_tickets.insert((event, user), tickets);
        }
    }
    loaded.keys = rows::decode(keys, decode::stored_response)?.into_iter().collect();
    loaded.external_refs = rows::decode(external_refs, decode::external_ref)?.into_iter().collect();
    Ok(loaded)
}
