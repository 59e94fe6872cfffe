//! Replies, in the envelope and with the field names of the MongoDB booking service.

use api::Problem;
use api::wire::BookingView;
use domain::{Answer, Booking, BookingId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use store::{Cause, Fault};

use crate::decimal;

/// A reply, ready to be sent. Its JSON form is the stored response of an idempotency key.
#[derive(Serialize, Deserialize)]
pub(crate) struct Reply {
    /// The refusal or fault; `None` for a success.
    pub(crate) problem: Option<Failure>,
    pub(crate) body: String,
}

/// The refusal or fault, for headers and metrics.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) code: String,
    /// The equivalent HTTP status.
    pub(crate) status: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SuccessEnvelope<'a, T> {
    success: bool,
    data: T,
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a RawValue>,
}

/// A booking with the fields of the MongoDB booking service and those of the HTTP API.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BookingReply<'a> {
    #[serde(rename = "_id")]
    legacy_id: BookingId,
    booking_date: Timestamp,
    total_amount: Option<Box<RawValue>>,
    #[serde(flatten)]
    booking: BookingView<'a>,
}

impl<'a> BookingReply<'a> {
    /// Returns the booking as it is at `now`.
    pub(crate) fn new(booking: &'a Booking, now: Timestamp) -> Self {
        Self {
            legacy_id: booking.id,
            booking_date: booking.created_at,
            total_amount: RawValue::from_string(decimal::write(booking.total)).ok(),
            booking: BookingView::new(booking, now),
        }
    }
}

impl Reply {
    /// Returns the reply for the answer to a command at `now`.
    pub(crate) fn new(answer: &Answer, now: Timestamp, id: Option<&RawValue>, message: &'static str) -> Self {
        match answer {
            Answer::Booking(booking) => Self::success(BookingReply::new(booking, now), id, message),
            Answer::Refused(refusal) => Self::problem(refusal.clone().into(), id, &Map::new()),
            Answer::Event(_) | Answer::Refund(_) => Self::broken("the answer is not a booking", id),
        }
    }

    /// Returns a success with its data.
    pub(crate) fn success(data: impl Serialize, id: Option<&RawValue>, message: &'static str) -> Self {
        match serde_json::to_string(&SuccessEnvelope { success: true, data, message, correlation_id: id }) {
            Ok(body) => Self { problem: None, body },
            Err(error) => Self::broken(error, id),
        }
    }

    /// Returns a success whose data are also members of the envelope, together with the members of `more`.
    pub(crate) fn success_flattened(
        data: &(impl Serialize + ?Sized),
        id: Option<&RawValue>,
        message: &'static str,
        more: &impl Serialize,
    ) -> Self {
        let objects = [
            serde_json::to_string(&SuccessEnvelope { success: true, data, message, correlation_id: id }),
            serde_json::to_string(data),
            serde_json::to_string(more),
        ];
        match objects.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(objects) => Self { problem: None, body: merge_objects(&objects) },
            Err(error) => Self::broken(error, id),
        }
    }

    /// Returns the reply for a problem, with the additional members of its subject.
    pub(crate) fn problem(problem: Problem, id: Option<&RawValue>, additional: &Map<String, Value>) -> Self {
        let failure = Failure { code: problem.code().to_owned(), status: problem.status().as_u16() };
        let (error, mut members) = problem.into_detail_and_members();
        members.extend(additional.clone());
        members.extend([
            ("success".to_owned(), json!(false)),
            ("error".to_owned(), json!(error)),
            ("code".to_owned(), json!(failure.code)),
        ]);
        // Copied verbatim, so that a number of any length keeps every digit.
        let id = id.map(|id| format!(r#"{{"correlationId":{}}}"#, id.get()));
        let objects: Vec<String> = std::iter::once(Value::Object(members).to_string()).chain(id).collect();
        Self { problem: Some(failure), body: merge_objects(&objects) }
    }

    fn broken(cause: impl std::fmt::Display, id: Option<&RawValue>) -> Self {
        Self::problem(Fault::Broken(Cause::new(cause)).into(), id, &Map::new())
    }

    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(self).ok()
    }

    /// Parses a stored response.
    pub(crate) fn from_stored(bytes: &[u8]) -> Result<Self, Problem> {
        serde_json::from_slice(bytes).map_err(|error| Fault::Broken(Cause::new(error)).into())
    }
}

/// Merges JSON objects, none of which is empty, into one.
fn merge_objects(objects: &[String]) -> String {
    let members = |object: &String| object.strip_prefix('{')?.strip_suffix('}').map(str::to_owned);
    format!("{{{}}}", objects.iter().filter_map(members).collect::<Vec<_>>().join(","))
}
