//! PostgreSQL servers for tests: started in their own folder, stopped by their own process ids.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::wait::{eventually, within_deadline};
use crate::{Exit, Process, Program};

/// The owner of every test database.
const USER: &str = "boxoffice";

/// A running PostgreSQL server. Dropping it kills all its processes and deletes its folder.
#[derive(Debug)]
pub struct PostgresServer {
    folder: TempDir,
    port: u16,
    settings: Vec<String>,
    process: Mutex<Option<Process>>,
    databases: AtomicU32,
}

/// A database on a [`PostgresServer`].
#[derive(Clone, Debug)]
pub struct Database {
    server: Arc<PostgresServer>,
    name: String,
}

impl PostgresServer {
    /// Starts a server whose commits survive a kill.
    pub async fn durable() -> Arc<Self> {
        Self::with(&["fsync=on"]).await
    }

    /// The server shared by the tests of this process: fast, and not durable across power loss.
    pub async fn shared() -> Arc<Self> {
        /// Weak, so that the server ends with the last test that uses it.
        static SHARED: tokio::sync::Mutex<Weak<PostgresServer>> = tokio::sync::Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Self::with(&["fsync=off", "full_page_writes=off"]).await;
        *shared = Arc::downgrade(&server);
        server
    }

    /// Starts a server with these settings, each `name=value`.
    pub async fn with(settings: &[&str]) -> Arc<Self> {
        Self::in_folder(tempfile::tempdir().expect("a temporary folder"), settings).await
    }

