//! Values to rows, the same for every database: the writes of a batch.

use std::borrow::Cow;

use domain::{Booking, Entry, Event, EventId, Refund, State, Timestamp};

use crate::Consumer;
use crate::cell::{Cell, Decimal, IntoCells};
use crate::columns::{
    BookingGuard, BookingOrigin, BookingState, CursorPosition, EventCounters, EventDescription, EventGuard,
    EventKey, EventOrigin, EventTallies, IdempotencyKey, LedgerEntry, RefundGuard, RefundOrigin, RefundState,
    TicketTypeCounters, TicketTypeDescription, TicketTypeKey, TicketTypeOrigin, UserLimit,
};
use crate::fold::{Changes, EventChange, NewStoredResponse};
use crate::json;
use crate::sql::Sql;

/// A statement that writes rows, each of which must be written: otherwise a guard missed.
pub(crate) struct Write<'v> {
    pub(crate) sql: Sql,
    /// The rows, each with the values of all columns.
    pub(crate) rows: Vec<Vec<Cell<'v>>>,
}

impl Write<'_> {
    /// True if the statement writes an event and its counters, and not what was counted.
    pub(crate) fn is_of_counters(&self) -> bool {
        let counters = [
            Sql::EventInsert,
            Sql::EventUpdate,
            Sql::EventDetailsUpsert,
            Sql::TicketTypeUpsert,
            Sql::TicketTypeUpdate,
        ];
        counters.contains(&self.sql)
    }
}

/// The writes of a batch, in the order in which rows are locked; none for tables without changes.
pub(crate) fn writes(changes: &Changes) -> Vec<Write<'_>> {
    let mut writes = Writes(Vec::new());
    write_events(changes, &mut writes);
    for ((event, user), tickets) in &changes.user_tickets {
        let limit = changes.events.get(event).and_then(|change| change.event.details.max_tickets_per_user);
        let user_id = user.as_str().into();
        let row = UserLimit { event_id: *event.bytes(), user_id, tickets: *tickets, max_tickets: limit };
        writes.add(Sql::UserLimitUpsert, |cells| row.push_to(cells));
    }
    for change in changes.bookings.values().filter(|change| change.loaded_version.is_none()) {
        writes.add(Sql::BookingInsert, |row| {
            booking_origin(&change.booking).push_to(row);
            booking_state(&change.booking).push_to(row);
        });
    }
    for change in changes.bookings.values() {
        let Some(loaded_version) = change.loaded_version else { continue };
        writes.add(Sql::BookingUpdate, |row| {
            BookingGuard { id: *change.booking.id.bytes(), loaded_version }.push_to(row);
            booking_state(&change.booking).push_to(row);
        });
    }
    for change in changes.refunds.values().filter(|change| change.loaded_status.is_none()) {
        writes.add(Sql::RefundInsert, |row| {
            refund_origin(&change.refund).push_to(row);
            refund_state(&change.refund).push_to(row);
        });
    }
    for change in changes.refunds.values() {
        let Some(loaded_status) = change.loaded_status else { continue };
        writes.add(Sql::RefundUpdate, |row| {
            let loaded_status = loaded_status.as_str().into();
            RefundGuard { id: *change.refund.id.bytes(), loaded_status }.push_to(row);
            refund_state(&change.refund).push_to(row);
        });
    }
    for entry in &changes.entries {
        writes.add(Sql::LedgerInsert, |row| ledger_entry(entry).push_to(row));
    }
    for ((scope, key), NewStoredResponse { stored, at }) in &changes.keys {
        let row = IdempotencyKey {
            scope: scope.into(),
            key: key.into(),
            fingerprint: stored.fingerprint.as_slice().into(),
            response: Cow::Borrowed(&*stored.response),
            created_at: at.micros(),
        };
        writes.add(Sql::IdempotencyUpsert, |cells| row.push_to(cells));
    }
    writes.0
}

/// The writes of the cursors of a consumer; none without cursors.
pub(crate) fn cursors(consumer: &Consumer, processed: &[(EventId, u64)]) -> Vec<Write<'static>> {
    let mut writes = Writes(Vec::new());
    for (event, seq) in processed {
        let position = CursorPosition {
            consumer: Cow::Owned(consumer.name.as_ref().to_owned()),
            event_id: *event.bytes(),
            destination: consumer.destination.micros(),
            seq: *seq,
        };
        writes.add(Sql::CursorUpsert, |row| position.push_to(row));
    }
    writes.0
}

