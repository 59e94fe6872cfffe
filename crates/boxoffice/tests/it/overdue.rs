//! Background clean-up: overdue holds and cancelled events, despite limits, cut-offs, unreadable rows and
//! restarts.

use serde_json::{Value, json};
use testkit::{Server, Setup, event_body, eventually, id_of, with_fields};

use crate::{program, server_time};

const HOLD_SECONDS: u32 = 1;

/// Settings of a server that sweeps overdue holds every 200 ms.
fn setup_with_sweeper() -> Setup {
    Setup::new(program()).environment("BOXOFFICE_SWEEP_EVERY", "200ms")
}

/// Creates an event whose holds last one second, with these changes to its body.
async fn create_event_with_short_holds(server: &Server, changes: &Value) -> String {
    let body = with_fields(event_body(10), &json!({"holdSeconds": HOLD_SECONDS}));
    server.admin().create_event(&with_fields(body, changes)).await
}

/// The sweeper is not bound by a user's cancellation limit, nor by the cut-off of an event that starts soon.
/// The tests of `engine` cover expiry while a lock is held.
#[tokio::test]
async fn user_limits_and_cutoffs_do_not_stop_the_sweeper() {
    let server = setup_with_sweeper().environment("BOXOFFICE_CANCEL_LIMIT", "1/24h").start().await;
    let (mut admin, mut ada) = (server.admin(), server.user("ada"));
    let event = create_event_with_short_holds(&server, &json!({})).await;
    let soon = server_time(&mut admin, &event).await + jiff::SignedDuration::from_hours(1);
    admin.patch(&format!("/v1/events/{event}"), &json!({"startsAt": soon.to_string()})).await.expect(200);
    ada.cancel("bkg_01h455vb4pex5vsknk084sn02q").await.expect_problem(404, "not_found");
    let booking = id_of(&ada.book(&event, 2).await.expect(201));
    ada.cancel(&booking).await.expect_problem(429, "rate_limited");
    let expired = eventually("the hold is freed", async || {
        let booking = admin.booking(&booking).await;
        (booking["status"] != "pending").then_some(booking)
    })
    .await;
    assert_eq!((&expired["status"], &expired["paymentStatus"]), (&json!("expired"), &json!("failed")));
    let at = |name: &str| expired[name].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok()).unwrap();
    assert!(at("expiredAt") >= at("holdExpiresAt"), "{expired}");
    assert_eq!(admin.counts(&event).await, (0, 0, 10));
    let ledger = admin.all(&format!("/v1/events/{event}/ledger")).await;
    let freed = ledger.last().expect("an entry");
    assert_eq!((&freed["type"], &freed["actor"]), (&json!("booking.expired"), &json!("system")));
    server.expect_clean().await;
}

#[tokio::test]
async fn an_unreadable_row_does_not_stop_other_holds_from_expiring() {
    let mut server = setup_with_sweeper().start().await;
    let mut admin = server.admin();
    let event = create_event_with_short_holds(&server, &json!({})).await;
    let other = create_event_with_short_holds(&server, &json!({})).await;
    let mut held = Vec::new();
    for number in 0..4 {
        let user = format!("user-{number}");
        held.push(id_of(&admin.book_for(&user, &event, 1).await.expect(201)));
    }
    let elsewhere = id_of(&admin.book_for("ada", &other, 1).await.expect(201));
    server.kill9();
    let database = rusqlite::Connection::open(server.database()).unwrap();
    let corrupted =
        database.execute("UPDATE bookings SET items = 'no JSON' WHERE user_id = 'user-1'", []).unwrap();
    assert_eq!(corrupted, 1);
    drop(database);
    let server = server.restart().await;
    let mut admin = server.admin();
    eventually("all holds but one are freed", async || {
        let (held, free) = (admin.counts(&event).await, admin.counts(&other).await);
        (held == (1, 0, 9) && free == (0, 0, 10)).then_some(())
    })
    .await;
    for booking in [&held[0], &held[2], &held[3], &elsewhere] {
        assert_eq!(admin.booking(booking).await["status"], "expired");
    }
    let unreadable = admin.get(&format!("/v1/bookings/{}", held[1])).await;
    let body = unreadable.expect_problem(500, "internal_error");
    assert!(!body.to_string().contains("JSON"), "the cause is only logged: {body}");
    server
        .log()
        .find(|line| line.contains("cannot be expired").then_some(()))
        .await
        .expect("a line in the log");
    // Sales continue, and the audit reports the row.
    admin.book_for("eve", &event, 9).await.expect(201);
    assert_eq!(program().audit(server.database()).await.0, 1);
}

/// The cancellation of an event resumes where it stopped, also after a restart.
#[tokio::test]
async fn the_bookings_of_a_cancelled_event_are_cancelled_and_refunded_once() {
    let mut server = setup_with_sweeper().start().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(1_000)).await;
    for number in 0..30 {
        let booking = id_of(&admin.book_for(&format!("user-{number}"), &event, 1).await.expect(201));
        if number % 2 == 0 {
            admin.confirm(&booking, &format!("pay-{number}")).await.expect(200);
        }
    }
    admin.patch(&format!("/v1/events/{event}"), &json!({"status": "cancelled"})).await.expect(200);
    server.user("late").book(&event, 1).await.expect_problem(409, "event_cancelled");
    server.kill9();
    let server = server.restart().await;
    let mut admin = server.admin();
    eventually("every booking is cancelled", async || {
        (admin.counts(&event).await == (0, 0, 1_000)).then_some(())
    })
    .await;
    let bookings = admin.all(&format!("/v1/bookings?eventId={event}")).await;
    assert!(bookings.iter().all(|booking| booking["status"] == "cancelled"), "{bookings:?}");
    assert!(bookings.iter().all(|booking| booking["cancellationReason"].is_string()), "{bookings:?}");
    let refunds = admin.all("/v1/refunds?status=requested").await;
    assert_eq!(refunds.len(), 15);
    assert!(refunds.iter().all(|refund| refund["reason"] == "event_cancelled"), "{refunds:?}");
    server.expect_clean().await;
}

/// A booking that needs the tickets of an overdue hold frees it, without waiting for the sweeper.
#[tokio::test]
async fn overdue_holds_are_freed_on_demand() {
    let server = Setup::new(program()).environment("BOXOFFICE_SWEEP_EVERY", "24h").start().await;
    let mut service = server.service();
    let event = create_event_with_short_holds(&server, &json!({"maxTicketsPerUser": 10})).await;
    let held = id_of(&service.book_for("ada", &event, 10).await.expect(201));
    // The overdue hold causes no refusal, neither for lack of tickets nor by the user's own limit.
    let next = eventually("the tickets are free for the same user", async || {
        let response = service.book_for("ada", &event, 10).await;
        (response.status == 201).then(|| id_of(&response.expect(201)))
    })
    .await;
    assert_ne!(held, next);
    assert_eq!(service.booking(&held).await["status"], "expired");
    let ledger = server.admin().all(&format!("/v1/events/{event}/ledger")).await;
    let kinds: Vec<&str> = ledger.iter().filter_map(|entry| entry["type"].as_str()).collect();
    assert_eq!(kinds, ["event.created", "booking.created", "booking.expired", "booking.created"]);
    assert_eq!(service.counts(&event).await, (10, 0, 0));
}
