//! `boxoffice asyncapi`.

use std::process::ExitCode;

use super::{Failure, say};
use crate::nats::asyncapi;

#[expect(clippy::unnecessary_wraps, reason = "as every command")]
pub(super) fn run() -> Result<ExitCode, Failure> {
    say(asyncapi::text());
    Ok(ExitCode::SUCCESS)
}
