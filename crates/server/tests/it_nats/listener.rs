//! Whoever listens to what the ledger says, and compares it with the ledger.

use std::collections::BTreeMap;

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::stream::Stream;
use async_nats::{HeaderMap, jetstream};
use futures_util::StreamExt as _;
use serde_json::Value;
use testkit::{Client, NatsServer, eventually, within_deadline};

/// A message of the stream.
pub(crate) struct Told {
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) event: Value,
}

/// The way to the stream, over a fresh connection.
pub(crate) async fn streams(nats: &NatsServer) -> jetstream::Context {
    let client = within_deadline("a connection", async_nats::connect(nats.url())).await.expect("NATS is up");
    jetstream::new(client)
}

/// How many messages there are; none where there is no stream.
pub(crate) async fn length(streams: &jetstream::Context) -> u64 {
    match streams.get_stream("BOXOFFICE").await {
        Ok(stream) => stream.cached_info().state.messages,
        Err(_) => 0,
    }
}

/// Everything that is on the stream, in its order.
pub(crate) async fn read(streams: &jetstream::Context) -> Vec<Told> {
    let stream: Stream = streams.get_stream("BOXOFFICE").await.expect("the stream is there");
    let count = usize::try_from(stream.cached_info().state.messages).expect("a number");
    if count == 0 {
        return Vec::new();
    }
    let consumer = stream.create_consumer(OrderedConfig::default()).await.expect("a consumer");
    let messages = consumer.messages().await.expect("messages").take(count);
    let told = messages.map(|message| {
        let message = message.expect("a message").message;
        Told {
            subject: message.subject.to_string(),
            headers: message.headers.unwrap_or_default(),
            event: serde_json::from_slice(&message.payload).expect("JSON"),
        }
    });
    within_deadline("the whole stream", told.collect()).await
}

/// Waits until the stream is as long as the ledgers together, and checks that it tells each of them: every
/// entry once and in order. How long it is.
pub(crate) async fn complete(nats: &NatsServer, admin: &mut Client) -> usize {
    let ledgers = ledgers(admin).await;
    let wanted: usize = ledgers.values().map(Vec::len).sum();
    let streams = streams(nats).await;
    eventually("the stream is as long as the ledgers", async || {
        let length = length(&streams).await;
        assert!(length <= wanted as u64, "{length} messages for {wanted} entries");
        (length == wanted as u64).then_some(())
    })
    .await;
    let mut told: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for Told { subject, headers, event } in read(&streams).await {
        let data = &event["data"];
        let id = format!("{}:{}", data["eventId"].as_str().expect("an id"), data["eventSeq"]);
        assert_eq!(event["id"], id.as_str(), "{event:#}");
        assert_eq!(headers.get("Nats-Msg-Id").map(ToString::to_string), Some(id), "{event:#}");
        assert_eq!(event["type"], data["type"], "{event:#}");
        let name = data["eventId"].as_str().expect("an id").to_owned();
        assert_eq!(subject, format!("boxoffice.ledger.{name}"));
        told.entry(name).or_default().push(event);
    }
    for (event, ledger) in &ledgers {
        let told = told.remove(event).unwrap_or_default();
        let order =
            |entries: &[Value]| entries.iter().map(|entry| entry["eventSeq"].clone()).collect::<Vec<_>>();
        let data: Vec<Value> = told.iter().map(|event| event["data"].clone()).collect();
        assert_eq!(order(&data), order(ledger), "{event}");
        for (told, entry) in data.iter().zip(ledger) {
            for (field, value) in entry.as_object().expect("an entry") {
                assert_eq!(&told[field], value, "{field} of {told:#}");
            }
        }
    }
    assert!(told.is_empty(), "messages of no event: {told:#?}");
    wanted
}

/// The ledgers of all events.
async fn ledgers(admin: &mut Client) -> BTreeMap<String, Vec<Value>> {
    let mut ledgers = BTreeMap::new();
    for event in admin.all("/v1/events").await {
        let id = testkit::id_of(&event);
        let ledger = admin.all(&format!("/v1/events/{id}/ledger")).await;
        ledgers.insert(id, ledger);
    }
    ledgers
}
