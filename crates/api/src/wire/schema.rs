//! JSON schemas of domain values, for the OpenAPI document. The domain depends on neither JSON nor schemas,
//! so the schema of each type is defined here, with the bounds that the domain checks.

use std::borrow::Cow;
use std::marker::PhantomData;

use domain::{
    BookingId, BookingStatus, Currency, EntryKind, EventId, EventStatus, ExternalRef, LedgerStatus, Name,
    Note, PaymentStatus, ProviderReference, RefundId, RefundReason, RefundStatus, TEXT_CHARS_MAX,
    TicketTypeId, TimeZone, Timestamp, TransactionId, USER_ID_CHARS_MAX, UserId,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use super::{Object, ParsedText};

/// A type whose values are JSON strings.
pub trait TextSchema {
    /// The name of the schema. A schema without a name is inlined where it is used.
    const NAME: Option<&'static str> = None;

    /// The schema of the string.
    fn schema() -> Schema;
}

/// The schema of a domain type for a field of another type: `#[schemars(with = "As<EventId>")]`.
pub struct As<T>(PhantomData<T>);

/// Removes `null` from the optional fields of a request in which `null` is equivalent to an absent field.
/// Generated clients then have one way to omit a field, and no nested optional types.
pub(super) fn without_null(schema: &mut Schema) {
    let is_null = |schema: &Value| schema == "null" || schema["type"] == "null";
    let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
    for field in fields.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        if let Some(Value::Array(types)) = field.get_mut("type") {
            types.retain(|each| !is_null(each));
            if let [only] = types.as_slice() {
                let only = only.clone();
                field.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(schemas)) = field.remove("anyOf") {
            let value = schemas.into_iter().find(|each| !is_null(each));
            field.extend(value.as_ref().and_then(Value::as_object).cloned().into_iter().flatten());
        }
    }
}

/// The schema of an enumerated string in a response, to which later versions may add values. Strict clients
/// fail on a value that is missing from an `enum`, so the schema allows any string and lists the current
/// values in `x-extensible-enum`. A component has them as an `enum`, for generated clients.
pub(crate) struct Extensible<T>(PhantomData<T>);

impl<T: TextSchema> JsonSchema for Extensible<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Extensible".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<As<T>>();
        let mut schema = T::schema();
        if let Some(values) = schema.remove("enum") {
            schema.insert("x-extensible-enum".to_owned(), values);
        }
        schema
    }
}

macro_rules! impl_json_schema {
    ($($kind:ident),*) => {$(
        impl<T: TextSchema> JsonSchema for $kind<T> {
            fn inline_schema() -> bool {
                T::NAME.is_none()
            }

            fn schema_name() -> Cow<'static, str> {
                T::NAME.unwrap_or(stringify!($kind)).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                T::schema()
            }
        }
    )*};
}

impl_json_schema!(As, ParsedText);

impl<T: JsonSchema> JsonSchema for Object<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

// The names are those of the components in the OpenAPI document, and so are public.
macro_rules! id_schemas {
    ($($kind:ident as $name:literal: $description:literal;)*) => {$(
        impl TextSchema for $kind {
            const NAME: Option<&'static str> = Some($name);

            fn schema() -> Schema {
                json_schema!({
                    "type": "string",
                    "description": concat!($description, ": a TypeID over a UUIDv7."),
                    "pattern": format!("^{}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$", Self::PREFIX),
                })
            }
        }
    )*};
}

id_schemas! {
    EventId as "EventId": "Id of an event";
    TicketTypeId as "TicketTypeId": "Id of a ticket type of an event";
    BookingId as "BookingId": "Id of a booking";
    RefundId as "RefundId": "Id of a refund";
}

macro_rules! enum_schemas {
    ($($kind:ident as $name:literal: $description:literal, $($value:ident)*;)*) => {$(
        impl TextSchema for $kind {
            const NAME: Option<&'static str> = Some($name);

            fn schema() -> Schema {
                json_schema!({
                    "type": "string",
                    "description": $description,
                    "enum": [$(Self::$value.as_str()),*],
                })
            }
        }
    )*};
}

enum_schemas! {
    EventStatus as "EventStatus": "The sales status of an event.", OnSale Paused Cancelled;
    BookingStatus as "BookingStatus": "The status of a booking.", Pending Confirmed Cancelled Expired;
    PaymentStatus as "PaymentStatus": "The status of a booking's payment.",
        Pending Paid Failed RefundRequested Refunded;
    RefundStatus as "RefundStatus": "The status of a refund's pay-out.", Requested Succeeded Failed;
    RefundReason as "RefundReason": "The reason for a refund.",
        BookingCancelled EventCancelled HoldExpired InvalidState;
    EntryKind as "EntryKind": "The kind of a ledger entry. Later versions may add values.",
        BookingCreated BookingConfirmed BookingCancelled BookingExpired
        RefundRequested RefundSettled EventCreated EventUpdated EventCancelled;
    LedgerStatus as "Label":
        "The status of a booking, an event or a refund. Later versions may add values.",
        Pending Confirmed Cancelled Expired OnSale Paused Requested Succeeded Failed;
}

impl TextSchema for Timestamp {
    const NAME: Option<&'static str> = Some("Instant");

    fn schema() -> Schema {
        json_schema!({
            "type": "string", "format": "date-time",
            "description": "A time in RFC 3339 format: accepted with any offset, returned in UTC.",
        })
    }
}

impl TextSchema for UserId {
    const NAME: Option<&'static str> = Some("UserId");

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "Id of a user, assigned by the identity provider.",
            "pattern": format!("^[A-Za-z0-9._:@-]{{1,{USER_ID_CHARS_MAX}}}$"),
        })
    }
}

macro_rules! line_schemas {
    ($($name:ident)*) => {$(
        impl TextSchema for $name {
            fn schema() -> Schema {
                line_schema("".parse::<Self>().is_ok())
            }
        }
    )*};
}

line_schemas! { Name Note TransactionId ExternalRef ProviderReference }

/// The schema of a line of text, which may be empty or must not be blank.
fn line_schema(may_be_empty: bool) -> Schema {
    let controls = r"\x00-\x1f\x7f-\x9f";
    let not_blank = if may_be_empty { String::new() } else { format!(r"[^\s{controls}][^{controls}]*") };
    json_schema!({
        "type": "string", "minLength": u8::from(!may_be_empty), "maxLength": TEXT_CHARS_MAX,
        "pattern": format!("^[^{controls}]*{not_blank}$"),
    })
}

impl TextSchema for TimeZone {
    fn schema() -> Schema {
        json_schema!({"type": "string", "examples": ["Europe/Berlin"]})
    }
}

impl TextSchema for Currency {
    const NAME: Option<&'static str> = Some("Currency");

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "An ISO 4217 currency code. The standard adds and removes currencies.",
            "pattern": "^[A-Z]{3}$", "examples": ["EUR"], "x-extensible-enum": currencies(),
        })
    }
}

/// All currency codes, found by trying all combinations of three letters.
fn currencies() -> Vec<String> {
    let letters = || 'A'..='Z';
    let codes = letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| [a, b, c])));
    let codes = codes.map(String::from_iter);
    codes.filter(|code| code.parse::<Currency>().is_ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_described_with_their_prefix() {
        let pattern = BookingId::schema().get("pattern").cloned();
        assert_eq!(pattern, Some("^bkg_[0-7][0-9a-hjkmnp-tv-z]{25}$".into()));
    }

    #[test]
    fn currencies_are_those_of_the_standard() {
        let all = currencies();
        assert!((150..200).contains(&all.len()) && all.contains(&"EUR".to_owned()), "{all:?}");
    }
}
