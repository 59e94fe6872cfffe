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
mod connection_state;
mod inspect;
mod outcome;
mod read;
mod replication;
mod rows;
mod schema;
mod session;
mod standby;
mod statements;
mod tls;
mod tx;
mod url;

use std::sync::Arc;

use async_trait::async_trait;
use domain::{AuditReport, Booking, BookingId, Event, EventId, Timestamp};
use tokio_postgres::Client;
use tokio_postgres::config::TargetSessionAttrs;

use self::session::{Call, Connector, Readers, Role, Value, describe, fault};
use self::tx::PostgresWriter;
use crate::cell::Cell;
use crate::database::{Database, Decode, Query};
use crate::decode;
use crate::encode::Write;
use crate::execute::LockWait;
use crate::fault::RowResult;
use crate::limit::READERS;
use crate::schema::{NEWEST_SCHEMA_VERSION, SCHEMA_VERSION};
use crate::sql::Sql;
use crate::{Cause, Fault, OpenError, Reply, StoreHealth, Submission};

pub use self::inspect::{PostgresInspection, inspect_postgres};
pub use self::standby::Standbys;
pub use self::url::{PostgresUrl, UrlError, masked};

/// The oldest supported server, as a `server_version_num`.
const SERVER_VERSION_MIN: i32 = 140_000;

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
impl Database for Postgres {
    async fn execute(&self, batch: Vec<Submission>) -> Vec<Reply> {
        execute_on(&self.waiting_writer, batch, LockWait::Long).await
    }

    async fn try_execute(&self, batch: Vec<Submission>) -> Vec<Reply> {
        execute_on(&self.writer, batch, LockWait::Short).await
    }

    async fn rows<T: Send + 'static>(&self, query: Query, decode: Decode<T>) -> Result<Vec<T>, Fault> {
        rows::decode(&self.readers.call(&query.into()).await?, decode).map_err(Fault::Broken)
    }

    async fn booking(&self, id: BookingId) -> Result<Option<Booking>, Fault> {
        let values: Vec<Value<'_>> = vec![Box::new(vec![Cell::Id(*id.bytes())])];
        let rows = self.readers.call(&Call { sql: Sql::BookingLoad, values }).await?;
        Ok(rows::decode(&rows, decode::booking).map_err(Fault::Broken)?.pop())
    }

    async fn events(&self, ids: Vec<EventId>) -> Result<Vec<(EventId, RowResult<Event>)>, Fault> {
        let ids: Vec<Cell<'_>> = ids.iter().map(|id| Cell::Id(*id.bytes())).collect();
        let call = Call { sql: Sql::EventLoad, values: vec![Box::new(ids)] };
        read::events(&self.readers.call(&call).await?).map_err(Fault::Broken)
    }

    async fn events_before(
        &self,
        before: [u8; 16],
        limit: u32,
    ) -> Result<Vec<(EventId, RowResult<Event>)>, Fault> {
        let query = Query { sql: Sql::EventList, values: vec![Cell::Id(before), limit.into()] };
        read::events(&self.readers.call(&query.into()).await?).map_err(Fault::Broken)
    }

    /// The statement compares with the server's clock.
    fn bounded_by_clock(&self, now: Timestamp) -> Timestamp {
        now
    }

    async fn delete(&self, query: Query) -> Result<u64, Fault> {
        Ok(self.readers.call(&query.into()).await?.len() as u64)
    }

    async fn write(&self, write: Write<'static>) -> Result<(), Fault> {
        self.readers.call(&rows::write(write)).await.map(drop)
    }

    async fn health(&self) -> Result<StoreHealth, Fault> {
        let rows = self.readers.call(&Call { sql: Sql::Health, values: Vec::new() }).await?;
        let row = rows.first().ok_or_else(|| Fault::Broken(Cause::new("the query returned no row")))?;
        if !row.try_get::<_, bool>("is_primary").map_err(|error| fault(&error))? {
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
