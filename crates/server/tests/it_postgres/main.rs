//! The same server on PostgreSQL: what its callers meet on a file, they meet here; and what only many
//! instances on one database promise.

#[path = "../it/api_auth.rs"]
mod api_auth;
#[path = "../it/api_bodies.rs"]
mod api_bodies;
#[path = "../it/api_bookings.rs"]
mod api_bookings;
#[path = "../it/api_events.rs"]
mod api_events;
#[path = "../it/api_lists.rs"]
mod api_lists;
#[path = "../it/api_order.rs"]
mod api_order;
#[path = "../it/api_payments.rs"]
mod api_payments;
#[path = "../it/api_roles.rs"]
mod api_roles;
#[path = "../it/booking_life.rs"]
mod booking_life;
#[path = "../it/race.rs"]
mod race;
#[path = "../it/shutdown.rs"]
mod shutdown;

mod commands;
mod cuts;
mod instances;
mod migrations;
mod redis_faults;

use testkit::{Client, Cluster, Program, Server, Setup};

/// The program under test.
fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_boxoffice"))
}

/// How a server on a fresh database is started.
async fn setup() -> Setup {
    Setup::new(program()).on_postgres(&Cluster::shared().await.database().await)
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
