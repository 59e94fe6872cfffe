//! The OpenAPI 3.1 document, generated from the code, an HTML page that renders it, and a page for every
//! problem code. Nothing here determines the behaviour of the API. The pages load no external resources.

mod docs_page;
mod document;
mod operations;
mod problems;

use std::sync::LazyLock;

use axum::http::HeaderName;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::params::PathId;
use crate::problem::Problem;

static DOCUMENT: LazyLock<Value> = LazyLock::new(document::document);
static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", *DOCUMENT));
static DOCS_PAGE: LazyLock<String> = LazyLock::new(|| docs_page::render_description(&DOCUMENT));

/// The headers of a page. The policy allows no scripts and no external resources; the style sheet is served
/// here.
const PAGE_HEADERS: [(HeaderName, &str); 2] =
    [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, "default-src 'self'")];

/// The OpenAPI document as it is served and printed.
pub(crate) fn text() -> &'static str {
    &TEXT
}

pub(super) async fn show() -> Response {
    ([(CONTENT_TYPE, "application/json")], text()).into_response()
}

pub(super) async fn docs() -> Response {
    (PAGE_HEADERS, DOCS_PAGE.as_str()).into_response()
}

pub(super) async fn style() -> Response {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], docs_page::STYLE).into_response()
}

pub(super) async fn problem(code: PathId) -> Result<Response, Problem> {
    let doc = problems::problem_doc(code.as_str()).ok_or_else(|| Problem::not_found("problem"))?;
    Ok((PAGE_HEADERS, docs_page::render_problem(doc.code, doc.text)).into_response())
}
