//! `boxoffice asyncapi`: prints the AsyncAPI description of the NATS interface.

use std::process::ExitCode;

use super::{Failure, print_output};
use crate::nats::asyncapi;

#[expect(clippy::unnecessary_wraps, reason = "every command has the same signature")]
pub(super) fn run() -> Result<ExitCode, Failure> {
    print_output(asyncapi::text());
    Ok(ExitCode::SUCCESS)
}
