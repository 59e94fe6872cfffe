//! Creating bookings, and every way in which it is refused.

use serde_json::{Value, json};
use testkit::{Client, Server, event_body, eventually, id_of, with_fields};

use crate::{server, server_time};

/// Creates an event with these changes to its body. Returns a client of an admin, a client of the user `ada`,
/// and the event's id.
async fn fixture(server: &Server, capacity: u32, changes: &Value) -> (Client, Client, String) {
    let mut admin = server.admin();
    let event = admin.create_event(&with_fields(event_body(capacity), changes)).await;
    (admin, server.user("ada"), event)
}

#[tokio::test]
async fn a_booking_is_returned_correctly_in_every_state() {
    let server = server().await;
    let (mut admin, mut ada, event) = fixture(&server, 10, &json!({"holdSeconds": 600})).await;
    let body = json!({
        "eventId": event, "ticketQuantity": 2, "userId": "ada", "paymentMethod": "card",
        "metadata": {"invoice": "2026-11", "note": ""},
        "expectedTotal": {"amount": 9_000, "currency": "EUR"},
    });
    let response = ada.post("/v1/bookings", &body).await;
    let pending = response.expect(201);
    let id = id_of(&pending);
    assert!(id.starts_with("bkg_"));
    assert_eq!(response.header("location"), format!("/v1/bookings/{id}"));
    for (name, value) in [
        ("eventId", json!(event)),
        ("userId", json!("ada")),
        ("status", json!("pending")),
        ("paymentStatus", json!("pending")),
        ("ticketQuantity", json!(2)),
        ("total", json!({"amount": 9_000, "currency": "EUR"})),
        ("paymentMethod", json!("card")),
        ("metadata", json!({"invoice": "2026-11", "note": ""})),
        ("version", json!(1)),
    ] {
        assert_eq!(pending[name], value, "{name}");
    }
    let item = &pending["items"][0];
    assert_eq!((&item["quantity"], &item["unitPrice"]["amount"]), (&json!(2), &json!(4_500)));
    let expires_in = pending["expiresIn"].as_u64().unwrap();
    assert!((1..=600).contains(&expires_in), "{pending}");
    assert!(
        pending["holdExpiresAt"].is_string() && pending["createdAt"] == pending["updatedAt"],
        "{pending}"
    );
    for absent in ["paymentTransactionId", "confirmedAt", "cancelledAt", "expiredAt", "cancellationReason"] {
        assert!(pending.get(absent).is_none(), "{absent}");
    }

    let confirmed = admin.confirm(&id, "pay-1").await.expect(200);
    assert_eq!((&confirmed["status"], &confirmed["paymentStatus"]), (&json!("confirmed"), &json!("paid")));
    assert_eq!((&confirmed["version"], &confirmed["expiresIn"]), (&json!(2), &json!(0)));
    assert_eq!(confirmed["paymentTransactionId"], "pay-1");
    assert!(confirmed["confirmedAt"].is_string());
    assert_eq!(confirmed["metadata"], pending["metadata"]);

    let cancelled =
        ada.post(&format!("/v1/bookings/{id}/cancel"), &json!({"reason": "ill"})).await.expect(200);
    assert_eq!(
        (&cancelled["status"], &cancelled["paymentStatus"]),
        (&json!("cancelled"), &json!("refundRequested"))
    );
    assert_eq!((&cancelled["cancellationReason"], &cancelled["version"]), (&json!("ill"), &json!(3)));
    assert!(cancelled["cancelledAt"].is_string() && cancelled["confirmedAt"].is_string(), "{cancelled}");
    assert_eq!(ada.booking(&id).await, cancelled);
    assert_eq!(admin.counts(&event).await, (0, 0, 10));
    server.expect_clean().await;
}

