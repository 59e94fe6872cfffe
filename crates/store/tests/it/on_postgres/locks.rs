//! What others lock in the database holds up the commands that need it, and no other.

use std::sync::Arc;

use domain::{EventId, Timestamp};
use store::conformance::stage::{Stage, words};
use store::{Keep, Postgres, Store as _, Submission};
use testkit::{Cluster, Database, eventually, within_deadline};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::on_postgres::{PostgresRig, literal, open};

/// A session of somebody else that has locked something; it stays idle in its transaction.
async fn lock(database: &Database, statement: &str) -> Client {
    let stranger = database.connect().await;
    stranger.batch_execute(&format!("BEGIN; {statement}")).await.expect("a lock");
    stranger
}

fn lock_event(event: EventId) -> String {
    format!("SELECT FROM events WHERE id = {} FOR UPDATE", literal(event.bytes()))
}

/// A command whose answer is kept.
fn under_key(command: domain::Command, key: &str) -> Submission {
    let render = Box::new(|_: &_, _| Some(b"made".to_vec()));
    let keep = Keep { scope: "s".to_owned(), key: key.to_owned(), fingerprint: [0; 32], render };
    Submission { command: Arc::new(command), keep: Some(Arc::new(keep)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_a_locked_event_holds_up_its_own_commands_only() {
    let rig = PostgresRig::new(1).await;
    let stage = Stage::new(&rig);
    let (locked, free) = (stage.create(stage.concert(99)).await.id, stage.create(stage.concert(99)).await.id);
    let kept = stage.store.execute(vec![under_key(stage.book(locked, "k", 1), "k")]).await;
    assert_eq!(words(&kept), ["kept"]);
    let batch = || {
        let orders = [(locked, "a"), (free, "b"), (locked, "c"), (free, "d")];
        let mut batch: Vec<Submission> =
            orders.into_iter().map(|(event, user)| stage.book(event, user, 1).into()).collect();
        batch.push(under_key(stage.book(locked, "k", 1), "k"));
        batch
    };
    let stranger = lock(&rig.database, &lock_event(locked)).await;
    // What was answered before needs no lock.
    let replies = stage.store.try_execute(batch()).await;
    assert_eq!(words(&replies), ["busy", "ok", "busy", "ok", "replayed"]);
    let replies = stage.store.execute(batch()).await;
    assert_eq!(words(&replies), ["failed", "ok", "failed", "ok", "replayed"]);
    stranger.batch_execute("ROLLBACK").await.expect("the end of it");
    let replies = stage.store.try_execute(batch()).await;
    assert_eq!(words(&replies), ["ok", "ok", "ok", "ok", "replayed"]);
    let held = async |event| stage.store.event(event).await.expect("a read").expect("an event").stock.held;
    assert_eq!((held(locked).await, held(free).await), (3, 6), "nothing is lost or doubled");
    stage.clean().await;
}

/// One that is let go in time is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn r4_a_lock_that_is_let_go_in_time_is_waited_for() {
    let rig = PostgresRig::new(1).await;
    let stage = Stage::new(&rig);
    let event = stage.create(stage.concert(9)).await.id;
    let stranger = lock(&rig.database, &lock_event(event)).await;
    let (store, order) = (stage.store.clone(), stage.book(event, "a", 1));
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { store.execute(vec![order.into()]).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("it waits", async || (rig.database.number(waits).await > 0).then_some(())).await;
    stranger.batch_execute("ROLLBACK").await.expect("the end of it");
    assert_eq!(words(&waiting.join_next().await.expect("it was asked").expect("replies")), ["ok"]);
}

/// Rows below an event: who needs them is found by trying.
#[tokio::test(flavor = "multi_thread")]
async fn r4_a_locked_row_of_any_table_holds_up_who_needs_it_only() {
    let rig = PostgresRig::new(1).await;
    let stage = Stage::new(&rig);
    let (event, free) = (stage.create(stage.concert(99)).await.id, stage.create(stage.concert(99)).await.id);
    let held = stage.hold(event, &[("a", 1), ("b", 1)]).await;
    let row = format!("SELECT FROM bookings WHERE id = {} FOR UPDATE", literal(held[0].id.bytes()));
    let stranger = lock(&rig.database, &row).await;
    let batch = || {
        let commands = [
            stage.cancel(&held[0]),
            stage.book(event, "c", 1),
            stage.book(free, "d", 1),
            stage.book(event, "e", 1),
        ];
        commands.map(Submission::from).to_vec()
    };
    let replies = stage.store.try_execute(batch()).await;
    assert_eq!(words(&replies), ["busy", "busy", "ok", "busy"], "an event is not sorted out here");
    let replies = stage.store.execute(batch()).await;
    assert_eq!(words(&replies), ["failed", "ok", "ok", "ok"]);
    stranger.batch_execute("ROLLBACK").await.expect("the end of it");
    assert_eq!(words(&stage.store.execute(batch()).await), ["ok"; 4]);
    stage.clean().await;
}

/// A table that is locked is everybody's outage: each is answered in time, and served again afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn r4_a_locked_table_is_an_outage_that_ends_with_the_lock() {
    let rig = PostgresRig::new(1).await;
    let stage = Stage::new(&rig);
    let events = [stage.create(stage.concert(9)).await.id, stage.create(stage.concert(9)).await.id];
    let batch = || events.map(|event| Submission::from(stage.book(event, "a", 1))).to_vec();
    for table in ["events", "ledger"] {
        let stranger = lock(&rig.database, &format!("LOCK TABLE {table} IN SHARE MODE")).await;
        assert_eq!(words(&stage.store.try_execute(batch()).await), ["busy"; 2], "{table}");
        let replies = within_deadline("an answer", stage.store.execute(batch())).await;
        assert_eq!(words(&replies), ["failed"; 2], "{table}");
        stranger.batch_execute("ROLLBACK").await.expect("the end of it");
        assert_eq!(words(&stage.store.try_execute(batch()).await), ["ok"; 2], "{table}");
    }
    stage.clean().await;
}

/// With a standby that is away chores go on: what they note is acknowledged to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn r1_what_chores_note_waits_for_no_standby() {
    let cluster = Cluster::with(&["fsync=off"]).await;
    let database = cluster.database().await;
    let store: Arc<Postgres> = open(&database).await;
    let rig = PostgresRig { database: database.clone(), store: store.clone() };
    let stage = Stage::new(&rig);
    let event = stage.create(stage.concert(9)).await.id;
    let kept = store.execute(vec![under_key(stage.book(event, "k", 1), "k")]).await;
    assert_eq!(words(&kept), ["kept"]);
    cluster.set("synchronous_standby_names", "nobody").await;
    let later = Timestamp::from_micros(4_000_000_000_000_000).expect("an instant");
    assert_eq!(store.prune_keys(later, 9).await.expect("nobody is waited for"), 1);
    store.advance(later, vec![(event, 1)]).await.expect("nobody is waited for");
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    assert_eq!(database.number(waiting).await, 0);
}

/// A read says nothing that a failover takes back: a success under a key, and one that was made before, come only once
/// the standby has everything; what merely says no comes at once.
#[tokio::test(flavor = "multi_thread")]
async fn r1_what_was_done_before_is_acknowledged_once_the_standby_has_it() {
    let cluster = Cluster::with(&["fsync=off"]).await;
    let database = cluster.database().await;
    let store: Arc<Postgres> = open(&database).await;
    let rig = PostgresRig { database: database.clone(), store: store.clone() };
    let stage = Stage::new(&rig);
    let event = stage.create(stage.concert(1)).await.id;
    let held = stage.hold(event, &[("a", 1)]).await;
    stage.done(stage.confirm(&held[0], "t")).await;
    cluster.set("synchronous_standby_names", "nobody").await;
    assert_eq!(words(&store.execute(vec![stage.book(event, "b", 1).into()]).await), ["sold_out"]);
    let again = || vec![Submission::from(stage.confirm(&held[0], "t"))];
    assert_eq!(words(&store.execute(again()).await), ["failed"]);
    // Nothing is begun before that is settled.
    assert_eq!(words(&store.execute(vec![stage.book(event, "b", 1).into()]).await), ["failed"]);
    let health = store.health().await;
    assert!(health.is_err() || health.is_ok_and(|health| health.warnings.len() == 1), "it says so");
    cluster.set("synchronous_standby_names", "''").await;
    eventually("it is settled", async || (words(&store.execute(again()).await) == ["ok"]).then_some(()))
        .await;
    assert_eq!(store.health().await.expect("health").warnings, Vec::<String>::new());
}
