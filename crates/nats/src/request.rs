//! A request over NATS: its envelope, its deadline and its idempotency key.

use std::sync::Arc;

use api::limit::{BODY_BYTES_MAX, IDEMPOTENCY_KEY_CHARS_MAX};
use api::wire::{self, ParseError};
use api::{App, Problem, idempotency};
use async_nats::{HeaderMap, Message};
use domain::{Actor, Answer, RequestId, Timestamp, TraceParent, UserId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use store::Idempotency;
use tokio::time::Instant;

use crate::limit::{DEADLINE_MICROS_MAX, REQUEST_AGE_MAX};
use crate::reply::Reply;

/// The header with the instant after which a request is dropped.
const DEADLINE: &str = "Deadline";

/// The fields that every request may have.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    message_id: Option<Box<RawValue>>,
    timestamp: Option<Box<RawValue>>,
}

/// A request whose deadline has not passed on receipt.
pub(crate) struct NatsRequest {
    payload: bytes::Bytes,
    /// As sent: a JSON string or number.
    message_id: Option<Box<RawValue>>,
    request_id: RequestId,
    trace: Option<TraceParent>,
    received_at: Instant,
    deadline: Option<Instant>,
}

impl NatsRequest {
    /// Parses the envelope; `None` if the deadline of the request has passed.
    pub(crate) fn from_message(app: &App, message: &Message) -> Option<Self> {
        let (received_at, payload) = (Instant::now(), message.payload.clone());
        let envelope =
            (payload.len() <= BODY_BYTES_MAX).then(|| serde_json::from_slice::<Envelope>(&payload));
        let Envelope { message_id, timestamp } = envelope.and_then(Result::ok).unwrap_or_default();
        let message_id = message_id.filter(|id| is_valid_id(id.get()));
        let age_max = i64::try_from(REQUEST_AGE_MAX.as_micros()).unwrap_or(i64::MAX);
        let sent = timestamp.and_then(|timestamp| parse_instant(timestamp.get().trim_matches('"')));
        let age_limit = sent.map(|sent| sent.saturating_add(age_max));
        let header = message.headers.as_ref().and_then(|headers| headers.get(DEADLINE));
        let header_deadline = header.and_then(|value| parse_instant(value.as_str().trim()));
        let now = app.engine.now().micros();
        let deadline = match age_limit.into_iter().chain(header_deadline).min() {
            Some(until) => {
                Some(Instant::now() + capped_micros(until.checked_sub(now).filter(|left| *left >= 0)?))
            }
            None => None,
        };
        let client_id = message_id.as_ref().and_then(|id| id.get().trim_matches('"').parse().ok());
        let request_id = client_id.unwrap_or_else(|| app.generate_request_id());
        let trace = message.headers.as_ref().and_then(trace_parent);
        Some(Self { payload, message_id, request_id, trace, received_at, deadline })
    }

