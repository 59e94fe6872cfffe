//! Migrations: by several instances concurrently, failed half-way, and under a running program.

use testkit::{Exit, Load, PostgresServer, Setup, event_body, eventually};
use tokio::task::JoinSet;

use crate::{program, server};

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_migrations_of_one_database_succeed() {
    let database = PostgresServer::shared().await.create_database().await;
    let mut starting = JoinSet::new();
    for _ in 0..4 {
        starting.spawn(Setup::new(program()).on_postgres(&database).start());
    }
    let servers = starting.join_all().await;
    assert_eq!(servers.len(), 4);
    let twice = "SELECT count(*) - max(version) FROM boxoffice_schema";
    assert_eq!(database.query_number(twice).await, 0, "each version was applied once");
    // Other tests share the server, and a closed connection takes a moment to end.
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("no lock is left", async || (database.query_number(locks).await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_migration_is_rolled_back_and_can_be_run_again() {
    let database = PostgresServer::shared().await.create_database().await;
    let migrate = || async { program().run(["migrate", "--database", &database.url()]).await };
    // Conflicts with a statement in the middle of the script.
    database.execute("CREATE TABLE refunds (theirs text)").await;
    let failed = migrate().await;
    assert_eq!(failed.exit, Exit::Code(1), "{failed:?}");
    assert!(failed.stderr.contains("already exists"), "{failed:?}");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(database.query_number(tables).await, 1, "only the conflicting table");
    database.execute("DROP TABLE refunds").await;
    for _ in 0..2 {
        assert_eq!(migrate().await.exit, Exit::Code(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_retried_after_a_deadlock() {
    let database = PostgresServer::shared().await.create_database().await;
    program().run(["migrate", "--database", &database.url()]).await;
    let newest = database.query_number("SELECT max(version) FROM boxoffice_schema").await;
    let older = "ALTER TABLE ledger DROP COLUMN trace; DELETE FROM boxoffice_schema WHERE version >= 3";
    database.migrate(older).await;
    // The migration detects the deadlock, long before its wait for the table times out.
    let detect = format!("ALTER DATABASE {} SET deadlock_timeout = '50ms'", database.name());
    database.execute(&detect).await;
    let holder = database.connect().await;
    let pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[]).await.expect("a session").get(0);
    let hold = "SET deadlock_timeout = '1h'; BEGIN; LOCK TABLE ledger IN ACCESS SHARE MODE";
    holder.batch_execute(hold).await.expect("the table is locked");
    let server = Setup::new(program()).on_postgres(&database).spawn();
    let migrators = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("a migration has begun", async || (database.query_number(migrators).await == 1).then_some(()))
        .await;
    let deadlock =
        |line: &str| (line.contains("retrying a migration") && line.contains("(40P01)")).then_some(());
    tokio::select! {
        // The lock that a migration holds from its beginning to its end: "boxo".
        taken = holder.batch_execute("SELECT pg_advisory_lock(1651472495)") => panic!("{taken:?}"),
        found = server.stderr.find(deadlock) => found.expect("a deadlock"),
    }
    assert_eq!(database.query_number(&format!("SELECT pg_cancel_backend({pid})::int::bigint")).await, 1);
    let ready = |line: &str| line.contains(" ready address=").then_some(());
    server.stderr.find(ready).await.expect("a server on the newest schema");
    assert_eq!(database.query_number("SELECT max(version) FROM boxoffice_schema").await, newest);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_previous_version_works_with_a_newer_schema() {
    let server = server().await;
    let setup = server.setup();
    let event = server.admin().create_event(&event_body(1_000_000)).await;
    let mut load = Load::start(&server, std::slice::from_ref(&event), 4);
    load.wait_for_acknowledged(50).await;
    // Changes that a later version may make to tables while this version uses them.
    let version = "INSERT INTO boxoffice_schema SELECT max(version) + 1 FROM boxoffice_schema";
    let newer = "ALTER TABLE events ADD COLUMN note text; ALTER TABLE bookings ADD COLUMN seat text;
                 CREATE INDEX ON ledger (at)";
    setup.postgres().migrate(&format!("{newer}; {version}")).await;
    let acknowledged = load.acknowledged_count();
    load.wait_for_acknowledged(acknowledged + 50).await;
    let journal = load.stop().await;
    // At worst a request waited too long for a table on a busy machine.
    let codes = journal.codes();
    assert!(codes.iter().all(|code| *code == "unavailable"), "{codes:?}");
    // Also for an instance that starts now, without migrating.
    let second = setup.clone().argument("--no-migrate").start().await;
    journal.check(&mut second.admin()).await;
    second.expect_clean().await;
    setup.postgres().execute(version).await;
    let mut third = setup.spawn();
    assert_eq!(third.wait_for_exit().await, Exit::Code(1));
    assert!(third.stderr.tail().contains("use a newer boxoffice"), "{}", third.stderr.tail());
}

#[tokio::test]
async fn serve_can_skip_migrations() {
    let database = PostgresServer::shared().await.create_database().await;
    let mut refused = Setup::new(program()).on_postgres(&database).argument("--no-migrate").spawn();
    assert_eq!(refused.wait_for_exit().await, Exit::Code(1));
    assert!(refused.stderr.tail().contains("boxoffice migrate"), "{}", refused.stderr.tail());
    assert_eq!(database.query_number("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await, 0);
}
