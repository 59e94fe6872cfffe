//! The write statements of a batch: one per table and kind of change, with one array parameter per column.
//!
//! Each statement counts the rows that it changes and fails its transaction if any is missing.

use domain::{Booking, BookingId, Entry, Event, EventId, RefundId, Timestamp, UserId};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::session::{Call, Value};
use super::sql::Sql;
use crate::IDEMPOTENCY_TTL_SECONDS;
use crate::fold::{BookingChange, Changes, EventChange, RefundChange};
use crate::row::{self, StateColumns};

/// The write statements of a batch, in the order in which rows are locked; none for tables without changes.
pub(super) fn calls(changes: &Changes) -> Vec<Call<'_>> {
    let (new_events, known_events): (Vec<_>, Vec<_>) =
        changes.events.values().partition(|change| change.loaded_seq.is_none());
    let described: Vec<&Event> =
        changes.events.values().filter(|change| change.details_changed).map(|change| &change.event).collect();
    let counted = changes.events.values().filter(|change| !change.details_changed);
    let counted: Vec<&Event> = counted.map(|change| &change.event).collect();
    let (new_bookings, known_bookings): (Vec<_>, Vec<_>) =
        changes.bookings.values().partition(|change| change.loaded_version.is_none());
    let (new_refunds, known_refunds): (Vec<_>, Vec<_>) =
        changes.refunds.values().partition(|change| change.loaded_status.is_none());
    [
        event_insert(&new_events),
        event_update(&known_events),
        event_details_upsert(&described),
        ticket_type_upsert(&described),
        ticket_type_update(&counted),
        user_limit_upsert(changes),
        booking_insert(&new_bookings),
        booking_update(&known_bookings),
        refund_insert(&new_refunds),
        refund_update(&known_refunds),
        ledger_insert(&changes.entries),
        idempotency_upsert(changes),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// An array parameter: one value of each row.
fn column<'v, R, V: 'v>(rows: &[R], value: impl Fn(&R) -> V) -> Value<'v>
where
    Vec<V>: ToSql + Send + Sync,
{
    Box::new(rows.iter().map(value).collect::<Vec<V>>())
}

/// A statement; `None` if it has no rows.
fn call<'v, R>(sql: Sql, rows: &[R], values: impl FnOnce() -> Vec<Value<'v>>) -> Option<Call<'v>> {
    (!rows.is_empty()).then(|| Call { sql, values: values() })
}

/// Saturates; all counts are far below that bound.
fn to_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn uuid(bytes: &[u8; 16]) -> Uuid {
    Uuid::from_bytes(*bytes)
}

fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::micros)
}

fn event_counters<'v>(rows: &[&'v EventChange]) -> Vec<Value<'v>> {
    vec![
        column(rows, |change| uuid(change.event.id.bytes())),
        column(rows, |change| i64::from(change.event.inventory.capacity)),
        column(rows, |change| i64::from(change.event.inventory.held)),
        column(rows, |change| i64::from(change.event.inventory.sold)),
        column(rows, |change| to_i64(change.event.inventory.seq)),
        column(rows, |change| change.event.inventory.last_at.micros()),
        column(rows, |change| to_i64(change.event.inventory.tallies.pending)),
        column(rows, |change| to_i64(change.event.inventory.tallies.confirmed)),
        column(rows, |change| to_i64(change.event.inventory.tallies.cancelled)),
        column(rows, |change| to_i64(change.event.inventory.tallies.expired)),
        column(rows, |change| change.event.inventory.tallies.revenue.to_string()),
    ]
}

fn event_insert<'v>(rows: &[&'v EventChange]) -> Option<Call<'v>> {
    call(Sql::EventInsert, rows, || event_counters(rows))
}

fn event_update<'v>(rows: &[&'v EventChange]) -> Option<Call<'v>> {
    call(Sql::EventUpdate, rows, || {
        let mut values = event_counters(rows);
        values.push(column(rows, |change| change.loaded_seq.map(to_i64)));
        values
    })
}

fn event_details_upsert<'v>(rows: &[&'v Event]) -> Option<Call<'v>> {
    call(Sql::EventDetailsUpsert, rows, || {
        vec![
            column(rows, |event| uuid(event.id.bytes())),
            column(rows, |event| event.details.name.as_str()),
            column(rows, |event| event.details.venue.as_str()),
            column(rows, |event| event.details.starts_at.micros()),
            column(rows, |event| event.details.time_zone.map(|zone| zone.as_str())),
            column(rows, |event| event.details.currency.code()),
            column(rows, |event| micros(event.details.sales_start_at)),
            column(rows, |event| micros(event.details.sales_end_at)),
            column(rows, |event| i64::from(event.details.hold_seconds)),
            column(rows, |event| i64::from(event.details.cancel_cutoff_seconds)),
            column(rows, |event| i64::from(event.details.max_tickets_per_booking)),
            column(rows, |event| event.details.max_tickets_per_user.map(i64::from)),
            column(rows, |event| event.details.status.as_str()),
            column(rows, |event| i64::from(event.details.version)),
            column(rows, |event| event.details.created_at.micros()),
            column(rows, |event| event.details.updated_at.micros()),
        ]
    })
}

