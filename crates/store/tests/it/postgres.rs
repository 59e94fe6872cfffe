//! The suite on PostgreSQL: one instance, and three that share a database.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use async_trait::async_trait;
use domain::EventId;
use store::conformance::Rig;
use store::{Postgres, Store};
use testkit::{Cluster, Database};

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
