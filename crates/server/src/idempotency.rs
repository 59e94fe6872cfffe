//! Which answers are kept under an idempotency key, whichever way the request came.

use axum::http::StatusCode;
use domain::{Answer, Refusal};

use crate::problem::Problem;

/// Whether an answer answers a repetition, too. Not kept is what may be otherwise when it is asked again.
pub(crate) fn is_storable(answer: &Answer) -> bool {
    match answer {
        Answer::Booking(_) | Answer::Event(_) | Answer::Refund(_) => true,
        // A user at the limit of an event may be below it again a moment later.
        Answer::Refused(Refusal::BookingLimitExceeded { .. }) => false,
        Answer::Refused(refusal) => {
            let status = Problem::from(refusal.clone()).status();
            status.is_client_error()
                && ![StatusCode::CONFLICT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
        }
    }
}
