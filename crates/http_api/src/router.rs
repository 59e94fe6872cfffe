//! The routes, and the middleware around every request.

use api::Problem;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use domain::{RequestId, TraceParent};
use tokio::time::Instant;

use crate::rejection::{self, Rejection};
use crate::state::HttpState;
use crate::{availability, bookings, caller, docs, events, health, refunds, stats};

/// The id of the request in the response. A caller may supply it in the request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The route of the metrics, for a separate listener.
pub fn metrics_router(state: HttpState) -> Router {
    Router::new().route("/metrics", get(health::metrics)).with_state(state)
}

/// All routes of the API. `with_metrics` is false if the metrics have a separate listener.
pub fn router(state: HttpState, with_metrics: bool) -> Router {
    let metrics =
        if with_metrics { Router::new().route("/metrics", get(health::metrics)) } else { Router::new() };
    metrics
        .route("/v1/events", get(events::list).post(events::create))
        .route("/v1/events/{id}", get(events::show).patch(events::update))
        .route("/v1/events/{id}/availability", get(events::availability))
        .route("/v1/events/{id}/availability/stream", get(availability::stream))
        .route("/v1/events/{id}/ledger", get(events::ledger))
        .route("/v1/bookings", get(bookings::list).post(bookings::create))
        .route("/v1/bookings/{id}", get(bookings::show))
        .route("/v1/bookings/{id}/confirm", post(bookings::confirm))
        .route("/v1/bookings/{id}/cancel", post(bookings::cancel))
        .route("/v1/bookings/{id}/validate", get(bookings::validate))
        .route("/v1/refunds", get(refunds::list))
        .route("/v1/refunds/{id}/settle", post(refunds::settle))
        .route("/v1/stats", get(stats::show))
        .route("/livez", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(docs::document))
        .route("/docs", get(docs::page))
        .route("/docs/style.css", get(docs::style))
        .route("/problems/{code}", get(docs::problem))
        .fallback(async || Rejection(Problem::not_found("resource")))
        .method_not_allowed_fallback(async || Rejection(Problem::method_not_allowed()))
        .layer(middleware::from_fn_with_state(state.clone(), request_context))
        .with_state(state)
}

/// Middleware around every request: assigns its id, verifies its token if it has one (before the handler, so
/// that an invalid token is reported before any other problem), renders a [`Problem`], and records metrics.
async fn request_context(State(state): State<HttpState>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known_method(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let path = request.uri().path().to_owned();
    let supplied_id =
        request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()?.parse::<RequestId>().ok());
    let id = supplied_id.unwrap_or_else(|| state.app.generate_request_id());
    request.extensions_mut().insert(id.clone());
    let trace = trace_parent(request.headers());
    if let Some(trace) = trace.clone() {
        request.extensions_mut().insert(trace);
    }
    let response = match caller::authenticate(&state, request.headers()) {
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Err(problem) => Rejection(problem).into_response(),
    };
    if let Some(problem) = response.extensions().get::<Problem>() {
        state.metrics.record_problem(problem.code());
    }
    let trace = trace.as_ref().map(TraceParent::trace_id);
    let response = finalize_response(response, id.as_str(), trace);
    let (status, took) = (response.status().as_u16(), started.elapsed());
    state.metrics.record_request(method, route.as_ref().map(MatchedPath::as_str), status, took);
    tracing::debug!(request = id.as_str(), trace, method, path, status, ?took, "request completed");
    response
}

/// The request's `traceparent`. It is ignored if it is invalid or sent more than once.
fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TraceParent::NAME).iter();
    match (values.next(), values.next()) {
        (Some(text), None) => text.to_str().ok()?.parse().ok(),
        _ => None,
    }
}

/// The method as a metric label. Unknown methods share one label, so that clients cannot add time series.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Renders a [`Problem`], logs its cause, and adds the request id.
fn finalize_response(mut response: Response, id: &str, trace: Option<&str>) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        if let Some(cause) = problem.cause() {
            tracing::error!(request = id, trace, cause, "request failed");
        }
        // Keeps the headers set by handlers and the router: `Allow` and the rate limit.
        let rendered = rejection::render(problem, id);
        let (parts, body) = rendered.into_parts();
        let mut headers = std::mem::take(response.headers_mut());
        headers.remove(header::CONTENT_LENGTH);
        headers.extend(parts.headers);
        response = (parts.status, headers, body).into_response();
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
