//! The one place where a database is chosen.

use std::sync::Arc;

use engine::SystemClock;
use store::{Postgres, Sqlite, SqliteOptions, Store};

use super::Failure;
use crate::config::DatabaseUrl;

/// The real time, and a thread for every blocking call.
pub(super) fn sqlite_options() -> SqliteOptions {
    SqliteOptions { clock: Arc::new(SystemClock), inline: false }
}

/// Opens a database to work on it, and brings its schema up to date where `migrate` says so.
pub(super) async fn open(url: &DatabaseUrl, migrate: bool) -> Result<Arc<dyn Store>, Failure> {
    Ok(match url {
        DatabaseUrl::Sqlite(file) => Arc::new(Sqlite::open(file, migrate, &sqlite_options())?),
        DatabaseUrl::Postgres(url) => Arc::new(Postgres::open(url, migrate).await?),
    })
}

/// Opens a database to read it beside whoever works on it.
pub(super) async fn open_reader(url: &DatabaseUrl) -> Result<Arc<dyn Store>, Failure> {
    Ok(match url {
        DatabaseUrl::Sqlite(file) => Arc::new(Sqlite::open_reader(file)?),
        DatabaseUrl::Postgres(url) => Arc::new(Postgres::open_reader(url).await?),
    })
}
