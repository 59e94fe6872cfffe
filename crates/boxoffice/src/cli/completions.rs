//! `boxoffice completions`: prints shell completions.

use std::process::ExitCode;

use clap::CommandFactory as _;

use super::Failure;
use crate::config::{Cli, Completions};

#[expect(clippy::unnecessary_wraps, reason = "every command has the same signature")]
pub(super) fn run(args: &Completions) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "boxoffice", &mut script);
    super::write(&script);
    Ok(ExitCode::SUCCESS)
}
