//! Reading and decoding of SQLite rows. The outer error is that of the database, the inner one that of the
//! row.

use std::sync::Arc;

use domain::sabotage::{Guard, removed};
use domain::{
    Booking, BookingId, Currency, Entry, Event, EventDetails, EventId, Inventory, Money, Refund, RefundId,
    Tallies, TicketType, TicketTypeId, Timestamp, TransactionId, TypeInventory, UserId,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::sql;
use crate::fold::{RowResult, StoredResponse};
use crate::row::{self, BookingRow, time};
use crate::{Cause, Idempotency};

type Read<T> = rusqlite::Result<T>;

pub(super) fn event(connection: &Connection, id: EventId) -> Read<Option<RowResult<Event>>> {
    let mut statement = connection.prepare_cached(sql::EVENT_LOAD)?;
    let event = statement.query_row([id.bytes()], |row| Ok(event_row(id, row))).optional()?;
    let Some(event) = event else { return Ok(None) };
    let mut statement = connection.prepare_cached(sql::TICKET_TYPES_LOAD)?;
    let types = statement.query_map([id.bytes()], |row| Ok(type_row(row)))?.collect::<Read<Vec<_>>>()?;
    Ok(Some(finish_event(id, event, types)))
}

pub(super) fn booking(connection: &Connection, id: BookingId) -> Read<Option<RowResult<Booking>>> {
    let mut statement = connection.prepare_cached(sql::BOOKING_LOAD)?;
    let row = statement.query_row([id.bytes()], |row| Ok(booking_row(row))).optional()?;
    Ok(row.map(|row| row.map_err(|error| with_id(id, &error)).and_then(Booking::try_from)))
}

pub(super) fn refund(
    connection: &Connection,
    booking: BookingId,
    transaction: &TransactionId,
) -> Read<Option<RowResult<Refund>>> {
    let mut statement = connection.prepare_cached(sql::REFUND_LOAD)?;
    statement.query_row(params![booking.bytes(), transaction.as_str()], |row| Ok(refund_row(row))).optional()
}

pub(super) fn refund_by_id(connection: &Connection, id: RefundId) -> Read<Option<RowResult<Refund>>> {
    let mut statement = connection.prepare_cached(sql::REFUND_FIND)?;
    statement.query_row([id.bytes()], |row| Ok(refund_row(row))).optional()
}

/// Reads the response stored under a key, if it is younger than `since`.
pub(super) fn key(
    connection: &Connection,
    idempotency: &Idempotency,
    since: Timestamp,
) -> Read<Option<StoredResponse>> {
    let mut statement = connection.prepare_cached(sql::IDEMPOTENCY_LOAD)?;
    let scope = if removed(Guard::KeyScope) { "" } else { &idempotency.scope };
    let values = params![scope, idempotency.key, since.micros()];
    let stored = |row: &Row<'_>| {
        let (fingerprint, response) = (row.get(0)?, row.get::<_, Vec<u8>>(1)?.into());
        Ok(StoredResponse { fingerprint, response })
    };
    statement.query_row(values, stored).optional()
}

pub(super) fn user_tickets(connection: &Connection, event: EventId, user: &UserId) -> Read<u32> {
    let mut statement = connection.prepare_cached(sql::USER_LIMIT_LOAD)?;
    let tickets = statement.query_row(params![event.bytes(), user.as_str()], |row| row.get(0)).optional()?;
    Ok(tickets.unwrap_or(0))
}

/// An optional id as the parameter of a nullable column.
pub(super) fn opt_id(bytes: Option<&[u8; 16]>) -> Option<&[u8]> {
    bytes.map(<[u8; 16]>::as_slice)
}

pub(super) fn booking_row(row: &Row<'_>) -> Read<BookingRow> {
    booking_row_at(row, 0)
}

