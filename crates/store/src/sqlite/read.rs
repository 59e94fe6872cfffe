//! Reads of events, whose ticket types SQLite reads with a statement of their own, and of the rows of a
//! batch. The outer error is that of the database, the inner one that of the row.

use std::collections::HashMap;

use domain::{Booking, BookingId, Event, EventId, ExternalRef, Refund, Timestamp, TransactionId, UserId};
use rusqlite::Connection;

use super::rows::{fault, list, query};
use crate::cell::{Cell, Cells};
use crate::decode::{self, TicketTypeRow};
use crate::fault::RowResult;
use crate::fold::StoredResponse;
use crate::sql::Sql;
use crate::{Fault, Idempotency};

type Read<T> = rusqlite::Result<T>;
/// A row that exists or not, decoded or not.
type ReadOne<T> = Read<Option<RowResult<T>>>;

/// The first row of a statement.
fn first<T>(
    connection: &Connection,
    sql: Sql,
    values: &[Cell<'_>],
    decode: impl Fn(&mut Cells<'_>) -> RowResult<T>,
) -> ReadOne<T> {
    let rows = query(connection, sql, values, |cells| Ok(decode(cells)))?;
    Ok(rows.unwrap_or_default().into_iter().next())
}

/// The event with this id. Its two statements are of one snapshot only within a transaction.
pub(super) fn event(connection: &Connection, id: EventId) -> ReadOne<Event> {
    let key = [Cell::Id(*id.bytes())];
    let Some(event) = first(connection, Sql::EventLoad, &key, decode::event)? else { return Ok(None) };
    let types = query(connection, Sql::TicketTypesLoad, &key, decode::ticket_type)?;
    Ok(Some(
        event.and_then(|(_, event)| {
            decode::with_ticket_types(event, types?.into_iter().map(|(_, kind)| kind))
        }),
    ))
}

/// Up to `limit` events with ids below `before`, newest first.
pub(super) fn events_before(
    connection: &mut Connection,
    before: [u8; 16],
    limit: u32,
) -> Result<Vec<(EventId, RowResult<Event>)>, Fault> {
    let tx = connection.transaction().map_err(fault)?;
    let events = list(&tx, Sql::EventList, &[Cell::Id(before), limit.into()], decode::event)?;
    let Some(((oldest, _), (newest, _))) = events.last().zip(events.first()) else { return Ok(events) };
    let bounds = [Cell::Id(*oldest.bytes()), Cell::Id(*newest.bytes())];
    let mut types: HashMap<EventId, Vec<RowResult<TicketTypeRow>>> = HashMap::new();
    for (event, kind) in list(&tx, Sql::TicketTypesList, &bounds, decode::ticket_type)? {
        types.entry(event).or_default().push(kind);
    }
    let mut with_types =
        |(id, event)| (id, decode::with_ticket_types(event, types.remove(&id).unwrap_or_default()));
    Ok(events.into_iter().map(&mut with_types).collect())
}

pub(super) fn booking(connection: &Connection, id: BookingId) -> ReadOne<Booking> {
    first(connection, Sql::BookingLoad, &[Cell::Id(*id.bytes())], decode::booking)
}

/// Reads the external reference, if a booking of the event has it.
pub(super) fn external_ref(
    connection: &Connection,
    event: EventId,
    reference: &ExternalRef,
) -> ReadOne<(EventId, ExternalRef)> {
    let key = [Cell::Id(*event.bytes()), reference.as_str().into()];
    first(connection, Sql::BookingExternalRefs, &key, decode::external_ref)
}

/// Reads the refund of a captured payment.
pub(super) fn refund(
    connection: &Connection,
    booking: BookingId,
    transaction: &TransactionId,
) -> ReadOne<Refund> {
    let payment = [Cell::Id(*booking.bytes()), transaction.as_str().into()];
    first(connection, Sql::RefundLoad, &payment, decode::refund)
}

/// Reads the response stored under a key, if it is younger than `since`.
pub(super) fn stored_response(
    connection: &Connection,
    idempotency: &Idempotency,
    since: Timestamp,
) -> ReadOne<((String, String), StoredResponse)> {
    let key = [idempotency.scope().into(), idempotency.key.as_str().into(), since.micros().into()];
    first(connection, Sql::IdempotencyLoad, &key, decode::stored_response)
}

/// Reads the number of tickets of an event that a user holds.
pub(super) fn user_tickets(connection: &Connection, event: EventId, user: &UserId) -> ReadOne<(UserId, u32)> {
    let key = [Cell::Id(*event.bytes()), user.as_str().into()];
    first(connection, Sql::UserLimitLoad, &key, |cells| decode::user_tickets(cells)?.1)
}
