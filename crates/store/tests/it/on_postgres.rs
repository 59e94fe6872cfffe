//! The suite on PostgreSQL: one instance, and three that share a database.

mod locks;
mod migration;
mod money;
mod round_trips;
mod trust;
mod work;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use async_trait::async_trait;
use domain::{Action, EventId};
use store::conformance::Rig;
use store::conformance::stage::{Stage, command, words};
use store::{Keep, Postgres, Store, Submission};
use testkit::{Cluster, Database};
use tokio::task::JoinSet;

use crate::failures;
use crate::shared::Several;

/// An id in SQL.
pub(crate) fn literal(id: &[u8; 16]) -> String {
    format!("'{:032x}'::uuid", u128::from_be_bytes(*id))
}

/// Opens a database and brings it up to date.
pub(crate) async fn open(database: &Database) -> Arc<Postgres> {
    let url = database.url().parse().expect("a URL");
    Arc::new(Postgres::open(&url, true).await.expect("a store"))
}

/// A database of its own, and the store or stores on it.
pub(crate) struct PostgresRig {
    pub(crate) database: Database,
    pub(crate) store: Arc<dyn Store>,
}

impl PostgresRig {
    pub(crate) async fn new(instances: usize) -> Self {
        let database = Cluster::shared().await.database().await;
        let mut stores = Vec::new();
        for _ in 0..instances {
            stores.push(open(&database).await as Arc<dyn Store>);
        }
        let store = match stores.as_slice() {
            [only] => only.clone(),
            _ => Arc::new(Several { stores, next: AtomicUsize::new(0) }),
        };
        Self { database, store }
    }
}

#[async_trait]
impl Rig for PostgresRig {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn advance(&self, by: Duration) {
        let micros = by.as_micros();
        let sql = format!(
            "UPDATE bookings SET hold_expires_at = hold_expires_at - {micros} WHERE status = 'pending'"
        );
        self.database.execute(&sql).await;
    }

    async fn tamper(&self, sql: &str, event: EventId) -> bool {
        let sql = sql.replace(":event", &literal(event.bytes()));
        assert_eq!(self.database.execute(&sql).await, 1, "{sql}");
        true
    }
}

#[test]
fn postgres_conforms() {
    assert_eq!(failures(async || PostgresRig::new(1).await), Vec::<&str>::new());
}

#[test]
fn three_instances_on_one_database_conform() {
    assert_eq!(failures(async || PostgresRig::new(3).await), Vec::<&str>::new());
}

/// One key for the creation of an event, asked of three instances at once: no row is there yet to wait at, and
/// still it happens once.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_carried_out_once_also_where_there_is_nothing_to_lock() {
    let rig = PostgresRig::new(3).await;
    let stage = Stage::new(&rig);
    for round in 0..10 {
        let mut asking = JoinSet::new();
        for _ in 0..9 {
            let create = command(Action::CreateEvent(Box::new(stage.concert(9))));
            let render = Box::new(|_: &_, _| Some(b"made".to_vec()));
            let (scope, key) = ("s".to_owned(), format!("key-{round}"));
            let keep = Keep { scope, key, fingerprint: [0; 32], render };
            let submission = Submission { command: Arc::new(create), keep: Some(Arc::new(keep)) };
            let store = stage.store.clone();
            asking.spawn(async move { store.execute(vec![submission]).await });
        }
        let replies: Vec<_> = asking.join_all().await.into_iter().flatten().collect();
        let mut heard = words(&replies);
        heard.sort_unstable();
        assert_eq!(heard, [vec!["kept"], vec!["replayed"; 8]].concat(), "round {round}");
    }
    assert_eq!(rig.database.number("SELECT count(*) FROM events").await, 10);
    stage.clean().await;
}

/// Batches of several instances that concern the same events in every order wait for each other, and never
/// in a circle.
#[tokio::test(flavor = "multi_thread")]
async fn batches_over_many_events_never_wait_in_a_circle() {
    const EVENTS: usize = 4;
    let rig = PostgresRig::new(3).await;
    let stage = Stage::new(&rig);
    let mut events = Vec::new();
    for _ in 0..EVENTS {
        events.push(stage.create(stage.concert(10_000)).await.id);
    }
    let mut asking = JoinSet::new();
    for round in 0..90 {
        let order = |place: usize| stage.book(events[(round * 7 + place * (round + 1)) % EVENTS], "a", 1);
        let batch: Vec<Submission> = (0..6).map(|place| order(place).into()).collect();
        let store = stage.store.clone();
        asking.spawn(async move { store.execute(batch).await });
    }
    for replies in asking.join_all().await {
        assert_eq!(words(&replies), ["ok"; 6]);
    }
    let log = rig.database.cluster().log();
    assert!(!log.iter().any(|line| line.contains("deadlock detected")), "{log:#?}");
    stage.clean().await;
}
