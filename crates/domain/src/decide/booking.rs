//! The rules for the lifecycle of a booking.

use std::sync::Arc;

use super::{Answer, Change, Decision, Draft, HoldScope, Snapshot, free_overdue_or_refuse, refuse};
use crate::{
    Actor, Booking, BookingStatus, Cancellation, Command, Confirmation, EntryKind, Event, EventStatus,
    InconsistencyError, Invalid, Item, Items, Money, Order, Payment, Refund, RefundId, RefundReason,
    RefundStatus, Refusal, Settlement, State, TicketSelection, TicketState, TicketTypeId, Timestamp,
    TransactionId, guard,
};

/// A command for an existing booking, with everything that the rules need.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) snapshot: &'a Snapshot<'a>,
    pub(crate) event: &'a Event,
    pub(crate) booking: &'a Arc<Booking>,
    pub(crate) command: &'a Command,
    pub(crate) now: Timestamp,
}

/// Reserves all selected tickets, or none; [`check_availability`] decides "sold out".
pub(super) fn book(
    snapshot: &Snapshot<'_>,
    event: &Event,
    order: &Order,
    command: &Command,
    now: Timestamp,
) -> Result<Decision, InconsistencyError> {
    let (items, total) = match price_order(event, order) {
        Ok(priced) => priced,
        Err(refusal) => return refuse(refusal),
    };
    // First of all conflicts: the order may be a repeated one, whose booking exists.
    if snapshot.is_external_ref_in_use {
        return refuse(Refusal::ExternalRefInUse);
    }
    if let Some(refusal) = sales_closed_reason(event, now)
        && guard!(SalesOpen)
    {
        return refuse(refusal);
    }
    if let Some(decision) = check_user_limit(snapshot, event, &items, || order.user.clone()) {
        return Ok(decision);
    }
    if let Some(decision) = check_availability(snapshot, event, &items) {
        return Ok(decision);
    }
    let booking = Booking {
        id: order.booking_id,
        event_id: event.id,
        user: order.user.clone(),
        items,
        total,
        hold_expires_at: event.hold_until(now),
        payment_method: order.payment_method.clone(),
        external_ref: order.external_ref.clone(),
        metadata: order.metadata.clone(),
        state: State::Pending,
        version: 1,
        last_seq: 0,
        created_at: now,
        updated_at: now,
    };
    let mut draft = Draft::new(event, None, command, now);
    draft.event.move_tickets(&booking.items, TicketState::Free, TicketState::Held)?;
    draft.event.inventory.tallies.count(None, BookingStatus::Pending, total.amount())?;
    let seq = draft.append_booking_entry(EntryKind::BookingCreated, &booking, None)?;
    let tickets = booking.items.quantity();
    with_user_count(draft, snapshot, Booking { last_seq: seq, ..booking }, None, i64::from(tickets))
}

/// Handles a captured payment: either the booking becomes confirmed, or a refund is recorded.
pub(super) fn confirm(
    case: &Case<'_>,
    status: BookingStatus,
    confirmation: &Confirmation,
) -> Result<Decision, InconsistencyError> {
    if let Some(refund) = case.snapshot.refund
        && guard!(RefundIsFinal)
    {
        return refuse(repeated_refusal(case, status, refund));
    }
    if guard!(Amount: confirmation.payment.amount.is_some_and(|amount| amount != case.booking.total)) {
        return refuse(Refusal::AmountMismatch { expected: case.booking.total });
    }
    let captured = &confirmation.payment.transaction;
    let cancelled_event = case.event.details.status == EventStatus::Cancelled;
    match (&case.booking.state, cancelled_event) {
        (State::Confirmed(payment), _) if guard!(IdempotentPayment: payment.transaction == *captured) => {
            Ok(Decision::Answer(Answer::Booking(case.booking.clone())))
        }
        (State::Pending, false) => pay(case, status, confirmation, TicketState::Held),
        (State::Expired { .. }, false) => reacquire(case, status, confirmation),
        (State::Confirmed(_) | State::Cancelled { .. }, false) => {
            refund_rejected_payment(case, confirmation, RefundReason::InvalidState)
        }
        (State::Pending | State::Confirmed(_) | State::Cancelled { .. } | State::Expired { .. }, true) => {
            refund_rejected_payment(case, confirmation, RefundReason::EventCancelled)
        }
    }
}

