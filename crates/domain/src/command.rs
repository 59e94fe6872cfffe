//! Commands. A command is complete: it contains everything that a decision needs beyond the database.

use crate::{
    Actor, BookingId, EventId, EventStatus, ExternalRef, Metadata, Money, Name, Note, ProviderReference,
    RefundId, RequestId, TicketTypeId, TimeZone, Timestamp, TraceParent, TransactionId, UserId,
};

/// One requested change of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The actor on whose behalf the change is made.
    pub actor: Actor,
    /// The id of the request that caused the command.
    pub request: RequestId,
    /// The request's position in its caller's trace, if the caller sent one.
    pub trace: Option<TraceParent>,
    /// The requested change.
    pub action: Action,
}

/// The requested change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put a new event on sale.
    CreateEvent(Box<NewEvent>),
    /// Edit, pause, resume or cancel an event.
    UpdateEvent {
        /// The event.
        event_id: EventId,
        /// The changes.
        patch: Box<EventPatch>,
    },
    /// Reserve tickets.
    Book(Box<Order>),
    /// Report a captured payment.
    Confirm(Box<Confirmation>),
    /// Cancel a booking.
    Cancel(Box<Cancellation>),
    /// Report the outcome of a refund.
    Settle(Box<Settlement>),
    /// Free an unpaid booking whose hold has expired.
    Expire {
        /// The booking's event.
        event_id: EventId,
        /// The booking.
        booking_id: BookingId,
    },
}

/// An order of tickets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The event.
    pub event_id: EventId,
    /// The id for the new booking.
    pub booking_id: BookingId,
    /// The owner of the new booking.
    pub user: UserId,
    /// The ordered tickets.
    pub selection: TicketSelection,
    /// The total that the buyer expects. It is compared with the computed one and never used instead of it.
    pub expected_total: Option<Money>,
    /// The payment method that the buyer intends to use.
    pub payment_method: Option<Note>,
    /// The caller's own id of the booking, which no other booking of the event may have.
    pub external_ref: Option<ExternalRef>,
    /// Texts of the caller, which no rule reads.
    pub metadata: Metadata,
}

impl Order {
    /// An order without the optional fields.
    pub fn new(event_id: EventId, booking_id: BookingId, user: UserId, selection: TicketSelection) -> Self {
        Self {
            event_id,
            booking_id,
            user,
            selection,
            expected_total: None,
            payment_method: None,
            external_ref: None,
            metadata: Metadata::default(),
        }
    }
}

/// The tickets of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TicketSelection {
    /// This number of tickets of the event's only ticket type.
    Quantity(u32),
    /// A number of tickets of each of these ticket types.
    Items(Vec<(TicketTypeId, u32)>),
}

/// The report of a captured payment of a booking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// The booking's event.
    pub event_id: EventId,
    /// The booking.
    pub booking_id: BookingId,
    /// The captured payment.
    pub payment: CapturedPayment,
    /// The id for the refund, if one becomes due.
    pub refund_id: RefundId,
}

/// A captured payment, as a trusted service reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedPayment {
    /// The payment provider's id of the payment.
    pub transaction: TransactionId,
    /// The captured amount, if the service reports it.
    pub amount: Option<Money>,
}

/// The cancellation of a booking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// The booking's event.
    pub event_id: EventId,
    /// The booking.
    pub booking_id: BookingId,
    /// The reason, as given by the caller.
    pub reason: Option<Note>,
    /// The id for the refund, if one becomes due.
    pub refund_id: RefundId,
}

/// The report of the outcome of a refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The booking's event.
    pub event_id: EventId,
    /// The booking that was paid for.
    pub booking_id: BookingId,
    /// The captured payment that is refunded; together with the booking it identifies the refund.
    pub transaction: TransactionId,
    /// The outcome.
    pub outcome: RefundOutcome,
}

/// The outcome of a refund, as a trusted service reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundOutcome {
    /// True if the money was paid out.
    pub succeeded: bool,
    /// The payment provider's reference of the pay-out.
    pub provider_reference: ProviderReference,
}

/// A new event. The numbers are checked by [`crate::decide()`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// The id for the new event.
    pub id: EventId,
    /// The name of the event.
    pub name: Name,
    /// The place of the event.
    pub venue: Name,
    /// The start of the event.
    pub starts_at: Timestamp,
    /// The time zone in which the start is displayed.
    pub time_zone: Option<TimeZone>,
    /// The total number of tickets.
    pub capacity: u32,
    /// The ticket types, in the organiser's order.
    pub ticket_types: Vec<NewTicketType>,
    /// True if the request contains a single price instead of a list; errors in it then point to that price.
    pub single_price: bool,
    /// The start of sales; immediately if `None`.
    pub sales_start_at: Option<Timestamp>,
    /// The end of sales; the start of the event if `None`.
    pub sales_end_at: Option<Timestamp>,
    /// The time that a booking may stay unpaid, in seconds.
    pub hold_seconds: u32,
    /// The time before the start until which users may cancel paid bookings, in seconds.
    pub cancel_cutoff_seconds: u32,
    /// The maximum number of tickets of one booking.
    pub max_tickets_per_booking: u32,
    /// The maximum number of tickets of one user; unlimited if `None`.
    pub max_tickets_per_user: Option<u32>,
}

