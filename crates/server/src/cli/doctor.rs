//! `boxoffice doctor`: what is wrong with what the program depends on, and what to do about it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use domain::{Clock as _, Timestamp};
use engine::{SystemClock, SystemIds};
use serde_json::{Map, Value, json};
use store::{Inspection, OpenError, PostgresInspection, PostgresUrl, SCHEMA_VERSION};
use tokio::time::Instant;

use super::{Failure, print_output};
use crate::config::{DatabaseUrl, Doctor};

/// In the details of a database: ledger entries that are not noted as told over NATS.
const UNPUBLISHED: &str = "unpublishedEntries";

/// The largest difference between two clocks that is no problem, in seconds: holds last at least as long.
const CLOCK_DIFFERENCE_MAX: u64 = 60;

/// One thing that the program needs, as it was found.
pub(super) struct Dependency {
    pub(super) name: &'static str,
    pub(super) address: String,
    /// How long it took to answer; unset where it did not.
    pub(super) round_trip: Option<Duration>,
    /// What it says about itself, for people and for programs.
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) details: Map<String, Value>,
    pub(super) problems: Vec<Problem>,
}

/// What is wrong, and the next step.
pub(super) struct Problem {
    what: String,
    next_step: String,
}

impl Problem {
    pub(super) fn new(what: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { what: what.into(), next_step: next_step.into() }
    }
}

pub(super) async fn run(args: &Doctor) -> Result<ExitCode, Failure> {
    let database = match args.database.url() {
        DatabaseUrl::Sqlite(file) => {
            let look = tokio::task::spawn_blocking(move || sqlite(&file));
            look.await.map_err(|error| Failure::Failed(error.to_string()))?
        }
        DatabaseUrl::Postgres(url) => postgres(&url).await,
    };
    let unpublished = database.details.get(UNPUBLISHED).and_then(Value::as_u64);
    let mut dependencies = vec![database];
    if let Some(options) = args.redis.options(&SystemIds).map_err(Failure::Failed)? {
        dependencies.push(super::doctor_redis::redis(options, args.redis.public()).await);
    }
    if let Some(address) = args.nats.address() {
        let mut nats = super::doctor_nats::nats(&args.nats, &address).await?;
        if let Some(unpublished) = unpublished {
            nats.facts.push(("unpublished", format!("{unpublished} ledger entries are not noted as told")));
        }
        dependencies.push(nats);
    }
    let is_healthy = dependencies.iter().all(|dependency| dependency.problems.is_empty());
    if args.json {
        let dependencies: Vec<Value> = dependencies.iter().map(Dependency::as_json).collect();
        print_output(json!({"healthy": is_healthy, "dependencies": dependencies}));
    } else {
        dependencies.iter().for_each(Dependency::print_output);
    }
    let is_reached = dependencies.iter().all(|dependency| dependency.round_trip.is_some());
    Ok(ExitCode::from(match (is_reached, is_healthy) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 3,
    }))
}

impl Dependency {
    fn as_json(&self) -> Value {
        let problem = |problem: &Problem| json!({"problem": problem.what, "nextStep": problem.next_step});
        let mut all = self.details.clone();
        all.insert("name".into(), json!(self.name));
        all.insert("address".into(), json!(self.address));
        all.insert("reachable".into(), json!(self.round_trip.is_some()));
        all.insert("roundTripMillis".into(), json!(self.round_trip.map(millis)));
        all.insert("problems".into(), self.problems.iter().map(problem).collect());
        Value::Object(all)
    }

