//! All subjects. They consist of fixed words and parsed ids; no unchecked text of a client becomes part of
//! one.

use domain::{EntryKind, EventId};

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Create,
    Cancel,
    Get,
    List,
    Validate,
    ConfirmPayment,
    Stats,
}

/// All kinds of requests, with their subjects.
pub(crate) const REQUESTS: [(Request, &str); 7] = [
    (Request::Create, "booking.create"),
    (Request::Cancel, "booking.cancel"),
    (Request::Get, "booking.get"),
    (Request::List, "booking.list"),
    (Request::Validate, "booking.validate"),
    (Request::ConfirmPayment, "booking.confirm-payment"),
    (Request::Stats, "booking.stats"),
];

/// The queue group of all instances, so that one of them receives each request.
pub(crate) const QUEUE_GROUP: &str = "boxoffice";

/// The name of the stream.
pub(crate) const STREAM: &str = "BOXOFFICE";

/// The subjects of the stream: one for each event.
pub(crate) const LEDGERS: &str = "boxoffice.ledger.*";

/// The subject on which instances send wake-ups to the active relay: the ids of events with new entries.
pub(crate) const WAKEUP: &str = "boxoffice.wakeup";

const LEDGER: &str = "boxoffice.ledger.";

/// Returns the subject of the ledger of an event.
pub(crate) fn ledger(event: EventId) -> String {
    format!("{LEDGER}{event}")
}

/// Returns the event of a ledger's subject.
pub(crate) fn event_of(subject: &str) -> Option<EventId> {
    subject.strip_prefix(LEDGER)?.parse().ok()
}

/// Returns true if a subject belongs to the server or is used by this program. A requester chooses the
/// subject of its reply, but it must not make this program publish on a subject for which the requester
/// itself has no permission.
pub(crate) fn is_reserved(subject: &str) -> bool {
    let requests = REQUESTS.iter().map(|(_, request)| *request);
    let notifications = EntryKind::ALL.iter().filter_map(|kind| notification_subject(*kind));
    subject.starts_with('$')
        || subject.starts_with("boxoffice.")
        || requests.chain(notifications).any(|other| other == subject)
}

/// Returns the subject of a notification for subscribers of the MongoDB booking service.
pub(crate) fn notification_subject(kind: EntryKind) -> Option<&'static str> {
    match kind {
        EntryKind::BookingCreated => Some("event.booking.created"),
        EntryKind::BookingConfirmed => Some("notification.booking-confirmation"),
        EntryKind::BookingCancelled | EntryKind::BookingExpired => Some("event.booking.cancelled"),
        EntryKind::RefundRequested
        | EntryKind::RefundSettled
        | EntryKind::EventCreated
        | EntryKind::EventUpdated
        | EntryKind::EventCancelled => None,
    }
}
