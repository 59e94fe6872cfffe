//! Brings a booking to any state and its event to any condition, by commands only: what cannot be
//! reached that way does not exist and is shown as a dash in `docs/booking-states.md`.

use domain::{Actor, Answer, BookingId, EventPatch, EventStatus, NewEvent, Timestamp};

use crate::invariants;
use crate::world::{World, admin, at, new_event, service, shifted, user, word};

/// Where a booking of two tickets stands when the command comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    Nowhere,
    PendingInTime,
    PendingOverdue,
    Confirmed,
    ConfirmedPastCutOff,
    CancelledUnpaid,
    CancelledPaid,
    Expired,
    ExpiredTicketsGone,
    ExpiredOverLimit,
}

/// How the event stands when the command comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    OnSale,
    Paused,
    Started,
    Cancelled,
}

/// How far a refund has come when the command comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefundIs {
    Missing,
    Requested,
    Failed,
    Succeeded,
}

impl RefundIs {
    pub(crate) const ALL: [Self; 4] = [Self::Missing, Self::Requested, Self::Failed, Self::Succeeded];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Missing => "not recorded",
            Self::Requested => "requested",
            Self::Failed => "failed",
            Self::Succeeded => "succeeded",
        }
    }

    /// Brings a refund that is requested as far as this.
    pub(crate) fn bring(self, world: &mut World, id: BookingId, transaction: &str) {
        match self {
            Self::Missing | Self::Requested => {}
            Self::Failed => ok(&world.settle(id, transaction, false, "payout 1")),
            Self::Succeeded => ok(&world.settle(id, transaction, true, "payout 1")),
        }
    }
}

impl Stands {
    pub(crate) const ALL: [Self; 10] = [
        Self::Nowhere,
        Self::PendingInTime,
        Self::PendingOverdue,
        Self::Confirmed,
        Self::ConfirmedPastCutOff,
        Self::CancelledUnpaid,
        Self::CancelledPaid,
        Self::Expired,
        Self::ExpiredTicketsGone,
        Self::ExpiredOverLimit,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Nowhere => "no such booking",
            Self::PendingInTime => "pending, in time",
            Self::PendingOverdue => "pending, overdue",
            Self::Confirmed => "confirmed",
            Self::ConfirmedPastCutOff => "confirmed, cut-off passed",
            Self::CancelledUnpaid => "cancelled, was unpaid",
            Self::CancelledPaid => "cancelled, was paid",
            Self::Expired => "expired, tickets still there",
            Self::ExpiredTicketsGone => "expired, tickets gone",
            Self::ExpiredOverLimit => "expired, user's limit used up",
        }
    }

    fn is_expired(self) -> bool {
        matches!(self, Self::Expired | Self::ExpiredTicketsGone | Self::ExpiredOverLimit)
    }
}

impl Condition {
    pub(crate) const ALL: [Self; 4] = [Self::OnSale, Self::Paused, Self::Started, Self::Cancelled];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::OnSale => "on sale",
            Self::Paused => "paused",
            Self::Started => "started",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The stage set: a world, and the booking of user `ann` that the command is about.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) booking: BookingId,
}

/// The transaction that pays a booking, where one did.
pub(crate) const PAID: &str = "paid";
/// A transaction that came once already and is refunded, on this booking.
const REFUNDED: &str = "refunded";

pub(crate) fn start() -> Timestamp {
    at("2030-06-01T18:00:00Z")
}

fn minutes_from(from: Timestamp, minutes: i64) -> Timestamp {
    shifted(from, minutes * 60_000_000)
}

/// When the booking is made, and when the command comes. Holds last an hour.
fn times(stands: Stands, condition: Condition) -> (Timestamp, Timestamp) {
    let booked = match (stands, condition) {
        (Stands::PendingInTime | Stands::PendingOverdue, Condition::Started) => -30,
        (Stands::ConfirmedPastCutOff, _) | (_, Condition::Started) => -3 * 60,
        (_, Condition::OnSale | Condition::Paused | Condition::Cancelled) => -30 * 24 * 60,
    };
    let asked = match (stands, condition) {
        (Stands::PendingOverdue, Condition::Started) => 30,
        (_, Condition::Started) => 0,
        (stands, _) if stands == Stands::PendingOverdue || stands.is_expired() => booked + 60,
        (_, Condition::OnSale | Condition::Paused | Condition::Cancelled) => booked + 59,
    };
    (minutes_from(start(), booked), minutes_from(start(), asked))
}

