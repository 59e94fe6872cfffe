//! Requests that no gateway sends: each gets a reply with a code, and nothing crashes.

use async_nats::HeaderMap;
use serde_json::json;
use testkit::{NatsServer, event_body};

use super::gateway::Gateway;
use crate::setup;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_refused_with_a_code() {
    let nats = NatsServer::start().await;
    let server = setup(&nats).start().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let gateway = Gateway::connect(&nats).await;
    let table = wrong_orders(&event).into_iter().chain(wrong_requests());
    for (subject, payload, code) in table {
        let text = String::from_utf8_lossy(&payload[..payload.len().min(200)]).into_owned();
        let reply = gateway.send(subject, payload, HeaderMap::new()).await;
        let reply = reply.unwrap_or_else(|| panic!("{subject} {text}: no reply"));
        assert_eq!(
            (&reply["success"], &reply["code"]),
            (&json!(false), &json!(code)),
            "{subject} {text}: {reply:#}"
        );
    }
    assert_eq!(server.admin().counts(&event).await, (0, 0, 10));
    let order = json!({"eventId": event, "userId": "user-1", "ticketQuantity": 1, "unknown": {"field": [1]}});
    gateway.expect("booking.create", order).await;
}

/// A message id is returned unchanged, whatever it is; the reply leaves out a value that cannot be one.
#[tokio::test(flavor = "multi_thread")]
async fn message_ids_are_returned_unchanged() {
    let nats = NatsServer::start().await;
    let _server = setup(&nats).start().await;
    let gateway = Gateway::connect(&nats).await;
    for id in [r#""a \"quoted\" ✓""#, "1732467600000", "12345678901234567890123", r#""""#] {
        let request = format!(r#"{{"bookingId":"x","messageId":{id}}}"#);
        let reply = gateway.client().request("booking.get", request.into()).await.expect("a reply");
        let text = String::from_utf8(reply.payload.to_vec()).expect("text");
        assert!(text.contains(&format!(r#""correlationId":{id}"#)), "{text}");
        assert!(reply.headers.is_some_and(|headers| headers.get("Nats-Service-Error-Code").is_some()));
    }
    for none in ["null", "{}", "[1]", "true", &format!("\"{}\"", "x".repeat(300))] {
        let request = format!(r#"{{"bookingId":"x","messageId":{none}}}"#);
        let reply = gateway.send("booking.get", request.into(), HeaderMap::new()).await.expect("a reply");
        assert_eq!((&reply["code"], reply.get("correlationId")), (&json!("not_found"), None), "{none}");
    }
}

fn quantity(event: &str, quantity: &str) -> Vec<u8> {
    format!(r#"{{"eventId":"{event}","userId":"u","ticketQuantity":{quantity}}}"#).into_bytes()
}

fn named(user: &str, event: &str) -> Vec<u8> {
    format!(r#"{{"eventId":"{event}","userId":"{user}","ticketQuantity":1}}"#).into_bytes()
}

/// A subject, a payload, and the code of the reply.
type Row = (&'static str, Vec<u8>, &'static str);

fn wrong_orders(event: &str) -> Vec<Row> {
    let create = |fields: &str| {
        format!(r#"{{"eventId":"{event}","userId":"u","ticketQuantity":1{fields}}}"#).into_bytes()
    };
    vec![
        ("booking.create", b"".to_vec(), "malformed_request"),
        ("booking.create", b"{".to_vec(), "malformed_request"),
        ("booking.create", b"\xff\xfe\x00".to_vec(), "malformed_request"),
        ("booking.create", "[".repeat(60_000).into_bytes(), "malformed_request"),
        ("booking.create", format!("{{\"a\":{}", "[".repeat(60_000)).into_bytes(), "malformed_request"),
        ("booking.create", vec![b' '; 70_000], "payload_too_large"),
        ("booking.create", b"null".to_vec(), "validation_failed"),
        ("booking.create", b"[]".to_vec(), "validation_failed"),
        ("booking.create", b"\"booking\"".to_vec(), "validation_failed"),
        ("booking.create", b"{}".to_vec(), "validation_failed"),
        ("booking.create", create(r#","ticketQuantity":2"#), "validation_failed"),
        ("booking.create", create(r#","totalAmount":"45 EUR""#), "validation_failed"),
        ("booking.create", create(r#","totalAmount":1e400"#), "validation_failed"),
        ("booking.create", create(r#","totalAmount":-45"#), "validation_failed"),
        ("booking.create", create(r#","totalAmount":{"amount":4500}"#), "validation_failed"),
        ("booking.create", create(r#","totalAmount":0.30000000000000004"#), "validation_failed"),
        ("booking.create", create(r#","totalAmount":44.99"#), "amount_mismatch"),
        ("booking.create", create(r#","paymentMethod":"a\u0000b""#), "validation_failed"),
        ("booking.create", create(r#","paymentMethod":7"#), "validation_failed"),
        ("booking.create", quantity(event, "0"), "validation_failed"),
        ("booking.create", quantity(event, "-1"), "validation_failed"),
        ("booking.create", quantity(event, "1.5"), "validation_failed"),
        ("booking.create", quantity(event, "\"1\""), "validation_failed"),
        ("booking.create", quantity(event, "4294967296"), "validation_failed"),
        ("booking.create", quantity(event, "11"), "booking_limit_exceeded"),
        ("booking.create", named("*", event), "validation_failed"),
        ("booking.create", named("a b", event), "validation_failed"),
        ("booking.create", named("a\\r\\nPUB x", event), "validation_failed"),
        ("booking.create", named(&"x".repeat(129), event), "validation_failed"),
        ("booking.create", named("user", "507f1f77bcf86cd799439011"), "validation_failed"),
        ("booking.create", named("user", "evt_01h455vb4pex5vsknk084sn02q"), "not_found"),
    ]
}

fn wrong_requests() -> Vec<Row> {
    let unknown = "bkg_01h455vb4pex5vsknk084sn02q";
    vec![
        ("booking.cancel", br#"{"bookingId":"x"}"#.to_vec(), "validation_failed"),
        ("booking.cancel", br#"{"bookingId":"*.>","userId":"u"}"#.to_vec(), "not_found"),
        ("booking.cancel", br#"{"bookingId":{"$gt":""},"userId":"u"}"#.to_vec(), "validation_failed"),
        ("booking.get", br#"{"bookingId":"' OR 1=1 --"}"#.to_vec(), "not_found"),
        ("booking.get", format!(r#"{{"bookingId":"{unknown}"}}"#).into_bytes(), "not_found"),
        ("booking.get", br#"{"bookingId":null}"#.to_vec(), "validation_failed"),
        ("booking.list", br#"{"userId":"u","status":"gone"}"#.to_vec(), "validation_failed"),
        ("booking.list", br#"{"userId":"u","page":4294967295,"limit":100}"#.to_vec(), "validation_failed"),
        ("booking.list", br#"{"userId":"u","limit":"10"}"#.to_vec(), "validation_failed"),
        ("booking.list", format!(r#"{{"eventId":"{}"}}"#, unknown.replace("bkg", "evt")).into(), "not_found"),
        (
            "booking.validate",
            format!(r#"{{"bookingId":"{unknown}","eventId":"x"}}"#).into(),
            "validation_failed",
        ),
        ("booking.confirm-payment", format!(r#"{{"bookingId":"{unknown}"}}"#).into(), "validation_failed"),
        (
            "booking.confirm-payment",
            format!(r#"{{"bookingId":"{unknown}","paymentTransactionId":"p"}}"#).into(),
            "not_found",
        ),
        ("booking.stats", b"{".to_vec(), "malformed_request"),
        ("booking.stats", b"[1]".to_vec(), "validation_failed"),
    ]
}
