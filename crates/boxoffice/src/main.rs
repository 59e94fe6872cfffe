//! boxoffice: a self-hosted ticket-booking engine.
//!
//! The composition root: the command line, the configuration and the log, and the assembly of the engine on a
//! store with the transports.

mod cli;
mod config;
mod coordination_ports;
mod dependency;
mod limit;
mod log;
mod telemetry;

use std::panic::catch_unwind;
use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "sabotage")]
    sabotage();
    let command = config::Cli::read().command;
    // A panic exits with Rust's code for it, after its message is in the log.
    let code = catch_unwind(|| cli::run(command)).unwrap_or_else(|_| ExitCode::from(101));
    log::flush();
    code
}

/// Removes the guards that a test names, and makes the tasks panic that a file lists. Compiled only for
/// tests.
#[cfg(feature = "sabotage")]
#[expect(clippy::disallowed_methods, reason = "not configuration: absent from release builds")]
fn sabotage() {
    if let Ok(guards) = std::env::var("BOXOFFICE_SABOTAGE") {
        domain::sabotage::remove(&guards);
    }
    if let Some(file) = std::env::var_os("BOXOFFICE_PANIC_FILE") {
        supervisor::sabotage::set_panic_file(file.into());
    }
}