/// Each ticket type as its event and its position in the organiser's order.
fn types<'v>(events: &[&'v Event]) -> Vec<(&'v Event, usize)> {
    let positions = |event: &&'v Event| {
        let event = *event;
        (0..event.inventory.types.len()).map(move |position| (event, position))
    };
    events.iter().flat_map(positions).collect()
}

fn ticket_type_upsert<'v>(events: &[&'v Event]) -> Option<Call<'v>> {
    let rows = types(events);
    call(Sql::TicketTypeUpsert, &rows, || {
        vec![
            column(&rows, |(event, _)| uuid(event.id.bytes())),
            column(&rows, |(_, position)| to_i64(*position as u64)),
            column(&rows, |(event, position)| uuid(event.details.ticket_types[*position].id.bytes())),
            column(&rows, |(event, position)| event.details.ticket_types[*position].name.as_str()),
            column(&rows, |(event, position)| event.details.ticket_types[*position].price.amount()),
            column(&rows, |(event, position)| event.inventory.types[*position].capacity.map(i64::from)),
            column(&rows, |(event, position)| i64::from(event.inventory.types[*position].held)),
            column(&rows, |(event, position)| i64::from(event.inventory.types[*position].sold)),
        ]
    })
}

fn ticket_type_update<'v>(events: &[&'v Event]) -> Option<Call<'v>> {
    let rows = types(events);
    call(Sql::TicketTypeUpdate, &rows, || {
        vec![
            column(&rows, |(event, _)| uuid(event.id.bytes())),
            column(&rows, |(_, position)| to_i64(*position as u64)),
            column(&rows, |(event, position)| i64::from(event.inventory.types[*position].held)),
            column(&rows, |(event, position)| i64::from(event.inventory.types[*position].sold)),
        ]
    })
}

fn user_limit_upsert(changes: &Changes) -> Option<Call<'_>> {
    let rows: Vec<(&(EventId, UserId), &u32)> = changes.user_tickets.iter().collect();
    let limit =
        |event: &EventId| changes.events.get(event)?.event.details.max_tickets_per_user.map(i64::from);
    call(Sql::UserLimitUpsert, &rows, || {
        vec![
            column(&rows, |((event, _), _)| uuid(event.bytes())),
            column(&rows, |((_, user), _)| user.as_str()),
            column(&rows, |(_, tickets)| i64::from(**tickets)),
            column(&rows, |((event, _), _)| limit(event)),
        ]
    })
}

fn booking_insert<'v>(changes: &[&'v BookingChange]) -> Option<Call<'v>> {
    let rows: Vec<(&'v Booking, StateColumns<'v>)> = with_state(changes);
    call(Sql::BookingInsert, &rows, || {
        vec![
            column(&rows, |(booking, _)| uuid(booking.id.bytes())),
            column(&rows, |(booking, _)| uuid(booking.event_id.bytes())),
            column(&rows, |(booking, _)| booking.user.as_str()),
            column(&rows, |(booking, _)| booking.status().as_str()),
            column(&rows, |(booking, _)| i64::from(booking.version)),
            column(&rows, |(booking, _)| to_i64(booking.last_seq)),
            column(&rows, |(booking, _)| row::items_to(&booking.items)),
            column(&rows, |(booking, _)| booking.total.currency().code()),
            column(&rows, |(booking, _)| booking.total.amount()),
            column(&rows, |(booking, _)| booking.hold_expires_at.micros()),
            column(&rows, |(booking, _)| booking.payment_method.as_ref().map(domain::Note::as_str)),
            column(&rows, |(_, state)| state.transaction_id),
            column(&rows, |(_, state)| state.confirmed_at),
            column(&rows, |(_, state)| state.cancelled_at),
            column(&rows, |(_, state)| state.cancellation_reason),
            column(&rows, |(_, state)| state.refunded),
            column(&rows, |(_, state)| state.expired_at),
            column(&rows, |(booking, _)| booking.created_at.micros()),
            column(&rows, |(booking, _)| booking.updated_at.micros()),
        ]
    })
}

