//! JSON types of events.

#![expect(clippy::option_option, reason = "in an edit, absent, null and a value differ")]

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

/// The name of the only ticket type of an event that was created with `price`.
const SINGLE_TICKET_TYPE: &str = "General admission";

/// The schema description of a price, with its upper bound, which is lower than that of other amounts.
fn priced(description: &str) -> String {
    format!("{description} At most {PRICE_MAX} minor units.")
}

/// The body of `POST /v1/events`: exactly one of `price` and `ticketTypes`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = without_null)]
pub struct CreateEvent {
    /// The name.
    name: ParsedText<Name>,
    /// The venue.
    venue: ParsedText<Name>,
    /// The start of the event, not in the past. Bookings are refused from then on.
    starts_at: ParsedText<Timestamp>,
    /// The IANA time zone in which to display the start.
    #[serde(default)]
    time_zone: Option<ParsedText<TimeZone>>,
    /// Total number of tickets.
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    capacity: u32,
    #[serde(default)]
    #[schemars(description = priced("The price of every ticket. Either this or `ticketTypes`."))]
    price: Option<MoneyField>,
    /// The ticket types on sale. Either this or `price`.
    #[serde(default)]
    #[schemars(length(min = 1, max = TICKET_TYPES_MAX))]
    ticket_types: Option<Vec<Object<TicketTypeRequest>>>,
    /// The start of sales; if absent, sales start at once.
    #[serde(default)]
    sales_start_at: Option<ParsedText<Timestamp>>,
    /// The end of sales; if absent, sales end at the start of the event.
    #[serde(default)]
    sales_end_at: Option<ParsedText<Timestamp>>,
    /// Seconds for which an unpaid booking holds its tickets; defaults to the operator's setting.
    #[serde(default)]
    #[schemars(range(min = HOLD_SECONDS_MIN, max = HOLD_SECONDS_MAX))]
    hold_seconds: Option<u32>,
    /// Users can cancel paid bookings until this number of seconds before the start; defaults to the
    /// operator's setting.
    #[serde(default)]
    #[schemars(range(max = CANCEL_CUTOFF_SECONDS_MAX))]
    cancel_cutoff_seconds: Option<u32>,
    /// Maximum number of tickets per booking; 10 if absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    max_tickets_per_booking: Option<u32>,
    /// Maximum number of tickets per user, pending and confirmed; unlimited if absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    max_tickets_per_user: Option<u32>,
}

/// A ticket type of a new event.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "NewTicketType", transform = without_null)]
struct TicketTypeRequest {
    /// The name.
    name: ParsedText<Name>,
    #[schemars(description = priced("The price of one ticket."))]
    price: MoneyField,
    /// Maximum number of tickets of this type, besides the capacity of the event; no maximum of its own if
    /// absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    capacity: Option<u32>,
}

