//! The conformance suite on PostgreSQL: on one instance, and on three that share a database.

mod locks;
mod migration;
mod money;
mod query_count;
mod statement_cost;
mod tls;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use async_trait::async_trait;
use domain::{Action, EventId};
use store::conformance::Harness;
use store::conformance::fixture::{Fixture, command, outcome_codes};
use store::{Idempotency, Postgres, Store, Submission};
use testkit::{Database, PostgresServer};
use tokio::task::JoinSet;

use crate::failures;
use crate::round_robin::RoundRobinStore;

/// The SQL literal of an id.
pub(crate) fn literal(id: &[u8; 16]) -> String {
    format!("'{:032x}'::uuid", u128::from_be_bytes(*id))
}

/// Opens a database and migrates it.
pub(crate) async fn open(database: &Database) -> Arc<Postgres> {
    let url = database.url().parse().expect("a URL");
    Arc::new(Postgres::open(&url, true).await.expect("a store"))
}

/// A database of its own, with one store or several.
pub(crate) struct PostgresHarness {
    pub(crate) database: Database,
    pub(crate) store: Arc<dyn Store>,
}

impl PostgresHarness {
    pub(crate) async fn new(instances: usize) -> Self {
        let database = PostgresServer::shared().await.create_database().await;
        let mut stores = Vec::new();
        for _ in 0..instances {
            stores.push(open(&database).await as Arc<dyn Store>);
        }
        let store = match stores.as_slice() {
            [only] => only.clone(),
            _ => Arc::new(RoundRobinStore { stores, next: AtomicUsize::new(0) }),
        };
        Self { database, store }
    }
}

#[async_trait]
impl Harness for PostgresHarness {
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

    async fn execute_directly(&self, sql: &str, event: EventId) -> bool {
        let sql = sql.replace(":event", &literal(event.bytes()));
        assert_eq!(self.database.execute(&sql).await, 1, "{sql}");
        true
    }
}

#[test]
fn postgres_conforms() {
    assert_eq!(failures(async || PostgresHarness::new(1).await), Vec::<&str>::new());
}

#[test]
fn three_instances_on_one_database_conform() {
    assert_eq!(failures(async || PostgresHarness::new(3).await), Vec::<&str>::new());
}

/// Three instances create an event under the same key concurrently: there is no row to lock yet, and still it
/// is created once.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_runs_once_without_a_row_to_lock() {
    let harness = PostgresHarness::new(3).await;
    let fixture = Fixture::new(&harness);
    for round in 0..10 {
        let mut tasks = JoinSet::new();
        for _ in 0..9 {
            let create = command(Action::CreateEvent(Box::new(fixture.new_event(9))));
            let serialize_response = Box::new(|_: &_, _| Some(b"response".to_vec()));
            let (scope, key) = ("s".to_owned(), format!("key-{round}"));
            let idempotency = Idempotency { scope, key, fingerprint: [0; 32], serialize_response };
            let submission =
                Submission { command: Arc::new(create), idempotency: Some(Arc::new(idempotency)) };
            let store = fixture.store.clone();
            tasks.spawn(async move { store.execute(vec![submission]).await });
        }
        let replies: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
        let mut codes = outcome_codes(&replies);
        codes.sort_unstable();
        assert_eq!(codes, [vec!["replayed"; 8], vec!["stored"]].concat(), "round {round}");
    }
    assert_eq!(harness.database.query_number("SELECT count(*) FROM events").await, 10);
    fixture.assert_audit_clean().await;
}

/// Concurrent batches of several instances over the same events in any order do not deadlock.
#[tokio::test(flavor = "multi_thread")]
async fn batches_over_many_events_do_not_deadlock() {
    const EVENTS: usize = 4;
    let harness = PostgresHarness::new(3).await;
    let fixture = Fixture::new(&harness);
    let mut events = Vec::new();
    for _ in 0..EVENTS {
        events.push(fixture.create(fixture.new_event(10_000)).await.id);
    }
    let mut tasks = JoinSet::new();
    for round in 0..90 {
        let order =
            |position: usize| fixture.book(events[(round * 7 + position * (round + 1)) % EVENTS], "a", 1);
        let batch: Vec<Submission> = (0..6).map(|position| order(position).into()).collect();
        let store = fixture.store.clone();
        tasks.spawn(async move { store.execute(batch).await });
    }
    for replies in tasks.join_all().await {
        assert_eq!(outcome_codes(&replies), ["ok"; 6]);
    }
    let log = harness.database.server().log();
    assert!(!log.iter().any(|line| line.contains("deadlock detected")), "{log:#?}");
    fixture.assert_audit_clean().await;
}
