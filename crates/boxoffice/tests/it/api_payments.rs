//! Confirming and cancelling bookings, refunds, and every way in which these are refused.

use serde_json::{Value, json};
use testkit::{Client, Server, event_body, id_of, with_fields};

use crate::{server, server_time};

/// Creates an event with these changes to its body, and a pending booking of two tickets of the user `ada`.
/// Returns a client of an admin, a client of `ada`, the event's id and the booking's id.
async fn fixture(server: &Server, changes: &Value) -> (Client, Client, String, String) {
    let (mut admin, mut ada) = (server.admin(), server.user("ada"));
    let event = admin.create_event(&with_fields(event_body(10), changes)).await;
    let booking = id_of(&ada.book(&event, 2).await.expect(201));
    (admin, ada, event, booking)
}

fn check_refund(refund: &Value, booking: &str, transaction: &str, amount: u32) {
    assert!(id_of(refund).starts_with("rfd_"));
    assert_eq!(refund["bookingId"], booking);
    assert_eq!(refund["paymentTransactionId"], transaction);
    assert_eq!(refund["amount"], json!({"amount": amount, "currency": "EUR"}));
    assert_eq!(refund["status"], "requested");
    assert!(refund["createdAt"].is_string() && refund.get("settledAt").is_none(), "{refund}");
}

#[tokio::test]
async fn a_repeated_payment_returns_the_same_response() {
    let server = server().await;
    let (mut admin, _, event, booking) = fixture(&server, &json!({})).await;
    let first = admin.confirm(&booking, "pay-1").await.expect(200);
    assert_eq!(server.service().confirm(&booking, "pay-1").await.expect(200), first);
    assert_eq!(admin.counts(&event).await, (0, 2, 8));
    let ledger = admin.all(&format!("/v1/events/{event}/ledger")).await;
    let confirmed = ledger.iter().filter(|entry| entry["type"] == "booking.confirmed").count();
    assert_eq!(confirmed, 1);
}

#[tokio::test]
async fn a_second_payment_is_refunded() {
    let server = server().await;
    let (mut admin, _, _, booking) = fixture(&server, &json!({})).await;
    admin.confirm(&booking, "pay-1").await.expect(200);
    let second = admin.confirm(&booking, "pay-2").await.expect_problem(409, "invalid_state");
    assert_eq!(second["bookingStatus"], "confirmed");
    check_refund(&second["refund"], &booking, "pay-2", 9_000);
    let again = admin.confirm(&booking, "pay-2").await.expect_problem(409, "invalid_state");
    assert_eq!(again["refund"], second["refund"]);
    assert_eq!(admin.all("/v1/refunds").await, [second["refund"].clone()]);
    assert_eq!(admin.booking(&booking).await["status"], "confirmed");
    server.expect_clean().await;
}

#[tokio::test]
async fn a_payment_for_a_cancelled_booking_is_refunded() {
    let server = server().await;
    let (mut admin, mut ada, _, booking) = fixture(&server, &json!({})).await;
    let cancelled = ada.cancel(&booking).await.expect(200);
    assert_eq!((&cancelled["status"], &cancelled["paymentStatus"]), (&json!("cancelled"), &json!("failed")));
    assert_eq!(admin.all("/v1/refunds").await, [] as [Value; 0], "an unpaid booking has no refund");
    let late = admin.confirm(&booking, "pay-1").await.expect_problem(409, "invalid_state");
    assert_eq!(late["bookingStatus"], "cancelled");
    check_refund(&late["refund"], &booking, "pay-1", 9_000);
    ada.cancel(&booking).await.expect_problem(409, "invalid_state");
    server.expect_clean().await;
}

#[tokio::test]
async fn cancelling_a_paid_booking_requests_a_refund() {
    let server = server().await;
    let (mut admin, mut ada, event, booking) = fixture(&server, &json!({})).await;
    admin.confirm(&booking, "pay-1").await.expect(200);
    ada.cancel(&booking).await.expect(200);
    let refunds = admin.refunds_of("pay-1").await;
    assert_eq!(refunds.len(), 1);
    check_refund(&refunds[0], &booking, "pay-1", 9_000);
    assert_eq!((&refunds[0]["eventId"], &refunds[0]["reason"]), (&json!(event), &json!("booking_cancelled")));
    let repeated = admin.confirm(&booking, "pay-1").await.expect_problem(409, "invalid_state");
    assert_eq!(repeated["refund"], refunds[0], "a repeated webhook finds the same refund");
    assert_eq!(admin.refunds_of("pay-1").await.len(), 1);
    server.expect_clean().await;
}

