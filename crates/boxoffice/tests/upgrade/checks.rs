//! Properties that an operator relies on after an upgrade.

use serde_json::{Value, json};
use testkit::{Server, eventually, id_of, with_fields};

use crate::fixture::Manifest;

/// Checks everything that the earlier version returned, then that sales continue, then the audit.
pub(crate) async fn check(server: &Server, manifest: &Manifest) {
    entries_are_complete(server, manifest).await;
    stored_responses_are_replayed(server, manifest).await;
    holds_expire(server, manifest).await;
    finished_bookings_are_unchanged(server, manifest).await;
    refunds_are_unchanged_and_settled_once(server, manifest).await;
    events_stay_readable_and_editable(server, manifest).await;
    sales_continue(server, manifest).await;
    server.expect_clean().await;
}

/// The id of the event with this name in the manifest.
fn event<'a>(manifest: &'a Manifest, name: &str) -> &'a str {
    manifest.events[name]["id"].as_str().expect("an id")
}

/// Expects every member of an earlier response unchanged, with exceptions; a newer version may add members.
#[track_caller]
fn includes(now: &Value, before: &Value, except: &[&str]) {
    for (member, value) in before.as_object().expect("an object") {
        if !except.contains(&member.as_str()) {
            assert_eq!(&now[member], value, "{member} of {now:#}");
        }
    }
}

async fn entries_are_complete(server: &Server, manifest: &Manifest) {
    let mut admin = server.admin();
    let mut entries = 0;
    for event in admin.all("/v1/events").await {
        entries += admin.all(&format!("/v1/events/{}/ledger", id_of(&event))).await.len() as u64;
    }
    // The sweep may have begun.
    assert!(entries >= manifest.ledger_entries, "{entries} of {} entries", manifest.ledger_entries);
    assert!(manifest.ledger_entries >= 2_000);
}

async fn stored_responses_are_replayed(server: &Server, manifest: &Manifest) {
    assert!(!manifest.requests.is_empty());
    for request in &manifest.requests {
        let response = request.send(server).await;
        assert_eq!(response.status, request.status, "{response:?}");
        assert_eq!(response.body, request.response, "{}", request.idempotency_key);
        assert_eq!(response.header("idempotent-replayed"), "true", "{response:?}");
    }
}

async fn holds_expire(server: &Server, manifest: &Manifest) {
    let (mut admin, held) = (server.admin(), with_status(manifest, "pending"));
    assert!(held.len() >= 3, "{held:#?}");
    let pending = manifest.stats["pendingBookings"].as_u64().expect("a number");
    let expired = manifest.stats["expiredBookings"].as_u64().expect("a number");
    assert_eq!(wait_until_all_holds_expired(server).await["expiredBookings"], pending + expired);
    for before in held {
        let now = admin.booking(&id_of(before)).await;
        assert_eq!((&now["status"], &now["paymentStatus"]), (&json!("expired"), &json!("failed")));
        let changed = ["status", "paymentStatus", "expiresIn", "version", "updatedAt"];
        includes(&now, before, &changed);
    }
}

async fn finished_bookings_are_unchanged(server: &Server, manifest: &Manifest) {
    let mut admin = server.admin();
    for status in ["confirmed", "cancelled", "expired"] {
        let bookings = with_status(manifest, status);
        assert!(!bookings.is_empty(), "no {status} booking");
        for before in bookings {
            includes(&admin.booking(&id_of(before)).await, before, &[]);
        }
    }
}

/// Waits until no hold of the earlier version is left. Returns the statistics.
pub(crate) async fn wait_until_all_holds_expired(server: &Server) -> Value {
    let mut admin = server.admin();
    eventually("all holds have expired", async || {
        let stats = admin.get("/v1/stats").await.expect(200);
        (stats["pendingBookings"] == 0).then_some(stats)
    })
    .await
}

fn with_status<'a>(manifest: &'a Manifest, status: &str) -> Vec<&'a Value> {
    manifest.bookings.iter().filter(|booking| booking["status"] == status).collect()
}

async fn refunds_are_unchanged_and_settled_once(server: &Server, manifest: &Manifest) {
    let (mut service, all) = (server.service(), server.admin().all("/v1/refunds").await);
    assert!(manifest.refunds.iter().any(|refund| refund["amount"]["amount"] == 0), "a refund of zero");
    for before in &manifest.refunds {
        let now = all.iter().find(|refund| refund["id"] == before["id"]).expect("every refund is there");
        includes(now, before, &[]);
        if before["status"] != "requested" {
            continue;
        }
        // The same payment again finds its refund, and does not add a second one.
        let (booking, transaction) = (&before["bookingId"], &before["paymentTransactionId"]);
        let again = service.confirm(booking.as_str().expect("an id"), transaction.as_str().expect("a name"));
        assert_eq!(again.await.json()["refund"]["id"], before["id"]);
        let path = format!("/v1/refunds/{}/settle", id_of(before));
        let body = json!({"outcome": "succeeded", "providerReference": "after-the-upgrade"});
        assert_eq!(service.post(&path, &body).await.expect(200)["status"], "succeeded");
    }
}

async fn events_stay_readable_and_editable(server: &Server, manifest: &Manifest) {
    let mut admin = server.admin();
    for (name, before) in &manifest.events {
        let path = format!("/v1/events/{}", id_of(before));
        let now = admin.get(&path).await.expect(200);
        includes(&now, before, &["held", "sold", "available", "ticketTypes", "updatedAt"]);
        let edited = admin.patch(&path, &json!({"venue": "Elsewhere"})).await;
        if before["status"] == "cancelled" {
            edited.expect_problem(409, "event_cancelled");
        } else {
            let edited = edited.expect(200);
            let version = before["version"].as_u64().expect("a number") + 1;
            assert_eq!(
                (&edited["venue"], &edited["version"]),
                (&json!("Elsewhere"), &json!(version)),
                "{name}"
            );
        }
    }
    let odd = &manifest.events["salesStartAfterStart"];
    assert!(odd["salesStartAt"].as_str() > odd["startsAt"].as_str(), "{odd:#}");
}

async fn sales_continue(server: &Server, manifest: &Manifest) {
    let (mut admin, mut service) = (server.admin(), server.service());
    let paused = event(manifest, "paused");
    service.book_for("after", paused, 1).await.expect_problem(409, "event_paused");
    admin.patch(&format!("/v1/events/{paused}"), &json!({"status": "onSale"})).await.expect(200);
    service.book_for("after", event(manifest, "cancelled"), 1).await.expect_problem(409, "event_cancelled");
    for name in ["plain", "paused"] {
        let (held, sold, available) = admin.counts(event(manifest, name)).await;
        let booking = id_of(&service.book_for("after", event(manifest, name), 2).await.expect(201));
        service.confirm(&booking, "pay-after").await.expect(200);
        let counts = admin.counts(event(manifest, name)).await;
        assert_eq!(counts, (held, sold + 2, available - 2), "{name}");
        service.cancel(&booking).await.expect(200);
    }
    // A limit per user counts what was booked before.
    let types = manifest.events["ticketTypes"]["ticketTypes"].as_array().expect("ticket types").clone();
    let order = |quantity: u32| {
        let items = json!([{"ticketTypeId": types[0]["id"], "quantity": quantity}]);
        with_fields(
            json!({"eventId": event(manifest, "ticketTypes"), "userId": "limited"}),
            &json!({"items": items}),
        )
    };
    service.post("/v1/bookings", &order(3)).await.expect_problem(422, "booking_limit_exceeded");
    service.post("/v1/bookings", &order(2)).await.expect(201);
}
