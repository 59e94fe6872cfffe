//! `boxoffice serve` as a real process on a port of the system's choice.

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

/// The secret of every server started here.
pub const SECRET: &str = "a secret for tests only, 32 bytes and more";

/// Limits per user as wide as they can be: a test of something else must not run into them.
const WIDE_LIMIT: &str = "512/1s";

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    program: Program,
    database: PathBuf,
    /// Where it is no file: its URL, and what must live as long.
    postgres: Option<(String, Database)>,
    /// Removed when the last one who needs it is gone.
    _folder: Arc<TempDir>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

/// A running server. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    process: Process,
    address: SocketAddr,
    /// The other end of a standard error that nobody reads.
    _unread: Option<PipeReader>,
}

impl Setup {
    /// A server on a fresh database in a folder of its own.
    pub fn new(program: Program) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = folder.path().join("boxoffice.db");
        let wide = |name: &str| (name.into(), WIDE_LIMIT.into());
        let environment = vec![wide("BOXOFFICE_BOOK_LIMIT"), wide("BOXOFFICE_CANCEL_LIMIT")];
        let arguments = Vec::new();
        Self { program, database, postgres: None, _folder: Arc::new(folder), arguments, environment }
    }

    /// On a database elsewhere, which outlives the server.
    #[must_use]
    pub fn on_file(mut self, database: impl Into<PathBuf>) -> Self {
        self.database = database.into();
        self
    }

    /// On a database of PostgreSQL.
    #[must_use]
    pub fn on_postgres(self, database: &Database) -> Self {
        let url = database.url();
        self.on_postgres_at(database, url)
    }

    /// On a database of PostgreSQL, by another way: over a [`crate::Wire`].
    #[must_use]
    pub fn on_postgres_at(mut self, database: &Database, url: String) -> Self {
        self.postgres = Some((url, database.clone()));
        self
    }

    /// The database, as the command line names it.
    pub fn url(&self) -> String {
        let postgres = self.postgres.as_ref().map(|(url, _)| url.clone());
        postgres.unwrap_or_else(|| database_url(&self.database))
    }

    /// The database of PostgreSQL that it is on.
    pub fn postgres(&self) -> &Database {
        let (_, database) = self.postgres.as_ref().expect("a server on PostgreSQL");
        database
    }

    /// With one more argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// With one more environment variable.
    #[must_use]
    pub fn environment(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The program that will run.
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
        let words: [OsString; 5] =
            ["serve".into(), "--listen".into(), listen.into(), "--database".into(), self.url().into()];
        let mut command = self.program.command(words.iter().chain(&self.arguments));
        command.env("BOXOFFICE_JWT_SECRET", SECRET);
        // As good as none: only tests of the limits themselves want to meet them.
        command.env("BOXOFFICE_BOOK_LIMIT", "512/1us").env("BOXOFFICE_CANCEL_LIMIT", "512/1us");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the server and waits until it says that it is ready.
    pub async fn start(self) -> Server {
        let process = self.spawn();
        let address = process.stderr.find(ready_address).await;
        let Some(address) = address else {
            panic!("the server did not get ready; it said:\n{}", process.stderr.tail())
        };
        Server { setup: self, process, address, _unread: None }
    }

    /// Starts the server with a standard error that takes no lines, and waits until it answers.
    pub async fn start_with_log(mut self, log: &BadLog) -> Server {
        if let BadLog::Redirected(how) = log {
            self.program = self.program.redirected(how);
        }
        // Another process may be given the port between our looking and the server's start.
        for _ in 0..20 {
            let address =
                TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
            let (stderr, unread) = log.open();
            let mut process = Process::start_with_stderr(self.command(&address.to_string()), stderr);
            let answers = eventually("the server answers, or has ended", async || {
                let alive = Client::new(address, None).try_request(Method::GET, "/livez", None).await.is_ok();
                let running = process.is_running();
                (alive || !running).then_some(alive && running)
            });
            if answers.await {
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
    /// A server on a fresh database, with nothing special about it.
    pub async fn start(program: Program) -> Self {
        Setup::new(program).start().await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The database file.
    pub fn database(&self) -> &Path {
        self.setup.database()
    }

    /// The program that runs.
    pub fn program(&self) -> &Program {
        self.setup.program()
    }

    /// What it logged.
    pub fn log(&self) -> &Lines {
        &self.process.stderr
    }

    /// Signs tokens that it accepts.
    pub fn tokens(&self) -> Tokens {
        Tokens::new(SECRET)
    }

    /// A caller without a token.
    pub fn anonymous(&self) -> Client {
        Client::new(self.address, None)
    }

    /// A caller with role `user`.
    pub fn user(&self, sub: &str) -> Client {
        Client::new(self.address, Some(self.tokens().user(sub)))
    }

    /// A caller with role `service`.
    pub fn service(&self) -> Client {
        Client::new(self.address, Some(self.tokens().service()))
    }

    /// A caller with role `admin`.
    pub fn admin(&self) -> Client {
        Client::new(self.address, Some(self.tokens().admin()))
    }

    /// The number of a metric, its labels as `/metrics` writes them.
    pub async fn metric(&self, name: &str) -> u64 {
        let metrics = self.anonymous().get("/metrics").await;
        let text = String::from_utf8_lossy(&metrics.body).into_owned();
        let number = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(number).unwrap_or_else(|| panic!("{name} in {text}"))
    }

    /// Kills it (SIGKILL) as it stands.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// How it ended; waits until it has.
    pub async fn wait_for_exit(&mut self) -> Exit {
        self.process.wait_for_exit().await
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// How it was started, to start it again once it has ended.
    pub fn setup(&self) -> Setup {
        self.setup.clone()
    }

    /// Ends it, by force where it has not ended yet, and starts it again on the same database.
    pub async fn restart(self) -> Self {
        let Self { setup, process, .. } = self;
        drop(process);
        setup.start().await
    }

    /// Audits its database beside it: the exit code and the report.
    pub async fn audit(&self) -> (i32, serde_json::Value) {
        self.program().audit_at(&self.setup.url()).await
    }

    /// Audits its database beside it, which must be clean; the report.
    pub async fn expect_clean(&self) -> serde_json::Value {
        self.program().expect_clean_at(&self.setup.url()).await
    }

    /// Stops it where it stands (SIGSTOP).
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }
}
