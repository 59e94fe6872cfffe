//! Hostile input: values that are known to break parsers, at every place of every body, query, path and
//! header. Every refusal must be a problem that the OpenAPI document names, and none a server error.
//!
//! The places come from bodies that have every field of the OpenAPI document, so that new fields are
//! attacked, too.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Value, json};
use testkit::{Client, RawConnection, Response, Server, event_body, id_of};

use crate::openapi::{document, names, operations};
use crate::server;

/// Placeholder in a body for a value that no JSON library would write.
const PLACEHOLDER: &str = "\"@here@\"";

/// Values in JSON notation, valid and invalid.
const VALUES: [&str; 82] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1",
    "1",
    "1.0",
    "1.5",
    "1e0",
    "1E2",
    "1e-1",
    "0.1e1",
    "00",
    "01",
    "+1",
    ".5",
    "1.",
    "0x10",
    "1_000",
    "1e",
    "1e400",
    "-1e400",
    "1e-400",
    "NaN",
    "Infinity",
    "-Infinity",
    "2147483647",
    "2147483648",
    "-2147483648",
    "4294967295",
    "4294967296",
    "9007199254740991",
    "9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
    "\"\"",
    "\" \"",
    "\"0\"",
    "\"-1\"",
    "\"null\"",
    "\"a\\u0000b\"",
    "\"\\u0000\"",
    "\"a\\nb\"",
    "\"a\\r\\nSet-Cookie: x=1\"",
    "\"\\u001b[31m\"",
    "\"\\u202egnp.exe\"",
    "\"\\u2066\\u2069\"",
    "\"\\ufeff\"",
    "\"\\uffff\"",
    "\"\\ud800\"",
    "\"\\udc00\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"\u{1f469}\u{200d}\u{1f469}\"",
    "\"e\u{301}\"",
    "\"\u{a0}\u{2003}\"",
    "\"'; DROP TABLE bookings; --\"",
    "\"' OR '1'='1\"",
    "\"../../../../etc/passwd\"",
    "\"${jndi:ldap://127.0.0.1/x}\"",
    "\"{{7*7}}\"",
    "\"%00%0d%0a\"",
    "\"%s%n%x\"",
    "\"<script>alert(1)</script>\"",
    "\"evt_01h455vb4pex5vsknk084sn02q\"",
    "\"bkg_01h455vb4pex5vsknk084sn02q\"",
    "\"tt_zzzzzzzzzzzzzzzzzzzzzzzzzz\"",
    "\"9999-12-31T23:59:59.999999999Z\"",
    "\"-009999-01-01T00:00:00Z\"",
    "\"2099-02-30T00:00:00Z\"",
    "\"2099-01-01T24:00:60+99:99\"",
    "[]",
    "[null]",
    "[[[[]]]]",
    "{}",
    "{\"\":null}",
    "{\"__proto__\":{\"a\":1}}",
    "{\"amount\":1,\"amount\":2,\"currency\":\"EUR\"}",
];

/// Long values.
fn long_values() -> [String; 8] {
    [
        "9".repeat(10_000),
        format!("0.{}1", "0".repeat(10_000)),
        format!("1e{}", "9".repeat(1_000)),
        format!("\"{}\"", "x".repeat(60_000)),
        format!("\"{}\"", "\u{1f469}".repeat(10_000)),
        format!("{}{}", "[".repeat(20_000), "]".repeat(20_000)),
        format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)),
        format!("[{}0]", "0,".repeat(20_000)),
    ]
}

/// Texts for queries and paths, where they are percent-encoded, and for headers.
const TEXTS: [&str; 33] = [
    "",
    " ",
    "0",
    "-1",
    "1.5",
    "1e3",
    "101",
    "4294967296",
    "18446744073709551616",
    "null",
    "true",
    "[]",
    "{}",
    "a\0b",
    "\0",
    "\r\nx: y",
    "\u{1b}[31m",
    "\u{202e}x",
    "\u{feff}",
    "é",
    "\u{1f469}",
    "' OR 1=1 --",
    "\"",
    "../..",
    "..%2f",
    "%",
    "%zz",
    "*",
    "evt_01h455vb4pex5vsknk084sn02q",
    "bkg_zzzzzzzzzzzzzzzzzzzzzzzzzz",
    "EVT_01H455VB4PEX5VSKNK084SN02Q",
    "pending",
    "\u{ffff}",
];

