//! The checks of `boxoffice doctor` for the database.

use std::path::Path;

use domain::{Clock as _, Timestamp};
use engine::SystemClock;
use serde_json::{Map, json};
use store::{Inspection, OpenError, PostgresInspection, PostgresUrl, SCHEMA_VERSION, Standbys};
use tokio::time::Instant;

use super::report::{DependencyReport, Problem, UNPUBLISHED, millis};
use crate::cli::Failure;
use crate::limit::CLOCK_DIFFERENCE_SECONDS_MAX;

/// Checks a PostgreSQL server. Changes nothing.
pub(super) async fn postgres(url: &PostgresUrl) -> DependencyReport {
    let inspection = store::inspect_postgres(url).await;
    let address = url.to_string();
    let mut dependency = DependencyReport {
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

fn describe_postgres(found: PostgresInspection, address: &str, dependency: &mut DependencyReport) {
    let role = if found.is_primary { "primary" } else { "standby" };
    let schema = found.schema_version.as_ref().map_or("unusable".to_owned(), u32::to_string);
    let standbys = &found.standbys;
    let replication = match (standbys.setting.as_str(), standbys.are_visible) {
        ("", _) => "synchronous: none".to_owned(),
        (names, true) => format!("synchronous: {names}; {} connected", standbys.connected),
        (names, false) => format!(
            "synchronous: {names}; {} connected; this user cannot see if they keep up (GRANT pg_monitor)",
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
        (
            "commit",
            format!("always waits for the disk; default of other programs: {}", found.synchronous_commit),
        ),
        ("standbys", replication),
        ("connections", format!("at most {}", found.max_connections)),
    ];
    if let Some(now) = found.now {
        dependency.problems.extend(clock_problem(now, found.last_at));
        dependency.problems.extend(clocks_problem(now, SystemClock.now()));
    }
    if !found.is_primary {
        dependency.problems.push(Problem::new(
            "the server is a standby and does not accept writes",
            "use the address of the primary in --database, or list several hosts: postgres://…@one,two/…",
        ));
    }
    dependency.problems.extend(standby_problems(standbys));
    if let Err(error) = found.schema_version {
        dependency.problems.push(unusable(error, address));
    }
    for (name, value) in [("fsync", found.fsync), ("full_page_writes", found.full_page_writes)] {
        if value != "on" {
            dependency.problems.push(Problem::new(
                format!("{name} is {value}: a power cut can lose or corrupt acknowledged changes"),
                format!("set {name} = on in postgresql.conf and reload the server"),
            ));
        }
    }
}

/// Returns the problems with synchronous standbys.
fn standby_problems(standbys: &Standbys) -> Vec<Problem> {
    let reasons = [
        (standbys.stall_reason(), "until one responds, no change is acknowledged"),
        (standbys.degraded_reason(), "while too few are connected, no change is acknowledged"),
    ];
    let fix = "start the standby, fix its connection, or remove it from synchronous_standby_names";
    let problem =
        |(reason, effect): (Option<String>, &str)| Some(Problem::new(reason?, format!("{fix}; {effect}")));
    reasons.into_iter().filter_map(problem).collect()
}

/// Returns a problem if the clock that decides deadlines, `now`, is behind the latest ledger entry.
fn clock_problem(now: Timestamp, last_at: Option<Timestamp>) -> Option<Problem> {
    let ahead = now.seconds_until(last_at?);
    (ahead > CLOCK_DIFFERENCE_SECONDS_MAX).then(|| {
        Problem::new(
            format!(
                "the latest ledger entry is dated {ahead} s in the future: the clock was ahead when it was \
                 written, or is behind now"
            ),
            "check the clock and NTP; entries keep their dates, and no deadline depends on them",
        )
    })
}

/// Returns a problem if the clocks of the database and of this machine differ.
fn clocks_problem(database: Timestamp, machine: Timestamp) -> Option<Problem> {
    let difference = database.seconds_until(machine).max(machine.seconds_until(database));
    (difference > CLOCK_DIFFERENCE_SECONDS_MAX).then(|| {
        Problem::new(
            format!("the clocks of the database and of this machine differ by {difference} s"),
            "synchronize both with NTP: deadlines use the database's clock, tokens and ids this machine's",
        )
    })
}

/// Checks the database file. Changes nothing, and waits for no lock.
pub(super) fn sqlite(path: &Path) -> DependencyReport {
    let began = Instant::now();
    let inspection = store::inspect(path);
    let round_trip = inspection.is_ok().then(|| began.elapsed());
    let address = format!("sqlite://{}", path.display());
    let mut dependency = DependencyReport {
        name: "database",
        address: address.clone(),
        round_trip,
        facts: Vec::new(),
        details: Map::new(),
        problems: Vec::new(),
    };
    match inspection {
        Ok(inspection) => describe_sqlite(inspection, &address, &mut dependency),
        Err(error) => dependency.problems.push(unusable(error, &address)),
    }
    dependency.problems.extend(directory_problem(path));
    dependency
}

fn describe_sqlite(inspection: Inspection, address: &str, dependency: &mut DependencyReport) {
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
    let schema = schema_version.as_ref().map_or("unusable".to_owned(), u32::to_string);
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
    // The journal mode of another program's database is not checked.
    if let Err(error) = schema_version {
        dependency.problems.push(unusable(error, address));
    } else if journal_mode != "wal" {
        dependency.problems.push(Problem::new(
            format!("the journal mode is \"{journal_mode}\", so readers and the writer block each other"),
            format!("run `boxoffice migrate --database {address}`, which sets it to \"wal\""),
        ));
    }
    if !is_writable {
        dependency.problems.push(Problem::new(
            "the file is not writable",
            "make it writable by the user that runs boxoffice, or use another file",
        ));
    }
}

fn unusable(error: OpenError, address: &str) -> Problem {
    let next_step = match &error {
        OpenError::Missing(_) => format!(
            "create it with `boxoffice migrate --database {address}` (`boxoffice serve` also does), or \
             choose another one with --database"
        ),
        OpenError::Outdated { .. } => format!("run `boxoffice migrate --database {address}`"),
        OpenError::TooNew { .. } => {
            "install the boxoffice that migrated the schema, or a newer one".to_owned()
        }
        OpenError::Foreign(_) => "use a boxoffice file or a new file in --database".to_owned(),
        OpenError::Owned(_) => "stop the other boxoffice, or use another file".to_owned(),
        OpenError::Io { .. } => {
            "check the disk, and the permissions of the user that runs boxoffice".to_owned()
        }
        OpenError::Unreachable { .. } => {
            "check that PostgreSQL is running and accepts this user; check host, port and name in --database"
                .to_owned()
        }
        OpenError::Unsupported { .. } => "upgrade to PostgreSQL 14 or newer".to_owned(),
        OpenError::Migration(_) => {
            format!("fix the cause, then rerun `boxoffice migrate --database {address}`")
        }
        OpenError::Sqlite(_) => {
            "check that it is a SQLite file which the user that runs boxoffice can read, or restore a backup"
                .to_owned()
        }
    };
    let (Failure::Failed(problem) | Failure::Unreachable(problem)) = error.into();
    Problem::new(problem, next_step)
}

/// Returns a problem if the directory is not writable: SQLite keeps the WAL next to the file.
fn directory_problem(path: &Path) -> Option<Problem> {
    let directory = match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    // No file remains: it never has a name, or loses it at once.
    let error = tempfile::tempfile_in(directory).err()?;
    Some(Problem::new(
        format!("the directory {} is not writable: {error}", directory.display()),
        "create the directory and make it writable by the user that runs boxoffice, or use another one",
    ))
}
