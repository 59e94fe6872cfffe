//! `boxoffice migrate`: migrates the database to the current schema.

use std::process::ExitCode;

use serde_json::json;
use store::SCHEMA_VERSION;

use super::{Failure, database, print_output};
use crate::config::Migrate;

pub(super) async fn run(args: &Migrate) -> Result<ExitCode, Failure> {
    let url = args.database.url();
    drop(database::open(&url, true).await?);
    if args.json {
        print_output(json!({"schemaVersion": SCHEMA_VERSION}));
        return Ok(ExitCode::SUCCESS);
    }
    print_output(format_args!("{url} is up to date: schema version {SCHEMA_VERSION}"));
    Ok(ExitCode::SUCCESS)
}
