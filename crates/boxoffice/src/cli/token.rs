//! `boxoffice token`: signs a token.

use std::process::ExitCode;

use engine::SystemClock;

use super::{Failure, print_output};
use crate::auth::Identity;
use crate::config::Token;

pub(super) fn run(args: &Token) -> Result<ExitCode, Failure> {
    let identity = Identity { user: args.sub.clone(), role: args.role };
    let tokens = args.secret.tokens();
    print_output(tokens.sign(&identity, &SystemClock, args.ttl.as_secs()).map_err(Failure::Failed)?);
    Ok(ExitCode::SUCCESS)
}
