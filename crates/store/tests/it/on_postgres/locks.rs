//! Locks of other sessions delay the commands that need the locked rows, and no others.

use std::sync::Arc;

use domain::{EventId, Timestamp};
use store::conformance::fixture::{Fixture, outcome_codes};
use store::{Consumer, Idempotency, Postgres, Store as _, Submission};
use testkit::{Database, PostgresServer, eventually, within_deadline};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::on_postgres::{PostgresHarness, literal, open};

/// Opens another session that takes a lock and stays idle in its transaction.
async fn lock(database: &Database, statement: &str) -> Client {
    let other_session = database.connect().await;
    other_session.batch_execute(&format!("BEGIN; {statement}")).await.expect("a lock");
    other_session
}

fn lock_event(event: EventId) -> String {
    format!("SELECT FROM events WHERE id = {} FOR UPDATE", literal(event.bytes()))
}

/// A command with an idempotency key.
fn with_key(command: domain::Command, key: &str) -> Submission {
    let serialize_response = Box::new(|_: &_, _| Some(b"response".to_vec()));
    let idempotency =
        Idempotency { scope: "s".to_owned(), key: key.to_owned(), fingerprint: [0; 32], serialize_response };
    Submission { command: Arc::new(command), idempotency: Some(Arc::new(idempotency)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_a_locked_event_delays_only_its_own_commands() {
    let harness = PostgresHarness::new(1).await;
    let fixture = Fixture::new(&harness);
    let (locked, free) =
        (fixture.create(fixture.new_event(99)).await.id, fixture.create(fixture.new_event(99)).await.id);
    let stored = fixture.store.execute(vec![with_key(fixture.book(locked, "k", 1), "k")]).await;
    assert_eq!(outcome_codes(&stored), ["stored"]);
    let batch = || {
        let orders = [(locked, "a"), (free, "b"), (locked, "c"), (free, "d")];
        let mut batch: Vec<Submission> =
            orders.into_iter().map(|(event, user)| fixture.book(event, user, 1).into()).collect();
        batch.push(with_key(fixture.book(locked, "k", 1), "k"));
        batch
    };
    let other_session = lock(&harness.database, &lock_event(locked)).await;
    // Replaying a stored response needs no lock.
    let replies = fixture.store.try_execute(batch()).await;
    assert_eq!(outcome_codes(&replies), ["busy", "ok", "busy", "ok", "replayed"]);
    let replies = fixture.store.execute(batch()).await;
    assert_eq!(outcome_codes(&replies), ["failed", "ok", "failed", "ok", "replayed"]);
    other_session.batch_execute("ROLLBACK").await.expect("a rollback");
    let replies = fixture.store.try_execute(batch()).await;
    assert_eq!(outcome_codes(&replies), ["ok", "ok", "ok", "ok", "replayed"]);
    let held =
        async |event| fixture.store.event(event).await.expect("a read").expect("an event").inventory.held;
    assert_eq!((held(locked).await, held(free).await), (3, 6), "every command is executed exactly once");
    fixture.assert_audit_clean().await;
}

/// A batch waits for a lock that is released in time.
#[tokio::test(flavor = "multi_thread")]
async fn r4_a_lock_released_in_time_is_awaited() {
    let harness = PostgresHarness::new(1).await;
    let fixture = Fixture::new(&harness);
    let event = fixture.create(fixture.new_event(9)).await.id;
    let other_session = lock(&harness.database, &lock_event(event)).await;
    let (store, order) = (fixture.store.clone(), fixture.book(event, "a", 1));
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { store.execute(vec![order.into()]).await });
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the batch waits", async || (harness.database.query_number(waits).await > 0).then_some(()))
        .await;
    other_session.batch_execute("ROLLBACK").await.expect("a rollback");
    assert_eq!(outcome_codes(&waiting.join_next().await.expect("a task").expect("replies")), ["ok"]);
}

/// Locks on other rows than events: the commands that need them are found by splitting the batch.
#[tokio::test(flavor = "multi_thread")]
async fn r4_a_locked_row_delays_only_commands_that_need_it() {
    let harness = PostgresHarness::new(1).await;
    let fixture = Fixture::new(&harness);
    let (event, free) =
        (fixture.create(fixture.new_event(99)).await.id, fixture.create(fixture.new_event(99)).await.id);
    let held = fixture.hold(event, &[("a", 1), ("b", 1)]).await;
    let row = format!("SELECT FROM bookings WHERE id = {} FOR UPDATE", literal(held[0].id.bytes()));
    let other_session = lock(&harness.database, &row).await;
    let batch = || {
        let commands = [
            fixture.cancel(&held[0]),
            fixture.book(event, "c", 1),
            fixture.book(free, "d", 1),
            fixture.book(event, "e", 1),
        ];
        commands.map(Submission::from).to_vec()
    };
    let replies = fixture.store.try_execute(batch()).await;
    assert_eq!(
        outcome_codes(&replies),
        ["busy", "busy", "ok", "busy"],
        "short waits do not split the commands of an event"
    );
    let replies = fixture.store.execute(batch()).await;
    assert_eq!(outcome_codes(&replies), ["failed", "ok", "ok", "ok"]);
    other_session.batch_execute("ROLLBACK").await.expect("a rollback");
    assert_eq!(outcome_codes(&fixture.store.execute(batch()).await), ["ok"; 4]);
    fixture.assert_audit_clean().await;
}

/// A locked table is an outage for all commands: each fails in time, and they succeed again afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn r4_a_locked_table_is_an_outage_that_ends_with_the_lock() {
    let harness = PostgresHarness::new(1).await;
    let fixture = Fixture::new(&harness);
    let events =
        [fixture.create(fixture.new_event(9)).await.id, fixture.create(fixture.new_event(9)).await.id];
    let batch = || events.map(|event| Submission::from(fixture.book(event, "a", 1))).to_vec();
    for table in ["events", "ledger"] {
        let other_session = lock(&harness.database, &format!("LOCK TABLE {table} IN SHARE MODE")).await;
        assert_eq!(outcome_codes(&fixture.store.try_execute(batch()).await), ["busy"; 2], "{table}");
        let replies = within_deadline("a reply", fixture.store.execute(batch())).await;
        assert_eq!(outcome_codes(&replies), ["failed"; 2], "{table}");
        other_session.batch_execute("ROLLBACK").await.expect("a rollback");
        assert_eq!(outcome_codes(&fixture.store.try_execute(batch()).await), ["ok"; 2], "{table}");
    }
    fixture.assert_audit_clean().await;
}

/// Chores continue while the standby is down, because their writes are not acknowledged to a client.
#[tokio::test(flavor = "multi_thread")]
async fn r1_chore_writes_do_not_wait_for_standbys() {
    let cluster = PostgresServer::with(&["fsync=off"]).await;
    let database = cluster.create_database().await;
    let store: Arc<Postgres> = open(&database).await;
    let harness = PostgresHarness { database: database.clone(), store: store.clone() };
    let fixture = Fixture::new(&harness);
    let event = fixture.create(fixture.new_event(9)).await.id;
    let stored = store.execute(vec![with_key(fixture.book(event, "k", 1), "k")]).await;
    assert_eq!(outcome_codes(&stored), ["stored"]);
    cluster.set("synchronous_standby_names", "absent").await;
    let later = Timestamp::from_micros(4_000_000_000_000_000).expect("an instant");
    assert_eq!(store.prune_keys(later, 9).await.expect("no wait for the standby"), 1);
    store.save_cursors(&Consumer::relay(later), vec![(event, 1)]).await.expect("no wait for the standby");
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    assert_eq!(database.query_number(waiting).await, 0);
}

/// A reply never acknowledges a change that a failover may take back: a success that was committed before is
/// returned only once the standby has everything. Plain refusals are returned at once.
#[tokio::test(flavor = "multi_thread")]
async fn r1_replayed_successes_wait_for_the_standby() {
    let cluster = PostgresServer::with(&["fsync=off"]).await;
    let database = cluster.create_database().await;
    let store: Arc<Postgres> = open(&database).await;
    let harness = PostgresHarness { database: database.clone(), store: store.clone() };
    let fixture = Fixture::new(&harness);
    let event = fixture.create(fixture.new_event(1)).await.id;
    let held = fixture.hold(event, &[("a", 1)]).await;
    fixture.run_ok(fixture.confirm(&held[0], "t")).await;
    cluster.set("synchronous_standby_names", "absent").await;
    assert_eq!(outcome_codes(&store.execute(vec![fixture.book(event, "b", 1).into()]).await), ["sold_out"]);
    let again = || vec![Submission::from(fixture.confirm(&held[0], "t"))];
    assert_eq!(outcome_codes(&store.execute(again()).await), ["failed"]);
    // No batch begins before the confirmation has ended.
    assert_eq!(outcome_codes(&store.execute(vec![fixture.book(event, "b", 1).into()]).await), ["failed"]);
    let health = store.health().await;
    assert!(
        health.is_err() || health.is_ok_and(|health| health.warnings.len() == 1),
        "health reports the standby"
    );
    cluster.set("synchronous_standby_names", "''").await;
    eventually("the confirmation ends", async || {
        (outcome_codes(&store.execute(again()).await) == ["ok"]).then_some(())
    })
    .await;
    assert_eq!(store.health().await.expect("health").warnings, Vec::<String>::new());
}
