//! A request that changes something: who asks, what is asked, and under which key the answer is kept.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use domain::{Answer, Timestamp};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use store::Idempotency;

use super::App;
use super::caller::Caller;
use super::payload::Payload;
use super::response::RenderedResponse;
use crate::idempotency::is_storable;
use crate::limit::IDEMPOTENCY_KEY_CHARS_MAX;
use crate::problem::Problem;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The caller and the body of a request, before either was looked into.
pub(super) struct CommandRequest {
    pub(super) caller: Caller,
    payload: Payload,
    headers: HeaderMap,
    path: String,
}

impl FromRequest<App> for CommandRequest {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, app).await?;
        let (headers, path) = (parts.headers.clone(), parts.uri.path().to_owned());
        let payload = Payload::from_request(Request::from_parts(parts, body), app).await?;
        Ok(Self { caller, payload, headers, path })
    }
}

impl CommandRequest {
    /// The body as a request.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        self.payload.parse()
    }

    /// The body as a request, or the request's default where there is no body.
    pub(super) fn parse_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        self.payload.parse_or_default()
    }

    /// The headers of the request.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// How the answer is kept under the request's `Idempotency-Key`, where it has one; `success` is the
    /// status of a success. Ask only once the body was parsed: that refuses what has no fingerprint.
    pub(super) fn idempotency(&self, success: StatusCode) -> Result<Option<Arc<Idempotency>>, Problem> {
        let mut keys = self.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = keys.next() else { return Ok(None) };
        let key = value.to_str().ok().filter(|_| keys.next().is_none()).and_then(unquote);
        let wrong =
            format!("Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable characters, once.");
        let key = key.ok_or_else(|| Problem::malformed(wrong))?.to_owned();
        let request = self.caller.request().clone();
        let render = move |answer: &Answer, now: Timestamp| {
            let shown =
                is_storable(answer).then(|| RenderedResponse::new(answer, success, now, request.as_str()));
            shown.flatten().map(|shown| shown.to_bytes())
        };
        let scope = format!("{} {}", self.caller.actor(), self.path);
        let fingerprint = Sha256::digest(self.payload.canonical()).into();
        Ok(Some(Arc::new(Idempotency { scope, key, fingerprint, serialize_response: Box::new(render) })))
    }
}

/// The key itself: quoted (a string of RFC 9651) and bare mean the same.
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
        for wrong in ["", "\"\"", "\"", "a\"b", "ü", &"x".repeat(256)] {
            assert_eq!(unquote(wrong), None, "{wrong:?}");
        }
    }
}