fn booking_update<'v>(changes: &[&'v BookingChange]) -> Option<Call<'v>> {
    let rows: Vec<(&'v Booking, StateColumns<'v>)> = with_state(changes);
    call(Sql::BookingUpdate, &rows, || {
        vec![
            column(&rows, |(booking, _)| uuid(booking.id.bytes())),
            column(&rows, |(booking, _)| booking.status().as_str()),
            column(&rows, |(booking, _)| i64::from(booking.version)),
            column(&rows, |(booking, _)| to_i64(booking.last_seq)),
            column(&rows, |(_, state)| state.transaction_id),
            column(&rows, |(_, state)| state.confirmed_at),
            column(&rows, |(_, state)| state.cancelled_at),
            column(&rows, |(_, state)| state.cancellation_reason),
            column(&rows, |(_, state)| state.refunded),
            column(&rows, |(_, state)| state.expired_at),
            column(&rows, |(booking, _)| booking.updated_at.micros()),
            column(changes, |change| change.loaded_version.map(i64::from)),
        ]
    })
}

fn with_state<'v>(changes: &[&'v BookingChange]) -> Vec<(&'v Booking, StateColumns<'v>)> {
    changes.iter().map(|change| (&*change.booking, StateColumns::from(&*change.booking))).collect()
}

fn refund_insert<'v>(rows: &[&'v RefundChange]) -> Option<Call<'v>> {
    call(Sql::RefundInsert, rows, || {
        vec![
            column(rows, |change| uuid(change.refund.id.bytes())),
            column(rows, |change| uuid(change.refund.booking_id.bytes())),
            column(rows, |change| uuid(change.refund.event_id.bytes())),
            column(rows, |change| change.refund.transaction.as_str()),
            column(rows, |change| change.refund.amount.amount()),
            column(rows, |change| change.refund.amount.currency().code()),
            column(rows, |change| change.refund.status.as_str()),
            column(rows, |change| change.refund.reason.as_str()),
            column(rows, |change| change.refund.provider_reference.as_ref().map(domain::Name::as_str)),
            column(rows, |change| change.refund.created_at.micros()),
            column(rows, |change| micros(change.refund.settled_at)),
        ]
    })
}

fn refund_update<'v>(rows: &[&'v RefundChange]) -> Option<Call<'v>> {
    call(Sql::RefundUpdate, rows, || {
        vec![
            column(rows, |change| uuid(change.refund.id.bytes())),
            column(rows, |change| change.refund.status.as_str()),
            column(rows, |change| change.refund.provider_reference.as_ref().map(domain::Name::as_str)),
            column(rows, |change| micros(change.refund.settled_at)),
            column(rows, |change| change.loaded_status.map(domain::RefundStatus::as_str)),
        ]
    })
}

fn ledger_insert(rows: &[Entry]) -> Option<Call<'_>> {
    let rows: Vec<&Entry> = rows.iter().collect();
    call(Sql::LedgerInsert, &rows, || {
        vec![
            column(&rows, |entry| uuid(entry.event_id.bytes())),
            column(&rows, |entry| to_i64(entry.seq)),
            column(&rows, |entry| entry.kind.as_str()),
            column(&rows, |entry| entry.booking_id.as_ref().map(BookingId::bytes).map(uuid)),
            column(&rows, |entry| entry.refund_id.as_ref().map(RefundId::bytes).map(uuid)),
            column(&rows, |entry| row::lines_to(&entry.lines)),
            column(&rows, |entry| i64::from(entry.quantity)),
            column(&rows, |entry| entry.from.map(domain::LedgerStatus::as_str)),
            column(&rows, |entry| entry.to.map(domain::LedgerStatus::as_str)),
            column(&rows, |entry| i64::from(entry.available_after)),
            column(&rows, |entry| entry.previous_seq.map(to_i64)),
            column(&rows, |entry| entry.actor.to_string()),
            column(&rows, |entry| entry.request.as_str()),
            column(&rows, |entry| entry.at.micros()),
            column(&rows, |entry| entry.trace.as_ref().map(domain::TraceParent::as_str)),
        ]
    })
}

fn idempotency_upsert(changes: &Changes) -> Option<Call<'_>> {
    let rows: Vec<_> = changes.keys.iter().collect();
    call(Sql::IdempotencyUpsert, &rows, || {
        vec![
            column(&rows, |((scope, _), _)| scope.as_str()),
            column(&rows, |((_, key), _)| key.as_str()),
            column(&rows, |(_, change)| change.stored.fingerprint.as_slice()),
            column(&rows, |(_, change)| &*change.stored.response),
            column(&rows, |(_, change)| change.at.micros()),
            Box::new(i64::from(IDEMPOTENCY_TTL_SECONDS) * 1_000_000),
        ]
    })
}