/// Percent-encodes every byte (RFC 3986, section 2.1).
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| format!("{encoded}%{byte:02X}"))
}

/// Expects no server error, and that the OpenAPI document names the code of a refusal for the operation.
#[track_caller]
fn check(document: &Value, operation: &Value, response: &Response, what: &str) {
    let status = response.status.as_u16();
    assert!(status < 500, "{what:.300}: {response:?}");
    if status < 400 {
        return;
    }
    let code = response.code();
    response.expect_problem(status, &code);
    let response = &operation["responses"][response.status.as_str()];
    let codes = &response["x-codes"];
    assert!(names(codes).contains(code.as_str()), "{code} is not described: {what:.300}");
    assert!(document["components"]["schemas"]["Problem"].is_object());
}

/// Copies of a body, each with the placeholder at another place; one is the placeholder alone.
fn places(body: &Value) -> Vec<String> {
    let mut pointers = vec![String::new()];
    collect(body, "", &mut pointers);
    let with_placeholder = |pointer: &String| {
        let mut body = body.clone();
        *body.pointer_mut(pointer).expect("a place of this body") = json!("@here@");
        body.to_string()
    };
    pointers.iter().map(with_placeholder).collect()
}

fn collect(value: &Value, at: &str, pointers: &mut Vec<String>) {
    let members = value.as_object().into_iter().flatten().map(|(name, member)| (name.clone(), member));
    let items = value.as_array().into_iter().flatten().enumerate();
    let items = items.map(|(index, item)| (index.to_string(), item));
    for (name, child) in members.chain(items).collect::<Vec<_>>() {
        let pointer = format!("{at}/{name}");
        collect(child, &pointer, pointers);
        pointers.push(pointer);
    }
}

/// The body with each field twice, with unknown fields, and as broken JSON.
fn malformed_bodies(body: &Value) -> Vec<String> {
    let text = body.to_string();
    let inner = &text[1..text.len() - 1];
    let fields = body.as_object().into_iter().flatten();
    let twice = fields.map(|(name, value)| format!("{{{inner},{}:{value}}}", json!(name)));
    let unknown = ["", "__proto__", "constructor", "ID", "a\u{0}b", "\u{202e}"];
    let unknown = unknown.iter().map(|name| format!("{{{inner},{}:1}}", json!(name)));
    let broken = [
        inner.to_owned(),
        format!("[{text}]"),
        format!("{text}{text}"),
        format!("{text},"),
        format!("\u{feff}{text}"),
        format!("/* */{text}"),
        text.replace('"', "'"),
        text[..text.len() / 2].to_owned(),
        format!("{text}\u{0}"),
    ];
    twice.chain(unknown).chain(broken).collect()
}

/// A server, with an event, a booking and a refund that requests can name.
struct Fixture {
    server: Server,
    admin: Client,
    document: Value,
    event: Value,
    booking: String,
    refund: String,
}

impl Fixture {
    async fn new() -> Self {
        let server = server().await;
        let mut admin = server.admin();
        let event = admin.post("/v1/events", &event_body(1_000_000)).await.expect(201);
        let booking = id_of(&admin.book_for("ada", &id_of(&event), 1).await.expect(201));
        admin.confirm(&booking, "pay-1").await.expect(200);
        let owed = admin.confirm(&booking, "pay-2").await.expect_problem(409, "invalid_state");
        let refund = id_of(&owed["refund"]);
        Self { server, admin, document: document().await, event, booking, refund }
    }

    fn path(&self, template: &str) -> String {
        let id = match template.split('/').nth(2) {
            Some("bookings") => self.booking.clone(),
            Some("refunds") => self.refund.clone(),
            _ => id_of(&self.event),
        };
        template.replace("{id}", &id).replace("{code}", "sold_out")
    }

