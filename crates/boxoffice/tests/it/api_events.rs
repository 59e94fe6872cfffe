//! Creating, reading and editing events.

use hyper::Method;
use serde_json::{Value, json};
use testkit::{Client, Response, event_body, id_of, with_fields};

use crate::server;

fn names(object: &Value) -> Vec<&str> {
    object.as_object().map(|fields| fields.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[tokio::test]
async fn an_event_is_returned_with_all_submitted_fields() {
    let server = server().await;
    let price = |amount: u32| json!({"amount": amount, "currency": "JPY"});
    let body = json!({
        "name": "Fête", "venue": "Halle 7 – Süd", "startsAt": "2099-06-01T20:00:00+02:00",
        "timeZone": "Europe/Berlin", "capacity": 100,
        "ticketTypes": [
            {"name": "standing", "price": price(0)}, {"name": "VIP", "price": price(9_000), "capacity": 10},
        ],
        "salesStartAt": "2020-01-01T00:00:00Z", "salesEndAt": "2099-05-01T00:00:00Z",
        "holdSeconds": 600, "cancelCutoffSeconds": 60, "maxTicketsPerBooking": 4, "maxTicketsPerUser": 6,
    });
    let response = server.admin().post("/v1/events", &body).await;
    let event = response.expect(201);
    assert_eq!(response.header("location"), format!("/v1/events/{}", id_of(&event)));
    assert_eq!(response.header("etag"), "\"1\"");
    for (name, value) in body.as_object().unwrap() {
        match name.as_str() {
            "ticketTypes" => {}
            "startsAt" => assert_eq!(event[name], "2099-06-01T18:00:00Z"),
            _ => assert_eq!(event[name], *value, "{name}"),
        }
    }
    let fields: Vec<&str> = names(&event);
    let more = ["id", "status", "held", "sold", "available", "version", "createdAt", "updatedAt"];
    assert_eq!(fields.len(), body.as_object().unwrap().len() + more.len(), "{fields:?}");
    assert!(more.iter().all(|name| fields.contains(name)), "{fields:?}");
    assert!(id_of(&event).starts_with("evt_"));
    assert_eq!(event["status"], "onSale");
    assert_eq!((&event["held"], &event["sold"], &event["available"]), (&json!(0), &json!(0), &json!(100)));
    let types = event["ticketTypes"].as_array().unwrap();
    for (kind, (name, capacity, amount)) in types.iter().zip([("standing", 100, 0), ("VIP", 10, 9_000)]) {
        assert_eq!(names(kind), ["available", "capacity", "held", "id", "name", "price", "sold"]);
        assert!(id_of(kind).starts_with("tt_"));
        assert_eq!((&kind["name"], &kind["capacity"]), (&json!(name), &json!(capacity)));
        assert_eq!((&kind["available"], &kind["price"]), (&json!(capacity), &price(amount)));
    }
    let read = server.anonymous().get(&format!("/v1/events/{}", id_of(&event))).await;
    assert_eq!((read.header("etag"), read.expect(200)), ("\"1\"", event));
}

#[tokio::test]
async fn missing_event_fields_have_defaults() {
    let server = server().await;
    let event = server.admin().post("/v1/events", &event_body(5)).await.expect(201);
    assert_eq!(event["holdSeconds"], 3_600);
    assert_eq!(event["cancelCutoffSeconds"], 86_400);
    assert_eq!(event["maxTicketsPerBooking"], 10);
    assert_eq!(event["price"], json!({"amount": 4_500, "currency": "EUR"}));
    assert_eq!(event["ticketTypes"].as_array().unwrap().len(), 1);
    for absent in ["timeZone", "salesStartAt", "salesEndAt", "maxTicketsPerUser"] {
        assert!(event.get(absent).is_none(), "{absent}");
    }
}

#[tokio::test]
async fn the_defaults_are_configurable() {
    let setup = testkit::Setup::new(crate::program());
    let server =
        setup.argument("--hold").argument("15m").environment("BOXOFFICE_CANCEL_CUTOFF", "2h").start().await;
    let event = server.admin().post("/v1/events", &event_body(5)).await.expect(201);
    assert_eq!((&event["holdSeconds"], &event["cancelCutoffSeconds"]), (&json!(900), &json!(7_200)));
}

fn money(amount: i64, currency: &str) -> Value {
    json!({"amount": amount, "currency": currency})
}

fn many_ticket_types() -> Vec<Value> {
    vec![json!({"name": "x", "price": money(1, "EUR")}); 51]
}

/// Invalid changes to an event's body, each with the JSON pointer that the response must name.
fn wrong_events() -> Vec<(Value, &'static str)> {
    let types = |change: Value| {
        let kind = json!({"name": "VIP", "price": money(1, "EUR")});
        json!({"price": null, "ticketTypes": [kind.clone(), with_fields(kind, &change)]})
    };
    vec![
        (json!({"name": ""}), "/name"),
        (json!({"name": "   "}), "/name"),
        (json!({"name": "x".repeat(201)}), "/name"),
        (json!({"name": "a\u{0}b"}), "/name"),
        (json!({"name": 7}), "/name"),
        (json!({"venue": "a\nb"}), "/venue"),
        (json!({"startsAt": "2020-01-01T00:00:00Z"}), "/startsAt"),
        (json!({"startsAt": "tomorrow"}), "/startsAt"),
        (json!({"startsAt": 4_102_444_800_u64}), "/startsAt"),
        (json!({"timeZone": "Mars/Olympus"}), "/timeZone"),
        (json!({"capacity": 0}), "/capacity"),
        (json!({"capacity": -1}), "/capacity"),
        (json!({"capacity": 1_000_000_001}), "/capacity"),
        (json!({"capacity": 99_999_999_999_u64}), "/capacity"),
        (json!({"capacity": 1.5}), "/capacity"),
        (json!({"capacity": "10"}), "/capacity"),
        (json!({"capacity": [10]}), "/capacity"),
        (json!({"price": money(-1, "EUR")}), "/price"),
        (json!({"price": money(1, "eur")}), "/price/currency"),
        (json!({"price": money(1, "XYZ")}), "/price/currency"),
        (json!({"price": {"amount": 1.5, "currency": "EUR"}}), "/price/amount"),
        (json!({"price": {"amount": 1}}), "/price"),
        (json!({"price": {"amount": 1, "currency": "EUR", "vat": 1}}), "/price/vat"),
        (json!({"price": 45}), "/price"),
        (json!({"price": [4_500, "EUR"]}), "/price"),
        (types(json!({"name": ""})), "/ticketTypes/1/name"),
        (types(json!({"capacity": 0})), "/ticketTypes/1/capacity"),
        (types(json!({"price": money(1, "USD")})), "/ticketTypes/1/price/currency"),
        (types(json!({"price": money(1_000_000_000_001, "EUR")})), "/ticketTypes/1/price/amount"),
        (types(json!({"price": null})), "/ticketTypes/1"),
        (types(json!({"id": "tt_01h455vb4pex5vsknk084sn02q"})), "/ticketTypes/1/id"),
        (json!({"price": null, "ticketTypes": [["VIP", money(1, "EUR"), 5]]}), "/ticketTypes/0"),
        (json!({"price": null, "ticketTypes": many_ticket_types()}), "/ticketTypes"),
        (json!({"price": null, "ticketTypes": []}), "/ticketTypes"),
        (json!({"price": null, "ticketTypes": {}}), "/ticketTypes"),
        (json!({"ticketTypes": [{"name": "x", "price": money(1, "EUR")}]}), ""),
        (json!({"price": null}), ""),
        (
            json!({"salesStartAt": "2099-01-02T00:00:00Z", "salesEndAt": "2099-01-01T00:00:00Z"}),
            "/salesEndAt",
        ),
        (json!({"holdSeconds": 0}), "/holdSeconds"),
        (json!({"holdSeconds": 2_592_001}), "/holdSeconds"),
        (json!({"cancelCutoffSeconds": -1}), "/cancelCutoffSeconds"),
        (json!({"maxTicketsPerBooking": 0}), "/maxTicketsPerBooking"),
        (json!({"maxTicketsPerUser": 0}), "/maxTicketsPerUser"),
        (json!({"status": "paused"}), "/status"),
        (json!({"held": 1}), "/held"),
        (json!({"id": "evt_01h455vb4pex5vsknk084sn02q"}), "/id"),
    ]
}

#[tokio::test]
async fn invalid_events_are_refused_with_a_pointer() {
    let server = server().await;
    let mut admin = server.admin();
    for (change, pointer) in wrong_events() {
        let response = admin.post("/v1/events", &with_fields(event_body(10), &change)).await;
        assert_eq!(response.expect_invalid(), [pointer], "{change}: {response:?}");
    }
    for missing in ["name", "venue", "startsAt", "capacity"] {
        let response = admin.post("/v1/events", &with_fields(event_body(10), &json!({missing: null}))).await;
        assert_eq!(response.expect_invalid(), [""], "{missing}");
        assert!(response.json()["detail"].as_str().unwrap().contains(missing), "{response:?}");
    }
    let limits = [
        json!({"capacity": 1, "name": "x".repeat(200), "venue": "👩".repeat(200), "holdSeconds": 1}),
        json!({
            "capacity": 1_000_000_000, "holdSeconds": 2_592_000,
            "price": money(1_000_000_000_000, "EUR"),
        }),
        json!({"price": null, "ticketTypes": many_ticket_types()[..50]}),
    ];
    for change in limits {
        admin.post("/v1/events", &with_fields(event_body(10), &change)).await.expect(201);
    }
    let two = admin.post("/v1/events", &with_fields(event_body(0), &json!({"holdSeconds": 0}))).await;
    assert_eq!(two.expect_invalid(), ["/capacity", "/holdSeconds"], "all errors are reported at once");
}

async fn patch_if(client: &mut Client, path: &str, tag: &str, body: &Value) -> Response {
    let headers = [("content-type", "application/json"), ("if-match", tag)];
    client.request_with(Method::PATCH, path, &headers, body.to_string()).await
}

#[tokio::test]
async fn if_match_refuses_edits_of_another_version() {
    let server = server().await;
    let mut admin = server.admin();
    let path = format!("/v1/events/{}", admin.create_event(&event_body(10)).await);
    let first = patch_if(&mut admin, &path, "\"1\"", &json!({"venue": "Hall 1"})).await;
    assert_eq!((first.header("etag"), &first.expect(200)["version"]), ("\"2\"", &json!(2)));
    for stale in ["\"1\"", "\"3\"", "W/\"2\"", "\"x\"", "2", "\"\""] {
        let late = patch_if(&mut admin, &path, stale, &json!({"venue": "Hall 2"})).await;
        late.expect_problem(412, "version_mismatch");
    }
    for several in ["\"2\", \"3\"", "\"2\",\"2\""] {
        let list = patch_if(&mut admin, &path, several, &json!({"venue": "Hall 2"})).await;
        list.expect_problem(400, "malformed_request");
    }
    patch_if(&mut admin, &path, "\"2\"", &json!({"venue": "Hall 3"})).await.expect(200);
    patch_if(&mut admin, &path, "*", &json!({"venue": "Hall 4"})).await.expect(200);
    let current = admin.get(&path).await;
    assert_eq!((current.header("etag"), &current.expect(200)["venue"]), ("\"4\"", &json!("Hall 4")));
}

#[tokio::test]
async fn sales_do_not_change_the_version() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(10)).await;
    server.user("ada").book(&event, 2).await.expect(201);
    let current = admin.get(&format!("/v1/events/{event}")).await;
    assert_eq!(current.header("etag"), "\"1\"");
    let current = current.expect(200);
    assert_eq!((&current["held"], &current["available"]), (&json!(2), &json!(8)));
    let same = admin.patch(&format!("/v1/events/{event}"), &json!({"capacity": 10})).await.expect(200);
    assert_eq!(same["version"], 1, "an edit without a change keeps the version");
}

