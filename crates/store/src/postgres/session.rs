//! Connections: how they are made, set up, and lost.

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

use super::sql::Sql;
use super::statements::Statements;
use super::url::PostgresUrl;
use super::{LOCK_WAIT_MAX, STATEMENT_MAX};
use crate::{Cause, Fault};

/// Longest time from the first packet to a session that is ready.
const OPEN_MAX: Duration = Duration::from_secs(4);
/// How long a transaction may wait for its client: one that has stopped must not keep its rows from others.
const IDLE_IN_TRANSACTION_MAX: Duration = Duration::from_secs(1);
/// The first pause after a connection could not be made; each further one is twice as long.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest pause: how late it is noticed, at most, that the database has come back.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

const _: () = assert!(
    IDLE_IN_TRANSACTION_MAX.as_millis() < LOCK_WAIT_MAX.as_millis(),
    "whoever waits for a stopped process's rows outlasts its transaction"
);

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Batches of commands.
    Writer,
    /// Reads of one statement each.
    Reader,
    /// Long reads in one snapshot, and migrations.
    Maintenance,
}

/// Makes sessions. Where that fails it pauses, ever longer, and says so at once to whoever asks meanwhile.
pub(super) struct Connector {
    url: PostgresUrl,
    tls: MakeRustlsConnect,
    backoff: Mutex<ReconnectBackoff>,
}

/// When a session may next be tried for.
#[derive(Default)]
struct ReconnectBackoff {
    failures: u32,
    retry_at: Option<(Instant, Fault)>,
}

/// A connection that is set up. Dropped, it is closed.
pub(super) struct Session {
    pub(super) client: Client,
    statements: Statements,
    pub(super) backend: Backend,
    driver: Driver,
}

/// The task that moves a connection's messages.
pub(super) struct Driver {
    task: AbortHandle,
    /// How many warnings the server has sent.
    warnings: Arc<AtomicU64>,
}

/// The server's process behind a session. Its start tells it from a later one of the same number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backend {
    pub(super) pid: i32,
    pub(super) started_at: i64,
}

/// A value, or a column of values, of a statement.
pub(super) type Value<'v> = Box<dyn ToSql + Send + Sync + 'v>;

/// A statement and its values.
pub(super) struct Call<'v> {
    pub(super) sql: Sql,
    pub(super) values: Vec<Value<'v>>,
}

impl Connector {
    pub(super) fn new(url: PostgresUrl) -> Result<Self, Cause> {
        let tls = url.tls.connector()?;
        Ok(Self { url, tls, backoff: Mutex::default() })
    }

