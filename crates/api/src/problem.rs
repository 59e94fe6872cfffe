//! Maps refusals and faults to problem details (RFC 9457): code, status, title, detail, members and headers.

use domain::{Invalid, Refund, Refusal};
use engine::Error;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use store::Fault;

use crate::limit::RETRY_SECONDS;
use crate::wire::{FieldErrorView, MoneyView, RefundView};

/// Problem details (RFC 9457) of a failed request. It is rendered last, with the id of the request.
#[derive(Clone, Debug)]
pub struct Problem(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let (detail, members) = (detail.into(), Map::new());
        Self(Box::new(Parts { status, code, title, detail, members, headers: Vec::new(), cause: None }))
    }

    /// Adds an extension member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl serde::Serialize) -> Self {
        self.0.members.insert(name.to_owned(), json!(value));
        self
    }

    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    fn retry_after(self, seconds: u64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The request cannot be parsed.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_request", "Malformed request", detail)
    }

    /// The request needs a valid token.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Authentication required", detail)
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// The role of the caller does not permit the request.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail)
    }

    /// There is no such `what`.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not found", format!("There is no such {what}."))
    }

    /// The resource does not support the method.
    pub fn method_not_allowed() -> Self {
        let detail = "This resource does not support this method.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed", detail)
    }

    /// The body has more than [`BODY_BYTES_MAX`](crate::limit::BODY_BYTES_MAX) bytes.
    pub fn payload_too_large() -> Self {
        let detail = format!("A body may have at most {} bytes.", crate::limit::BODY_BYTES_MAX);
        // The rest of the body is not read, so the connection cannot be used for another request.
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "Payload too large", detail)
            .header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// The body is not JSON.
    pub fn unsupported_media_type() -> Self {
        let detail = "Send the body as application/json.";
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "Unsupported media type",
            detail,
        )
    }

    /// The request was not executed and will not be.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable", detail)
            .retry_after(RETRY_SECONDS)
    }

    /// The request has these errors.
    pub fn invalid(errors: &[Invalid]) -> Self {
        let detail = match errors {
            [only] if only.pointer.is_empty() => format!("The request {}.", only.detail),
            [only] => format!("{} {}.", only.pointer, only.detail),
            several => format!("The request has {} errors.", several.len()),
        };
        let errors =
            errors.iter().map(|error| FieldErrorView { pointer: &error.pointer, detail: &error.detail });
        let errors: Vec<FieldErrorView<'_>> = errors.collect();
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", "Invalid request", detail)
            .with("errors", errors)
    }

    fn conflict(refusal: &Refusal, title: &'static str) -> Self {
        Self::new(StatusCode::CONFLICT, refusal.code(), title, sentence(refusal))
    }

    /// Adds the status of the booking and its refund, where they are known.
    fn with_booking(self, booking: Option<domain::BookingStatus>, refund: Option<&Refund>) -> Self {
        let problem = match booking {
            Some(status) => self.with("bookingStatus", status.as_str()),
            None => self,
        };
        match refund {
            Some(refund) => problem.with("refund", RefundView::from(refund)),
            None => problem,
        }
    }

    fn with_tickets(self, requested: u32, available: u32, ticket_type: Option<domain::TicketTypeId>) -> Self {
        self.with("requested", requested).with("available", available).with("ticketTypeId", ticket_type)
    }

    /// The stable code, on which clients can switch.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The HTTP status code.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The detail, and the extension members.
    pub fn into_detail_and_members(self) -> (String, Map<String, Value>) {
        let Parts { detail, members, .. } = *self.0;
        (detail, members)
    }

    /// Too many requests are in flight; this one was not executed.
    pub fn overloaded() -> Self {
        Error::Overloaded.into()
    }

    /// The internal cause: for the log, never for a response.
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// Status, headers and body of the response to the request with this id.
    pub fn into_http_parts(self, request: &str) -> (StatusCode, Vec<(HeaderName, HeaderValue)>, String) {
        let Parts { status, code, title, detail, mut members, mut headers, .. } = *self.0;
        let mut body = json!({
            "type": format!("/problems/{code}"), "title": title, "status": status.as_u16(),
            "detail": detail, "code": code, "requestId": request,
        });
        if let Some(object) = body.as_object_mut() {
            object.append(&mut members);
        }
        headers.push((header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json")));
        (status, headers, body.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let unprocessable =
            |title| Self::new(StatusCode::UNPROCESSABLE_ENTITY, refusal.code(), title, sentence(&refusal));
        match &refusal {
            Refusal::NotFound(what) => Self::not_found(what),
            Refusal::Invalid(errors) => Self::invalid(errors),
            Refusal::SoldOut { requested, ticket_type } => {
                Self::conflict(&refusal, "Sold out").with_tickets(*requested, 0, *ticket_type)
            }
            Refusal::InsufficientAvailability { requested, available, ticket_type } => {
                let problem = Self::conflict(&refusal, "Not enough tickets");
                problem.with_tickets(*requested, *available, *ticket_type)
            }
            Refusal::SalesNotOpen(start) => {
                Self::conflict(&refusal, "Sales not open").with("salesStartAt", start)
            }
            Refusal::SalesClosed => Self::conflict(&refusal, "Sales closed"),
            Refusal::EventStarted => Self::conflict(&refusal, "Event started"),
            Refusal::EventPaused => Self::conflict(&refusal, "Sales paused"),
            Refusal::EventCancelled { booking, refund } => {
                Self::conflict(&refusal, "Event cancelled").with_booking(*booking, refund.as_deref())
            }
            Refusal::HoldExpired { booking, refund } => {
                Self::conflict(&refusal, "Hold expired").with_booking(Some(*booking), Some(refund))
            }
            Refusal::InvalidState { booking, refund } => {
                Self::conflict(&refusal, "Invalid state").with_booking(Some(*booking), refund.as_deref())
            }
            Refusal::CancelCutoffPassed { booking, .. } => {
                Self::conflict(&refusal, "Too late to cancel").with_booking(Some(*booking), None)
            }
            Refusal::CapacityInUse { .. } => Self::conflict(&refusal, "Capacity in use"),
            Refusal::VersionMismatch { .. } => {
                let title = "Version mismatch";
                Self::new(StatusCode::PRECONDITION_FAILED, refusal.code(), title, sentence(&refusal))
            }
            Refusal::AmountMismatch { expected } => {
                unprocessable("Amount mismatch").with("expected", MoneyView::from(*expected))
            }
            Refusal::ExternalRefInUse => Self::conflict(&refusal, "External reference in use"),
            Refusal::BookingLimitExceeded { .. } => unprocessable("Too many tickets"),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => (*refusal).into(),
            Error::KeyReused => {
                let detail = "The idempotency key was already used for a different request.";
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Self::new(status, "idempotency_key_reused", "Idempotency key reused", detail)
            }
            Error::Limited(decision) => {
                let wait = decision.reset_after;
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                let detail = format!("Too many attempts. Try again in {seconds} s.");
                Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many attempts", detail)
                    .with("rule", decision.rule.name())
                    .with("limit", decision.rule.limit())
                    .with("windowMs", decision.rule.window_micros() / 1_000)
                    .with("retryAfterMs", u64::try_from(wait.as_micros()).unwrap_or(u64::MAX).div_ceil(1_000))
                    .retry_after(seconds)
            }
            Error::Overloaded => {
                let detail = "Too many requests are in progress. Nothing was done; try again.";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded", detail)
                    .retry_after(RETRY_SECONDS)
            }
            Error::Fault(fault) => fault.into(),
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let (mut problem, cause) = match fault {
            Fault::Unavailable(cause) => {
                let detail = "The service is unavailable. Nothing was done; try again.";
                (Self::unavailable(detail), cause)
            }
            Fault::OutcomeUnknown(cause) => {
                let detail =
                    "It is unknown if the change was committed. Read the current state before you retry.";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let problem = Self::new(status, "outcome_unknown", "Outcome unknown", detail);
                (problem.retry_after(RETRY_SECONDS), cause)
            }
            Fault::Broken(cause) => {
                let detail = "Internal error. Nothing was done.";
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                (Self::new(status, "internal_error", "Internal error", detail), cause)
            }
        };
        problem.0.cause = Some(cause.to_string());
        problem
    }
}

/// The message of a refusal as a sentence: capitalised, with a full stop.
fn sentence(refusal: &Refusal) -> String {
    let text = refusal.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

#[cfg(test)]
mod tests {
    use store::Cause;

    use super::*;

    #[test]
    fn a_fault_problem_has_its_code_and_hides_its_cause() {
        let cause = || Cause::new("the disk of db-7 is on fire");
        for (fault, status, code) in [
            (Fault::Unavailable(cause()), 503, "unavailable"),
            (Fault::OutcomeUnknown(cause()), 503, "outcome_unknown"),
            (Fault::Broken(cause()), 500, "internal_error"),
        ] {
            let problem = Problem::from(fault);
            assert_eq!(problem.cause(), Some("the disk of db-7 is on fire"));
            let (http_status, headers, body) = problem.into_http_parts("req-1");
            let json: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((http_status.as_u16(), &json["code"]), (status, &json!(code)));
            assert_eq!(json["type"], format!("/problems/{code}"));
            assert!(!body.contains("fire"), "{body}");
            let retry = headers.iter().any(|(name, _)| name == header::RETRY_AFTER);
            assert_eq!(retry, status == 503, "{code}");
        }
    }
}
