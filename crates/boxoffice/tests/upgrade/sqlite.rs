//! Files of SQLite that earlier versions wrote.

use std::path::Path;

use tempfile::TempDir;
use testkit::Setup;

use crate::fixture::Fixture;
use crate::{checks, migrated, program};

/// Copies a fixture to a temporary folder, and migrates it. The copy is deleted with the folder.
pub(crate) async fn copy(fixture: &Fixture) -> (TempDir, Setup) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("boxoffice.db");
    std::fs::copy(fixture.database(), &file).expect("a copy");
    let setup = migrated(Setup::new(program()).on_file(&file)).await;
    // Responses are stored for 24 hours, and the fixture is older.
    let now = "UPDATE idempotency SET created_at = unixepoch() * 1000000";
    let stored = rusqlite::Connection::open(&file).expect("the file").execute(now, []);
    assert_ne!(stored.expect("an update"), 0);
    (folder, setup)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_earlier_versions_are_served() {
    for fixture in Fixture::all("sqlite") {
        let (_folder, setup) = copy(&fixture).await;
        checks::check(&setup.start().await, &fixture.manifest()).await;
    }
}

/// Released migrations are never changed: a file that has run them before would miss the change.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_file_has_the_schema_of_a_new_one() {
    for fixture in Fixture::all("sqlite") {
        let (_folder, upgraded) = copy(&fixture).await;
        let new = migrated(Setup::new(program())).await;
        assert_eq!(schema(upgraded.database()), schema(new.database()));
    }
}

/// The SQL statements of all objects in a file.
fn schema(file: &Path) -> Vec<String> {
    let file = rusqlite::Connection::open(file).expect("the file");
    let sql = "SELECT type || ' ' || name || ': ' || coalesce(sql, '') FROM sqlite_schema ORDER BY 1";
    let mut statement = file.prepare(sql).expect("a statement");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("text")
}
