//! End-to-end tests on PostgreSQL: HTTP tests of `tests/it` again, and the guarantees of several
//! instances on one database.

mod on_postgres;

use testkit::{Client, PostgresServer, Program, Server, Setup};

/// The program under test.
fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_boxoffice"))
}

/// Settings of a server on a new database.
async fn setup() -> Setup {
    Setup::new(program()).on_postgres(&PostgresServer::shared().await.create_database().await)
}

/// Starts a server on a new database.
async fn server() -> Server {
    setup().await.start().await
}

/// Current time of the server: the `asOf` of an event's availability.
async fn server_time(client: &mut Client, event: &str) -> jiff::Timestamp {
    let availability = client.get(&format!("/v1/events/{event}/availability")).await.expect(200);
    availability["asOf"].as_str().and_then(|at| at.parse().ok()).expect("availability has an `asOf` time")
}
