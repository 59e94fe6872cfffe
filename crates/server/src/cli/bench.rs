//! `boxoffice bench`.

use std::process::ExitCode;

use domain::Clock as _;
use engine::SystemClock;

use super::{Failure, audit, database, print_output};
use crate::auth::{Identity, Role};
use crate::bench::{Callers, Load, Pace};
use crate::config::Bench;

/// How far ahead the events of a run begin.
const STARTS_IN_SECONDS: u32 = 30 * 24 * 60 * 60;

pub(super) async fn run(args: &Bench) -> Result<ExitCode, Failure> {
    let report = load(args)?.run().await.map_err(Failure::Unreachable)?;
    // Opened only now: the file may not have been there before the server was.
    let audit = match args.database().map_err(Failure::Failed)? {
        Some(url) => Some(database::open_reader(&url).await?.audit().await?),
        None => None,
    };
    if args.json {
        let mut shown = report.as_json();
        shown["audit"] = audit.as_ref().map_or(serde_json::Value::Null, audit::as_json);
        print_output(shown);
    } else {
        print_output(&report);
        audit.iter().for_each(audit::print_report);
    }
    let is_clean = audit.is_none_or(|audit| audit.violations.is_empty());
    Ok(ExitCode::from(u8::from(!(report.is_good() && is_clean))))
}

fn load(args: &Bench) -> Result<Load, Failure> {
    let tokens = args.secret.tokens();
    // Longer than any run: what a token costs is measured, not what happens when it ends.
    let seconds = (args.warm_up + args.duration).as_secs() + 3_600;
    let token = |role, name: &str| {
        let user = name.parse().map_err(|_| Failure::Failed(format!("{name} is no user id")))?;
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
        mix: args.mix.clone(),
        seed: args.seed,
        pids: args.pid.clone(),
        starts_at: SystemClock.now().plus_seconds(STARTS_IN_SECONDS).to_string(),
    })
}
