//! Inspection of a PostgreSQL database and its server, for `boxoffice doctor`.

use std::time::Duration;

use domain::Timestamp;
use tokio::time::Instant;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, Error};

use super::session::{Connector, Role, describe};
use super::{PostgresUrl, Standbys, check_schema_version, schema, unreachable};
use crate::sql::{Dialect, Sql};
use crate::{Consumer, OpenError};

/// The state of a PostgreSQL database and its server.
#[derive(Debug)]
pub struct PostgresInspection {
    /// The duration of one query.
    pub round_trip: Duration,
    /// The version of the server, as it reports it.
    pub version: String,
    /// The version of the schema, 0 if there is none; or the reason why this program cannot use it.
    pub schema_version: Result<u32, OpenError>,
    /// True if the server accepts writes: a standby does not.
    pub is_primary: bool,
    /// The setting `fsync`: if it is off, a power cut can lose commits.
    pub fsync: String,
    /// The setting `full_page_writes`: if it is off, a torn page may stay corrupt.
    pub full_page_writes: String,
    /// The setting `synchronous_commit` of the server; boxoffice waits for the disk whatever it is.
    pub synchronous_commit: String,
    /// The synchronous standbys.
    pub standbys: Standbys,
    /// The maximum number of connections of the server; an instance needs about ten.
    pub max_connections: String,
    /// Ledger entries above the saved relay cursors; `None` if this program cannot use the schema.
    pub unpublished: Option<u64>,
    /// The server's time.
    pub now: Option<Timestamp>,
    /// The latest date of a ledger entry; `None` if there is none.
    pub last_at: Option<Timestamp>,
}

/// Inspects a database while other processes use it. Changes nothing.
pub async fn inspect_postgres(url: &PostgresUrl) -> Result<PostgresInspection, OpenError> {
    let mut any = url.clone();
    any.config.target_session_attrs(TargetSessionAttrs::Any);
    let connector = Connector::new(any).map_err(|cause| unreachable(url, &cause))?;
    let refused = |error: Error| unreachable(url, &describe(&error));
    let (client, driver) = connector.connect(Role::Maintenance).await.map_err(refused)?;
    let inspection = query_server(&client, url).await.map_err(refused);
    drop(driver);
    inspection
}

async fn query_server(client: &Client, url: &PostgresUrl) -> Result<PostgresInspection, Error> {
    let began = Instant::now();
    client.query("SELECT 1", &[]).await?;
    let round_trip = began.elapsed();
    let row = client
        .query_one(
            "SELECT current_setting('server_version') AS version,
                    current_setting('server_version_num')::int AS version_number,
                    NOT pg_is_in_recovery() AS is_primary, current_setting('fsync') AS fsync,
                    current_setting('full_page_writes') AS full_page_writes,
                    current_setting('synchronous_commit') AS synchronous_commit,
                    current_setting('max_connections') AS max_connections,
                    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now",
            &[],
        )
        .await?;
    let standbys = Standbys::from_row(&client.query_one(&*Sql::Health.text(Dialect::Postgres), &[]).await?)?;
    let found = schema::version(client).await?;
    let schema_version = super::check_server_version(url, row.try_get("version_number")?)
        .and_then(|()| check_schema_version(found));
    let (unpublished, last_at) = match &schema_version {
        Ok(_) => {
            let counted = client
                .query_one(&*Sql::CursorPendingCount.text(Dialect::Postgres), &[&Consumer::RELAY])
                .await?;
            let last_at = client.query_one("SELECT max(last_at) FROM events", &[]).await?;
            (u64::try_from(counted.try_get::<_, i64>(0)?).ok(), last_at.try_get(0)?)
        }
        Err(_) => (None, None),
    };
    let instant = |micros: i64| Timestamp::from_micros(micros).ok();
    Ok(PostgresInspection {
        round_trip,
        version: row.try_get("version")?,
        schema_version,
        is_primary: row.try_get("is_primary")?,
        fsync: row.try_get("fsync")?,
        full_page_writes: row.try_get("full_page_writes")?,
        synchronous_commit: row.try_get("synchronous_commit")?,
        standbys,
        max_connections: row.try_get("max_connections")?,
        unpublished,
        now: instant(row.try_get("now")?),
        last_at: last_at.and_then(instant),
    })
}
