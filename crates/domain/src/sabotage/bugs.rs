//! Bugs that replace a decision of the rules if the guard against them is removed. They are not conditions
//! that the rules could ignore, but code that only exists here, so that the rules stay as they are released.

use super::{Guard, removed};
use crate::decide::booking::{Case, end_booking, pay, reacquire, refund_rejected_payment};
use crate::decide::{self, Decision, Snapshot, refuse};
use crate::{
    Action, Answer, BookingStatus, Cancellation, Command, Confirmation, EventStatus, InconsistencyError,
    RefundReason, Refusal, TicketState, Timestamp,
};

/// Decides one command as the rules do (see the function of the same name in `decide/mod.rs`), with the bugs
/// whose guards are removed.
///
/// # Errors
///
/// [`InconsistencyError`] if the stored data contradicts itself.
pub fn decide(
    snapshot: &Snapshot<'_>,
    command: &Command,
    now: Timestamp,
) -> Result<Decision, InconsistencyError> {
    let now = match snapshot.event {
        Some(event) if removed(Guard::DeadlinesByClock) => now.max(event.inventory.last_at),
        Some(_) | None => now,
    };
    let decision = decide::decide(snapshot, command, now)?;
    let (Some(event), Some(booking)) = (snapshot.event, snapshot.booking) else { return Ok(decision) };
    let case = Case { snapshot, event, booking, command, now };
    match &command.action {
        Action::Confirm(confirmation) => confirm(&case, confirmation, decision),
        Action::Cancel(cancellation) => cancel(&case, cancellation, decision),
        Action::Expire { .. } => expire(&case, decision),
        Action::CreateEvent(_) | Action::UpdateEvent { .. } | Action::Book(_) | Action::Settle(_) => {
            Ok(decision)
        }
    }
}

fn confirm(
    case: &Case<'_>,
    confirmation: &Confirmation,
    decision: Decision,
) -> Result<Decision, InconsistencyError> {
    if matches!(decision, Decision::Answer(_)) {
        return Ok(decision);
    }
    let status = case.booking.status();
    let event_is_cancelled = case.event.details.status == EventStatus::Cancelled;
    let decision = match status {
        BookingStatus::Cancelled if !event_is_cancelled && removed(Guard::CancellationIsFinal) => {
            reacquire(case, status, confirmation)?
        }
        BookingStatus::Expired if !event_is_cancelled && removed(Guard::LatePaymentReacquires) => {
            refund_rejected_payment(case, confirmation, RefundReason::HoldExpired)?
        }
        BookingStatus::Expired if !event_is_cancelled && removed(Guard::LatePaymentAvailability) => {
            pay(case, status, confirmation, TicketState::Free)?
        }
        BookingStatus::Pending
        | BookingStatus::Confirmed
        | BookingStatus::Cancelled
        | BookingStatus::Expired => decision,
    };
    match &decision {
        Decision::Change(change) if change.refund.is_some() && removed(Guard::RefundWhenLate) => {
            refuse(Refusal::InvalidState { booking: status, refund: None })
        }
        Decision::Change(_) | Decision::Answer(_) | Decision::FreeOverdue(_) => Ok(decision),
    }
}

fn cancel(
    case: &Case<'_>,
    cancellation: &Cancellation,
    decision: Decision,
) -> Result<Decision, InconsistencyError> {
    let is_freed_already =
        matches!(decision, Decision::Answer(Answer::Refused(Refusal::InvalidState { .. })));
    if is_freed_already && removed(Guard::FreedOnce) {
        return end_booking(case, case.booking.status(), cancellation, None, TicketState::Held);
    }
    Ok(decision)
}

fn expire(case: &Case<'_>, decision: Decision) -> Result<Decision, InconsistencyError> {
    let details = &case.event.details;
    let until = details.starts_at.minus_seconds(details.cancel_cutoff_seconds);
    let is_pending = case.booking.status() == BookingStatus::Pending;
    if is_pending && case.now > until && removed(Guard::SystemExempt) {
        return refuse(Refusal::CancelCutoffPassed { booking: BookingStatus::Pending, until });
    }
    Ok(decision)
}
