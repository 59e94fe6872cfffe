//! The rules of a booking's life.

use std::sync::Arc;

use super::{Answer, Change, Draft, Inconsistent, Scene, Scope, Verdict, lacking, refuse};
use crate::sabotage::{Guard, removed};
use crate::{
    Actor, Ask, Booking, BookingStatus, Cancellation, Command, Confirmation, EntryKind, Event, EventStatus,
    Invalid, Item, Items, Money, Order, Payment, Place, Refund, RefundReason, RefundStatus, Refusal,
    Settlement, State, TicketTypeId, Timestamp,
};

/// A command about a booking that exists, with all that is known of it.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) scene: &'a Scene<'a>,
    pub(super) event: &'a Event,
    pub(super) booking: &'a Arc<Booking>,
    pub(super) command: &'a Command,
    pub(super) now: Timestamp,
}

/// Takes tickets, all that are asked for or none. This is where "sold out" is decided.
pub(super) fn book(
    scene: &Scene<'_>,
    event: &Event,
    order: &Order,
    command: &Command,
    now: Timestamp,
) -> Result<Verdict, Inconsistent> {
    let (items, total) = match price(event, order) {
        Ok(priced) => priced,
        Err(refusal) => return refuse(refusal),
    };
    if let Some(refusal) = closed(event, now).filter(|_| !removed(Guard::SalesOpen)) {
        return refuse(refusal);
    }
    if let Some(lack) = over_user_limit(scene, event, &items, || order.user.clone()) {
        return Ok(lack);
    }
    if let Some(lack) = short_of_tickets(scene, event, &items) {
        return Ok(lack);
    }
    let booking = Booking {
        id: order.booking_id,
        event_id: event.id,
        user: order.user.clone(),
        items,
        total,
        hold_expires_at: event.hold_until(now),
        payment_method: order.payment_method.clone(),
        state: State::Pending,
        version: 1,
        last_seq: 0,
        created_at: now,
        updated_at: now,
    };
    let mut draft = Draft::new(event, None, command, now);
    draft.event.move_tickets(&booking.items, Place::Free, Place::Held)?;
    draft.event.stock.tallies.count(None, BookingStatus::Pending, total.amount())?;
    let seq = draft.note_booking(EntryKind::BookingCreated, &booking, None)?;
    let tickets = booking.items.quantity();
    finish(draft, scene, Booking { last_seq: seq, ..booking }, None, i64::from(tickets))
}

/// A payment was captured. Either the booking ends up paid, or the payment is to be given back.
pub(super) fn confirm(
    case: &Case<'_>,
    status: BookingStatus,
    paid: &Confirmation,
) -> Result<Verdict, Inconsistent> {
    if let Some(refund) = case.scene.refund.filter(|_| !removed(Guard::RefundedForGood)) {
        return refuse(refused_before(case, status, refund));
    }
    if paid.amount.is_some_and(|amount| amount != case.booking.total) && !removed(Guard::Amount) {
        return refuse(Refusal::AmountMismatch { expected: case.booking.total });
    }
    let cancelled_event = case.event.about.status == EventStatus::Cancelled;
    match (&case.booking.state, cancelled_event) {
        (State::Confirmed(payment), _)
            if payment.transaction == paid.transaction && !removed(Guard::PaidOnce) =>
        {
            Ok(Verdict::Answer(Answer::Booking(case.booking.clone())))
        }
        (State::Pending, false) => pay(case, status, paid, Place::Held),
        (State::Expired { .. }, false) => take_again(case, status, paid),
        (State::Cancelled { .. }, false) if removed(Guard::CancelledForGood) => {
            take_again(case, status, paid)
        }
        (State::Confirmed(_) | State::Cancelled { .. }, false) => {
            give_back(case, paid, RefundReason::InvalidState)
        }
        (State::Pending | State::Confirmed(_) | State::Cancelled { .. } | State::Expired { .. }, true) => {
            give_back(case, paid, RefundReason::EventCancelled)
        }
    }
}

