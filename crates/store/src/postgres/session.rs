//! Connections to PostgreSQL: opening, settings, reconnection, and the pool of read connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Error, IsolationLevel, Portal, Row, RowStream, Transaction};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::statements::Statements;
use super::url::PostgresUrl;
use crate::limit::{
    BACKOFF_MAX, BACKOFF_MIN, IDLE_IN_TRANSACTION_MAX, LOCK_WAIT_LONG_MAX, SESSION_OPEN_MAX, STATEMENT_MAX,
};
use crate::sql::Sql;
use crate::{Cause, Fault};

/// The purpose of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Batches of commands.
    Writer,
    /// Reads of one statement each.
    Reader,
    /// Long reads in one snapshot, and migrations.
    Maintenance,
}

/// Opens sessions, with exponential backoff after failures. During the backoff, [`Connector::open`] returns
/// the last failure at once.
pub(super) struct Connector {
    url: PostgresUrl,
    tls: MakeRustlsConnect,
    backoff: Mutex<ReconnectBackoff>,
}

/// The state of the backoff.
#[derive(Default)]
struct ReconnectBackoff {
    /// Failures to connect since the last success.
    failures: u32,
    /// The time of the next attempt, and the last failure.
    retry_at: Option<(Instant, Fault)>,
}

/// A connection whose settings are applied. Dropping it closes the connection.
pub(super) struct Session {
    pub(super) client: Client,
    statements: Statements,
    pub(super) backend: Backend,
    driver: Driver,
}

/// The task that reads and writes the messages of a connection.
pub(super) struct Driver {
    task: AbortHandle,
    /// Number of warnings received from the server.
    warnings: Arc<AtomicU64>,
}

/// The server process of a session. Its start time distinguishes it from a later process with the same id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backend {
    pub(super) pid: i32,
    pub(super) started_at: i64,
}

/// A parameter of a statement: a value, or a column of values.
pub(super) type Value<'v> = Box<dyn ToSql + Send + Sync + 'v>;

/// A statement and its parameters.
pub(super) struct Call<'v> {
    pub(super) sql: Sql,
    pub(super) values: Vec<Value<'v>>,
}

impl Connector {
    pub(super) fn new(url: PostgresUrl) -> Result<Self, Cause> {
        let tls = url.tls.connector()?;
        Ok(Self { url, tls, backoff: Mutex::default() })
    }

    /// Opens a session, ready for statements.
    pub(super) async fn open(&self, role: Role) -> Result<Session, Fault> {
        if let Some((until, fault)) = &self.backoff().retry_at
            && Instant::now() < *until
        {
            return Err(fault.clone());
        }
        let opened = match timeout(SESSION_OPEN_MAX, self.try_open(role)).await {
            Ok(opened) => opened.map_err(|error| unavailable(&error)),
            Err(_) => Err(Fault::Unavailable(Cause::new("the database does not respond"))),
        };
        let mut backoff = self.backoff();
        match &opened {
            Ok(_) => *backoff = ReconnectBackoff::default(),
            Err(fault) => {
                backoff.failures = backoff.failures.saturating_add(1);
                backoff.retry_at = Some((Instant::now() + backoff_delay(backoff.failures), fault.clone()));
            }
        }
        opened
    }

    async fn try_open(&self, role: Role) -> Result<Session, Error> {
        let (client, driver) = self.connect(role).await?;
        client.batch_execute(&settings(role)).await?;
        let statements = Statements::new();
        if role == Role::Writer {
            statements.prepare_all(&client).await?;
        }
        let backend = client.query_one(statements.get(&client, Sql::BackendCurrent).await?, &[]).await?;
        let backend = Backend { pid: backend.try_get("pid")?, started_at: backend.try_get("started_at")? };
        Ok(Session { client, statements, backend, driver })
    }

    /// Opens a bare connection without settings and prepared statements: there may be no tables yet. It lives
    /// as long as its driver.
    pub(super) async fn connect(&self, role: Role) -> Result<(Client, Driver), Error> {
        let mut config = self.url.config.clone();
        let name = config.get_application_name().unwrap_or("boxoffice");
        let name = match role {
            Role::Writer => format!("{name}-writer"),
            Role::Reader | Role::Maintenance => name.to_owned(),
        };
        let (client, mut connection) = config.application_name(name).connect(self.tls.clone()).await?;
        let warnings = Arc::new(AtomicU64::new(0));
        let seen = warnings.clone();
        #[expect(clippy::disallowed_methods, reason = "ends with its session, which aborts it")]
        let task = tokio::spawn(async move {
            let mut messages = stream::poll_fn(|cx| connection.poll_message(cx));
            while let Some(message) = messages.next().await {
                match message {
                    // Counted before the messages that follow it on the connection are processed.
                    Ok(AsyncMessage::Notice(notice))
                        if notice.parsed_severity() == Some(Severity::Warning) =>
                    {
                        seen.fetch_add(1, Ordering::Release);
                        tracing::warn!(warning = notice.message(), "warning from the database");
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(error = %describe(&error), "connection to the database lost");
                        return;
                    }
                }
            }
        });
        Ok((client, Driver { task: task.abort_handle(), warnings }))
    }

