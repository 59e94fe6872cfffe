//! boxoffice: a self-hosted ticket-booking engine.
//!
//! The only place where the parts are put together: the command line and its configuration, the API over
//! HTTP, and the engine on a store.

mod auth;
mod bench;
mod cli;
mod config;
mod http;
mod kept;
mod limit;
mod nats;
mod problem;
mod shared;
mod telemetry;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "sabotage")]
    sabotage();
    cli::run(config::Cli::read().command)
}

/// Takes the guards away that a test names. Compiled only for tests.
#[cfg(feature = "sabotage")]
#[expect(clippy::disallowed_methods, reason = "no configuration: a release build does not have it")]
fn sabotage() {
    if let Ok(guards) = std::env::var("BOXOFFICE_SABOTAGE") {
        domain::sabotage::remove(&guards);
    }
}
