//! The description of the NATS interface (AsyncAPI 3). A request, message or subject that is missing here
//! fails a test or does not compile.

use api::message;
use api::wire::{As, BookingView, EntryView, MetadataField, MoneyView, StatsView};
use domain::{BookingId, EntryKind, EventId, ExternalRef, Note, Timestamp, TransactionId, UserId};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::subject::{LEDGERS, QUEUE_GROUP, REQUESTS, Request, STREAM, notification_subject};

const DESCRIPTION: &str = "\
Requests, each handled by exactly one instance, and messages: every entry of every ledger is published to a \
JetStream stream, once and in order per event, as a CloudEvent 1.0 (structured mode, JSON). Unknown fields \
of a request are ignored. The header `traceparent` of a request is propagated to everything that the request \
causes. A request is dropped, without a reply and without being executed, once its `timestamp` is older than \
15 seconds or the instant in its header `Deadline` has passed. A `messageId` that is a UUID is an \
idempotency key.";

/// Returns the document as JSON text.
pub fn text() -> String {
    format!("{:#}", document())
}

fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut schemas = settings.for_serialize().into_generator();
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for (request, subject) in REQUESTS {
        let name = subject.replace('.', "-");
        messages.insert(
            name.clone(),
            json!({"name": name, "contentType": "application/json",
            "payload": request_schema(request, &mut schemas)}),
        );
        let reply = format!("{name}-reply");
        messages.insert(
            reply.clone(),
            json!({"name": reply, "contentType": "application/json",
            "payload": reply_schema(request, &mut schemas)}),
        );
        channels.insert(name.clone(), channel(subject, [&name]));
        channels.insert(reply.clone(), channel_without_address([&reply]));
        operations.insert(
            name.clone(),
            json!({
                "action": "receive", "channel": {"$ref": format!("#/channels/{name}")},
                "bindings": {"nats": {"queue": QUEUE_GROUP}},
                "reply": {"address": {"location": "$message.header#/replyTo"},
                    "channel": {"$ref": format!("#/channels/{reply}")}},
            }),
        );
    }
    for kind in EntryKind::ALL.iter().copied() {
        messages.insert(kind.as_str().to_owned(), ledger_message(kind, &mut schemas));
    }
    let mut ledger =
        channel(&LEDGERS.replace('*', "{eventId}"), EntryKind::ALL.iter().map(|kind| kind.as_str()));
    ledger["parameters"] = json!({"eventId": {"description": "The event of the ledger."}});
    ledger["description"] = json!(format!(
        "On the stream {STREAM}; `Nats-Msg-Id` is the id of the message. Later versions may add types."
    ));
    channels.insert("ledger".to_owned(), ledger);
    operations
        .insert("ledger".to_owned(), json!({"action": "send", "channel": {"$ref": "#/channels/ledger"}}));
    for subject in EntryKind::ALL.iter().copied().filter_map(notification_subject) {
        let name = subject.replace('.', "-");
        let payload = notification_schema(&mut schemas);
        let message = json!({"name": name, "contentType": "application/json", "payload": payload,
            "summary": "Best effort, at most once. Consumers that need every change read the stream."});
        messages.insert(name.clone(), message);
        channels.insert(name.clone(), channel(subject, [&name]));
        let operation = json!({"action": "send", "channel": {"$ref": format!("#/channels/{name}")}});
        operations.insert(name, operation);
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {"title": "boxoffice", "version": env!("CARGO_PKG_VERSION"), "description": DESCRIPTION,
            "license": {"name": "Apache-2.0 OR MIT"}},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas.take_definitions(true)},
    })
}

fn channel<N: AsRef<str>>(address: &str, messages: impl IntoIterator<Item = N>) -> Value {
    let mut channel = channel_without_address(messages);
    channel["address"] = json!(address);
    channel
}

fn channel_without_address<N: AsRef<str>>(messages: impl IntoIterator<Item = N>) -> Value {
    let message = |name: N| {
        let name = name.as_ref();
        (name.to_owned(), json!({"$ref": format!("#/components/messages/{name}")}))
    };
    let messages: Map<String, Value> = messages.into_iter().map(message).collect();
    json!({"address": null, "messages": messages})
}

fn schema<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    schemas.subschema_for::<T>().into()
}

/// Returns the schema of a request.
fn request_schema(request: Request, schemas: &mut SchemaGenerator) -> Value {
    let count = json!({"type": "integer", "minimum": 1});
    let decimal =
        json!({"type": ["number", "string"], "description": "In major units; read digit by digit."});
    let (booking, event) = (schema::<As<BookingId>>(schemas), schema::<As<EventId>>(schemas));
    let (user, note) = (schema::<As<UserId>>(schemas), schema::<As<Note>>(schemas));
    let (required, mut fields) = match request {
        Request::Create => (
            vec!["eventId", "userId", "ticketQuantity"],
            json!({"eventId": event, "userId": user, "ticketQuantity": count, "totalAmount": decimal,
                "paymentMethod": note, "externalRef": schema::<As<ExternalRef>>(schemas),
                "metadata": schema::<MetadataField>(schemas)}),
        ),
        Request::Cancel => {
            (vec!["bookingId", "userId"], json!({"bookingId": booking, "userId": user, "reason": note}))
        }
        Request::Get => (vec!["bookingId"], json!({"bookingId": booking, "userId": user})),
        Request::List => (
            vec![],
            json!({"userId": user, "eventId": event, "page": count, "limit": count,
                "status": {"enum": ["pending", "confirmed", "cancelled", "expired"]}}),
        ),
        Request::Validate => (vec!["bookingId", "eventId"], json!({"bookingId": booking, "eventId": event})),
        Request::ConfirmPayment => {
            let transaction = schema::<As<TransactionId>>(schemas);
            let fields = json!({"bookingId": booking, "paymentTransactionId": transaction});
            (vec!["bookingId", "paymentTransactionId"], fields)
        }
        Request::Stats => (vec![], json!({})),
    };
    fields["messageId"] = json!({"type": ["string", "number"]});
    fields["timestamp"] = json!({"type": ["string", "number"], "description": "RFC 3339, or milliseconds."});
    json!({"type": "object", "required": required, "properties": fields})
}