    fn backoff(&self) -> std::sync::MutexGuard<'_, ReconnectBackoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The delay after this many failures in a row: exponential, with a jitter of up to 49 % that depends on the
/// process id.
pub(super) fn backoff_delay(failures: u32) -> Duration {
    let longest = BACKOFF_MIN.saturating_mul(1 << failures.min(5)).min(BACKOFF_MAX);
    let jitter = u64::from(std::process::id()).wrapping_add(u64::from(failures) * 7919) % 50;
    longest.mul_f64(f64::from(u32::try_from(jitter).unwrap_or(0)).mul_add(-0.01, 1.0))
}

/// The settings of a session.
///
/// - Durability: commits of the writer wait for the disk and the synchronous standbys whatever the server's
///   default is (`remote_apply`, which is stronger, is kept). Writes of a reader wait for no standby: they
///   are relay cursors, which are only hints, and pruned keys, which are pruned again if lost.
/// - Warnings: the server sends its warnings at COMMIT whatever the user's default is.
/// - Timeouts: the server enforces them, too, so no statement continues to wait after its client has timed
///   out.
/// - Plans: the writer's statements use indexes whatever the statistics say, and are planned once, because
///   they select their rows by key. Pages are read from an index in its order, and joined by key: a bitmap or
///   a hash table would have to be complete before the first row.
fn settings(role: Role) -> String {
    let (lock, statement) = match role {
        Role::Writer | Role::Reader => (LOCK_WAIT_LONG_MAX.as_millis(), STATEMENT_MAX.as_millis()),
        Role::Maintenance => (0, 0),
    };
    let idle = if role == Role::Maintenance { 0 } else { IDLE_IN_TRANSACTION_MAX.as_millis() };
    let durable = match role {
        Role::Reader => "SET synchronous_commit = local",
        Role::Writer | Role::Maintenance => {
            "SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
        }
    };
    let keyed = "SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;";
    let plans = match role {
        Role::Writer => {
            format!("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; {keyed}")
        }
        Role::Reader => keyed.to_owned(),
        Role::Maintenance => String::new(),
    };
    format!(
        "SET lock_timeout = {lock}; SET statement_timeout = {statement};
         SET idle_in_transaction_session_timeout = {idle}; SET jit = off; {plans}
         SET client_min_messages = warning; {durable}"
    )
}

impl Session {
    /// True if the connection is known to be lost.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Number of warnings received on this session: it includes all that the server sent before any response
    /// that has arrived.
    pub(super) fn warnings(&self) -> u64 {
        self.driver.warnings.load(Ordering::Acquire)
    }

    /// Runs a statement. On a writer's session it is sent when this future is first polled.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Vec<Row>, Error> {
        let values = call.values.iter().map(|value| &**value as &(dyn ToSql + Sync));
        let statement = self.statements.get(&self.client, call.sql).await?;
        self.client.query_raw(statement, values).await?.try_collect().await
    }

    /// Begins a read transaction with one snapshot of the database.
    pub(super) async fn snapshot(&mut self) -> Result<Snapshot<'_>, Error> {
        let begin = self.client.build_transaction().read_only(true);
        let tx = begin.isolation_level(IsolationLevel::RepeatableRead).start().await?;
        Ok(Snapshot { tx, statements: &self.statements })
    }

    /// Pipelines statements: sends them all in order without waiting in between, then waits for all
    /// responses. `None` gives no rows.
    pub(super) async fn pipeline(&self, calls: &[Option<Call<'_>>]) -> Vec<Result<Vec<Row>, Error>> {
        let run = async |call: &Option<Call<'_>>| match call {
            Some(call) => self.call(call).await,
            None => Ok(Vec::new()),
        };
        join_all(calls.iter().map(run)).await
    }
}

/// A read transaction with one snapshot of the database. It ends when it is dropped.
pub(super) struct Snapshot<'s> {
    tx: Transaction<'s>,
    statements: &'s Statements,
}

