//! Events on the wire.

#![expect(clippy::option_option, reason = "in an edit, absent, null and a value are three things")]

use domain::{
    CANCEL_CUTOFF_SECONDS_MAX, CAPACITY_MAX, Event, EventId, EventPatch, EventStatus, HOLD_SECONDS_MAX,
    HOLD_SECONDS_MIN, Invalid, Name, NewEvent, NewTicketType, PRICE_MAX, TICKET_TYPES_MAX,
    TICKETS_PER_BOOKING_DEFAULT, TicketTypeId, TicketTypePatch, TimeZone, Timestamp,
};
use engine::Engine;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{As, Extensible, without_null};
use super::{MoneyField, MoneyView, Object, ParsedText, present};

/// What the one ticket type of an event with a single price is called.
const SINGLE_TICKET_TYPE: &str = "General admission";

/// The description of a price, with the bound that other money does not have.
fn priced(description: &str) -> String {
    format!("{description} At most {PRICE_MAX} minor units.")
}

/// The body of `POST /v1/events`: exactly one of `price` and `ticketTypes`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = without_null)]
pub(crate) struct CreateEvent {
    /// What it is called.
    name: ParsedText<Name>,
    /// Where it takes place.
    venue: ParsedText<Name>,
    /// When it begins; nothing is booked from then on. Not in the past.
    starts_at: ParsedText<Timestamp>,
    /// The IANA time zone in which people read the start.
    #[serde(default)]
    time_zone: Option<ParsedText<TimeZone>>,
    /// Tickets in all.
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    capacity: u32,
    #[serde(default)]
    #[schemars(description = priced("The price of every ticket. Either this or `ticketTypes`."))]
    price: Option<MoneyField>,
    /// What can be bought. Either this or `price`.
    #[serde(default)]
    #[schemars(length(min = 1, max = TICKET_TYPES_MAX))]
    ticket_types: Option<Vec<Object<TicketTypeRequest>>>,
    /// Bookings begin here; at once where absent.
    #[serde(default)]
    sales_start_at: Option<ParsedText<Timestamp>>,
    /// Bookings end here; at the start of the event where absent.
    #[serde(default)]
    sales_end_at: Option<ParsedText<Timestamp>>,
    /// How long a booking may stay unpaid; the operator's default where absent.
    #[serde(default)]
    #[schemars(range(min = HOLD_SECONDS_MIN, max = HOLD_SECONDS_MAX))]
    hold_seconds: Option<u32>,
    /// How long before the start a user may last give back a paid booking; the operator's
    /// default where absent.
    #[serde(default)]
    #[schemars(range(max = CANCEL_CUTOFF_SECONDS_MAX))]
    cancel_cutoff_seconds: Option<u32>,
    /// Most tickets of one booking; 10 where absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    max_tickets_per_booking: Option<u32>,
    /// Most tickets one user may hold, pending and confirmed; unlimited where absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    max_tickets_per_user: Option<u32>,
}

/// A ticket type to be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "NewTicketType", transform = without_null)]
struct TicketTypeRequest {
    /// What it is called.
    name: ParsedText<Name>,
    #[schemars(description = priced("What one ticket costs."))]
    price: MoneyField,
    /// Its own bound beside the event's; none where absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    capacity: Option<u32>,
}

