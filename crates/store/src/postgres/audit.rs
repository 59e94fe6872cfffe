//! Feeding the audit from one read transaction, which sees one moment of the database.

use std::pin::pin;

use domain::{Audit, AuditReport, EventId};
use futures_util::TryStreamExt as _;
use tokio_postgres::Error;
use uuid::Uuid;

use super::read::{self, Cells};
use super::session::{Call, Session};
use super::sql::Sql;

/// Audits on a session that is used for nothing else.
pub(super) async fn audit(session: &Session) -> Result<AuditReport, Error> {
    session.client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut audit = Audit::default();
    for row in session.call(&Call { sql: Sql::EventListAll, values: Vec::new() }).await? {
        let id: Uuid = row.try_get(0)?;
        let rows = session.call(&Call { sql: Sql::EventLoad, values: vec![Box::new(vec![id])] }).await?;
        let event = read::events(&rows).map(|events| events.into_iter().next());
        match event {
            Ok(Some((_, Ok(event)))) => audit.event(event),
            Ok(Some((_, Err(cause)))) | Err(cause) => {
                audit.unreadable(cause);
                continue;
            }
            Ok(None) => continue,
        }
        walk_ledger(session, id, &mut audit).await?;
        walk_rest(session, id, &mut audit).await?;
    }
    let totals = session.call(&Call { sql: Sql::AuditTotals, values: Vec::new() }).await?;
    session.client.batch_execute("COMMIT").await?;
    let total = |column: usize| -> Result<u64, Error> {
        let count = totals.first().map(|row| row.try_get::<_, i64>(column)).transpose()?;
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    };
    Ok(audit.finish(total(0)?, total(1)?, total(2)?))
}

async fn walk_ledger(session: &Session, id: Uuid, audit: &mut Audit) -> Result<(), Error> {
    /// Where the booking's columns begin in the joined row.
    const BOOKING: usize = 15;
    let event = EventId::from_bytes(*id.as_bytes());
    let mut rows = pin!(session.stream(Sql::AuditLedger, &[&id]).await?);
    while let Some(row) = rows.try_next().await? {
        let booking = if row.try_get::<_, Option<Uuid>>(BOOKING)?.is_none() {
            None
        } else {
            let booking = read::booking(Cells::new(&row, BOOKING));
            booking.map_err(|cause| audit.unreadable(format!("a booking of {event}: {cause}"))).ok()
        };
        match read::entry(Cells::new(&row, 0)) {
            Ok(entry) => audit.entry(&entry, booking.as_ref()),
            Err(cause) => audit.unreadable(format!("a ledger entry of {event}: {cause}")),
        }
    }
    Ok(())
}

/// The refunds and the counted users of an event.
async fn walk_rest(session: &Session, id: Uuid, audit: &mut Audit) -> Result<(), Error> {
    let event = EventId::from_bytes(*id.as_bytes());
    let mut rows = pin!(session.stream(Sql::RefundListOfEvent, &[&id]).await?);
    while let Some(row) = rows.try_next().await? {
        match read::refund(Cells::new(&row, 0)) {
            Ok(refund) => audit.refund(&refund),
            Err(cause) => audit.unreadable(format!("a refund of {event}: {cause}")),
        }
    }
    let mut rows = pin!(session.stream(Sql::UserList, &[&id]).await?);
    while let Some(row) = rows.try_next().await? {
        match read::counted_user(Cells::new(&row, 0)) {
            Ok((user, tickets)) => audit.user(&user, tickets),
            Err(cause) => audit.unreadable(format!("a counted user of {event}: {cause}")),
        }
    }
    Ok(())
}