#[tokio::test]
async fn tickets_run_out() {
    let server = server().await;
    let (_, mut ada, event) = fixture(&server, 3, &json!({})).await;
    ada.book(&event, 2).await.expect(201);
    let short = ada.book(&event, 2).await.expect_problem(409, "insufficient_availability");
    assert_eq!((&short["requested"], &short["available"]), (&json!(2), &json!(1)));
    assert!(short["ticketTypeId"].as_str().is_some_and(|id| id.starts_with("tt_")), "{short}");
    ada.book(&event, 1).await.expect(201);
    let none = ada.book(&event, 1).await.expect_problem(409, "sold_out");
    assert_eq!((&none["requested"], &none["available"]), (&json!(1), &json!(0)));
    assert_eq!(none["ticketTypeId"], short["ticketTypeId"]);
    assert_eq!(ada.counts(&event).await, (3, 0, 0));
}

#[tokio::test]
async fn all_tickets_of_a_booking_are_held_or_none() {
    let server = server().await;
    let price = json!({"amount": 1_000, "currency": "EUR"});
    let types = json!([{"name": "standing", "price": price}, {"name": "VIP", "price": price, "capacity": 1}]);
    let (mut admin, mut ada, event) =
        fixture(&server, 10, &json!({"price": null, "ticketTypes": types})).await;
    let created = admin.get(&format!("/v1/events/{event}")).await.expect(200);
    let [standing, vip] = [&created["ticketTypes"][0]["id"], &created["ticketTypes"][1]["id"]];
    let items = |standing_count: u32, vip_count: u32| {
        let list = json!([
            {"ticketTypeId": standing, "quantity": standing_count},
            {"ticketTypeId": vip, "quantity": vip_count},
        ]);
        json!({"eventId": event, "items": list})
    };
    let short = ada.post("/v1/bookings", &items(3, 2)).await;
    assert_eq!(short.expect_problem(409, "insufficient_availability")["ticketTypeId"], *vip);
    assert_eq!(admin.counts(&event).await, (0, 0, 10));
    let booked = ada.post("/v1/bookings", &items(3, 1)).await.expect(201);
    assert_eq!((&booked["ticketQuantity"], &booked["total"]["amount"]), (&json!(4), &json!(4_000)));
    assert_eq!(booked["items"].as_array().unwrap().len(), 2);
    let sold_out = ada.post("/v1/bookings", &items(1, 1)).await;
    assert_eq!(sold_out.expect_problem(409, "sold_out")["ticketTypeId"], *vip);
    let quantity = ada.book(&event, 1).await;
    assert_eq!(
        quantity.expect_invalid(),
        ["/items"],
        "a quantity alone is ambiguous if there are several ticket types"
    );
    let twice = json!([{"ticketTypeId": vip, "quantity": 1}, {"ticketTypeId": vip, "quantity": 1}]);
    let twice = ada.post("/v1/bookings", &json!({"eventId": event, "items": twice})).await;
    assert_eq!(twice.expect_invalid(), ["/items"]);
    server.expect_clean().await;
}

#[tokio::test]
async fn bookings_outside_the_sales_period_are_refused() {
    let server = server().await;
    let later = json!({"salesStartAt": "2098-01-01T00:00:00Z"});
    let (_, mut ada, event) = fixture(&server, 10, &later).await;
    let refused = ada.book(&event, 1).await.expect_problem(409, "sales_not_open");
    assert_eq!(refused["salesStartAt"], "2098-01-01T00:00:00Z");
    let (_, mut ada, event) = fixture(&server, 10, &json!({"salesEndAt": "2020-01-01T00:00:00Z"})).await;
    ada.book(&event, 1).await.expect_problem(409, "sales_closed");
}

#[tokio::test]
async fn bookings_are_refused_once_the_event_has_started() {
    let server = server().await;
    let (mut admin, mut ada, event) = fixture(&server, 100_000, &json!({"cancelCutoffSeconds": 0})).await;
    let soon = server_time(&mut admin, &event).await + jiff::SignedDuration::from_secs(5);
    admin.patch(&format!("/v1/events/{event}"), &json!({"startsAt": soon.to_string()})).await.expect(200);
    let held = id_of(&server.user("bob").book(&event, 1).await.expect(201));
    eventually("the event starts", async || {
        let response = ada.book(&event, 1).await;
        (response.status != 201).then(|| response.expect_problem(409, "event_started"))
    })
    .await;
    admin.confirm(&held, "pay-held").await.expect(200);
    let late = server.user("bob").cancel(&held).await.expect_problem(409, "cancel_cutoff_passed");
    assert_eq!(late["bookingStatus"], "confirmed");
}