/// Collects the rows of each statement.
struct Writes<'v>(Vec<Write<'v>>);

impl<'v> Writes<'v> {
    /// Adds a row to the last statement, or starts the next statement with it.
    fn add(&mut self, sql: Sql, push: impl FnOnce(&mut Vec<Cell<'v>>)) {
        if self.0.last().is_none_or(|last| last.sql != sql) {
            self.0.push(Write { sql, rows: Vec::new() });
        }
        let mut row = Vec::with_capacity(ROW_CAPACITY);
        push(&mut row);
        if let Some(last) = self.0.last_mut() {
            last.rows.push(row);
        }
    }
}

/// Enough for the longest row, a booking: a longer one would be allocated twice.
const ROW_CAPACITY: usize = 24;

fn write_events<'v>(changes: &'v Changes, writes: &mut Writes<'v>) {
    for change in changes.events.values().filter(|change| change.loaded_seq.is_none()) {
        writes.add(Sql::EventInsert, |row| {
            EventKey { id: *change.event.id.bytes() }.push_to(row);
            push_counters(&change.event, row);
        });
    }
    for change in changes.events.values() {
        let Some(loaded_seq) = change.loaded_seq else { continue };
        writes.add(Sql::EventUpdate, |row| {
            EventGuard { id: *change.event.id.bytes(), loaded_seq }.push_to(row);
            push_counters(&change.event, row);
        });
    }
    for change in changes.events.values().filter(|change| change.details_changed) {
        writes.add(Sql::EventDetailsUpsert, |row| push_details(&change.event, row));
    }
    for change in changes.events.values().filter(|change| change.details_changed) {
        write_ticket_types(&change.event, writes);
    }
    for change in changes.events.values().filter(|change| !change.details_changed) {
        write_ticket_type_counters(change, writes);
    }
}

fn push_counters(event: &Event, row: &mut Vec<Cell<'_>>) {
    let inventory = &event.inventory;
    let counters = EventCounters {
        capacity: inventory.capacity,
        held: inventory.held,
        sold: inventory.sold,
        seq: inventory.seq,
        last_at: inventory.last_at.micros(),
    };
    counters.push_to(row);
    let tallies = &inventory.tallies;
    let tallies = EventTallies {
        pending: tallies.pending,
        confirmed: tallies.confirmed,
        cancelled: tallies.cancelled,
        expired: tallies.expired,
        revenue: Decimal(tallies.revenue.to_string().into()),
    };
    tallies.push_to(row);
}

fn push_details<'v>(event: &'v Event, row: &mut Vec<Cell<'v>>) {
    let details = &event.details;
    let origin = EventOrigin {
        event_id: *event.id.bytes(),
        currency: details.currency.code().into(),
        created_at: details.created_at.micros(),
    };
    origin.push_to(row);
    let description = EventDescription {
        name: details.name.as_str().into(),
        venue: details.venue.as_str().into(),
        starts_at: details.starts_at.micros(),
        time_zone: details.time_zone.map(|zone| zone.as_str().into()),
        sales_start_at: details.sales_start_at.map(Timestamp::micros),
        sales_end_at: details.sales_end_at.map(Timestamp::micros),
        hold_seconds: details.hold_seconds,
        cancel_cutoff_seconds: details.cancel_cutoff_seconds,
        max_tickets_per_booking: details.max_tickets_per_booking,
        max_tickets_per_user: details.max_tickets_per_user,
        status: details.status.as_str().into(),
        version: details.version,
        updated_at: details.updated_at.micros(),
    };
    description.push_to(row);
}

fn write_ticket_types<'v>(event: &'v Event, writes: &mut Writes<'v>) {
    let types = event.details.ticket_types.iter().zip(&event.inventory.types);
    for (position, (kind, counts)) in (0_u32..).zip(types) {
        writes.add(Sql::TicketTypeUpsert, |row| {
            TicketTypeKey { event_id: *event.id.bytes(), position }.push_to(row);
            TicketTypeOrigin { id: *kind.id.bytes() }.push_to(row);
            let (name, price) = (kind.name.as_str().into(), kind.price.amount());
            TicketTypeDescription { name, price, capacity: counts.capacity }.push_to(row);
            TicketTypeCounters { held: counts.held, sold: counts.sold }.push_to(row);
        });
    }
}

