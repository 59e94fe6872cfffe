//! The same service over NATS: a plain client that speaks as the original gateway does, and whoever listens
//! to what the ledger says.

mod listener;
mod on_nats;

use testkit::{Database, NatsServer, PostgresServer, Program, Server, Setup};

/// The program under test.
fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_boxoffice"))
}

/// How a server on a fresh file is started that is connected to NATS.
fn setup(nats: &NatsServer) -> Setup {
    Setup::new(program()).argument("--nats").argument(nats.url())
}

/// Several instances on one database of PostgreSQL and one NATS.
async fn instances(count: usize, nats: &NatsServer) -> (Database, Vec<Server>) {
    let database = PostgresServer::shared().await.create_database().await;
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(setup(nats).on_postgres(&database).start().await);
    }
    (database, servers)
}
