//! The effect of one command on the modelled database, decided by the real rules.

use std::sync::Arc;

use domain::{
    Action, Actor, Answer, Booking, BookingId, Cancellation, CapturedPayment, Command, Confirmation,
    Decision, Event, EventDetails, EventId, EventPatch, EventStatus, HoldScope, Inventory, Item, Items,
    Money, Order, Payment, Refund, RefundId, RefundReason, RefundStatus, Refusal, Snapshot, State, Tallies,
    TicketSelection, TicketType, TicketTypeId, Timestamp, TransactionId, TypeInventory, UserId, decide,
};

use super::{BookingState, Db, ModelConfig, Operation};

/// The response to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Response {
    /// The command was executed.
    Done,
    /// The command was refused with this code.
    Refused(&'static str),
    /// The command failed, which must never happen.
    Failed(&'static str),
}

/// The effect of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) after: Db,
    pub(crate) response: Response,
    /// True if the command freed an overdue hold first.
    pub(crate) freed_hold: bool,
}

const REASONS: [RefundReason; 4] = [
    RefundReason::BookingCancelled,
    RefundReason::EventCancelled,
    RefundReason::HoldExpired,
    RefundReason::InvalidState,
];
/// All holds are created at the same instant and last equally long, so one step of time makes all of them
/// overdue.
const BEGIN_MICROS: i64 = 1_800_000_000_000_000;
const HOLD_SECONDS: u32 = 60;
/// The sequence of the ledger before each command. Its value is arbitrary: only the difference is modelled.
const SEQ: u64 = 100;

fn parse<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| unreachable!("{text} is well formed"))
}

fn at(late: bool) -> Timestamp {
    let begin = Timestamp::from_micros(BEGIN_MICROS).unwrap_or_else(|_| unreachable!("2027"));
    if late { begin.plus_seconds(HOLD_SECONDS) } else { begin }
}

fn event_id() -> EventId {
    EventId::from_bytes([1; 16])
}

fn ticket_type() -> TicketTypeId {
    TicketTypeId::from_bytes([2; 16])
}

fn booking_id(index: usize) -> BookingId {
    BookingId::from_bytes([3 + u8::try_from(index).unwrap_or(0); 16])
}

fn user(config: &ModelConfig, index: usize) -> UserId {
    parse(if config.one_user || index == 0 { "ada" } else { "ben" })
}

fn price() -> Money {
    Money::new(100, parse("EUR")).unwrap_or_else(|_| unreachable!("one euro"))
}

fn transaction(payment: usize) -> TransactionId {
    parse(&format!("pay-{payment}"))
}

fn event(config: &ModelConfig, db: &Db, late: bool) -> Event {
    let details = EventDetails {
        name: parse("Concert"),
        venue: parse("Hall"),
        starts_at: at(true).plus_seconds(1_000_000),
        time_zone: None,
        currency: parse("EUR"),
        sales_start_at: None,
        sales_end_at: None,
        hold_seconds: HOLD_SECONDS,
        cancel_cutoff_seconds: 0,
        max_tickets_per_booking: 1,
        max_tickets_per_user: config.one_user.then_some(1),
        status: if db.event_cancelled { EventStatus::Cancelled } else { EventStatus::OnSale },
        ticket_types: vec![TicketType { id: ticket_type(), name: parse("Seat"), price: price() }],
        version: 1,
        created_at: at(false),
        updated_at: at(false),
    };
    let count =
        |wanted: fn(&BookingState) -> bool| db.bookings.iter().filter(|stored| wanted(stored)).count() as u64;
    let confirmed = count(|stored| matches!(stored, BookingState::Confirmed(_)));
    let tallies = Tallies {
        pending: count(|stored| *stored == BookingState::Pending),
        confirmed,
        cancelled: count(|stored| matches!(stored, BookingState::Cancelled(_))),
        expired: count(|stored| *stored == BookingState::Expired),
        revenue: i128::from(confirmed) * i128::from(price().amount()),
    };
    let (held, sold) = (u32::from(db.held), u32::from(db.sold));
    let inventory = Inventory {
        capacity: config.capacity.into(),
        held,
        sold,
        types: vec![TypeInventory { capacity: None, held, sold }],
        seq: SEQ,
        last_at: at(late),
        tallies,
    };
    Event { id: event_id(), details: Arc::new(details), inventory }
}

