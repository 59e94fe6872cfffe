//! The commands that print a text and need no server: the descriptions of the interfaces, a token, shell
//! completions.

use std::process::ExitCode;

use clap::CommandFactory as _;
use engine::SystemClock;
use http_api::auth::Identity;

use super::{Failure, print_output, write};
use crate::config::{Cli, Completions, Token};

/// `boxoffice openapi`: prints the OpenAPI description of the HTTP API.
pub(super) fn openapi() -> ExitCode {
    print_output(api::openapi::text().trim_end());
    ExitCode::SUCCESS
}

/// `boxoffice asyncapi`: prints the AsyncAPI description of the NATS interface.
pub(super) fn asyncapi() -> ExitCode {
    print_output(nats::asyncapi::text());
    ExitCode::SUCCESS
}

/// `boxoffice completions`: prints shell completions.
pub(super) fn completions(args: &Completions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "boxoffice", &mut script);
    write(&script);
    ExitCode::SUCCESS
}

/// `boxoffice token`: signs a token.
pub(super) fn token(args: &Token) -> Result<ExitCode, Failure> {
    let identity = Identity { user: args.sub.clone(), role: args.role.into() };
    let token = args.secret.tokens().sign(&identity, &SystemClock, args.ttl.as_secs());
    print_output(token.map_err(Failure::Failed)?);
    Ok(ExitCode::SUCCESS)
}
