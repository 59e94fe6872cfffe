//! Bringing a database's schema up to date, whoever else does the same at the same time.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::session::{describe, pause};
use crate::sqlite::SCHEMA_VERSION;

/// One script per schema version, from 1. Forward only; a script that has shipped never changes.
const MIGRATIONS: [&str; 3] = [
    include_str!("../../migrations/postgres/0001_tickets.sql"),
    include_str!("../../migrations/postgres/0002_published.sql"),
    include_str!("../../migrations/postgres/0003_trace.sql"),
];

const _: () =
    assert!(MIGRATIONS.len() == SCHEMA_VERSION as usize, "both databases count their versions alike");

/// Whoever migrates holds this advisory lock: "boxo".
const MIGRATION_LOCK: i64 = 0x626f_786f;
/// Longest wait for another migrator.
const OTHER_MIGRATOR_MAX: Duration = Duration::from_mins(1);
/// Longest wait of a script for a table: meanwhile everybody who wants it waits behind the script. Shorter than
/// `deadlock_timeout` (1 s by default): in a deadlock with a batch it is the script that fails.
const TABLE_WAIT_MAX: Duration = Duration::from_millis(500);
/// How often a script is tried that did not get its tables: for about 12 s, pauses included.
const TRIES_MAX: u32 = 10;

/// The schema version of a database: 0 where there is none of ours.
pub(super) async fn version(client: &Client) -> Result<u32, Error> {
    let exists = client.query_one("SELECT to_regclass('boxoffice_schema') IS NOT NULL", &[]).await?;
    if !exists.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let newest = client.query_one("SELECT coalesce(max(version), 0) FROM boxoffice_schema", &[]).await?;
    Ok(u32::try_from(newest.try_get::<_, i64>(0)?).unwrap_or(u32::MAX))
}

/// Runs the scripts that are missing, each in its own transaction together with its number, so that it can
/// be interrupted anywhere and run again. The connection must be used for nothing else and then be closed:
/// the lock lasts as long as it does.
pub(super) async fn migrate(client: &Client) -> Result<(), Error> {
    client.batch_execute(&format!("SET lock_timeout = {}", OTHER_MIGRATOR_MAX.as_millis())).await?;
    client.query_one("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await?;
    let found = version(client).await?;
    for (number, script) in (1..).zip(MIGRATIONS) {
        if found < number {
            run(client, number, &guarded(script)).await?;
        }
    }
    Ok(())
}

async fn run(client: &Client, number: u32, script: &str) -> Result<(), Error> {
    let transaction = format!(
        "BEGIN; SET LOCAL lock_timeout = {};
         CREATE TABLE IF NOT EXISTS boxoffice_schema
             (version bigint PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());
         {script};
         INSERT INTO boxoffice_schema (version) VALUES ({number}); COMMIT",
        TABLE_WAIT_MAX.as_millis()
    );
    let mut tries = 1;
    loop {
        match client.batch_execute(&transaction).await {
            Err(error) if is_lock_conflict(&error) && tries < TRIES_MAX => {
                tracing::warn!(version = number, error = %describe(&error), "a migration is tried again");
                client.batch_execute("ROLLBACK").await?;
                sleep(pause(tries)).await;
                tries += 1;
            }
            done => return done,
        }
    }
}

/// Whether a script failed only because others use its tables.
fn is_lock_conflict(error: &Error) -> bool {
    let conflicts = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
    error.code().is_some_and(|code| conflicts.contains(code))
}

#[cfg(not(feature = "sabotage"))]
fn guarded(script: &str) -> Cow<'_, str> {
    Cow::Borrowed(script)
}

/// Tests take the capacity constraints away to show that they notice.
#[cfg(feature = "sabotage")]
fn guarded(script: &str) -> Cow<'_, str> {
    use domain::sabotage::{Guard, removed};
    if removed(Guard::CapacityCheck) {
        Cow::Owned(script.replace("held + sold <= capacity", "true"))
    } else {
        Cow::Borrowed(script)
    }
}