/// Gives a booking up, and records what has to be given back for it.
pub(super) fn cancel(
    case: &Case<'_>,
    status: BookingStatus,
    wish: &Cancellation,
) -> Result<Verdict, Inconsistent> {
    let (by_user, owner) = match &case.command.actor {
        Actor::User(user) => (true, *user == case.booking.user),
        Actor::Service(_) | Actor::Admin(_) | Actor::System => (false, true),
    };
    if !owner && !removed(Guard::Owner) {
        // The same answer as for no booking at all: whether it exists is not the asker's to know.
        return super::no_such("booking");
    }
    match &case.booking.state {
        State::Cancelled { .. } | State::Expired { .. } if removed(Guard::FreedOnce) => {
            give_up(case, status, wish, None, Place::Held)
        }
        State::Cancelled { .. } | State::Expired { .. } => {
            refuse(Refusal::InvalidState { booking: status, refund: None })
        }
        State::Pending => give_up(case, status, wish, None, Place::Held),
        State::Confirmed(payment) => {
            let about = &case.event.about;
            let until = about.starts_at.minus_seconds(about.cancel_cutoff_seconds);
            if by_user && case.now > until && !removed(Guard::CutOff) {
                return refuse(Refusal::CancelCutoffPassed { booking: status, until });
            }
            give_up(case, status, wish, Some(payment), Place::Sold)
        }
    }
}

/// Frees an unpaid booking whose time has passed. A system action: no user's rule applies.
pub(super) fn expire(case: &Case<'_>, status: BookingStatus) -> Result<Verdict, Inconsistent> {
    match &case.booking.state {
        State::Pending
            if removed(Guard::SystemExempt)
                && case.now
                    > case.event.about.starts_at.minus_seconds(case.event.about.cancel_cutoff_seconds) =>
        {
            refuse(Refusal::CancelCutoffPassed { booking: status, until: case.event.about.starts_at })
        }
        State::Pending if case.booking.overdue(case.now) || removed(Guard::Overdue) => {
            move_on(case, status, State::Expired { at: case.now }, (Place::Held, Place::Free), None)
        }
        State::Pending | State::Confirmed(_) | State::Cancelled { .. } | State::Expired { .. } => {
            refuse(Refusal::InvalidState { booking: status, refund: None })
        }
    }
}

/// Records the outcome of a refund. The same outcome again is one settlement; what was paid out stays so.
pub(super) fn settle(
    case: &Case<'_>,
    status: BookingStatus,
    settlement: &Settlement,
) -> Result<Verdict, Inconsistent> {
    let Some(refund) = case.scene.refund else { return super::no_such("refund") };
    let outcome = if settlement.succeeded { RefundStatus::Succeeded } else { RefundStatus::Failed };
    match (refund.status, settlement.succeeded) {
        (RefundStatus::Succeeded, true) | (RefundStatus::Failed, false) => {
            Ok(Verdict::Answer(Answer::Refund(Box::new(refund.clone()))))
        }
        (RefundStatus::Succeeded, false) => {
            refuse(Refusal::InvalidState { booking: status, refund: Some(Box::new(refund.clone())) })
        }
        (RefundStatus::Requested, _) | (RefundStatus::Failed, true) => {
            let settled = Refund {
                status: outcome,
                provider_reference: Some(settlement.provider_reference.clone()),
                settled_at: Some(case.now),
                ..refund.clone()
            };
            let mut draft = Draft::new(case.event, Some(case.booking), case.command, case.now);
            let seq = draft.note_refund(case.booking, &settled, Some(refund.status))?;
            let booking = changed(case, paid_back(&case.booking.state, &settled), seq)?;
            let mut change = into_change(draft, booking);
            change.answer = Answer::Refund(Box::new(settled.clone()));
            change.refund = Some(settled);
            Ok(Verdict::Change(Box::new(change)))
        }
    }
}

/// The state of a booking after a refund was settled: only that of its own payment shows in it.
fn paid_back(state: &State, refund: &Refund) -> State {
    let mut state = state.clone();
    if let State::Cancelled { payment: Some(payment), refunded, .. } = &mut state
        && payment.transaction == refund.transaction
    {
        *refunded = refund.status == RefundStatus::Succeeded;
    }
    state
}

