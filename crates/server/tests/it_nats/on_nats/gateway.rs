//! A plain client of NATS that sends what the original gateway sends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, HeaderMap};
use serde_json::{Value, json};
use testkit::{DEADLINE, NatsServer, eventually, within_deadline};

/// Long after every answer that ever comes.
const NO_REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// The gateway's connection.
pub(crate) struct Gateway {
    client: Client,
    /// Milliseconds, as the gateway numbers its messages: not unique at all.
    messages: AtomicU64,
}

/// The date that the gateway writes, and its number of milliseconds.
pub(crate) fn now() -> (String, i64) {
    #[expect(clippy::disallowed_methods, reason = "a client has a clock of its own")]
    let now = jiff::Timestamp::now();
    (now.to_string(), now.as_millisecond())
}

impl Gateway {
    pub(crate) async fn connect(nats: &NatsServer) -> Self {
        let client =
            within_deadline("a connection", async_nats::connect(nats.url())).await.expect("NATS is up");
        let gateway = Self { client, messages: AtomicU64::new(1_732_467_600_000) };
        // Answered once the service has subscribed.
        eventually("the service answers", async || gateway.try_ask("booking.stats", &json!({})).await).await;
        gateway
    }

    /// The connection itself.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The request with what the gateway adds to each.
    pub(crate) fn sealed(&self, mut request: Value) -> Value {
        let id = self.messages.fetch_add(1, Ordering::Relaxed);
        let fields = request.as_object_mut().expect("a request is an object");
        fields.entry("messageId").or_insert(json!(id.to_string()));
        fields.entry("timestamp").or_insert(json!(now().0));
        request
    }

    /// Asks, and answers the reply, which names the request that it belongs to.
    pub(crate) async fn ask(&self, subject: &'static str, request: Value) -> Value {
        let request = self.sealed(request);
        let reply = self.try_ask(subject, &request).await.unwrap_or_else(|| panic!("no reply to {request}"));
        assert_eq!(reply["correlationId"], request["messageId"], "{reply:#}");
        reply
    }

    /// Asks, and answers the data of a success.
    pub(crate) async fn expect(&self, subject: &'static str, request: Value) -> Value {
        let mut reply = self.ask(subject, request).await;
        assert_eq!(reply["success"], true, "{subject}: {reply:#}");
        assert!(reply["message"].is_string() && reply.get("error").is_none(), "{reply:#}");
        reply["data"].take()
    }

    /// Asks, and checks how the refusal is called.
    pub(crate) async fn refused(&self, subject: &'static str, request: Value, code: &str) -> Value {
        let reply = self.ask(subject, request).await;
        assert_eq!(
            (&reply["success"], &reply["code"]),
            (&json!(false), &json!(code)),
            "{subject}: {reply:#}"
        );
        assert!(reply["error"].as_str().is_some_and(|text| !text.is_empty()), "{reply:#}");
        reply
    }

    /// Sends whatever it is, and answers the reply.
    pub(crate) async fn send(
        &self,
        subject: &'static str,
        payload: Vec<u8>,
        headers: HeaderMap,
    ) -> Option<Value> {
        let request = async_nats::Request::new().payload(payload.into()).headers(headers);
        self.request(subject, request.timeout(Some(DEADLINE))).await
    }

    /// Sends what must not be answered.
    pub(crate) async fn send_expecting_no_reply(
        &self,
        subject: &'static str,
        payload: Vec<u8>,
        headers: HeaderMap,
    ) {
        let shown = String::from_utf8_lossy(&payload).into_owned();
        let request = async_nats::Request::new().payload(payload.into()).headers(headers);
        let reply = self.request(subject, request.timeout(Some(NO_REPLY_TIMEOUT))).await;
        assert_eq!(reply, None, "{shown}");
    }

    async fn try_ask(&self, subject: &'static str, request: &Value) -> Option<Value> {
        let request = async_nats::Request::new().payload(request.to_string().into());
        self.request(subject, request.timeout(Some(DEADLINE))).await
    }

    async fn request(&self, subject: &'static str, request: async_nats::Request) -> Option<Value> {
        let reply = self.client.send_request(subject, request).await.ok()?;
        Some(serde_json::from_slice(&reply.payload).expect("a reply is JSON"))
    }
}