/// Reads the columns of a booking, starting at the column `first`.
pub(super) fn booking_row_at(row: &Row<'_>, first: usize) -> Read<BookingRow> {
    Ok(BookingRow {
        id: row.get(first)?,
        event_id: row.get(first + 1)?,
        user_id: row.get(first + 2)?,
        status: row.get(first + 3)?,
        version: row.get(first + 4)?,
        last_seq: row.get(first + 5)?,
        items: row.get(first + 6)?,
        currency: row.get(first + 7)?,
        total: row.get(first + 8)?,
        hold_expires_at: row.get(first + 9)?,
        payment_method: row.get(first + 10)?,
        transaction_id: row.get(first + 11)?,
        confirmed_at: row.get(first + 12)?,
        cancelled_at: row.get(first + 13)?,
        cancellation_reason: row.get(first + 14)?,
        refunded: row.get(first + 15)?,
        expired_at: row.get(first + 16)?,
        created_at: row.get(first + 17)?,
        updated_at: row.get(first + 18)?,
    })
}

/// Decodes an event without its ticket types.
pub(super) fn event_row(id: EventId, row: &Row<'_>) -> RowResult<Event> {
    if row.get_ref(11).map_err(Cause::new)? == ValueRef::Null {
        return Err(Cause::new("has counters but no description"));
    }
    let text = |column: usize| row.get::<_, String>(column).map_err(Cause::new);
    let number = |column: usize| row.get::<_, u32>(column).map_err(Cause::new);
    let count = |column: usize| row.get::<_, u64>(column).map_err(Cause::new);
    let at = |column: usize| row.get::<_, i64>(column).map_err(Cause::new).and_then(time);
    let at_if_set =
        |column: usize| row.get::<_, Option<i64>>(column).map_err(Cause::new)?.map(time).transpose();
    let zone = row.get::<_, Option<String>>(14).map_err(Cause::new)?;
    let details = EventDetails {
        name: text(11)?.parse().map_err(Cause::new)?,
        venue: text(12)?.parse().map_err(Cause::new)?,
        starts_at: at(13)?,
        time_zone: zone.map(|zone| zone.parse()).transpose().map_err(Cause::new)?,
        currency: text(15)?.parse().map_err(Cause::new)?,
        sales_start_at: at_if_set(16)?,
        sales_end_at: at_if_set(17)?,
        hold_seconds: number(18)?,
        cancel_cutoff_seconds: number(19)?,
        max_tickets_per_booking: number(20)?,
        max_tickets_per_user: row.get(21).map_err(Cause::new)?,
        status: text(22)?.parse().map_err(Cause::new)?,
        ticket_types: Vec::new(),
        version: number(23)?,
        created_at: at(24)?,
        updated_at: at(25)?,
    };
    let tallies = Tallies {
        pending: count(6)?,
        confirmed: count(7)?,
        cancelled: count(8)?,
        expired: count(9)?,
        revenue: text(10)?.parse().map_err(Cause::new)?,
    };
    let (capacity, held, sold) = (number(1)?, number(2)?, number(3)?);
    let inventory =
        Inventory { capacity, held, sold, types: Vec::new(), seq: count(4)?, last_at: at(5)?, tallies };
    Ok(Event { id, details: Arc::new(details), inventory })
}

/// A ticket type. Its price has no currency yet: that is in the event's row.
pub(super) struct TypeRow {
    id: TicketTypeId,
    name: domain::Name,
    price: i64,
    stock: TypeInventory,
}

pub(super) fn type_row(row: &Row<'_>) -> RowResult<TypeRow> {
    let stock = TypeInventory {
        capacity: row.get(3).map_err(Cause::new)?,
        held: row.get(4).map_err(Cause::new)?,
        sold: row.get(5).map_err(Cause::new)?,
    };
    Ok(TypeRow {
        id: TicketTypeId::from_bytes(row.get(0).map_err(Cause::new)?),
        name: row.get::<_, String>(1).map_err(Cause::new)?.parse().map_err(Cause::new)?,
        price: row.get(2).map_err(Cause::new)?,
        stock,
    })
}

