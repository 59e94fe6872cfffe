//! A request over NATS: what is in its envelope, and under which key its answer is kept.

use std::sync::Arc;

use async_nats::{HeaderMap, Message};
use domain::{Actor, RequestId, Timestamp, TraceParent, UserId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use store::Idempotency;
use tokio::time::Instant;

use super::reply::Reply;
use crate::http::App;
use crate::idempotency::is_storable;
use crate::limit::{BODY_BYTES_MAX, IDEMPOTENCY_KEY_CHARS_MAX, NATS_REQUEST_AGE_MAX};
use crate::problem::Problem;
use crate::wire::{self, ParseError};

/// Names the instant after which a request is not wanted any more, in a header.
const DEADLINE: &str = "Deadline";

/// What every request has beside what it asks.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    message_id: Option<Box<RawValue>>,
    timestamp: Option<Box<RawValue>>,
}

/// A request that somebody still waits for.
pub(super) struct NatsRequest {
    payload: bytes::Bytes,
    /// As it was given: a text or a number.
    message_id: Option<Box<RawValue>>,
    request: RequestId,
    trace: Option<TraceParent>,
    begun: Instant,
    gives_up: Option<Instant>,
}

impl NatsRequest {
    /// Reads the envelope; nothing where the sender has given up already.
    pub(super) fn open(app: &App, message: &Message) -> Option<Self> {
        let (begun, payload) = (Instant::now(), message.payload.clone());
        let envelope =
            (payload.len() <= BODY_BYTES_MAX).then(|| serde_json::from_slice::<Envelope>(&payload));
        let Envelope { message_id, timestamp } = envelope.and_then(Result::ok).unwrap_or_default();
        let message_id = message_id.filter(|id| is_name(id.get()));
        let age_max = i64::try_from(NATS_REQUEST_AGE_MAX.as_micros()).unwrap_or(i64::MAX);
        let sent = timestamp.and_then(|timestamp| instant(timestamp.get().trim_matches('"')));
        let too_old = sent.map(|sent| sent.saturating_add(age_max));
        let header = message.headers.as_ref().and_then(|headers| headers.get(DEADLINE));
        let deadline = header.and_then(|value| instant(value.as_str().trim()));
        let now = app.engine.now().micros();
        let gives_up = match too_old.into_iter().chain(deadline).min() {
            Some(until) => Some(Instant::now() + micros(until.checked_sub(now).filter(|left| *left >= 0)?)),
            None => None,
        };
        let named = message_id.as_ref().and_then(|id| id.get().trim_matches('"').parse().ok());
        let request = named.unwrap_or_else(|| app.generate_request_id());
        let trace = message.headers.as_ref().and_then(trace_parent);
        Some(Self { payload, message_id, request, trace, begun, gives_up })
    }