/// Cancels a booking, and records the refund of its payment.
pub(super) fn cancel(
    case: &Case<'_>,
    status: BookingStatus,
    cancellation: &Cancellation,
) -> Result<Decision, InconsistencyError> {
    let (by_user, owner) = match &case.command.actor {
        Actor::User(user) => (true, *user == case.booking.user),
        Actor::Service(_) | Actor::Admin(_) | Actor::System => (false, true),
    };
    if guard!(Owner: !owner) {
        // The same answer as for a missing booking: it must not reveal that the booking exists.
        return super::not_found("booking");
    }
    match &case.booking.state {
        State::Cancelled { .. } | State::Expired { .. } => {
            refuse(Refusal::InvalidState { booking: status, refund: None })
        }
        State::Pending => end_booking(case, status, cancellation, None, TicketState::Held),
        State::Confirmed(payment) => {
            let details = &case.event.details;
            let until = details.starts_at.minus_seconds(details.cancel_cutoff_seconds);
            if guard!(CutOff: by_user && case.now > until) {
                return refuse(Refusal::CancelCutoffPassed { booking: status, until });
            }
            end_booking(case, status, cancellation, Some(payment), TicketState::Sold)
        }
    }
}

/// Frees an unpaid booking that is overdue. This is a system action: no rule for users applies.
pub(super) fn expire(case: &Case<'_>, status: BookingStatus) -> Result<Decision, InconsistencyError> {
    match &case.booking.state {
        State::Pending if guard!(Overdue: !case.booking.overdue(case.now)) => {
            refuse(Refusal::InvalidState { booking: status, refund: None })
        }
        State::Pending => transition(
            case,
            status,
            State::Expired { at: case.now },
            (TicketState::Held, TicketState::Free),
            None,
        ),
        State::Confirmed(_) | State::Cancelled { .. } | State::Expired { .. } => {
            refuse(Refusal::InvalidState { booking: status, refund: None })
        }
    }
}

/// Records the outcome of a refund. A repeated outcome changes nothing; a refund that succeeded stays so.
pub(super) fn settle(
    case: &Case<'_>,
    status: BookingStatus,
    settlement: &Settlement,
) -> Result<Decision, InconsistencyError> {
    let Some(refund) = case.snapshot.refund else { return super::not_found("refund") };
    let outcome = if settlement.outcome.succeeded { RefundStatus::Succeeded } else { RefundStatus::Failed };
    match (refund.status, settlement.outcome.succeeded) {
        (RefundStatus::Succeeded, true) | (RefundStatus::Failed, false) => {
            Ok(Decision::Answer(Answer::Refund(Box::new(refund.clone()))))
        }
        (RefundStatus::Succeeded, false) => {
            refuse(Refusal::InvalidState { booking: status, refund: Some(Box::new(refund.clone())) })
        }
        (RefundStatus::Requested, _) | (RefundStatus::Failed, true) => {
            let settled = Refund {
                status: outcome,
                provider_reference: Some(settlement.outcome.provider_reference.clone()),
                settled_at: Some(case.now),
                ..refund.clone()
            };
            let mut draft = Draft::new(case.event, Some(case.booking), case.command, case.now);
            let seq = draft.append_refund_entry(case.booking, &settled, Some(refund.status))?;
            let booking = updated_booking(case, state_after_settlement(&case.booking.state, &settled), seq)?;
            let mut change = change_from(draft, booking);
            change.answer = Answer::Refund(Box::new(settled.clone()));
            change.refund = Some(settled);
            Ok(Decision::Change(Box::new(change)))
        }
    }
}

/// The state of a booking after a refund was settled: it shows only the refund of its own payment.
fn state_after_settlement(state: &State, refund: &Refund) -> State {
    let mut state = state.clone();
    if let State::Cancelled { payment: Some(payment), refunded, .. } = &mut state
        && payment.transaction == refund.transaction
    {
        *refunded = refund.status == RefundStatus::Succeeded;
    }
    state
}