fn booking(config: &ModelConfig, stored: BookingState, index: usize) -> Option<Arc<Booking>> {
    let payment = |payment: u8| Payment { transaction: transaction(payment.into()), at: at(false) };
    let state = match stored {
        BookingState::Absent => return None,
        BookingState::Pending => State::Pending,
        BookingState::Confirmed(by) => State::Confirmed(payment(by)),
        BookingState::Cancelled(by) => {
            State::Cancelled { at: at(false), reason: None, payment: by.map(payment), refunded: false }
        }
        BookingState::Expired => State::Expired { at: at(true) },
    };
    let item = Item { ticket_type: ticket_type(), name: parse("Seat"), quantity: 1, unit_price: price() };
    Some(Arc::new(Booking {
        id: booking_id(index),
        event_id: event_id(),
        user: user(config, index),
        items: Items::new(vec![item]).unwrap_or_else(|| unreachable!("one item")),
        total: price(),
        hold_expires_at: at(true),
        payment_method: None,
        external_ref: None,
        metadata: domain::Metadata::default(),
        state,
        version: 1,
        last_seq: SEQ,
        created_at: at(false),
        updated_at: at(false),
    }))
}

fn refund(db: &Db, index: usize, payment: usize) -> Option<Refund> {
    let reason = *REASONS.get(usize::from(db.refunds[index][payment].checked_sub(1)?))?;
    Some(Refund {
        id: RefundId::from_bytes([9; 16]),
        booking_id: booking_id(index),
        event_id: event_id(),
        transaction: transaction(payment),
        amount: price(),
        status: RefundStatus::Requested,
        reason,
        provider_reference: None,
        created_at: at(false),
        settled_at: None,
    })
}

fn command(config: &ModelConfig, operation: Operation) -> Command {
    let event_id = event_id();
    let refund_id = RefundId::from_bytes([9; 16]);
    let cancel = |index| {
        Action::Cancel(Box::new(Cancellation {
            event_id,
            booking_id: booking_id(index),
            reason: None,
            refund_id,
        }))
    };
    let (actor, action) = match operation {
        Operation::Book(index) => {
            let user = user(config, index);
            let order = Order::new(event_id, booking_id(index), user.clone(), TicketSelection::Quantity(1));
            (Actor::User(user), Action::Book(Box::new(order)))
        }
        Operation::Confirm(index, payment) => {
            let paid = Confirmation {
                event_id,
                booking_id: booking_id(index),
                payment: CapturedPayment { transaction: transaction(payment), amount: None },
                refund_id,
            };
            (Actor::Service(parse("gateway")), Action::Confirm(Box::new(paid)))
        }
        Operation::Cancel(index) => (Actor::User(user(config, index)), cancel(index)),
        Operation::CancelForeign(index) => (Actor::User(parse("mallory")), cancel(index)),
        Operation::CancelEventBooking(index) => (Actor::System, cancel(index)),
        Operation::Expire(index) => {
            (Actor::System, Action::Expire { event_id, booking_id: booking_id(index) })
        }
        Operation::CancelEvent => {
            let patch = EventPatch { status: Some(EventStatus::Cancelled), ..EventPatch::default() };
            (Actor::Admin(parse("organiser")), Action::UpdateEvent { event_id, patch: Box::new(patch) })
        }
    };
    Command { actor, request: parse("request"), trace: None, action }
}

