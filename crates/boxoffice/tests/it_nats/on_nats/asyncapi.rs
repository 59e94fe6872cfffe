//! The messages over NATS are exactly those that `boxoffice asyncapi` and the README describe.

use std::collections::{BTreeSet, HashMap};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use testkit::{DEADLINE, NatsServer, Server, event_body, id_of, with_fields};
use tokio::time::timeout;

use super::gateway::Gateway;
use crate::ledger_stream::streams;
use crate::{program, setup};

/// The AsyncAPI document, and the requests that have no reply yet.
struct AsyncApi {
    document: Value,
    /// The name of each expected reply, by its subject.
    replies: HashMap<String, String>,
}

impl AsyncApi {
    async fn read() -> Self {
        let printed = program().run(["asyncapi"]).await;
        let document = serde_json::from_str(&printed.stdout).expect("JSON");
        Self { document, replies: HashMap::new() }
    }

    fn all(&self) -> BTreeSet<String> {
        keys(&self.document["components"]["messages"])
    }

    /// The name of a message in the document; `None` for internal messages of instances and of NATS.
    fn name(&mut self, message: &Message, payload: &Value) -> Option<String> {
        let subject = message.subject.as_str();
        if let Some(reply) = self.replies.remove(subject) {
            return Some(reply);
        }
        if ["$", "_INBOX"].iter().any(|start| subject.starts_with(start)) || subject == "boxoffice.wakeup" {
            return None;
        }
        let channels = self.document["channels"].as_object().expect("channels");
        let fits = |channel: &&Value| {
            channel["address"].as_str().is_some_and(|address| match address.split_once('{') {
                Some((start, _)) => subject.starts_with(start),
                None => subject == address,
            })
        };
        let channel = channels.values().find(fits).unwrap_or_else(|| panic!("{subject} is not api"));
        let names = keys(&channel["messages"]);
        let kind = payload["type"].as_str().map(str::to_owned);
        let name = kind.filter(|_| names.len() > 1).or_else(|| names.first().cloned()).expect("a name");
        assert!(names.contains(&name), "{name} is not api on {subject}");
        // The relay expects a reply as well: the publish ack.
        if let Some(inbox) =
            message.reply.as_ref().filter(|_| self.document["operations"][&name]["reply"].is_object())
        {
            self.replies.insert(inbox.to_string(), format!("{name}-reply"));
        }
        Some(name)
    }

    /// A schema, and all schemas that it refers to or is composed of.
    fn parts<'a>(&'a self, schema: &'a Value) -> Vec<&'a Value> {
        let target =
            schema["$ref"].as_str().map(|target| self.document.pointer(&target[1..]).expect("it is there"));
        let more = schema["allOf"].as_array().into_iter().flatten().chain(target);
        std::iter::once(schema).chain(more.flat_map(|part| self.parts(part))).collect()
    }

    /// Checks a message against the schemas that describe it, recursively.
    fn check(&self, schemas: &[&Value], value: &Value, place: &str) {
        let parts: Vec<&Value> = schemas.iter().flat_map(|schema| self.parts(schema)).collect();
        for part in &parts {
            check_kind(part, value, place);
            let missing: Vec<_> = keys_of_list(&part["required"]).difference(&keys(value)).cloned().collect();
            assert!(!value.is_object() || missing.is_empty(), "{place}: {missing:?} must be in {value:#}");
        }
        for (name, member) in value.as_object().into_iter().flatten() {
            let of_member: Vec<&Value> =
                parts.iter().filter_map(|part| part["properties"].get(name)).collect();
            if of_member.is_empty() {
                // A refusal has further members, as over HTTP.
                assert_eq!(value["success"], false, "{place}: {name} is not api: {value:#}");
                continue;
            }
            self.check(&of_member, member, &format!("{place}/{name}"));
        }
        let items: Vec<&Value> = parts.iter().filter_map(|part| part.get("items")).collect();
        for item in value.as_array().into_iter().flatten() {
            assert!(!items.is_empty(), "{place} is a list");
            self.check(&items, item, &format!("{place}/-"));
        }
    }
}

