//! Rows to values, the same for every database.
//!
//! Stored data is not trusted: an unknown status, an impossible combination of columns or a number out of
//! range is an error that names the row and the column, never a default.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use domain::{
    Booking, BookingId, Currency, Entry, Event, EventDetails, EventId, ExternalRef, Inventory, LedgerKind,
    Money, Payment, Refund, RefundId, State, Tallies, TicketType, TicketTypeId, Timestamp, TransactionId,
    TypeInventory, UserId,
};

use crate::cell::Cells;
use crate::columns::{
    BookingExternalRef, BookingOrigin, BookingState, EventCounters, EventDescription, EventKey, EventOrigin,
    EventTallies, IdempotencyKey, LedgerEntry, RefundOrigin, RefundState, TicketTypeCounters,
    TicketTypeDescription, TicketTypeKey, TicketTypeOrigin,
};
use crate::fault::RowResult;
use crate::fold::{OverdueHold, StoredResponse};
use crate::json;
use crate::{CancelledEvent, Cause, Cursor, DueHold, EntryWithBooking};

/// Names the row in the reason why it cannot be decoded.
fn of_row<T>(row: impl Display, result: RowResult<T>) -> RowResult<T> {
    result.map_err(|cause| Cause::new(format!("{row}: {cause}")))
}

/// Parses a column of text.
fn parse<T: FromStr<Err: Display>>(column: &str, text: &str) -> RowResult<T> {
    text.parse().map_err(|error| Cause::new(format!("{column}: {error}")))
}

fn parse_if_set<T: FromStr<Err: Display>>(column: &str, text: Option<&Cow<'_, str>>) -> RowResult<Option<T>> {
    text.map(|text| parse(column, text)).transpose()
}

/// Decodes an instant from microseconds since 1970.
fn time(column: &str, micros: i64) -> RowResult<Timestamp> {
    Timestamp::from_micros(micros).map_err(|error| Cause::new(format!("{column}: {error}")))
}

fn time_if_set(column: &str, micros: Option<i64>) -> RowResult<Option<Timestamp>> {
    micros.map(|micros| time(column, micros)).transpose()
}

/// Decodes an event without its ticket types.
pub(crate) fn event(cells: &mut Cells<'_>) -> RowResult<(EventId, RowResult<Event>)> {
    let id = EventId::from_bytes(cells.next()?);
    Ok((id, of_row(id, event_without_types(id, cells))))
}

fn event_without_types(id: EventId, cells: &mut Cells<'_>) -> RowResult<Event> {
    let counters: EventCounters = cells.next()?;
    let tallies = tallies(cells)?;
    if cells.is_null()? {
        return Err(Cause::new("has counters but no description"));
    }
    let origin: EventOrigin<'_> = cells.next()?;
    let row: EventDescription<'_> = cells.next()?;
    let details = EventDetails {
        name: parse("name", &row.name)?,
        venue: parse("venue", &row.venue)?,
        starts_at: time("starts_at", row.starts_at)?,
        time_zone: parse_if_set("time_zone", row.time_zone.as_ref())?,
        currency: parse("currency", &origin.currency)?,
        sales_start_at: time_if_set("sales_start_at", row.sales_start_at)?,
        sales_end_at: time_if_set("sales_end_at", row.sales_end_at)?,
        hold_seconds: row.hold_seconds,
        cancel_cutoff_seconds: row.cancel_cutoff_seconds,
        max_tickets_per_booking: row.max_tickets_per_booking,
        max_tickets_per_user: row.max_tickets_per_user,
        status: parse("status", &row.status)?,
        ticket_types: Vec::new(),
        version: row.version,
        created_at: time("created_at", origin.created_at)?,
        updated_at: time("updated_at", row.updated_at)?,
    };
    let inventory = Inventory {
        capacity: counters.capacity,
        held: counters.held,
        sold: counters.sold,
        types: Vec::new(),
        seq: counters.seq,
        last_at: time("last_at", counters.last_at)?,
        tallies,
    };
    Ok(Event { id, details: Arc::new(details), inventory })
}

fn tallies(cells: &mut Cells<'_>) -> RowResult<Tallies> {
    let row: EventTallies<'_> = cells.next()?;
    Ok(Tallies {
        pending: row.pending,
        confirmed: row.confirmed,
        cancelled: row.cancelled,
        expired: row.expired,
        revenue: parse("revenue", &row.revenue.0)?,
    })
}

