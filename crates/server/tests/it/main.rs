//! The server as its callers and operators meet it: a process of its own, spoken to over HTTP and by its
//! command line. Every test starts the real program on a database and a port of its own.

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

/// How a server on a fresh database is started.
#[expect(clippy::unused_async, reason = "other databases take their time")]
async fn setup() -> Setup {
    Setup::new(program())
}

/// A server on a fresh database.
async fn server() -> Server {
    Server::start(program()).await
}

/// What time it is by the server's clock.
async fn server_time(client: &mut Client, event: &str) -> jiff::Timestamp {
    let shown = client.get(&format!("/v1/events/{event}/availability")).await.expect(200);
    shown["asOf"].as_str().and_then(|at| at.parse().ok()).expect("availability says when it was read")
}