/// The items of an order at current prices, or the refusal of an order that is invalid in itself.
fn price_order(event: &Event, order: &Order) -> Result<(Items, Money), Refusal> {
    let wrong = |pointer: &str, detail: &str| Refusal::Invalid(vec![Invalid::new(pointer, detail)]);
    let selected: &[(TicketTypeId, u32)] = match (&order.selection, event.details.ticket_types.as_slice()) {
        (TicketSelection::Quantity(quantity), [only]) => &[(only.id, *quantity)],
        (TicketSelection::Quantity(_), _) => {
            return Err(wrong("/items", "the event has several ticket types: specify the quantity of each"));
        }
        (TicketSelection::Items(items), _) => items,
    };
    let mut items = Vec::with_capacity(selected.len());
    let mut total: Option<Money> = None;
    let mut quantity: u32 = 0;
    for (index, (id, count)) in selected.iter().enumerate() {
        let kind = event.index_of(*id).and_then(|index| event.details.ticket_types.get(index));
        let unknown = || wrong(&format!("/items/{index}/ticketTypeId"), "the event has no such ticket type");
        let kind = kind.ok_or_else(unknown)?;
        quantity = quantity.saturating_add(*count);
        let sum =
            kind.price.times(*count).and_then(|cost| total.map_or(Ok(cost), |before| before.plus(cost)));
        total = Some(sum.map_err(|_| wrong("", "the total is too large"))?);
        let (name, unit_price) = (kind.name.clone(), kind.price);
        items.push(Item { ticket_type: kind.id, name, quantity: *count, unit_price });
    }
    let once = "must name at least one ticket type, each once, with a quantity of at least 1";
    let pointer = match &order.selection {
        TicketSelection::Quantity(_) => "/ticketQuantity",
        TicketSelection::Items(_) => "/items",
    };
    let (items, total) = Items::new(items).zip(total).ok_or_else(|| wrong(pointer, once))?;
    let limit = event.details.max_tickets_per_booking;
    if quantity > limit {
        let detail = format!("at most {limit} tickets may be booked at once");
        return Err(Refusal::BookingLimitExceeded { detail });
    }
    if order.expected_total.is_some_and(|expected| expected != total) {
        return Err(Refusal::AmountMismatch { expected: total });
    }
    Ok((items, total))
}

/// The reason why nothing can be booked now, the most permanent reason first.
fn sales_closed_reason(event: &Event, now: Timestamp) -> Option<Refusal> {
    let details = &event.details;
    if details.status == EventStatus::Cancelled {
        return Some(Refusal::EventCancelled { booking: None, refund: None });
    }
    if details.starts_at <= now {
        return Some(Refusal::EventStarted);
    }
    if details.sales_end_at.is_some_and(|end| end <= now) {
        return Some(Refusal::SalesClosed);
    }
    if details.status == EventStatus::Paused {
        return Some(Refusal::EventPaused);
    }
    details.sales_start_at.filter(|start| now < *start).map(Refusal::SalesNotOpen)
}

/// Decides against the order if the user would have more tickets than the event allows per user: a refusal,
/// or overdue holds of the user to free first.
fn check_user_limit(
    snapshot: &Snapshot<'_>,
    event: &Event,
    items: &Items,
    user: impl Fn() -> crate::UserId,
) -> Option<Decision> {
    let limit = event.details.max_tickets_per_user?;
    let total = snapshot.user_tickets.saturating_add(items.quantity());
    let over = total.checked_sub(limit).filter(|over| guard!(UserLimit: *over > 0))?;
    let left = limit.saturating_sub(snapshot.user_tickets);
    let detail = format!("at most {limit} tickets per user; {left} more may be booked");
    Some(free_overdue_or_refuse(
        snapshot,
        HoldScope::User(user()),
        over,
        Refusal::BookingLimitExceeded { detail },
    ))
}

/// Decides against the order if tickets are missing, of a ticket type or of the event: "sold out", too few
/// tickets left, or overdue holds to free first.
fn check_availability(snapshot: &Snapshot<'_>, event: &Event, items: &Items) -> Option<Decision> {
    let check = |requested: u32, available: u32, scope: HoldScope, ticket_type: Option<TicketTypeId>| {
        let missing = requested.checked_sub(available).filter(|missing| guard!(Capacity: *missing > 0))?;
        let refusal = match available {
            0 => Refusal::SoldOut { requested, ticket_type },
            available => Refusal::InsufficientAvailability { requested, available, ticket_type },
        };
        Some(free_overdue_or_refuse(snapshot, scope, missing, refusal))
    };
    for item in items.iter() {
        let id = item.ticket_type;
        let left = event.index_of(id).map_or(0, |index| event.available_of(index));
        // If the capacity of the event is the limit, holds of any ticket type compete with the order.
        let scope = if left == event.available() { HoldScope::Event } else { HoldScope::TicketType(id) };
        if let Some(decision) = check(item.quantity, left, scope, Some(id)) {
            return Some(decision);
        }
    }
    check(items.quantity(), event.available(), HoldScope::Event, None)
}

