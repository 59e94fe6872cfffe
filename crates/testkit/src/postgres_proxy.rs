//! A fault-injecting TCP proxy in front of PostgreSQL. It parses just enough of the protocol to recognize a
//! COMMIT.

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

/// The fault that is applied to a COMMIT and its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CommitFault {
    /// None.
    Pass,
    /// The COMMIT is forwarded, and both sides are disconnected at once.
    CutBoth,
    /// The COMMIT is forwarded; its reply is dropped, and the client is disconnected.
    DropReply,
    /// The COMMIT is dropped and the client disconnected; the server waits on an open connection.
    LoseCommit,
    /// The COMMIT and everything after it is held; both sides stay connected.
    HoldCommit,
    /// The COMMIT is forwarded, and then nothing any more; both sides stay connected.
    HoldReply,
}

/// Counts of a [`PostgresProxy`] since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyCounts {
    /// Executed statements, prepared or as text.
    pub statements: u64,
    /// The COMMITs among them.
    pub commits: u64,
    /// Times the client sent data after the server had.
    pub round_trips: u64,
    /// Faults applied to a COMMIT.
    pub faults: u64,
}

/// A proxy in front of a server on this machine. Dropping it cuts every connection through it.
#[derive(Debug)]
pub struct PostgresProxy {
    address: SocketAddr,
    shared: Arc<ProxyState>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct ProxyState {
    commit_fault: AtomicU8,
    /// COMMITs to which the fault is still to be applied.
    remaining: AtomicU64,
    delay: Mutex<Duration>,
    statements: AtomicU64,
    commits: AtomicU64,
    round_trips: AtomicU64,
    faults: AtomicU64,
    fault_happened: Notify,
    /// Number of calls of [`PostgresProxy::cut`].
    cut: watch::Sender<u64>,
}

impl PostgresProxy {
    /// Starts a proxy to a port of this machine.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(ProxyState {
            commit_fault: AtomicU8::new(CommitFault::Pass as u8),
            remaining: AtomicU64::new(0),
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

    /// The port of the proxy.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Applies a fault to the next so many COMMITs.
    pub fn set_commit_fault(&self, fault: CommitFault, times: u64) {
        self.shared.commit_fault.store(fault as u8, Ordering::SeqCst);
        self.shared.remaining.store(times, Ordering::SeqCst);
    }

    /// Waits until more than `faults` faults were applied.
    pub async fn wait_for_fault_after(&self, faults: u64) {
        crate::wait::eventually("a fault is applied to a COMMIT", async || {
            (self.counts().faults > faults).then_some(())
        })
        .await;
    }

    /// Delays every packet by so much, in each direction.
    pub fn set_delay(&self, by: Duration) {
        *self.shared.delay.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }

    /// The counts so far.
    pub fn counts(&self) -> ProxyCounts {
        ProxyCounts {
            statements: self.shared.statements.load(Ordering::SeqCst),
            commits: self.shared.commits.load(Ordering::SeqCst),
            round_trips: self.shared.round_trips.load(Ordering::SeqCst),
            faults: self.shared.faults.load(Ordering::SeqCst),
        }
    }
}

async fn accept(listener: TcpListener, port: u16, shared: Arc<ProxyState>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(forward(client, port, shared.clone()));
    }
}

/// Forwards one connection until it ends or is cut.
async fn forward(client: TcpStream, port: u16, shared: Arc<ProxyState>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut cut = shared.cut.subscribe();
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let state = Arc::new(ConnectionState::default());
    let to_server = upstream(client_in, server_out, shared.clone(), state.clone());
    let to_client = downstream(server_in, client_out, shared.clone(), state);
    tokio::select! {
        () = to_server => {}
        () = to_client => {}
        _ = cut.changed() => {}
    }
}

/// State shared by the two directions of a connection.
#[derive(Debug, Default)]
struct ConnectionState {
    /// The server sent data last.
    server_sent_last: std::sync::atomic::AtomicBool,
    /// Data from the server is dropped.
    drops_replies: std::sync::atomic::AtomicBool,
}

/// Most bytes per read.
const READ_MAX: usize = 1024 * 1024;