fn check_kind(schema: &Value, value: &Value, place: &str) {
    let kinds = match value {
        Value::Null => ["null", ""],
        Value::Bool(_) => ["boolean", ""],
        Value::Number(number) if number.is_f64() => ["number", ""],
        Value::Number(_) => ["number", "integer"],
        Value::String(_) => ["string", ""],
        Value::Array(_) => ["array", ""],
        Value::Object(_) => ["object", ""],
    };
    let wanted = &schema["type"];
    let is_one = |kind: &str| wanted == kind || keys_of_list(wanted).contains(kind);
    assert!(wanted.is_null() || kinds.into_iter().any(is_one), "{place} is {value}, not {wanted}");
    for words in [&schema["enum"], &schema["x-extensible-enum"]] {
        assert!(
            words.as_array().is_none_or(|words| words.contains(value)),
            "{place} is {value}, none of {words}"
        );
    }
    assert!(
        schema.get("const").is_none_or(|only| only == value),
        "{place} is {value}, not {}",
        schema["const"]
    );
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

fn keys_of_list(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Causes every request, reply and published message at least once.
async fn cause_all_messages(gateway: &Gateway, server: &Server) {
    let mut admin = server.admin();
    let short = admin.create_event(&with_fields(event_body(10), &json!({"holdSeconds": 1}))).await;
    let event = admin.create_event(&event_body(10)).await;
    let order =
        |event: &str| json!({"eventId": event, "userId": "user-1", "ticketQuantity": 2, "totalAmount": 90.5});
    gateway.expect_refused("booking.create", order(&event), "amount_mismatch").await;
    let order =
        |event: &str| with_fields(order(event), &json!({"totalAmount": 90.0, "paymentMethod": "card"}));
    gateway.expect("booking.create", order(&short)).await;
    let booking = id_of(&gateway.expect("booking.create", order(&event)).await);
    let mine = json!({"bookingId": booking, "userId": "user-1"});
    gateway.expect("booking.get", mine.clone()).await;
    gateway.expect("booking.list", json!({"userId": "user-1", "page": 1, "limit": 5})).await;
    let payment = json!({"bookingId": booking, "paymentTransactionId": "pay-1"});
    gateway.expect("booking.confirm-payment", payment).await;
    gateway.expect("booking.validate", json!({"bookingId": booking, "eventId": event})).await;
    gateway.expect("booking.cancel", with_fields(mine, &json!({"reason": "rain"}))).await;
    gateway.expect("booking.stats", json!({})).await;
    let refund = id_of(&server.service().refunds_of("pay-1").await[0]);
    let settled = json!({"outcome": "succeeded", "providerReference": "back-1"});
    server.service().post(&format!("/v1/refunds/{refund}/settle"), &settled).await.expect(200);
    let path = format!("/v1/events/{event}");
    admin.patch(&path, &json!({"name": "Another name"})).await.expect(200);
    admin.patch(&path, &json!({"status": "cancelled"})).await.expect(200);
}

/// Checks each message until every described one has been received. Returns the names of those received.
async fn check_messages(api: &mut AsyncApi, subscriber: &mut Subscriber) -> BTreeSet<String> {
    let (all, mut seen) = (api.all(), BTreeSet::new());
    while seen != all {
        let Ok(message) = timeout(DEADLINE, subscriber.next()).await else { break };
        let message = message.expect("the connection is open");
        let payload: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
        let Some(name) = api.name(&message, &payload) else { continue };
        let schema = &api.document["components"]["messages"][&name]["payload"];
        assert!(schema.is_object(), "{name} is not api");
        api.check(&[schema], &payload, &name);
        seen.insert(name);
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn every_described_message_is_sent_and_matches_its_schema() {
    let nats = NatsServer::start().await;
    let mut api = AsyncApi::read().await;
    let sweeping = setup(&nats).argument("--sweep-every").argument("1s");
    let server = sweeping.start().await;
    // The gateway connects before the subscription to all subjects. With it, NATS no longer reports that a
    // request has no responders.
    let gateway = Gateway::connect(&nats).await;
    let client = streams(&nats).await.client();
    let mut subscriber = client.subscribe(">").await.expect("a subscription");
    client.flush().await.expect("subscribed");
    let (seen, ()) =
        tokio::join!(check_messages(&mut api, &mut subscriber), cause_all_messages(&gateway, &server));
    assert_eq!(seen, api.all());
}

/// The README's example, unchanged except for the id.
#[tokio::test(flavor = "multi_thread")]
async fn the_readme_example_creates_a_booking() {
    let readme = include_str!("../../../../../README.md");
    let (_, example) = readme.split_once("nats request ").expect("the example is there");
    let (subject, rest) = example.split_once(" '").expect("a subject");
    let (request, _) = rest.split_once('\'').expect("a request");
    let nats = NatsServer::start().await;
    let server = setup(&nats).start().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let gateway = Gateway::connect(&nats).await;
    let request = request.replace("evt_…", &event);
    let reply = gateway.client().request(subject.to_owned(), request.into()).await.expect("a reply");
    let reply: Value = serde_json::from_slice(&reply.payload).expect("JSON");
    assert_eq!(reply["success"], true, "{reply:#}");
    assert_eq!(server.admin().counts(&event).await, (2, 0, 8));
}
