//! `boxoffice openapi`.

use std::process::ExitCode;

use super::{Failure, say};
use crate::http::openapi;

#[expect(clippy::unnecessary_wraps, reason = "as every command")]
pub(super) fn run() -> Result<ExitCode, Failure> {
    say(openapi::text().trim_end());
    Ok(ExitCode::SUCCESS)
}
