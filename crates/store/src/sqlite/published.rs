//! Queries of the relay: ledger entries with their bookings, and the saved cursors.

use domain::{Booking, BookingId, EventId, Timestamp};
use rusqlite::{Connection, Row, params};

use super::tx::fault;
use super::{read, sql};
use crate::fold::RowResult;
use crate::store::readable_prefix;
use crate::{Cause, Cursor, CursorFilter, EntryWithBooking, Fault};

/// The first column of the booking, after those of the entry.
const BOOKING: usize = 15;

pub(super) fn cursors(
    connection: &Connection,
    stream: Timestamp,
    which: CursorFilter,
    after: Option<EventId>,
    limit: u32,
) -> Result<Vec<Cursor>, Fault> {
    let mut statement = connection.prepare_cached(sql::PUBLISHED_CURSORS).map_err(fault)?;
    let after = after.map_or([0; 16], |event| *event.bytes());
    let values = params![stream.micros(), after, which == CursorFilter::Behind, limit];
    let cursor = |row: &Row<'_>| {
        Ok(Cursor { event: EventId::from_bytes(row.get(0)?), ledger: row.get(1)?, published: row.get(2)? })
    };
    let rows = statement.query_map(values, cursor).map_err(fault)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fault)
}

pub(super) fn unpublished_entry_count(connection: &Connection) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached(sql::UNPUBLISHED_COUNT).map_err(fault)?;
    statement.query_row([], |row| row.get(0)).map_err(fault)
}

pub(super) fn entries_with_bookings(
    connection: &Connection,
    event: EventId,
    after: u64,
    limit: u32,
) -> Result<Vec<EntryWithBooking>, Fault> {
    let mut statement = connection.prepare_cached(sql::LEDGER_WITH_BOOKINGS).map_err(fault)?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![event.bytes(), after, limit], |row| Ok(entry_with_booking(row)));
    readable_prefix(rows.map_err(fault)?.collect::<rusqlite::Result<_>>().map_err(fault)?)
}

fn entry_with_booking(row: &Row<'_>) -> RowResult<EntryWithBooking> {
    let entry = read::entry_row(row)?;
    let booking = match row.get::<_, Option<[u8; 16]>>(BOOKING).map_err(Cause::new)? {
        Some(id) => {
            let of_row = |error| Cause::new(format!("{}: {error}", BookingId::from_bytes(id)));
            Some(Booking::try_from(read::booking_row_at(row, BOOKING).map_err(of_row)?)?)
        }
        None => None,
    };
    Ok(EntryWithBooking { entry, booking })
}

pub(super) fn save_relay_cursors(
    connection: &mut Connection,
    stream: Timestamp,
    published: &[(EventId, u64)],
) -> Result<(), Fault> {
    let tx = connection.transaction().map_err(fault)?;
    for (event, seq) in published {
        let seq = i64::try_from(*seq).unwrap_or(i64::MAX);
        let mut statement = tx.prepare_cached(sql::PUBLISHED_SAVE).map_err(fault)?;
        statement.execute(params![event.bytes(), stream.micros(), seq]).map_err(fault)?;
    }
    tx.commit().map_err(fault)
}
