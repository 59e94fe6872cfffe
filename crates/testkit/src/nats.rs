//! NATS servers for tests: on a port chosen by the system, with their own store directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::process::{Lines, Process};
use crate::{Program, SmallDisk};

/// The folder in which `make setup` installs the current server, beside the distribution's.
const CURRENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/bin");

/// A running server. Dropping it kills it, by its own id.
#[derive(Debug)]
pub struct NatsServer {
    program: Program,
    process: Process,
    port: u16,
    settings: Vec<OsString>,
    store: Option<PathBuf>,
    folder: TempDir,
}

impl NatsServer {
    /// Starts the distribution's server, with JetStream.
    pub async fn start() -> Self {
        Self::start_with(Self::distributed(), &[]).await
    }

    /// Starts the distribution's server, without JetStream.
    pub async fn start_without_streams() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::launch(Self::distributed(), None, Vec::new(), folder).await
    }

    /// Starts a server with JetStream and these command line settings.
    pub async fn start_with(program: Program, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = folder.path().join("streams");
        let settings = settings.iter().map(OsString::from).collect();
        Self::launch(program, Some(store), settings, folder).await
    }

    /// Starts a server with an existing store directory.
    pub async fn start_in(program: Program, store: PathBuf) -> Self {
        Self::launch(program, Some(store), Vec::new(), tempfile::tempdir().expect("a folder")).await
    }

    /// Starts the distribution's server, with JetStream and a configuration file of this text.
    pub async fn start_with_config(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, store) = (folder.path().join("nats.conf"), folder.path().join("streams"));
        std::fs::write(&file, text).expect("a file");
        Self::launch(Self::distributed(), Some(store), vec!["--config".into(), file.into()], folder).await
    }

    /// Starts the distribution's server, with its store on a small disk.
    pub async fn start_on_disk(disk: &SmallDisk) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let program = Self::distributed().with_launcher(disk.launcher());
        Self::launch(program, Some(disk.folder().to_owned()), Vec::new(), folder).await
    }

    /// The distribution's server, and the current one if `make setup` could install it.
    pub fn every_version() -> Vec<Program> {
        std::iter::once(Self::distributed()).chain(Self::current()).collect()
    }

    fn distributed() -> Program {
        Program::new("nats-server")
    }

    /// The current server, if `make setup` could install it.
    pub fn current() -> Option<Program> {
        let path = Path::new(CURRENT).join("nats-server");
        path.exists().then(|| Program::new(path))
    }

    async fn launch(
        program: Program,
        store: Option<PathBuf>,
        settings: Vec<OsString>,
        folder: TempDir,
    ) -> Self {
        let process = spawn(&program, -1, store.as_deref(), &settings);
        let port = wait_until_ready(&process).await;
        Self { program, process, port, settings, store, folder }
    }

    /// Starts one server of a cluster, with JetStream, from its name, the port of its routes, and those of
    /// the others. `None` if another process has taken the port.
    pub(crate) async fn start_member(
        program: Program,
        name: &str,
        route: u16,
        others: &[u16],
    ) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Some(folder.path().join("streams"));
        let address = |port: &u16| format!("nats://127.0.0.1:{port}");
        let routes = others.iter().map(address).collect::<Vec<_>>().join(",");
        let own = address(&route);
        let settings = ["--name", name, "--cluster_name", "testkit", "--cluster", &own, "--routes", &routes];
        let settings: Vec<OsString> = settings.map(OsString::from).to_vec();
        let process = spawn(&program, -1, store.as_deref(), &settings);
        let port = process.stderr.find(listening_port).await?;
        Some(Self { program, process, port, settings, store, folder })
    }

    /// The address of the server.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The address with host name `localhost`, as in certificates, and with credentials before the `@`.
    pub fn url_with_login(&self, scheme: &str, login: &str) -> String {
        format!("{scheme}://{login}@localhost:{}", self.port)
    }

    /// The log since the last start.
    pub fn log(&self) -> &Lines {
        &self.process.stderr
    }

    /// The store directory of a server with JetStream.
    pub fn store(&self) -> &Path {
        self.store.as_deref().expect("a server with JetStream")
    }

    /// Stops it (SIGTERM); its store is kept.
    pub async fn terminate(&mut self) {
        self.process.terminate();
        self.process.wait_for_exit().await;
    }

    /// A folder that lives as long as the server, for files of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills it (SIGKILL); connections are then refused.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again after [`NatsServer::kill9`], on the same port and with its store.
    pub async fn restart(&mut self) {
        for _ in 0..20 {
            self.process = spawn(&self.program, self.port.into(), self.store.as_deref(), &self.settings);
            if self.process.stderr.find(listening_port).await == Some(self.port) {
                return;
            }
        }
        panic!("nats-server does not start again: {}", self.process.stderr.tail());
    }

    /// Starts it again after [`NatsServer::kill9`], on the same port and with an empty store.
    pub async fn restart_empty(&mut self) {
        if let Some(store) = &self.store {
            std::fs::remove_dir_all(store).expect("the store directory can be deleted");
        }
        self.restart().await;
    }

    /// Pauses the process (SIGSTOP).
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Resumes the process (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a process id");
        // The process is not reaped yet, so the id is still its own.
        kill_process(id, signal).expect("a child can be signalled");
    }
}

fn spawn(program: &Program, port: i32, store: Option<&Path>, settings: &[OsString]) -> Process {
    let port = port.to_string();
    let mut arguments: Vec<OsString> = ["--addr", "127.0.0.1", "--port", &port].map(OsString::from).to_vec();
    if let Some(store) = store {
        arguments.extend(["--jetstream".into(), "--store_dir".into(), store.into()]);
    }
    arguments.extend_from_slice(settings);
    let command: Command = program.command(arguments);
    Process::start(command)
}

async fn wait_until_ready(process: &Process) -> u16 {
    let port = process.stderr.find(listening_port).await;
    port.unwrap_or_else(|| {
        let log = process.stderr.tail();
        panic!("no nats-server started; is it installed? `make setup` installs it. Its log:\n{log}")
    })
}

/// The port in `… Listening for client connections on 127.0.0.1:4222`.
fn listening_port(line: &str) -> Option<u16> {
    let (_, address) = line.split_once("Listening for client connections on ")?;
    address.trim().rsplit_once(':')?.1.parse().ok()
}
