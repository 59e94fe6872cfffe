//! `boxoffice serve` as a real process, on a port chosen by the system.

use std::ffi::OsString;
use std::io::PipeReader;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use hyper::Method;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Exit, Lines, Process};
use crate::program::database_url;
use crate::wait::eventually;
use crate::{BadLog, Client, Database, Program, Tokens};

/// The JWT secret of every test server.
pub const SECRET: &str = "a secret for tests only, 32 bytes and more";

/// The highest rate limit per user, so that tests of other things are not limited.
const HIGH_LIMIT: &str = "512/1s";

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct Setup {
    program: Program,
    database: PathBuf,
    /// For PostgreSQL: the URL, and the database, which must live as long.
    postgres: Option<(String, Database)>,
    /// Deleted with the last clone.
    _folder: Arc<TempDir>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

/// A running server. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    process: Process,
    address: SocketAddr,
    /// The reader of a standard error that is never read.
    _unread: Option<PipeReader>,
}

impl Setup {
    /// A server on a new database file in its own folder.
    pub fn new(program: Program) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = folder.path().join("boxoffice.db");
        let high_limit = |name: &str| (name.into(), HIGH_LIMIT.into());
        let environment = vec![high_limit("BOXOFFICE_BOOK_LIMIT"), high_limit("BOXOFFICE_CANCEL_LIMIT")];
        let arguments = Vec::new();
        Self { program, database, postgres: None, _folder: Arc::new(folder), arguments, environment }
    }

    /// Uses another database file, which outlives the server.
    #[must_use]
    pub fn on_file(mut self, database: impl Into<PathBuf>) -> Self {
        self.database = database.into();
        self
    }

    /// Uses a PostgreSQL database.
    #[must_use]
    pub fn on_postgres(self, database: &Database) -> Self {
        let url = database.url();
        self.on_postgres_at(database, url)
    }

    /// Uses a PostgreSQL database by another URL, e.g. through a [`crate::PostgresProxy`].
    #[must_use]
    pub fn on_postgres_at(mut self, database: &Database, url: String) -> Self {
        self.postgres = Some((url, database.clone()));
        self
    }

    /// The database URL for the command line.
    pub fn url(&self) -> String {
        let postgres = self.postgres.as_ref().map(|(url, _)| url.clone());
        postgres.unwrap_or_else(|| database_url(&self.database))
    }

    /// The PostgreSQL database.
    pub fn postgres(&self) -> &Database {
        let (_, database) = self.postgres.as_ref().expect("a server on PostgreSQL");
        database
    }

    /// Adds a command line argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn environment(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The program to run.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The database file.
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// Starts the process, without waiting until it is ready.
    pub fn spawn(&self) -> Process {
        Process::start(self.command("127.0.0.1:0"))
    }

    fn command(&self, listen: &str) -> Command {
        let arguments: [OsString; 5] =
            ["serve".into(), "--listen".into(), listen.into(), "--database".into(), self.url().into()];
        let mut command = self.program.command(arguments.iter().chain(&self.arguments));
        command.env("BOXOFFICE_JWT_SECRET", SECRET);
        // Equivalent to no limits; tests of the limits override them.
        command.env("BOXOFFICE_BOOK_LIMIT", "512/1us").env("BOXOFFICE_CANCEL_LIMIT", "512/1us");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the server and waits for its log line `ready`.
    pub async fn start(self) -> Server {
        let process = self.spawn();
        let address = process.stderr.find(ready_address).await;
        let Some(address) = address else {
            panic!("the server did not become ready; its log:\n{}", process.stderr.tail())
        };
        Server { setup: self, process, address, _unread: None }
    }

    /// Starts the server with a standard error that accepts no lines, and waits until it responds.
    pub async fn start_with_log(mut self, log: &BadLog) -> Server {
        if let BadLog::Redirected(redirection) = log {
            self.program = self.program.with_redirection(redirection);
        }
        // Another process may take the port before the server listens on it.
        for _ in 0..20 {
            let address =
                TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
            let (stderr, unread) = log.open();
            let mut process = Process::start_with_stderr(self.command(&address.to_string()), stderr);
            let responds = eventually("the server responds or has ended", async || {
                let alive = Client::new(address, None).try_request(Method::GET, "/livez", None).await.is_ok();
                let running = process.is_running();
                (alive || !running).then_some(alive && running)
            });
            if responds.await {
                return Server { setup: self, process, address, _unread: unread };
            }
        }
        panic!("no server started with {log:?}");
    }
}

/// The address in `… ready address=127.0.0.1:4711 …`.
fn ready_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(" ready address=")?;
    rest.split_whitespace().next()?.parse().ok()
}

impl Server {
    /// Starts a server with the default setup on a new database.
    pub async fn start(program: Program) -> Self {
        Setup::new(program).start().await
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The database file.
    pub fn database(&self) -> &Path {
        self.setup.database()
    }

    /// The running program.
    pub fn program(&self) -> &Program {
        self.setup.program()
    }

    /// The log.
    pub fn log(&self) -> &Lines {
        &self.process.stderr
    }

    /// Signs tokens for this server.
    pub fn tokens(&self) -> Tokens {
        Tokens::new(SECRET)
    }

    /// A client without a token.
    pub fn anonymous(&self) -> Client {
        Client::new(self.address, None)
    }

    /// A client with role `user`.
    pub fn user(&self, sub: &str) -> Client {
        Client::new(self.address, Some(self.tokens().user(sub)))
    }

    /// A client with role `service`.
    pub fn service(&self) -> Client {
        Client::new(self.address, Some(self.tokens().service()))
    }

    /// A client with role `admin`.
    pub fn admin(&self) -> Client {
        Client::new(self.address, Some(self.tokens().admin()))
    }

    /// The value of a metric; `name` includes its labels as in `/metrics`.
    pub async fn metric(&self, name: &str) -> u64 {
        let metrics = self.anonymous().get("/metrics").await;
        let text = String::from_utf8_lossy(&metrics.body).into_owned();
        let number = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(number).unwrap_or_else(|| panic!("{name} in {text}"))
    }

    /// Kills it (SIGKILL).
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits until it ends.
    pub async fn wait_for_exit(&mut self) -> Exit {
        self.process.wait_for_exit().await
    }

    /// True if it is still running.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// The setup, to start it again after it has ended.
    pub fn setup(&self) -> Setup {
        self.setup.clone()
    }

    /// Kills it if it is still running, and starts it again on the same database.
    pub async fn restart(self) -> Self {
        let Self { setup, process, .. } = self;
        drop(process);
        setup.start().await
    }

    /// Audits its database in another process; returns the exit code and the report.
    pub async fn audit(&self) -> (i32, serde_json::Value) {
        self.program().audit_at(&self.setup.url()).await
    }

    /// Audits its database in another process; it must be clean. Returns the report.
    pub async fn expect_clean(&self) -> serde_json::Value {
        self.program().expect_clean_at(&self.setup.url()).await
    }

    /// Pauses the process (SIGSTOP).
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Resumes the process (SIGCONT).
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }
}
