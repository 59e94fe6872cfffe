//! A ledger entry as a notification for subscribers of the MongoDB booking service, and the headers that
//! notifications share with the messages of the stream.

use api::message;
use async_nats::HeaderMap;
use domain::{EventId, Timestamp, TraceParent};
use serde::Serialize;
use serde_json::value::RawValue;
use store::EntryWithBooking;

use crate::{decimal, subject};

/// Returns the headers that a message and a notification have in common: the trace context of the change.
pub(crate) fn headers(item: &EntryWithBooking) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(trace) = &item.entry.trace {
        headers.insert(TraceParent::NAME, trace.as_str());
    }
    headers
}

/// Returns the notification of an entry, and its subject; `None` if its kind has none.
pub(crate) fn legacy(item: &EntryWithBooking) -> Option<(&'static str, Vec<u8>)> {
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
        reason: message::cancellation_reason(booking, kind),
        timestamp: entry.at,
    };
    Some((subject, serde_json::to_vec(&notification).ok()?))
}