#[tokio::test]
async fn an_edit_changes_named_fields_and_unsets_null_fields() {
    let server = server().await;
    let mut admin = server.admin();
    let body = with_fields(event_body(10), &json!({"timeZone": "Europe/Berlin", "maxTicketsPerUser": 4}));
    let path = format!("/v1/events/{}", admin.create_event(&body).await);
    let change = json!({
        "name": "Other", "venue": "Elsewhere", "startsAt": "2098-01-01T00:00:00Z", "capacity": 20,
        "salesStartAt": "2030-01-01T00:00:00Z", "salesEndAt": "2031-01-01T00:00:00Z", "holdSeconds": 60,
        "cancelCutoffSeconds": 0, "maxTicketsPerBooking": 5, "maxTicketsPerUser": 5, "status": "paused",
        "price": {"amount": 1, "currency": "EUR"},
    });
    let after = admin.patch(&path, &change).await.expect(200);
    for (name, value) in change.as_object().unwrap() {
        assert_eq!(after[name], *value, "{name}");
    }
    assert_eq!(after["timeZone"], "Europe/Berlin");
    for name in ["timeZone", "salesStartAt", "salesEndAt", "maxTicketsPerUser"] {
        let after = admin.patch(&path, &json!({name: Value::Null})).await.expect(200);
        assert!(after.get(name).is_none(), "{name}: {after}");
    }
}

