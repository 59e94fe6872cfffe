//! Responses to commands: status, headers and body. A response stored under an idempotency key is rendered
//! like any other.

use api::wire::{BookingView, EventView, RefundView};
use api::{App, Problem};
use axum::http::header::{CONTENT_TYPE, ETAG, HeaderName, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use coordination::LimitDecision;
use domain::{Answer, Timestamp};
use engine::{CommandOutput, RateLimitedResult};
use serde::{Deserialize, Serialize};
use store::{Cause, Fault};

use crate::rejection::Rejection;

const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A response that can be sent, or stored under an idempotency key.
#[derive(Serialize, Deserialize)]
pub(crate) struct RenderedResponse {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl RenderedResponse {
    /// Renders the response at `now` to the request with the id `request`. `success` is the status code of a
    /// success. `None` if serialization fails, which is a bug.
    pub(crate) fn new(answer: &Answer, success: StatusCode, now: Timestamp, request: &str) -> Option<Self> {
        let header = |name: HeaderName, value: String| (name.to_string(), value);
        let created = |path: String| (success == StatusCode::CREATED).then(|| header(LOCATION, path));
        let json = header(CONTENT_TYPE, "application/json".to_owned());
        let (body, extra) = match answer {
            Answer::Booking(booking) => {
                let body = serde_json::to_string(&BookingView::new(booking, now)).ok()?;
                (body, vec![created(format!("/v1/bookings/{}", booking.id))])
            }
            Answer::Event(event) => {
                let tag = header(ETAG, format!("\"{}\"", event.details.version));
                let body = serde_json::to_string(&EventView::from(&**event)).ok()?;
                (body, vec![created(format!("/v1/events/{}", event.id)), Some(tag)])
            }
            Answer::Refund(refund) => (serde_json::to_string(&RefundView::from(&**refund)).ok()?, Vec::new()),
            Answer::Refused(refusal) => {
                let (status, headers, body) = Problem::from(refusal.clone()).into_http_parts(request);
                let text = |value: &HeaderValue| value.to_str().map(str::to_owned).ok();
                let header =
                    |(name, value): (HeaderName, HeaderValue)| Some((name.to_string(), text(&value)?));
                let headers = headers.into_iter().filter_map(header).collect();
                return Some(Self { status: status.as_u16(), headers, body });
            }
        };
        let headers = std::iter::once(json).chain(extra.into_iter().flatten()).collect();
        Some(Self { status: success.as_u16(), headers, body })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn into_response(self) -> Result<Response, Problem> {
        let broken = |error: &dyn std::fmt::Display| Problem::from(Fault::Broken(Cause::new(error)));
        let status = StatusCode::from_u16(self.status).map_err(|error| broken(&error))?;
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            let name: HeaderName = name.parse().map_err(|error| broken(&error))?;
            headers.insert(name, value.parse().map_err(|error| broken(&error))?);
        }
        Ok((status, headers, self.body).into_response())
    }
}

/// The response to a command. `success` is the status code of a success.
pub(crate) fn respond(app: &App, output: CommandOutput, success: StatusCode) -> Result<Response, Rejection> {
    match output {
        CommandOutput::Fresh(answer) => {
            let rendered = RenderedResponse::new(&answer, success, app.engine.now(), "");
            let failed = || Problem::from(Fault::Broken(Cause::new("a response could not be serialized")));
            Ok(rendered.ok_or_else(failed)?.into_response()?)
        }
        CommandOutput::Stored { response, replayed } => {
            let stored: Result<RenderedResponse, _> = serde_json::from_slice(&response);
            let mut response =
                stored.map_err(|error| Problem::from(Fault::Broken(Cause::new(error))))?.into_response()?;
            if replayed {
                response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
            }
            Ok(response)
        }
    }
}

/// The response to a rate-limited command, with the headers of the rate limit.
pub(crate) fn respond_rate_limited(app: &App, limited: RateLimitedResult, success: StatusCode) -> Response {
    let response = limited.outcome.map_err(Rejection::from).and_then(|output| respond(app, output, success));
    let mut response = response.unwrap_or_else(IntoResponse::into_response);
    if let Some(decision) = limited.decision {
        response.headers_mut().extend(rate_limit_headers(&decision));
    }
    response
}

/// The rate limit headers (draft-ietf-httpapi-ratelimit-headers-11).
fn rate_limit_headers(decision: &LimitDecision) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let (name, window) = (decision.rule.name(), ceil_seconds(decision.rule.window()));
    let policy = format!("\"{name}\";q={};w={window}", decision.rule.limit());
    let remaining = format!("\"{name}\";r={};t={}", decision.remaining, ceil_seconds(decision.reset_after));
    [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, remaining)]
        .into_iter()
        .filter_map(|(header, value)| Some((header, value.parse().ok()?)))
}

fn ceil_seconds(duration: std::time::Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
