//! Dumps of PostgreSQL that earlier versions wrote.

use testkit::{PostgresServer, Setup};

use crate::fixture::Fixture;
use crate::{checks, migrated, program};

/// Restores a fixture to a new database, and migrates it.
pub(crate) async fn copy(fixture: &Fixture) -> Setup {
    let database = PostgresServer::shared().await.create_database().await;
    database.restore(&fixture.database());
    let setup = migrated(Setup::new(program()).on_postgres(&database)).await;
    // Responses are stored for 24 hours, and the fixture is older.
    let now = "UPDATE idempotency SET created_at = (extract(epoch FROM now()) * 1000000)::bigint";
    assert_ne!(database.execute(now).await, 0);
    setup
}

#[tokio::test(flavor = "multi_thread")]
async fn dumps_of_earlier_versions_are_served() {
    for fixture in Fixture::all("postgres") {
        let setup = copy(&fixture).await;
        checks::check(&setup.start().await, &fixture.manifest()).await;
    }
}

/// Released migrations are never changed: a database that has run them before would miss the change.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_database_has_the_schema_of_a_new_one() {
    for fixture in Fixture::all("postgres") {
        let upgraded = copy(&fixture).await;
        let new = migrated(
            Setup::new(program()).on_postgres(&PostgresServer::shared().await.create_database().await),
        )
        .await;
        assert_eq!(upgraded.postgres().schema().await, new.postgres().schema().await);
    }
}
