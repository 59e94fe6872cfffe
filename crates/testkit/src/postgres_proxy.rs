//! A wire to PostgreSQL that can be cut: a proxy that understands just enough of the protocol to know a
//! COMMIT when it sees one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What becomes of the connection on which a COMMIT comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CommitFault {
    /// Nothing happens to it.
    Pass,
    /// The COMMIT is handed on, and both sides are cut off at once.
    CutBoth,
    /// The COMMIT is handed on; its answer is thrown away, and the client cut off.
    DropReply,
    /// The COMMIT is lost and the client cut off; the server is left waiting on an open connection.
    LoseCommit,
    /// The COMMIT and all that follows is held back; both sides stay connected.
    Hold,
    /// The COMMIT is handed on, and from then on nothing is moved; both sides stay connected.
    HoldReply,
}

/// What has come by since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyCounts {
    /// Statements that were run, prepared or in text.
    pub statements: u64,
    /// COMMITs among them.
    pub commits: u64,
    /// How often the client began to speak after the server had.
    pub round_trips: u64,
    /// What was done to a COMMIT.
    pub faults: u64,
}

/// A proxy before a server on this machine. Dropped, every connection through it is cut.
#[derive(Debug)]
pub struct PostgresProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    at_commit: AtomicU8,
    /// How many COMMITs that is yet to happen to.
    times: AtomicU64,
    delay: Mutex<Duration>,
    statements: AtomicU64,
    commits: AtomicU64,
    round_trips: AtomicU64,
    faults: AtomicU64,
    fault_happened: Notify,
    /// Counts how often everything was cut.
    cut: watch::Sender<u64>,
}

impl PostgresProxy {
    /// A wire to a port of this machine.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            at_commit: AtomicU8::new(CommitFault::Pass as u8),
            times: AtomicU64::new(0),
            delay: Mutex::new(Duration::ZERO),
            statements: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            round_trips: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            fault_happened: Notify::new(),
            cut: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, port, shared.clone()));
        Self { address, shared, _tasks: tasks }
    }

    /// The port to connect to instead.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Does this to the next so many COMMITs.
    pub fn set_commit_fault(&self, what: CommitFault, times: u64) {
        self.shared.at_commit.store(what as u8, Ordering::SeqCst);
        self.shared.times.store(times, Ordering::SeqCst);
    }

    /// Waits until that has happened to a COMMIT since `faults` were counted.
    pub async fn wait_for_fault_after(&self, faults: u64) {
        crate::wait::eventually("a fault on the wire", async || {
            (self.counts().faults > faults).then_some(())
        })
        .await;
    }

    /// Holds every packet back for so long, each way.
    pub fn set_delay(&self, by: Duration) {
        *self.shared.delay.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }

    /// What has come by.
    pub fn counts(&self) -> ProxyCounts {
        ProxyCounts {
            statements: self.shared.statements.load(Ordering::SeqCst),
            commits: self.shared.commits.load(Ordering::SeqCst),
            round_trips: self.shared.round_trips.load(Ordering::SeqCst),
            faults: self.shared.faults.load(Ordering::SeqCst),
        }
    }
}

async fn accept(listener: TcpListener, port: u16, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(carry(client, port, shared.clone()));
    }
}

/// Carries one connection until it ends or is cut.
async fn carry(client: TcpStream, port: u16, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let mut cut = shared.cut.subscribe();
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    let line = Arc::new(Line::default());
    let there = upstream(client_in, server_out, shared.clone(), line.clone());
    let back = downstream(server_in, client_out, shared.clone(), line);
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = cut.changed() => {}
    }
}

/// What the two directions of a connection tell each other.
#[derive(Debug, Default)]
struct Line {
    /// The server has spoken last.
    server_spoke: std::sync::atomic::AtomicBool,
    /// What the server says goes nowhere any more.
    is_deaf: std::sync::atomic::AtomicBool,
}

/// How much is read at a time.
const READ_MAX: usize = 1024 * 1024;

