//! The embedded store: a SQLite file with one write connection and several read connections.
//!
//! SQLite allows one write transaction at a time, so that transaction is the lock on every row. In WAL mode,
//! readers see the last commit and never wait for the writer. One process owns the file, by a lock on
//! `FILE.lock` that ends with the process; other processes may read at the same time.

mod audit;
mod backup;
mod files;
#[cfg(test)]
mod guards;
mod inspect;
mod read;
mod rows;
mod schema;
mod tx;

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use domain::{AuditReport, Booking, BookingId, Clock, Event, EventId, Timestamp};
use futures_util::FutureExt as _;
use rusqlite::{Connection, OpenFlags, params_from_iter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::files::Files;
use self::rows::fault;
use self::tx::SqliteWriter;
use crate::database::{Database, Decode, Query};
use crate::encode::Write;
use crate::execute::{LockWait, Writer as _};
use crate::fault::RowResult;
use crate::limit::READERS;
use crate::schema::{NEWEST_SCHEMA_VERSION, SCHEMA_VERSION};
use crate::{Cause, Fault, OpenError, Reply, StoreHealth, Submission};

pub use self::backup::BackupError;
pub use self::inspect::{Inspection, inspect};

/// Options of a SQLite store.
#[derive(Clone)]
pub struct SqliteOptions {
    /// The clock for deadlines.
    pub clock: Arc<dyn Clock>,
    /// Run SQLite on the calling thread instead of a blocking thread. For simulations, which need one thread.
    pub inline: bool,
}

/// A store in a SQLite file, or in memory. Share it in an `Arc`.
pub struct Sqlite {
    writer: Option<Arc<Mutex<SqliteWriter>>>,
    /// `None` in memory, where the writer's connection is the only one.
    readers: Option<Arc<Readers>>,
    inline: bool,
    /// The clock for due holds; `None` if the store only reads.
    clock: Option<Arc<dyn Clock>>,
    /// The lock on `FILE.lock`, held as long as the store exists. The operating system releases it when the
    /// process ends.
    _owner: Option<File>,
}

/// A pool of read connections.
struct Readers {
    idle: Mutex<Vec<Connection>>,
    /// One per connection. Reads wait for them in FIFO order.
    permits: Arc<Semaphore>,
}

/// A connection in use. Dropping it returns it to the pool, also after a panic, which rolls back its
/// transaction.
struct BorrowedConnection {
    connection: Option<Connection>,
    readers: Arc<Readers>,
    _permit: OwnedSemaphorePermit,
}

impl Sqlite {
    /// Opens a file as its owner. If `migrate` is true, creates a missing file and migrates an older schema;
    /// otherwise both are errors.
    pub fn open(path: &Path, migrate: bool, options: &SqliteOptions) -> Result<Self, OpenError> {
        if !migrate && !path.exists() {
            return Err(OpenError::Missing(path.to_owned()));
        }
        let owner = lock_database_file(path)?;
        let mut connection = Connection::open(path)?;
        let found = schema::version(&connection)?.ok_or_else(|| OpenError::Foreign(path.to_owned()))?;
        if found > NEWEST_SCHEMA_VERSION {
            return Err(OpenError::TooNew { found });
        }
        if !migrate && found < SCHEMA_VERSION {
            return Err(OpenError::Outdated { found });
        }
        schema::configure(&connection)?;
        if migrate {
            schema::migrate(&mut connection)?;
        }
        let readers = Readers::open(path)?;
        // The first read creates the WAL and its index.
        readers.version()?;
        let files = Files::of(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        let writer = SqliteWriter::new(connection, options.clock.clone(), Some(files));
        Ok(Self::from_parts(Some(writer), Some(readers), options.inline, Some(owner)))
    }

    /// Opens a file for reads only, while its owner runs or after it was killed.
    pub fn open_reader(path: &Path) -> Result<Self, OpenError> {
        if !path.exists() {
            return Err(OpenError::Missing(path.to_owned()));
        }
        let readers = Readers::open(path)?;
        let found = readers.version()?;
        inspect::usable(found, path)?;
        Ok(Self::from_parts(None, Some(readers), false, None))
    }

    /// A new store in memory. Its data is lost when it is dropped.
    pub fn in_memory(options: &SqliteOptions) -> Result<Self, OpenError> {
        let mut connection = Connection::open_in_memory()?;
        schema::configure(&connection)?;
        schema::migrate(&mut connection)?;
        let writer = SqliteWriter::new(connection, options.clock.clone(), None);
        Ok(Self::from_parts(Some(writer), None, options.inline, None))
    }

    fn from_parts(
        writer: Option<SqliteWriter>,
        readers: Option<Readers>,
        inline: bool,
        owner: Option<File>,
    ) -> Self {
        let clock = writer.as_ref().map(SqliteWriter::clock);
        let writer = writer.map(|writer| Arc::new(Mutex::new(writer)));
        Self { writer, readers: readers.map(Arc::new), inline, clock, _owner: owner }
    }

    /// Executes statements on the writer's connection, past the store. For tests of corrupt data.
    #[cfg(feature = "conformance")]
    pub fn execute_directly(&self, sql: &str) -> rusqlite::Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        lock(writer).connection_mut().execute_batch(sql)
    }

    /// Executes statements between the next load and its writes, like a concurrent writer. For tests of the
    /// guards.
    #[cfg(feature = "conformance")]
    pub fn inject_before_write(&self, sql: &str) {
        if let Some(writer) = &self.writer {
            lock(writer).injected_sql = Some(sql.to_owned());
        }
    }

    /// Runs a read on a read connection, on a blocking thread.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let Some(readers) = self.readers.clone() else {
            return self.on_writer(|writer| work(writer.connection_mut())).await;
        };
        // Awaited here, so that no blocking thread is occupied by the wait.
        let mut borrowed = readers.borrow().await?;
        let read = move || work(borrowed.connection()?);
        if self.inline { read() } else { run_blocking(read).await? }
    }

    /// Runs work on the writer's connection, on a blocking thread.
    async fn on_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteWriter) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let Some(writer) = self.writer.clone() else {
            return Err(Fault::Unavailable(Cause::new("the database is open for reading only")));
        };
        let write = move || work(&mut lock(&writer));
        if self.inline { write() } else { run_blocking(write).await? }
    }
}

