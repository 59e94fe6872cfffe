//! Events on the wire.

#![expect(clippy::option_option, reason = "in an edit, absent, null and a value are three things")]

use domain::{
    Event, EventId, EventPatch, EventStatus, Invalid, Name, NewEvent, NewTicketType,
    TICKETS_PER_BOOKING_DEFAULT, TicketTypeId, TicketTypePatch, TimeZone, Timestamp,
};
use engine::Engine;
use serde::{Deserialize, Serialize};

use super::{MoneyField, MoneyView, Object, Parsed, present};

/// What the one ticket type of an event with a single price is called.
const SINGLE_TICKET_TYPE: &str = "General admission";

/// The body of `POST /v1/events`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateEvent {
    name: Parsed<Name>,
    venue: Parsed<Name>,
    starts_at: Parsed<Timestamp>,
    #[serde(default)]
    time_zone: Option<Parsed<TimeZone>>,
    capacity: u32,
    #[serde(default)]
    price: Option<MoneyField>,
    #[serde(default)]
    ticket_types: Option<Vec<Object<TicketTypeRequest>>>,
    #[serde(default)]
    sales_start_at: Option<Parsed<Timestamp>>,
    #[serde(default)]
    sales_end_at: Option<Parsed<Timestamp>>,
    #[serde(default)]
    hold_seconds: Option<u32>,
    #[serde(default)]
    cancel_cutoff_seconds: Option<u32>,
    #[serde(default)]
    max_tickets_per_booking: Option<u32>,
    #[serde(default)]
    max_tickets_per_user: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TicketTypeRequest {
    name: Parsed<Name>,
    price: MoneyField,
    #[serde(default)]
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
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UpdateEvent {
    #[serde(default)]
    name: Option<Parsed<Name>>,
    #[serde(default)]
    venue: Option<Parsed<Name>>,
    #[serde(default)]
    starts_at: Option<Parsed<Timestamp>>,
    #[serde(default, deserialize_with = "present")]
    time_zone: Option<Option<Parsed<TimeZone>>>,
    #[serde(default)]
    capacity: Option<u32>,
    #[serde(default)]
    price: Option<MoneyField>,
    #[serde(default)]
    ticket_types: Vec<Object<TicketTypeUpdate>>,
    #[serde(default, deserialize_with = "present")]
    sales_start_at: Option<Option<Parsed<Timestamp>>>,
    #[serde(default, deserialize_with = "present")]
    sales_end_at: Option<Option<Parsed<Timestamp>>>,
    #[serde(default)]
    hold_seconds: Option<u32>,
    #[serde(default)]
    cancel_cutoff_seconds: Option<u32>,
    #[serde(default)]
    max_tickets_per_booking: Option<u32>,
    #[serde(default, deserialize_with = "present")]
    max_tickets_per_user: Option<Option<u32>>,
    #[serde(default)]
    status: Option<Parsed<EventStatus>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TicketTypeUpdate {
    id: TicketTypeId,
    #[serde(default)]
    name: Option<Parsed<Name>>,
    #[serde(default)]
    price: Option<MoneyField>,
    #[serde(default, deserialize_with = "present")]
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
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventView<'a> {
    id: EventId,
    name: &'a str,
    venue: &'a str,
    starts_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<&'static str>,
    status: &'static str,
    capacity: u32,
    held: u32,
    sold: u32,
    available: u32,
    /// The price, where there is only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<MoneyView>,
    ticket_types: Vec<TicketTypeView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sales_start_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sales_end_at: Option<Timestamp>,
    hold_seconds: u32,
    cancel_cutoff_seconds: u32,
    max_tickets_per_booking: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tickets_per_user: Option<u32>,
    version: u32,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TicketTypeView<'a> {
    id: TicketTypeId,
    name: &'a str,
    price: MoneyView,
    capacity: u32,
    held: u32,
    sold: u32,
    available: u32,
}

fn ticket_types(event: &Event) -> impl Iterator<Item = TicketTypeView<'_>> {
    event.about.ticket_types.iter().zip(&event.stock.types).enumerate().map(|(index, (kind, counts))| {
        TicketTypeView {
            id: kind.id,
            name: kind.name.as_str(),
            price: kind.price.into(),
            capacity: counts.capacity.unwrap_or(event.stock.capacity),
            held: counts.held,
            sold: counts.sold,
            available: event.available_of(index),
        }
    })
}

impl<'a> From<&'a Event> for EventView<'a> {
    fn from(event: &'a Event) -> Self {
        let (about, stock) = (&event.about, &event.stock);
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
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AvailabilityView {
    capacity: u32,
    held: u32,
    sold: u32,
    available: u32,
    sold_out: bool,
    event_seq: u64,
    as_of: Timestamp,
    ticket_types: Vec<TypeAvailabilityView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TypeAvailabilityView {
    id: TicketTypeId,
    capacity: u32,
    held: u32,
    sold: u32,
    available: u32,
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
        let stock = &event.stock;
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