/// Writes the counters that differ from those that were loaded: a batch may change few of many types.
fn write_ticket_type_counters(change: &EventChange, writes: &mut Writes<'_>) {
    for (position, counts) in (0_u32..).zip(&change.event.inventory.types) {
        if change.loaded_types.get(position as usize) == Some(counts) {
            continue;
        }
        writes.add(Sql::TicketTypeUpdate, |row| {
            TicketTypeKey { event_id: *change.event.id.bytes(), position }.push_to(row);
            TicketTypeCounters { held: counts.held, sold: counts.sold }.push_to(row);
        });
    }
}

fn booking_origin(booking: &Booking) -> BookingOrigin<'_> {
    BookingOrigin {
        id: *booking.id.bytes(),
        event_id: *booking.event_id.bytes(),
        user_id: booking.user.as_str().into(),
        items: json::items_to(&booking.items).into(),
        currency: booking.total.currency().code().into(),
        total: booking.total.amount(),
        hold_expires_at: booking.hold_expires_at.micros(),
        payment_method: booking.payment_method.as_ref().map(|method| method.as_str().into()),
        external_ref: booking.external_ref.as_ref().map(|reference| reference.as_str().into()),
        metadata: json::metadata_to(&booking.metadata).map(Into::into),
        created_at: booking.created_at.micros(),
    }
}

fn booking_state(booking: &Booking) -> BookingState<'_> {
    let payment = booking.payment();
    let (cancelled_at, cancellation_reason, refunded, expired_at) = match &booking.state {
        State::Pending | State::Confirmed(_) => (None, None, false, None),
        State::Cancelled { at, reason, refunded, .. } => {
            (Some(at.micros()), reason.as_ref().map(|reason| reason.as_str().into()), *refunded, None)
        }
        State::Expired { at } => (None, None, false, Some(at.micros())),
    };
    BookingState {
        status: booking.status().as_str().into(),
        version: booking.version,
        last_seq: booking.last_seq,
        transaction_id: payment.map(|payment| payment.transaction.as_str().into()),
        confirmed_at: payment.map(|payment| payment.at.micros()),
        cancelled_at,
        cancellation_reason,
        refunded,
        expired_at,
        updated_at: booking.updated_at.micros(),
    }
}

fn refund_origin(refund: &Refund) -> RefundOrigin<'_> {
    RefundOrigin {
        id: *refund.id.bytes(),
        booking_id: *refund.booking_id.bytes(),
        event_id: *refund.event_id.bytes(),
        transaction_id: refund.transaction.as_str().into(),
        amount: refund.amount.amount(),
        currency: refund.amount.currency().code().into(),
        reason: refund.reason.as_str().into(),
        created_at: refund.created_at.micros(),
    }
}

fn refund_state(refund: &Refund) -> RefundState<'_> {
    RefundState {
        status: refund.status.as_str().into(),
        provider_reference: refund.provider_reference.as_ref().map(|reference| reference.as_str().into()),
        settled_at: refund.settled_at.map(Timestamp::micros),
    }
}

fn ledger_entry(entry: &Entry) -> LedgerEntry<'_> {
    LedgerEntry {
        event_id: *entry.event_id.bytes(),
        seq: entry.seq,
        kind: entry.kind.as_str().into(),
        booking_id: entry.booking_id.map(|id| *id.bytes()),
        refund_id: entry.refund_id.map(|id| *id.bytes()),
        lines: json::lines_to(&entry.lines).into(),
        quantity: entry.quantity,
        from_status: entry.from_status().map(Into::into),
        to_status: entry.to_status().map(Into::into),
        available_after: entry.available_after,
        previous_seq: entry.previous_seq,
        actor: entry.actor.to_string().into(),
        request_id: entry.request.as_str().into(),
        at: entry.at.micros(),
        trace: entry.trace.as_ref().map(|trace| trace.as_str().into()),
    }
}