impl CreateEvent {
    /// The new event, with new ids and the operator's defaults.
    pub fn into_event(self, engine: &Engine) -> Result<NewEvent, Invalid> {
        let ticket_type = |name, price: MoneyField, capacity| NewTicketType {
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
                vec![ticket_type(name, price, None)]
            }
            (None, Some(types)) => {
                let each = |Object(each): Object<TicketTypeRequest>| {
                    ticket_type(each.name.0, each.price, each.capacity)
                };
                types.into_iter().map(each).collect()
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

/// The body of `PATCH /v1/events/{id}`. An absent field is unchanged; `null` removes the value of an optional
/// field.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateEvent {
    /// The name.
    #[serde(default)]
    name: Option<ParsedText<Name>>,
    /// The venue.
    #[serde(default)]
    venue: Option<ParsedText<Name>>,
    /// The start of the event.
    #[serde(default)]
    starts_at: Option<ParsedText<Timestamp>>,
    /// The IANA time zone in which to display the start; `null` removes it.
    #[serde(default, deserialize_with = "present")]
    time_zone: Option<Option<ParsedText<TimeZone>>>,
    /// Total number of tickets; at least the number of held and sold ones.
    #[serde(default)]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    capacity: Option<u32>,
    #[serde(default)]
    #[schemars(description = priced("The price in new bookings, if there is a single ticket type."))]
    price: Option<MoneyField>,
    /// The ticket types to change.
    #[serde(default)]
    ticket_types: Vec<Object<TicketTypeUpdate>>,
    /// The start of sales; with `null`, sales start at once.
    #[serde(default, deserialize_with = "present")]
    sales_start_at: Option<Option<ParsedText<Timestamp>>>,
    /// The end of sales; with `null`, sales end at the start of the event.
    #[serde(default, deserialize_with = "present")]
    sales_end_at: Option<Option<ParsedText<Timestamp>>>,
    /// Seconds for which a new unpaid booking holds its tickets.
    #[serde(default)]
    #[schemars(range(min = HOLD_SECONDS_MIN, max = HOLD_SECONDS_MAX))]
    hold_seconds: Option<u32>,
    /// Users can cancel paid bookings until this number of seconds before the start.
    #[serde(default)]
    #[schemars(range(max = CANCEL_CUTOFF_SECONDS_MAX))]
    cancel_cutoff_seconds: Option<u32>,
    /// Maximum number of tickets per booking.
    #[serde(default)]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    max_tickets_per_booking: Option<u32>,
    /// Maximum number of tickets per user. It can only be raised, or removed with `null`.
    #[serde(default, deserialize_with = "present")]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    max_tickets_per_user: Option<Option<u32>>,
    /// Pauses, resumes or cancels the event. A cancellation is final.
    #[serde(default)]
    status: Option<ParsedText<EventStatus>>,
}

/// Changes to a ticket type.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "TicketTypeEdit")]
struct TicketTypeUpdate {
    /// The ticket type.
    #[schemars(with = "As<TicketTypeId>")]
    id: TicketTypeId,
    /// The name.
    #[serde(default)]
    name: Option<ParsedText<Name>>,
    #[serde(default)]
    #[schemars(description = priced("The price of one ticket in new bookings."))]
    price: Option<MoneyField>,
    /// Maximum number of tickets of this type, besides the capacity of the event; `null` removes it.
    #[serde(default, deserialize_with = "present")]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    capacity: Option<Option<u32>>,
}

impl UpdateEvent {
    /// The edit. With `if_match`, it applies only to that version of the event.
    pub fn into_patch(self, if_match: Option<u32>) -> EventPatch {
        let ticket_type = |Object(edit): Object<TicketTypeUpdate>| TicketTypePatch {
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
            ticket_types: self.ticket_types.into_iter().map(ticket_type).collect(),
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

/// An event.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Event")]
pub struct EventView<'a> {
    /// The id of the event, which never changes.
    #[schemars(with = "As<EventId>")]
    id: EventId,
    /// The name.
    name: &'a str,
    /// The venue.
    venue: &'a str,
    /// The start of the event. Bookings are refused from then on.
    #[schemars(with = "As<Timestamp>")]
    starts_at: Timestamp,
    /// The IANA time zone in which to display the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<TimeZone>")]
    time_zone: Option<&'static str>,
    /// The sales status.
    #[schemars(with = "Extensible<EventStatus>")]
    status: &'static str,
    /// Total number of tickets.
    capacity: u32,
    /// Number of tickets in pending bookings.
    held: u32,
    /// Number of tickets in confirmed bookings.
    sold: u32,
    /// Number of tickets that can still be booked.
    available: u32,
    /// The price, if there is a single ticket type.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "MoneyView")]
    price: Option<MoneyView>,
    /// The ticket types on sale, in the organiser's order.
    ticket_types: Vec<TicketTypeView<'a>>,
    /// The start of sales; if absent, sales start at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<Timestamp>")]
    sales_start_at: Option<Timestamp>,
    /// The end of sales; if absent, sales end at the start of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<Timestamp>")]
    sales_end_at: Option<Timestamp>,
    /// Seconds for which a new unpaid booking holds its tickets.
    hold_seconds: u32,
    /// Users can cancel paid bookings until this number of seconds before the start.
    cancel_cutoff_seconds: u32,
    /// Maximum number of tickets per booking.
    max_tickets_per_booking: u32,
    /// Maximum number of tickets per user, pending and confirmed; unlimited if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    max_tickets_per_user: Option<u32>,
    /// The version of the description: 1, plus 1 for each edit. Sales do not change it. Also the `ETag`.
    version: u32,
    /// The time of creation.
    #[schemars(with = "As<Timestamp>")]
    created_at: Timestamp,
    /// The time of the last edit of the description.
    #[schemars(with = "As<Timestamp>")]
    updated_at: Timestamp,
}

/// A ticket type.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "TicketType")]
struct TicketTypeView<'a> {
    /// The id of the ticket type, which never changes.
    #[schemars(with = "As<TicketTypeId>")]
    id: TicketTypeId,
    /// The name.
    name: &'a str,
    /// The price of one ticket in new bookings.
    price: MoneyView,
    /// Total number of tickets of this type: the event's capacity if the type has no capacity of its own.
    capacity: u32,
    /// Number of tickets in pending bookings.
    held: u32,
    /// Number of tickets in confirmed bookings.
    sold: u32,
    /// Number of tickets that can still be booked.
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

/// The availability of an event.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Availability")]
pub struct AvailabilityView {
    /// Total number of tickets.
    capacity: u32,
    /// Number of tickets in pending bookings.
    held: u32,
    /// Number of tickets in confirmed bookings.
    sold: u32,
    /// Number of tickets that can still be booked.
    available: u32,
    /// True if no tickets are available.
    sold_out: bool,
    /// The sequence number of the event's last ledger entry.
    event_seq: u64,
    /// The time of this reading.
    #[schemars(with = "As<Timestamp>")]
    as_of: Timestamp,
    /// The availability of each ticket type.
    ticket_types: Vec<TypeAvailabilityView>,
}

/// The availability of a ticket type.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "TicketTypeAvailability")]
struct TypeAvailabilityView {
    /// The ticket type.
    #[schemars(with = "As<TicketTypeId>")]
    id: TicketTypeId,
    /// Total number of tickets of this type: the event's capacity if the type has no capacity of its own.
    capacity: u32,
    /// Number of tickets in pending bookings.
    held: u32,
    /// Number of tickets in confirmed bookings.
    sold: u32,
    /// Number of tickets that can still be booked.
    available: u32,
    /// True if no tickets of this type are available.
    sold_out: bool,
}

impl AvailabilityView {
    /// The availability of an event that was read at `as_of`.
    pub fn new(event: &Event, as_of: Timestamp) -> Self {
        let availability = |view: TicketTypeView<'_>| TypeAvailabilityView {
            id: view.id,
            capacity: view.capacity,
            held: view.held,
            sold: view.sold,
            available: view.available,
            sold_out: view.available == 0,
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
            ticket_types: ticket_types(event).map(availability).collect(),
        }
    }
}