impl CreateEvent {
    /// The event to be, with fresh ids and the operator's defaults.
    pub(crate) fn into_event(self, engine: &Engine) -> Result<NewEvent, Invalid> {
        let kind = |name, price: MoneyField, capacity| NewTicketType {
            id: engine.ticket_type_id(),
            name,
            price: price.0,
            capacity,
        };
        let single_price = self.price.is_some();
        let ticket_types = match (self.price, self.ticket_types) {
            (Some(_), Some(_)) => {
                return Err(Invalid::new("", "must have either price or ticketTypes, not both"));
            }
            (None, None) => return Err(Invalid::new("", "must have price or ticketTypes")),
            (Some(price), None) => {
                let name = SINGLE_TICKET_TYPE.parse().map_err(|_| Invalid::new("/price", "has no name"))?;
                vec![kind(name, price, None)]
            }
            (None, Some(types)) => {
                types.into_iter().map(|Object(each)| kind(each.name.0, each.price, each.capacity)).collect()
            }
        };
        let policy = engine.policy();
        Ok(NewEvent {
            single_price,
            id: engine.event_id(),
            name: self.name.0,
            venue: self.venue.0,
            starts_at: self.starts_at.0,
            time_zone: self.time_zone.map(|zone| zone.0),
            capacity: self.capacity,
            ticket_types,
            sales_start_at: self.sales_start_at.map(|at| at.0),
            sales_end_at: self.sales_end_at.map(|at| at.0),
            hold_seconds: self.hold_seconds.unwrap_or(policy.hold_seconds),
            cancel_cutoff_seconds: self.cancel_cutoff_seconds.unwrap_or(policy.cancel_cutoff_seconds),
            max_tickets_per_booking: self.max_tickets_per_booking.unwrap_or(TICKETS_PER_BOOKING_DEFAULT),
            max_tickets_per_user: self.max_tickets_per_user,
        })
    }
}

/// The body of `PATCH /v1/events/{id}`: what is absent stays, `null` unsets what may be unset.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UpdateEvent {
    /// What it is called.
    #[serde(default)]
    name: Option<ParsedText<Name>>,
    /// Where it takes place.
    #[serde(default)]
    venue: Option<ParsedText<Name>>,
    /// When it begins.
    #[serde(default)]
    starts_at: Option<ParsedText<Timestamp>>,
    /// The IANA time zone in which people read the start; `null` unsets it.
    #[serde(default, deserialize_with = "present")]
    time_zone: Option<Option<ParsedText<TimeZone>>>,
    /// Tickets in all; not below those held and sold.
    #[serde(default)]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    capacity: Option<u32>,
    #[serde(default)]
    #[schemars(description = priced("What one ticket costs a new booking, where there is one ticket type."))]
    price: Option<MoneyField>,
    /// The ticket types that change.
    #[serde(default)]
    ticket_types: Vec<Object<TicketTypeUpdate>>,
    /// Bookings begin here; at once after `null`.
    #[serde(default, deserialize_with = "present")]
    sales_start_at: Option<Option<ParsedText<Timestamp>>>,
    /// Bookings end here; at the start of the event after `null`.
    #[serde(default, deserialize_with = "present")]
    sales_end_at: Option<Option<ParsedText<Timestamp>>>,
    /// How long a new booking may stay unpaid.
    #[serde(default)]
    #[schemars(range(min = HOLD_SECONDS_MIN, max = HOLD_SECONDS_MAX))]
    hold_seconds: Option<u32>,
    /// How long before the start a user may last give back a paid booking.
    #[serde(default)]
    #[schemars(range(max = CANCEL_CUTOFF_SECONDS_MAX))]
    cancel_cutoff_seconds: Option<u32>,
    /// Most tickets of one booking.
    #[serde(default)]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    max_tickets_per_booking: Option<u32>,
    /// Most tickets one user may hold: may only be raised, or lifted by `null`.
    #[serde(default, deserialize_with = "present")]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    max_tickets_per_user: Option<Option<u32>>,
    /// Pauses, resumes or cancels; cancelling is final.
    #[serde(default)]
    status: Option<ParsedText<EventStatus>>,
}

/// What changes about a ticket type.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "TicketTypeEdit")]
struct TicketTypeUpdate {
    /// Which one.
    #[schemars(with = "As<TicketTypeId>")]
    id: TicketTypeId,
    /// What it is called.
    #[serde(default)]
    name: Option<ParsedText<Name>>,
    #[serde(default)]
    #[schemars(description = priced("What one ticket costs a new booking."))]
    price: Option<MoneyField>,
    /// Its own bound beside the event's; none after `null`.
    #[serde(default, deserialize_with = "present")]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    capacity: Option<Option<u32>>,
}

