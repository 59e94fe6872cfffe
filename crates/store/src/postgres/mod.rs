//! The store for many instances: PostgreSQL 14 to 18.
//!
//! Any number of processes use one database, and all consistency comes from it: the row of an event is the
//! lock on everything that belongs to the event. A batch takes two round trips, one to lock and load and one
//! to write and commit, and every write fails the transaction unless it finds the rows as they were loaded.
//! If the response to COMMIT is lost, the outcome is resolved (see [`outcome`]).
//!
//! One connection executes batches, a second one the batches that wait for locked rows, up to [`READERS`]
//! connections read, and each audit has its own. A lost connection is opened again.

mod audit;
mod inspect;
mod lists;
mod outcome;
mod read;
mod replication;
mod schema;
mod session;
mod sql;
mod standby;
mod statements;
mod tls;
mod tx;
mod url;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{
    AuditReport, Booking, BookingId, BookingStatus, Currency, Entry, Event, EventId, Refund, RefundId,
    RefundStatus, Tallies, Timestamp,
};
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use self::read::RowReader;
use self::session::{Call, Connector, Readers, Role, Value, describe, fault};
use self::sql::Sql;
use self::tx::PostgresWriter;
use crate::execute::LockWait;
use crate::fold::RowResult;
use crate::sqlite::{NEWEST_SCHEMA_VERSION, SCHEMA_VERSION};
use crate::store::{readable, readable_prefix};
use crate::{
    BookingList, CancelledEvent, Cause, Cursor, CursorFilter, DueHold, EntryWithBooking, Fault, OpenError,
    Page, READERS, Reply, Stats, Store, StoreHealth, Submission,
};

pub use self::inspect::{PostgresInspection, inspect_postgres};
pub use self::standby::Standbys;
pub use self::url::{PostgresUrl, UrlError, masked};

/// The oldest supported server, as a `server_version_num`.
const SERVER_VERSION_MIN: i32 = 140_000;
/// Longest wait of a batch for rows that another session has locked, before its commands on other events are
/// executed without the blocked ones. Many batches of another instance fit into it.
const LOCK_WAIT_SHORT_MAX: Duration = Duration::from_millis(250);
/// Longest wait of a statement for a row that another session has locked.
const LOCK_WAIT_LONG_MAX: Duration = Duration::from_secs(2);
/// Timeout of a statement, including its waits for locks.
pub const STATEMENT_MAX: Duration = Duration::from_secs(3);
/// Timeout of a transaction, from its beginning to its end as the client sees it. Shorter than the longest
/// time for which the engine queues a command, so that commands behind one slow transaction do not time out.
pub const TRANSACTION_MAX: Duration = Duration::from_secs(4);
/// Timeout for resolving the outcome of a COMMIT whose response was lost.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(
    LOCK_WAIT_LONG_MAX.as_millis() < STATEMENT_MAX.as_millis()
        && STATEMENT_MAX.as_millis() < TRANSACTION_MAX.as_millis(),
    "the inner wait must time out first, because its error names the cause"
);

/// A store in a PostgreSQL database, which other instances may use at the same time. Share it in an `Arc`.
pub struct Postgres {
    connector: Arc<Connector>,
    /// Executes batches with [`LockWait::Short`].
    writer: Writer,
    /// Executes batches with [`LockWait::Long`], so that their waits do not delay the others.
    waiting_writer: Writer,
    readers: Readers,
}

type Writer = Arc<tokio::sync::Mutex<PostgresWriter>>;

impl Postgres {
    /// Connects, and migrates the schema if `migrate` is true; otherwise an older schema is an error.
    ///
    /// This and all methods of the store must be called within a Tokio runtime.
    pub async fn open(url: &PostgresUrl, migrate: bool) -> Result<Self, OpenError> {
        let connector = Connector::new(url.clone()).map_err(|cause| unreachable(url, &cause))?;
        let store = Self::connected(url, connector, migrate).await?;
        let connected = store.writer.lock().await.connect().await;
        connected.map_err(|fault| unreachable(url, &cause_of(&fault)))?;
        Ok(store)
    }

