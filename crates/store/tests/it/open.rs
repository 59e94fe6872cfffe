//! Opening a SQLite file: ownership, foreign files, schema versions, and persistence of all rows.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use store::conformance::Harness;
use store::conformance::fixture::{Fixture, HOLD, expire};
use store::{Fault, OpenError, Reply, SCHEMA_VERSION, Sqlite, Store};

use crate::conformance::{FileHarness, ManualClock, options};

fn open(path: &Path, migrate: bool) -> Result<Sqlite, OpenError> {
    Sqlite::open(path, migrate, &options(&ManualClock::new()))
}

#[tokio::test]
async fn a_file_has_one_owner_and_any_number_of_readers() {
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let event = fixture.create(fixture.new_event(9)).await;
    for migrate in [true, false] {
        assert!(matches!(open(&harness.path, migrate), Err(OpenError::Owned(path)) if path == harness.path));
    }
    let readers = [(); 3].map(|()| Sqlite::open_reader(&harness.path).unwrap());
    for reader in &readers {
        assert_eq!(reader.event(event.id).await.unwrap(), Some(event.clone()));
        let replies = reader.execute(vec![fixture.book(event.id, "a", 1).into()]).await;
        assert!(matches!(replies[..], [Reply::Failed(Fault::Unavailable(_))]), "{replies:?}");
    }
    // Later writes are visible, too.
    let held = fixture.run_ok(fixture.book(event.id, "a", 1)).await;
    assert_eq!(readers[0].booking(held.id).await.unwrap(), Some((*held).clone()));
    fixture.assert_audit_clean().await;
}

#[tokio::test]
async fn the_lock_is_released_with_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("box.db");
    for _ in 0..3 {
        let owner = open(&path, true).unwrap();
        assert!(matches!(open(&path, true), Err(OpenError::Owned(_))));
        drop(owner);
    }
    let reader = Sqlite::open_reader(&path).unwrap();
    let owner = open(&path, false).unwrap();
    drop((reader, owner));
    // The lock's name is the name of the file, including its extension, with `.lock` appended.
    assert!(folder.path().join("box.db.lock").exists());
}

#[test]
fn a_foreign_database_is_rejected_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs.db");
    for script in [
        "CREATE TABLE notes (text TEXT)",
        "PRAGMA application_id = 7",
        "PRAGMA user_version = 1",
        "PRAGMA application_id = 7; PRAGMA user_version = 1; CREATE TABLE events (id)",
    ] {
        fs::remove_file(&path).ok();
        Connection::open(&path).unwrap().execute_batch(script).unwrap();
        let before = fs::read(&path).unwrap();
        for migrate in [true, false] {
            assert!(matches!(open(&path, migrate), Err(OpenError::Foreign(_))), "{script}");
        }
        assert!(matches!(Sqlite::open_reader(&path), Err(OpenError::Foreign(_))), "{script}");
        assert_eq!(fs::read(&path).unwrap(), before, "{script}");
    }
    let text = "no database at all, but long enough to look like one ".repeat(40);
    fs::write(&path, &text).unwrap();
    assert!(matches!(open(&path, true), Err(OpenError::Sqlite(_))));
    assert!(Sqlite::open_reader(&path).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn missing_files_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.db");
    assert!(matches!(Sqlite::open_reader(&missing), Err(OpenError::Missing(path)) if path == missing));
    assert!(matches!(open(&missing, false), Err(OpenError::Missing(path)) if path == missing));
    assert!(!missing.exists(), "only a migration creates a file");
    let in_missing_folder = folder.path().join("no-folder").join("box.db");
    assert!(matches!(open(&in_missing_folder, true), Err(OpenError::Io { .. })));
}

fn schema_of(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut statement =
        connection.prepare("SELECT type || name || sql FROM sqlite_schema ORDER BY 1").unwrap();
    let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
    let mut all: Vec<_> = rows.map(|row| row.unwrap().unwrap_or_default()).collect();
    for pragma in ["application_id", "user_version", "journal_mode"] {
        let value = connection
            .query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, rusqlite::types::Value>(0));
        all.push(format!("{pragma} {:?}", value.unwrap()));
    }
    all
}

