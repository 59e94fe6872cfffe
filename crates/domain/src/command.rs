//! What can be asked for. A command is complete: whatever it needs beyond the database is in it.

use std::fmt;
use std::str::FromStr;

use crate::{
    BookingId, EventId, EventStatus, Money, Name, Note, RefundId, RequestId, TicketTypeId, TimeZone,
    Timestamp, TraceParent, TransactionId, UserId,
};

/// One change asked of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// On whose behalf.
    pub actor: Actor,
    /// The request that caused it.
    pub request: RequestId,
    /// Where that request belongs in its caller's trace, where the caller said so.
    pub trace: Option<TraceParent>,
    /// What is asked.
    pub action: Action,
}

/// On whose behalf a change is made. Written as `user:buyer-1`, `service:gateway`, `admin:alice`, `system`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A buyer: bound by ownership, limits and cut-offs.
    User(UserId),
    /// A trusted program, such as the receiver of payment webhooks.
    Service(UserId),
    /// An organiser or operator.
    Admin(UserId),
    /// The program itself, cleaning up. No user's rule can stop it.
    System,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put an event on sale.
    CreateEvent(Box<NewEvent>),
    /// Edit, pause, resume or cancel an event.
    UpdateEvent {
        /// The event.
        event_id: EventId,
        /// What changes.
        patch: Box<EventPatch>,
    },
    /// Take tickets.
    Book(Box<Order>),
    /// A payment was captured.
    Confirm(Box<Confirmation>),
    /// Give a booking up.
    Cancel(Box<Cancellation>),
    /// The outcome of a refund became known.
    Settle(Box<Settlement>),
    /// Free an unpaid booking whose time has passed.
    Expire {
        /// The booking's event.
        event_id: EventId,
        /// The booking.
        booking_id: BookingId,
    },
}

/// Tickets asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The event.
    pub event_id: EventId,
    /// The id that the booking will have.
    pub booking_id: BookingId,
    /// Who will own the booking.
    pub user: UserId,
    /// What is wanted.
    pub selection: TicketSelection,
    /// What the buyer thinks it costs; checked, never trusted.
    pub expected_total: Option<Money>,
    /// How the buyer means to pay.
    pub payment_method: Option<Note>,
}

/// Which tickets are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TicketSelection {
    /// So many of the event's only ticket type.
    Quantity(u32),
    /// So many of each of these.
    Items(Vec<(TicketTypeId, u32)>),
}

/// A captured payment, as a trusted service reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// The booking's event.
    pub event_id: EventId,
    /// The booking.
    pub booking_id: BookingId,
    /// The captured payment.
    pub transaction: TransactionId,
    /// How much was captured, where the service says.
    pub amount: Option<Money>,
    /// The id that a refund will have if one becomes due.
    pub refund_id: RefundId,
}

/// A booking given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// The booking's event.
    pub event_id: EventId,
    /// The booking.
    pub booking_id: BookingId,
    /// Why, in the caller's words.
    pub reason: Option<Note>,
    /// The id that a refund will have if one becomes due.
    pub refund_id: RefundId,
}

/// The outcome of a refund, as a trusted service reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The booking's event.
    pub event_id: EventId,
    /// The booking that was paid for.
    pub booking_id: BookingId,
    /// The captured payment that is given back; together with the booking it names the refund.
    pub transaction: TransactionId,
    /// Whether the money was paid out.
    pub succeeded: bool,
    /// The payment provider's name for the pay-out.
    pub provider_reference: Name,
}

/// An event to be put on sale. Numbers are checked by [`crate::decide()`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// The id that the event will have.
    pub id: EventId,
    /// What it is called.
    pub name: Name,
    /// Where it takes place.
    pub venue: Name,
    /// When it begins.
    pub starts_at: Timestamp,
    /// The zone in which people read the start.
    pub time_zone: Option<TimeZone>,
    /// Tickets in all.
    pub capacity: u32,
    /// What can be bought.
    pub ticket_types: Vec<NewTicketType>,
    /// Whether the asker gave one price instead of a list; complaints about it point there.
    pub single_price: bool,
    /// When bookings begin.
    pub sales_start_at: Option<Timestamp>,
    /// When bookings end.
    pub sales_end_at: Option<Timestamp>,
    /// How long a booking may stay unpaid, in seconds.
    pub hold_seconds: u32,
    /// How long before the start a user may last give back a paid booking, in seconds.
    pub cancel_cutoff_seconds: u32,
    /// Most tickets of one booking.
    pub max_tickets_per_booking: u32,
    /// Most tickets of one user.
    pub max_tickets_per_user: Option<u32>,
}