/// The items of an order at today's prices, or what is wrong with the order in itself.
fn price(event: &Event, order: &Order) -> Result<(Items, Money), Refusal> {
    let wrong = |pointer: &str, detail: &str| Refusal::Invalid(vec![Invalid::new(pointer, detail)]);
    let asked: &[(TicketTypeId, u32)] = match (&order.ask, event.about.ticket_types.as_slice()) {
        (Ask::Quantity(quantity), [only]) => &[(only.id, *quantity)],
        (Ask::Quantity(_), _) => {
            return Err(wrong("/items", "the event has several ticket types: say how many of each"));
        }
        (Ask::Items(items), _) => items,
    };
    let mut items = Vec::with_capacity(asked.len());
    let mut total: Option<Money> = None;
    let mut quantity: u32 = 0;
    for (place, (id, wanted)) in asked.iter().enumerate() {
        let kind = event.index_of(*id).and_then(|index| event.about.ticket_types.get(index));
        let unknown = || wrong(&format!("/items/{place}/ticketTypeId"), "the event has no such ticket type");
        let kind = kind.ok_or_else(unknown)?;
        quantity = quantity.saturating_add(*wanted);
        let sum =
            kind.price.times(*wanted).and_then(|cost| total.map_or(Ok(cost), |before| before.plus(cost)));
        total = Some(sum.map_err(|_| wrong("", "the total is too large"))?);
        let (name, unit_price) = (kind.name.clone(), kind.price);
        items.push(Item { ticket_type: kind.id, name, quantity: *wanted, unit_price });
    }
    let once = "must name at least one ticket type, each once, with a quantity of at least 1";
    let pointer = match &order.ask {
        Ask::Quantity(_) => "/ticketQuantity",
        Ask::Items(_) => "/items",
    };
    let (items, total) = Items::new(items).zip(total).ok_or_else(|| wrong(pointer, once))?;
    let limit = event.about.max_tickets_per_booking;
    if quantity > limit {
        let detail = format!("at most {limit} tickets may be booked at once");
        return Err(Refusal::BookingLimitExceeded { detail });
    }
    if order.expected_total.is_some_and(|expected| expected != total) {
        return Err(Refusal::AmountMismatch { expected: total });
    }
    Ok((items, total))
}

/// Why nothing can be booked at this time, the reason that lasts longest first.
fn closed(event: &Event, now: Timestamp) -> Option<Refusal> {
    let about = &event.about;
    if about.status == EventStatus::Cancelled {
        return Some(Refusal::EventCancelled { booking: None, refund: None });
    }
    if about.starts_at <= now {
        return Some(Refusal::EventStarted);
    }
    if about.sales_end_at.is_some_and(|end| end <= now) {
        return Some(Refusal::SalesClosed);
    }
    if about.status == EventStatus::Paused {
        return Some(Refusal::EventPaused);
    }
    about.sales_start_at.filter(|start| now < *start).map(Refusal::SalesNotOpen)
}

/// What to do when the user would hold more than the event allows one user.
fn over_user_limit(
    scene: &Scene<'_>,
    event: &Event,
    items: &Items,
    user: impl Fn() -> crate::UserId,
) -> Option<Verdict> {
    let limit = event.about.max_tickets_per_user.filter(|_| !removed(Guard::UserLimit))?;
    let wanted = scene.user_tickets.saturating_add(items.quantity());
    let over = wanted.checked_sub(limit).filter(|over| *over > 0)?;
    let left = limit.saturating_sub(scene.user_tickets);
    let detail = format!("at most {limit} tickets per user; {left} more may be booked");
    Some(lacking(scene, Scope::User(user()), over, Refusal::BookingLimitExceeded { detail }))
}

