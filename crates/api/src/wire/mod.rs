//! The JSON types of the API, in camelCase: requests, which are validated by being parsed into domain values,
//! and views of stored data.

mod booking;
mod event;
mod ledger;
mod schema;

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use domain::{AMOUNT_MAX, Currency, Invalid, Money};
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use booking::{BookingView, CancelRequest, ConfirmRequest, CreateBooking, MetadataField, ValidationView};
pub use event::{AvailabilityView, CreateEvent, EventView, UpdateEvent};
pub use ledger::{EntryView, RefundView, SettleRequest, StatsView};
pub(crate) use schema::Extensible;
pub use schema::{As, TextSchema};

/// A page of a list.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PageOf{T}")]
pub struct PageView<T> {
    /// The rows.
    pub data: Vec<T>,
    /// The `after` of the next page; `null` on the last page. A page before the last may have fewer rows than
    /// `limit`, or none.
    pub next_cursor: Option<String>,
}

/// One error in a request.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "FieldError")]
pub(crate) struct FieldErrorView<'a> {
    /// A JSON pointer into the body (RFC 6901), or `?` and the name of a query parameter.
    pub pointer: &'a str,
    /// A description of the error.
    pub detail: &'a str,
}

/// The health of the process or the service.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Health")]
pub struct HealthView {
    /// The overall status: `alive`, `ready` or `degraded`.
    pub status: &'static str,
    /// With `?verbose`: the state of each component, by name.
    #[serde(flatten)]
    pub parts: serde_json::Map<String, serde_json::Value>,
}

/// Money: an amount and its currency.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Money", deny_unknown_fields)]
pub struct MoneyView {
    /// In minor units of the currency: 4500 with `EUR` is 45.00 euros.
    #[schemars(range(min = 0, max = AMOUNT_MAX))]
    amount: i64,
    /// The ISO 4217 code of the currency.
    #[schemars(with = "As<Currency>")]
    currency: &'static str,
}

impl From<Money> for MoneyView {
    fn from(money: Money) -> Self {
        Self { amount: money.amount(), currency: money.currency().code() }
    }
}

/// Money in a request.
#[derive(Clone, Copy, Debug)]
pub struct MoneyField(pub Money);

impl<'de> Deserialize<'de> for MoneyField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            amount: i64,
            currency: ParsedText<Currency>,
        }
        let Object(Fields { amount, currency }) = Object::deserialize(deserializer)?;
        Money::new(amount, currency.0).map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for MoneyField {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        MoneyView::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        MoneyView::schema_id()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        MoneyView::json_schema(generator)
    }
}

/// A JSON string that is parsed into a domain value.
#[derive(Clone, Debug)]
pub struct ParsedText<T>(pub T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for ParsedText<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// A JSON object. Without this type, serde would also deserialize an array into a struct, field by field.
#[derive(Clone, Copy, Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// Deserializes a field for which `null` has a meaning of its own: absent is `None`, `null` is `Some(None)`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Parses a JSON object. Malformed JSON is [`ParseError::Syntax`], even if it has other errors, too.
/// Well-formed JSON that does not match the type, for example with an unknown or repeated field, is
/// [`ParseError::Data`].
pub fn parse<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, ParseError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Object(value) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let pointer = pointer(error.path());
        let inner = error.into_inner();
        match serde_json::from_slice::<IgnoredAny>(body) {
            Ok(_) if inner.is_data() => {
                ParseError::Data(Invalid::new(pointer, without_text(without_position(&inner.to_string()))))
            }
            Ok(_) => ParseError::Syntax(inner.to_string()),
            Err(malformed) => ParseError::Syntax(malformed.to_string()),
        }
    })?;
    json.end().map_err(|error| ParseError::Syntax(error.to_string()))?;
    Ok(value)
}

/// The reason why a body cannot be parsed.
#[derive(Debug)]
pub enum ParseError {
    /// It is not JSON.
    Syntax(String),
    /// It does not match the type.
    Data(Invalid),
}

/// The JSON pointer of a path (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let segment = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { .. } | Segment::Unknown => String::new(),
    };
    path.iter().map(segment).collect()
}

/// The message without line and column: the pointer is more precise.
fn without_position(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(message, _)| message)
}

/// The message without the value of a string that was sent where another type was expected. It may be long,
/// or a secret in the wrong field.
fn without_text(message: &str) -> String {
    let text = message.split_once(": string \"");
    match text.zip(message.rsplit_once(", expected ")) {
        Some(((before, _), (_, expected))) => format!("{before}: a string, expected {expected}"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_point_to_the_wrong_field() {
        let check = |body: &str, pointer: &str, detail: &str| match parse::<CreateBooking>(body.as_bytes()) {
            Err(ParseError::Data(error)) => {
                assert_eq!(error.pointer, pointer, "{body}");
                assert!(error.detail.contains(detail), "{body}: {}", error.detail);
            }
            other => panic!("{body}: {other:?}"),
        };
        let id = "evt_01h455vb4pex5vsknk084sn02q";
        check(r#"{"ticketQuantity":1}"#, "", "missing field `eventId`");
        check(&format!(r#"{{"eventId":"{id}","seats":1}}"#), "/seats", "unknown field");
        check(&format!(r#"{{"eventId":"{id}","ticketQuantity":"1"}}"#), "/ticketQuantity", "invalid type");
        check(
            &format!(r#"{{"eventId":"{id}","ticketQuantity":1,"ticketQuantity":2}}"#),
            "",
            "duplicate field",
        );
        check(
            &format!(r#"{{"eventId":"{id}","expectedTotal":{{"amount":1,"currency":"XYZ"}}}}"#),
            "/expectedTotal/currency",
            "ISO 4217",
        );
        check(r#"{"eventId":"bkg_01h455vb4pex5vsknk084sn02q"}"#, "/eventId", "evt_");
        check(
            &format!(r#"{{"eventId":"{id}","ticketQuantity":"a, expected \"b"}}"#),
            "/ticketQuantity",
            "invalid type: a string, expected u32",
        );
        check("[]", "", "expected an object");
        check(
            &format!(r#"{{"eventId":"{id}","expectedTotal":[1,"EUR"]}}"#),
            "/expectedTotal",
            "expected an object",
        );
    }

    #[test]
    fn malformed_json_is_a_syntax_error() {
        for body in ["", "{", "{}}", "{\"a\":1", "{\"a\":1}}", "nul", "{\"a\":}", "\u{feff}{}"] {
            assert!(matches!(parse::<CancelRequest>(body.as_bytes()), Err(ParseError::Syntax(_))), "{body}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse::<serde_json::Value>(deep.as_bytes()).is_err());
    }
}