    /// What it asks.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        if self.payload.len() > BODY_BYTES_MAX {
            return Err(Problem::payload_too_large());
        }
        wire::parse(&self.payload).map_err(|error| match error {
            ParseError::Syntax(detail) => Problem::malformed(format!("The request is not JSON: {detail}.")),
            ParseError::Data(wrong) => Problem::invalid(&[wrong]),
        })
    }

    /// As [`NatsRequest::parse`], where asking with nothing at all is fine.
    pub(super) fn parse_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.payload.is_empty() { Ok(T::default()) } else { self.parse() }
    }

    /// The caller as the engine knows it, on behalf of a user.
    pub(super) fn user(&self, user: &UserId) -> engine::Caller {
        self.caller(Actor::User(user.clone()))
    }

    /// The caller as the engine knows it: whoever may send requests is trusted.
    pub(super) fn service(&self) -> engine::Caller {
        self.caller(Actor::Service(gateway()))
    }

    fn caller(&self, actor: Actor) -> engine::Caller {
        engine::Caller {
            actor,
            request: self.request.clone(),
            trace: self.trace.clone(),
            deadline: self.gives_up,
        }
    }

    /// The name of the request in logs and in the ledger.
    pub(super) fn request(&self) -> &RequestId {
        &self.request
    }

    /// Where the request belongs in its caller's trace.
    pub(super) fn trace(&self) -> Option<&TraceParent> {
        self.trace.as_ref()
    }

    /// What the answer names as the request that it belongs to.
    pub(super) fn message_id(&self) -> Option<&RawValue> {
        self.message_id.as_deref()
    }

    /// When it was taken on.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Whether its sender has given up by now.
    pub(super) fn is_late(&self) -> bool {
        self.gives_up.is_some_and(|until| until <= Instant::now())
    }

    /// How the answer is kept, where the message id can be an idempotency key: only a UUID can. What the
    /// original gateway sends, milliseconds, is not one's own.
    pub(super) fn keep(&self, scope: &str, message: &'static str) -> Option<Arc<Idempotency>> {
        let id = self.message_id.as_ref()?;
        let key = uuid(id.get().trim_matches('"'))?;
        let own = id.clone();
        let render = move |answer: &domain::Answer, now: Timestamp| {
            is_storable(answer).then(|| Reply::new(answer, now, Some(&own), message))?.to_bytes()
        };
        let fingerprint = Sha256::digest(self.canonical()).into();
        Some(Arc::new(Idempotency {
            scope: format!("nats {scope}"),
            key,
            fingerprint,
            serialize_response: Box::new(render),
        }))
    }

    /// What is asked in one spelling, without what differs when it is asked again.
    fn canonical(&self) -> String {
        let mut value: Value = serde_json::from_slice(&self.payload).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.remove("messageId");
            fields.remove("timestamp");
        }
        value.to_string()
    }
}

/// The name of all who send requests over NATS.
pub(super) fn gateway() -> UserId {
    "nats".parse().unwrap_or_else(|_| unreachable!("four letters are a user id"))
}

/// The one `traceparent` among headers. Their names are as given, and some write each part of one large.
fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    let is_it = |name: &str| name.eq_ignore_ascii_case(TraceParent::NAME);
    let mut given = headers.iter().filter(|(name, _)| is_it(name.as_ref())).flat_map(|(_, values)| values);
    match (given.next(), given.next()) {
        (Some(text), None) => text.as_str().parse().ok(),
        _ => None,
    }
}

/// Whether JSON is a text or a number that can be a name.
fn is_name(json: &str) -> bool {
    let first = json.as_bytes().first().copied().unwrap_or_default();
    (first == b'"' || first == b'-' || first.is_ascii_digit()) && json.len() <= IDEMPOTENCY_KEY_CHARS_MAX
}

/// The microseconds since the Unix epoch at an instant: RFC 3339, or whole milliseconds.
fn instant(text: &str) -> Option<i64> {
    match text.parse::<i64>() {
        Ok(millis) => millis.checked_mul(1_000),
        Err(_) => Some(text.parse::<jiff::Timestamp>().ok()?.as_microsecond()),
    }
}

fn micros(left: i64) -> std::time::Duration {
    // A day is as good as for ever: no command waits that long.
    std::time::Duration::from_micros(left.unsigned_abs().min(86_400_000_000))
}

/// A UUID in its one spelling.
fn uuid(text: &str) -> Option<String> {
    let fits = |(place, byte): (usize, u8)| match place {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    (text.len() == 36 && text.bytes().enumerate().all(fits)).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_uuid_is_an_idempotency_key() {
        let id = "0192F0C1-7B4E-7D3A-9B1C-2F4E5A6B7C8D";
        assert_eq!(uuid(id), Some(id.to_ascii_lowercase()));
        for other in ["", "1732467600000", "0192F0C17B4E7D3A9B1C2F4E5A6B7C8D", &id.replace('-', "_")] {
            assert_eq!(uuid(other), None, "{other}");
        }
    }

    #[test]
    fn instants_are_rfc_3339_or_milliseconds() {
        assert_eq!(instant("1970-01-01T00:00:01.5Z"), Some(1_500_000));
        assert_eq!(instant("1970-01-01T01:00:01+01:00"), Some(1_000_000));
        assert_eq!(instant("1500"), Some(1_500_000));
        for other in ["", "yesterday", "1.5", "{}", "null", "9223372036854775807"] {
            assert_eq!(instant(other), None, "{other}");
        }
    }
}