/// What to do when tickets are missing, of a ticket type or of the event.
fn short_of_tickets(scene: &Scene<'_>, event: &Event, items: &Items) -> Option<Verdict> {
    if removed(Guard::Capacity) {
        return None;
    }
    let lack = |requested: u32, available: u32, scope: Scope, ticket_type: Option<TicketTypeId>| {
        let missing = requested.checked_sub(available).filter(|missing| *missing > 0)?;
        let refusal = match available {
            0 => Refusal::SoldOut { requested, ticket_type },
            available => Refusal::InsufficientAvailability { requested, available, ticket_type },
        };
        Some(lacking(scene, scope, missing, refusal))
    };
    for item in items.iter() {
        let id = item.ticket_type;
        let left = event.index_of(id).map_or(0, |index| event.available_of(index));
        // Where the event itself is full, holds of any type stand in the way.
        let scope = if left == event.available() { Scope::Event } else { Scope::TicketType(id) };
        if let Some(lack) = lack(item.quantity, left, scope, Some(id)) {
            return Some(lack);
        }
    }
    lack(items.quantity(), event.available(), Scope::Event, None)
}

/// The payment is accepted; the tickets come from `place`.
fn pay(
    case: &Case<'_>,
    status: BookingStatus,
    paid: &Confirmation,
    place: Place,
) -> Result<Verdict, Inconsistent> {
    let payment = Payment { transaction: paid.transaction.clone(), at: case.now };
    move_on(case, status, State::Confirmed(payment), (place, Place::Sold), None)
}

/// A late payment: the tickets are taken again if they are still there and the user's limit allows.
fn take_again(case: &Case<'_>, status: BookingStatus, paid: &Confirmation) -> Result<Verdict, Inconsistent> {
    let booking = case.booking;
    if removed(Guard::TakenAgain) {
        return give_back(case, paid, RefundReason::HoldExpired);
    }
    if removed(Guard::StillThere) {
        return pay(case, status, paid, Place::Free);
    }
    let lack = over_user_limit(case.scene, case.event, &booking.items, || booking.user.clone())
        .or_else(|| short_of_tickets(case.scene, case.event, &booking.items));
    match lack {
        None => pay(case, status, paid, Place::Free),
        Some(Verdict::Overdue(shortage)) => Ok(Verdict::Overdue(shortage)),
        Some(Verdict::Answer(_) | Verdict::Change(_)) => give_back(case, paid, RefundReason::HoldExpired),
    }
}

/// A captured payment that buys nothing: one refund is recorded, and the answer names it.
fn give_back(case: &Case<'_>, paid: &Confirmation, reason: RefundReason) -> Result<Verdict, Inconsistent> {
    if removed(Guard::RefundWhenLate) {
        return refuse(Refusal::InvalidState { booking: case.booking.status(), refund: None });
    }
    let refund = Refund {
        id: paid.refund_id,
        booking_id: case.booking.id,
        event_id: case.event.id,
        transaction: paid.transaction.clone(),
        amount: paid.amount.unwrap_or(case.booking.total),
        status: RefundStatus::Requested,
        reason,
        provider_reference: None,
        created_at: case.now,
        settled_at: None,
    };
    let status = case.booking.status();
    let mut draft = Draft::new(case.event, Some(case.booking), case.command, case.now);
    let seq = draft.note_refund(case.booking, &refund, None)?;
    let booking = changed(case, case.booking.state.clone(), seq)?;
    let refusal = late(status, reason, &refund);
    let mut change = into_change(draft, booking);
    change.refund = Some(refund);
    change.answer = Answer::Refused(refusal);
    Ok(Verdict::Change(Box::new(change)))
}

/// The booking ends, and a payment it had is to be given back.
fn give_up(
    case: &Case<'_>,
    status: BookingStatus,
    wish: &Cancellation,
    payment: Option<&Payment>,
    place: Place,
) -> Result<Verdict, Inconsistent> {
    let reason = match case.event.about.status {
        EventStatus::Cancelled => RefundReason::EventCancelled,
        EventStatus::OnSale | EventStatus::Paused => RefundReason::BookingCancelled,
    };
    let refund = payment.filter(|_| !removed(Guard::RefundOnCancel)).map(|payment| Refund {
        id: wish.refund_id,
        booking_id: case.booking.id,
        event_id: case.event.id,
        transaction: payment.transaction.clone(),
        amount: case.booking.total,
        status: RefundStatus::Requested,
        reason,
        provider_reference: None,
        created_at: case.now,
        settled_at: None,
    });
    let payment = payment.cloned();
    let state = State::Cancelled { at: case.now, reason: wish.reason.clone(), payment, refunded: false };
    move_on(case, status, state, (place, Place::Free), refund)
}

