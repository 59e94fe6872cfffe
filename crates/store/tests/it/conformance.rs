//! The conformance suite on SQLite: on a file, and in memory, inline and with threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::{Clock, EventId, Timestamp};
use store::conformance::Harness;
use store::{Sqlite, SqliteOptions, Store};
use tempfile::TempDir;

use crate::failures;

/// A clock that changes only when a test shifts it.
pub(crate) struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock at an instant in January 2027.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_800_000_000_000_000)))
    }

    /// Shifts the clock, forwards or backwards.
    pub(crate) fn shift(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

/// A store on a file of its own, which is deleted with the harness.
pub(crate) struct FileHarness {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Arc<Sqlite>,
    pub(crate) path: PathBuf,
    /// Deleted when it is dropped.
    folder: TempDir,
}

impl FileHarness {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("box.db");
        let clock = ManualClock::new();
        let store = Sqlite::open(&path, true, &options(&clock)).unwrap();
        Self { clock, store: Arc::new(store), path, folder }
    }

    /// Closes the file and opens it again.
    pub(crate) fn reopened(self) -> Self {
        let Self { clock, store, path, folder } = self;
        drop(store);
        let store = Arc::new(Sqlite::open(&path, false, &options(&clock)).unwrap());
        Self { clock, store, path, folder }
    }
}

/// The SQL literal of an id.
pub(crate) fn literal(id: &[u8; 16]) -> String {
    format!("X'{:032x}'", u128::from_be_bytes(*id))
}

pub(crate) fn options(clock: &Arc<ManualClock>) -> SqliteOptions {
    SqliteOptions { clock: clock.clone(), inline: false }
}

#[async_trait]
impl Harness for FileHarness {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn advance(&self, by: Duration) {
        self.clock.shift(i64::try_from(by.as_secs()).unwrap());
    }

    async fn execute_directly(&self, sql: &str, event: EventId) -> bool {
        let sql = sql.replace(":event", &literal(event.bytes()));
        let changed = rusqlite::Connection::open(&self.path).unwrap().execute(&sql, []).unwrap();
        assert_eq!(changed, 1, "{sql}");
        true
    }
}

/// A store in memory. Its database cannot be changed directly.
struct MemoryHarness {
    clock: Arc<ManualClock>,
    store: Arc<Sqlite>,
}

impl MemoryHarness {
    fn new(inline: bool) -> Self {
        let clock = ManualClock::new();
        let options = SqliteOptions { clock: clock.clone(), inline };
        Self { clock, store: Arc::new(Sqlite::in_memory(&options).unwrap()) }
    }
}

#[async_trait]
impl Harness for MemoryHarness {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn advance(&self, by: Duration) {
        self.clock.shift(i64::try_from(by.as_secs()).unwrap());
    }

    async fn execute_directly(&self, _sql: &str, _event: EventId) -> bool {
        false
    }
}

#[test]
fn sqlite_file_conforms() {
    assert_eq!(failures(async || FileHarness::new()), Vec::<&str>::new());
}

#[test]
fn sqlite_memory_conforms_inline() {
    assert_eq!(failures(async || MemoryHarness::new(true)), Vec::<&str>::new());
}

#[test]
fn sqlite_memory_conforms_with_threads() {
    assert_eq!(failures(async || MemoryHarness::new(false)), Vec::<&str>::new());
}
