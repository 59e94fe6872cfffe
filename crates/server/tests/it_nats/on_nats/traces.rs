//! Where a request belongs in its caller's trace goes with it: into the log, the reply, and every message that
//! tells what the request did.

use async_nats::{HeaderMap, Subscriber};
use futures_util::StreamExt as _;
use hyper::Method;
use serde_json::{Value, json};
use testkit::{NatsServer, event_body, eventually, id_of, with_fields, within_deadline};

use super::gateway::Gateway;
use crate::listener::{complete, read, streams};
use crate::setup;

/// As the caller writes it over HTTP, and another over NATS.
const OVER_HTTP: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OVER_NATS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
/// What is none: given twice, or not as the standard writes it.
const NOT: &str = "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01";

fn named(headers: &[(&str, &str)]) -> HeaderMap {
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
    let listener = client.subscribe(">").await.expect("a subscription");
    client.flush().await.expect("NATS has it");
    let mut admin = server.admin();
    let event = admin.create_event(&with_fields(event_body(10), &json!({"holdSeconds": 2}))).await;
    let order = json!({"eventId": event, "userId": "user-1", "ticketQuantity": 1});

    // Over HTTP, one that will expire, and one whose trace is none, and is no error.
    let http = async |traces: &[&str]| {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(traces.iter().map(|trace| ("traceparent", *trace)));
        let mut service = server.service();
        let made = service.request_with(Method::POST, "/v1/bookings", &headers, order.to_string()).await;
        id_of(&made.expect(201))
    };
    let expired = http(&[OVER_HTTP]).await;
    http(&[NOT]).await;
    http(&[OVER_HTTP, OVER_NATS]).await;
    let gone = |ledger: &[Value]| ledger.iter().filter(|entry| entry["type"] == "booking.expired").count();
    let path = format!("/v1/events/{event}/ledger");
    eventually("they expire", async || (gone(&server.admin().all(&path).await) == 3).then_some(())).await;

    // Over NATS, where names of headers are written as the library of the caller likes.
    let gateway = Gateway::connect(&nats).await;
    let ask = async |subject: &'static str, body: &Value, headers: &[(&str, &str)]| {
        let request = async_nats::Request::new().payload(body.to_string().into()).headers(named(headers));
        let reply = gateway.client().send_request(subject, request).await.expect("a reply");
        let body: Value = serde_json::from_slice(&reply.payload).expect("JSON");
        (trace(reply.headers.as_ref()), body)
    };
    let (told, made) = ask("booking.create", &order, &[("Traceparent", OVER_NATS)]).await;
    assert_eq!((told.as_deref(), &made["success"]), (Some(OVER_NATS), &json!(true)), "{made:#}");
    let cancel = json!({"bookingId": made["data"]["id"], "userId": "user-1"});
    let (told, gone) = ask("booking.cancel", &cancel, &[("traceparent", NOT)]).await;
    assert_eq!((told, &gone["success"]), (None, &json!(true)), "{gone:#}");
    let (told, refused) = ask("booking.cancel", &cancel, &[("traceparent", OVER_HTTP)]).await;
    assert_eq!((told.as_deref(), &refused["code"]), (Some(OVER_HTTP), &json!("invalid_state")));

    check_messages(&nats, &mut admin, listener).await;

    // In the log, and not over HTTP.
    for (given, place) in [(OVER_HTTP, "/v1/bookings"), (OVER_NATS, "booking.create")] {
        let trace = format!("trace=\"{}\"", &given[3..35]);
        let found = server.log().find(|line| (line.contains(&trace) && line.contains(place)).then_some(()));
        assert!(found.await.is_some(), "{given}: {}", server.log().tail());
    }
    let shown = format!(
        "{}{}",
        json!(admin.all(&path).await),
        admin.get(&format!("/v1/bookings/{expired}")).await.expect(200)
    );
    assert!(!shown.contains(&OVER_HTTP[3..35]) && !shown.contains("trace"), "{shown}");
}

/// On the stream, and in what is announced; chores have no caller.
async fn check_messages(nats: &NatsServer, admin: &mut testkit::Client, mut listener: Subscriber) {
    complete(nats, admin).await;
    let told: Vec<_> = read(&streams(nats).await).await;
    for message in &told {
        let inside = message.event["traceparent"].as_str().map(str::to_owned);
        assert_eq!(trace(Some(&message.headers)), inside, "{:#}", message.event);
    }
    let carried: Vec<(&str, Option<&str>)> = told
        .iter()
        .map(|told| (told.event["type"].as_str().expect("a type"), told.event["traceparent"].as_str()))
        .filter(|(kind, trace)| *kind != "booking.expired" || trace.is_some())
        .collect();
    let created = "booking.created";
    assert_eq!(
        carried,
        [
            ("event.created", None),
            (created, Some(OVER_HTTP)),
            (created, None),
            (created, None),
            (created, Some(OVER_NATS)),
            ("booking.cancelled", None),
        ]
    );
    let mut announced = Vec::new();
    while announced.len() < 4 {
        let message = within_deadline("an announcement", listener.next()).await.expect("a message");
        if message.subject.as_str() == "event.booking.created" {
            announced.push(trace(message.headers.as_ref()));
        }
    }
    assert_eq!(announced, [Some(OVER_HTTP), None, None, Some(OVER_NATS)].map(|it| it.map(str::to_owned)));
}