    /// Connects for reads only, also to a standby.
    pub async fn open_reader(url: &PostgresUrl) -> Result<Self, OpenError> {
        let mut any = url.clone();
        any.config.target_session_attrs(TargetSessionAttrs::Any);
        let connector = Connector::new(any).map_err(|cause| unreachable(url, &cause))?;
        Self::connected(url, connector, false).await
    }

    async fn connected(url: &PostgresUrl, connector: Connector, migrate: bool) -> Result<Self, OpenError> {
        let failed = |error: tokio_postgres::Error| unreachable(url, &describe(&error));
        // A separate connection, so that the migration lock ends with it.
        let (client, driver) = connector.connect(Role::Maintenance).await.map_err(failed)?;
        let prepared = prepare(url, &client, migrate).await;
        drop(driver);
        prepared?;
        let connector = Arc::new(connector);
        let writer = || Arc::new(tokio::sync::Mutex::new(PostgresWriter::new(connector.clone())));
        let (writer, waiting_writer) = (writer(), writer());
        let readers = Readers::new(connector.clone(), READERS);
        Ok(Self { connector, writer, waiting_writer, readers })
    }

    async fn rows(&self, sql: Sql, values: Vec<Value<'_>>) -> Result<Vec<Row>, Fault> {
        self.readers.call(&Call { sql, values }).await
    }

    /// Decodes the rows of a statement. An error of `decode` fails the list; rows that may be corrupt are
    /// decoded to a `Result`.
    async fn list<T>(
        &self,
        sql: Sql,
        values: Vec<Value<'_>>,
        decode: impl Fn(RowReader<'_>) -> RowResult<T>,
    ) -> Result<Vec<T>, Fault> {
        let rows = self.rows(sql, values).await?;
        rows.iter().map(|row| decode(RowReader::new(row, 0)).map_err(Fault::Broken)).collect()
    }

    async fn list_events(
        &self,
        sql: Sql,
        values: Vec<Value<'_>>,
    ) -> Result<Vec<(EventId, RowResult<Event>)>, Fault> {
        read::events(&self.rows(sql, values).await?).map_err(Fault::Broken)
    }
}

/// Checks the versions of the server and the schema, and migrates the schema if `migrate` is true.
async fn prepare(url: &PostgresUrl, client: &Client, migrate: bool) -> Result<(), OpenError> {
    let failed = |error: tokio_postgres::Error| unreachable(url, &describe(&error));
    let number = client.query_one("SELECT current_setting('server_version_num')::int", &[]).await;
    check_server_version(url, number.and_then(|row| row.try_get(0)).map_err(failed)?)?;
    let found = schema::version(client).await.map_err(failed)?;
    if found > NEWEST_SCHEMA_VERSION {
        return Err(OpenError::TooNew { found });
    }
    if migrate && found < SCHEMA_VERSION {
        return schema::migrate(client).await.map_err(|error| OpenError::Migration(describe(&error)));
    }
    check_schema_version(found).map(drop)
}

/// Checks that the version of the server is supported.
fn check_server_version(url: &PostgresUrl, found: i32) -> Result<(), OpenError> {
    if found < SERVER_VERSION_MIN {
        return Err(OpenError::Unsupported { url: url.to_string(), found: found / 10_000 });
    }
    Ok(())
}

/// Returns the schema version if this program can use it.
fn check_schema_version(found: u32) -> Result<u32, OpenError> {
    match found {
        found if found < SCHEMA_VERSION => Err(OpenError::Outdated { found }),
        found if found > NEWEST_SCHEMA_VERSION => Err(OpenError::TooNew { found }),
        found => Ok(found),
    }
}

fn unreachable(url: &PostgresUrl, why: &dyn std::fmt::Display) -> OpenError {
    OpenError::Unreachable { url: url.to_string(), why: why.to_string() }
}

fn cause_of(fault: &Fault) -> String {
    let (Fault::Unavailable(cause) | Fault::OutcomeUnknown(cause) | Fault::Broken(cause)) = fault;
    cause.to_string()
}

fn id(bytes: &[u8; 16]) -> Value<'static> {
    Box::new(Uuid::from_bytes(*bytes))
}

fn count(limit: u32) -> Value<'static> {
    Box::new(i64::from(limit))
}