/// Accepts the payment; the tickets come from the state `from`.
pub(crate) fn pay(
    case: &Case<'_>,
    status: BookingStatus,
    confirmation: &Confirmation,
    from: TicketState,
) -> Result<Decision, InconsistencyError> {
    let payment = Payment { transaction: confirmation.payment.transaction.clone(), at: case.now };
    transition(case, status, State::Confirmed(payment), (from, TicketState::Sold), None)
}

/// Handles a late payment: reserves the tickets again if they are available and the user's limit allows it.
pub(crate) fn reacquire(
    case: &Case<'_>,
    status: BookingStatus,
    confirmation: &Confirmation,
) -> Result<Decision, InconsistencyError> {
    let booking = case.booking;
    let unavailable = check_user_limit(case.snapshot, case.event, &booking.items, || booking.user.clone())
        .or_else(|| check_availability(case.snapshot, case.event, &booking.items));
    match unavailable {
        None => pay(case, status, confirmation, TicketState::Free),
        Some(Decision::FreeOverdue(shortage)) => Ok(Decision::FreeOverdue(shortage)),
        Some(Decision::Answer(_) | Decision::Change(_)) => {
            refund_rejected_payment(case, confirmation, RefundReason::HoldExpired)
        }
    }
}

/// Handles a captured payment that buys nothing: records one refund, which the answer contains.
pub(crate) fn refund_rejected_payment(
    case: &Case<'_>,
    confirmation: &Confirmation,
    reason: RefundReason,
) -> Result<Decision, InconsistencyError> {
    let amount = confirmation.payment.amount.unwrap_or(case.booking.total);
    let refund = new_refund(case, confirmation.refund_id, &confirmation.payment.transaction, amount, reason);
    let status = case.booking.status();
    let mut draft = Draft::new(case.event, Some(case.booking), case.command, case.now);
    let seq = draft.append_refund_entry(case.booking, &refund, None)?;
    let booking = updated_booking(case, case.booking.state.clone(), seq)?;
    let refusal = refund_refusal(status, reason, &refund);
    let mut change = change_from(draft, booking);
    change.refund = Some(refund);
    change.answer = Answer::Refused(refusal);
    Ok(Decision::Change(Box::new(change)))
}

/// Cancels the booking, and records the refund of its payment, if it has one.
pub(crate) fn end_booking(
    case: &Case<'_>,
    status: BookingStatus,
    cancellation: &Cancellation,
    payment: Option<&Payment>,
    from: TicketState,
) -> Result<Decision, InconsistencyError> {
    let reason = match case.event.details.status {
        EventStatus::Cancelled => RefundReason::EventCancelled,
        EventStatus::OnSale | EventStatus::Paused => RefundReason::BookingCancelled,
    };
    let refund = match payment {
        Some(Payment { transaction, .. }) if guard!(RefundOnCancel) => {
            Some(new_refund(case, cancellation.refund_id, transaction, case.booking.total, reason))
        }
        Some(_) | None => None,
    };
    let payment = payment.cloned();
    let state =
        State::Cancelled { at: case.now, reason: cancellation.reason.clone(), payment, refunded: false };
    transition(case, status, state, (from, TicketState::Free), refund)
}

/// A refund that is now due.
fn new_refund(
    case: &Case<'_>,
    id: RefundId,
    transaction: &TransactionId,
    amount: Money,
    reason: RefundReason,
) -> Refund {
    Refund {
        id,
        booking_id: case.booking.id,
        event_id: case.event.id,
        transaction: transaction.clone(),
        amount,
        status: RefundStatus::Requested,
        reason,
        provider_reference: None,
        created_at: case.now,
        settled_at: None,
    }
}