#[tokio::test]
async fn a_wrong_amount_is_refused_and_not_recorded() {
    let server = server().await;
    let (mut admin, _, _, booking) = fixture(&server, &json!({})).await;
    let path = format!("/v1/bookings/{booking}/confirm");
    let paid = |amount: i64, currency: &str| {
        let amount = json!({"amount": amount, "currency": currency});
        json!({"paymentTransactionId": "pay-1", "amount": amount})
    };
    for wrong in [paid(8_999, "EUR"), paid(9_000, "USD"), paid(0, "EUR")] {
        let refused = admin.post(&path, &wrong).await.expect_problem(422, "amount_mismatch");
        assert_eq!(refused["expected"], json!({"amount": 9_000, "currency": "EUR"}));
    }
    assert_eq!(admin.booking(&booking).await["version"], 1, "nothing was recorded");
    assert_eq!(admin.post(&path, &paid(9_000, "EUR")).await.expect(200)["status"], "confirmed");
}

#[tokio::test]
async fn one_payment_can_pay_for_several_bookings() {
    let server = server().await;
    let (mut admin, mut ada, event, first) = fixture(&server, &json!({})).await;
    let second = id_of(&ada.book(&event, 1).await.expect(201));
    for booking in [&first, &second] {
        admin.confirm(booking, "pay-both").await.expect(200);
        admin.cancel(booking).await.expect(200);
    }
    assert_eq!(admin.refunds_of("pay-both").await.len(), 2, "one refund per booking");
    server.expect_clean().await;
}

#[tokio::test]
async fn payments_for_cancelled_events_are_refunded() {
    let server = server().await;
    let (mut admin, mut ada, event, pending) = fixture(&server, &json!({})).await;
    let cancelled = id_of(&ada.book(&event, 1).await.expect(201));
    ada.cancel(&cancelled).await.expect(200);
    admin.patch(&format!("/v1/events/{event}"), &json!({"status": "cancelled"})).await.expect(200);
    for (booking, amount) in [(&pending, 9_000), (&cancelled, 4_500)] {
        let transaction = format!("pay-{booking}");
        let late = admin.confirm(booking, &transaction).await.expect_problem(409, "event_cancelled");
        check_refund(&late["refund"], booking, &transaction, amount);
        assert!(late["bookingStatus"].is_string(), "{late}");
        let again = admin.confirm(booking, &transaction).await.expect_problem(409, "event_cancelled");
        assert_eq!(again["refund"], late["refund"]);
    }
    assert_eq!(admin.all("/v1/refunds").await.len(), 2);
    server.expect_clean().await;
}

#[tokio::test]
async fn users_can_cancel_paid_bookings_before_the_cutoff() {
    let server = server().await;
    let (mut admin, mut ada, event, paid) = fixture(&server, &json!({"cancelCutoffSeconds": 86_400})).await;
    let tomorrow = server_time(&mut admin, &event).await + jiff::SignedDuration::from_hours(23);
    let earlier = json!({"startsAt": tomorrow.to_string()});
    admin.patch(&format!("/v1/events/{event}"), &earlier).await.expect(200);
    admin.confirm(&paid, "pay-1").await.expect(200);
    let late = ada.cancel(&paid).await.expect_problem(409, "cancel_cutoff_passed");
    assert_eq!(late["bookingStatus"], "confirmed");
    let pending = id_of(&ada.book(&event, 1).await.expect(201));
    ada.cancel(&pending).await.expect(200);
    assert_eq!(server.service().cancel(&paid).await.expect(200)["status"], "cancelled");
    assert_eq!(admin.refunds_of("pay-1").await.len(), 1);
}

#[tokio::test]
async fn payments_and_cancellations_continue_while_sales_are_paused() {
    let server = server().await;
    let (mut admin, mut ada, event, paid) = fixture(&server, &json!({})).await;
    let unpaid = id_of(&ada.book(&event, 1).await.expect(201));
    admin.patch(&format!("/v1/events/{event}"), &json!({"status": "paused"})).await.expect(200);
    admin.confirm(&paid, "pay-1").await.expect(200);
    ada.cancel(&unpaid).await.expect(200);
    assert_eq!(admin.counts(&event).await, (0, 2, 8));
}

#[tokio::test]
async fn a_free_booking_is_confirmed_like_any_other() {
    let server = server().await;
    let free = json!({"price": {"amount": 0, "currency": "EUR"}});
    let (mut admin, mut ada, event, booking) = fixture(&server, &free).await;
    let confirmed = admin.confirm(&booking, "free-1").await.expect(200);
    assert_eq!(confirmed["total"]["amount"], 0);
    ada.cancel(&booking).await.expect(200);
    assert_eq!(admin.counts(&event).await, (0, 0, 10));
    server.expect_clean().await;
}

