//! HTTP responses, and assertions on them: an expected status, or an expected problem.

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use serde_json::Value;

/// An HTTP response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The raw body.
    pub body: Bytes,
    /// Method and path of the request, for failure messages.
    pub request: String,
}

impl Response {
    /// A header field as text; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON, for any status.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a problem; empty for any other response.
    pub fn code(&self) -> String {
        let body: Option<Value> = serde_json::from_slice(&self.body).ok();
        body.and_then(|body| body["code"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// The body of a response that must have this status, be JSON, and have a request id.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        assert!(!self.header("x-request-id").is_empty(), "{self:?}");
        self.json()
    }

    /// The body of a response that must be this problem, in the form of RFC 9457 and `docs/errors.md`.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!((self.status.as_u16(), self.code().as_str()), (status, code), "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], status, "{self:?}");
        assert_eq!(body["type"], format!("/problems/{code}"), "{self:?}");
        assert_eq!(body["requestId"], self.header("x-request-id"), "{self:?}");
        for member in ["title", "detail", "requestId"] {
            let text = body[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{member} of {self:?}");
        }
        body
    }

    /// The JSON pointers of the errors of a response that must be `validation_failed`.
    #[track_caller]
    pub fn expect_invalid(&self) -> Vec<String> {
        let body = self.expect_problem(422, "validation_failed");
        let errors = body["errors"].as_array().cloned().unwrap_or_default();
        assert!(!errors.is_empty(), "{self:?}");
        let pointer = |error: &Value| error["pointer"].as_str().map(str::to_owned);
        errors.iter().map(|error| pointer(error).unwrap_or_else(|| panic!("{self:?}"))).collect()
    }
}