/// From the client to the server, message by message. When it returns, both sides are cut.
async fn upstream(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: Arc<Shared>, line: Arc<Line>) {
    let mut waiting = Vec::new();
    let mut is_started = false;
    loop {
        // What is sent together is to be read together, so the pause comes before the reading.
        if from.readable().await.is_err() {
            return;
        }
        shared.wait().await;
        waiting.reserve(READ_MAX);
        if from.read_buf(&mut waiting).await.unwrap_or(0) == 0 {
            return;
        }
        if line.server_spoke.swap(false, Ordering::SeqCst) {
            shared.round_trips.fetch_add(1, Ordering::SeqCst);
        }
        while let Some(length) = message_length(&waiting, is_started) {
            let message: Vec<u8> = waiting.drain(..length).collect();
            // A request for TLS is answered by a letter, and the same begins again.
            is_started |= length != TLS_REQUEST_LENGTH;
            let fault = if is_commit(&message) { shared.commit() } else { CommitFault::Pass };
            if matches!(message.first(), Some(b'Q' | b'E')) && is_started {
                shared.statements.fetch_add(1, Ordering::SeqCst);
            }
            match fault {
                CommitFault::LoseCommit | CommitFault::Hold => {}
                CommitFault::Pass
                | CommitFault::CutBoth
                | CommitFault::DropReply
                | CommitFault::HoldReply => {
                    if fault != CommitFault::Pass && fault != CommitFault::CutBoth {
                        line.is_deaf.store(true, Ordering::SeqCst);
                    }
                    if to.write_all(&message).await.is_err() {
                        return;
                    }
                }
            }
            match fault {
                CommitFault::Pass => continue,
                CommitFault::CutBoth => {}
                // Long enough for the server to have done it.
                CommitFault::DropReply => sleep(Duration::from_millis(20)).await,
                // The client alone is cut off; the server keeps its connection for a while.
                CommitFault::LoseCommit => {
                    drop(from);
                    leave_open(to);
                    return;
                }
                CommitFault::Hold | CommitFault::HoldReply => std::future::pending().await,
            }
            return;
        }
    }
}

/// Keeps a connection open for longer than anybody waits for its other side.
fn leave_open(to: OwnedWriteHalf) {
    #[expect(clippy::disallowed_methods, reason = "it outlives the connection on purpose, for a while")]
    drop(tokio::spawn(async move {
        sleep(Duration::from_secs(30)).await;
        drop(to);
    }));
}

async fn downstream(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: Arc<Shared>, line: Arc<Line>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        line.server_spoke.store(true, Ordering::SeqCst);
        shared.wait().await;
        if !line.is_deaf.load(Ordering::SeqCst) && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

impl Shared {
    async fn wait(&self) {
        let delay = *self.delay.lock().unwrap_or_else(PoisonError::into_inner);
        if !delay.is_zero() {
            sleep(delay).await;
        }
    }

    /// A COMMIT comes by: what becomes of it.
    fn commit(&self) -> CommitFault {
        self.commits.fetch_add(1, Ordering::SeqCst);
        let left = |times: u64| times.checked_sub(1);
        if self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_err() {
            return CommitFault::Pass;
        }
        self.faults.fetch_add(1, Ordering::SeqCst);
        self.fault_happened.notify_waiters();
        let all = [
            CommitFault::Pass,
            CommitFault::CutBoth,
            CommitFault::DropReply,
            CommitFault::LoseCommit,
            CommitFault::Hold,
            CommitFault::HoldReply,
        ];
        all[usize::from(self.at_commit.load(Ordering::SeqCst)) % all.len()]
    }
}

/// The length of a request for TLS: no other message before the start has it.
const TLS_REQUEST_LENGTH: usize = 8;

/// The length of the first message, once all of it is there.
fn message_length(bytes: &[u8], is_started: bool) -> Option<usize> {
    let kind = usize::from(is_started);
    let length = bytes.get(kind..kind + 4)?;
    let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()? + kind;
    (bytes.len() >= length).then_some(length)
}

fn is_commit(message: &[u8]) -> bool {
    message.first() == Some(&b'Q') && message.get(5..) == Some(b"COMMIT\0")
}