/// What a transaction with a recorded refund hears: what it heard the first time, except that a cancelled
/// event outranks the state of a booking.
fn refused_before(case: &Case<'_>, status: BookingStatus, refund: &Refund) -> Refusal {
    let reason = match (refund.reason, case.event.about.status) {
        (RefundReason::BookingCancelled | RefundReason::InvalidState, EventStatus::Cancelled) => {
            RefundReason::EventCancelled
        }
        (reason, EventStatus::OnSale | EventStatus::Paused | EventStatus::Cancelled) => reason,
    };
    late(status, reason, refund)
}

fn late(booking: BookingStatus, reason: RefundReason, refund: &Refund) -> Refusal {
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

/// Brings a booking to a new state: counters, ledger and booking together.
fn move_on(
    case: &Case<'_>,
    from: BookingStatus,
    to: State,
    way: (Place, Place),
    refund: Option<Refund>,
) -> Result<Verdict, Inconsistent> {
    let kind = match &to {
        State::Pending => return Err(Inconsistent("nothing becomes pending again")),
        State::Confirmed(_) => EntryKind::BookingConfirmed,
        State::Cancelled { .. } => EntryKind::BookingCancelled,
        State::Expired { .. } => EntryKind::BookingExpired,
    };
    let mut draft = Draft::new(case.event, Some(case.booking), case.command, case.now);
    let mut booking = changed(case, to, 0)?;
    draft.event.move_tickets(&booking.items, way.0, way.1)?;
    draft.event.stock.tallies.count(Some(from), booking.status(), booking.total.amount())?;
    booking.last_seq = draft.note_booking(kind, &booking, Some(from))?;
    if let Some(refund) = &refund {
        booking.last_seq = draft.note_refund(&booking, refund, None)?;
    }
    let tickets = i64::from(booking.items.quantity());
    let claimed = match way {
        (Place::Free, Place::Held | Place::Sold) => tickets,
        (Place::Held | Place::Sold, Place::Free) => -tickets,
        (Place::Free, Place::Free) | (Place::Held | Place::Sold, Place::Held | Place::Sold) => 0,
    };
    finish(draft, case.scene, booking, refund, claimed)
}

fn changed(case: &Case<'_>, state: State, last_seq: u64) -> Result<Booking, Inconsistent> {
    let version = case.booking.version.checked_add(1).ok_or(Inconsistent("a booking changed too often"))?;
    Ok(Booking { state, version, last_seq, updated_at: case.now, ..Booking::clone(case.booking) })
}

fn into_change(draft: Draft<'_>, booking: Booking) -> Change {
    let booking = Arc::new(booking);
    Change {
        about: None,
        stock: draft.event.stock,
        answer: Answer::Booking(booking.clone()),
        booking: Some(booking),
        refund: None,
        user_tickets: None,
        entries: draft.entries,
    }
}

/// Closes a change in which the user came to hold `claimed` tickets more, or fewer.
fn finish(
    draft: Draft<'_>,
    scene: &Scene<'_>,
    booking: Booking,
    refund: Option<Refund>,
    claimed: i64,
) -> Result<Verdict, Inconsistent> {
    let limited = draft.event.about.max_tickets_per_user.is_some() && claimed != 0;
    let count =
        i64::from(scene.user_tickets).checked_add(claimed).and_then(|count| u32::try_from(count).ok());
    let count = count.ok_or(Inconsistent("a user's count would leave its range"));
    let user_tickets = if limited { Some((booking.user.clone(), count?)) } else { None };
    let change = into_change(draft, booking);
    Ok(Verdict::Change(Box::new(Change { refund, user_tickets, ..change })))
}
