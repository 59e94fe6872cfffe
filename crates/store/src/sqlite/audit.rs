//! Feeding the audit from one read transaction, which sees one moment of the database.

use domain::{Audit, AuditReport, Booking, EventId, UserId};
use rusqlite::{Connection, Row};

use super::{read, sql};
use crate::Cause;
use crate::fold::Loadable;

pub(super) fn audit(connection: &mut Connection) -> rusqlite::Result<AuditReport> {
    let tx = connection.transaction()?;
    let mut audit = Audit::default();
    let ids = tx
        .prepare_cached(sql::EVENT_LIST_ALL)?
        .query_map([], |row| Ok(row.get::<_, [u8; 16]>(0)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for id in ids {
        let id = match id {
            Ok(id) => id,
            Err(error) => {
                audit.unreadable(format!("the id of an event: {error}"));
                continue;
            }
        };
        let id = EventId::from_bytes(id);
        match read::event(&tx, id)? {
            Some(Ok(event)) => audit.event(event),
            Some(Err(cause)) => {
                audit.unreadable(cause);
                continue;
            }
            None => {
                audit.unreadable(format!("{id}: has counters but no description"));
                continue;
            }
        }
        walk_ledger(&tx, id, &mut audit)?;
        let mut statement = tx.prepare_cached(sql::REFUND_LIST_OF_EVENT)?;
        for refund in statement.query_map([id.bytes()], |row| Ok(read::refund_row(row)))? {
            match refund? {
                Ok(refund) => audit.refund(&refund),
                Err(cause) => audit.unreadable(format!("a refund of {id}: {cause}")),
            }
        }
        let mut statement = tx.prepare_cached(sql::USER_LIST)?;
        for user in statement.query_map([id.bytes()], |row| Ok(counted_user(row)))? {
            match user? {
                Ok((user, tickets)) => audit.user(&user, tickets),
                Err(cause) => audit.unreadable(format!("a counted user of {id}: {cause}")),
            }
        }
    }
    let totals = tx.query_row(sql::AUDIT_TOTALS, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let (bookings, entries, refunds): (u64, u64, u64) = totals?;
    Ok(audit.finish(bookings, entries, refunds))
}

fn counted_user(row: &Row<'_>) -> Loadable<(UserId, u32)> {
    let user = row.get::<_, String>(0).map_err(Cause::new)?.parse().map_err(Cause::new)?;
    Ok((user, row.get(1).map_err(Cause::new)?))
}

fn walk_ledger(connection: &Connection, id: EventId, audit: &mut Audit) -> rusqlite::Result<()> {
    /// Where the booking's columns begin in the joined row.
    const BOOKING: usize = 15;
    let mut statement = connection.prepare_cached(sql::AUDIT_LEDGER)?;
    let mut rows = statement.query([id.bytes()])?;
    while let Some(row) = rows.next()? {
        let booking = if row.get_ref(BOOKING)? == rusqlite::types::ValueRef::Null {
            None
        } else {
            let booking = read::booking_row_at(row, BOOKING).map_err(Cause::new).and_then(Booking::try_from);
            booking.map_err(|cause| audit.unreadable(format!("a booking of {id}: {cause}"))).ok()
        };
        match read::entry_row(row) {
            Ok(entry) => audit.entry(&entry, booking.as_ref()),
            Err(cause) => audit.unreadable(format!("a ledger entry of {id}: {cause}")),
        }
    }
    Ok(())
}
