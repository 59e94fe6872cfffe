//! A ledger entry as a message (CloudEvents 1.0, JSON, structured), and as it is announced to the original
//! service's subscribers.
//!
//! All of it follows from the entry and from what never changes about its booking, so that a stream that is
//! filled anew says the same again.

use async_nats::HeaderMap;
use domain::{Booking, EntryKind, EventId, LedgerStatus, Timestamp, TraceParent};
use engine::relay::EntryId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use store::EntryWithBooking;

use super::{decimal, subject};
use crate::wire::{EntryView, MoneyView};

/// What a message says about itself, and the entry.
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    time: Timestamp,
    datacontenttype: &'static str,
    /// Its extension for distributed tracing.
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
    booking: Option<About<'a>>,
}

/// What of a booking belongs to one of its entries.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    user_id: &'a str,
    total: MoneyView,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_transaction_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// The name of a message: of an event, and of the number in its ledger.
pub(super) fn id(event: EventId, seq: u64) -> String {
    format!("{event}:{seq}")
}

/// The message that an entry becomes.
pub(super) fn render(recorded: &EntryWithBooking) -> serde_json::Result<Vec<u8>> {
    let entry = &recorded.entry;
    serde_json::to_vec(&CloudEvent {
        specversion: "1.0",
        id: &id(entry.event_id, entry.seq),
        source: format!("/v1/events/{}", entry.event_id),
        kind: entry.kind.as_str(),
        subject: entry.booking_id.map(|booking| booking.to_string()),
        time: entry.at,
        datacontenttype: "application/json",
        traceparent: entry.trace.as_ref().map(TraceParent::as_str),
        data: Data { event_id: entry.event_id, entry: entry.into(), booking: about(recorded) },
    })
}

/// Which entry a message is; nothing where it is none.
pub(super) fn told(payload: &[u8]) -> Option<EntryId> {
    #[derive(Deserialize)]
    struct Message<'a> {
        id: &'a str,
        time: &'a str,
        #[serde(borrow)]
        data: About<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct About<'a> {
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

/// The headers that a message and an announcement have in common: where the change belongs in its caller's trace.
pub(super) fn headers(recorded: &EntryWithBooking) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(trace) = &recorded.entry.trace {
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

fn about(recorded: &EntryWithBooking) -> Option<About<'_>> {
    let entry = &recorded.entry;
    let booking = recorded.booking.as_ref().filter(|_| is_about_a_booking(entry.kind))?;
    // A booking is paid once, and a cancelled one stays so: what it says now, it said when it was entered.
    let was_paid = entry.kind == EntryKind::BookingConfirmed || entry.from == Some(LedgerStatus::Confirmed);
    let payment = booking.payment().filter(|_| was_paid);
    Some(About {
        user_id: booking.user.as_str(),
        total: booking.total.into(),
        payment_transaction_id: payment.map(|payment| payment.transaction.as_str()),
        reason: reason(booking, entry.kind),
    })
}

fn reason(booking: &Booking, kind: EntryKind) -> Option<&str> {
    match (&booking.state, kind) {
        (domain::State::Cancelled { reason, .. }, EntryKind::BookingCancelled) => {
            reason.as_ref().map(domain::Text::as_str)
        }
        _ => None,
    }
}

/// An entry as the original service's subscribers know it, and the subject on which they listen.
pub(super) fn announcement(recorded: &EntryWithBooking) -> Option<(&'static str, Vec<u8>)> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Announcement<'a> {
        booking_id: domain::BookingId,
        event_id: EventId,
        user_id: &'a str,
        ticket_quantity: u32,
        total_amount: Option<Box<RawValue>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        timestamp: Timestamp,
    }
    let (entry, booking) = (&recorded.entry, recorded.booking.as_ref()?);
    let subject = subject::announced(entry.kind)?;
    let announcement = Announcement {
        booking_id: booking.id,
        event_id: booking.event_id,
        user_id: booking.user.as_str(),
        ticket_quantity: booking.items.quantity(),
        total_amount: RawValue::from_string(decimal::write(booking.total)).ok(),
        reason: reason(booking, entry.kind),
        timestamp: entry.at,
    };
    Some((subject, serde_json::to_vec(&announcement).ok()?))
}
