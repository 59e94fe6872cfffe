//! Migration of a database's schema, safe against concurrent migrators.

use std::borrow::Cow;

use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::session::{backoff_delay, describe};

use crate::limit::{
    INDEX_BUILD_WAIT_MAX, INDEX_BUILDS_MAX, MIGRATOR_POLL_INTERVAL, MIGRATOR_WAIT_MAX, SCRIPT_TRIES_MAX,
    TABLE_LOCK_WAIT_MAX,
};

/// The advisory lock that a migrator holds: "boxo".
const MIGRATION_LOCK: i64 = 0x626f_786f;

/// The schema version of a database: 0 if it has no boxoffice schema.
pub(super) async fn version(client: &Client) -> Result<u32, Error> {
    let exists = client.query_one("SELECT to_regclass('boxoffice_schema') IS NOT NULL", &[]).await?;
    if !exists.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let newest = client.query_one("SELECT coalesce(max(version), 0) FROM boxoffice_schema", &[]).await?;
    Ok(u32::try_from(newest.try_get::<_, i64>(0)?).unwrap_or(u32::MAX))
}

/// Runs the missing scripts. Each can be interrupted at any point and run again: it runs in one transaction
/// together with the insertion of its version. If it builds indexes concurrently, these statements run one by
/// one after a transaction with the others, which must be repeatable.
/// The connection must be used for nothing else and then be closed: the advisory lock lasts as long as it
/// does.
pub(super) async fn migrate(client: &Client) -> Result<(), Error> {
    take_migration_lock(client).await?;
    let wait = INDEX_BUILD_WAIT_MAX.as_millis();
    client.batch_execute(&format!("SET lock_timeout = {wait}; SET statement_timeout = 0")).await?;
    let found = version(client).await?;
    for (number, script) in (1..).zip(crate::schema::POSTGRES) {
        let script = without_removed_guards(script);
        match script.contains(CONCURRENTLY) {
            _ if number <= found => (),
            // The tables are new and unused.
            true if found == 0 => run(client, number, &script.replace(CONCURRENTLY, "INDEX")).await?,
            true => build(client, number, &script).await?,
            false => run(client, number, &script).await?,
        }
    }
    Ok(())
}

/// A part of each statement that cannot run in a transaction.
const CONCURRENTLY: &str = "INDEX CONCURRENTLY";

/// Takes the advisory lock by polling: a statement that waited for the lock would hold a snapshot, and the
/// concurrent index build of the lock's owner would wait for that snapshot.
async fn take_migration_lock(client: &Client) -> Result<(), Error> {
    let deadline = Instant::now() + MIGRATOR_WAIT_MAX;
    while !client.query_one("SELECT pg_try_advisory_lock($1)", &[&MIGRATION_LOCK]).await?.try_get(0)? {
        if Instant::now() >= deadline {
            // Fails with the server's error.
            client.batch_execute("SET lock_timeout = 1").await?;
            return client.query_one("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await.map(drop);
        }
        sleep(MIGRATOR_POLL_INTERVAL).await;
    }
    Ok(())
}

/// Runs a script that builds indexes concurrently, and inserts its version once all are valid.
async fn build(client: &Client, number: u32, script: &str) -> Result<(), Error> {
    let lines: Vec<&str> = script.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let script = lines.join("\n");
    let statements = script.split(';').map(str::trim).filter(|statement| !statement.is_empty());
    let (indexes, others): (Vec<&str>, Vec<&str>) =
        statements.partition(|statement| statement.contains(CONCURRENTLY));
    if !others.is_empty() {
        run_transaction(client, number, &others.join(";\n")).await?;
    }
    let mut tries = 1;
    while let Err(error) = build_once(client, &indexes).await {
        if !is_lock_conflict(&error) || tries == INDEX_BUILDS_MAX {
            return Err(error);
        }
        tracing::warn!(version = number, error = %describe(&error), "retrying an index build");
        tries += 1;
    }
    let insert = "INSERT INTO boxoffice_schema (version) VALUES ($1)";
    client.execute(insert, &[&i64::from(number)]).await.map(drop)
}

async fn build_once(client: &Client, indexes: &[&str]) -> Result<(), Error> {
    // An interrupted attempt leaves an invalid index.
    let invalid = "SELECT quote_ident(c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                   WHERE NOT i.indisvalid AND pg_table_is_visible(i.indrelid)";
    for row in client.query(invalid, &[]).await? {
        let name: &str = row.try_get(0)?;
        if indexes.iter().any(|statement| statement.contains(&format!(" {name} "))) {
            client.batch_execute(&format!("DROP INDEX CONCURRENTLY {name}")).await?;
        }
    }
    for statement in indexes {
        client.batch_execute(statement).await?;
    }
    Ok(())
}

/// Runs a script and inserts its version, in one transaction.
async fn run(client: &Client, number: u32, script: &str) -> Result<(), Error> {
    let script = format!(
        "CREATE TABLE IF NOT EXISTS boxoffice_schema
             (version bigint PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());
         {script};
         INSERT INTO boxoffice_schema (version) VALUES ({number})"
    );
    run_transaction(client, number, &script).await
}

/// Runs statements of a script in one transaction, and retries it if other sessions use its tables.
async fn run_transaction(client: &Client, number: u32, statements: &str) -> Result<(), Error> {
    let lock_timeout = TABLE_LOCK_WAIT_MAX.as_millis();
    let transaction = format!("BEGIN; SET LOCAL lock_timeout = {lock_timeout}; {statements}; COMMIT");
    let mut tries = 1;
    loop {
        match client.batch_execute(&transaction).await {
            Err(error) if is_lock_conflict(&error) && tries < SCRIPT_TRIES_MAX => {
                tracing::warn!(version = number, error = %describe(&error), "retrying a migration");
                client.batch_execute("ROLLBACK").await?;
                sleep(backoff_delay(tries)).await;
                tries += 1;
            }
            done => return done,
        }
    }
}

/// True if a script failed only because other sessions use its tables.
fn is_lock_conflict(error: &Error) -> bool {
    let conflicts = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
    error.code().is_some_and(|code| conflicts.contains(code))
}

#[cfg(not(feature = "sabotage"))]
fn without_removed_guards(script: &str) -> Cow<'_, str> {
    Cow::Borrowed(script)
}

/// The script, without the capacity constraints if a test has removed that guard.
#[cfg(feature = "sabotage")]
fn without_removed_guards(script: &str) -> Cow<'_, str> {
    use domain::sabotage::{Guard, removed};
    if removed(Guard::CapacityCheck) {
        Cow::Owned(script.replace("held + sold <= capacity", "true"))
    } else {
        Cow::Borrowed(script)
    }
}
