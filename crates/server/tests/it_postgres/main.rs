//! The same server on PostgreSQL: what its callers meet on a file, they meet here; and what only many
//! instances on one database promise.

mod on_postgres;

use testkit::{Client, PostgresServer, Program, Server, Setup};

/// The program under test.
fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_boxoffice"))
}

/// How a server on a fresh database is started.
async fn setup() -> Setup {
    Setup::new(program()).on_postgres(&PostgresServer::shared().await.create_database().await)
}

/// A server on a fresh database.
async fn server() -> Server {
    setup().await.start().await
}

/// What time it is by the server's clock.
async fn server_time(client: &mut Client, event: &str) -> jiff::Timestamp {
    let shown = client.get(&format!("/v1/events/{event}/availability")).await.expect(200);
    shown["asOf"].as_str().and_then(|at| at.parse().ok()).expect("availability says when it was read")
}
