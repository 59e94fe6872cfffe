//! Deadlines and windows against the clock that decided, whatever dates the ledger has.

use domain::{Action, Answer, Booking, Event, Refusal, State, Timestamp};
use store::{Reply, Store, Submission};

/// What a decision made at `now` says against the event's and the booking's own instants, in words.
pub(crate) async fn check(
    store: &dyn Store,
    submission: &Submission,
    reply: &Reply,
    now: Timestamp,
) -> Option<String> {
    let command = &submission.command;
    let event = store.event(command.event_id()).await.ok()??;
    match (&command.action, reply) {
        (Action::Book(_), Reply::Answered(Answer::Booking(booking))) => booked(&event, booking, now),
        (Action::Book(order), Reply::Stored { replayed: false, .. }) => {
            booked(&event, &store.booking(order.booking_id).await.ok()??, now)
        }
        (Action::Expire { .. }, Reply::Answered(Answer::Booking(booking))) => {
            (now < booking.hold_expires_at).then(|| format!("{} expired before its time", booking.id))
        }
        (
            Action::Expire { booking_id, .. },
            Reply::Answered(Answer::Refused(Refusal::InvalidState { .. })),
        ) => {
            let booking = store.booking(*booking_id).await.ok()??;
            booking.overdue(now).then(|| format!("{} is overdue and was not freed", booking.id))
        }
        (_, Reply::Answered(Answer::Refused(refusal))) => refused(&event, refusal, now),
        _ => None,
    }
}

/// A hold lasts as long as its event says, from the clock's instant on, and is given while sales are open.
fn booked(event: &Event, booking: &Booking, now: Timestamp) -> Option<String> {
    let about = &event.details;
    let lasts_as_promised = booking.hold_expires_at == now.plus_seconds(about.hold_seconds);
    let is_open = now < about.starts_at
        && about.sales_end_at.is_none_or(|end| now < end)
        && about.sales_start_at.is_none_or(|start| start <= now);
    let is_true = lasts_as_promised && is_open && booking.created_at == now;
    (!is_true || matches!(booking.state, State::Expired { .. })).then(|| {
        format!("{} is held until {}, decided at {now}: {about:?}", booking.id, booking.hold_expires_at)
    })
}

/// A refusal for the sake of an instant is true by the clock.
fn refused(event: &Event, refusal: &Refusal, now: Timestamp) -> Option<String> {
    let about = &event.details;
    let is_true = match refusal {
        Refusal::EventStarted => about.starts_at <= now,
        Refusal::SalesClosed => about.sales_end_at.is_some_and(|end| end <= now),
        Refusal::SalesNotOpen(start) => about.sales_start_at == Some(*start) && now < *start,
        Refusal::CancelCutoffPassed { until, .. } => *until < now,
        _ => true,
    };
    (!is_true).then(|| format!("{refusal}, decided at {now}: {about:?}"))
}
