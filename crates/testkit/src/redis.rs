//! Redis servers for tests: on a free port, in their own folder, without persistence.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::certificates::Certificates;
use crate::process::Process;
use crate::wait::{eventually, within_deadline};

/// Databases of a server: one per test that shares it.
const DATABASES: &str = "256";

/// A running server. Dropping it kills it, by its own id.
#[derive(Debug)]
pub struct RedisServer {
    process: Process,
    port: u16,
    settings: Vec<String>,
    folder: TempDir,
}

impl RedisServer {
    /// Starts an empty server and waits until it replies.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with these command line settings, e.g. `["--maxmemory", "2mb"]`.
    pub async fn start_with(settings: &[&str]) -> Self {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        // Another process may take the port before the server listens on it.
        for _ in 0..20 {
            let port = free_port();
            let folder = tempfile::tempdir().expect("a folder");
            let mut server =
                Self { process: spawn(port, &settings, &folder), port, settings: settings.clone(), folder };
            if server.wait_until_ready().await {
                return server;
            }
        }
        panic!("no redis-server started; is it installed? `make setup` installs it");
    }

    /// Starts an empty server that accepts only TLS and requires `password`. [`RedisServer::command`] does
    /// not work with it.
    pub async fn start_with_tls(certificates: &Certificates, password: &str) -> Self {
        let file = |file: &Path| file.display().to_string();
        let (certificate, key) = (file(&certificates.server), file(&certificates.key));
        for _ in 0..20 {
            let port = free_port();
            let folder = tempfile::tempdir().expect("a folder");
            let tls_port = port.to_string();
            let settings: Vec<String> =
                ["--port", "0", "--tls-port", &tls_port, "--tls-cert-file", &certificate]
                    .into_iter()
                    .chain(["--tls-key-file", &key, "--tls-auth-clients", "no", "--requirepass", password])
                    .map(str::to_owned)
                    .collect();
            let process = spawn(port, &settings, &folder);
            let mut server = Self { process, port, settings, folder };
            let started = eventually("redis-server accepts connections", async || {
                let ready = server.process.stdout.all().iter().any(|line| line.contains("Ready to accept"));
                (ready || !server.process.is_running()).then_some(ready)
            });
            if started.await {
                return server;
            }
        }
        panic!("no redis-server with TLS started; was it built with TLS?");
    }

    /// Starts a replica of the server at this port, which may be a proxy's, and waits until it is
    /// synchronized.
    pub async fn replica_of(port: u16) -> Self {
        let replica = Self::start_with(&["--replicaof", "127.0.0.1", &port.to_string()]).await;
        eventually("a replica is synchronized", async || {
            replica.command(&["INFO", "replication"]).await.contains("master_link_status:up").then_some(())
        })
        .await;
        replica
    }

    /// The address of a database, 0 to 255.
    pub fn url(&self, database: usize) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.port)
    }

    /// The port of the server, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Executes one command on database 0 and returns the reply as text; an error reply, too.
    pub async fn command(&self, arguments: &[&str]) -> String {
        within_deadline("a reply of Redis", async {
            let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await.expect("a connection");
            exchange(&mut socket, arguments).await.unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
        })
        .await
    }

    /// Pauses the process (SIGSTOP): connections are accepted, but there are no replies.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Resumes the process (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it (SIGKILL); connections are then refused.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again after [`RedisServer::kill9`], on the same port and empty.
    pub async fn restart(&mut self) {
        for _ in 0..20 {
            self.process = spawn(self.port, &self.settings, &self.folder);
            if self.wait_until_ready().await {
                return;
            }
        }
        panic!("redis-server does not start again: {}", self.process.stdout.tail());
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a process id");
        // The process is not reaped yet, so the id is still its own.
        kill_process(id, signal).expect("a child can be signalled");
    }

    /// Waits until it replies; false if it ends instead.
    async fn wait_until_ready(&mut self) -> bool {
        eventually("redis-server replies", async || {
            if !self.process.is_running() {
                return Some(false);
            }
            let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
            let reply = exchange(&mut socket, &["INFO", "server"]).await.ok()?;
            // The reply must be from this process, not from another server that has taken the port.
            let ours = format!("process_id:{}\r\n", self.process.id());
            Some(reply.contains(&ours))
        })
        .await
    }
}

fn spawn(port: u16, settings: &[String], folder: &TempDir) -> Process {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--databases", DATABASES]);
    command.args(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]);
    command.arg("--dir").arg(folder.path()).args(settings);
    Process::start(command)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Sends one command and reads one reply of any type but an array, without its type prefix.
async fn exchange(socket: &mut TcpStream, arguments: &[&str]) -> std::io::Result<String> {
    let mut request = format!("*{}\r\n", arguments.len()).into_bytes();
    for word in arguments {
        request.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    socket.write_all(&request).await?;
    let mut reader = BufReader::new(socket);
    let mut first = String::new();
    if reader.read_line(&mut first).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let first = first.trim_end();
    let Some(length) = first.strip_prefix('$') else { return Ok(first[1..].to_owned()) };
    let mut body = vec![0; length.parse().unwrap_or(0)];
    reader.read_exact(&mut body).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}