/// Decodes the tallies of an event, and the currency in which it sells.
pub(crate) fn tallies_in_currency(cells: &mut Cells<'_>) -> RowResult<(Currency, Tallies)> {
    let currency: Cow<'_, str> = cells.next()?;
    Ok((parse("currency", &currency)?, tallies(cells)?))
}

/// A ticket type. Its price has no currency yet: that is in the event's row.
pub(crate) struct TicketTypeRow {
    id: TicketTypeId,
    name: domain::Name,
    price: i64,
    inventory: TypeInventory,
}

/// Decodes a ticket type, and the event that it belongs to.
pub(crate) fn ticket_type(cells: &mut Cells<'_>) -> RowResult<(EventId, RowResult<TicketTypeRow>)> {
    let event = EventId::from_bytes(cells.peek()?);
    Ok((event, of_row("a ticket type", ticket_type_content(cells))))
}

/// Decodes the ticket type beside an event and its description; `None` if there is none.
pub(crate) fn ticket_type_beside_event(cells: &Cells<'_>) -> RowResult<Option<RowResult<TicketTypeRow>>> {
    let event = [EventKey::COLUMNS, EventCounters::COLUMNS, EventTallies::COLUMNS];
    let details = [EventOrigin::COLUMNS, EventDescription::COLUMNS];
    let mut beside =
        event.into_iter().chain(details).fold(cells.after(&[]), |cells, group| cells.after(group));
    if beside.is_null()? {
        return Ok(None);
    }
    ticket_type(&mut beside).map(|(_, kind)| Some(kind))
}

fn ticket_type_content(cells: &mut Cells<'_>) -> RowResult<TicketTypeRow> {
    let _: TicketTypeKey = cells.next()?;
    let TicketTypeOrigin { id } = cells.next()?;
    let row: TicketTypeDescription<'_> = cells.next()?;
    let TicketTypeCounters { held, sold } = cells.next()?;
    Ok(TicketTypeRow {
        id: TicketTypeId::from_bytes(id),
        name: parse("name", &row.name)?,
        price: row.price,
        inventory: TypeInventory { capacity: row.capacity, held, sold },
    })
}

/// Adds the ticket types to an event.
pub(crate) fn with_ticket_types(
    event: RowResult<Event>,
    rows: impl IntoIterator<Item = RowResult<TicketTypeRow>>,
) -> RowResult<Event> {
    let mut event = event?;
    of_row(event.id, add_ticket_types(&mut event, rows))?;
    Ok(event)
}

fn add_ticket_types(
    event: &mut Event,
    rows: impl IntoIterator<Item = RowResult<TicketTypeRow>>,
) -> RowResult<()> {
    let details = Arc::make_mut(&mut event.details);
    for row in rows {
        let TicketTypeRow { id, name, price, inventory } = row?;
        let price = Money::new(price, details.currency).map_err(Cause::new)?;
        details.ticket_types.push(TicketType { id, name, price });
        event.inventory.types.push(inventory);
    }
    if event.inventory.types.is_empty() {
        return Err(Cause::new("has no ticket type"));
    }
    Ok(())
}

/// Decodes a booking, and its id.
pub(crate) fn booking_with_id(cells: &mut Cells<'_>) -> RowResult<(BookingId, RowResult<Booking>)> {
    let id = BookingId::from_bytes(cells.peek()?);
    Ok((id, booking(cells)))
}

/// Decodes a booking.
pub(crate) fn booking(cells: &mut Cells<'_>) -> RowResult<Booking> {
    let id = BookingId::from_bytes(cells.peek()?);
    of_row(format_args!("booking {id}"), booking_row(id, cells))
}

fn booking_row(id: BookingId, cells: &mut Cells<'_>) -> RowResult<Booking> {
    let origin: BookingOrigin<'_> = cells.next()?;
    let row: BookingState<'_> = cells.next()?;
    let currency: Currency = parse("currency", &origin.currency)?;
    Ok(Booking {
        id,
        event_id: EventId::from_bytes(origin.event_id),
        user: parse("user_id", &origin.user_id)?,
        items: json::items_from(&origin.items, currency)?,
        total: Money::new(origin.total, currency).map_err(Cause::new)?,
        hold_expires_at: time("hold_expires_at", origin.hold_expires_at)?,
        payment_method: parse_if_set("payment_method", origin.payment_method.as_ref())?,
        external_ref: parse_if_set("external_ref", origin.external_ref.as_ref())?,
        metadata: json::metadata_from(origin.metadata.as_deref())?,
        state: state(&row)?,
        version: row.version,
        last_seq: row.last_seq,
        created_at: time("created_at", origin.created_at)?,
        updated_at: time("updated_at", row.updated_at)?,
    })
}

