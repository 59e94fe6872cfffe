//! Request bodies: read within limits of size and time, and parsed after the caller's permissions were
//! checked.

use api::Problem;
use api::limit::BODY_BYTES_MAX;
use api::wire::{self, ParseError};
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use store::{Cause, Fault};

use crate::limit::BODY_WAIT_MAX;
use crate::rejection::Rejection;
use crate::state::HttpState;

/// A complete body with a JSON content type, or an empty one.
pub(crate) struct Payload(axum::body::Bytes);

impl FromRequest<HttpState> for Payload {
    type Rejection = Rejection;

    async fn from_request(request: Request, _: &HttpState) -> Result<Self, Rejection> {
        let json = is_json(request.headers());
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
            return Err(Problem::payload_too_large().into());
        }
        let body = read(request.into_body()).await?;
        if !json && !body.is_empty() {
            return Err(Problem::unsupported_media_type().into());
        }
        Ok(Self(body))
    }
}

async fn read(body: Body) -> Result<axum::body::Bytes, Problem> {
    let whole = tokio::time::timeout(BODY_WAIT_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match whole {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::payload_too_large()),
        Ok(Err(_)) => Err(Problem::malformed("The body could not be read.")),
        Err(_) => Err(Problem::malformed("The body did not arrive in time.")),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.map(|value| value.split(';').next().unwrap_or_default().trim());
    media_type.is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json"))
}

impl Payload {
    /// Parses the body.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        wire::parse(&self.0).map_err(|error| match error {
            ParseError::Syntax(detail) => Problem::malformed(format!("The body is not JSON: {detail}.")),
            ParseError::Data(error) => Problem::invalid(&[error]),
        })
    }

    /// The canonical form of the body: equal for equal JSON values. An empty body equals an empty object.
    pub(crate) fn canonical(&self) -> String {
        // serde_json sorts the keys of objects.
        let value = serde_json::from_slice(&self.0).unwrap_or_else(|_| serde_json::json!({}));
        serde_json::Value::to_string(&value)
    }

    /// Parses the body. An empty body is the default value.
    pub(crate) fn parse_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.0.is_empty() { Ok(T::default()) } else { self.parse() }
    }
}

/// A JSON response.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: serde::Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => Rejection::from(Fault::Broken(Cause::new(error))).into_response(),
        }
    }
}
