//! Three NATS servers that replicate their streams.

use std::net::TcpListener;

use crate::NatsServer;

/// Servers of a cluster: the smallest number that survives the loss of one.
const SERVERS: usize = 3;

/// Attempts to start a cluster: a free port may be taken by another process before the server listens on it.
const ATTEMPTS: usize = 5;

/// Three servers of the current version on loopback. Dropping it kills them, each by its own id.
#[derive(Debug)]
pub struct NatsCluster {
    /// The servers, named `n0`, `n1` and `n2`.
    pub servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts a cluster; `None` if `make setup` could not install the current version.
    pub async fn start() -> Option<Self> {
        NatsServer::current()?;
        for _ in 0..ATTEMPTS {
            if let Some(cluster) = Self::attempt().await {
                return Some(cluster);
            }
        }
        panic!("no NATS cluster started in {ATTEMPTS} attempts");
    }

    async fn attempt() -> Option<Self> {
        let routes = free_ports();
        let mut servers = Vec::new();
        for (number, route) in routes.iter().enumerate() {
            let others: Vec<u16> = routes.iter().copied().filter(|other| other != route).collect();
            let name = format!("n{number}");
            servers.push(NatsServer::start_member(NatsServer::current()?, &name, *route, &others).await?);
        }
        Some(Self { servers })
    }

    /// The addresses of all servers, separated by commas.
    pub fn url(&self) -> String {
        self.servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
    }

    /// The index of a server in [`NatsCluster::servers`] by its name.
    pub fn index_of(&self, name: &str) -> usize {
        let index = name.strip_prefix('n').and_then(|number| number.parse().ok());
        index.filter(|index| *index < self.servers.len()).unwrap_or_else(|| panic!("{name} is not a server"))
    }
}

fn free_ports() -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..SERVERS).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
    listeners.iter().map(port).collect()
}