#[tokio::test]
async fn invalid_edits_are_refused_with_a_pointer() {
    let server = server().await;
    let mut admin = server.admin();
    let body = with_fields(event_body(10), &json!({"maxTicketsPerUser": 4}));
    let path = format!("/v1/events/{}", admin.create_event(&body).await);
    let refused = [
        (json!({"capacity": 0}), "/capacity"),
        (json!({"startsAt": "2020-01-01T00:00:00Z"}), "/startsAt"),
        (json!({"maxTicketsPerUser": 3}), "/maxTicketsPerUser"),
        (json!({"status": "sold"}), "/status"),
        (json!({"status": 1}), "/status"),
        (json!({"version": 9}), "/version"),
        (json!({"price": {"amount": 1, "currency": "USD"}}), "/price/currency"),
        (json!({"ticketTypes": [{"id": "tt_01h455vb4pex5vsknk084sn02q"}]}), "/ticketTypes/0/id"),
        (json!({"ticketTypes": [{"name": "x"}]}), "/ticketTypes/0"),
        (json!({"ticketTypes": [{"id": "nonsense"}]}), "/ticketTypes/0/id"),
    ];
    for (change, pointer) in refused {
        let response = admin.patch(&path, &change).await;
        assert_eq!(response.expect_invalid(), [pointer], "{change}: {response:?}");
    }
    let unlimited = format!("/v1/events/{}", admin.create_event(&event_body(10)).await);
    let late = admin.patch(&unlimited, &json!({"maxTicketsPerUser": 4})).await;
    assert_eq!(late.expect_invalid(), ["/maxTicketsPerUser"], "a limit cannot be added later");
}

