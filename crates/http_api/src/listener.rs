//! The accept loop, with limits on the number of connections and timeouts for each.
//!
//! It replaces `axum::serve`, which gives hyper no timer, so that hyper's timeouts would have no effect.

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

use crate::limit::{
    CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, HEAD_BYTES_MAX, HEAD_WAIT_MAX, WRITE_WAIT_MAX,
};
use crate::linger::LingeringStream;

/// Pause after a failed accept, usually for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections. The listener and the accepted connections survive a panic of the accept loop; during
/// the restart, clients wait in the listener's backlog.
pub struct Acceptor {
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
    /// The limit of connections per address does not apply to `exempt_networks`: proxies, whose connections
    /// belong to many clients.
    pub fn new(
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
            // At the limit the connection is dropped at once: one address must not exclude others.
            let address = peer.ip().to_canonical();
            let is_exempt =
                address.is_loopback() || self.exempt_networks.iter().any(|net| net.contains(&address));
            let Some(address_permit) = self.connection_counts.acquire(address, is_exempt) else { continue };
            let connection = self.graceful.watch(connection(stream, Peer(address), self.router.clone()));
            #[expect(
                clippy::disallowed_methods,
                reason = "the task serves one connection, which a panic closes"
            )]
            self.tasks.spawn(async move {
                // An error means that the client disconnected or was too slow: there is nothing to report.
                let _ = connection.await;
                drop((permit, address_permit));
            });
        }
    }
}

/// Serves connections until shutdown. Then it accepts no more, waits at most `shutdown_timeout` for the
/// requests in flight, and returns.
pub async fn serve(task: Arc<Task>, mut acceptor: Acceptor, shutdown_timeout: Duration) {
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
        tracing::warn!("shutdown timed out with requests in flight");
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
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// The peer address of a connection, as an extension of each of its requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

fn connection(stream: TcpStream, peer: Peer, router: Router) -> impl GracefulConnection<Error: Send> + Send {
    // Responses are small and written at once: Nagle's algorithm would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot disable Nagle's algorithm");
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

/// The number of connections per address.
#[derive(Default)]
struct ConnectionCounts(Mutex<HashMap<IpAddr, usize>>);

/// Counts as one connection of an address until it is dropped.
struct ConnectionPermit {
    counts: Arc<ConnectionCounts>,
    address: IpAddr,
}

impl ConnectionCounts {
    /// A permit for a connection; `None` if the address has reached its limit and is not exempt.
    fn acquire(self: &Arc<Self>, address: IpAddr, is_exempt: bool) -> Option<ConnectionPermit> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= CONNECTIONS_PER_ADDRESS_MAX && !is_exempt {
            return None;
        }
        *count += 1;
        Some(ConnectionPermit { counts: self.clone(), address })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}