#[tokio::test]
async fn invalid_payments_and_cancellations_are_refused_with_a_pointer() {
    let server = server().await;
    let (mut admin, mut ada, _, booking) = fixture(&server, &json!({})).await;
    let confirm = format!("/v1/bookings/{booking}/confirm");
    let refused = [
        (json!({}), ""),
        (json!({"paymentTransactionId": ""}), "/paymentTransactionId"),
        (json!({"paymentTransactionId": "x".repeat(201)}), "/paymentTransactionId"),
        (json!({"paymentTransactionId": "a\u{0}"}), "/paymentTransactionId"),
        (json!({"paymentTransactionId": 1}), "/paymentTransactionId"),
        (json!({"paymentTransactionId": "p", "amount": 9_000}), "/amount"),
        (json!({"paymentTransactionId": "p", "amount": [9_000, "EUR"]}), "/amount"),
        (json!({"paymentTransactionId": "p", "status": "confirmed"}), "/status"),
    ];
    for (body, pointer) in refused {
        assert_eq!(admin.post(&confirm, &body).await.expect_invalid(), [pointer], "{body}");
    }
    let cancel = format!("/v1/bookings/{booking}/cancel");
    for (body, pointer) in [
        (json!({"reason": "x".repeat(201)}), "/reason"),
        (json!({"reason": 1}), "/reason"),
        (json!({"refund": false}), "/refund"),
    ] {
        assert_eq!(ada.post(&cancel, &body).await.expect_invalid(), [pointer], "{body}");
    }
    assert_eq!(ada.booking(&booking).await["version"], 1);
    for unknown in ["bkg_01h455vb4pex5vsknk084sn02q", "nonsense", "evt_01h455vb4pex5vsknk084sn02q"] {
        admin.confirm(unknown, "pay-1").await.expect_problem(404, "not_found");
        admin.cancel(unknown).await.expect_problem(404, "not_found");
        admin.get(&format!("/v1/bookings/{unknown}")).await.expect_problem(404, "not_found");
        admin.get(&format!("/v1/events/{unknown}")).await.expect_problem(404, "not_found");
        admin.get(&format!("/v1/events/{unknown}/availability")).await.expect_problem(404, "not_found");
        admin.get(&format!("/v1/events/{unknown}/ledger")).await.expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn a_refund_is_settled_once() {
    let server = server().await;
    let (mut admin, mut ada, _, booking) = fixture(&server, &json!({})).await;
    admin.confirm(&booking, "pay-1").await.expect(200);
    ada.cancel(&booking).await.expect(200);
    let refund = id_of(&admin.refunds_of("pay-1").await[0]);
    let settle = format!("/v1/refunds/{refund}/settle");
    let outcome =
        |outcome: &str, reference: &str| json!({"outcome": outcome, "providerReference": reference});
    let failed = admin.post(&settle, &outcome("failed", "out-1")).await.expect(200);
    assert_eq!((&failed["status"], &failed["providerReference"]), (&json!("failed"), &json!("out-1")));
    assert_eq!(ada.booking(&booking).await["paymentStatus"], "refundRequested");
    let paid_out = admin.post(&settle, &outcome("succeeded", "out-2")).await.expect(200);
    assert_eq!(paid_out["status"], "succeeded");
    assert!(paid_out["settledAt"].is_string());
    assert_eq!(admin.post(&settle, &outcome("succeeded", "out-2")).await.expect(200), paid_out);
    admin.post(&settle, &outcome("failed", "out-3")).await.expect_problem(409, "invalid_state");
    assert_eq!(ada.booking(&booking).await["paymentStatus"], "refunded");
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"outcome": "done", "providerReference": "x"}), "/outcome"),
        (json!({"outcome": {"failed": null}, "providerReference": "x"}), "/outcome"),
        (json!({"outcome": "failed", "providerReference": ""}), "/providerReference"),
    ] {
        assert_eq!(admin.post(&settle, &body).await.expect_invalid(), [pointer], "{body}");
    }
    let nowhere = "/v1/refunds/rfd_01h455vb4pex5vsknk084sn02q/settle";
    admin.post(nowhere, &outcome("failed", "x")).await.expect_problem(404, "not_found");
    server.expect_clean().await;
}

#[tokio::test]
async fn a_ticket_is_valid_only_for_its_paid_event() {
    let server = server().await;
    let (mut admin, _, event, booking) = fixture(&server, &json!({})).await;
    let other = admin.create_event(&event_body(10)).await;
    let validate = |event: &str| format!("/v1/bookings/{booking}/validate?eventId={event}");
    assert_eq!(admin.get(&validate(&event)).await.expect(200)["valid"], false, "not paid");
    admin.confirm(&booking, "pay-1").await.expect(200);
    let valid = admin.get(&validate(&event)).await.expect(200);
    assert_eq!((&valid["valid"], &valid["booking"]["id"]), (&json!(true), &json!(booking)));
    assert_eq!(admin.get(&validate(&other)).await.expect(200)["valid"], false, "another event");
    admin.cancel(&booking).await.expect(200);
    assert_eq!(admin.get(&validate(&event)).await.expect(200)["valid"], false, "cancelled");
    for scanned in
        ["bkg_01h455vb4pex5vsknk084sn02q", "evt_01h455vb4pex5vsknk084sn02q", "https%3A%2F%2Fa.example"]
    {
        let response = admin.get(&format!("/v1/bookings/{scanned}/validate?eventId={event}")).await;
        assert_eq!(response.expect(200)["valid"], false, "{scanned}");
    }
    let without = format!("/v1/bookings/{booking}/validate");
    assert_eq!(admin.get(&without).await.expect_invalid(), ["?eventId"]);
}
