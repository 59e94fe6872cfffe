//! Prepares a booking in any state and its event in any condition, by commands only. A combination that
//! cannot be reached that way does not exist and is shown as a dash in `docs/booking-states.md`.

use domain::{Actor, Answer, BookingId, EventPatch, EventStatus, NewEvent, Timestamp};

use crate::invariants;
use crate::world::{World, admin, at, new_event, outcome_code, service, shifted, user};

/// The state of a booking of two tickets when the command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BookingSetup {
    Missing,
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

/// The condition of the event when the command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    OnSale,
    Paused,
    Started,
    Cancelled,
}

/// The state of a refund when the command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefundSetup {
    Missing,
    Requested,
    Failed,
    Succeeded,
}

impl RefundSetup {
    pub(crate) const ALL: [Self; 4] = [Self::Missing, Self::Requested, Self::Failed, Self::Succeeded];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Missing => "not recorded",
            Self::Requested => "requested",
            Self::Failed => "failed",
            Self::Succeeded => "succeeded",
        }
    }

    /// Brings a requested refund to this state.
    pub(crate) fn apply(self, world: &mut World, id: BookingId, transaction: &str) {
        match self {
            Self::Missing | Self::Requested => {}
            Self::Failed => ok(&world.settle(id, transaction, false, "payout 1")),
            Self::Succeeded => ok(&world.settle(id, transaction, true, "payout 1")),
        }
    }
}

impl BookingSetup {
    pub(crate) const ALL: [Self; 10] = [
        Self::Missing,
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
            Self::Missing => "no such booking",
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

/// A world, and the booking of user `ann` that the command is for.
pub(crate) struct Fixture {
    pub(crate) world: World,
    pub(crate) booking: BookingId,
}

/// The transaction that pays for the booking, if it is paid.
pub(crate) const PAID: &str = "paid";
/// A transaction for this booking that was refused before and is refunded.
const REFUNDED: &str = "refunded";

pub(crate) fn start() -> Timestamp {
    at("2030-06-01T18:00:00Z")
}

fn minutes_from(from: Timestamp, minutes: i64) -> Timestamp {
    shifted(from, minutes * 60_000_000)
}

/// The instants of the booking and of the command. Holds last an hour.
fn times(setup: BookingSetup, condition: Condition) -> (Timestamp, Timestamp) {
    let booked_at = match (setup, condition) {
        (BookingSetup::PendingInTime | BookingSetup::PendingOverdue, Condition::Started) => -30,
        (BookingSetup::ConfirmedPastCutOff, _) | (_, Condition::Started) => -3 * 60,
        (_, Condition::OnSale | Condition::Paused | Condition::Cancelled) => -30 * 24 * 60,
    };
    let command_at = match (setup, condition) {
        (BookingSetup::PendingOverdue, Condition::Started) => 30,
        (_, Condition::Started) => 0,
        (setup, _) if setup == BookingSetup::PendingOverdue || setup.is_expired() => booked_at + 60,
        (_, Condition::OnSale | Condition::Paused | Condition::Cancelled) => booked_at + 59,
    };
    (minutes_from(start(), booked_at), minutes_from(start(), command_at))
}

fn ok(answer: &Answer) {
    assert_eq!(outcome_code(answer), "ok", "{answer:?}");
}

pub(crate) fn set_condition(world: &mut World, condition: Condition) {
    let status = match condition {
        Condition::OnSale | Condition::Started => return,
        Condition::Paused => EventStatus::Paused,
        Condition::Cancelled => EventStatus::Cancelled,
    };
    ok(&world.edit(EventPatch { status: Some(status), ..EventPatch::default() }));
}

pub(crate) fn prepare(setup: BookingSetup, condition: Condition) -> Fixture {
    build(setup, condition, false).unwrap()
}

/// A fixture with a transaction that is already refunded, and that transaction; `None` if a booking in that
/// state has none.
pub(crate) fn prepare_refunded(setup: BookingSetup, condition: Condition) -> Option<(Fixture, &'static str)> {
    let transaction = if setup == BookingSetup::CancelledPaid { PAID } else { REFUNDED };
    build(setup, condition, true).map(|fixture| (fixture, transaction))
}

fn build(setup: BookingSetup, condition: Condition, refunded: bool) -> Option<Fixture> {
    let (booked_at, command_at) = times(setup, condition);
    let over_limit = setup == BookingSetup::ExpiredOverLimit;
    let mut world = World::selling(NewEvent { max_tickets_per_user: over_limit.then_some(2), ..new_event() });
    world.now = booked_at;
    let booking =
        if setup == BookingSetup::Missing { world.next_booking() } else { world.must_book("ann", 2) };
    match setup {
        BookingSetup::Missing | BookingSetup::PendingInTime | BookingSetup::PendingOverdue => {}
        BookingSetup::Confirmed | BookingSetup::ConfirmedPastCutOff => ok(&world.pay(booking, PAID)),
        BookingSetup::CancelledUnpaid => ok(&world.cancel(Actor::User(user("ann")), booking)),
        BookingSetup::CancelledPaid => {
            ok(&world.pay(booking, PAID));
            ok(&world.cancel(admin(), booking));
        }
        BookingSetup::Expired | BookingSetup::ExpiredTicketsGone | BookingSetup::ExpiredOverLimit => {
            world.wait(3600);
            ok(&world.expire(booking));
            if over_limit {
                world.book_and_pay("ann", 1, "other");
            }
        }
    }
    match setup {
        BookingSetup::Expired => {
            // All ten except the two of the expired booking, so that they are just enough to reserve them
            // again.
            world.book_and_pay("bob", 8, "other");
            if refunded {
                let last = world.book_and_pay("bob", 1, "other");
                world.pay(booking, REFUNDED);
                ok(&world.cancel(service(), last));
            }
        }
        BookingSetup::ExpiredTicketsGone => {
            world.book_and_pay("bob", 9, "other");
        }
        BookingSetup::Missing
        | BookingSetup::PendingInTime
        | BookingSetup::PendingOverdue
        | BookingSetup::Confirmed
        | BookingSetup::ConfirmedPastCutOff
        | BookingSetup::CancelledUnpaid
        | BookingSetup::CancelledPaid
        | BookingSetup::ExpiredOverLimit => {}
    }
    let pending = matches!(setup, BookingSetup::PendingInTime | BookingSetup::PendingOverdue);
    if refunded
        && !pending
        && !matches!(setup, BookingSetup::Missing | BookingSetup::CancelledPaid | BookingSetup::Expired)
    {
        world.pay(booking, REFUNDED);
    }
    world.now = command_at;
    set_condition(&mut world, condition);
    if refunded && pending && condition == Condition::Cancelled {
        // A payment after the cancellation of the event and before that of the booking.
        world.pay(booking, REFUNDED);
    }
    invariants::check(&world);
    let transaction = if setup == BookingSetup::CancelledPaid { PAID } else { REFUNDED };
    let recorded = world.refunds.keys().any(|(id, known)| *id == booking && known.as_str() == transaction);
    (!refunded || recorded).then_some(Fixture { world, booking })
}