async fn execute_on(writer: &Writer, batch: Vec<Submission>, lock_wait: LockWait) -> Vec<Reply> {
    let (count, writer) = (batch.len(), writer.clone());
    let work = async move { crate::execute::execute(&mut *writer.lock().await, batch, lock_wait).await };
    #[expect(clippy::disallowed_methods, reason = "a batch runs to its end even if its caller is dropped")]
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| {
        let cause = Cause::new(&error);
        let fault = if error.is_panic() { Fault::Broken(cause) } else { Fault::OutcomeUnknown(cause) };
        vec![Reply::Failed(fault); count]
    })
}

#[async_trait]
impl Store for Postgres {
    async fn execute(&self, batch: Vec<Submission>) -> Vec<Reply> {
        execute_on(&self.waiting_writer, batch, LockWait::Long).await
    }

    async fn try_execute(&self, batch: Vec<Submission>) -> Vec<Reply> {
        execute_on(&self.writer, batch, LockWait::Short).await
    }

    async fn event(&self, event: EventId) -> Result<Option<Event>, Fault> {
        let event = self.events_by_ids(vec![event]).await?.pop();
        event.map(|(_, event)| event).transpose().map_err(Fault::Broken)
    }

    async fn events_by_ids(&self, ids: Vec<EventId>) -> Result<Vec<(EventId, RowResult<Event>)>, Fault> {
        let ids: Vec<Uuid> = ids.iter().map(|id| Uuid::from_bytes(*id.bytes())).collect();
        self.list_events(Sql::EventLoad, vec![Box::new(ids)]).await
    }

    async fn events(&self, after: Option<EventId>, limit: u32) -> Result<Page<Event>, Fault> {
        lists::events(self, after, limit).await
    }

    async fn booking(&self, booking: BookingId) -> Result<Option<Booking>, Fault> {
        let ids = vec![Uuid::from_bytes(*booking.bytes())];
        Ok(self.list(Sql::BookingLoad, vec![Box::new(ids)], read::booking).await?.pop())
    }

    async fn bookings(
        &self,
        list: BookingList,
        status: Option<BookingStatus>,
        limit: u32,
    ) -> Result<Page<Booking>, Fault> {
        lists::bookings(self, &list, status, limit).await
    }

    async fn ledger(&self, event: EventId, after: u64, limit: u32) -> Result<Page<Entry>, Fault> {
        lists::ledger(self, event, after, limit).await
    }

    async fn refunds(
        &self,
        status: Option<RefundStatus>,
        after: Option<RefundId>,
        limit: u32,
    ) -> Result<Page<Refund>, Fault> {
        lists::refunds(self, status, after, limit).await
    }

    async fn refund(&self, refund: RefundId) -> Result<Option<Refund>, Fault> {
        Ok(self.list(Sql::RefundFind, vec![id(refund.bytes())], read::refund).await?.pop())
    }

    async fn stats(&self) -> Result<Stats, Fault> {
        let row = |row: RowReader<'_>| Ok((row.parse::<Currency>(0)?, read::tallies(row, 1)?));
        let rows = self.list(Sql::EventStats, Vec::new(), |cells| Ok(("an event", row(cells)))).await?;
        let mut sums: BTreeMap<&'static str, (Currency, Tallies)> = BTreeMap::new();
        for (currency, tallies) in readable(rows) {
            let (_, sum) = sums.entry(currency.code()).or_insert((currency, Tallies::default()));
            *sum = sum.plus(tallies);
        }
        Ok(Stats { per_currency: sums.into_values().collect() })
    }

    async fn due_holds(
        &self,
        now: Timestamp,
        after: Option<DueHold>,
        limit: u32,
    ) -> Result<Vec<DueHold>, Fault> {
        let (at, booking) = after.map_or((i64::MIN, [0; 16]), |hold| (hold.at_micros, *hold.booking.bytes()));
        let values = vec![Box::new(now.micros()), Box::new(at) as Value<'_>, id(&booking), count(limit)];
        let due = |row: RowReader<'_>| {
            let (event, booking) = (EventId::from_bytes(row.id(0)?), BookingId::from_bytes(row.id(2)?));
            Ok(DueHold { event, at_micros: row.get(1)?, booking })
        };
        self.list(Sql::ChoreDueHolds, values, due).await
    }