    /// Valid bodies that together have every field of the operation's schema.
    fn bodies(&self, method: &str, template: &str) -> Vec<Value> {
        let price = json!({"amount": 1, "currency": "EUR"});
        let (event, kind) = (id_of(&self.event), self.event["ticketTypes"][0]["id"].clone());
        let details = json!({
            "name": "x", "venue": "x", "startsAt": "2099-06-01T18:00:00Z", "timeZone": "Europe/Berlin",
            "capacity": 1_000_000, "salesStartAt": "2020-01-01T00:00:00Z",
            "salesEndAt": "2099-01-01T00:00:00Z", "holdSeconds": 600, "cancelCutoffSeconds": 60,
            "maxTicketsPerBooking": 4, "maxTicketsPerUser": null,
        });
        let with = |body: &Value, changes: Value| {
            let mut body = body.clone();
            for (name, value) in changes.as_object().into_iter().flatten() {
                body[name] = value.clone();
            }
            body
        };
        let types = json!([{"name": "x", "price": price, "capacity": 5}]);
        let order = json!({
            "eventId": event, "userId": "ada", "expectedTotal": {"amount": 4_500, "currency": "EUR"},
            "paymentMethod": "card", "externalRef": "order 1", "metadata": {"invoice": "2026-11"},
        });
        match (method, template) {
            ("post", "/v1/events") => {
                vec![with(&details, json!({"price": price})), with(&details, json!({"ticketTypes": types}))]
            }
            ("patch", _) => vec![with(
                &details,
                json!({
                    "price": price, "status": "onSale",
                    "ticketTypes": [{"id": kind, "name": "x", "price": price, "capacity": 1_000_000}],
                }),
            )],
            ("post", "/v1/bookings") => vec![
                with(&order, json!({"ticketQuantity": 1})),
                with(&order, json!({"items": [{"ticketTypeId": kind, "quantity": 1}]})),
            ],
            ("post", "/v1/bookings/{id}/confirm") => {
                vec![json!({"paymentTransactionId": "pay-1", "amount": {"amount": 4_500, "currency": "EUR"}})]
            }
            ("post", "/v1/bookings/{id}/cancel") => vec![json!({"reason": "ill"})],
            ("post", "/v1/refunds/{id}/settle") => {
                vec![json!({"outcome": "failed", "providerReference": "out-1"})]
            }
            _ => panic!("no body for {method} {template}"),
        }
    }

    /// Expects a running server, a log without errors and a clean audit.
    async fn expect_healthy(mut self) {
        self.admin.get("/v1/events").await.expect(200);
        assert!(self.server.is_running());
        let mut log = self.server.log().all();
        log.retain(|line| line.contains("ERROR") || line.contains("panicked"));
        assert_eq!(log, [] as [String; 0]);
        self.server.expect_clean().await;
    }
}

async fn attack_body(method: &str, template: &str) {
    let mut fixture = Fixture::new().await;
    let document = fixture.document.clone();
    let operation = &document["paths"][template][method];
    let reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str();
    let schema = document.pointer(&reference.expect("a named schema")[1..]).expect("a schema");
    let bodies = fixture.bodies(method, template);
    let fields: BTreeSet<&str> = bodies.iter().flat_map(names).collect();
    assert_eq!(fields, names(&schema["properties"]), "{method} {template}: every field is attacked");

    let (long, path) = (long_values(), fixture.path(template));
    let values = VALUES.into_iter().chain(long.iter().map(String::as_str));
    let templates: Vec<String> = bodies.iter().flat_map(places).collect();
    let corrupted = templates
        .iter()
        .flat_map(|template_body| values.clone().map(|value| template_body.replace(PLACEHOLDER, value)));
    let http_method: Method = method.to_uppercase().parse().expect("a method");
    for body in corrupted.chain(bodies.iter().flat_map(malformed_bodies)) {
        let headers = [("content-type", "application/json")];
        let response = fixture.admin.request_with(http_method.clone(), &path, &headers, body.clone()).await;
        check(&document, operation, &response, &format!("{method} {path} {body}"));
    }
    fixture.expect_healthy().await;
}

#[tokio::test]
async fn hostile_values_in_event_body() {
    attack_body("post", "/v1/events").await;
}

#[tokio::test]
async fn hostile_values_in_edit_body() {
    attack_body("patch", "/v1/events/{id}").await;
}

#[tokio::test]
async fn hostile_values_in_booking_body() {
    attack_body("post", "/v1/bookings").await;
}

#[tokio::test]
async fn hostile_values_in_payment_body() {
    attack_body("post", "/v1/bookings/{id}/confirm").await;
}

#[tokio::test]
async fn hostile_values_in_cancellation_body() {
    attack_body("post", "/v1/bookings/{id}/cancel").await;
}