/// Forwards messages from the client to the server. When it returns, both sides are disconnected.
async fn upstream(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: Arc<ProxyState>,
    state: Arc<ConnectionState>,
) {
    let mut buffered = Vec::new();
    let mut is_started = false;
    loop {
        // The delay is before the read, so that data that is sent together is read together.
        if from.readable().await.is_err() {
            return;
        }
        shared.wait().await;
        buffered.reserve(READ_MAX);
        if from.read_buf(&mut buffered).await.unwrap_or(0) == 0 {
            return;
        }
        if state.server_sent_last.swap(false, Ordering::SeqCst) {
            shared.round_trips.fetch_add(1, Ordering::SeqCst);
        }
        while let Some(length) = message_length(&buffered, is_started) {
            let message: Vec<u8> = buffered.drain(..length).collect();
            // The reply to a TLS request is one byte, and then the start-up begins again.
            is_started |= length != TLS_REQUEST_LENGTH;
            let fault = if is_commit(&message) { shared.take_fault() } else { CommitFault::Pass };
            if matches!(message.first(), Some(b'Q' | b'E')) && is_started {
                shared.statements.fetch_add(1, Ordering::SeqCst);
            }
            match fault {
                CommitFault::LoseCommit | CommitFault::HoldCommit => {}
                CommitFault::Pass
                | CommitFault::CutBoth
                | CommitFault::DropReply
                | CommitFault::HoldReply => {
                    if fault != CommitFault::Pass && fault != CommitFault::CutBoth {
                        state.drops_replies.store(true, Ordering::SeqCst);
                    }
                    if to.write_all(&message).await.is_err() {
                        return;
                    }
                }
            }
            match fault {
                CommitFault::Pass => continue,
                CommitFault::CutBoth => {}
                // Long enough for the server to execute it.
                CommitFault::DropReply => sleep(Duration::from_millis(20)).await,
                // Only the client is disconnected; the server keeps its connection for a while.
                CommitFault::LoseCommit => {
                    drop(from);
                    hold_open(to);
                    return;
                }
                CommitFault::HoldCommit | CommitFault::HoldReply => std::future::pending().await,
            }
            return;
        }
    }
}

/// Keeps a connection open for 30 seconds, longer than any wait for its other side.
fn hold_open(to: OwnedWriteHalf) {
    #[expect(clippy::disallowed_methods, reason = "it must outlive the forwarded connection")]
    drop(tokio::spawn(async move {
        sleep(Duration::from_secs(30)).await;
        drop(to);
    }));
}

async fn downstream(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: Arc<ProxyState>,
    state: Arc<ConnectionState>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        state.server_sent_last.store(true, Ordering::SeqCst);
        shared.wait().await;
        if !state.drops_replies.load(Ordering::SeqCst) && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

impl ProxyState {
    async fn wait(&self) {
        let delay = *self.delay.lock().unwrap_or_else(PoisonError::into_inner);
        if !delay.is_zero() {
            sleep(delay).await;
        }
    }

    /// Counts a COMMIT and returns its fault.
    fn take_fault(&self) -> CommitFault {
        self.commits.fetch_add(1, Ordering::SeqCst);
        let left = |remaining: u64| remaining.checked_sub(1);
        if self.remaining.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_err() {
            return CommitFault::Pass;
        }
        self.faults.fetch_add(1, Ordering::SeqCst);
        self.fault_happened.notify_waiters();
        let all = [
            CommitFault::Pass,
            CommitFault::CutBoth,
            CommitFault::DropReply,
            CommitFault::LoseCommit,
            CommitFault::HoldCommit,
            CommitFault::HoldReply,
        ];
        all[usize::from(self.commit_fault.load(Ordering::SeqCst)) % all.len()]
    }
}

/// The length of a TLS request. No other message before the start-up message has it.
const TLS_REQUEST_LENGTH: usize = 8;

/// The length of the first message; `None` until it is complete.
fn message_length(bytes: &[u8], is_started: bool) -> Option<usize> {
    let kind = usize::from(is_started);
    let length = bytes.get(kind..kind + 4)?;
    let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()? + kind;
    (bytes.len() >= length).then_some(length)
}

fn is_commit(message: &[u8]) -> bool {
    message.first() == Some(&b'Q') && message.get(5..) == Some(b"COMMIT\0")
}
