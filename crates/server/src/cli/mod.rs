//! The commands. Standard output is data, standard error everything else.

mod audit;
mod config;
mod dev;
mod migrate;
mod serve;
mod token;

use std::process::ExitCode;

use store::OpenError;

use crate::config::Command;

/// Why a command ends without success, and the exit code that says so.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It ran and failed: exit code 1.
    Failed(String),
    /// Something it needs cannot be reached: exit code 3.
    Unreachable(String),
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        use std::error::Error as _;
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = format!("{error}{cause}");
        match error {
            OpenError::Missing(_) | OpenError::Owned(_) | OpenError::Io { .. } | OpenError::Sqlite(_) => {
                Self::Unreachable(message)
            }
            OpenError::Foreign(_) | OpenError::Outdated { .. } | OpenError::TooNew { .. } => {
                Self::Failed(message)
            }
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> ExitCode {
    let outcome = match command {
        Command::Dev(args) => runtime().and_then(|runtime| runtime.block_on(dev::run(&args))),
        Command::Serve(args) => runtime().and_then(|runtime| runtime.block_on(serve::run(&args))),
        Command::Audit(args) => runtime().and_then(|runtime| runtime.block_on(audit::run(&args))),
        Command::Migrate(args) => migrate::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Config(args) => config::run(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(Failure::Failed(message)) => complain(&message, 1),
        Err(Failure::Unreachable(message)) => complain(&message, 3),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a command that fails")]
fn complain(message: &str, code: u8) -> ExitCode {
    eprintln!("boxoffice: {message}");
    ExitCode::from(code)
}

#[expect(clippy::print_stdout, reason = "what a command reports is its output")]
fn say(text: impl std::fmt::Display) {
    println!("{text}");
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
