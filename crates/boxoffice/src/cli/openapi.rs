//! `boxoffice openapi`: prints the OpenAPI description of the HTTP API.

use std::process::ExitCode;

use super::{Failure, print_output};
use crate::http::openapi;

#[expect(clippy::unnecessary_wraps, reason = "every command has the same signature")]
pub(super) fn run() -> Result<ExitCode, Failure> {
    print_output(openapi::text().trim_end());
    Ok(ExitCode::SUCCESS)
}