/// The refusal of a transaction with a recorded refund: the same as the first time, except that a cancelled
/// event takes precedence over the state of a booking.
fn repeated_refusal(case: &Case<'_>, status: BookingStatus, refund: &Refund) -> Refusal {
    let reason = match (refund.reason, case.event.details.status) {
        (RefundReason::BookingCancelled | RefundReason::InvalidState, EventStatus::Cancelled) => {
            RefundReason::EventCancelled
        }
        (reason, EventStatus::OnSale | EventStatus::Paused | EventStatus::Cancelled) => reason,
    };
    refund_refusal(status, reason, refund)
}

fn refund_refusal(booking: BookingStatus, reason: RefundReason, refund: &Refund) -> Refusal {
    let named = Box::new(refund.clone());
    match reason {
        RefundReason::EventCancelled => {
            Refusal::EventCancelled { booking: Some(booking), refund: Some(named) }
        }
        RefundReason::HoldExpired => Refusal::HoldExpired { booking, refund: named },
        RefundReason::BookingCancelled | RefundReason::InvalidState => {
            Refusal::InvalidState { booking, refund: Some(named) }
        }
    }
}

/// Moves a booking to a new state: counters, ledger and booking together.
fn transition(
    case: &Case<'_>,
    from: BookingStatus,
    to: State,
    ticket_move: (TicketState, TicketState),
    refund: Option<Refund>,
) -> Result<Decision, InconsistencyError> {
    let kind = match &to {
        State::Pending => return Err(InconsistencyError("no booking becomes pending again")),
        State::Confirmed(_) => EntryKind::BookingConfirmed,
        State::Cancelled { .. } => EntryKind::BookingCancelled,
        State::Expired { .. } => EntryKind::BookingExpired,
    };
    let mut draft = Draft::new(case.event, Some(case.booking), case.command, case.now);
    let mut booking = updated_booking(case, to, 0)?;
    draft.event.move_tickets(&booking.items, ticket_move.0, ticket_move.1)?;
    draft.event.inventory.tallies.count(Some(from), booking.status(), booking.total.amount())?;
    booking.last_seq = draft.append_booking_entry(kind, &booking, Some(from))?;
    if let Some(refund) = &refund {
        booking.last_seq = draft.append_refund_entry(&booking, refund, None)?;
    }
    let tickets = i64::from(booking.items.quantity());
    let added = match ticket_move {
        (TicketState::Free, TicketState::Held | TicketState::Sold) => tickets,
        (TicketState::Held | TicketState::Sold, TicketState::Free) => -tickets,
        (TicketState::Free, TicketState::Free)
        | (TicketState::Held | TicketState::Sold, TicketState::Held | TicketState::Sold) => 0,
    };
    with_user_count(draft, case.snapshot, booking, refund, added)
}

fn updated_booking(case: &Case<'_>, state: State, last_seq: u64) -> Result<Booking, InconsistencyError> {
    let version =
        case.booking.version.checked_add(1).ok_or(InconsistencyError("a booking changed too often"))?;
    Ok(Booking { state, version, last_seq, updated_at: case.now, ..Booking::clone(case.booking) })
}

fn change_from(draft: Draft<'_>, booking: Booking) -> Change {
    let booking = Arc::new(booking);
    Change {
        details: None,
        inventory: draft.event.inventory,
        answer: Answer::Booking(booking.clone()),
        booking: Some(booking),
        refund: None,
        user_tickets: None,
        entries: draft.entries,
    }
}

/// Completes a change in which the number of the user's tickets changed by `added`.
fn with_user_count(
    draft: Draft<'_>,
    snapshot: &Snapshot<'_>,
    booking: Booking,
    refund: Option<Refund>,
    added: i64,
) -> Result<Decision, InconsistencyError> {
    let limited = draft.event.details.max_tickets_per_user.is_some() && added != 0;
    let count =
        i64::from(snapshot.user_tickets).checked_add(added).and_then(|count| u32::try_from(count).ok());
    let count = count.ok_or(InconsistencyError("a user's count would leave its range"));
    let user_tickets = if limited { Some((booking.user.clone(), count?)) } else { None };
    let change = change_from(draft, booking);
    Ok(Decision::Change(Box::new(Change { refund, user_tickets, ..change })))
}