/// A ticket type of a new event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTicketType {
    /// The id for the new ticket type.
    pub id: TicketTypeId,
    /// The name of the ticket type.
    pub name: Name,
    /// The price of one ticket.
    pub price: Money,
    /// The capacity of this ticket type, in addition to that of the event; none if `None`.
    pub capacity: Option<u32>,
}

/// An edit of an event. Fields that are `None` stay unchanged; an inner `None` removes the value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventPatch {
    /// The version that the editor has read; the edit is refused if the event has another version.
    pub if_match: Option<u32>,
    /// The name of the event.
    pub name: Option<Name>,
    /// The place of the event.
    pub venue: Option<Name>,
    /// The start of the event.
    pub starts_at: Option<Timestamp>,
    /// The time zone in which the start is displayed.
    pub time_zone: Option<Option<TimeZone>>,
    /// The total number of tickets.
    pub capacity: Option<u32>,
    /// The price of the event's only ticket type.
    pub price: Option<Money>,
    /// The edits of ticket types.
    pub ticket_types: Vec<TicketTypePatch>,
    /// The start of sales.
    pub sales_start_at: Option<Option<Timestamp>>,
    /// The end of sales.
    pub sales_end_at: Option<Option<Timestamp>>,
    /// The time that a new booking may stay unpaid, in seconds.
    pub hold_seconds: Option<u32>,
    /// The time before the start until which users may cancel paid bookings, in seconds.
    pub cancel_cutoff_seconds: Option<u32>,
    /// The maximum number of tickets of one booking.
    pub max_tickets_per_booking: Option<u32>,
    /// The maximum number of tickets of one user; it may only be raised or removed.
    pub max_tickets_per_user: Option<Option<u32>>,
    /// The new status: pauses, resumes or cancels the event.
    pub status: Option<EventStatus>,
}

/// An edit of one ticket type. Fields that are `None` stay unchanged; an inner `None` removes the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketTypePatch {
    /// The ticket type to edit.
    pub id: TicketTypeId,
    /// The name of the ticket type.
    pub name: Option<Name>,
    /// The price of one ticket for new bookings.
    pub price: Option<Money>,
    /// The capacity of this ticket type.
    pub capacity: Option<Option<u32>>,
}

impl Command {
    /// The event whose counters and ledger the command may change.
    pub fn event_id(&self) -> EventId {
        match &self.action {
            Action::CreateEvent(new) => new.id,
            Action::UpdateEvent { event_id, .. } | Action::Expire { event_id, .. } => *event_id,
            Action::Book(order) => order.event_id,
            Action::Confirm(confirmation) => confirmation.event_id,
            Action::Cancel(cancellation) => cancellation.event_id,
            Action::Settle(settlement) => settlement.event_id,
        }
    }

    /// The owner of the booking that the command creates; `None` for other commands.
    pub fn booked_user(&self) -> Option<&UserId> {
        match &self.action {
            Action::Book(order) => Some(&order.user),
            Action::CreateEvent(_)
            | Action::UpdateEvent { .. }
            | Action::Confirm(_)
            | Action::Cancel(_)
            | Action::Settle(_)
            | Action::Expire { .. } => None,
        }
    }

    /// The external reference of the booking that the command creates.
    pub fn external_ref(&self) -> Option<&ExternalRef> {
        match &self.action {
            Action::Book(order) => order.external_ref.as_ref(),
            Action::CreateEvent(_)
            | Action::UpdateEvent { .. }
            | Action::Confirm(_)
            | Action::Cancel(_)
            | Action::Settle(_)
            | Action::Expire { .. } => None,
        }
    }

    /// The captured payment of the command. At most one refund is ever recorded for it.
    pub fn captured(&self) -> Option<(BookingId, TransactionId)> {
        match &self.action {
            Action::Confirm(confirmation) => {
                Some((confirmation.booking_id, confirmation.payment.transaction.clone()))
            }
            Action::Settle(settlement) => Some((settlement.booking_id, settlement.transaction.clone())),
            Action::CreateEvent(_)
            | Action::UpdateEvent { .. }
            | Action::Book(_)
            | Action::Cancel(_)
            | Action::Expire { .. } => None,
        }
    }

    /// The booking that the command may create or change.
    pub fn booking_id(&self) -> Option<BookingId> {
        match &self.action {
            Action::CreateEvent(_) | Action::UpdateEvent { .. } => None,
            Action::Book(order) => Some(order.booking_id),
            Action::Confirm(confirmation) => Some(confirmation.booking_id),
            Action::Cancel(cancellation) => Some(cancellation.booking_id),
            Action::Settle(settlement) => Some(settlement.booking_id),
            Action::Expire { booking_id, .. } => Some(*booking_id),
        }
    }
}
