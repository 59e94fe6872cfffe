//! A NATS server of our own: on a port of the system's choice, with a folder of its own for its streams.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::process::{Lines, Process};
use crate::{Program, SmallDisk};

/// Where `make setup` puts a current server beside the distribution's.
const CURRENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/bin");

/// A running server. Dropped, it is killed, by its own id.
#[derive(Debug)]
pub struct NatsServer {
    program: Program,
    process: Process,
    port: u16,
    settings: Vec<OsString>,
    streams: Option<PathBuf>,
    folder: TempDir,
}

impl NatsServer {
    /// The distribution's server, with streams.
    pub async fn start() -> Self {
        Self::start_with(Self::distributed(), &[]).await
    }

    /// The distribution's server, without streams.
    pub async fn start_without_streams() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::run(Self::distributed(), None, Vec::new(), folder).await
    }

    /// A server with streams and with settings of its own.
    pub async fn start_with(program: Program, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let streams = folder.path().join("streams");
        let settings = settings.iter().map(OsString::from).collect();
        Self::run(program, Some(streams), settings, folder).await
    }

    /// A server on a store directory that exists.
    pub async fn start_in(program: Program, store: PathBuf) -> Self {
        Self::run(program, Some(store), Vec::new(), tempfile::tempdir().expect("a folder")).await
    }

    /// The distribution's server, with streams and with a configuration file of this text.
    pub async fn start_with_config(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, streams) = (folder.path().join("nats.conf"), folder.path().join("streams"));
        std::fs::write(&file, text).expect("a file");
        Self::run(Self::distributed(), Some(streams), vec!["--config".into(), file.into()], folder).await
    }

    /// The distribution's server, with its streams on a small disk.
    pub async fn start_on_disk(disk: &SmallDisk) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let program = Self::distributed().with_launcher(disk.launcher());
        Self::run(program, Some(disk.folder().to_owned()), Vec::new(), folder).await
    }

    /// The distribution's server, and the current one where `make setup` could get it.
    pub fn every_version() -> Vec<Program> {
        std::iter::once(Self::distributed()).chain(Self::current()).collect()
    }

    fn distributed() -> Program {
        Program::new("nats-server")
    }

    /// The current server, where `make setup` could get it.
    pub fn current() -> Option<Program> {
        let path = Path::new(CURRENT).join("nats-server");
        path.exists().then(|| Program::new(path))
    }

    async fn run(
        program: Program,
        streams: Option<PathBuf>,
        settings: Vec<OsString>,
        folder: TempDir,
    ) -> Self {
        let process = spawn(&program, -1, streams.as_deref(), &settings);
        let port = ready(&process).await;
        Self { program, process, port, settings, streams, folder }
    }

    /// One server of a cluster, with streams: its name, the port of its routes, and those of the others. `None` where
    /// another process has taken that port.
    pub(crate) async fn member(program: Program, name: &str, route: u16, others: &[u16]) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let streams = Some(folder.path().join("streams"));
        let address = |port: &u16| format!("nats://127.0.0.1:{port}");
        let routes = others.iter().map(address).collect::<Vec<_>>().join(",");
        let own = address(&route);
        let settings = ["--name", name, "--cluster_name", "testkit", "--cluster", &own, "--routes", &routes];
        let settings: Vec<OsString> = settings.map(OsString::from).to_vec();
        let process = spawn(&program, -1, streams.as_deref(), &settings);
        let port = process.stderr.find(listening).await?;
        Some(Self { program, process, port, settings, streams, folder })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its address by its name, which certificates know it by, with something before the `@`.
    pub fn url_with_login(&self, scheme: &str, login: &str) -> String {
        format!("{scheme}://{login}@localhost:{}", self.port)
    }

    /// What it logged since it was last started.
    pub fn log(&self) -> &Lines {
        &self.process.stderr
    }

    /// The store directory, of a server with streams.
    pub fn store(&self) -> &Path {
        self.streams.as_deref().expect("a server with streams")
    }

    /// Stops it (SIGTERM), with everything in its store.
    pub async fn terminate(&mut self) {
        self.process.terminate();
        self.process.wait_for_exit().await;
    }

    /// A folder that lives as long, for files of the test's own.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills it (SIGKILL): connections to it are refused from now on.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again after [`NatsServer::kill9`], on its port and with what it had stored.
    pub async fn restart(&mut self) {
        for _ in 0..20 {
            self.process = spawn(&self.program, self.port.into(), self.streams.as_deref(), &self.settings);
            if self.process.stderr.find(listening).await == Some(self.port) {
                return;
            }
        }
        panic!("nats-server does not start again: {}", self.process.stderr.tail());
    }

    /// Starts it again after [`NatsServer::kill9`], on its port and empty.
    pub async fn restart_empty(&mut self) {
        if let Some(streams) = &self.streams {
            std::fs::remove_dir_all(streams).expect("its folder goes");
        }
        self.restart().await;
    }

    /// Stops it where it stands (SIGSTOP).
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a process id");
        // Not yet reaped, so the id is still its own.
        kill_process(id, signal).expect("our own child takes our signal");
    }
}

fn spawn(program: &Program, port: i32, streams: Option<&Path>, settings: &[OsString]) -> Process {
    let port = port.to_string();
    let mut words: Vec<OsString> = ["--addr", "127.0.0.1", "--port", &port].map(OsString::from).to_vec();
    if let Some(streams) = streams {
        words.extend(["--jetstream".into(), "--store_dir".into(), streams.into()]);
    }
    words.extend_from_slice(settings);
    let command: Command = program.command(words);
    Process::start(command)
}

async fn ready(process: &Process) -> u16 {
    let port = process.stderr.find(listening).await;
    port.unwrap_or_else(|| {
        let said = process.stderr.tail();
        panic!("no nats-server started; is it installed? `make setup` installs it. It said:\n{said}")
    })
}

/// The port in `… Listening for client connections on 127.0.0.1:4222`.
fn listening(line: &str) -> Option<u16> {
    let (_, address) = line.split_once("Listening for client connections on ")?;
    address.trim().rsplit_once(':')?.1.parse().ok()
}