#[tokio::test]
async fn paused_and_cancelled_events_cannot_be_booked() {
    let server = server().await;
    let (mut admin, mut ada, event) = fixture(&server, 10, &json!({})).await;
    let path = format!("/v1/events/{event}");
    admin.patch(&path, &json!({"status": "paused"})).await.expect(200);
    ada.book(&event, 1).await.expect_problem(409, "event_paused");
    admin.patch(&path, &json!({"status": "cancelled"})).await.expect(200);
    ada.book(&event, 1).await.expect_problem(409, "event_cancelled");
}

#[tokio::test]
async fn the_server_determines_the_price() {
    let server = server().await;
    let (mut admin, mut ada, event) = fixture(&server, 10, &json!({})).await;
    let total = |amount: u32, currency: &str| json!({"amount": amount, "currency": currency});
    let order = |total: &Value| json!({"eventId": event, "ticketQuantity": 2, "expectedTotal": total});
    for wrong in [total(8_999, "EUR"), total(0, "EUR"), total(9_000, "USD")] {
        let refused = ada.post("/v1/bookings", &order(&wrong)).await;
        assert_eq!(refused.expect_problem(422, "amount_mismatch")["expected"], total(9_000, "EUR"));
    }
    let before = ada.post("/v1/bookings", &order(&total(9_000, "EUR"))).await.expect(201);
    let new_price = json!({"price": total(5_000, "EUR")});
    admin.patch(&format!("/v1/events/{event}"), &new_price).await.expect(200);
    assert_eq!(
        ada.booking(&id_of(&before)).await["total"],
        total(9_000, "EUR"),
        "the price is fixed at booking"
    );
    assert_eq!(ada.book(&event, 2).await.expect(201)["total"], total(10_000, "EUR"));
}

#[tokio::test]
async fn tickets_per_booking_and_per_user_are_limited() {
    let server = server().await;
    let limits = json!({"maxTicketsPerBooking": 3, "maxTicketsPerUser": 4});
    let (mut admin, mut ada, event) = fixture(&server, 100, &limits).await;
    ada.book(&event, 4).await.expect_problem(422, "booking_limit_exceeded");
    let first = id_of(&ada.book(&event, 3).await.expect(201));
    ada.book(&event, 2).await.expect_problem(422, "booking_limit_exceeded");
    admin.confirm(&first, "pay-1").await.expect(200);
    admin.book_for("ada", &event, 2).await.expect_problem(422, "booking_limit_exceeded");
    admin.cancel(&first).await.expect(200);
    admin.book_for("ada", &event, 2).await.expect(201);
    admin.book_for("bob", &event, 3).await.expect(201);
    server.expect_clean().await;
}

