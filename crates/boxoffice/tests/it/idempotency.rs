//! Requests that are repeated with their `Idempotency-Key`.

use std::sync::Arc;

use hyper::Method;
use serde_json::{Value, json};
use testkit::{Client, Response, Server, Setup, event_body, id_of, with_fields};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::{program, server};

/// Sends a `POST` with an `Idempotency-Key`.
async fn post_with_key(client: &mut Client, path: &str, key: &str, body: impl Into<String>) -> Response {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    client.request_with(Method::POST, path, &headers, body.into()).await
}

fn order(event: &str, tickets: u32) -> String {
    json!({"eventId": event, "ticketQuantity": tickets}).to_string()
}

/// Expects the same response, byte for byte, marked as replayed.
#[track_caller]
fn expect_replayed(first: &Response, again: &Response) {
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.header("idempotent-replayed"), "true", "{again:?}");
    assert_eq!(first.header("idempotent-replayed"), "", "{first:?}");
    for name in ["content-type", "location", "etag"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_concurrent_requests_with_one_key_create_one_booking() {
    let server = server().await;
    let event = server.admin().create_event(&event_body(100)).await;
    for round in 0..5 {
        let start = Arc::new(Barrier::new(31));
        let mut requests = JoinSet::new();
        for number in 0..31 {
            // One of the requests is another user's, with the same key.
            let user = if number == 30 { "bob" } else { "ada" };
            let (mut client, start) = (server.user(user), start.clone());
            let (key, order) = (format!("key-{round}"), order(&event, 1));
            requests.spawn(async move {
                client.connect().await.expect("a connection");
                start.wait().await;
                (user, post_with_key(&mut client, "/v1/bookings", &key, order).await)
            });
        }
        let responses = requests.join_all().await;
        let of = |name: &str| -> Vec<&Response> {
            responses.iter().filter(|(user, _)| *user == name).map(|(_, response)| response).collect()
        };
        let (own, others) = (of("ada"), of("bob"));
        let fresh: Vec<_> = own.iter().filter(|one| one.header("idempotent-replayed").is_empty()).collect();
        assert_eq!((fresh.len(), own.len()), (1, 30));
        for response in &own {
            response.expect(201);
            assert_eq!(response.body, fresh[0].body);
        }
        assert_ne!(
            id_of(&others[0].expect(201)),
            id_of(&fresh[0].expect(201)),
            "keys belong to their callers"
        );
        assert_eq!(others[0].header("idempotent-replayed"), "");
    }
    assert_eq!(server.admin().counts(&event).await, (10, 0, 90));
    server.expect_clean().await;
}

#[tokio::test]
async fn a_repeated_request_is_equal_json_with_the_same_key() {
    let server = server().await;
    let (mut admin, mut ada) = (server.admin(), server.user("ada"));
    let event = admin.create_event(&event_body(100)).await;
    let first = post_with_key(&mut ada, "/v1/bookings", "k 1", order(&event, 2)).await;
    let booking = id_of(&first.expect(201));
    let spellings = [
        format!("{{\"ticketQuantity\":2,\"eventId\":\"{event}\"}}"),
        format!(" {{ \"eventId\" : \"{event}\" ,\n\"ticketQuantity\": 2 }} "),
        format!("{{\"\\u0065ventId\":\"{event}\",\"ticketQuantity\":2}}"),
    ];
    for body in spellings {
        expect_replayed(&first, &post_with_key(&mut ada, "/v1/bookings", "k 1", body.clone()).await);
        expect_replayed(&first, &post_with_key(&mut ada, "/v1/bookings", "\"k 1\"", body).await);
    }
    for other in
        [order(&event, 1), with_fields(order_value(&event), &json!({"paymentMethod": "card"})).to_string()]
    {
        let refused = post_with_key(&mut ada, "/v1/bookings", "k 1", other).await;
        refused.expect_problem(422, "idempotency_key_reused");
    }
    // A malformed request is refused first, and does not affect the stored response.
    post_with_key(&mut ada, "/v1/bookings", "k 1", "{").await.expect_problem(400, "malformed_request");
    // The stored response is replayed, whatever the state of the booking is now.
    admin.confirm(&booking, "pay-1").await.expect(200);
    expect_replayed(&first, &post_with_key(&mut ada, "/v1/bookings", "k 1", order(&event, 2)).await);
    assert_eq!(admin.counts(&event).await, (0, 2, 98));
}

fn order_value(event: &str) -> Value {
    json!({"eventId": event, "ticketQuantity": 2})
}

#[tokio::test]
async fn invalid_keys_are_rejected() {
    let server = server().await;
    let mut ada = server.user("ada");
    let event = server.admin().create_event(&event_body(100)).await;
    let long = "x".repeat(256);
    for wrong in ["", "\"\"", "\"", "a\"b", " ", "a\tb", &long] {
        let refused = post_with_key(&mut ada, "/v1/bookings", wrong, order(&event, 1)).await;
        assert_eq!(refused.status, 400, "{wrong:?}: {refused:?}");
        refused.expect_problem(400, "malformed_request");
    }
    let twice = [("content-type", "application/json"), ("idempotency-key", "a"), ("idempotency-key", "a")];
    let refused = ada.request_with(Method::POST, "/v1/bookings", &twice, order(&event, 1)).await;
    refused.expect_problem(400, "malformed_request");
    for good in ["x", &"x".repeat(255), "8e03978e-40d5-43e8-bc93-6894a57f9324", "~!@#$%^&*()[]{};:'\\"] {
        post_with_key(&mut ada, "/v1/bookings", good, order(&event, 1)).await.expect(201);
    }
    assert_eq!(ada.counts(&event).await.0, 4);
}

#[tokio::test]
async fn a_key_can_be_reused_after_sold_out() {
    let server = server().await;
    let mut ada = server.user("ada");
    let event = server.admin().create_event(&event_body(1)).await;
    let taken = id_of(&server.user("bob").book(&event, 1).await.expect(201));
    for _ in 0..2 {
        let refused = post_with_key(&mut ada, "/v1/bookings", "k", order(&event, 1)).await;
        refused.expect_problem(409, "sold_out");
        assert_eq!(refused.header("idempotent-replayed"), "");
    }
    server.service().cancel(&taken).await.expect(200);
    let booked = post_with_key(&mut ada, "/v1/bookings", "k", order(&event, 1)).await;
    booked.expect(201);
    expect_replayed(&booked, &post_with_key(&mut ada, "/v1/bookings", "k", order(&event, 1)).await);
}

#[tokio::test]
async fn only_permanent_refusals_are_stored() {
    let server = server().await;
    let (mut admin, mut ada) = (server.admin(), server.user("ada"));
    let one_each = json!({"maxTicketsPerUser": 1});
    let event = admin.create_event(&with_fields(event_body(10), &one_each)).await;
    let dear =
        json!({"eventId": event, "ticketQuantity": 1, "expectedTotal": {"amount": 1, "currency": "EUR"}});
    let mismatch = post_with_key(&mut ada, "/v1/bookings", "k-1", dear.to_string()).await;
    mismatch.expect_problem(422, "amount_mismatch");
    let missing =
        post_with_key(&mut ada, "/v1/bookings", "k-2", order("evt_01h455vb4pex5vsknk084sn02q", 1)).await;
    missing.expect_problem(404, "not_found");
    admin
        .patch(&format!("/v1/events/{event}"), &json!({"price": {"amount": 1, "currency": "EUR"}}))
        .await
        .expect(200);
    let again = post_with_key(&mut ada, "/v1/bookings", "k-1", dear.to_string()).await;
    assert_eq!((again.status, &again.body), (mismatch.status, &mismatch.body), "the stored response");
    assert_eq!(again.header("idempotent-replayed"), "true");
    let again =
        post_with_key(&mut ada, "/v1/bookings", "k-2", order("evt_01h455vb4pex5vsknk084sn02q", 1)).await;
    assert_eq!((&again.body, again.header("idempotent-replayed")), (&missing.body, "true"));
    // Over the user's limit now, below it afterwards.
    let held = id_of(&ada.book(&event, 1).await.expect(201));
    let refused = post_with_key(&mut ada, "/v1/bookings", "k-3", order(&event, 1)).await;
    refused.expect_problem(422, "booking_limit_exceeded");
    ada.cancel(&held).await.expect(200);
    post_with_key(&mut ada, "/v1/bookings", "k-3", order(&event, 1)).await.expect(201);
}

/// Every `POST` can be repeated; a key has no effect at another path.
#[tokio::test]
async fn every_post_accepts_an_idempotency_key() {
    let server = server().await;
    let mut admin = server.admin();
    let body = event_body(10).to_string();
    let created = post_with_key(&mut admin, "/v1/events", "k", body.clone()).await;
    let event = id_of(&created.expect(201));
    expect_replayed(&created, &post_with_key(&mut admin, "/v1/events", "k", body).await);
    let order = json!({"eventId": event, "ticketQuantity": 1, "userId": "ada"}).to_string();
    let booked = post_with_key(&mut admin, "/v1/bookings", "k", order.clone()).await;
    let booking = id_of(&booked.expect(201));
    expect_replayed(&booked, &post_with_key(&mut admin, "/v1/bookings", "k", order).await);
    let confirm = format!("/v1/bookings/{booking}/confirm");
    let paid = json!({"paymentTransactionId": "pay-1"}).to_string();
    let confirmed = post_with_key(&mut admin, &confirm, "k", paid.clone()).await;
    confirmed.expect(200);
    let cancel = format!("/v1/bookings/{booking}/cancel");
    let cancelled = post_with_key(&mut admin, &cancel, "k", "").await;
    cancelled.expect(200);
    expect_replayed(&cancelled, &post_with_key(&mut admin, &cancel, "k", "{}").await);
    expect_replayed(&confirmed, &post_with_key(&mut admin, &confirm, "k", paid.clone()).await);
    // Without the key the same request gets the current state.
    let now = admin.post_text(&confirm, paid).await.expect_problem(409, "invalid_state");
    let settle = format!("/v1/refunds/{}/settle", id_of(&now["refund"]));
    let outcome = json!({"outcome": "succeeded", "providerReference": "out-1"}).to_string();
    let settled = post_with_key(&mut admin, &settle, "k", outcome.clone()).await;
    settled.expect(200);
    expect_replayed(&settled, &post_with_key(&mut admin, &settle, "k", outcome).await);
    assert_eq!(admin.all("/v1/events").await.len(), 1);
    assert_eq!(admin.all("/v1/bookings").await.len(), 1);
    assert_eq!(admin.all("/v1/refunds").await.len(), 1);
    server.expect_clean().await;
}

#[tokio::test]
async fn stored_responses_survive_a_restart() {
    let mut server = server().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let first = post_with_key(&mut server.user("ada"), "/v1/bookings", "k", order(&event, 1)).await;
    first.expect(201);
    server.kill9();
    let server: Server = server.restart().await;
    expect_replayed(
        &first,
        &post_with_key(&mut server.user("ada"), "/v1/bookings", "k", order(&event, 1)).await,
    );
    assert_eq!(server.admin().counts(&event).await, (1, 0, 9));
}

#[tokio::test]
async fn rate_limit_is_checked_before_idempotency_lookup() {
    let server = Setup::new(program()).environment("BOXOFFICE_BOOK_LIMIT", "2/24h").start().await;
    let mut ada = server.user("ada");
    let event = server.admin().create_event(&event_body(10)).await;
    let first = post_with_key(&mut ada, "/v1/bookings", "k", order(&event, 1)).await;
    expect_replayed(&first, &post_with_key(&mut ada, "/v1/bookings", "k", order(&event, 1)).await);
    post_with_key(&mut ada, "/v1/bookings", "k", order(&event, 1)).await.expect_problem(429, "rate_limited");
    assert_eq!(ada.counts(&event).await.0, 1);
}