/// Returns the schema of a reply.
fn reply_schema(request: Request, schemas: &mut SchemaGenerator) -> Value {
    let booking = json!({"allOf": [schema::<BookingView<'_>>(schemas), {"properties": {
        "_id": schema::<As<BookingId>>(schemas), "bookingDate": schema::<As<Timestamp>>(schemas),
        "totalAmount": {"type": "number"}}}]});
    let bookings = json!({"type": "array", "items": booking});
    let (text, truth) = (json!({"type": "string"}), json!({"type": "boolean"}));
    // Members that the MongoDB booking service also has next to `success`, outside `data`.
    let (data, top_level) = match request {
        Request::Create | Request::Cancel | Request::Get | Request::ConfirmPayment => (booking, json!({})),
        Request::List => {
            let count = json!({"type": "integer", "minimum": 0});
            let pagination = json!({"type": "object", "properties": {"page": count, "limit": count,
                "total": count, "pages": count}});
            let data = json!({"type": "object", "properties": {"bookings": bookings}});
            (data, json!({"bookings": bookings, "pagination": pagination}))
        }
        Request::Validate => {
            let data = json!({"type": "object", "properties": {"valid": truth, "booking": booking}});
            let top_level = json!({"valid": truth, "booking": booking,
                "messageId": {"type": ["string", "number", "null"]},
                "timestamp": schema::<As<Timestamp>>(schemas)});
            (data, top_level)
        }
        Request::Stats => (schema::<StatsView>(schemas), json!({})),
    };
    let mut fields = json!({
        "success": truth, "data": data, "message": text, "correlationId": {"type": ["string", "number"]},
        "error": text, "code": {"type": "string", "description": "The code of a problem, as over HTTP."}});
    for (name, field) in top_level.as_object().into_iter().flatten() {
        fields[name] = field.clone();
    }
    json!({"type": "object", "required": ["success"], "properties": fields})
}

/// Returns a message of the stream.
fn ledger_message(kind: EntryKind, schemas: &mut SchemaGenerator) -> Value {
    let text = json!({"type": "string"});
    let entry = schema::<EntryView<'_>>(schemas);
    let more = json!({"required": ["eventId"], "properties": {
        "eventId": schema::<As<EventId>>(schemas), "userId": text, "total": schema::<MoneyView>(schemas),
        "externalRef": text, "paymentTransactionId": text, "reason": text}});
    json!({"name": kind.as_str(), "contentType": message::CONTENT_TYPE, "payload": {
        "type": "object", "required": ["specversion", "id", "source", "type", "time", "data"],
        "properties": {"specversion": {"const": "1.0"}, "id": text, "source": text, "subject": text,
            "type": {"const": kind.as_str()}, "time": schema::<As<Timestamp>>(schemas),
            "datacontenttype": {"const": "application/json"}, "traceparent": text,
            "data": {"allOf": [entry, more]}}}})
}

fn notification_schema(schemas: &mut SchemaGenerator) -> Value {
    json!({"type": "object",
        "required": ["bookingId", "eventId", "userId", "ticketQuantity", "totalAmount", "timestamp"],
        "properties": {
        "bookingId": schema::<As<BookingId>>(schemas), "eventId": schema::<As<EventId>>(schemas),
        "userId": schema::<As<UserId>>(schemas), "ticketQuantity": {"type": "integer"},
        "totalAmount": {"type": "number"}, "reason": {"type": "string"},
        "timestamp": schema::<As<Timestamp>>(schemas)}})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_names_every_subject_and_message_and_all_references_resolve() {
        let document = document();
        let channels = document["channels"].as_object().unwrap().values();
        let addresses: BTreeSet<&str> = channels.filter_map(|channel| channel["address"].as_str()).collect();
        let mut expected: BTreeSet<&str> = REQUESTS.iter().map(|(_, subject)| *subject).collect();
        expected.extend(["boxoffice.ledger.{eventId}", "event.booking.created", "event.booking.cancelled"]);
        expected.insert("notification.booking-confirmation");
        assert_eq!(addresses, expected);

        // The kinds come from the schema of the ledger, so that a new kind without a message fails this test.
        let schema = document["components"]["schemas"]["LedgerEntry"]["properties"]["type"].clone();
        let listed = schema["x-extensible-enum"].as_array();
        let kinds: BTreeSet<&str> = listed.unwrap().iter().filter_map(Value::as_str).collect();
        let messages = document["channels"]["ledger"]["messages"].as_object().unwrap();
        assert_eq!(messages.keys().map(String::as_str).collect::<BTreeSet<_>>(), kinds);

        let text = document.to_string();
        for reference in text.split(r##""$ref":"#"##).skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
