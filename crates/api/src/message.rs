//! A ledger entry as a message for subscribers (CloudEvents 1.0, structured mode, JSON).
//!
//! A message depends only on the entry and on immutable data of its booking. So a stream that is published
//! again has the same contents.

use domain::{Booking, EntryKind, EventId, LedgerStatus, Timestamp, TraceParent};
use engine::relay::EntryId;
use serde::{Deserialize, Serialize};
use store::EntryWithBooking;

use crate::wire::{EntryView, MoneyView};

/// The media type of a message.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

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
    external_ref: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_transaction_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Returns the id of a message: the event, and the sequence number in its ledger.
pub fn id(event: EventId, seq: u64) -> String {
    format!("{event}:{seq}")
}

/// Serializes the message of an entry.
pub fn render(item: &EntryWithBooking) -> serde_json::Result<Vec<u8>> {
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
pub fn parse_entry_id(payload: &[u8]) -> Option<EntryId> {
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
        external_ref: booking.external_ref.as_ref().map(domain::ExternalRef::as_str),
        payment_transaction_id: payment.map(|payment| payment.transaction.as_str()),
        reason: cancellation_reason(booking, kind),
    })
}

/// Returns the reason that the caller gave for a cancellation, if the entry of this kind records one.
pub fn cancellation_reason(booking: &Booking, kind: EntryKind) -> Option<&str> {
    match (&booking.state, kind) {
        (domain::State::Cancelled { reason, .. }, EntryKind::BookingCancelled) => {
            reason.as_ref().map(domain::Note::as_str)
        }
        _ => None,
    }
}