#[tokio::test]
async fn invalid_orders_are_refused_with_a_pointer() {
    let server = server().await;
    let (mut admin, mut ada, event) = fixture(&server, 10, &json!({})).await;
    let created = admin.get(&format!("/v1/events/{event}")).await.expect(200);
    let ticket_type = &created["ticketTypes"][0]["id"];
    let no_type = "tt_01h455vb4pex5vsknk084sn02q";
    let items = |items: Value| json!({"ticketQuantity": null, "items": items});
    let too_many_keys: serde_json::Map<_, _> = (0..21).map(|key| (key.to_string(), json!("x"))).collect();
    let refused = [
        (json!({"eventId": null}), ""),
        (json!({"eventId": 7}), "/eventId"),
        (json!({"eventId": "bkg_01h455vb4pex5vsknk084sn02q"}), "/eventId"),
        (json!({"ticketQuantity": null}), ""),
        (json!({"ticketQuantity": 0}), "/ticketQuantity"),
        (json!({"ticketQuantity": -1}), "/ticketQuantity"),
        (json!({"ticketQuantity": 1.0}), "/ticketQuantity"),
        (json!({"ticketQuantity": "1"}), "/ticketQuantity"),
        (json!({"ticketQuantity": 4_294_967_296_u64}), "/ticketQuantity"),
        (json!({"items": [{"ticketTypeId": ticket_type, "quantity": 1}]}), ""),
        (items(json!([])), "/items"),
        (items(json!({})), "/items"),
        (items(json!([{"ticketTypeId": ticket_type, "quantity": 0}])), "/items/0/quantity"),
        (items(json!([{"ticketTypeId": ticket_type, "quantity": 1, "seat": 3}])), "/items/0/seat"),
        (items(json!([{"ticketTypeId": no_type, "quantity": 1}])), "/items/0/ticketTypeId"),
        (items(json!([[ticket_type, 1]])), "/items/0"),
        (json!({"expectedTotal": 45}), "/expectedTotal"),
        (json!({"expectedTotal": [4_500, "EUR"]}), "/expectedTotal"),
        (json!({"expectedTotal": {"amount": -1, "currency": "EUR"}}), "/expectedTotal"),
        (json!({"paymentMethod": "x".repeat(201)}), "/paymentMethod"),
        (json!({"paymentMethod": "a\u{0}b"}), "/paymentMethod"),
        (json!({"metadata": [["a", "b"]]}), "/metadata"),
        (json!({"metadata": {"": "x"}}), "/metadata"),
        (json!({"metadata": {"a": "x".repeat(501)}}), "/metadata"),
        (json!({"metadata": too_many_keys}), "/metadata"),
        (json!({"metadata": {"a": 1}}), "/metadata/a"),
        (json!({"userId": "a b"}), "/userId"),
        (json!({"userId": ["ada"]}), "/userId"),
        (json!({"status": "confirmed"}), "/status"),
        (json!({"price": {"amount": 0, "currency": "EUR"}}), "/price"),
        (json!({"total": 0}), "/total"),
    ];
    for (change, pointer) in refused {
        let body = with_fields(json!({"eventId": event, "ticketQuantity": 1}), &change);
        let response = ada.post("/v1/bookings", &body).await;
        assert_eq!(response.expect_invalid(), [pointer], "{change}: {response:?}");
    }
    for huge in [11, 1_000_000, 4_294_967_295_u32] {
        ada.book(&event, huge).await.expect_problem(422, "booking_limit_exceeded");
    }
    ada.book("evt_01h455vb4pex5vsknk084sn02q", 1).await.expect_problem(404, "not_found");
    assert_eq!(admin.counts(&event).await, (0, 0, 10), "no refused order holds a ticket");
}

#[tokio::test]
async fn an_external_reference_finds_its_booking() {
    let server = server().await;
    let (_, mut ada, event) = fixture(&server, 10, &json!({})).await;
    let body = json!({"eventId": event, "ticketQuantity": 1, "externalRef": "order 1"});
    let booking = ada.post("/v1/bookings", &body).await.expect(201);
    assert_eq!(booking["externalRef"], "order 1");
    let mut bob = server.user("bob");
    bob.post("/v1/bookings", &body).await.expect_problem(409, "external_ref_in_use");
    let found = ada.get("/v1/bookings?externalRef=order%201").await.expect(200);
    assert_eq!(found["data"], json!([booking]));
    let service = server.service().get("/v1/bookings?externalRef=order%201").await.expect(200);
    assert_eq!(service["data"].as_array().map(Vec::len), Some(1));
    // To a user, the bookings of others do not exist.
    let hidden = bob.get("/v1/bookings?externalRef=order%201").await.expect(200);
    assert_eq!(hidden["data"], json!([]));
    bob.get("/v1/bookings?externalRef=").await.expect_problem(422, "validation_failed");
    for invalid in [json!(""), json!("x".repeat(201)), json!("a\u{0}b"), json!(1)] {
        let body = with_fields(body.clone(), &json!({"externalRef": invalid}));
        assert_eq!(bob.post("/v1/bookings", &body).await.expect_invalid(), ["/externalRef"], "{invalid}");
    }
}
