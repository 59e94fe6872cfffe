//! What a requester is sent: the envelope and the field names of the original service.

use domain::{Answer, Booking, BookingId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use store::{Cause, Fault};

use super::decimal;
use crate::problem::Problem;
use crate::wire::BookingView;

/// A reply, ready to be sent or kept.
#[derive(Serialize, Deserialize)]
pub(super) struct Reply {
    /// The code of what was refused or failed; `None` for a success.
    pub(super) problem: Option<Failure>,
    pub(super) body: String,
}

/// What was refused or failed, for those who look at headers and figures only.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) code: String,
    /// The status that says the same over HTTP.
    pub(super) status: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a, T> {
    success: bool,
    data: T,
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a RawValue>,
}

/// A booking as the original service showed it, and as it is shown over HTTP.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BookingReply<'a> {
    #[serde(rename = "_id")]
    same_id: BookingId,
    booking_date: Timestamp,
    total_amount: Option<Box<RawValue>>,
    #[serde(flatten)]
    booking: BookingView<'a>,
}

impl<'a> BookingReply<'a> {
    /// The booking as seen at `now`.
    pub(super) fn new(booking: &'a Booking, now: Timestamp) -> Self {
        Self {
            same_id: booking.id,
            booking_date: booking.created_at,
            total_amount: RawValue::from_string(decimal::write(booking.total)).ok(),
            booking: BookingView::new(booking, now),
        }
    }
}

impl Reply {
    /// The answer to a command, given at `now`.
    pub(super) fn new(answer: &Answer, now: Timestamp, id: Option<&RawValue>, message: &'static str) -> Self {
        match answer {
            Answer::Booking(booking) => Self::success(BookingReply::new(booking, now), id, message),
            Answer::Refused(refusal) => Self::problem(refusal.clone().into(), id, &Map::new()),
            Answer::Event(_) | Answer::Refund(_) => Self::broken("no booking", id),
        }
    }

    /// A success with its data.
    pub(super) fn success(data: impl Serialize, id: Option<&RawValue>, message: &'static str) -> Self {
        match serde_json::to_string(&Done { success: true, data, message, correlation_id: id }) {
            Ok(body) => Self { problem: None, body },
            Err(error) => Self::broken(error, id),
        }
    }

    /// A success whose data also stand beside `success`, with more that stands only there.
    pub(super) fn success_flattened(
        data: &(impl Serialize + ?Sized),
        id: Option<&RawValue>,
        message: &'static str,
        more: &impl Serialize,
    ) -> Self {
        let written = [
            serde_json::to_string(&Done { success: true, data, message, correlation_id: id }),
            serde_json::to_string(data),
            serde_json::to_string(more),
        ];
        match written.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(objects) => Self { problem: None, body: merged(&objects) },
            Err(error) => Self::broken(error, id),
        }
    }

    /// A refusal or a fault, with members of its subject's own.
    pub(super) fn problem(problem: Problem, id: Option<&RawValue>, own: &Map<String, Value>) -> Self {
        let failure = Failure { code: problem.code().to_owned(), status: problem.status().as_u16() };
        let (error, mut members) = problem.into_detail_and_members();
        members.extend(own.clone());
        members.extend([
            ("success".to_owned(), json!(false)),
            ("error".to_owned(), json!(error)),
            ("code".to_owned(), json!(failure.code)),
        ]);
        // As it was given, so that a number of any length comes back digit by digit.
        let id = id.map(|id| format!(r#"{{"correlationId":{}}}"#, id.get()));
        let objects: Vec<String> = std::iter::once(Value::Object(members).to_string()).chain(id).collect();
        Self { problem: Some(failure), body: merged(&objects) }
    }

    fn broken(cause: impl std::fmt::Display, id: Option<&RawValue>) -> Self {
        Self::problem(Fault::Broken(Cause::new(cause)).into(), id, &Map::new())
    }

    pub(super) fn to_bytes(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(self).ok()
    }

    /// What was kept.
    pub(super) fn kept(bytes: &[u8]) -> Result<Self, Problem> {
        serde_json::from_slice(bytes).map_err(|error| Fault::Broken(Cause::new(error)).into())
    }
}

/// One object with the members of several, none of which is empty.
fn merged(objects: &[String]) -> String {
    let members = |object: &String| object.strip_prefix('{')?.strip_suffix('}').map(str::to_owned);
    format!("{{{}}}", objects.iter().filter_map(members).collect::<Vec<_>>().join(","))
}