    /// A session, ready for work.
    pub(super) async fn open(&self, role: Role) -> Result<Session, Fault> {
        if let Some((until, fault)) = &self.backoff().retry_at
            && Instant::now() < *until
        {
            return Err(fault.clone());
        }
        let opened = match timeout(OPEN_MAX, self.try_open(role)).await {
            Ok(opened) => opened.map_err(|error| unavailable(&error)),
            Err(_) => Err(Fault::Unavailable(Cause::new("the database does not answer"))),
        };
        let mut backoff = self.backoff();
        match &opened {
            Ok(_) => *backoff = ReconnectBackoff::default(),
            Err(fault) => {
                backoff.failures = backoff.failures.saturating_add(1);
                backoff.retry_at = Some((Instant::now() + pause(backoff.failures), fault.clone()));
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
        let backend = Backend { pid: backend.try_get(0)?, started_at: backend.try_get(1)? };
        Ok(Session { client, statements, backend, driver })
    }

    /// A bare connection, on which no statement is prepared: there may be no tables yet. It lasts as long as its
    /// driver.
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
                    // Counted before what follows it on the wire is handed on.
                    Ok(AsyncMessage::Notice(notice))
                        if notice.parsed_severity() == Some(Severity::Warning) =>
                    {
                        seen.fetch_add(1, Ordering::Release);
                        tracing::warn!(warning = notice.message(), "the database warns");
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(error = %describe(&error), "a connection to the database has ended");
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

/// How long to wait after so many failures: longer each time, and not the same for every process.
pub(super) fn pause(failures: u32) -> Duration {
    let longest = BACKOFF_MIN.saturating_mul(1 << failures.min(5)).min(BACKOFF_MAX);
    let spread = u64::from(std::process::id()).wrapping_add(u64::from(failures) * 7919) % 50;
    longest.mul_f64(f64::from(u32::try_from(spread).unwrap_or(0)).mul_add(-0.01, 1.0))
}

/// What every connection is told. The desk's commits are durable whatever the server's default: `remote_apply` is
/// more; and what the server warns of at COMMIT is heard, whatever the user's default. What readers commit (notes that
/// are not believed, keys that are pruned again) waits for no standby. Times out at the server, too, so that nothing is
/// waited for in vain. The desk's statements go by index whatever the statistics say, and their plans are made once:
/// they name their rows by key. Pages come from an index that has their order, and are joined by key: a bitmap or a
/// hash would have to be complete before the first row.
fn settings(role: Role) -> String {
    let (lock, statement) = match role {
        Role::Writer | Role::Reader => (LOCK_WAIT_MAX.as_millis(), STATEMENT_MAX.as_millis()),
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
    /// Whether it is known to be lost.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// How many warnings the server has sent on it: all of those that were sent before any answer that has
    /// arrived.
    pub(super) fn warnings(&self) -> u64 {
        self.driver.warnings.load(Ordering::Acquire)
    }

    /// Runs a statement. On the desk's session it is sent when this is first polled.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Vec<Row>, Error> {
        let values = call.values.iter().map(|value| &**value as &(dyn ToSql + Sync));
        let statement = self.statements.get(&self.client, call.sql).await?;
        self.client.query_raw(statement, values).await?.try_collect().await
    }

    /// Begins a read transaction that sees one moment of the database.
    pub(super) async fn snapshot(&mut self) -> Result<Snapshot<'_>, Error> {
        let begin = self.client.build_transaction().read_only(true);
        let tx = begin.isolation_level(IsolationLevel::RepeatableRead).start().await?;
        Ok(Snapshot { tx, statements: &self.statements })
    }

    /// Sends statements one behind the other without waiting in between, and waits for all. What is not
    /// asked has no rows.
    pub(super) async fn pipeline(&self, calls: &[Option<Call<'_>>]) -> Vec<Result<Vec<Row>, Error>> {
        let run = async |call: &Option<Call<'_>>| match call {
            Some(call) => self.call(call).await,
            None => Ok(Vec::new()),
        };
        join_all(calls.iter().map(run)).await
    }
}

/// A read transaction that sees one moment of the database, and ends when it is dropped.
pub(super) struct Snapshot<'s> {
    tx: Transaction<'s>,
    statements: &'s Statements,
}

impl Snapshot<'_> {
    /// Runs a statement.
    pub(super) async fn call(&self, sql: Sql, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.tx.query(self.statements.get(&self.tx, sql).await?, values).await
    }

    /// Runs a statement and returns its rows as they come. Nothing else can be run before the last of them.
    pub(super) async fn stream(&self, sql: Sql, values: &[&(dyn ToSql + Sync)]) -> Result<RowStream, Error> {
        self.tx.query_raw(self.statements.get(&self.tx, sql).await?, values.iter().copied()).await
    }

    /// Prepares to read a statement's rows a page at a time, with other statements in between.
    pub(super) async fn portal(&self, sql: Sql, values: &[&(dyn ToSql + Sync)]) -> Result<Portal, Error> {
        self.tx.bind(self.statements.get(&self.tx, sql).await?, values).await
    }

    /// The next rows, at most `count`; none after the last.
    pub(super) async fn next_page(&self, portal: &Portal, count: i32) -> Result<Vec<Row>, Error> {
        self.tx.query_portal(portal, count).await
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an error of the database means for the asker, anywhere but at COMMIT: nothing was done.
pub(super) fn fault(error: &Error) -> Fault {
    let Some(code) = error.code() else {
        // A value that cannot be sent, or an answer that cannot be read, is the program's fault.
        let is_lost = error.is_closed() || error.to_string().contains("communicating");
        let cause = Cause::new(describe(error));
        return if is_lost { Fault::Unavailable(cause) } else { Fault::Broken(cause) };
    };
    let cause = Cause::new(describe(error));
    let passes = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    // Connection, resources, operator intervention and the system around the database.
    let classes = ["08", "53", "57", "58"];
    if passes.contains(code) || classes.iter().any(|class| code.code().starts_with(class)) {
        Fault::Unavailable(cause)
    } else {
        Fault::Broken(cause)
    }
}

/// What keeps a session from being made: always the database's being away, for whoever asks.
fn unavailable(error: &Error) -> Fault {
    Fault::Unavailable(Cause::new(describe(error)))
}

/// An error in one line. Its details are left out: they quote what users have sent.
pub(super) fn describe(error: &Error) -> String {
    use std::error::Error as _;
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Sessions for reads of one statement each, opened when they are needed. Each carries out one statement at a time, so
/// that no read is behind one that hangs; reads wait for a session first come, first served.
pub(super) struct Readers {
    connector: Arc<Connector>,
    idle: Mutex<Vec<Session>>,
    permits: Semaphore,
}

/// A session in use. Dropped, it is idle again.
struct BorrowedSession<'r> {
    session: Option<Session>,
    readers: &'r Readers,
    _permit: SemaphorePermit<'r>,
}

impl Readers {
    pub(super) fn new(connector: Arc<Connector>, count: usize) -> Self {
        Self { connector, idle: Mutex::default(), permits: Semaphore::new(count) }
    }

    /// Runs a statement, a second time where the connection turns out to be lost: what only reads, or says
    /// the same when it is said again, may be.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Vec<Row>, Fault> {
        let permit = self.permits.acquire().await;
        let permit = permit.map_err(|error| Fault::Unavailable(Cause::new(error)))?;
        let mut borrowed = BorrowedSession { session: self.take_idle(), readers: self, _permit: permit };
        match borrowed.call(call).await {
            Err(Fault::Unavailable(cause)) if borrowed.is_lost() => {
                tracing::debug!(%cause, "a read is tried again on another connection");
                borrowed.session = None;
                borrowed.call(call).await
            }
            done => done,
        }
    }

    /// The session that was used last.
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
        if let Ok(answer) = timeout(STATEMENT_MAX, session.call(call)).await {
            return answer.map_err(|error| fault(&error));
        }
        // It may answer later, and the next read would wait for that.
        self.session = None;
        Err(Fault::Unavailable(Cause::new("the database does not answer")))
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
