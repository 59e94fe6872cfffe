//! The prepared statements of a session.

use futures_util::future::try_join_all;
use tokio::sync::OnceCell;
use tokio_postgres::{Error, GenericClient, Statement};

use crate::sql::{Dialect, Sql};

/// Prepared statements, each prepared on first use, so that a session opened while a table is locked waits
/// only in statements that use that table.
pub(super) struct Statements(Vec<OnceCell<Statement>>);

impl Statements {
    pub(super) fn new() -> Self {
        Self(Sql::ALL.iter().map(|_| OnceCell::new()).collect())
    }

    /// Prepares all statements, so that no later call waits for its preparation and pipelined statements keep
    /// their order.
    pub(super) async fn prepare_all<C: GenericClient + Sync>(&self, client: &C) -> Result<(), Error> {
        try_join_all(Sql::of(Dialect::Postgres).map(|sql| self.get(client, sql))).await.map(drop)
    }

    /// Returns a prepared statement. All parameter types follow from the SQL text, so preparing needs no
    /// other query.
    pub(super) async fn get<C: GenericClient + Sync>(
        &self,
        client: &C,
        sql: Sql,
    ) -> Result<&Statement, Error> {
        self.0[sql as usize]
            .get_or_try_init(|| async move { client.prepare(&sql.text(Dialect::Postgres)).await })
            .await
    }
}
