//! What came back, and the two things a test says about it: it is as promised, or it is this problem.

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use serde_json::Value;

/// An answer over HTTP.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
    /// What was asked, for messages.
    pub request: String,
}

impl Response {
    /// A header field as text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON, whatever the status.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a problem; empty where the answer is none.
    pub fn code(&self) -> String {
        let body: Option<Value> = serde_json::from_slice(&self.body).ok();
        body.and_then(|body| body["code"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// The body of an answer that must have this status and be JSON, named like its request.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        assert!(!self.header("x-request-id").is_empty(), "{self:?}");
        self.json()
    }

    /// The body of an answer that must be this problem, in the form that RFC 9457 and the contract ask for.
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

    /// Where a body that was refused as invalid is wrong, and that it is refused so.
    #[track_caller]
    pub fn expect_invalid(&self) -> Vec<String> {
        let body = self.expect_problem(422, "validation_failed");
        let errors = body["errors"].as_array().cloned().unwrap_or_default();
        assert!(!errors.is_empty(), "{self:?}");
        let pointer = |error: &Value| error["pointer"].as_str().map(str::to_owned);
        errors.iter().map(|error| pointer(error).unwrap_or_else(|| panic!("{self:?}"))).collect()
    }
}
