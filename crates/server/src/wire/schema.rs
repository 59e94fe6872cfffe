//! How values of the domain look in JSON, for the description of the API. The domain knows neither JSON nor
//! its schemas, so each says here what its texts may be, with the bounds that the domain checks.

use std::borrow::Cow;
use std::marker::PhantomData;

use domain::{
    BookingId, BookingStatus, Currency, EntryKind, EventId, EventStatus, LedgerStatus, PaymentStatus,
    RefundId, RefundReason, RefundStatus, TEXT_CHARS_MAX, Text, TicketTypeId, TimeZone, Timestamp,
    USER_ID_CHARS_MAX, UserId,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use super::{Object, ParsedText};

/// A value that is written as a text.
pub(crate) trait TextSchema {
    /// What the schema is called; those without a name stand where they are used.
    const NAME: Option<&'static str> = None;

    /// The schema of the text.
    fn schema() -> Schema;
}

/// Stands for a value of the domain in a view: `#[schemars(with = "As<EventId>")]`.
pub(crate) struct As<T>(PhantomData<T>);

/// For a request in which `null` is as good as absent: describes its optional fields without `null`. Clients then
/// have one way to leave a field out, and no optional value of an optional value.
pub(crate) fn without_null(schema: &mut Schema) {
    let is_null = |kind: &Value| kind == "null" || kind["type"] == "null";
    let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
    for field in fields.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        if let Some(Value::Array(kinds)) = field.get_mut("type") {
            kinds.retain(|kind| !is_null(kind));
            if let [only] = kinds.as_slice() {
                let only = only.clone();
                field.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(kinds)) = field.remove("anyOf") {
            let kind = kinds.into_iter().find(|kind| !is_null(kind));
            field.extend(kind.as_ref().and_then(Value::as_object).cloned().into_iter().flatten());
        }
    }
}

/// A word of an answer to which later versions add others. Strict clients fail on a word that an `enum` lacks, so
/// the field is any text and names the words of today; a component lists them for programs that compare.
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
        if let Some(words) = schema.remove("enum") {
            schema.insert("x-extensible-enum".to_owned(), words);
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

macro_rules! id_schemas {
    ($($kind:ident: $what:literal;)*) => {$(
        impl TextSchema for $kind {
            const NAME: Option<&'static str> = Some(stringify!($kind));

            fn schema() -> Schema {
                json_schema!({
                    "type": "string",
                    "description": concat!($what, ", a TypeID over a UUIDv7."),
                    "pattern": format!("^{}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$", Self::PREFIX),
                })
            }
        }
    )*};
}

id_schemas! {
    EventId: "Names an event";
    TicketTypeId: "Names a ticket type of an event";
    BookingId: "Names a booking";
    RefundId: "Names a refund";
}

macro_rules! enum_schemas {
    ($($kind:ident: $description:literal, $($word:ident)*;)*) => {$(
        impl TextSchema for $kind {
            const NAME: Option<&'static str> = Some(stringify!($kind));

            fn schema() -> Schema {
                json_schema!({
                    "type": "string",
                    "description": $description,
                    "enum": [$(Self::$word.as_str()),*],
                })
            }
        }
    )*};
}

enum_schemas! {
    EventStatus: "Whether tickets may be booked.", OnSale Paused Cancelled;
    BookingStatus: "Where a booking stands.", Pending Confirmed Cancelled Expired;
    PaymentStatus: "Where the payment of a booking stands.", Pending Paid Failed RefundRequested Refunded;
    RefundStatus: "Whether a refund was paid out.", Requested Succeeded Failed;
    RefundReason: "Why a refund is owed.", BookingCancelled EventCancelled HoldExpired InvalidState;
    EntryKind: "What happened.", BookingCreated BookingConfirmed BookingCancelled BookingExpired
        RefundRequested RefundSettled EventCreated EventUpdated EventCancelled;
    LedgerStatus: "A status of whatever changed: of a booking, an event or a refund.",
        Pending Confirmed Cancelled Expired OnSale Paused Requested Succeeded Failed;
}

impl TextSchema for Timestamp {
    const NAME: Option<&'static str> = Some("Instant");

    fn schema() -> Schema {
        json_schema!({
            "type": "string", "format": "date-time",
            "description": "An instant after RFC 3339: read with any offset, written in UTC.",
        })
    }
}

impl TextSchema for UserId {
    const NAME: Option<&'static str> = Some("UserId");

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "Who books: the identity provider's name for a person.",
            "pattern": format!("^[A-Za-z0-9._:@-]{{1,{USER_ID_CHARS_MAX}}}$"),
        })
    }
}

impl<const MIN: usize> TextSchema for Text<MIN> {
    fn schema() -> Schema {
        let controls = r"\x00-\x1f\x7f-\x9f";
        let not_blank = if MIN == 0 { String::new() } else { format!(r"[^\s{controls}][^{controls}]*") };
        json_schema!({
            "type": "string", "minLength": MIN, "maxLength": TEXT_CHARS_MAX,
            "pattern": format!("^[^{controls}]*{not_blank}$"),
        })
    }
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
            "type": "string", "description": "A currency of ISO 4217, which adds some and removes others.",
            "pattern": "^[A-Z]{3}$", "examples": ["EUR"], "x-extensible-enum": currencies(),
        })
    }
}

/// Every code that is one, found by trying all words of three letters.
fn currencies() -> Vec<String> {
    let letters = || 'A'..='Z';
    let words = letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| [a, b, c])));
    let words = words.map(String::from_iter);
    words.filter(|word| word.parse::<Currency>().is_ok()).collect()
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