/// Adds the ticket types to an event.
pub(super) fn finish_event(
    id: EventId,
    event: RowResult<Event>,
    rows: Vec<RowResult<TypeRow>>,
) -> RowResult<Event> {
    event.and_then(|event| add_types(event, rows)).map_err(|cause| with_id(id, &cause))
}

fn add_types(mut event: Event, rows: Vec<RowResult<TypeRow>>) -> RowResult<Event> {
    let details = Arc::make_mut(&mut event.details);
    let currency: Currency = details.currency;
    for row in rows {
        let row = row?;
        let price = Money::new(row.price, currency).map_err(Cause::new)?;
        details.ticket_types.push(TicketType { id: row.id, name: row.name, price });
        event.inventory.types.push(row.stock);
    }
    if event.inventory.types.is_empty() {
        return Err(Cause::new("has no ticket type"));
    }
    Ok(event)
}

pub(super) fn entry_row(row: &Row<'_>) -> RowResult<Entry> {
    let text = |column: usize| row.get::<_, String>(column).map_err(Cause::new);
    let text_if_set = |column: usize| row.get::<_, Option<String>>(column).map_err(Cause::new);
    let id = |column: usize| row.get::<_, Option<[u8; 16]>>(column).map_err(Cause::new);
    Ok(Entry {
        event_id: EventId::from_bytes(row.get(0).map_err(Cause::new)?),
        seq: row.get(1).map_err(Cause::new)?,
        kind: text(2)?.parse().map_err(Cause::new)?,
        booking_id: id(3)?.map(BookingId::from_bytes),
        refund_id: id(4)?.map(RefundId::from_bytes),
        lines: row::lines_from(&text(5)?)?,
        quantity: row.get(6).map_err(Cause::new)?,
        from: text_if_set(7)?.map(|text| text.parse()).transpose().map_err(Cause::new)?,
        to: text_if_set(8)?.map(|text| text.parse()).transpose().map_err(Cause::new)?,
        available_after: row.get(9).map_err(Cause::new)?,
        previous_seq: row.get(10).map_err(Cause::new)?,
        actor: text(11)?.parse().map_err(Cause::new)?,
        request: text(12)?.parse().map_err(Cause::new)?,
        at: time(row.get(13).map_err(Cause::new)?)?,
        trace: text_if_set(14)?.map(|text| text.parse()).transpose().map_err(Cause::new)?,
    })
}

pub(super) fn refund_row(row: &Row<'_>) -> RowResult<Refund> {
    let text = |column: usize| row.get::<_, String>(column).map_err(Cause::new);
    let currency: Currency = text(5)?.parse().map_err(Cause::new)?;
    let reference: Option<String> = row.get(8).map_err(Cause::new)?;
    let settled: Option<i64> = row.get(10).map_err(Cause::new)?;
    Ok(Refund {
        id: RefundId::from_bytes(row.get(0).map_err(Cause::new)?),
        booking_id: BookingId::from_bytes(row.get(1).map_err(Cause::new)?),
        event_id: EventId::from_bytes(row.get(2).map_err(Cause::new)?),
        transaction: text(3)?.parse().map_err(Cause::new)?,
        amount: Money::new(row.get(4).map_err(Cause::new)?, currency).map_err(Cause::new)?,
        status: text(6)?.parse().map_err(Cause::new)?,
        reason: text(7)?.parse().map_err(Cause::new)?,
        provider_reference: reference.map(|text| text.parse()).transpose().map_err(Cause::new)?,
        created_at: time(row.get(9).map_err(Cause::new)?)?,
        settled_at: settled.map(time).transpose()?,
    })
}

fn with_id(id: impl std::fmt::Display, cause: &impl std::fmt::Display) -> Cause {
    Cause::new(format!("{id}: {cause}"))
}
