//! `/openapi.json`, `/docs` and `/problems/{code}`.

use api::{Problem, openapi};
use axum::http::HeaderName;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::params::PathId;
use crate::rejection::Rejection;

/// The headers of a page. The policy allows no scripts and no external resources; the style sheet is served
/// here.
const PAGE_HEADERS: [(HeaderName, &str); 2] =
    [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, "default-src 'self'")];

pub(crate) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], openapi::text()).into_response()
}

pub(crate) async fn page() -> Response {
    (PAGE_HEADERS, openapi::docs_page()).into_response()
}

pub(crate) async fn style() -> Response {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], openapi::STYLE).into_response()
}

pub(crate) async fn problem(code: PathId) -> Result<Response, Rejection> {
    let page = openapi::problem_page(code.as_str()).ok_or_else(|| Problem::not_found("problem"))?;
    Ok((PAGE_HEADERS, page).into_response())
}
