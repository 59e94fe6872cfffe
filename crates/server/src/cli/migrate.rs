//! `boxoffice migrate`.

use std::process::ExitCode;

use serde_json::json;
use store::SCHEMA_VERSION;

use super::{Failure, database, say};
use crate::config::Migrate;

pub(super) async fn run(args: &Migrate) -> Result<ExitCode, Failure> {
    let url = args.database.url();
    drop(database::open(&url, true).await?);
    if args.json {
        say(json!({"schemaVersion": SCHEMA_VERSION}));
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("{url} is up to date: schema version {SCHEMA_VERSION}"));
    Ok(ExitCode::SUCCESS)
}
