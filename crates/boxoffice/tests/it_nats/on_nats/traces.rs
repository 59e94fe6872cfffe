//! The trace context of a request is propagated to the log, the reply, and every message about the request.

use async_nats::{HeaderMap, Subscriber};
use futures_util::StreamExt as _;
use hyper::Method;
use serde_json::{Value, json};
use testkit::{NatsServer, event_body, eventually, id_of, with_fields, within_deadline};

use super::gateway::Gateway;
use crate::ledger_stream::{expect_complete, read, streams};
use crate::setup;

/// The trace contexts of requests over HTTP and over NATS.
const OVER_HTTP: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OVER_NATS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
/// An invalid trace context: W3C Trace Context requires lower case.
const INVALID: &str = "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01";

fn header_map(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, *value);
    }
    map
}

fn trace(headers: Option<&HeaderMap>) -> Option<String> {
    headers?.get("traceparent").map(|value| value.as_str().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traceparent_is_propagated_to_logs_replies_and_messages() {
    let nats = NatsServer::start().await;
    let words = ["--log", "debug", "--sweep-every", "1s"];
    let server = words.into_iter().fold(setup(&nats), testkit::Setup::argument).start().await;
    let client = streams(&nats).await.client();
    let subscriber = client.subscribe(">").await.expect("a subscription");
    client.flush().await.expect("NATS has the subscription");
    let mut admin = server.admin();
    let event = admin.create_event(&with_fields(event_body(10), &json!({"holdSeconds": 2}))).await;
    let order = json!({"eventId": event, "userId": "user-1", "ticketQuantity": 1});

    // Over HTTP: bookings that will expire. Invalid or duplicate trace contexts are ignored without an error.
    let http = async |traces: &[&str]| {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(traces.iter().map(|trace| ("traceparent", *trace)));
        let mut service = server.service();
        let created = service.request_with(Method::POST, "/v1/bookings", &headers, order.to_string()).await;
        id_of(&created.expect(201))
    };
    let expired = http(&[OVER_HTTP]).await;
    http(&[INVALID]).await;
    http(&[OVER_HTTP, OVER_NATS]).await;
    let expired_count =
        |ledger: &[Value]| ledger.iter().filter(|entry| entry["type"] == "booking.expired").count();
    let path = format!("/v1/events/{event}/ledger");
    eventually("they expire", async || (expired_count(&server.admin().all(&path).await) == 3).then_some(()))
        .await;

    // Over NATS: the client's library determines the case of header names.
    let gateway = Gateway::connect(&nats).await;
    let call = async |subject: &'static str, body: &Value, headers: &[(&str, &str)]| {
        let request =
            async_nats::Request::new().payload(body.to_string().into()).headers(header_map(headers));
        let reply = gateway.client().send_request(subject, request).await.expect("a reply");
        let body: Value = serde_json::from_slice(&reply.payload).expect("JSON");
        (trace(reply.headers.as_ref()), body)
    };
    let (traced, created) = call("booking.create", &order, &[("Traceparent", OVER_NATS)]).await;
    assert_eq!((traced.as_deref(), &created["success"]), (Some(OVER_NATS), &json!(true)), "{created:#}");
    let cancel = json!({"bookingId": created["data"]["id"], "userId": "user-1"});
    let (traced, cancelled) = call("booking.cancel", &cancel, &[("traceparent", INVALID)]).await;
    assert_eq!((traced, &cancelled["success"]), (None, &json!(true)), "{cancelled:#}");
    let (traced, refused) = call("booking.cancel", &cancel, &[("traceparent", OVER_HTTP)]).await;
    assert_eq!((traced.as_deref(), &refused["code"]), (Some(OVER_HTTP), &json!("invalid_state")));

    check_messages(&nats, &mut admin, subscriber).await;

    // Traces are logged, but not returned over HTTP.
    for (traceparent, place) in [(OVER_HTTP, "/v1/bookings"), (OVER_NATS, "booking.create")] {
        let trace = format!("trace=\"{}\"", &traceparent[3..35]);
        let found = server.log().find(|line| (line.contains(&trace) && line.contains(place)).then_some(()));
        assert!(found.await.is_some(), "{traceparent}: {}", server.log().tail());
    }
    let bodies = format!(
        "{}{}",
        json!(admin.all(&path).await),
        admin.get(&format!("/v1/bookings/{expired}")).await.expect(200)
    );
    assert!(!bodies.contains(&OVER_HTTP[3..35]) && !bodies.contains("trace"), "{bodies}");
}

/// Checks the traces on the stream and in notifications. Entries of chores have none.
async fn check_messages(nats: &NatsServer, admin: &mut testkit::Client, mut subscriber: Subscriber) {
    expect_complete(nats, admin).await;
    let messages: Vec<_> = read(&streams(nats).await).await;
    for message in &messages {
        let inside = message.event["traceparent"].as_str().map(str::to_owned);
        assert_eq!(trace(Some(&message.headers)), inside, "{:#}", message.event);
    }
    let traces: Vec<(&str, Option<&str>)> = messages
        .iter()
        .map(|message| {
            (message.event["type"].as_str().expect("a type"), message.event["traceparent"].as_str())
        })
        .filter(|(kind, trace)| *kind != "booking.expired" || trace.is_some())
        .collect();
    let created = "booking.created";
    assert_eq!(
        traces,
        [
            ("event.created", None),
            (created, Some(OVER_HTTP)),
            (created, None),
            (created, None),
            (created, Some(OVER_NATS)),
            ("booking.cancelled", None),
        ]
    );
    let mut notified = Vec::new();
    while notified.len() < 4 {
        let message = within_deadline("a notification", subscriber.next()).await.expect("a message");
        if message.subject.as_str() == "event.booking.created" {
            notified.push(trace(message.headers.as_ref()));
        }
    }
    assert_eq!(notified, [Some(OVER_HTTP), None, None, Some(OVER_NATS)].map(|it| it.map(str::to_owned)));
}
