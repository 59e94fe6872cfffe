//! JSON types of bookings.

use std::borrow::Cow;
use std::fmt;

use domain::{
    Booking, BookingId, BookingStatus, CAPACITY_MAX, EventId, ExternalRef, Invalid, METADATA_KEY_CHARS_MAX,
    METADATA_KEYS_MAX, METADATA_VALUE_BYTES_MAX, Metadata, Note, PaymentStatus, State, TicketSelection,
    TicketTypeId, Timestamp, TransactionId, UserId,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::schema::{As, without_null};
use super::{MoneyField, MoneyView, Object, ParsedText};

/// The body of `POST /v1/bookings`: exactly one of `ticketQuantity` and `items`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = without_null)]
pub struct CreateBooking {
    /// The event.
    #[schemars(with = "As<EventId>")]
    pub event_id: EventId,
    /// Number of tickets, for an event with a single ticket type. Either this or `items`.
    #[serde(default)]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    ticket_quantity: Option<u32>,
    /// Number of tickets per ticket type. Either this or `ticketQuantity`.
    #[serde(default)]
    #[schemars(length(min = 1))]
    items: Option<Vec<Object<ItemRequest>>>,
    /// The total that was displayed to the buyer. The booking is refused if the actual total differs.
    #[serde(default)]
    pub expected_total: Option<MoneyField>,
    /// The buyer's intended payment method, as free text.
    #[serde(default)]
    pub payment_method: Option<ParsedText<Note>>,
    /// Your own id of the booking. No two bookings of an event have the same, whatever their status and user:
    /// use ids that other buyers cannot guess.
    #[serde(default)]
    pub external_ref: Option<ParsedText<ExternalRef>>,
    /// Up to 20 texts of your own, by key. They are returned with the booking.
    #[serde(default)]
    pub metadata: Option<MetadataField>,
    /// The user for whom to book. Required for roles `service` and `admin`; defaults to the caller for role
    /// `user`.
    #[serde(default)]
    pub user_id: Option<ParsedText<UserId>>,
}

/// A JSON object of texts.
#[derive(Clone, Debug)]
pub struct MetadataField(pub Metadata);

impl<'de> Deserialize<'de> for MetadataField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<String, String>()? {
                    pairs.push(pair);
                }
                Metadata::new(pairs).map_err(serde::de::Error::custom)
            }
        }

        deserializer.deserialize_map(Pairs).map(Self)
    }
}

impl JsonSchema for MetadataField {
    fn schema_name() -> Cow<'static, str> {
        "Metadata".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description":
                format!("Texts by key. A value has at most {METADATA_VALUE_BYTES_MAX} bytes in UTF-8."),
            "type": "object",
            "maxProperties": METADATA_KEYS_MAX,
            "propertyNames": {"minLength": 1, "maxLength": METADATA_KEY_CHARS_MAX},
            "additionalProperties": {"type": "string", "maxLength": METADATA_VALUE_BYTES_MAX},
        })
    }
}

fn serialize_metadata<S: Serializer>(metadata: &Metadata, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(metadata.iter())
}

/// Number of tickets of one type to book.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "NewItem")]
struct ItemRequest {
    /// The ticket type.
    #[schemars(with = "As<TicketTypeId>")]
    ticket_type_id: TicketTypeId,
    /// Number of tickets.
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    quantity: u32,
}

impl CreateBooking {
    /// The requested tickets.
    pub fn ticket_selection(&self) -> Result<TicketSelection, Invalid> {
        let at_least_one = "must be at least 1";
        match (self.ticket_quantity, &self.items) {
            (Some(_), Some(_)) => Err(Invalid::new("", "must have either ticketQuantity or items, not both")),
            (None, None) => Err(Invalid::new("", "must have ticketQuantity or items")),
            (Some(0), None) => Err(Invalid::new("/ticketQuantity", at_least_one)),
            (Some(quantity), None) => Ok(TicketSelection::Quantity(quantity)),
            (None, Some(items)) if items.is_empty() => Err(Invalid::new("/items", "must not be empty")),
            (None, Some(items)) => {
                if let Some(index) = items.iter().position(|Object(item)| item.quantity == 0) {
                    return Err(Invalid::new(format!("/items/{index}/quantity"), at_least_one));
                }
                Ok(TicketSelection::Items(
                    items.iter().map(|Object(item)| (item.ticket_type_id, item.quantity)).collect(),
                ))
            }
        }
    }
}

/// The body of `POST /v1/bookings/{id}/confirm`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ConfirmBooking", transform = without_null)]
pub struct ConfirmRequest {
    /// The payment provider's id of the captured payment, compared exactly.
    pub payment_transaction_id: ParsedText<TransactionId>,
    /// The captured amount. The confirmation is refused if it differs from the booking's total.
    #[serde(default)]
    pub amount: Option<MoneyField>,
}

