//! The commands. Data goes to standard output, everything else to standard error.

mod audit;
mod backup;
mod bench;
mod config;
mod database;
mod demo;
mod dev;
mod doctor;
mod embedded;
mod migrate;
mod print;
mod serve;
mod sweep;

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

use store::OpenError;

use crate::config::Command;
use crate::log;

/// The first error of standard output.
static OUTPUT_ERROR: OnceLock<io::Error> = OnceLock::new();

/// The failure of a command. Each variant has an exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command failed: exit code 1.
    Failed(String),
    /// A dependency is unreachable: exit code 3.
    Unreachable(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) | Self::Unreachable(message) => f.write_str(message),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        use std::error::Error as _;
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = format!("{error}{cause}");
        match error {
            OpenError::Missing(_)
            | OpenError::Owned(_)
            | OpenError::Io { .. }
            | OpenError::Sqlite(_)
            | OpenError::Unreachable { .. } => Self::Unreachable(message),
            OpenError::Foreign(_)
            | OpenError::Outdated { .. }
            | OpenError::TooNew { .. }
            | OpenError::Unsupported { .. }
            | OpenError::Migration(_) => Self::Failed(message),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs a command and returns its exit code.
pub(crate) fn run(command: Command) -> ExitCode {
    let result = match command {
        Command::Dev(args) => runtime().and_then(|runtime| runtime.block_on(dev::run(&args))),
        Command::Serve(args) => runtime().and_then(|runtime| runtime.block_on(serve::run(&args))),
        Command::Audit(args) => runtime().and_then(|runtime| runtime.block_on(audit::run(&args))),
        Command::Demo(args) => runtime().and_then(|runtime| runtime.block_on(demo::run(&args))),
        Command::Sweep(args) => runtime().and_then(|runtime| runtime.block_on(sweep::run(&args))),
        Command::Backup(args) => runtime().and_then(|runtime| runtime.block_on(backup::run(&args))),
        Command::Bench(args) => runtime().and_then(|runtime| runtime.block_on(bench::run(&args))),
        Command::Doctor(args) => runtime().and_then(|runtime| runtime.block_on(doctor::run(&args))),
        Command::Migrate(args) => runtime().and_then(|runtime| runtime.block_on(migrate::run(&args))),
        Command::Completions(args) => Ok(print::completions(&args)),
        Command::Openapi => Ok(print::openapi()),
        Command::Asyncapi => Ok(print::asyncapi()),
        Command::Token(args) => print::token(&args),
        Command::Config(args) => config::run(&args),
    };
    match (result, OUTPUT_ERROR.get()) {
        (Ok(_), Some(error)) => print_error(&format!("cannot write the output: {error}"), 1),
        (Ok(code), None) => code,
        (Err(Failure::Failed(message)), _) => print_error(&message, 1),
        (Err(Failure::Unreachable(message)), _) => print_error(&message, 3),
    }
}

/// Prints the error of a failed command to standard error.
fn print_error(message: &str, code: u8) -> ExitCode {
    log::write_line(&format!("boxoffice: {message}"));
    ExitCode::from(code)
}

/// Prints a line to standard output. A reader that closes the pipe early, as `head` does, is no error. Any
/// other error makes the command fail at its end.
fn print_output(text: impl fmt::Display) {
    write(format!("{text}\n").as_bytes());
}

/// As [`print_output`], but without a line break.
fn write(bytes: &[u8]) {
    let mut output = io::stdout();
    if let Err(error) = output.write_all(bytes).and_then(|()| output.flush())
        && error.kind() != ErrorKind::BrokenPipe
    {
        // The first error is kept.
        let _ = OUTPUT_ERROR.set(error);
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
