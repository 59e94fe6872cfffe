//! Reads the database for the audit, in one read transaction with one snapshot.

use domain::{Audit, AuditReport, Booking, BookingId, Entry, EventId, History, UserId};
use rusqlite::{Connection, Row, params};

use super::{read, sql};
use crate::Cause;
use crate::fold::RowResult;

/// Runs the audit. Meanwhile the connection sorts in temporary files: in memory, the sorts would grow with
/// the ledger.
pub(super) fn audit(connection: &mut Connection) -> rusqlite::Result<AuditReport> {
    connection.pragma_update(None, "temp_store", "FILE")?;
    let report = walk(connection);
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    report
}

fn walk(connection: &mut Connection) -> rusqlite::Result<AuditReport> {
    let tx = connection.transaction()?;
    let mut audit = Audit::default();
    let mut events = tx.prepare_cached(sql::EVENT_LIST_ALL)?;
    let mut ids = events.query([])?;
    while let Some(row) = ids.next()? {
        match row.get(0) {
            Ok(id) => walk_event(&tx, EventId::from_bytes(id), &mut audit)?,
            Err(error) => audit.unreadable(format!("the id of an event: {error}")),
        }
    }
    let totals = tx.query_row(sql::AUDIT_TOTALS, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let (bookings, entries, refunds): (u64, u64, u64) = totals?;
    Ok(audit.finish(bookings, entries, refunds))
}

fn walk_event(connection: &Connection, id: EventId, audit: &mut Audit) -> rusqlite::Result<()> {
    let limited = match read::event(connection, id)? {
        Some(Ok(event)) => {
            let limited = event.details.max_tickets_per_user.is_some();
            audit.event(event);
            limited
        }
        Some(Err(cause)) => {
            audit.unreadable(cause);
            return Ok(());
        }
        None => {
            audit.unreadable(format!("{id}: has counters but no description"));
            return Ok(());
        }
    };
    walk_ledger(connection, id, audit)?;
    walk_bookings(connection, id, audit)?;
    if limited {
        walk_users(connection, id, audit)?;
    }
    Ok(())
}

fn walk_ledger(connection: &Connection, id: EventId, audit: &mut Audit) -> rusqlite::Result<()> {
    /// The first column of the booking in the joined row.
    const BOOKING: usize = 15;
    let mut statement = connection.prepare_cached(sql::AUDIT_LEDGER)?;
    let mut rows = statement.query([id.bytes()])?;
    while let Some(row) = rows.next()? {
        // A booking that cannot be decoded is reported with its history.
        let booking = read::booking_row_at(row, BOOKING).ok().and_then(|row| Booking::try_from(row).ok());
        match read::entry_row(row) {
            Ok(entry) => audit.entry(&entry, booking.as_ref()),
            Err(cause) => audit.unreadable(format!("a ledger entry of {id}: {cause}")),
        }
    }
    Ok(())
}

/// Checks the bookings of an event, one history at a time.
fn walk_bookings(connection: &Connection, event: EventId, audit: &mut Audit) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(sql::AUDIT_ENTRIES_BY_BOOKING)?;
    let mut rows = statement.query([event.bytes()])?;
    let mut history: Option<(BookingId, Vec<Entry>)> = None;
    while let Some(row) = rows.next()? {
        // An entry that cannot be decoded was reported in `walk_ledger`.
        let Ok(id) = row.get(0).map(BookingId::from_bytes) else { continue };
        if let Some((last, entries)) = history.take_if(|(last, _)| *last != id) {
            finish_booking(connection, (event, last), entries, audit)?;
        }
        let entries = &mut history.get_or_insert((id, Vec::new())).1;
        let seq: i64 = row.get(1)?;
        let mut entry = connection.prepare_cached(sql::AUDIT_ENTRY)?;
        entries.extend(entry.query_row(params![event.bytes(), seq], |row| Ok(read::entry_row(row)))?.ok());
    }
    match history {
        Some((last, entries)) => finish_booking(connection, (event, last), entries, audit),
        None => Ok(()),
    }
}

fn finish_booking(
    connection: &Connection,
    (event, id): (EventId, BookingId),
    entries: Vec<Entry>,
    audit: &mut Audit,
) -> rusqlite::Result<()> {
    let booking = read::booking(connection, id)?.transpose();
    let booking = booking.unwrap_or_else(|cause| {
        audit.unreadable(format!("a booking of {event}: {cause}"));
        None
    });
    let mut refunds = Vec::new();
    let mut statement = connection.prepare_cached(sql::REFUND_LIST_OF_BOOKING)?;
    for refund in statement.query_map([id.bytes()], |row| Ok(read::refund_row(row)))? {
        match refund? {
            Ok(refund) => refunds.push(refund),
            Err(cause) => audit.unreadable(format!("a refund of {event}: {cause}")),
        }
    }
    audit.history(&History { id, entries, booking, refunds });
    Ok(())
}

fn walk_users(connection: &Connection, id: EventId, audit: &mut Audit) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(sql::AUDIT_USERS)?;
    for user in statement.query_map([id.bytes()], |row| Ok(counted_user(row)))? {
        match user? {
            Ok((user, holds, counted)) => audit.user(&user, holds, counted),
            Err(cause) => audit.unreadable(format!("a counted user of {id}: {cause}")),
        }
    }
    Ok(())
}

fn counted_user(row: &Row<'_>) -> RowResult<(UserId, u64, Option<u32>)> {
    let name = row.get::<_, String>(0).map_err(Cause::new)?;
    let of_user = |error| Cause::new(format!("user {name}: {error}"));
    let (holds, counted) = (row.get(1).map_err(of_user)?, row.get(2).map_err(of_user)?);
    Ok((name.parse().map_err(Cause::new)?, holds, counted))
}
