//! Idempotency records: which responses are stored under a key, and for which requests they are replayed.

use std::sync::Arc;

use domain::{Answer, Refusal, Timestamp};
use http::StatusCode;
use sha2::{Digest as _, Sha256};
use store::Idempotency;

use crate::problem::Problem;

/// The record of a request with an idempotency key. `scope` is the caller and the operation, `payload` the
/// request in a form that is equal for equal requests. `serialize` returns the response at an instant; it is
/// stored if a repeat must get it too.
pub fn record(
    scope: String,
    key: String,
    payload: &str,
    serialize: impl Fn(&Answer, Timestamp) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> Arc<Idempotency> {
    let fingerprint = Sha256::digest(payload).into();
    let serialize_response =
        Box::new(move |answer: &Answer, now| is_storable(answer).then(|| serialize(answer, now)).flatten());
    Arc::new(Idempotency { scope, key, fingerprint, serialize_response })
}

/// True if the response to a command is stored and replayed. A refusal that may not apply to a later attempt
/// is not stored.
fn is_storable(answer: &Answer) -> bool {
    match answer {
        Answer::Booking(_) | Answer::Event(_) | Answer::Refund(_) => true,
        // The user may be below the limit again when a hold expires or a booking is cancelled.
        Answer::Refused(Refusal::BookingLimitExceeded { .. }) => false,
        Answer::Refused(refusal) => {
            let status = Problem::from(refusal.clone()).status();
            status.is_client_error()
                && ![StatusCode::CONFLICT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
        }
    }
}
