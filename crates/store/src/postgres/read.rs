//! Decoding of PostgreSQL rows. Stored data is not trusted.

use std::sync::Arc;

use domain::{
    Booking, BookingId, Currency, Entry, Event, EventDetails, EventId, Inventory, Money, Refund, RefundId,
    Tallies, TicketType, TicketTypeId, Timestamp, TypeInventory, UserId,
};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use crate::fold::{RowResult, StoredResponse};
use crate::row::{self, BookingRow, time};
use crate::{Cause, EntryWithBooking};

/// Reads the columns of a row, numbered from a first column.
#[derive(Clone, Copy)]
pub(super) struct RowReader<'r> {
    row: &'r Row,
    first: usize,
}

impl<'r> RowReader<'r> {
    pub(super) fn new(row: &'r Row, first: usize) -> Self {
        Self { row, first }
    }

    pub(super) fn get<T: FromSql<'r>>(self, column: usize) -> RowResult<T> {
        self.row.try_get(self.first + column).map_err(|error| Cause::new(super::session::describe(&error)))
    }

    /// A number, checked against the range of its type.
    pub(super) fn number<N: TryFrom<i64>>(self, column: usize) -> RowResult<N> {
        narrow(self.get(column)?)
    }

    fn number_if_set<N: TryFrom<i64>>(self, column: usize) -> RowResult<Option<N>> {
        self.get::<Option<i64>>(column)?.map(narrow).transpose()
    }

    pub(super) fn id(self, column: usize) -> RowResult<[u8; 16]> {
        Ok(self.get::<Uuid>(column)?.into_bytes())
    }

    fn id_if_set(self, column: usize) -> RowResult<Option<[u8; 16]>> {
        Ok(self.get::<Option<Uuid>>(column)?.map(Uuid::into_bytes))
    }

    pub(super) fn at(self, column: usize) -> RowResult<Timestamp> {
        time(self.get(column)?)
    }

    fn at_if_set(self, column: usize) -> RowResult<Option<Timestamp>> {
        self.get::<Option<i64>>(column)?.map(time).transpose()
    }

    /// A value that is stored as text.
    pub(super) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(self, column: usize) -> RowResult<T> {
        self.get::<&str>(column)?.parse().map_err(Cause::new)
    }

    fn parse_if_set<T: std::str::FromStr<Err: std::fmt::Display>>(
        self,
        column: usize,
    ) -> RowResult<Option<T>> {
        self.get::<Option<&str>>(column)?.map(|text| text.parse().map_err(Cause::new)).transpose()
    }
}

fn narrow<N: TryFrom<i64>>(number: i64) -> RowResult<N> {
    N::try_from(number).map_err(|_| Cause::new(format!("the number {number} is out of range")))
}

/// Decodes events from their rows: one row per ticket type, the rows of an event adjacent.
pub(super) fn events(rows: &[Row]) -> RowResult<Vec<(EventId, RowResult<Event>)>> {
    let mut events: Vec<(EventId, RowResult<Event>)> = Vec::new();
    for row in rows {
        let cells = RowReader::new(row, 0);
        let id = EventId::from_bytes(cells.id(0)?);
        if events.last().is_none_or(|(last, _)| *last != id) {
            events.push((id, event(id, cells)));
        }
        let Some((_, slot)) = events.last_mut() else { continue };
        let Ok(event) = slot else { continue };
        if let Err(cause) = push_type(event, cells) {
            *slot = Err(cause);
        }
    }
    for (id, event) in &mut events {
        if let Err(cause) = event {
            *cause = Cause::new(format!("{id}: {cause}"));
        }
    }
    Ok(events)
}

fn event(id: EventId, row: RowReader<'_>) -> RowResult<Event> {
    if row.get::<Option<&str>>(11)?.is_none() {
        return Err(Cause::new("has counters but no description"));
    }
    let details = EventDetails {
        name: row.parse(11)?,
        venue: row.parse(12)?,
        starts_at: row.at(13)?,
        time_zone: row.parse_if_set(14)?,
        currency: row.parse(15)?,
        sales_start_at: row.at_if_set(16)?,
        sales_end_at: row.at_if_set(17)?,
        hold_seconds: row.number(18)?,
        cancel_cutoff_seconds: row.number(19)?,
        max_tickets_per_booking: row.number(20)?,
        max_tickets_per_user: row.number_if_set(21)?,
        status: row.parse(22)?,
        ticket_types: Vec::new(),
        version: row.number(23)?,
        created_at: row.at(24)?,
        updated_at: row.at(25)?,
    };
    let inventory = Inventory {
        capacity: row.number(1)?,
        held: row.number(2)?,
        sold: row.number(3)?,
        types: Vec::new(),
        seq: row.number(4)?,
        last_at: row.at(5)?,
        tallies: tallies(row, 6)?,
    };
    Ok(Event { id, details: Arc::new(details), inventory })
}

