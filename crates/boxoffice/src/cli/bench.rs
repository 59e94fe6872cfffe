//! `boxoffice bench`: runs the load generator against running servers.

use std::process::ExitCode;

use domain::Clock as _;
use engine::SystemClock;
use http_api::auth::{Identity, Role};
use loadgen::{Callers, Load, Mix, Pace, Step};

use super::{Failure, audit, database, print_output};
use crate::config::{Bench, Operation};

/// Time until the events of a run start.
const STARTS_IN_SECONDS: u32 = 30 * 24 * 60 * 60;

pub(super) async fn run(args: &Bench) -> Result<ExitCode, Failure> {
    let report = loadgen::run(load(args)?).await.map_err(Failure::Unreachable)?;
    // Opened only now: before the run the server may not have created the file yet.
    let audit = match args.database().map_err(Failure::Failed)? {
        Some(url) => Some(database::open_reader(&url).await?.audit().await?),
        None => None,
    };
    if args.json {
        let mut json = report.as_json();
        json["audit"] = audit.as_ref().map_or(serde_json::Value::Null, audit::as_json);
        print_output(json);
    } else {
        print_output(&report);
        audit.iter().for_each(audit::print_report);
    }
    let is_clean = audit.is_none_or(|audit| audit.violations.is_empty());
    Ok(ExitCode::from(u8::from(!(report.is_good() && is_clean))))
}

fn load(args: &Bench) -> Result<Load, Failure> {
    let tokens = args.secret.tokens();
    // Longer than the run, so that no token expires during it.
    let seconds = (args.warm_up + args.duration).as_secs() + 3_600;
    let token = |role, name: &str| {
        let user = name.parse().map_err(|_| Failure::Failed(format!("{name} is not a user id")))?;
        tokens.sign(&Identity { user, role }, &SystemClock, seconds).map_err(Failure::Failed)
    };
    Ok(Load {
        targets: args.target.clone(),
        callers: Callers { service: token(Role::Service, "bench")?, admin: token(Role::Admin, "bench")? },
        pace: args.rate.map_or(Pace::Closed, |per_second| Pace::Open { per_second }),
        connections: args.connections as usize,
        duration: args.duration,
        warm_up: args.warm_up,
        events: args.events as usize,
        zipf: args.zipf,
        capacity: args.capacity,
        hold: args.hold,
        users: args.users,
        mix: Mix::new(args.mix.0.iter().map(|(operation, weight)| (step(*operation), *weight)).collect()),
        seed: args.seed,
        pids: args.pid.clone(),
        starts_at: SystemClock.now().plus_seconds(STARTS_IN_SECONDS).to_string(),
    })
}

fn step(operation: Operation) -> Step {
    match operation {
        Operation::Book => Step::Book,
        Operation::Confirm => Step::Confirm,
        Operation::Cancel => Step::Cancel,
        Operation::Leave => Step::Leave,
        Operation::ReadAvailability => Step::ReadAvailability,
    }
}
