//! The only place that chooses between the databases.

use std::sync::Arc;

use engine::SystemClock;
use store::{Postgres, Sqlite, SqliteOptions, Store};

use super::Failure;
use crate::config::DatabaseUrl;

/// Returns options with the system clock and blocking calls on threads of their own.
pub(super) fn sqlite_options() -> SqliteOptions {
    SqliteOptions { clock: Arc::new(SystemClock), inline: false }
}

/// Opens a database for reading and writing. With `migrate` it first migrates the schema.
pub(super) async fn open(url: &DatabaseUrl, migrate: bool) -> Result<Arc<dyn Store>, Failure> {
    Ok(match url {
        DatabaseUrl::Sqlite(file) => Arc::new(Sqlite::open(file, migrate, &sqlite_options())?),
        DatabaseUrl::Postgres(url) => Arc::new(Postgres::open(url, migrate).await?),
    })
}

/// Opens a database read-only. Other processes may write to it meanwhile.
pub(super) async fn open_reader(url: &DatabaseUrl) -> Result<Arc<dyn Store>, Failure> {
    Ok(match url {
        DatabaseUrl::Sqlite(file) => Arc::new(Sqlite::open_reader(file)?),
        DatabaseUrl::Postgres(url) => Arc::new(Postgres::open_reader(url).await?),
    })
}