#[test]
fn migrating_twice_is_migrating_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("box.db");
    drop(open(&path, true).unwrap());
    let once = schema_of(&path);
    assert!(once.iter().any(|line| line.contains("wal")), "{once:?}");
    drop(open(&path, true).unwrap());
    drop(open(&path, false).unwrap());
    assert_eq!(schema_of(&path), once);
}

#[tokio::test]
async fn unsupported_schema_versions_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("box.db");
    fs::write(&path, "").unwrap();
    assert!(matches!(open(&path, false), Err(OpenError::Outdated { found: 0 })));
    assert!(matches!(Sqlite::open_reader(&path), Err(OpenError::Outdated { found: 0 })));
    drop(open(&path, true).unwrap());
    let set = |version: u32| Connection::open(&path).unwrap().pragma_update(None, "user_version", version);
    // One version newer is the schema during an upgrade, for instances that are not replaced yet.
    set(SCHEMA_VERSION + 1).unwrap();
    assert!(open(&path, false).is_ok() && open(&path, true).is_ok());
    let reader = Sqlite::open_reader(&path).unwrap();
    assert_eq!(reader.audit().await.unwrap().violations, Vec::<String>::new());
    drop(reader);
    for newer in [SCHEMA_VERSION + 2, SCHEMA_VERSION + 100] {
        set(newer).unwrap();
        for migrate in [true, false] {
            assert!(matches!(open(&path, migrate), Err(OpenError::TooNew { found }) if found == newer));
        }
        assert!(matches!(Sqlite::open_reader(&path), Err(OpenError::TooNew { found }) if found == newer));
    }
}

/// All rows that can be listed.
async fn list_all(store: &dyn Store) -> String {
    let events = store.events(None, 100).await.unwrap().rows;
    let mut ledgers = Vec::new();
    for event in &events {
        ledgers.push(store.ledger(event.id, 0, 1_000).await.unwrap().rows);
    }
    let list = store::BookingList::All { after: None };
    let bookings = store.bookings(list, None, 1_000).await.unwrap().rows;
    let refunds = store.refunds(None, None, 1_000).await.unwrap().rows;
    format!("{events:?} {ledgers:?} {bookings:?} {refunds:?}")
}

#[tokio::test]
async fn all_rows_survive_a_restart() {
    let harness = FileHarness::new();
    let before = {
        let fixture = Fixture::new(&harness);
        let limited = domain::NewEvent { max_tickets_per_user: Some(4), ..fixture.new_event(9) };
        let event = fixture.create(limited).await.id;
        let held = fixture.hold(event, &[("a", 1), ("a", 2), ("b", 1)]).await;
        let paid = fixture.run_ok(fixture.confirm(&held[1], "t")).await;
        fixture.run_ok(fixture.cancel(&paid)).await;
        harness.advance(HOLD).await;
        fixture.run_ok(expire(&held[2])).await;
        list_all(&*harness.store).await
    };
    assert!(before.len() > 5_000);
    let harness = harness.reopened();
    assert_eq!(list_all(&*harness.store).await, before);
    let reader = Sqlite::open_reader(&harness.path).unwrap();
    assert_eq!(list_all(&reader).await, before);
    assert_eq!(harness.store.audit().await.unwrap().violations, Vec::<String>::new());
}

/// Two stores in memory share no data.
#[tokio::test]
async fn memory_stores_are_independent() {
    let stores = [(); 2].map(|()| Sqlite::in_memory(&options(&ManualClock::new())).unwrap());
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let new = domain::Action::CreateEvent(Box::new(fixture.new_event(1)));
    stores[0].execute(vec![store::conformance::fixture::command(new).into()]).await;
    let counts = [stores[0].audit().await.unwrap().events, stores[1].audit().await.unwrap().events];
    assert_eq!(counts, [1, 0]);
}