impl Snapshot<'_> {
    /// Runs a statement.
    pub(super) async fn call(&self, sql: Sql, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.tx.query(self.statements.get(&self.tx, sql).await?, values).await
    }

    /// Runs a statement and streams its rows. No other statement can run until the last row is read.
    pub(super) async fn stream(&self, sql: Sql, values: &[&(dyn ToSql + Sync)]) -> Result<RowStream, Error> {
        self.tx.query_raw(self.statements.get(&self.tx, sql).await?, values.iter().copied()).await
    }

    /// Opens a portal (a server-side cursor) to read a statement's rows in pages, with other statements in
    /// between.
    pub(super) async fn portal(&self, sql: Sql, values: &[&(dyn ToSql + Sync)]) -> Result<Portal, Error> {
        self.tx.bind(self.statements.get(&self.tx, sql).await?, values).await
    }

    /// The next rows of a portal, at most `count`; none after the last.
    pub(super) async fn next_page(&self, portal: &Portal, count: i32) -> Result<Vec<Row>, Error> {
        self.tx.query_portal(portal, count).await
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The fault for an error of the database anywhere but at COMMIT: nothing was done.
pub(super) fn fault(error: &Error) -> Fault {
    let Some(code) = error.code() else {
        // A value that cannot be encoded, or a response that cannot be decoded, is a bug.
        let is_lost = error.is_closed() || error.to_string().contains("communicating");
        let cause = Cause::new(describe(error));
        return if is_lost { Fault::Unavailable(cause) } else { Fault::Broken(cause) };
    };
    let cause = Cause::new(describe(error));
    let transient = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    // Connection, resources, operator intervention and the system around the database.
    let classes = ["08", "53", "57", "58"];
    if transient.contains(code) || classes.iter().any(|class| code.code().starts_with(class)) {
        Fault::Unavailable(cause)
    } else {
        Fault::Broken(cause)
    }
}

/// The fault for an error while a session is opened: the database is unavailable, whatever the error is.
fn unavailable(error: &Error) -> Fault {
    Fault::Unavailable(Cause::new(describe(error)))
}

/// An error in one line. The server's `DETAIL` is left out: it quotes values that users have sent.
pub(super) fn describe(error: &Error) -> String {
    use std::error::Error as _;
    if let Some(db_error) = error.as_db_error() {
        return format!("{} ({})", db_error.message(), db_error.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// A pool of sessions for reads of one statement each, opened on demand. Each session runs one statement at a
/// time, so that no read queues behind one that hangs; reads wait for a session in FIFO order.
pub(super) struct Readers {
    connector: Arc<Connector>,
    idle: Mutex<Vec<Session>>,
    permits: Semaphore,
}

/// A session in use. Dropping it returns it to the pool.
struct BorrowedSession<'r> {
    session: Option<Session>,
    readers: &'r Readers,
    _permit: SemaphorePermit<'r>,
}

impl Readers {
    pub(super) fn new(connector: Arc<Connector>, count: usize) -> Self {
        Self { connector, idle: Mutex::default(), permits: Semaphore::new(count) }
    }

    /// Runs a statement, and retries it once if the connection turns out to be lost: it only reads, or it is
    /// idempotent.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Vec<Row>, Fault> {
        let permit = self.permits.acquire().await;
        let permit = permit.map_err(|error| Fault::Unavailable(Cause::new(error)))?;
        let mut borrowed = BorrowedSession { session: self.take_idle(), readers: self, _permit: permit };
        match borrowed.call(call).await {
            Err(Fault::Unavailable(cause)) if borrowed.is_lost() => {
                tracing::debug!(%cause, "retrying a read on another connection");
                borrowed.session = None;
                borrowed.call(call).await
            }
            done => done,
        }
    }

    /// Takes the idle session that was used last.
    fn take_idle(&self) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|session| !session.is_closed());
        idle.pop()
    }
}

impl BorrowedSession<'_> {
    async fn call(&mut self, call: &Call<'_>) -> Result<Vec<Row>, Fault> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(self.readers.connector.open(Role::Reader).await?),
        };
        if let Ok(rows) = timeout(STATEMENT_MAX, session.call(call)).await {
            return rows.map_err(|error| fault(&error));
        }
        // The response may arrive later, and the next read would wait for it.
        self.session = None;
        Err(Fault::Unavailable(Cause::new("the database does not respond")))
    }

    fn is_lost(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_closed)
    }
}

impl Drop for BorrowedSession<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        }
    }
}
