//! `boxoffice openapi`.

use std::process::ExitCode;

use super::{Failure, print_output};
use crate::http::openapi;

#[expect(clippy::unnecessary_wraps, reason = "as every command")]
pub(super) fn run() -> Result<ExitCode, Failure> {
    print_output(openapi::text().trim_end());
    Ok(ExitCode::SUCCESS)
}
