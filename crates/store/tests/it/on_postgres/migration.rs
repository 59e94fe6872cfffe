//! Index builds during sales.

use store::conformance::fixture::Fixture;
use testkit::eventually;
use tokio::task::JoinSet;

use super::{PostgresHarness, open};

/// Reverts the migration that builds indexes on tables of any size; the later ones can be repeated.
const REVERT: &str =
    "DROP INDEX bookings_due, bookings_by_event, bookings_by_status, event_details_cancelled;
    DELETE FROM boxoffice_schema WHERE version >= 4";

/// Counts the valid indexes of that migration.
const COUNT_VALID: &str =
    "SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid IN ('bookings_due'::regclass,
    'bookings_by_event'::regclass, 'bookings_by_status'::regclass, 'event_details_cancelled'::regclass)";

const NEWEST: &str = "SELECT max(version) FROM boxoffice_schema";

#[tokio::test(flavor = "multi_thread")]
async fn r3_indexes_are_built_during_sales() {
    let harness = PostgresHarness::new(1).await;
    let fixture = Fixture::new(&harness);
    let event = fixture.create(fixture.new_event(100)).await.id;
    let held = fixture.hold(event, &[("a", 1), ("b", 1)]).await;
    let newest = harness.database.query_number(NEWEST).await;
    harness.database.connect().await.batch_execute(REVERT).await.expect("the indexes are dropped");
    // A slow transaction that began earlier: the build waits for it, and no other session waits for the
    // build.
    let slow = harness.database.connect().await;
    slow.batch_execute(
        "BEGIN; UPDATE bookings SET payment_method = 'x' WHERE false; SELECT pg_current_xact_id()",
    )
    .await
    .expect("a transaction");
    slow.execute("LOCK TABLE bookings IN ROW EXCLUSIVE MODE", &[]).await.expect("a table lock");
    let database = harness.database.clone();
    let mut migrators = JoinSet::new();
    // Two instances start concurrently: one builds the indexes, and the other waits for the build.
    for _ in 0..2 {
        let database = database.clone();
        migrators.spawn(async move { drop(open(&database).await) });
    }
    let building = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%'
                    AND datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the build waits", async || {
        (harness.database.query_number(building).await == 1).then_some(())
    })
    .await;
    for round in 0..3 {
        assert_eq!(fixture.outcome_codes(vec![fixture.book(event, "c", 1)]).await, ["ok"], "{round}");
    }
    fixture.run_ok(fixture.confirm(&held[0], "t")).await;
    assert_eq!(harness.database.query_number(building).await, 1, "the build still waits");
    slow.batch_execute("COMMIT").await.expect("a commit");
    assert_eq!(migrators.join_all().await.len(), 2);
    assert_eq!(harness.database.query_number(COUNT_VALID).await, 4);
    assert_eq!(harness.database.query_number(NEWEST).await, newest);
    fixture.assert_audit_clean().await;
}

/// An interrupted build leaves an invalid index, which is updated but never read.
#[tokio::test(flavor = "multi_thread")]
async fn r3_an_index_of_an_interrupted_build_is_built_again() {
    let harness = PostgresHarness::new(1).await;
    let client = harness.database.connect().await;
    let newest = harness.database.query_number(NEWEST).await;
    client
        .batch_execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'bookings_due'::regclass;
             DROP INDEX bookings_by_status; DELETE FROM boxoffice_schema WHERE version >= 4",
        )
        .await
        .expect("the state of an interrupted build");
    let before = harness.database.query_number("SELECT 'bookings_due'::regclass::oid::bigint").await;
    drop(open(&harness.database).await);
    assert_eq!(harness.database.query_number(COUNT_VALID).await, 4);
    assert_ne!(harness.database.query_number("SELECT 'bookings_due'::regclass::oid::bigint").await, before);
    assert_eq!(harness.database.query_number(NEWEST).await, newest);
}
