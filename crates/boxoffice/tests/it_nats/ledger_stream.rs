//! Reads the stream of ledger entries, and compares it with the ledgers.

use std::collections::BTreeMap;

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::stream::Stream;
use async_nats::{HeaderMap, ServerAddr, jetstream};
use futures_util::StreamExt as _;
use serde_json::Value;
use testkit::history::{LedgerRow, check_stream};
use testkit::{Client, NatsServer, eventually, within_deadline};

/// A message of the stream.
pub(crate) struct StreamMessage {
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) event: Value,
}

/// The JetStream context of a new connection.
pub(crate) async fn streams(nats: &NatsServer) -> jetstream::Context {
    streams_at(&nats.url()).await
}

/// The JetStream context of a new connection to a cluster, whose addresses are separated by commas.
pub(crate) async fn streams_at(url: &str) -> jetstream::Context {
    let servers: Vec<ServerAddr> = url.split(',').map(|url| url.parse().expect("an address")).collect();
    let client = within_deadline("a connection", async_nats::connect(servers)).await.expect("NATS is up");
    jetstream::new(client)
}

/// Number of messages on the stream; 0 where there is no stream.
pub(crate) async fn length(streams: &jetstream::Context) -> u64 {
    match streams.get_stream("BOXOFFICE").await {
        Ok(stream) => stream.cached_info().state.messages,
        Err(_) => 0,
    }
}

/// All messages of the stream, in order.
pub(crate) async fn read(streams: &jetstream::Context) -> Vec<StreamMessage> {
    let stream: Stream = streams.get_stream("BOXOFFICE").await.expect("the stream is there");
    let count = usize::try_from(stream.cached_info().state.messages).expect("a number");
    if count == 0 {
        return Vec::new();
    }
    let consumer = stream.create_consumer(OrderedConfig::default()).await.expect("a consumer");
    let messages = consumer.messages().await.expect("messages").take(count);
    let parsed = messages.map(|message| {
        let message = message.expect("a message").message;
        StreamMessage {
            subject: message.subject.to_string(),
            headers: message.headers.unwrap_or_default(),
            event: serde_json::from_slice(&message.payload).expect("JSON"),
        }
    });
    within_deadline("the whole stream", parsed.collect()).await
}

/// Waits until the stream has as many messages as all ledgers have entries, and checks that it has every
/// entry once and in order. Returns the number of entries.
pub(crate) async fn expect_complete(nats: &NatsServer, admin: &mut Client) -> usize {
    expect_complete_at(&nats.url(), admin).await
}

/// As [`expect_complete`], for a cluster.
pub(crate) async fn expect_complete_at(url: &str, admin: &mut Client) -> usize {
    let ledgers = ledgers(admin).await;
    let expected: usize = ledgers.values().map(Vec::len).sum();
    let streams = streams_at(url).await;
    eventually("the stream is as long as the ledgers", async || {
        let length = length(&streams).await;
        assert!(length <= expected as u64, "{length} messages for {expected} entries");
        (length == expected as u64).then_some(())
    })
    .await;
    let published = read(&streams).await;
    for StreamMessage { subject, headers, event } in &published {
        let data = &event["data"];
        let id = format!("{}:{}", data["eventId"].as_str().expect("an id"), data["eventSeq"]);
        assert_eq!(event["id"], id.as_str(), "{event:#}");
        assert_eq!(headers.get("Nats-Msg-Id").map(ToString::to_string), Some(id), "{event:#}");
        assert_eq!(event["type"], data["type"], "{event:#}");
        let name = data["eventId"].as_str().expect("an id");
        assert_eq!(*subject, format!("boxoffice.ledger.{name}"));
        // Every field of an entry over HTTP is in its message as well.
        let seq = usize::try_from(data["eventSeq"].as_u64().expect("a number")).expect("a small one");
        for (field, value) in ledgers[name][seq - 1].as_object().expect("an entry") {
            assert_eq!(&data[field], value, "{field} of {event:#}");
        }
    }
    let entries =
        ledgers.iter().flat_map(|(event, ledger)| ledger.iter().map(|entry| ledger_row(event, entry)));
    let messages = published.iter().map(|message| &message.event["data"]);
    let messages = messages.map(|data| ledger_row(data["eventId"].as_str().expect("an id"), data));
    let violations = check_stream(&entries.collect::<Vec<_>>(), &messages.collect::<Vec<_>>(), true);
    assert_eq!(violations, Vec::<String>::new());
    expected
}

/// An entry in the form that the checker of histories takes.
fn ledger_row(event: &str, entry: &Value) -> LedgerRow {
    let text = |field: &str| entry[field].as_str().map(str::to_owned);
    let number = |field: &str| u32::try_from(entry[field].as_u64().expect("a number")).expect("a small one");
    let at: jiff::Timestamp = entry["at"].as_str().and_then(|at| at.parse().ok()).expect("an instant");
    LedgerRow {
        event: event.to_owned(),
        seq: entry["eventSeq"].as_u64().expect("a number"),
        kind: text("type").expect("a word"),
        booking: text("bookingId"),
        refund: text("refundId"),
        quantity: number("quantity"),
        from: text("from"),
        available_after: number("availableAfter"),
        actor: text("actor").expect("a name"),
        request: text("requestId").expect("a name"),
        at: at.as_microsecond(),
    }
}

/// The ledgers of all events, by event id.
async fn ledgers(admin: &mut Client) -> BTreeMap<String, Vec<Value>> {
    let mut ledgers = BTreeMap::new();
    for event in admin.all("/v1/events").await {
        let id = testkit::id_of(&event);
        let ledger = admin.all(&format!("/v1/events/{id}/ledger")).await;
        ledgers.insert(id, ledger);
    }
    ledgers
}