fn ok(answer: &Answer) {
    assert_eq!(word(answer), "ok", "{answer:?}");
}

pub(crate) fn set_condition(world: &mut World, condition: Condition) {
    let status = match condition {
        Condition::OnSale | Condition::Started => return,
        Condition::Paused => EventStatus::Paused,
        Condition::Cancelled => EventStatus::Cancelled,
    };
    ok(&world.edit(EventPatch { status: Some(status), ..EventPatch::default() }));
}

pub(crate) fn set(stands: Stands, condition: Condition) -> Stage {
    build(stands, condition, false).unwrap()
}

/// The stage, with a transaction that is refunded already, and that transaction; `None` where a booking
/// in that state has none.
pub(crate) fn set_refunded(stands: Stands, condition: Condition) -> Option<(Stage, &'static str)> {
    let transaction = if stands == Stands::CancelledPaid { PAID } else { REFUNDED };
    build(stands, condition, true).map(|stage| (stage, transaction))
}

fn build(stands: Stands, condition: Condition, refunded: bool) -> Option<Stage> {
    let (booked, asked) = times(stands, condition);
    let over_limit = stands == Stands::ExpiredOverLimit;
    let mut world = World::selling(NewEvent { max_tickets_per_user: over_limit.then_some(2), ..new_event() });
    world.now = booked;
    let booking = if stands == Stands::Nowhere { world.next_booking() } else { world.booked("ann", 2) };
    match stands {
        Stands::Nowhere | Stands::PendingInTime | Stands::PendingOverdue => {}
        Stands::Confirmed | Stands::ConfirmedPastCutOff => ok(&world.pay(booking, PAID)),
        Stands::CancelledUnpaid => ok(&world.cancel(Actor::User(user("ann")), booking)),
        Stands::CancelledPaid => {
            ok(&world.pay(booking, PAID));
            ok(&world.cancel(admin(), booking));
        }
        Stands::Expired | Stands::ExpiredTicketsGone | Stands::ExpiredOverLimit => {
            world.wait(3600);
            ok(&world.expire(booking));
            if over_limit {
                world.paid("ann", 1, "other");
            }
        }
    }
    match stands {
        Stands::Expired => {
            // All ten but the two that came back, so that taking them again is only just possible.
            world.paid("bob", 8, "other");
            if refunded {
                let last = world.paid("bob", 1, "other");
                world.pay(booking, REFUNDED);
                ok(&world.cancel(service(), last));
            }
        }
        Stands::ExpiredTicketsGone => {
            world.paid("bob", 9, "other");
        }
        Stands::Nowhere
        | Stands::PendingInTime
        | Stands::PendingOverdue
        | Stands::Confirmed
        | Stands::ConfirmedPastCutOff
        | Stands::CancelledUnpaid
        | Stands::CancelledPaid
        | Stands::ExpiredOverLimit => {}
    }
    let pending = matches!(stands, Stands::PendingInTime | Stands::PendingOverdue);
    if refunded && !pending && !matches!(stands, Stands::Nowhere | Stands::CancelledPaid | Stands::Expired) {
        world.pay(booking, REFUNDED);
    }
    world.now = asked;
    set_condition(&mut world, condition);
    if refunded && pending && condition == Condition::Cancelled {
        // A payment between the event's cancellation and the booking's.
        world.pay(booking, REFUNDED);
    }
    invariants::check(&world);
    let transaction = if stands == Stands::CancelledPaid { PAID } else { REFUNDED };
    let recorded = world.refunds.keys().any(|(id, known)| *id == booking && known.as_str() == transaction);
    (!refunded || recorded).then_some(Stage { world, booking })
}