#[tokio::test]
async fn capacity_cannot_go_below_the_tickets_taken() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(10)).await;
    let path = format!("/v1/events/{event}");
    server.user("ada").book(&event, 4).await.expect(201);
    admin.patch(&path, &json!({"capacity": 3})).await.expect_problem(409, "capacity_in_use");
    let types = admin.get(&path).await.expect(200)["ticketTypes"].clone();
    let narrow = json!({"ticketTypes": [{"id": types[0]["id"], "capacity": 3}]});
    admin.patch(&path, &narrow).await.expect_problem(409, "capacity_in_use");
    let after = admin.patch(&path, &json!({"capacity": 4})).await.expect(200);
    assert_eq!((&after["capacity"], &after["available"]), (&json!(4), &json!(0)));
    server.expect_clean().await;
}

#[tokio::test]
async fn a_cancelled_event_cannot_be_edited() {
    let server = server().await;
    let mut admin = server.admin();
    let path = format!("/v1/events/{}", admin.create_event(&event_body(10)).await);
    for status in ["paused", "onSale", "paused", "cancelled"] {
        assert_eq!(admin.patch(&path, &json!({"status": status})).await.expect(200)["status"], status);
    }
    for change in [json!({"status": "onSale"}), json!({"name": "Other"}), json!({})] {
        admin.patch(&path, &change).await.expect_problem(409, "event_cancelled");
    }
    assert_eq!(admin.get(&path).await.expect(200)["status"], "cancelled");
}

#[tokio::test]
async fn availability_is_reported_per_ticket_type() {
    let server = server().await;
    let price = json!({"amount": 1_000, "currency": "EUR"});
    let types = json!([{"name": "standing", "price": price}, {"name": "VIP", "price": price, "capacity": 2}]);
    let body = with_fields(event_body(3), &json!({"price": null, "ticketTypes": types}));
    let event = server.admin().post("/v1/events", &body).await.expect(201);
    let (id, vip) = (id_of(&event), &event["ticketTypes"][1]["id"]);
    let items = json!({"eventId": id, "items": [{"ticketTypeId": vip, "quantity": 2}]});
    server.user("ada").post("/v1/bookings", &items).await.expect(201);
    let left = server.anonymous().get(&format!("/v1/events/{id}/availability")).await.expect(200);
    let expected = ["asOf", "available", "capacity", "eventSeq", "held", "sold", "soldOut", "ticketTypes"];
    assert_eq!(names(&left), expected);
    assert_eq!((&left["capacity"], &left["held"], &left["available"]), (&json!(3), &json!(2), &json!(1)));
    assert_eq!((&left["eventSeq"], &left["soldOut"]), (&json!(2), &json!(false)));
    let [standing, vip] = [&left["ticketTypes"][0], &left["ticketTypes"][1]];
    assert_eq!((&standing["available"], &standing["soldOut"]), (&json!(1), &json!(false)));
    assert_eq!((&vip["available"], &vip["soldOut"], &vip["held"]), (&json!(0), &json!(true), &json!(2)));
}