/// The body of `POST /v1/bookings/{id}/cancel`; may be absent.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "CancelBooking", transform = without_null)]
pub struct CancelRequest {
    /// The reason, as free text.
    #[serde(default)]
    pub reason: Option<ParsedText<Note>>,
}

/// The response body of `GET /v1/bookings/{id}/validate`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Validation")]
pub struct ValidationView<'a> {
    /// True if the booking is confirmed and for the given event.
    pub valid: bool,
    /// The booking, if it is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BookingView<'a>")]
    pub booking: Option<BookingView<'a>>,
}

/// A booking.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Booking")]
pub struct BookingView<'a> {
    /// The id of the booking, which never changes.
    #[schemars(with = "As<BookingId>")]
    id: BookingId,
    /// The event.
    #[schemars(with = "As<EventId>")]
    event_id: EventId,
    /// The user for whom it was made.
    #[schemars(with = "As<UserId>")]
    user_id: &'a str,
    /// The status of the booking.
    #[schemars(with = "As<BookingStatus>")]
    status: &'static str,
    /// The status of its payment.
    #[schemars(with = "As<PaymentStatus>")]
    payment_status: &'static str,
    /// Number of tickets of all types.
    ticket_quantity: u32,
    /// The tickets, per ticket type.
    items: Vec<ItemView<'a>>,
    /// The total price, fixed at the time of booking.
    total: MoneyView,
    /// The time at which the hold on its tickets expires unless it is paid.
    #[schemars(with = "As<Timestamp>")]
    hold_expires_at: Timestamp,
    /// Whole seconds until then; 0 if the booking is not pending.
    expires_in: u64,
    /// The buyer's intended payment method, as free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    payment_method: Option<&'a str>,
    /// The caller's own id of the booking.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    external_ref: Option<&'a str>,
    /// The texts that were given when it was booked; absent if there are none.
    #[serde(skip_serializing_if = "Metadata::is_empty", serialize_with = "serialize_metadata")]
    #[schemars(with = "MetadataField")]
    metadata: &'a Metadata,
    /// The payment provider's id of the captured payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    payment_transaction_id: Option<&'a str>,
    /// The reason for the cancellation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    cancellation_reason: Option<&'a str>,
    /// The version of the booking: 1, plus 1 for each change.
    version: u32,
    /// The time of booking.
    #[schemars(with = "As<Timestamp>")]
    created_at: Timestamp,
    /// The time of the last change.
    #[schemars(with = "As<Timestamp>")]
    updated_at: Timestamp,
    /// The time of the confirmation of its payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<Timestamp>")]
    confirmed_at: Option<Timestamp>,
    /// The time of its cancellation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<Timestamp>")]
    cancelled_at: Option<Timestamp>,
    /// The time at which its unpaid tickets were released.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<Timestamp>")]
    expired_at: Option<Timestamp>,
}

/// The tickets of one type in a booking.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Item")]
struct ItemView<'a> {
    /// The ticket type.
    #[schemars(with = "As<TicketTypeId>")]
    ticket_type_id: TicketTypeId,
    /// Its name at the time of booking.
    name: &'a str,
    /// Number of tickets.
    quantity: u32,
    /// The price of one ticket at the time of booking.
    unit_price: MoneyView,
}

impl<'a> BookingView<'a> {
    /// The view of a booking at the time `now`.
    pub fn new(booking: &'a Booking, now: Timestamp) -> Self {
        let payment = booking.payment();
        let (cancelled_at, reason, expired_at) = match &booking.state {
            State::Pending | State::Confirmed(_) => (None, None, None),
            State::Cancelled { at, reason, .. } => (Some(*at), reason.as_ref(), None),
            State::Expired { at } => (None, None, Some(*at)),
        };
        let expires_in = match booking.state {
            State::Pending => now.seconds_until(booking.hold_expires_at),
            State::Confirmed(_) | State::Cancelled { .. } | State::Expired { .. } => 0,
        };
        let item = |item: &'a domain::Item| ItemView {
            ticket_type_id: item.ticket_type,
            name: item.name.as_str(),
            quantity: item.quantity,
            unit_price: item.unit_price.into(),
        };
        Self {
            id: booking.id,
            event_id: booking.event_id,
            user_id: booking.user.as_str(),
            status: booking.status().as_str(),
            payment_status: booking.payment_status().as_str(),
            ticket_quantity: booking.items.quantity(),
            items: booking.items.iter().map(item).collect(),
            total: booking.total.into(),
            hold_expires_at: booking.hold_expires_at,
            expires_in,
            payment_method: booking.payment_method.as_ref().map(Note::as_str),
            external_ref: booking.external_ref.as_ref().map(ExternalRef::as_str),
            metadata: &booking.metadata,
            payment_transaction_id: payment.map(|payment| payment.transaction.as_str()),
            cancellation_reason: reason.map(Note::as_str),
            version: booking.version,
            created_at: booking.created_at,
            updated_at: booking.updated_at,
            confirmed_at: payment.map(|payment| payment.at),
            cancelled_at,
            expired_at,
        }
    }
}
