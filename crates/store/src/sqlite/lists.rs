//! Paged lists. A row that cannot be decoded is left out of its page; the cursor continues after its key.

use std::collections::HashMap;

use domain::{
    Booking, BookingId, BookingStatus, Entry, Event, EventId, Refund, RefundId, RefundStatus, UserId,
};
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params};

use super::read::{self, opt_id};
use super::sql;
use super::tx::fault;
use crate::fold::RowResult;
use crate::store::USER_WINDOW;
use crate::{BookingList, Cause, Fault, Page};

/// The largest id: the start of a descending list.
const MAX_ID: [u8; 16] = [0xff; 16];

/// A row with its key.
type KeyedRow<K, T> = (K, RowResult<T>);

pub(super) fn events(
    connection: &mut Connection,
    after: Option<EventId>,
    limit: u32,
) -> Result<Page<Event>, Fault> {
    // One read transaction, so that events and their ticket types are from one snapshot.
    let tx = connection.transaction().map_err(fault)?;
    let after = after.map_or(MAX_ID, |id| *id.bytes());
    let values = params![after, limit + 1];
    let events = list(&tx, sql::EVENT_LIST, values, |row| {
        let id = EventId::from_bytes(row.get(0)?);
        Ok((id, read::event_row(id, row)))
    })?;
    let bounds = events.last().zip(events.first()).map(|((last, _), (first, _))| (*last, *first));
    let mut types: HashMap<EventId, Vec<_>> = HashMap::new();
    if let Some((last, first)) = bounds {
        let row = |row: &Row<'_>| Ok((EventId::from_bytes(row.get(6)?), read::type_row(row)));
        for (event, row) in list(&tx, sql::TICKET_TYPES_LIST, params![last.bytes(), first.bytes()], row)? {
            types.entry(event).or_default().push(row);
        }
    }
    let finish = |(id, event)| (id, read::finish_event(id, event, types.remove(&id).unwrap_or_default()));
    Ok(Page::from_surplus(events.into_iter().map(finish).collect(), limit))
}

pub(super) fn bookings(
    connection: &Connection,
    list: &BookingList,
    status: Option<BookingStatus>,
    limit: u32,
) -> Result<Page<Booking>, Fault> {
    let before = |after: &Option<BookingId>| after.map_or(MAX_ID, |id| *id.bytes());
    let status_text = status.map(BookingStatus::as_str);
    let more = limit + 1;
    let rows = match (list, status_text) {
        (BookingList::OfUser { user, event, after }, _) => {
            return bookings_of_user(connection, (user, *event), before(after), status_text, limit);
        }
        (BookingList::OfEvent { event, after }, None) => {
            booking_rows(connection, sql::BOOKING_LIST_OF_EVENT, params![event.bytes(), before(after), more])
        }
        (BookingList::OfEvent { event, after }, Some(status_text)) => {
            let values = params![event.bytes(), status_text, before(after), more];
            booking_rows(connection, sql::BOOKING_LIST_OF_EVENT_IN_STATUS, values)
        }
        (BookingList::All { after }, None) => {
            booking_rows(connection, sql::BOOKING_LIST_ALL, params![before(after), more])
        }
        (BookingList::All { after }, Some(status_text)) => {
            booking_rows(connection, sql::BOOKING_LIST_IN_STATUS, params![status_text, before(after), more])
        }
    };
    Ok(Page::from_surplus(rows?, limit))
}

/// A filtered page ends at the end of its window of [`USER_WINDOW`] bookings, however few rows match in it.
fn bookings_of_user(
    connection: &Connection,
    (user, event): (&UserId, Option<EventId>),
    before: [u8; 16],
    status: Option<&str>,
    limit: u32,
) -> Result<Page<Booking>, Fault> {
    let user = user.as_str();
    let end: Option<[u8; 16]> = if event.is_some() || status.is_some() {
        let mut statement = connection.prepare_cached(sql::BOOKING_WINDOW_OF_USER).map_err(fault)?;
        let end = statement.query_row(params![user, before, USER_WINDOW - 1], |row| row.get(0));
        end.optional().map_err(fault)?
    } else {
        None
    };
    let event = opt_id(event.as_ref().map(EventId::bytes));
    let values = params![user, before, end.unwrap_or([0; 16]), event, status, limit + 1];
    let mut page = Page::from_surplus(booking_rows(connection, sql::BOOKING_LIST_OF_USER, values)?, limit);
    page.next = page.next.or_else(|| end.map(|id| BookingId::from_bytes(id).to_string()));
    Ok(page)
}

fn booking_rows(
    connection: &Connection,
    sql: &str,
    values: &[&dyn ToSql],
) -> Result<Vec<KeyedRow<BookingId, Booking>>, Fault> {
    list(connection, sql, values, |row| {
        let booking = read::booking_row(row).map_err(Cause::new).and_then(Booking::try_from);
        Ok((BookingId::from_bytes(row.get(0)?), booking))
    })
}

pub(super) fn ledger(
    connection: &Connection,
    event: EventId,
    after: u64,
    limit: u32,
) -> Result<Page<Entry>, Fault> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let rows = list(connection, sql::LEDGER_LIST, params![event.bytes(), after, limit + 1], |row| {
        Ok((row.get::<_, i64>(1)?, read::entry_row(row)))
    })?;
    Ok(Page::from_surplus(rows, limit))
}

pub(super) fn refunds(
    connection: &Connection,
    status: Option<RefundStatus>,
    after: Option<RefundId>,
    limit: u32,
) -> Result<Page<Refund>, Fault> {
    let after = after.map_or(MAX_ID, |id| *id.bytes());
    let row = |row: &Row<'_>| Ok((RefundId::from_bytes(row.get(0)?), read::refund_row(row)));
    let rows = match status {
        None => list(connection, sql::REFUND_LIST, params![after, limit + 1], row),
        Some(status) => {
            let values = params![status.as_str(), after, limit + 1];
            list(connection, sql::REFUND_LIST_IN_STATUS, values, row)
        }
    };
    Ok(Page::from_surplus(rows?, limit))
}

/// The rows of a statement. An error of `row` fails the whole list; decoding errors belong in `T`.
pub(super) fn list<T>(
    connection: &Connection,
    sql: &str,
    values: &[&dyn ToSql],
    row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Fault> {
    let mut statement = connection.prepare_cached(sql).map_err(fault)?;
    let rows = statement.query_map(values, row).map_err(fault)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fault)
}
