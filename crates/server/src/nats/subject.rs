//! Every subject. Nothing that a caller says becomes part of one: ids that were parsed, and fixed words.

use domain::{EntryKind, EventId};

/// What can be asked, and the subject on which it is.
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

/// All of them, with their subjects.
pub(crate) const REQUESTS: [(Request, &str); 7] = [
    (Request::Create, "booking.create"),
    (Request::Cancel, "booking.cancel"),
    (Request::Get, "booking.get"),
    (Request::List, "booking.list"),
    (Request::Validate, "booking.validate"),
    (Request::ConfirmPayment, "booking.confirm-payment"),
    (Request::Stats, "booking.stats"),
];

/// Whoever answers requests is in this group, so that each is answered once.
pub(super) const QUEUE_GROUP: &str = "boxoffice";

/// The stream of all ledgers.
pub(crate) const STREAM: &str = "BOXOFFICE";

/// Whatever is on it: one subject for each event.
pub(crate) const LEDGERS: &str = "boxoffice.ledger.*";

/// On which instances tell the one that fills the stream which ledgers have grown.
pub(super) const WAKEUP: &str = "boxoffice.wakeup";

const LEDGER: &str = "boxoffice.ledger.";

/// Where the ledger of an event goes.
pub(super) fn ledger(event: EventId) -> String {
    format!("{LEDGER}{event}")
}

/// Whose ledger a subject is.
pub(super) fn event_of(subject: &str) -> Option<EventId> {
    subject.strip_prefix(LEDGER)?.parse().ok()
}

/// Whether a subject is the server's, or one on which this program speaks or listens. Who asks names the subject
/// of the reply; but only those who may publish on these subjects may have something published there.
pub(super) fn is_reserved(subject: &str) -> bool {
    let requests = REQUESTS.iter().map(|(_, request)| *request);
    let announced = EntryKind::ALL.iter().filter_map(|kind| announced(*kind));
    subject.starts_with('$')
        || subject.starts_with("boxoffice.")
        || requests.chain(announced).any(|other| other == subject)
}

/// Where the original service's subscribers listen for what happened.
pub(crate) fn announced(kind: EntryKind) -> Option<&'static str> {
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
