//! A problem as the response of a handler.

use api::Problem;
use axum::http::header;
use axum::response::{IntoResponse, Response};

/// The error of a handler or an extractor. It carries the problem to the middleware, which renders it.
#[derive(Debug)]
pub(crate) struct Rejection(pub(crate) Problem);

impl<E: Into<Problem>> From<E> for Rejection {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let mut response = self.0.status().into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

/// The response of a problem to the request with this id.
pub(crate) fn render(problem: Problem, request: &str) -> Response {
    let (status, headers, body) = problem.into_http_parts(request);
    let mut response = (status, body).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    response.headers_mut().extend(headers);
    response
}
