//! End-to-end tests over NATS: requests of a plain client, and the stream of ledger entries.

mod ledger_stream;
mod on_nats;

use testkit::{Database, NatsServer, PostgresServer, Program, Server, Setup};

/// The program under test.
fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_boxoffice"))
}

/// Settings of a server on a new file that is connected to NATS.
fn setup(nats: &NatsServer) -> Setup {
    Setup::new(program()).argument("--nats").argument(nats.url())
}

/// Starts several instances on one PostgreSQL database and one NATS server.
async fn instances(count: usize, nats: &NatsServer) -> (Database, Vec<Server>) {
    let database = PostgresServer::shared().await.create_database().await;
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(setup(nats).on_postgres(&database).start().await);
    }
    (database, servers)
}