#[async_trait]
impl Database for Sqlite {
    async fn execute(&self, batch: Vec<Submission>) -> Vec<Reply> {
        let count = batch.len();
        let all = |fault: Fault| std::iter::repeat_n(Reply::Failed(fault), count).collect();
        // The futures of the SQLite store never wait, so the shared fold is ready at the first poll.
        let work = move |writer: &mut SqliteWriter| {
            Ok(crate::execute::execute(writer, batch, LockWait::Long).now_or_never().unwrap_or_default())
        };
        self.on_writer(work).await.unwrap_or_else(all)
    }

    async fn try_execute(&self, batch: Vec<Submission>) -> Vec<Reply> {
        Database::execute(self, batch).await
    }

    async fn rows<T: Send + 'static>(&self, query: Query, decode: Decode<T>) -> Result<Vec<T>, Fault> {
        self.read(move |connection| rows::list(connection, query.sql, &query.values, decode)).await
    }

    async fn booking(&self, id: BookingId) -> Result<Option<Booking>, Fault> {
        self.read(move |connection| {
            read::booking(connection, id).map_err(fault)?.transpose().map_err(Fault::Broken)
        })
        .await
    }

    async fn events(&self, ids: Vec<EventId>) -> Result<Vec<(EventId, RowResult<Event>)>, Fault> {
        self.read(move |connection| {
            let tx = connection.transaction().map_err(fault)?;
            let event = |id| Some(read::event(&tx, id).map_err(fault).transpose()?.map(|event| (id, event)));
            ids.into_iter().filter_map(event).collect()
        })
        .await
    }

    async fn events_before(
        &self,
        before: [u8; 16],
        limit: u32,
    ) -> Result<Vec<(EventId, RowResult<Event>)>, Fault> {
        self.read(move |connection| read::events_before(connection, before, limit)).await
    }

    fn bounded_by_clock(&self, now: Timestamp) -> Timestamp {
        self.clock.as_ref().map_or(now, |clock| now.min(clock.now()))
    }

    async fn delete(&self, query: Query) -> Result<u64, Fault> {
        self.on_writer(move |writer| {
            let mut statement = writer.writable()?.prepare_cached(&rows::text(query.sql)).map_err(fault)?;
            Ok(statement.execute(params_from_iter(&query.values)).map_err(fault)? as u64)
        })
        .await
    }

    async fn write(&self, write: Write<'static>) -> Result<(), Fault> {
        self.on_writer(move |writer| {
            let tx = writer.writable()?.transaction().map_err(fault)?;
            rows::write(&tx, &write)?;
            tx.commit().map_err(fault)
        })
        .await
    }

    async fn health(&self) -> Result<StoreHealth, Fault> {
        let begin = |writer: &mut SqliteWriter| {
            writer.begin(LockWait::Long).now_or_never().map_or(Ok(()), |begun| begun.map(drop))
        };
        self.on_writer(begin).await.map(|()| StoreHealth::default())
    }

    async fn audit(&self) -> Result<AuditReport, Fault> {
        self.read(|connection| audit::audit(connection).map_err(fault)).await
    }
}

impl Readers {
    fn new(connections: Vec<Connection>) -> Self {
        let permits = Arc::new(Semaphore::new(connections.len()));
        Self { idle: Mutex::new(connections), permits }
    }

    fn open(path: &Path) -> Result<Self, OpenError> {
        let open = || {
            // Not read-only: after a kill -9 the first connection rebuilds the WAL index in shared memory.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            schema::configure_reader(&connection)?;
            Ok(connection)
        };
        Ok(Self::new((0..READERS).map(|_| open()).collect::<rusqlite::Result<_>>()?))
    }

    /// The version of the schema. Called before other reads.
    fn version(&self) -> Result<Option<u32>, OpenError> {
        let idle = lock(&self.idle);
        Ok(idle.last().map(schema::version).transpose()?.flatten())
    }

    /// Waits for an idle connection.
    async fn borrow(self: Arc<Self>) -> Result<BorrowedConnection, Fault> {
        let permit = self.permits.clone().acquire_owned().await.map_err(no_connection)?;
        let connection = lock(&self.idle).pop();
        Ok(BorrowedConnection { connection, readers: self, _permit: permit })
    }
}

impl BorrowedConnection {
    fn connection(&mut self) -> Result<&mut Connection, Fault> {
        self.connection.as_mut().ok_or_else(|| no_connection("all are in use"))
    }
}

impl Drop for BorrowedConnection {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            lock(&self.readers.idle).push(connection);
        }
    }
}

fn no_connection(cause: impl std::fmt::Display) -> Fault {
    Fault::Unavailable(Cause::new(format!("there is no read connection: {cause}")))
}

/// Ignores poisoning: a panic while the mutex was locked has rolled back its transaction, so the connection
/// is usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs blocking work on a thread for it. It runs to its end even if the caller is dropped.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Fault::Broken(Cause::new(error)))
}

/// Locks `FILE.lock`: the holder of this lock owns the database file.
fn lock_database_file(path: &Path) -> Result<File, OpenError> {
    let lock_path = path.with_added_extension("lock");
    let io = |source| OpenError::Io { path: lock_path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Owned(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}
