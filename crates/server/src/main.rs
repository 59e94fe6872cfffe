//! boxoffice: a self-hosted ticket-booking engine.
//!
//! The only place where the parts are put together: the command line and its configuration, the API over
//! HTTP, and the engine on a store.

mod auth;
mod bench;
mod cli;
mod config;
mod coordination_ports;
mod http;
mod idempotency;
mod limit;
mod log;
mod nats;
mod problem;
mod telemetry;
mod wire;

use std::panic::catch_unwind;
use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "sabotage")]
    sabotage();
    let command = config::Cli::read().command;
    // The exit code of a panic, and its message in the log before the end.
    let code = catch_unwind(|| cli::run(command)).unwrap_or_else(|_| ExitCode::from(101));
    log::flush();
    code
}

/// Takes the guards away that a test names, and panics tasks as a file says. Compiled only for tests.
#[cfg(feature = "sabotage")]
#[expect(clippy::disallowed_methods, reason = "no configuration: a release build does not have it")]
fn sabotage() {
    if let Ok(guards) = std::env::var("BOXOFFICE_SABOTAGE") {
        domain::sabotage::remove(&guards);
    }
    if let Some(file) = std::env::var_os("BOXOFFICE_PANIC_FILE") {
        supervisor::sabotage::set_panic_file(file.into());
    }
}
