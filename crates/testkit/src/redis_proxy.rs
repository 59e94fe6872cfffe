//! A fault-injecting TCP proxy in front of a Redis server: it can drop, hold or cut requests and replies, on
//! all connections or only on those with a subscription.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The fault of a [`RedisProxy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedisFault {
    /// None: forwards everything.
    #[default]
    Healthy,
    /// Closes all connections, and every new one at once.
    Disconnect,
    /// Keeps connections open and forwards nothing in either direction, like an unplugged cable.
    Stall,
    /// Forwards requests; drops the next reply of each connection and closes the connection.
    DisconnectOnReply,
    /// Forwards requests and drops all replies.
    DropReplies,
    /// Forwards requests and the messages of subscriptions; holds all replies until another fault is set.
    HoldReplies,
    /// Drops all data from the server on connections with a subscription, and forwards everything else.
    DropMessages,
    /// Closes connections with a subscription, and forwards everything else.
    DisconnectSubscribers,
}

/// A proxy on loopback in front of one server.
#[derive(Debug)]
pub struct RedisProxy {
    port: u16,
    server: Arc<AtomicU16>,
    fault: watch::Sender<RedisFault>,
    fault_count: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
    _acceptor: JoinSet<()>,
}

impl RedisProxy {
    /// Starts a proxy on a free port, to `port` on loopback.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let fault = watch::Sender::new(RedisFault::Healthy);
        let fault_count = Arc::new(AtomicU64::new(0));
        let mut acceptor = JoinSet::new();
        let accepted = Arc::new(AtomicU64::new(0));
        let accepted_count = accepted.clone();
        let target = Arc::new(AtomicU16::new(port));
        let server = target.clone();
        let changes = fault.clone();
        let count = fault_count.clone();
        acceptor.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                accepted_count.fetch_add(1, Ordering::SeqCst);
                let server = SocketAddr::from(([127, 0, 0, 1], server.load(Ordering::SeqCst)));
                connections.spawn(forward(client, server, changes.clone(), count.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port: own, server: target, fault, fault_count, accepted, _acceptor: acceptor }
    }

    /// The address of a database through the proxy.
    pub fn url(&self, database: usize) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.port)
    }

    /// The port of the proxy, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Forwards new connections to this port.
    pub fn retarget(&self, port: u16) {
        self.server.store(port, Ordering::SeqCst);
    }

    /// Sets the fault, also for existing connections.
    pub fn set(&self, fault: RedisFault) {
        self.fault.send_replace(fault);
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Replies dropped and connections closed so far: above zero once a fault has taken effect.
    pub fn fault_count(&self) -> u64 {
        self.fault_count.load(Ordering::SeqCst)
    }
}

async fn forward(
    client: TcpStream,
    server: SocketAddr,
    fault: watch::Sender<RedisFault>,
    fault_count: Arc<AtomicU64>,
) {
    let disconnects = |fault: &RedisFault| *fault == RedisFault::Disconnect;
    if disconnects(&fault.borrow()) {
        fault_count.fetch_add(1, Ordering::SeqCst);
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    // Small messages in both directions.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let has_subscription = Arc::new(AtomicBool::new(false));
    let mut closing = fault.subscribe();
    let cut = closing.wait_for(|fault| {
        disconnects(fault)
            || (*fault == RedisFault::DisconnectSubscribers && has_subscription.load(Ordering::SeqCst))
    });
    tokio::select! {
        () = forward_requests(from_client, to_server, &fault, &has_subscription) => {}
        () = forward_replies(from_server, to_client, &fault, &has_subscription, &fault_count) => {}
        _ = cut => { fault_count.fetch_add(1, Ordering::SeqCst); }
    }
}

async fn forward_requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    fault: &watch::Sender<RedisFault>,
    has_subscription: &AtomicBool,
) {
    let mut bytes = vec![0; 65_536];
    let mut changes = fault.subscribe();
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if bytes[..length].windows(9).any(|word| word == b"SUBSCRIBE") {
            has_subscription.store(true, Ordering::SeqCst);
        }
        // Data sent during a stall is delivered afterwards, like TCP retransmissions.
        let _ = changes.wait_for(|fault| *fault != RedisFault::Stall).await;
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

async fn forward_replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    fault: &watch::Sender<RedisFault>,
    has_subscription: &AtomicBool,
    fault_count: &AtomicU64,
) {
    let mut bytes = vec![0; 65_536];
    let mut changes = fault.subscribe();
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        let is_held = |fault: &RedisFault| match fault {
            RedisFault::Stall => true,
            RedisFault::HoldReplies => !has_subscription.load(Ordering::SeqCst),
            _ => false,
        };
        let _ = changes.wait_for(|fault| !is_held(fault)).await;
        let now = *fault.borrow();
        let is_dropped = match now {
            RedisFault::Healthy
            | RedisFault::Disconnect
            | RedisFault::Stall
            | RedisFault::HoldReplies
            | RedisFault::DisconnectSubscribers => false,
            RedisFault::DisconnectOnReply | RedisFault::DropReplies => true,
            RedisFault::DropMessages => has_subscription.load(Ordering::SeqCst),
        };
        if is_dropped {
            fault_count.fetch_add(1, Ordering::SeqCst);
        }
        if now == RedisFault::DisconnectOnReply {
            return;
        }
        if !is_dropped && to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}
