//! The tests of corrupt rows and of large events on PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use store::Postgres;
use testkit::{Database, PostgresServer};

use crate::corrupt::{DatabaseAccess, check_other_events_continue};
use crate::large::a_large_event_is_cancelled;

struct PostgresDatabase(Database);

#[async_trait]
impl DatabaseAccess for PostgresDatabase {
    async fn columns(&self) -> Vec<(String, String, String)> {
        let sql =
            "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns
                   WHERE table_schema = 'public' AND table_name <> 'boxoffice_schema'";
        let rows = self.0.connect().await.query(sql, &[]).await.expect("columns");
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }

    async fn change(&self, sql: &str) -> Result<u64, String> {
        let changed = self.0.connect().await.execute(sql, &[]).await;
        changed.map_err(|error| {
            error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().to_owned())
        })
    }

    fn literal(&self, id: &[u8; 16]) -> String {
        format!("'{:032x}'::uuid", u128::from_be_bytes(*id))
    }

    fn numbers(&self, count: u32) -> (String, String) {
        (String::new(), format!("generate_series(1, {count}) n (i)"))
    }

    fn id(&self, number: &str) -> String {
        format!("lpad(to_hex({number}), 32, '0')::uuid")
    }

    async fn analyze(&self) {
        self.0.connect().await.batch_execute("VACUUM ANALYZE").await.expect("statistics");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_a_corrupt_row_of_any_column_affects_only_its_event() {
    let database = PostgresServer::shared().await.create_database().await;
    let url = database.url().parse().expect("a URL");
    let store = Arc::new(Postgres::open(&url, true).await.expect("a store"));
    // The lower bounds are smaller than on SQLite, because PostgreSQL rejects more of the corrupting
    // updates.
    check_other_events_continue(store, &PostgresDatabase(database), (30, 12)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_a_large_event_is_cancelled() {
    let database = PostgresServer::durable().await.create_database().await;
    let url = database.url().parse().expect("a URL");
    let store = Arc::new(Postgres::open(&url, true).await.expect("a store"));
    a_large_event_is_cancelled(store, &PostgresDatabase(database)).await;
}
