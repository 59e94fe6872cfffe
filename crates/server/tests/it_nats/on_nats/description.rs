//! What goes over NATS is what `boxoffice asyncapi` and the README say: all of it, and nothing else.

use std::collections::{BTreeSet, HashMap};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use testkit::{DEADLINE, NatsServer, Server, event_body, id_of, with_fields};
use tokio::time::timeout;

use super::gateway::Gateway;
use crate::listener::streams;
use crate::{program, setup};

/// The description, and what was asked and not answered yet.
struct Described {
    document: Value,
    /// The name of a reply, by the subject that it goes to.
    replies: HashMap<String, String>,
}

impl Described {
    async fn read() -> Self {
        let printed = program().run(["asyncapi"]).await;
        let document = serde_json::from_str(&printed.stdout).expect("JSON");
        Self { document, replies: HashMap::new() }
    }

    fn all(&self) -> BTreeSet<String> {
        keys(&self.document["components"]["messages"])
    }

    /// The name under which a message is described; none for what instances and NATS say among themselves.
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
        let channel = channels.values().find(fits).unwrap_or_else(|| panic!("{subject} is not described"));
        let names = keys(&channel["messages"]);
        let kind = payload["type"].as_str().map(str::to_owned);
        let name = kind.filter(|_| names.len() > 1).or_else(|| names.first().cloned()).expect("a name");
        assert!(names.contains(&name), "{name} is not described on {subject}");
        // The relay, too, wants an answer: the server's, that a message is on the stream.
        if let Some(inbox) =
            message.reply.as_ref().filter(|_| self.document["operations"][&name]["reply"].is_object())
        {
            self.replies.insert(inbox.to_string(), format!("{name}-reply"));
        }
        Some(name)
    }

    /// A schema and all that it refers to or is composed of.
    fn parts<'a>(&'a self, schema: &'a Value) -> Vec<&'a Value> {
        let target =
            schema["$ref"].as_str().map(|target| self.document.pointer(&target[1..]).expect("it is there"));
        let more = schema["allOf"].as_array().into_iter().flatten().chain(target);
        std::iter::once(schema).chain(more.flat_map(|part| self.parts(part))).collect()
    }

    /// Compares a message with the schemas that describe it, into its depths.
    fn check(&self, schemas: &[&Value], shown: &Value, place: &str) {
        let parts: Vec<&Value> = schemas.iter().flat_map(|schema| self.parts(schema)).collect();
        for part in &parts {
            check_kind(part, shown, place);
            let missing: Vec<_> = keys_of_list(&part["required"]).difference(&keys(shown)).cloned().collect();
            assert!(!shown.is_object() || missing.is_empty(), "{place}: {missing:?} must be in {shown:#}");
        }
        for (name, member) in shown.as_object().into_iter().flatten() {
            let of_member: Vec<&Value> =
                parts.iter().filter_map(|part| part["properties"].get(name)).collect();
            if of_member.is_empty() {
                // A refusal says more, as over HTTP.
                assert_eq!(shown["success"], false, "{place}: {name} is not described: {shown:#}");
                continue;
            }
            self.check(&of_member, member, &format!("{place}/{name}"));
        }
        let items: Vec<&Value> = parts.iter().filter_map(|part| part.get("items")).collect();
        for item in shown.as_array().into_iter().flatten() {
            assert!(!items.is_empty(), "{place} is a list");
            self.check(&items, item, &format!("{place}/-"));
        }
    }
}

fn check_kind(schema: &Value, shown: &Value, place: &str) {
    let kinds = match shown {
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
    assert!(wanted.is_null() || kinds.into_iter().any(is_one), "{place} is {shown}, not {wanted}");
    for words in [&schema["enum"], &schema["x-extensible-enum"]] {
        assert!(
            words.as_array().is_none_or(|words| words.contains(shown)),
            "{place} is {shown}, none of {words}"
        );
    }
    assert!(
        schema.get("const").is_none_or(|only| only == shown),
        "{place} is {shown}, not {}",
        schema["const"]
    );
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

fn keys_of_list(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Everything that there is to ask and to tell, once at least.
async fn live(gateway: &Gateway, server: &Server) {
    let mut admin = server.admin();
    let brief = admin.create_event(&with_fields(event_body(10), &json!({"holdSeconds": 1}))).await;
    let event = admin.create_event(&event_body(10)).await;
    let order =
        |event: &str| json!({"eventId": event, "userId": "user-1", "ticketQuantity": 2, "totalAmount": 90.5});
    gateway.refused("booking.create", order(&event), "amount_mismatch").await;
    let order =
        |event: &str| with_fields(order(event), &json!({"totalAmount": 90.0, "paymentMethod": "card"}));
    gateway.expect("booking.create", order(&brief)).await;
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

/// Looks at whatever comes until every message that is described has come.
async fn compare(described: &mut Described, listener: &mut Subscriber) -> BTreeSet<String> {
    let (all, mut seen) = (described.all(), BTreeSet::new());
    while seen != all {
        let Ok(message) = timeout(DEADLINE, listener.next()).await else { break };
        let message = message.expect("the connection stands");
        let payload: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
        let Some(name) = described.name(&message, &payload) else { continue };
        let schema = &described.document["components"]["messages"][&name]["payload"];
        assert!(schema.is_object(), "{name} is not described");
        described.check(&[schema], &payload, &name);
        seen.insert(name);
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn every_described_message_is_sent_and_matches_its_schema() {
    let nats = NatsServer::start().await;
    let mut described = Described::read().await;
    let sweeping = setup(&nats).argument("--sweep-every").argument("1s");
    let server = sweeping.start().await;
    // Before anybody listens to everything: who asks too early is told so only where nobody does.
    let gateway = Gateway::connect(&nats).await;
    let client = streams(&nats).await.client();
    let mut listener = client.subscribe(">").await.expect("a subscription");
    client.flush().await.expect("subscribed");
    let (seen, ()) = tokio::join!(compare(&mut described, &mut listener), live(&gateway, &server));
    assert_eq!(seen, described.all());
}

/// The README's example, as it stands there but for the id.
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
