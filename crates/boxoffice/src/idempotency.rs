//! The rule for which responses are stored under an idempotency key, over HTTP and NATS alike.

use axum::http::StatusCode;
use domain::{Answer, Refusal};

use crate::problem::Problem;

/// True if the response to a command is stored and replayed. A refusal that may not apply to a later attempt
/// is not stored.
pub(crate) fn is_storable(answer: &Answer) -> bool {
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
