//! A request that changes state: its caller, its body and its idempotency key.

use std::sync::Arc;

use api::limit::IDEMPOTENCY_KEY_CHARS_MAX;
use api::{Problem, idempotency};
use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use domain::{Answer, Timestamp};
use serde::de::DeserializeOwned;
use store::Idempotency;

use crate::caller::Caller;
use crate::payload::Payload;
use crate::rejection::Rejection;
use crate::response::RenderedResponse;
use crate::state::HttpState;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// An authenticated request with its body not yet parsed.
pub(crate) struct CommandRequest {
    pub(crate) caller: Caller,
    payload: Payload,
    headers: HeaderMap,
    path: String,
}

impl FromRequest<HttpState> for CommandRequest {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &HttpState) -> Result<Self, Rejection> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        let (headers, path) = (parts.headers.clone(), parts.uri.path().to_owned());
        let payload = Payload::from_request(Request::from_parts(parts, body), state).await?;
        Ok(Self { caller, payload, headers, path })
    }
}

impl CommandRequest {
    /// Parses the body.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        self.payload.parse()
    }

    /// Parses the body. An empty body is the default value.
    pub(crate) fn parse_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        self.payload.parse_or_default()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The idempotency record of the request, or `None` if it has no `Idempotency-Key`. `success` is the
    /// status code of a success. Must be called after the body was parsed, because only valid JSON has a
    /// fingerprint.
    pub(crate) fn idempotency(&self, success: StatusCode) -> Result<Option<Arc<Idempotency>>, Problem> {
        let mut keys = self.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = keys.next() else { return Ok(None) };
        let key = value.to_str().ok().filter(|_| keys.next().is_none()).and_then(unquote);
        let detail = format!(
            "Send one Idempotency-Key, of 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters."
        );
        let key = key.ok_or_else(|| Problem::malformed(detail))?.to_owned();
        let request = self.caller.request().clone();
        let serialize = move |answer: &Answer, now: Timestamp| {
            let response = RenderedResponse::new(answer, success, now, request.as_str());
            response.map(|response| response.to_bytes())
        };
        let scope = format!("{} {}", self.caller.actor(), self.path);
        Ok(Some(idempotency::record(scope, key, &self.payload.canonical(), serialize)))
    }
}

/// The key without quotes: a quoted key (a string of RFC 9651) and the bare key are equal. `None` if it is
/// invalid.
fn unquote(value: &str) -> Option<&str> {
    let value = value.trim();
    let key = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"');
    (printable && (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len())).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::unquote;

    #[test]
    fn quoted_and_bare_keys_are_equal() {
        assert_eq!(unquote("\"abc\""), Some("abc"));
        assert_eq!(unquote("abc"), Some("abc"));
        for invalid in ["", "\"\"", "\"", "a\"b", "ü", &"x".repeat(256)] {
            assert_eq!(unquote(invalid), None, "{invalid:?}");
        }
    }
}
