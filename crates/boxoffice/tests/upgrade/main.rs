//! Databases and streams of earlier versions under this version of the program.

mod checks;
mod fixture;
#[path = "../it_nats/ledger_stream.rs"]
mod ledger_stream;
mod on_nats;
mod on_postgres;
mod sqlite;

use tempfile::TempDir;
use testkit::{Exit, Program, Setup};

use crate::fixture::{FOLDER, Fixture, Manifest};

/// The program under test.
fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_boxoffice"))
}

/// Runs `boxoffice migrate` and the audit on a database. Returns the settings of a server on it.
async fn migrated(setup: Setup) -> Setup {
    let migrate = program().run(["migrate", "--database", &setup.url()]).await;
    assert_eq!(migrate.exit, Exit::Code(0), "{migrate:?}");
    program().expect_clean_at(&setup.url()).await;
    setup.argument("--no-migrate").argument("--sweep-every").argument("1s")
}

impl Fixture {
    /// The fixtures of all versions on this kind of database.
    fn all(database: &str) -> Vec<Self> {
        let versions = std::fs::read_dir(FOLDER).expect("the folder of the fixtures");
        let versions = versions.map(|version| version.expect("a folder").path().join(database));
        let all: Vec<Self> = versions.map(|folder| Self { folder }).collect();
        assert!(!all.is_empty(), "no fixture in {FOLDER}");
        all
    }

    fn manifest(&self) -> Manifest {
        let file = self.manifest_file();
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        serde_json::from_str(&text).expect("a manifest")
    }

    /// A copy of the store directory of NATS.
    async fn stream(&self) -> TempDir {
        let store = tempfile::tempdir().expect("a folder");
        self.tar(&["--extract", "--gzip", "--no-same-owner"], store.path()).await;
        store
    }
}