    fn print_output(&self) {
        let verdict = match (self.round_trip, self.problems.is_empty()) {
            (None, _) => "unreachable",
            (Some(_), false) => "something is wrong",
            (Some(_), true) => "ok",
        };
        print_output(format_args!("{}: {verdict} ({})", self.name, self.address));
        for (name, value) in &self.facts {
            print_output(format_args!("  {name:12}{value}"));
        }
        if let Some(round_trip) = self.round_trip {
            print_output(format_args!("  {:12}{:.2} ms", "round trip", millis(round_trip)));
        }
        for problem in &self.problems {
            print_output(format_args!("- {}\n  next: {}", problem.what, problem.next_step));
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Looks at a PostgreSQL. Changes nothing.
async fn postgres(url: &PostgresUrl) -> Dependency {
    let inspection = store::inspect_postgres(url).await;
    let address = url.to_string();
    let mut dependency = Dependency {
        name: "database",
        address: address.clone(),
        round_trip: inspection.as_ref().ok().map(|inspection| inspection.round_trip),
        facts: Vec::new(),
        details: Map::new(),
        problems: Vec::new(),
    };
    match inspection {
        Ok(inspection) => describe_postgres(inspection, &address, &mut dependency),
        Err(error) => dependency.problems.push(unusable(error, &address)),
    }
    dependency
}

fn describe_postgres(found: PostgresInspection, address: &str, dependency: &mut Dependency) {
    let role = if found.is_primary { "primary" } else { "standby" };
    let schema = found.schema_version.as_ref().map_or("not usable".to_owned(), u32::to_string);
    let standbys = &found.standbys;
    let waits_for = match (standbys.setting.as_str(), standbys.are_visible) {
        ("", _) => "waited for: none".to_owned(),
        (names, true) => format!("waited for: {names}; {} connected", standbys.connected),
        (names, false) => format!(
            "waited for: {names}; {} connected, and this user may not see whether they keep up (GRANT pg_monitor)",
            standbys.connected
        ),
    };
    dependency.details = [
        ("version", json!(format!("PostgreSQL {}", found.version))),
        ("schemaVersion", json!(found.schema_version.as_ref().ok())),
        ("neededSchemaVersion", json!(SCHEMA_VERSION)),
        ("primary", json!(found.is_primary)),
        ("fsync", json!(found.fsync)),
        ("fullPageWrites", json!(found.full_page_writes)),
        ("synchronousCommit", json!(found.synchronous_commit)),
        ("synchronousStandbys", json!(standbys.setting)),
        ("connectedStandbys", json!(standbys.connected)),
        ("missingStandbys", json!(standbys.missing)),
        ("standbysVisible", json!(standbys.are_visible)),
        ("commitWaitMillis", json!(millis(standbys.commit_wait))),
        ("maxConnections", json!(found.max_connections)),
        (UNPUBLISHED, json!(found.unpublished)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect();
    dependency.facts = vec![
        ("version", format!("PostgreSQL {}", found.version)),
        ("schema", schema),
        ("role", role.to_owned()),
        ("fsync", found.fsync.clone()),
        ("commit", format!("always waits for the disk; others here: {}", found.synchronous_commit)),
        ("standbys", waits_for),
        ("connections", format!("at most {}", found.max_connections)),
    ];
    if let Some(now) = found.now {
        dependency.problems.extend(clock_problem(now, found.last_at));
        dependency.problems.extend(clocks_problem(now, SystemClock.now()));
    }
    if !found.is_primary {
        dependency.problems.push(Problem::new(
            "it is a standby, and takes no changes",
            "name the primary with --database; several hosts may be given: postgres://…@one,two/…",
        ));
    }
    let waits = [
        (standbys.stall_reason(), "until one answers, no change is acknowledged"),
        (standbys.degraded_reason(), "while too few are connected, no change is acknowledged"),
    ];
    for (what, until) in waits.into_iter().filter_map(|(what, until)| Some((what?, until))) {
        dependency.problems.push(Problem::new(
            what,
            format!("start the standby or mend its connection, or take it out of synchronous_standby_names; {until}"),
        ));
    }
    if let Err(error) = found.schema_version {
        dependency.problems.push(unusable(error, address));
    }
    for (name, value) in [("fsync", found.fsync), ("full_page_writes", found.full_page_writes)] {
        if value != "on" {
            dependency.problems.push(Problem::new(
                format!("{name} is {value}: a power cut loses or spoils what was acknowledged"),
                format!("set {name} = on in postgresql.conf and reload the server"),
            ));
        }
    }
}

/// What is wrong with the clock that deadlines go by, `now`.
fn clock_problem(now: Timestamp, last_at: Option<Timestamp>) -> Option<Problem> {
    let ahead = now.seconds_until(last_at?);
    (ahead > CLOCK_DIFFERENCE_MAX).then(|| {
        Problem::new(
            format!(
                "the latest ledger entry is dated {ahead} s after the present: the clock was ahead when it was \
                 written, or is behind now"
            ),
            "check the clock and NTP; entries keep their dates, and no deadline depends on them",
        )
    })
}

/// What is wrong where the database's clock and this machine's differ.
fn clocks_problem(database: Timestamp, machine: Timestamp) -> Option<Problem> {
    let apart = database.seconds_until(machine).max(machine.seconds_until(database));
    (apart > CLOCK_DIFFERENCE_MAX).then(|| {
        Problem::new(
            format!("the database's clock and this machine's are {apart} s apart"),
            "set both by NTP: deadlines go by the database's, tokens and ids by this machine's",
        )
    })
}

/// Looks at the database file. Changes nothing, and waits for nobody.
fn sqlite(path: &Path) -> Dependency {
    let began = Instant::now();
    let inspection = store::inspect(path);
    let round_trip = inspection.is_ok().then(|| began.elapsed());
    let address = format!("sqlite://{}", path.display());
    let mut dependency = Dependency {
        name: "database",
        address: address.clone(),
        round_trip,
        facts: Vec::new(),
        details: Map::new(),
        problems: Vec::new(),
    };
    match inspection {
        Ok(inspection) => describe(inspection, &address, &mut dependency),
        Err(error) => dependency.problems.push(unusable(error, &address)),
    }
    dependency.problems.extend(folder_problem(path));
    dependency
}

fn describe(inspection: Inspection, address: &str, dependency: &mut Dependency) {
    let Inspection {
        sqlite_version,
        schema_version,
        journal_mode,
        is_writable,
        is_owned,
        unpublished,
        last_at,
    } = inspection;
    dependency.problems.extend(clock_problem(SystemClock.now(), last_at));
    let version = format!("SQLite {sqlite_version}");
    let schema = schema_version.as_ref().map_or("not usable".to_owned(), u32::to_string);
    let owner = if is_owned { "in use by a running boxoffice" } else { "not in use" };
    dependency.details = [
        ("version", json!(version)),
        ("schemaVersion", json!(schema_version.as_ref().ok())),
        ("neededSchemaVersion", json!(SCHEMA_VERSION)),
        ("journalMode", json!(journal_mode)),
        ("inUse", json!(is_owned)),
        (UNPUBLISHED, json!(unpublished)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect();
    dependency.facts = vec![
        ("version", version),
        ("schema", schema),
        ("journal", journal_mode.clone()),
        ("owner", owner.into()),
    ];
    // What is wrong with another program's database is not ours to mend.
    if let Err(error) = schema_version {
        dependency.problems.push(unusable(error, address));
    } else if journal_mode != "wal" {
        dependency.problems.push(Problem::new(
            format!("the journal mode is \"{journal_mode}\", so readers and the writer wait for each other"),
            format!("run `boxoffice migrate --database {address}`, which sets it to \"wal\""),
        ));
    }
    if !is_writable {
        dependency.problems.push(Problem::new(
            "the file may not be written",
            "give the user that runs boxoffice the right to write it, or use another file",
        ));
    }
}

fn unusable(error: OpenError, address: &str) -> Problem {
    let next_step = match &error {
        OpenError::Missing(_) => format!(
            "make it with `boxoffice migrate --database {address}` (`boxoffice serve` does so, too), or name \
             another with --database"
        ),
        OpenError::Outdated { .. } => format!("run `boxoffice migrate --database {address}`"),
        OpenError::TooNew { .. } => "install the boxoffice that brought the schema, or a newer one".to_owned(),
        OpenError::Foreign(_) => "name a file of boxoffice, or one that does not exist, with --database".to_owned(),
        OpenError::Owned(_) => "stop the boxoffice that runs, or use another file".to_owned(),
        OpenError::Io { .. } => "check the rights of the user that runs boxoffice, and the disk".to_owned(),
        OpenError::Unreachable { .. } => {
            "check that PostgreSQL runs there and lets this user in, and the host, port and name in --database"
                .to_owned()
        }
        OpenError::Unsupported { .. } => "move to PostgreSQL 14 or newer".to_owned(),
        OpenError::Migration(_) => format!("see why, and run `boxoffice migrate --database {address}` again"),
        OpenError::Sqlite(_) => {
            "check that it is a SQLite file which the user that runs boxoffice may read; or bring a backup back"
                .to_owned()
        }
    };
    let (Failure::Failed(what) | Failure::Unreachable(what)) = error.into();
    Problem { what, next_step }
}

/// SQLite keeps its log beside the file, so the folder must be writable, too.
fn folder_problem(path: &Path) -> Option<Problem> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // Nothing stays behind: the file never has a name, or loses it at once.
    let error = tempfile::tempfile_in(folder).err()?;
    Some(Problem::new(
        format!("nothing can be written in {}: {error}", folder.display()),
        "make the folder and give the user that runs boxoffice the right to write in it, or use another",
    ))
}
