//! A checker of deadlines and sales windows. It compares each decision with the clock that decided, not with
//! the dates in the ledger.

use domain::{Action, Answer, Booking, Event, Refusal, State, Timestamp};
use store::{CommandOutput, Reply, Store, Submission};

/// Returns a violation if a decision made at `now` contradicts the instants of its event or booking.
pub(crate) async fn check(
    store: &dyn Store,
    submission: &Submission,
    reply: &Reply,
    now: Timestamp,
) -> Option<String> {
    let command = &submission.command;
    let event = store.event(command.event_id()).await.ok()??;
    match (&command.action, reply) {
        (Action::Book(_), Reply::Decided(CommandOutput::Fresh(Answer::Booking(booking)))) => {
            check_booking(&event, booking, now)
        }
        (Action::Book(order), Reply::Decided(CommandOutput::Stored { replayed: false, .. })) => {
            check_booking(&event, &store.booking(order.booking_id).await.ok()??, now)
        }
        (Action::Expire { .. }, Reply::Decided(CommandOutput::Fresh(Answer::Booking(booking)))) => {
            (now < booking.hold_expires_at).then(|| format!("{} expired before its time", booking.id))
        }
        (
            Action::Expire { booking_id, .. },
            Reply::Decided(CommandOutput::Fresh(Answer::Refused(Refusal::InvalidState { .. }))),
        ) => {
            let booking = store.booking(*booking_id).await.ok()??;
            booking.overdue(now).then(|| format!("{} is overdue and did not expire", booking.id))
        }
        (_, Reply::Decided(CommandOutput::Fresh(Answer::Refused(refusal)))) => {
            check_refusal(&event, refusal, now)
        }
        _ => None,
    }
}

/// Checks a new booking: its hold lasts as long as its event specifies, counted from the clock's instant, and
/// sales are open at that instant.
fn check_booking(event: &Event, booking: &Booking, now: Timestamp) -> Option<String> {
    let details = &event.details;
    let lasts_as_specified = booking.hold_expires_at == now.plus_seconds(details.hold_seconds);
    let is_open = now < details.starts_at
        && details.sales_end_at.is_none_or(|end| now < end)
        && details.sales_start_at.is_none_or(|start| start <= now);
    let is_consistent = lasts_as_specified && is_open && booking.created_at == now;
    (!is_consistent || matches!(booking.state, State::Expired { .. })).then(|| {
        format!("{} is held until {}, decided at {now}: {details:?}", booking.id, booking.hold_expires_at)
    })
}

/// Checks a refusal that depends on an instant against the clock.
fn check_refusal(event: &Event, refusal: &Refusal, now: Timestamp) -> Option<String> {
    let details = &event.details;
    let is_consistent = match refusal {
        Refusal::EventStarted => details.starts_at <= now,
        Refusal::SalesClosed => details.sales_end_at.is_some_and(|end| end <= now),
        Refusal::SalesNotOpen(start) => details.sales_start_at == Some(*start) && now < *start,
        Refusal::CancelCutoffPassed { until, .. } => *until < now,
        _ => true,
    };
    (!is_consistent).then(|| format!("{refusal}, decided at {now}: {details:?}"))
}
