//! `boxoffice doctor`: checks the dependencies of the program, and prints the next step for each problem.

mod database;
mod nats;
mod redis;
mod report;

use std::process::ExitCode;

use engine::SystemIds;
use serde_json::{Value, json};

use self::report::{DependencyReport, UNPUBLISHED};
use super::{Failure, print_output};
use crate::config::{DatabaseUrl, Doctor};

pub(super) async fn run(args: &Doctor) -> Result<ExitCode, Failure> {
    let database = match args.database.url() {
        DatabaseUrl::Sqlite(file) => {
            let check = tokio::task::spawn_blocking(move || database::sqlite(&file));
            check.await.map_err(|error| Failure::Failed(error.to_string()))?
        }
        DatabaseUrl::Postgres(url) => database::postgres(&url).await,
    };
    let unpublished = database.details.get(UNPUBLISHED).and_then(Value::as_u64);
    let mut dependencies = vec![database];
    if let Some(options) = args.redis.options(&SystemIds).map_err(Failure::Failed)? {
        dependencies.push(redis::redis(options, args.redis.public()).await);
    }
    if let Some(settings) = args.nats.settings() {
        let mut nats = nats::nats(&settings).await?;
        if let Some(unpublished) = unpublished {
            nats.facts
                .push(("unpublished", format!("{unpublished} ledger entries are not recorded as published")));
        }
        dependencies.push(nats);
    }
    let is_healthy = dependencies.iter().all(|dependency| dependency.problems.is_empty());
    if args.json {
        let dependencies: Vec<Value> = dependencies.iter().map(DependencyReport::as_json).collect();
        print_output(json!({"healthy": is_healthy, "dependencies": dependencies}));
    } else {
        dependencies.iter().for_each(DependencyReport::print);
    }
    let is_reachable = dependencies.iter().all(|dependency| dependency.round_trip.is_some());
    Ok(ExitCode::from(match (is_reachable, is_healthy) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 3,
    }))
}