/// Decides an operation as the fold does: overdue holds that a shortage names are freed first.
pub(crate) fn step(config: &ModelConfig, db: &Db, operation: Operation, late: bool) -> Step {
    let mut now = *db;
    let mut exhausted_scopes: Vec<HoldScope> = Vec::new();
    let mut freed_hold = false;
    loop {
        let decision = match decide_operation(config, &now, operation, late, &exhausted_scopes) {
            Ok(decision) => decision,
            Err(inconsistent) => {
                return Step { after: *db, response: Response::Failed(inconsistent.0), freed_hold };
            }
        };
        match decision {
            Decision::Answer(answer) => return Step { after: now, response: response(&answer), freed_hold },
            Decision::Change(change) => {
                let response = response(&change.answer);
                apply(&mut now, &change);
                return Step { after: now, response, freed_hold };
            }
            Decision::FreeOverdue(shortage) => {
                let in_scope = |index: usize| match &shortage.scope {
                    HoldScope::Event | HoldScope::TicketType(_) => true,
                    HoldScope::User(of) => user(config, index) == *of,
                };
                let overdue = (0..2)
                    .find(|index| late && now.bookings[*index] == BookingState::Pending && in_scope(*index));
                let expired = overdue.and_then(|index| {
                    decide_operation(config, &now, Operation::Expire(index), late, &[]).ok()
                });
                match expired {
                    Some(Decision::Change(change)) => {
                        apply(&mut now, &change);
                        freed_hold = true;
                    }
                    _ => exhausted_scopes.push(shortage.scope),
                }
            }
        }
    }
}

fn decide_operation(
    config: &ModelConfig,
    db: &Db,
    operation: Operation,
    late: bool,
    exhausted_scopes: &[HoldScope],
) -> Result<Decision, domain::InconsistencyError> {
    let event = event(config, db, late);
    let (index, refund) = match operation {
        Operation::Confirm(index, payment) => (Some(index), refund(db, index, payment)),
        Operation::Book(index)
        | Operation::Cancel(index)
        | Operation::CancelForeign(index)
        | Operation::Expire(index)
        | Operation::CancelEventBooking(index) => (Some(index), None),
        Operation::CancelEvent => (None, None),
    };
    let booking = index.and_then(|index| booking(config, db.bookings[index], index));
    let live = db
        .bookings
        .iter()
        .filter(|stored| matches!(stored, BookingState::Pending | BookingState::Confirmed(_)));
    let user_tickets = if config.one_user { u32::try_from(live.count()).unwrap_or(0) } else { 0 };
    let snapshot = Snapshot {
        event: Some(&event),
        booking: booking.as_ref(),
        refund: refund.as_ref(),
        user_tickets,
        is_external_ref_in_use: false,
        exhausted_scopes,
    };
    decide(&snapshot, &command(config, operation), at(late))
}

fn response(answer: &Answer) -> Response {
    match answer {
        Answer::Refused(Refusal::NotFound(_)) => Response::Refused("not_found"),
        Answer::Refused(refusal) => Response::Refused(refusal.code()),
        Answer::Booking(_) | Answer::Event(_) | Answer::Refund(_) => Response::Done,
    }
}

fn apply(db: &mut Db, change: &domain::Change) {
    let small = |count: u32| u8::try_from(count).unwrap_or(u8::MAX);
    (db.held, db.sold) = (small(change.inventory.held), small(change.inventory.sold));
    db.seq += u8::try_from(change.inventory.seq - SEQ).unwrap_or(u8::MAX);
    db.event_cancelled |=
        change.details.as_ref().is_some_and(|details| details.status == EventStatus::Cancelled);
    let payment = |transaction: &TransactionId| u8::from(*transaction == self::transaction(1));
    if let Some(booking) = &change.booking {
        let index = usize::from(booking.id == booking_id(1));
        db.versions[index] += 1;
        db.bookings[index] = match &booking.state {
            State::Pending => BookingState::Pending,
            State::Confirmed(paid) => BookingState::Confirmed(payment(&paid.transaction)),
            State::Cancelled { payment: paid, .. } => {
                BookingState::Cancelled(paid.as_ref().map(|paid| payment(&paid.transaction)))
            }
            State::Expired { .. } => BookingState::Expired,
        };
    }
    if let Some(refund) = &change.refund {
        let index = usize::from(refund.booking_id == booking_id(1));
        let reason = REASONS.iter().position(|reason| *reason == refund.reason).unwrap_or_default();
        db.refunds[index][usize::from(payment(&refund.transaction))] = u8::try_from(reason + 1).unwrap_or(0);
    }
}