/// Decodes four counts of bookings and the revenue, starting at the column `first`.
pub(super) fn tallies(row: RowReader<'_>, first: usize) -> RowResult<Tallies> {
    Ok(Tallies {
        pending: row.number(first)?,
        confirmed: row.number(first + 1)?,
        cancelled: row.number(first + 2)?,
        expired: row.number(first + 3)?,
        revenue: row.parse(first + 4)?,
    })
}

fn push_type(event: &mut Event, row: RowReader<'_>) -> RowResult<()> {
    let id = row.id_if_set(26)?.ok_or_else(|| Cause::new("has no ticket type"))?;
    let details = Arc::make_mut(&mut event.details);
    let price = Money::new(row.get(28)?, details.currency).map_err(Cause::new)?;
    details.ticket_types.push(TicketType { id: TicketTypeId::from_bytes(id), name: row.parse(27)?, price });
    let stock =
        TypeInventory { capacity: row.number_if_set(29)?, held: row.number(30)?, sold: row.number(31)? };
    event.inventory.types.push(stock);
    Ok(())
}

/// Decodes a booking.
pub(super) fn booking(row: RowReader<'_>) -> RowResult<Booking> {
    let id = row.id(0)?;
    let of_row = |cause: Cause| Cause::new(format!("{}: {cause}", BookingId::from_bytes(id)));
    booking_row(id, row).map_err(of_row)?.try_into()
}

fn booking_row(id: [u8; 16], row: RowReader<'_>) -> RowResult<BookingRow> {
    Ok(BookingRow {
        id,
        event_id: row.id(1)?,
        user_id: row.get(2)?,
        status: row.get(3)?,
        version: row.number(4)?,
        last_seq: row.number(5)?,
        items: row.get(6)?,
        currency: row.get(7)?,
        total: row.get(8)?,
        hold_expires_at: row.get(9)?,
        payment_method: row.get(10)?,
        transaction_id: row.get(11)?,
        confirmed_at: row.get(12)?,
        cancelled_at: row.get(13)?,
        cancellation_reason: row.get(14)?,
        refunded: row.get(15)?,
        expired_at: row.get(16)?,
        created_at: row.get(17)?,
        updated_at: row.get(18)?,
    })
}

pub(super) fn entry(row: RowReader<'_>) -> RowResult<Entry> {
    Ok(Entry {
        event_id: EventId::from_bytes(row.id(0)?),
        seq: row.number(1)?,
        kind: row.parse(2)?,
        booking_id: row.id_if_set(3)?.map(BookingId::from_bytes),
        refund_id: row.id_if_set(4)?.map(RefundId::from_bytes),
        lines: row::lines_from(row.get(5)?)?,
        quantity: row.number(6)?,
        from: row.parse_if_set(7)?,
        to: row.parse_if_set(8)?,
        available_after: row.number(9)?,
        previous_seq: row.number_if_set(10)?,
        actor: row.parse(11)?,
        request: row.parse(12)?,
        at: row.at(13)?,
        trace: row.parse_if_set(14)?,
    })
}

/// Decodes an entry, and its booking from the columns after it, if it has one.
pub(super) fn entry_with_booking(row: RowReader<'_>) -> RowResult<EntryWithBooking> {
    let of_booking = RowReader { row: row.row, first: row.first + ENTRY_COLUMNS };
    let booking = match of_booking.id_if_set(0)? {
        Some(_) => Some(booking(of_booking)?),
        None => None,
    };
    Ok(EntryWithBooking { entry: entry(row)?, booking })
}

/// Number of columns of an entry.
const ENTRY_COLUMNS: usize = 15;

pub(super) fn refund(row: RowReader<'_>) -> RowResult<Refund> {
    let currency: Currency = row.parse(5)?;
    Ok(Refund {
        id: RefundId::from_bytes(row.id(0)?),
        booking_id: BookingId::from_bytes(row.id(1)?),
        event_id: EventId::from_bytes(row.id(2)?),
        transaction: row.parse(3)?,
        amount: Money::new(row.get(4)?, currency).map_err(Cause::new)?,
        status: row.parse(6)?,
        reason: row.parse(7)?,
        provider_reference: row.parse_if_set(8)?,
        created_at: row.at(9)?,
        settled_at: row.at_if_set(10)?,
    })
}

/// Decodes scope, key, and the response stored under them.
pub(super) fn stored_response(row: RowReader<'_>) -> RowResult<((String, String), StoredResponse)> {
    let fingerprint = row.get::<&[u8]>(2)?.try_into().map_err(Cause::new)?;
    let response = row.get::<&[u8]>(3)?.into();
    Ok(((row.get(0)?, row.get(1)?), StoredResponse { fingerprint, response }))
}

/// Decodes a user, the number of tickets that the user's bookings hold, and the stored count.
pub(super) fn counted_user(row: RowReader<'_>) -> RowResult<(UserId, u64, Option<u32>)> {
    Ok((row.parse(0)?, row.number(1)?, row.number_if_set(2)?))
}
