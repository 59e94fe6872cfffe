//! End-to-end tests over HTTP and the command line, on SQLite. Every test starts the real program as a
//! process with its own database and port.

mod api_auth;
mod api_bodies;
mod api_bookings;
mod api_events;
mod api_lists;
mod api_payments;
mod api_responses;
mod api_roles;
mod api_schema;
mod audit;
mod authorization;
mod availability_stream;
mod bad_log;
mod bench;
mod booking_lifecycle;
mod cli;
mod commands;
mod crash;
mod disk_full;
mod file_gone;
mod health;
mod hostile;
mod idempotency;
mod on_redis;
mod openapi;
mod overdue;
mod race;
mod rate_limits;
mod readers;
#[cfg(feature = "sabotage")]
mod restarts;
mod secret_leaks;
mod settings;
mod shutdown;
mod signing;
mod slow_clients;

use testkit::{Client, Program, Server, Setup};

/// The program under test.
fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_boxoffice"))
}

/// Settings of a server on a new database.
#[expect(clippy::unused_async, reason = "the same signature as in it_postgres")]
async fn setup() -> Setup {
    Setup::new(program())
}

/// Starts a server on a new database.
async fn server() -> Server {
    Server::start(program()).await
}

/// Current time of the server: the `asOf` of an event's availability.
async fn server_time(client: &mut Client, event: &str) -> jiff::Timestamp {
    let availability = client.get(&format!("/v1/events/{event}/availability")).await.expect(200);
    availability["asOf"].as_str().and_then(|at| at.parse().ok()).expect("availability has an `asOf` time")
}
