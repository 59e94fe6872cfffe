//! A wire to a server that can be made to fail: between a request and its answer, in silence or with a bang,
//! for all connections or only for those that listen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the wire does to what is sent over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedisFault {
    /// Carries everything.
    #[default]
    Healthy,
    /// Closes every connection, and every new one at once.
    Disconnect,
    /// Keeps connections open and carries nothing either way, as a cable pulled out does.
    Stall,
    /// Carries requests; loses the next answer of each connection and closes it.
    DisconnectOnReply,
    /// Carries requests and loses all answers without a word.
    DropReplies,
    /// Carries requests and what subscribers hear, and keeps all answers until it is set to something else.
    HoldReplies,
    /// Carries everything but what is said on connections that have subscribed: those stay open and are silent.
    DropMessages,
    /// Carries everything, but closes connections that have subscribed.
    DisconnectSubscribers,
}

/// A proxy on loopback in front of one server.
#[derive(Debug)]
pub struct RedisProxy {
    port: u16,
    server: Arc<AtomicU16>,
    wire: watch::Sender<RedisFault>,
    hit: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
    _accepting: JoinSet<()>,
}

impl RedisProxy {
    /// Listens on a port of its own and carries everything to `port` on loopback.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let (wire, hit) = (watch::Sender::new(RedisFault::Healthy), Arc::new(AtomicU64::new(0)));
        let (mut accepting, accepted) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
        let came = accepted.clone();
        let target = Arc::new(AtomicU16::new(port));
        let (server, changes, count) = (target.clone(), wire.clone(), hit.clone());
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                came.fetch_add(1, Ordering::SeqCst);
                let server = SocketAddr::from(([127, 0, 0, 1], server.load(Ordering::SeqCst)));
                connections.spawn(carry(client, server, changes.clone(), count.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port: own, server: target, wire, hit, accepted, _accepting: accepting }
    }

    /// The address of a database through the proxy.
    pub fn url(&self, database: usize) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.port)
    }

    /// The port it listens on, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Carries new connections to this port.
    pub fn retarget(&self, port: u16) {
        self.server.store(port, Ordering::SeqCst);
    }

    /// Makes the wire so, also for the connections there are.
    pub fn set(&self, wire: RedisFault) {
        self.wire.send_replace(wire);
    }

    /// Connections made to it so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Answers lost and connections closed by the wire so far: whether a fault has hit anything.
    pub fn fault_count(&self) -> u64 {
        self.hit.load(Ordering::SeqCst)
    }
}

async fn carry(client: TcpStream, server: SocketAddr, wire: watch::Sender<RedisFault>, hit: Arc<AtomicU64>) {
    let closes = |wire: &RedisFault| *wire == RedisFault::Disconnect;
    if closes(&wire.borrow()) {
        hit.fetch_add(1, Ordering::SeqCst);
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    // Small messages, back and forth.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let listens = Arc::new(AtomicBool::new(false));
    let mut closing = wire.subscribe();
    let cut = closing.wait_for(|wire| {
        closes(wire) || (*wire == RedisFault::DisconnectSubscribers && listens.load(Ordering::SeqCst))
    });
    tokio::select! {
        () = requests(from_client, to_server, &wire, &listens) => {}
        () = answers(from_server, to_client, &wire, &listens, &hit) => {}
        _ = cut => { hit.fetch_add(1, Ordering::SeqCst); }
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    wire: &watch::Sender<RedisFault>,
    listens: &AtomicBool,
) {
    let mut bytes = vec![0; 65_536];
    let mut changes = wire.subscribe();
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if bytes[..length].windows(9).any(|word| word == b"SUBSCRIBE") {
            listens.store(true, Ordering::SeqCst);
        }
        // What was sent into the silence is carried when it ends, as TCP does.
        let _ = changes.wait_for(|wire| *wire != RedisFault::Stall).await;
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    wire: &watch::Sender<RedisFault>,
    listens: &AtomicBool,
    hit: &AtomicU64,
) {
    let mut bytes = vec![0; 65_536];
    let mut changes = wire.subscribe();
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        let kept = |wire: &RedisFault| match wire {
            RedisFault::Stall => true,
            RedisFault::HoldReplies => !listens.load(Ordering::SeqCst),
            _ => false,
        };
        let _ = changes.wait_for(|wire| !kept(wire)).await;
        let now = *wire.borrow();
        let lost = match now {
            RedisFault::Healthy
            | RedisFault::Disconnect
            | RedisFault::Stall
            | RedisFault::HoldReplies
            | RedisFault::DisconnectSubscribers => false,
            RedisFault::DisconnectOnReply | RedisFault::DropReplies => true,
            RedisFault::DropMessages => listens.load(Ordering::SeqCst),
        };
        if lost {
            hit.fetch_add(1, Ordering::SeqCst);
        }
        if now == RedisFault::DisconnectOnReply {
            return;
        }
        if !lost && to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}
