//! `boxoffice migrate`.

use std::process::ExitCode;

use serde_json::json;
use store::{SCHEMA_VERSION, Sqlite};

use super::serve::sqlite_options;
use super::{Failure, say};
use crate::config::Migrate;

pub(super) fn run(args: &Migrate) -> Result<ExitCode, Failure> {
    let path = &args.database.file.0;
    drop(Sqlite::open(path, true, &sqlite_options())?);
    if args.json {
        say(json!({"schemaVersion": SCHEMA_VERSION}));
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("{} is up to date: schema version {SCHEMA_VERSION}", path.display()));
    Ok(ExitCode::SUCCESS)
}
