//! A plain NATS client. It sends requests as the API gateway of the MongoDB booking service does, whose NATS
//! subjects boxoffice serves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, HeaderMap};
use serde_json::{Value, json};
use testkit::{DEADLINE, NatsServer, eventually, within_deadline};

/// Longer than any reply takes.
const NO_REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// The connection of a gateway.
pub(crate) struct Gateway {
    client: Client,
    /// The next message id. The gateway's ids are times in milliseconds, which are not unique.
    next_message_id: AtomicU64,
}

/// The current time as the gateway writes it, and in milliseconds since the Unix epoch.
pub(crate) fn now() -> (String, i64) {
    #[expect(clippy::disallowed_methods, reason = "a client has a clock of its own")]
    let now = jiff::Timestamp::now();
    (now.to_string(), now.as_millisecond())
}

impl Gateway {
    pub(crate) async fn connect(nats: &NatsServer) -> Self {
        let client =
            within_deadline("a connection", async_nats::connect(nats.url())).await.expect("NATS is up");
        let gateway = Self { client, next_message_id: AtomicU64::new(1_732_467_600_000) };
        // There is a reply once the service has subscribed.
        eventually("the service replies", async || gateway.try_call("booking.stats", &json!({})).await).await;
        gateway
    }

    /// The NATS client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Adds the fields that the gateway adds to every request.
    pub(crate) fn with_gateway_fields(&self, mut request: Value) -> Value {
        let id = self.next_message_id.fetch_add(1, Ordering::Relaxed);
        let fields = request.as_object_mut().expect("a request is an object");
        fields.entry("messageId").or_insert(json!(id.to_string()));
        fields.entry("timestamp").or_insert(json!(now().0));
        request
    }

    /// Sends a request and returns the reply, which must name the request's message id.
    pub(crate) async fn call(&self, subject: &'static str, request: Value) -> Value {
        let request = self.with_gateway_fields(request);
        let reply = self.try_call(subject, &request).await.unwrap_or_else(|| panic!("no reply to {request}"));
        assert_eq!(reply["correlationId"], request["messageId"], "{reply:#}");
        reply
    }

    /// Sends a request that must succeed, and returns the data of the reply.
    pub(crate) async fn expect(&self, subject: &'static str, request: Value) -> Value {
        let mut reply = self.call(subject, request).await;
        assert_eq!(reply["success"], true, "{subject}: {reply:#}");
        assert!(reply["message"].is_string() && reply.get("error").is_none(), "{reply:#}");
        reply["data"].take()
    }

    /// Sends a request that must be refused with this code, and returns the reply.
    pub(crate) async fn expect_refused(&self, subject: &'static str, request: Value, code: &str) -> Value {
        let reply = self.call(subject, request).await;
        assert_eq!(
            (&reply["success"], &reply["code"]),
            (&json!(false), &json!(code)),
            "{subject}: {reply:#}"
        );
        assert!(reply["error"].as_str().is_some_and(|text| !text.is_empty()), "{reply:#}");
        reply
    }

    /// Sends any payload, and returns the reply.
    pub(crate) async fn send(
        &self,
        subject: &'static str,
        payload: Vec<u8>,
        headers: HeaderMap,
    ) -> Option<Value> {
        let request = async_nats::Request::new().payload(payload.into()).headers(headers);
        self.exchange(subject, request.timeout(Some(DEADLINE))).await
    }

    /// Sends a payload that must get no reply.
    pub(crate) async fn send_expecting_no_reply(
        &self,
        subject: &'static str,
        payload: Vec<u8>,
        headers: HeaderMap,
    ) {
        let text = String::from_utf8_lossy(&payload).into_owned();
        let request = async_nats::Request::new().payload(payload.into()).headers(headers);
        let reply = self.exchange(subject, request.timeout(Some(NO_REPLY_TIMEOUT))).await;
        assert_eq!(reply, None, "{text}");
    }

    async fn try_call(&self, subject: &'static str, request: &Value) -> Option<Value> {
        let request = async_nats::Request::new().payload(request.to_string().into());
        self.exchange(subject, request.timeout(Some(DEADLINE))).await
    }

    async fn exchange(&self, subject: &'static str, request: async_nats::Request) -> Option<Value> {
        let reply = self.client.send_request(subject, request).await.ok()?;
        Some(serde_json::from_slice(&reply.payload).expect("a reply is JSON"))
    }
}