    /// Starts a server in an existing folder.
    async fn in_folder(folder: TempDir, settings: &[&str]) -> Arc<Self> {
        Self::give_to_server_user(folder.path());
        let data = folder.path().join("data");
        let mut initdb = command("initdb");
        initdb.arg("--pgdata").arg(&data);
        initdb.args(["--username", USER, "--auth", "trust", "--encoding", "UTF8"]);
        initdb.args(["--locale", "C", "--no-sync"]);
        let output = initdb.output().unwrap_or_else(|error| panic!("{initdb:?}: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let server = Self {
            folder,
            port: free_port(),
            settings: settings.iter().map(ToString::to_string).collect(),
            process: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        server.start().await;
        Arc::new(server)
    }

    /// Starts a standby from a base backup. It replicates under this `application_name`.
    pub async fn standby(&self, name: &str) -> Arc<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::give_to_server_user(folder.path());
        let mut copy = command("pg_basebackup");
        copy.arg("--pgdata").arg(folder.path().join("data"));
        copy.args(["--dbname", &self.url("postgres"), "--wal-method", "stream", "--checkpoint", "fast"]);
        copy.args(["--write-recovery-conf", "--no-sync"]);
        let copy = Program::finish(copy).await;
        assert_eq!(copy.exit, Exit::Code(0), "{}", copy.stderr);
        let mut settings = self.settings.clone();
        settings.push(format!(
            "primary_conninfo=host=127.0.0.1 port={} user={USER} application_name={name}",
            self.port
        ));
        let standby = Self {
            folder,
            port: free_port(),
            settings,
            process: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        standby.start().await;
        Arc::new(standby)
    }

    /// Promotes a standby to a primary, as in a failover.
    pub async fn promote(&self) {
        let promoted = connect(&self.url("postgres")).await.query_one("SELECT pg_promote()", &[]).await;
        assert!(promoted.expect("a promotion").get::<_, bool>(0), "the promotion succeeds in time");
    }

    /// Changes a setting of the running server, for all sessions.
    pub async fn set(&self, name: &str, value: &str) {
        let client = connect(&self.url("postgres")).await;
        let change = format!("ALTER SYSTEM SET {name} = {value}");
        client.batch_execute(&change).await.unwrap_or_else(|error| panic!("{change}: {error:?}"));
        client.batch_execute("SELECT pg_reload_conf()").await.expect("a reload");
        // A reload is asynchronous; a new session has the value once the postmaster has reloaded.
        let show = format!("SELECT replace(current_setting('{name}'), '\"', '')");
        let value = value.replace(['\'', '"'], "");
        eventually("a setting is changed", async || {
            let row = connect(&self.url("postgres")).await.query_one(&show, &[]).await.expect("a setting");
            (row.get::<_, String>(0) == value).then_some(())
        })
        .await;
    }

    /// The database of the same name on this server, e.g. on a standby.
    pub fn database_of(self: &Arc<Self>, database: &Database) -> Database {
        Database { server: self.clone(), name: database.name.clone() }
    }

    /// Changes the owner of a file or folder to the user that runs the server.
    pub fn give_to_server_user(path: &Path) {
        if geteuid().is_root() {
            let (uid, gid) = other_user();
            chown(path, Some(uid), Some(gid)).expect("root can change the owner");
        }
    }

    /// The port of the server, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it, also again after a kill, and waits until it accepts connections.
    pub async fn start(&self) {
        let mut postgres = command("postgres");
        postgres.arg("-D").arg(self.data());
        let fixed = [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "shared_buffers=32MB".to_owned(),
            "max_connections=200".to_owned(),
            "log_min_messages=log".to_owned(),
        ];
        for setting in fixed.iter().chain(&self.settings) {
            postgres.arg("-c").arg(setting);
        }
        let process = Process::start(postgres);
        let ready = |line: &str| line.contains("ready to accept").then_some(());
        let started = process.stderr.find(ready).await;
        assert!(started.is_some(), "PostgreSQL did not start:\n{}", process.stderr.tail());
        *self.process() = Some(process);
    }

    /// Kills all its processes (SIGKILL) and waits until they have ended.
    pub async fn kill9(&self) {
        let ids = self.signal(Signal::KILL);
        *self.process() = None;
        eventually("the processes of PostgreSQL have ended", async || {
            ids.iter().all(|id| !is_alive(*id)).then_some(())
        })
        .await;
    }

    /// Pauses all its processes (SIGSTOP).
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Resumes all its processes (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// The log since the last start.
    pub fn log(&self) -> Vec<String> {
        self.process().as_ref().map(|process| process.stderr.all()).unwrap_or_default()
    }

    /// Creates an empty database.
    pub async fn create_database(self: &Arc<Self>) -> Database {
        let name = format!("tickets_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let database = Database { server: self.clone(), name };
        let create = format!("CREATE DATABASE {}", database.name);
        connect(&self.url("postgres")).await.batch_execute(&create).await.expect("a database is created");
        database
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of the postmaster, which starts the other processes.
    fn postmaster(&self) -> Option<i32> {
        self.process().as_ref().map(|process| process.id().cast_signed())
    }

    /// The ids of the postmaster and its children.
    fn ids(&self) -> Vec<i32> {
        let Some(postmaster) = self.postmaster() else { return Vec::new() };
        let all = fs::read_dir("/proc").expect("/proc is readable");
        let ids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        std::iter::once(postmaster).chain(ids.filter(|id| parent_of(*id) == Some(postmaster))).collect()
    }

    /// Sends a signal to all its processes; returns their ids.
    fn signal(&self, signal: Signal) -> Vec<i32> {
        // An error means that the process has just ended.
        let send = |id: i32, signal| {
            let _ = kill_process(Pid::from_raw(id).expect("an id"), signal);
        };
        // A paused postmaster starts no process that the signal would miss.
        if let Some(postmaster) = self.postmaster().filter(|_| signal != Signal::CONT) {
            send(postmaster, Signal::STOP);
        }
        let ids = self.ids();
        for id in &ids {
            send(*id, signal);
        }
        ids
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

impl Database {
    /// The URL for the program.
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// The URL through another port, e.g. of a [`crate::PostgresProxy`].
    pub fn url_at_port(&self, port: u16) -> String {
        format!("postgres://{USER}@127.0.0.1:{port}/{}", self.name)
    }

    /// The server of the database.
    pub fn server(&self) -> &Arc<PostgresServer> {
        &self.server
    }

    /// The name of the database.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Dumps the database as SQL for [`Database::restore`].
    pub async fn dump(&self) -> String {
        self.dump_with(&[]).await
    }

    /// Dumps tables, constraints and indexes, without rows.
    pub async fn schema(&self) -> String {
        self.dump_with(&["--schema-only"]).await
    }

    async fn dump_with(&self, options: &[&str]) -> String {
        let mut dump = command("pg_dump");
        dump.args(options);
        dump.args(["--no-owner", "--no-privileges", "--dbname", &self.url()]);
        let dump = Program::finish(dump).await;
        assert_eq!(dump.exit, Exit::Code(0), "{}", dump.stderr);
        // Only the newest clients know these meta-commands, which protect against untrusted dumps.
        let guard = |line: &&str| line.starts_with(r"\restrict") || line.starts_with(r"\unrestrict");
        let lines: Vec<&str> = dump.stdout.split_inclusive('\n').filter(|line| !guard(line)).collect();
        lines.concat()
    }

    /// Loads a dump into this empty database.
    pub fn restore(&self, dump: &Path) {
        let mut psql = command("psql");
        psql.args(["--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--dbname", &self.url()]);
        psql.stdin(fs::File::open(dump).unwrap_or_else(|error| panic!("{}: {error}", dump.display())));
        let output = psql.output().unwrap_or_else(|error| panic!("{psql:?}: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs a migration script as a later version of the program would: in one transaction, retried if the
    /// tables are in use.
    pub async fn migrate(&self, script: &str) {
        let transaction = format!("BEGIN; SET LOCAL lock_timeout = '500ms'; {script}; COMMIT");
        let client = self.connect().await;
        let conflicts = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
        eventually("a migration", async || {
            let Err(error) = client.batch_execute(&transaction).await else { return Some(()) };
            assert!(error.code().is_some_and(|code| conflicts.contains(code)), "{script}: {error:?}");
            client.batch_execute("ROLLBACK").await.expect("a rollback");
            None
        })
        .await;
    }

    /// A direct connection, independent of the program.
    pub async fn connect(&self) -> Client {
        connect(&self.url()).await
    }

    /// The number that a query returns.
    pub async fn query_number(&self, sql: &str) -> i64 {
        let row = self.connect().await.query_one(sql, &[]).await;
        row.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    /// Executes a statement on a direct connection; returns the number of rows changed.
    pub async fn execute(&self, sql: &str) -> u64 {
        let changed = self.connect().await.execute(sql, &[]).await;
        changed.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = within_deadline("a connection", tokio_postgres::connect(url, NoTls))
        .await
        .unwrap_or_else(|error| panic!("{url}: {error:?}"));
    #[expect(clippy::disallowed_methods, reason = "it ends with its client")]
    drop(tokio::spawn(async move { drop(connection.await) }));
    client
}

/// A command of PostgreSQL. It refuses to run as root, so root runs it as another user.
fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    if geteuid().is_root() {
        let (uid, gid) = other_user();
        command.uid(uid).gid(gid);
    }
    // That user may not be allowed to read the current folder.
    command.current_dir("/").env_remove("PGDATA").env("LC_ALL", "C");
    command
}

/// The newest version installed by Debian, or the one in the path.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| {
            let number = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin").join(name)))
        })
        .filter(|(_, path)| path.exists())
        .collect();
    found.sort();
    found.pop().map_or_else(|| Path::new(name).to_owned(), |(_, path)| path)
}

/// The user and group ids of `postgres`, or else of `nobody`.
fn other_user() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
    let ids = |name: &str| {
        let mut fields = users.lines().find_map(|line| line.strip_prefix(&format!("{name}:")))?.split(':');
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody")).expect("a user that is not root")
}

/// A port that was free a moment ago, below the range of ephemeral ports: otherwise a client that connects
/// while the server is down could be assigned the port of the server itself.
fn free_port() -> u16 {
    static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
    loop {
        let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        let offset = std::process::id().wrapping_mul(131).wrapping_add(attempt.wrapping_mul(17)) % 20_000;
        let port = 10_000 + u16::try_from(offset).unwrap_or(0);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The fields of `/proc/ID/stat` after the name: state, parent, …
fn stat(id: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn parent_of(id: i32) -> Option<i32> {
    stat(id)?.get(1)?.parse().ok()
}

/// True if a process is running; a zombie is not.
fn is_alive(id: i32) -> bool {
    stat(id).and_then(|fields| fields.first().cloned()).is_some_and(|state| state != "Z" && state != "X")
}