fn state(row: &BookingState<'_>) -> RowResult<State> {
    let payment = match (&row.transaction_id, row.confirmed_at) {
        (Some(transaction), Some(at)) => Some(Payment {
            transaction: parse("transaction_id", transaction)?,
            at: time("confirmed_at", at)?,
        }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(Cause::new("has only one of transaction and payment time"));
        }
    };
    let cancelled_at = time_if_set("cancelled_at", row.cancelled_at)?;
    let expired_at = time_if_set("expired_at", row.expired_at)?;
    match (&*row.status, payment, cancelled_at, expired_at) {
        ("pending", None, None, None) => Ok(State::Pending),
        ("confirmed", Some(payment), None, None) => Ok(State::Confirmed(payment)),
        ("cancelled", payment, Some(at), None) => {
            let reason = parse_if_set("cancellation_reason", row.cancellation_reason.as_ref())?;
            Ok(State::Cancelled { at, reason, payment, refunded: row.refunded })
        }
        ("expired", None, None, Some(at)) => Ok(State::Expired { at }),
        (status, ..) => Err(Cause::new(format!("status {status} contradicts its dates"))),
    }
}

/// Decodes an event, and an external reference that one of its bookings has.
pub(crate) fn external_ref(cells: &mut Cells<'_>) -> RowResult<(EventId, ExternalRef)> {
    let row: BookingExternalRef<'_> = cells.next()?;
    Ok((EventId::from_bytes(row.event_id), parse("external_ref", &row.external_ref)?))
}

/// Decodes the deadline and the id of an overdue hold, and the hold with the number of tickets that its user
/// holds in all.
pub(crate) fn overdue_hold(cells: &mut Cells<'_>) -> RowResult<((i64, BookingId), RowResult<OverdueHold>)> {
    let at = cells.peek_at(BookingOrigin::COLUMNS, "hold_expires_at")?;
    let key = (at, BookingId::from_bytes(cells.peek()?));
    let hold = booking(cells).and_then(|booking| {
        let user_tickets: Option<u32> = of_row(&booking.user, cells.next())?;
        Ok(OverdueHold { booking, user_tickets: user_tickets.unwrap_or(0) })
    });
    Ok((key, hold))
}

/// Decodes a ledger entry, and its number.
pub(crate) fn entry_with_seq(cells: &mut Cells<'_>) -> RowResult<(i64, RowResult<Entry>)> {
    Ok((cells.peek_at(LedgerEntry::COLUMNS, "seq")?, entry(cells)))
}

/// Decodes a ledger entry.
pub(crate) fn entry(cells: &mut Cells<'_>) -> RowResult<Entry> {
    let row: LedgerEntry<'_> = cells.next()?;
    let (kind, from, to) = LedgerKind::parse(&row.kind, row.from_status.as_deref(), row.to_status.as_deref())
        .map_err(Cause::new)?;
    Ok(Entry {
        event_id: EventId::from_bytes(row.event_id),
        seq: row.seq,
        kind,
        booking_id: row.booking_id.map(BookingId::from_bytes),
        refund_id: row.refund_id.map(RefundId::from_bytes),
        lines: json::lines_from(&row.lines)?,
        quantity: row.quantity,
        from,
        to,
        available_after: row.available_after,
        previous_seq: row.previous_seq,
        actor: parse("actor", &row.actor)?,
        request: parse("request_id", &row.request_id)?,
        at: time("at", row.at)?,
        trace: parse_if_set("trace", row.trace.as_ref())?,
    })
}

/// Decodes a ledger entry and its booking, if it has one.
pub(crate) fn entry_with_booking(cells: &mut Cells<'_>) -> RowResult<EntryWithBooking> {
    let mut beside = cells.after(LedgerEntry::COLUMNS);
    let entry = entry(cells)?;
    let booking = if beside.is_null()? { None } else { Some(booking(&mut beside)?) };
    Ok(EntryWithBooking { entry, booking })
}

/// Decodes a ledger entry, and the booking beside it, if there is one that can be decoded.
pub(crate) fn entry_beside_booking(cells: &mut Cells<'_>) -> (RowResult<Entry>, Option<Booking>) {
    let mut beside = cells.after(LedgerEntry::COLUMNS);
    (entry(cells), booking(&mut beside).ok())
}

/// Decodes a refund, and its id.
pub(crate) fn refund_with_id(cells: &mut Cells<'_>) -> RowResult<(RefundId, RowResult<Refund>)> {
    let id = RefundId::from_bytes(cells.peek()?);
    Ok((id, refund(cells)))
}

