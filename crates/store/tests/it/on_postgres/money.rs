//! The audit of money columns on PostgreSQL.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::PostgresHarness;
use crate::money::{RawDatabase, a_price_without_a_booking_is_not_audited, every_money_column_is_audited};

#[async_trait]
impl RawDatabase for PostgresHarness {
    async fn columns(&self) -> BTreeSet<String> {
        let sql = "SELECT table_name || '.' || column_name FROM information_schema.columns
                   WHERE table_schema = current_schema() AND table_name <> 'boxoffice_schema'";
        let rows = self.database.connect().await.query(sql, &[]).await.expect(sql);
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn rows(&self, table: &str, key: &str, column: &str) -> Vec<(String, String)> {
        let sql = format!("SELECT replace({key}::text, '-', ''), {column}::text FROM {table}");
        let rows = self.database.connect().await.query(&sql, &[]).await.expect(&sql);
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    async fn set(&self, (table, key, id): (&str, &str, &str), column: &str, value: &str) {
        let sql = format!("UPDATE {table} SET {column} = '{value}' WHERE {key} = '{id}'");
        assert_eq!(self.database.execute(&sql).await, 1, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_every_money_column_is_audited() {
    every_money_column_is_audited(&PostgresHarness::new(1).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_a_price_without_a_booking_is_not_audited() {
    a_price_without_a_booking_is_not_audited(&PostgresHarness::new(1).await).await;
}
