//! `boxoffice asyncapi`.

use std::process::ExitCode;

use super::{Failure, print_output};
use crate::nats::asyncapi;

#[expect(clippy::unnecessary_wraps, reason = "as every command")]
pub(super) fn run() -> Result<ExitCode, Failure> {
    print_output(asyncapi::text());
    Ok(ExitCode::SUCCESS)
}