/// Decodes a refund, and the payment that it refunds.
pub(crate) fn refund_with_payment(
    cells: &mut Cells<'_>,
) -> RowResult<((BookingId, TransactionId), RowResult<Refund>)> {
    let booking = BookingId::from_bytes(cells.peek_at(RefundOrigin::COLUMNS, "booking_id")?);
    let transaction: Cow<'_, str> = cells.peek_at(RefundOrigin::COLUMNS, "transaction_id")?;
    Ok(((booking, parse("transaction_id", &transaction)?), refund(cells)))
}

/// Decodes a refund.
pub(crate) fn refund(cells: &mut Cells<'_>) -> RowResult<Refund> {
    let id = RefundId::from_bytes(cells.peek()?);
    of_row(format_args!("refund {id}"), refund_row(id, cells))
}

fn refund_row(id: RefundId, cells: &mut Cells<'_>) -> RowResult<Refund> {
    let origin: RefundOrigin<'_> = cells.next()?;
    let row: RefundState<'_> = cells.next()?;
    let currency: Currency = parse("currency", &origin.currency)?;
    Ok(Refund {
        id,
        booking_id: BookingId::from_bytes(origin.booking_id),
        event_id: EventId::from_bytes(origin.event_id),
        transaction: parse("transaction_id", &origin.transaction_id)?,
        amount: Money::new(origin.amount, currency).map_err(Cause::new)?,
        status: parse("status", &row.status)?,
        reason: parse("reason", &origin.reason)?,
        provider_reference: parse_if_set("provider_reference", row.provider_reference.as_ref())?,
        created_at: time("created_at", origin.created_at)?,
        settled_at: time_if_set("settled_at", row.settled_at)?,
    })
}

/// Decodes scope, key, and the response stored under them.
pub(crate) fn stored_response(cells: &mut Cells<'_>) -> RowResult<((String, String), StoredResponse)> {
    let row: IdempotencyKey<'_> = cells.next()?;
    let fingerprint = (*row.fingerprint).try_into().map_err(Cause::new)?;
    let stored = StoredResponse { fingerprint, response: (*row.response).into() };
    Ok(((row.scope.into_owned(), row.key.into_owned()), stored))
}

/// Decodes an event, a user, and the number of tickets that the user holds.
pub(crate) fn user_tickets(cells: &mut Cells<'_>) -> RowResult<(EventId, RowResult<(UserId, u32)>)> {
    Ok((EventId::from_bytes(cells.next()?), tickets_of_user(cells)))
}

fn tickets_of_user(cells: &mut Cells<'_>) -> RowResult<(UserId, u32)> {
    let user: Cow<'_, str> = cells.next()?;
    Ok((parse("user_id", &user)?, of_row(format_args!("user {user}"), cells.next())?))
}

/// Decodes a user, the number of tickets that the user's bookings hold, and the stored count.
pub(crate) fn counted_user(cells: &mut Cells<'_>) -> RowResult<(UserId, u64, Option<u32>)> {
    let name: Cow<'_, str> = cells.next()?;
    let user = parse("user_id", &name)?;
    let holds = of_row(format_args!("user {name}"), cells.next())?;
    Ok((user, holds, of_row(format_args!("user {name}"), cells.next())?))
}

/// Decodes the key of an overdue hold.
pub(crate) fn due_hold(cells: &mut Cells<'_>) -> RowResult<DueHold> {
    let (event, at_micros, booking) = (cells.next()?, cells.next()?, cells.next()?);
    Ok(DueHold { event: EventId::from_bytes(event), at_micros, booking: BookingId::from_bytes(booking) })
}

/// Decodes a cancelled event.
pub(crate) fn cancelled_event(cells: &mut Cells<'_>) -> RowResult<CancelledEvent> {
    let event = EventId::from_bytes(cells.next()?);
    Ok(CancelledEvent { event, has_live_bookings: cells.next()? })
}

/// Decodes the id of a booking.
pub(crate) fn booking_id(cells: &mut Cells<'_>) -> RowResult<BookingId> {
    cells.next().map(BookingId::from_bytes)
}

/// Decodes the cursor of an event.
pub(crate) fn cursor(cells: &mut Cells<'_>) -> RowResult<Cursor> {
    let event = EventId::from_bytes(cells.next()?);
    let ledger = cells.next()?;
    Ok(Cursor { event, ledger, processed: cells.next()? })
}

/// Decodes a count.
pub(crate) fn count(cells: &mut Cells<'_>) -> RowResult<u64> {
    cells.next()
}