impl UpdateEvent {
    /// The edit, to be made only if the event is at version `if_match`, where one is given.
    pub(crate) fn into_patch(self, if_match: Option<u32>) -> EventPatch {
        let kind = |Object(edit): Object<TicketTypeUpdate>| TicketTypePatch {
            id: edit.id,
            name: edit.name.map(|name| name.0),
            price: edit.price.map(|price| price.0),
            capacity: edit.capacity,
        };
        EventPatch {
            if_match,
            name: self.name.map(|name| name.0),
            venue: self.venue.map(|venue| venue.0),
            starts_at: self.starts_at.map(|at| at.0),
            time_zone: self.time_zone.map(|zone| zone.map(|zone| zone.0)),
            capacity: self.capacity,
            price: self.price.map(|price| price.0),
            ticket_types: self.ticket_types.into_iter().map(kind).collect(),
            sales_start_at: self.sales_start_at.map(|at| at.map(|at| at.0)),
            sales_end_at: self.sales_end_at.map(|at| at.map(|at| at.0)),
            hold_seconds: self.hold_seconds,
            cancel_cutoff_seconds: self.cancel_cutoff_seconds,
            max_tickets_per_booking: self.max_tickets_per_booking,
            max_tickets_per_user: self.max_tickets_per_user,
            status: self.status.map(|status| status.0),
        }
    }
}

/// An event as it is shown.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Event")]
pub(crate) struct EventView<'a> {
    /// Names the event for its whole life.
    #[schemars(with = "As<EventId>")]
    id: EventId,
    /// What it is called.
    name: &'a str,
    /// Where it takes place.
    venue: &'a str,
    /// When it begins; nothing is booked from then on.
    #[schemars(with = "As<Timestamp>")]
    starts_at: Timestamp,
    /// The IANA time zone in which people read the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<TimeZone>")]
    time_zone: Option<&'static str>,
    /// Whether tickets may be booked.
    #[schemars(with = "Extensible<EventStatus>")]
    status: &'static str,
    /// Tickets in all.
    capacity: u32,
    /// Tickets of pending bookings.
    held: u32,
    /// Tickets of confirmed bookings.
    sold: u32,
    /// Tickets that can still be booked.
    available: u32,
    /// The price, where there is only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "MoneyView")]
    price: Option<MoneyView>,
    /// What can be bought, in the organiser's order.
    ticket_types: Vec<TicketTypeView<'a>>,
    /// Bookings begin here; at once where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<Timestamp>")]
    sales_start_at: Option<Timestamp>,
    /// Bookings end here; at the start of the event where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<Timestamp>")]
    sales_end_at: Option<Timestamp>,
    /// How long a new booking may stay unpaid.
    hold_seconds: u32,
    /// How long before the start a user may last give back a paid booking.
    cancel_cutoff_seconds: u32,
    /// Most tickets of one booking.
    max_tickets_per_booking: u32,
    /// Most tickets one user may hold, pending and confirmed; unlimited where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    max_tickets_per_user: Option<u32>,
    /// Counts edits of the description, from 1; sales do not count. Also the `ETag`.
    version: u32,
    /// When the event was created.
    #[schemars(with = "As<Timestamp>")]
    created_at: Timestamp,
    /// When its description was last edited.
    #[schemars(with = "As<Timestamp>")]
    updated_at: Timestamp,
}

/// A ticket type as it is shown.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "TicketType")]
struct TicketTypeView<'a> {
    /// Names the ticket type for its whole life.
    #[schemars(with = "As<TicketTypeId>")]
    id: TicketTypeId,
    /// What it is called.
    name: &'a str,
    /// What one ticket costs a new booking.
    price: MoneyView,
    /// Tickets of this type in all: the event's capacity where it has no bound of its own.
    capacity: u32,
    /// Tickets of pending bookings.
    held: u32,
    /// Tickets of confirmed bookings.
    sold: u32,
    /// Tickets that can still be booked.
    available: u32,
}

