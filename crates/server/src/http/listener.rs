//! The accept loop: connections with a bound on their number, and on how long each may make us wait.
//!
//! Our own, because `axum::serve` gives hyper no timer, which leaves its time-outs without effect.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use supervisor::{Task, Work};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::linger::LingeringStream;
use crate::limit::{
    CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, HEAD_BYTES_MAX, HEAD_WAIT_MAX, WRITE_WAIT_MAX,
};

/// How long to wait when no connection can be accepted, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What accepts connections. It and what it has accepted outlive a panic, so clients wait in the listener's backlog
/// for the restart.
pub(crate) struct Acceptor {
    listener: TcpListener,
    router: Router,
    exempt_networks: Arc<[IpNet]>,
    stop: CancellationToken,
    connections: Arc<Semaphore>,
    connection_counts: Arc<ConnectionCounts>,
    graceful: GracefulShutdown,
    tasks: TaskTracker,
}

impl Acceptor {
    /// `exempt_networks` are addresses that speak for many, and that no bound on the connections of one address holds for.
    pub(crate) fn new(
        listener: TcpListener,
        router: Router,
        exempt_networks: Arc<[IpNet]>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            listener,
            router,
            exempt_networks,
            stop,
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            connection_counts: Arc::default(),
            graceful: GracefulShutdown::new(),
            tasks: TaskTracker::new(),
        }
    }
}

impl Work for Acceptor {
    async fn run(&mut self) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = accept(&self.listener, &self.connections) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else { continue };
            // Dropped at once: one address must not keep the others out.
            let address = peer.ip().to_canonical();
            let many = address.is_loopback() || self.exempt_networks.iter().any(|net| net.contains(&address));
            let Some(place) = self.connection_counts.acquire(address, many) else { continue };
            let connection = self.graceful.watch(connection(stream, Peer(address), self.router.clone()));
            #[expect(
                clippy::disallowed_methods,
                reason = "it belongs to one connection, which a panic closes"
            )]
            self.tasks.spawn(async move {
                // An error here is a client that broke off or was too slow; it has nobody to be told.
                let _ = connection.await;
                drop((permit, place));
            });
        }
    }
}

/// Serves connections until the program stops; then takes no more, lets requests under way finish for at most
/// `patience`, and returns.
pub(crate) async fn serve(task: Arc<Task>, mut acceptor: Acceptor, shutdown_timeout: Duration) {
    let stop = acceptor.stop.clone();
    task.run_until(&stop, &mut acceptor).await;
    let Acceptor { listener, graceful, tasks, .. } = acceptor;
    drop(listener);
    tasks.close();
    let drained = async {
        graceful.shutdown().await;
        tasks.wait().await;
    };
    if tokio::time::timeout(shutdown_timeout, pin!(drained)).await.is_err() {
        tracing::warn!("some requests were still under way when the time to shut down was over");
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = connections.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// The address at the other end of a connection, beside every request that comes over it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

fn connection(stream: TcpStream, peer: Peer, router: Router) -> impl GracefulConnection<Error: Send> + Send {
    // Answers are small and complete: waiting to fill a packet only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch Nagle's algorithm off");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_WAIT_MAX));
    let stream = LingeringStream::new(Box::pin(stream));
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        TowerToHyperService::new(router.clone()).call(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
}

/// How many connections each address has.
#[derive(Default)]
struct ConnectionCounts(Mutex<HashMap<IpAddr, usize>>);

/// One connection of an address.
struct ConnectionPermit {
    addresses: Arc<ConnectionCounts>,
    address: IpAddr,
}

impl ConnectionCounts {
    /// A place for a connection; none when the address has as many as it may.
    fn acquire(self: &Arc<Self>, address: IpAddr, many: bool) -> Option<ConnectionPermit> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= CONNECTIONS_PER_ADDRESS_MAX && !many {
            return None;
        }
        *count += 1;
        Some(ConnectionPermit { addresses: self.clone(), address })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}