/// A ticket type of an event to be put on sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTicketType {
    /// The id that the ticket type will have.
    pub id: TicketTypeId,
    /// What it is called.
    pub name: Name,
    /// What one ticket costs.
    pub price: Money,
    /// Its own bound beside the event's.
    pub capacity: Option<u32>,
}

/// An edit of an event: what is unset stays. The inner option of a field unsets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventPatch {
    /// The version that the editor saw; the edit is refused when another stands.
    pub if_match: Option<u32>,
    /// What it is called.
    pub name: Option<Name>,
    /// Where it takes place.
    pub venue: Option<Name>,
    /// When it begins.
    pub starts_at: Option<Timestamp>,
    /// The zone in which people read the start.
    pub time_zone: Option<Option<TimeZone>>,
    /// Tickets in all.
    pub capacity: Option<u32>,
    /// The price of the event's only ticket type.
    pub price: Option<Money>,
    /// Edits of ticket types.
    pub ticket_types: Vec<TicketTypePatch>,
    /// When bookings begin.
    pub sales_start_at: Option<Option<Timestamp>>,
    /// When bookings end.
    pub sales_end_at: Option<Option<Timestamp>>,
    /// How long a new booking may stay unpaid, in seconds.
    pub hold_seconds: Option<u32>,
    /// How long before the start a user may last give back a paid booking, in seconds.
    pub cancel_cutoff_seconds: Option<u32>,
    /// Most tickets of one booking.
    pub max_tickets_per_booking: Option<u32>,
    /// Most tickets of one user: may only be raised or lifted.
    pub max_tickets_per_user: Option<Option<u32>>,
    /// Pause, resume or cancel.
    pub status: Option<EventStatus>,
}

/// An edit of one ticket type: what is unset stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketTypePatch {
    /// Which ticket type.
    pub id: TicketTypeId,
    /// What it is called.
    pub name: Option<Name>,
    /// What one ticket costs a new booking.
    pub price: Option<Money>,
    /// Its own bound; the inner option unsets it.
    pub capacity: Option<Option<u32>>,
}

impl Command {
    /// The event whose counters and ledger the command may change.
    pub fn event_id(&self) -> EventId {
        match &self.action {
            Action::CreateEvent(new) => new.id,
            Action::UpdateEvent { event_id, .. } | Action::Expire { event_id, .. } => *event_id,
            Action::Book(order) => order.event_id,
            Action::Confirm(payment) => payment.event_id,
            Action::Cancel(cancellation) => cancellation.event_id,
            Action::Settle(settlement) => settlement.event_id,
        }
    }

    /// The user who will own the booking that the command makes.
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

    /// The captured payment that the command is about: at most one refund is ever recorded for it.
    pub fn captured(&self) -> Option<(BookingId, TransactionId)> {
        match &self.action {
            Action::Confirm(confirmation) => {
                Some((confirmation.booking_id, confirmation.transaction.clone()))
            }
            Action::Settle(settlement) => Some((settlement.booking_id, settlement.transaction.clone())),
            Action::CreateEvent(_)
            | Action::UpdateEvent { .. }
            | Action::Book(_)
            | Action::Cancel(_)
            | Action::Expire { .. } => None,
        }
    }

    /// The booking that the command may change or make.
    pub fn booking_id(&self) -> Option<BookingId> {
        match &self.action {
            Action::CreateEvent(_) | Action::UpdateEvent { .. } => None,
            Action::Book(order) => Some(order.booking_id),
            Action::Confirm(payment) => Some(payment.booking_id),
            Action::Cancel(cancellation) => Some(cancellation.booking_id),
            Action::Settle(settlement) => Some(settlement.booking_id),
            Action::Expire { booking_id, .. } => Some(*booking_id),
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Service(id) => write!(f, "service:{id}"),
            Self::Admin(id) => write!(f, "admin:{id}"),
            Self::System => f.write_str("system"),
        }
    }
}

impl FromStr for Actor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "must be user:…, service:…, admin:… or system";
        let Some((role, id)) = text.split_once(':') else {
            return if text == "system" { Ok(Self::System) } else { Err(wrong) };
        };
        let id: UserId = id.parse().map_err(|_| wrong)?;
        match role {
            "user" => Ok(Self::User(id)),
            "service" => Ok(Self::Service(id)),
            "admin" => Ok(Self::Admin(id)),
            _ => Err(wrong),
        }
    }
}