    async fn cancelled_events(
        &self,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<CancelledEvent>, Fault> {
        let after = after.map_or([0; 16], |event| *event.bytes());
        let cancelled = |row: RowReader<'_>| {
            let (event, has_live_bookings) = (EventId::from_bytes(row.id(0)?), row.get(1)?);
            Ok(CancelledEvent { event, has_live_bookings })
        };
        self.list(Sql::ChoreCancelledEvents, vec![id(&after), count(limit)], cancelled).await
    }

    async fn bookings_in_status(
        &self,
        event: EventId,
        status: BookingStatus,
        after: Option<BookingId>,
        limit: u32,
    ) -> Result<Vec<BookingId>, Fault> {
        let after = after.map_or([0; 16], |booking| *booking.bytes());
        let values = vec![id(event.bytes()), Box::new(status.as_str()), id(&after), count(limit)];
        let booking = |row: RowReader<'_>| Ok(BookingId::from_bytes(row.id(0)?));
        self.list(Sql::ChoreBookingsInStatus, values, booking).await
    }

    async fn prune_keys(&self, before: Timestamp, limit: u32) -> Result<u64, Fault> {
        let pruned = self.rows(Sql::ChorePruneKeys, vec![Box::new(before.micros()), count(limit)]).await?;
        Ok(pruned.len() as u64)
    }

    async fn cursors(
        &self,
        stream: Timestamp,
        which: CursorFilter,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<Cursor>, Fault> {
        let after = id(&after.map_or([0; 16], |event| *event.bytes()));
        let behind: Value<'_> = Box::new(which == CursorFilter::Behind);
        let values: Vec<Value<'_>> = vec![Box::new(stream.micros()), after, behind, count(limit)];
        let cursor = |row: RowReader<'_>| {
            let event = EventId::from_bytes(row.id(0)?);
            Ok(Cursor { event, ledger: row.number(1)?, published: row.number(2)? })
        };
        self.list(Sql::PublishedCursors, values, cursor).await
    }

    async fn entries_with_bookings(
        &self,
        event: EventId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EntryWithBooking>, Fault> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let values = vec![id(event.bytes()), Box::new(after), count(limit)];
        readable_prefix(
            self.list(Sql::LedgerWithBookings, values, |row| Ok(read::entry_with_booking(row))).await?,
        )
    }

    async fn save_relay_cursors(
        &self,
        stream: Timestamp,
        published: Vec<(EventId, u64)>,
    ) -> Result<(), Fault> {
        let seq = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
        let (events, seqs): (Vec<Uuid>, Vec<i64>) = published
            .into_iter()
            .map(|(event, number)| (Uuid::from_bytes(*event.bytes()), seq(number)))
            .unzip();
        let values: Vec<Value<'_>> = vec![Box::new(events), Box::new(stream.micros()), Box::new(seqs)];
        self.rows(Sql::PublishedSave, values).await.map(drop)
    }

    async fn unpublished_entry_count(&self) -> Result<u64, Fault> {
        let count =
            self.list(Sql::UnpublishedCount, Vec::new(), |row: RowReader<'_>| row.number::<u64>(0)).await?;
        Ok(count.into_iter().sum())
    }

    async fn health(&self) -> Result<StoreHealth, Fault> {
        let rows = self.rows(Sql::Health, Vec::new()).await?;
        let row = rows.first().ok_or_else(|| Fault::Broken(Cause::new("the query returned no row")))?;
        if !row.try_get::<_, bool>(0).map_err(|error| fault(&error))? {
            return Err(Fault::Unavailable(Cause::new("the database is a standby")));
        }
        let standbys = Standbys::from_row(row).map_err(|error| fault(&error))?;
        match standbys.stall_reason() {
            Some(why) => Err(Fault::Unavailable(Cause::new(why))),
            None => Ok(StoreHealth { warnings: standbys.degraded_reason().into_iter().collect() }),
        }
    }

    async fn audit(&self) -> Result<AuditReport, Fault> {
        let mut session = self.connector.open(Role::Maintenance).await?;
        audit::audit(&mut session).await.map_err(|error| fault(&error))
    }
}
