//! A ledger entry as a message of the stream (CloudEvents 1.0, structured mode, JSON), and as a notification
//! for subscribers of the MongoDB booking service.
//!
//! A message depends only on the entry and on immutable data of its booking. So a stream that is published
//! again has the same contents.

use async_nats::HeaderMap;
use domain::{Booking, EntryKind, EventId, LedgerStatus, Timestamp, TraceParent};
use engine::relay::EntryId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use store::EntryWithBooking;

use super::{decimal, subject};
use crate::wire::{EntryView, MoneyView};

/// The envelope of a message, with the entry as its data.
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    time: Timestamp,
    datacontenttype: &'static str,
    /// The distributed tracing extension of CloudEvents.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    event_id: EventId,
    #[serde(flatten)]
    entry: EntryView<'a>,
    #[serde(flatten)]
    booking: Option<BookingDetails<'a>>,
}

/// The data of a booking in the message of one of its entries.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BookingDetails<'a> {
    user_id: &'a str,
    total: MoneyView,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_transaction_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Returns the id of a message: the event, and the sequence number in its ledger.
pub(super) fn id(event: EventId, seq: u64) -> String {
    format!("{event}:{seq}")
}

/// Serializes the message of an entry.
pub(super) fn render(item: &EntryWithBooking) -> serde_json::Result<Vec<u8>> {
    let entry = &item.entry;
    serde_json::to_vec(&CloudEvent {
        specversion: "1.0",
        id: &id(entry.event_id, entry.seq),
        source: format!("/v1/events/{}", entry.event_id),
        kind: entry.kind.as_str(),
        subject: entry.booking_id.map(|booking| booking.to_string()),
        time: entry.at,
        datacontenttype: "application/json",
        traceparent: entry.trace.as_ref().map(TraceParent::as_str),
        data: Data { event_id: entry.event_id, entry: entry.into(), booking: booking_details(item) },
    })
}

/// Parses the id of the entry that a message carries; `None` if it carries none.
pub(super) fn parse_entry_id(payload: &[u8]) -> Option<EntryId> {
    #[derive(Deserialize)]
    struct Message<'a> {
        id: &'a str,
        time: &'a str,
        #[serde(borrow)]
        data: Data<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data<'a> {
        #[serde(borrow)]
        request_id: std::borrow::Cow<'a, str>,
    }
    let message: Message<'_> = serde_json::from_slice(payload).ok()?;
    let (event, seq) = message.id.split_once(':')?;
    Some(EntryId {
        event: event.parse().ok()?,
        seq: seq.parse().ok()?,
        at: message.time.parse().ok()?,
        request: message.data.request_id.parse().ok()?,
    })
}

/// Returns the headers that a message and a notification have in common: the trace context of the change.
pub(super) fn headers(item: &EntryWithBooking) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(trace) = &item.entry.trace {
        headers.insert(TraceParent::NAME, trace.as_str());
    }
    headers
}

fn is_about_a_booking(kind: EntryKind) -> bool {
    match kind {
        EntryKind::BookingCreated
        | EntryKind::BookingConfirmed
        | EntryKind::BookingCancelled
        | EntryKind::BookingExpired => true,
        EntryKind::RefundRequested
        | EntryKind::RefundSettled
        | EntryKind::EventCreated
        | EntryKind::EventUpdated
        | EntryKind::EventCancelled => false,
    }
}

fn booking_details(item: &EntryWithBooking) -> Option<BookingDetails<'_>> {
    let entry = &item.entry;
    let kind = entry.kind.known()?;
    let booking = item.booking.as_ref().filter(|_| is_about_a_booking(kind))?;
    // A booking is paid once, and a cancelled one stays cancelled. So the current row has the values that it
    // had when the entry was written.
    let was_paid = kind == EntryKind::BookingConfirmed || entry.from == Some(LedgerStatus::Confirmed);
    let payment = booking.payment().filter(|_| was_paid);
    Some(BookingDetails {
        user_id: booking.user.as_str(),
        total: booking.total.into(),
        payment_transaction_id: payment.map(|payment| payment.transaction.as_str()),
        reason: reason(booking, kind),
    })
}

fn reason(booking: &Booking, kind: EntryKind) -> Option<&str> {
    match (&booking.state, kind) {
        (domain::State::Cancelled { reason, .. }, EntryKind::BookingCancelled) => {
            reason.as_ref().map(domain::Note::as_str)
        }
        _ => None,
    }
}

/// Returns the notification of an entry for subscribers of the MongoDB booking service, and its subject.
pub(super) fn legacy_notification(item: &EntryWithBooking) -> Option<(&'static str, Vec<u8>)> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Notification<'a> {
        booking_id: domain::BookingId,
        event_id: EventId,
        user_id: &'a str,
        ticket_quantity: u32,
        total_amount: Option<Box<RawValue>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        timestamp: Timestamp,
    }
    let (entry, booking) = (&item.entry, item.booking.as_ref()?);
    let kind = entry.kind.known()?;
    let subject = subject::notification_subject(kind)?;
    let notification = Notification {
        booking_id: booking.id,
        event_id: booking.event_id,
        user_id: booking.user.as_str(),
        ticket_quantity: booking.items.quantity(),
        total_amount: RawValue::from_string(decimal::write(booking.total)).ok(),
        reason: reason(booking, kind),
        timestamp: entry.at,
    };
    Some((subject, serde_json::to_vec(&notification).ok()?))
}
