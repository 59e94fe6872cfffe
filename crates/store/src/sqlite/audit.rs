//! Reads the database for the audit, in one read transaction with one snapshot.

use domain::{Audit, AuditReport, BookingId, Entry, EventId, History};
use rusqlite::{Connection, params_from_iter};

use super::read;
use super::rows::{query, text};
use crate::cell::{Cell, Cells};
use crate::decode;
use crate::sql::Sql;

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
    let mut events = tx.prepare_cached(&text(Sql::EventListAll))?;
    let mut ids = events.query([])?;
    while let Some(row) = ids.next()? {
        match Cells::new(row).next() {
            Ok(id) => walk_event(&tx, EventId::from_bytes(id), &mut audit)?,
            Err(error) => audit.unreadable(format!("the id of an event: {error}")),
        }
    }
    let totals = |cells: &mut Cells<'_>| Ok((cells.next()?, cells.next()?, cells.next()?));
    let totals = query(&tx, Sql::AuditTotals, &[], totals)?.unwrap_or_default().pop();
    let (bookings, entries, refunds): (u64, u64, u64) = totals.unwrap_or_default();
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
    let mut statement = connection.prepare_cached(&text(Sql::AuditLedger))?;
    let mut rows = statement.query(params_from_iter([Cell::Id(*id.bytes())]))?;
    while let Some(row) = rows.next()? {
        let (entry, booking) = decode::entry_beside_booking(&mut Cells::new(row));
        match entry {
            Ok(entry) => audit.entry(&entry, booking.as_ref()),
            Err(cause) => audit.unreadable(format!("a ledger entry of {id}: {cause}")),
        }
    }
    Ok(())
}

/// Checks the bookings of an event, one history at a time.
fn walk_bookings(connection: &Connection, event: EventId, audit: &mut Audit) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&text(Sql::AuditEntriesByBooking))?;
    let mut rows = statement.query(params_from_iter([Cell::Id(*event.bytes())]))?;
    let mut history: Option<(BookingId, Vec<Entry>)> = None;
    while let Some(row) = rows.next()? {
        let mut cells = Cells::new(row);
        // An entry that cannot be decoded was reported in `walk_ledger`.
        let (Ok(id), Ok(seq)) = (cells.next().map(BookingId::from_bytes), cells.next::<i64>()) else {
            continue;
        };
        if let Some((last, entries)) = history.take_if(|(last, _)| *last != id) {
            finish_booking(connection, event, last, entries, audit)?;
        }
        let entries = &mut history.get_or_insert((id, Vec::new())).1;
        let key = [Cell::Id(*event.bytes()), seq.into()];
        entries.extend(query(connection, Sql::AuditEntry, &key, decode::entry)?.unwrap_or_default());
    }
    match history {
        Some((last, entries)) => finish_booking(connection, event, last, entries, audit),
        None => Ok(()),
    }
}

fn finish_booking(
    connection: &Connection,
    event: EventId,
    id: BookingId,
    entries: Vec<Entry>,
    audit: &mut Audit,
) -> rusqlite::Result<()> {
    let booking = read::booking(connection, id)?.transpose();
    let booking = booking.unwrap_or_else(|cause| {
        audit.unreadable(format!("a booking of {event}: {cause}"));
        None
    });
    let mut refunds = Vec::new();
    let key = [Cell::Id(*id.bytes())];
    let rows = query(connection, Sql::RefundListOfBooking, &key, |cells| Ok(decode::refund(cells)))?;
    for refund in rows.unwrap_or_default() {
        match refund {
            Ok(refund) => refunds.push(refund),
            Err(cause) => audit.unreadable(format!("a refund of {event}: {cause}")),
        }
    }
    audit.history(&History { id, entries, booking, refunds });
    Ok(())
}

fn walk_users(connection: &Connection, id: EventId, audit: &mut Audit) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&text(Sql::AuditUsers))?;
    let mut rows = statement.query(params_from_iter([Cell::Id(*id.bytes())]))?;
    while let Some(row) = rows.next()? {
        match decode::counted_user(&mut Cells::new(row)) {
            Ok((user, holds, counted)) => audit.user(&user, holds, counted),
            Err(cause) => audit.unreadable(format!("a counted user of {id}: {cause}")),
        }
    }
    Ok(())
}