fn ticket_types(event: &Event) -> impl Iterator<Item = TicketTypeView<'_>> {
    event.details.ticket_types.iter().zip(&event.inventory.types).enumerate().map(
        |(index, (kind, counts))| TicketTypeView {
            id: kind.id,
            name: kind.name.as_str(),
            price: kind.price.into(),
            capacity: counts.capacity.unwrap_or(event.inventory.capacity),
            held: counts.held,
            sold: counts.sold,
            available: event.available_of(index),
        },
    )
}

impl<'a> From<&'a Event> for EventView<'a> {
    fn from(event: &'a Event) -> Self {
        let (about, stock) = (&event.details, &event.inventory);
        let price = match about.ticket_types.as_slice() {
            [only] => Some(only.price.into()),
            _ => None,
        };
        Self {
            id: event.id,
            name: about.name.as_str(),
            venue: about.venue.as_str(),
            starts_at: about.starts_at,
            time_zone: about.time_zone.map(|zone| zone.as_str()),
            status: about.status.as_str(),
            capacity: stock.capacity,
            held: stock.held,
            sold: stock.sold,
            available: stock.available(),
            price,
            ticket_types: ticket_types(event).collect(),
            sales_start_at: about.sales_start_at,
            sales_end_at: about.sales_end_at,
            hold_seconds: about.hold_seconds,
            cancel_cutoff_seconds: about.cancel_cutoff_seconds,
            max_tickets_per_booking: about.max_tickets_per_booking,
            max_tickets_per_user: about.max_tickets_per_user,
            version: about.version,
            created_at: about.created_at,
            updated_at: about.updated_at,
        }
    }
}

/// What is left of an event.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Availability")]
pub(crate) struct AvailabilityView {
    /// Tickets in all.
    capacity: u32,
    /// Tickets of pending bookings.
    held: u32,
    /// Tickets of confirmed bookings.
    sold: u32,
    /// Tickets that can still be booked.
    available: u32,
    /// Whether nothing can be booked any more.
    sold_out: bool,
    /// The number of the event's last ledger entry.
    event_seq: u64,
    /// When this was read.
    #[schemars(with = "As<Timestamp>")]
    as_of: Timestamp,
    /// The same for each ticket type.
    ticket_types: Vec<TypeAvailabilityView>,
}

/// What is left of a ticket type.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "TicketTypeAvailability")]
struct TypeAvailabilityView {
    /// Which one.
    #[schemars(with = "As<TicketTypeId>")]
    id: TicketTypeId,
    /// Tickets of this type in all: the event's capacity where it has no bound of its own.
    capacity: u32,
    /// Tickets of pending bookings.
    held: u32,
    /// Tickets of confirmed bookings.
    sold: u32,
    /// Tickets that can still be booked.
    available: u32,
    /// Whether none of this type can be booked any more.
    sold_out: bool,
}

impl AvailabilityView {
    /// What is left, as read at `as_of`.
    pub(crate) fn new(event: &Event, as_of: Timestamp) -> Self {
        let kind = |kind: TicketTypeView<'_>| TypeAvailabilityView {
            id: kind.id,
            capacity: kind.capacity,
            held: kind.held,
            sold: kind.sold,
            available: kind.available,
            sold_out: kind.available == 0,
        };
        let stock = &event.inventory;
        Self {
            capacity: stock.capacity,
            held: stock.held,
            sold: stock.sold,
            available: stock.available(),
            sold_out: stock.available() == 0,
            event_seq: stock.seq,
            as_of,
            ticket_types: ticket_types(event).map(kind).collect(),
        }
    }
}