    /// Parses the payload.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        if self.payload.len() > BODY_BYTES_MAX {
            return Err(Problem::payload_too_large());
        }
        wire::parse(&self.payload).map_err(|error| match error {
            ParseError::Syntax(detail) => Problem::malformed(format!("The request is not JSON: {detail}.")),
            ParseError::Data(invalid) => Problem::invalid(&[invalid]),
        })
    }

    /// As [`NatsRequest::parse`], but an empty payload is allowed.
    pub(crate) fn parse_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.payload.is_empty() { Ok(T::default()) } else { self.parse() }
    }

    /// Returns the engine's caller for a request on behalf of a user.
    pub(crate) fn user_caller(&self, user: &UserId) -> engine::Caller {
        self.caller(Actor::User(user.clone()))
    }

    /// Returns the engine's caller for a request as the service `nats`: every client that may send requests
    /// is trusted.
    pub(crate) fn service_caller(&self) -> engine::Caller {
        self.caller(Actor::Service(gateway()))
    }

    fn caller(&self, actor: Actor) -> engine::Caller {
        engine::Caller {
            actor,
            request: self.request_id.clone(),
            trace: self.trace.clone(),
            deadline: self.deadline,
        }
    }

    /// Returns the id of the request in logs and in the ledger.
    pub(crate) fn request_id(&self) -> &RequestId {
        &self.request_id
    }

    /// Returns the trace context of the request.
    pub(crate) fn trace(&self) -> Option<&TraceParent> {
        self.trace.as_ref()
    }

    /// Returns the client's message id, which the reply repeats as `correlationId`.
    pub(crate) fn message_id(&self) -> Option<&RawValue> {
        self.message_id.as_deref()
    }

    pub(crate) fn received_at(&self) -> Instant {
        self.received_at
    }

    /// Returns true if the deadline has passed.
    pub(crate) fn is_expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Returns the idempotency record if the message id is a UUID. Other ids, such as the milliseconds that
    /// the gateway of the MongoDB booking service sends, are not unique.
    pub(crate) fn idempotency(&self, scope: &str, message: &'static str) -> Option<Arc<Idempotency>> {
        let id = self.message_id.as_ref()?;
        let key = parse_uuid(id.get().trim_matches('"'))?;
        let id = id.clone();
        let serialize =
            move |answer: &Answer, now: Timestamp| Reply::new(answer, now, Some(&id), message).to_bytes();
        Some(idempotency::record(format!("nats {scope}"), key, &self.canonical_payload(), serialize))
    }

    /// Returns the payload in canonical JSON, without the fields that differ in a retry.
    fn canonical_payload(&self) -> String {
        let mut value: Value = serde_json::from_slice(&self.payload).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.remove("messageId");
            fields.remove("timestamp");
        }
        value.to_string()
    }
}

/// The user id of all clients that send requests over NATS.
pub(crate) fn gateway() -> UserId {
    "nats".parse().unwrap_or_else(|_| unreachable!("four letters are a user id"))
}

/// Returns the `traceparent` header; `None` if there are several. Header names of NATS are case-sensitive,
/// and some clients capitalise each part.
fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    let is_traceparent = |name: &str| name.eq_ignore_ascii_case(TraceParent::NAME);
    let mut values =
        headers.iter().filter(|(name, _)| is_traceparent(name.as_ref())).flat_map(|(_, values)| values);
    match (values.next(), values.next()) {
        (Some(text), None) => text.as_str().parse().ok(),
        _ => None,
    }
}

/// Returns true if the JSON is a string or a number that is short enough for an id.
fn is_valid_id(json: &str) -> bool {
    let first = json.as_bytes().first().copied().unwrap_or_default();
    (first == b'"' || first == b'-' || first.is_ascii_digit()) && json.len() <= IDEMPOTENCY_KEY_CHARS_MAX
}

/// Parses an instant, RFC 3339 or whole milliseconds since the Unix epoch, and returns it in microseconds.
fn parse_instant(text: &str) -> Option<i64> {
    match text.parse::<i64>() {
        Ok(millis) => millis.checked_mul(1_000),
        Err(_) => Some(text.parse::<jiff::Timestamp>().ok()?.as_microsecond()),
    }
}

fn capped_micros(left: i64) -> std::time::Duration {
    std::time::Duration::from_micros(left.unsigned_abs().min(DEADLINE_MICROS_MAX))
}

/// Parses a UUID, and returns it in lower case.
fn parse_uuid(text: &str) -> Option<String> {
    let is_valid = |(index, byte): (usize, u8)| match index {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    (text.len() == 36 && text.bytes().enumerate().all(is_valid)).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_uuid_is_an_idempotency_key() {
        let id = "0192F0C1-7B4E-7D3A-9B1C-2F4E5A6B7C8D";
        assert_eq!(parse_uuid(id), Some(id.to_ascii_lowercase()));
        for other in ["", "1732467600000", "0192F0C17B4E7D3A9B1C2F4E5A6B7C8D", &id.replace('-', "_")] {
            assert_eq!(parse_uuid(other), None, "{other}");
        }
    }

    #[test]
    fn instants_are_rfc_3339_or_milliseconds() {
        assert_eq!(parse_instant("1970-01-01T00:00:01.5Z"), Some(1_500_000));
        assert_eq!(parse_instant("1970-01-01T01:00:01+01:00"), Some(1_000_000));
        assert_eq!(parse_instant("1500"), Some(1_500_000));
        for other in ["", "yesterday", "1.5", "{}", "null", "9223372036854775807"] {
            assert_eq!(parse_instant(other), None, "{other}");
        }
    }
}