#[tokio::test]
async fn hostile_values_in_settlement_body() {
    attack_body("post", "/v1/refunds/{id}/settle").await;
}

/// The tests above cover every operation with a body.
#[tokio::test]
async fn every_operation_with_a_body_is_attacked() {
    let document = document().await;
    let bodies =
        operations(&document).into_iter().filter(|(.., operation)| operation["requestBody"].is_object());
    assert_eq!(bodies.count(), 6);
}

#[tokio::test]
async fn hostile_values_in_every_query_and_path() {
    let mut fixture = Fixture::new().await;
    let document = fixture.document.clone();
    for (method, template, operation) in operations(&document) {
        if template.ends_with("/stream") {
            continue;
        }
        let http_method: Method = method.to_uppercase().parse().expect("a method");
        let mut targets = Vec::new();
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let query = parameters.filter(|parameter| parameter["in"] == "query");
        for name in query.filter_map(|parameter| parameter["name"].as_str()).chain(["unknown"]) {
            let path = fixture.path(template);
            targets.extend(TEXTS.iter().map(|text| format!("{path}?{name}={}", encode(text))));
            targets.push(format!("{path}?{name}"));
            targets.push(format!("{path}?{name}=1&{name}=1"));
            targets.push(format!("{path}?{name}=%ff&%00=%&&=&{name}[]=1;{name}=2"));
            targets.push(format!("{path}?{name}={}", "9".repeat(8_000)));
        }
        if let Some((before, after)) = template.split_once('{') {
            let after = after.split_once('}').map_or("", |(_, after)| after);
            let texts = TEXTS.iter().filter(|text| !text.is_empty());
            targets.extend(texts.map(|text| format!("{before}{}{after}", encode(text))));
            targets.push(format!("{before}%ff%fe{after}"));
            targets.push(format!("{before}{}{after}", "x".repeat(8_000)));
        }
        for target in targets {
            let headers = [("content-type", "application/json")];
            let body =
                operation["requestBody"].is_object().then(|| fixture.bodies(method, template)[0].to_string());
            let response = fixture
                .admin
                .request_with(http_method.clone(), &target, &headers, body.unwrap_or_default())
                .await;
            check(&document, operation, &response, &format!("{method} {target}"));
        }
    }
    fixture.expect_healthy().await;
}

/// A header field may have any text; control characters make the head invalid and end the connection.
#[tokio::test]
async fn hostile_values_in_every_header() {
    let mut fixture = Fixture::new().await;
    let document = fixture.document.clone();
    let token = fixture.server.tokens().admin();
    let (path, template) = (format!("/v1/events/{}", id_of(&fixture.event)), "/v1/events/{id}");
    let fields = [
        "idempotency-key",
        "if-match",
        "x-request-id",
        "content-type",
        "accept",
        "authorization",
        "x-forwarded-for",
        "range",
        "accept-encoding",
        "content-encoding",
        "if-none-match",
        "origin",
        "cookie",
        "traceparent",
    ];
    for field in fields {
        for text in TEXTS {
            let written = text.replace(char::is_control, " ");
            let mut raw = RawConnection::open(fixture.server.address()).await;
            let mut head =
                format!("PATCH {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n");
            for (name, value) in
                [("authorization", format!("Bearer {token}")), ("content-type", "application/json".into())]
            {
                if name != field {
                    head = format!("{head}{name}: {value}\r\n");
                }
            }
            raw.write(format!("{head}{field}: {written}\r\n\r\n{{}}")).await;
            let response =
                raw.read_response().await.unwrap_or_else(|| panic!("no response to {field}: {written:?}"));
            check(
                &document,
                &document["paths"][template]["patch"],
                &response,
                &format!("{field}: {written:?}"),
            );
        }
    }
    for bytes in ["\0", "\r", "\n", "\u{1b}"] {
        let mut raw = RawConnection::open(fixture.server.address()).await;
        raw.write(format!("GET /v1/events HTTP/1.1\r\nhost: x\r\nx-request-id: a{bytes}b\r\n\r\n")).await;
        if let Some(response) = raw.read_response().await {
            assert_eq!(response.status, 400, "{bytes:?}: {response:?}");
        }
    }
    fixture.admin.get(&path).await.expect(200);
    fixture.expect_healthy().await;
}
