//! The lifecycle of a booking under concurrent requests: every race has one winner, and a payment that bought
//! no tickets is refunded exactly once.

use serde_json::{Value, json};
use testkit::{Client, Response, Server, Setup, event_body, eventually, id_of, with_fields, within_deadline};
use tokio::task::JoinSet;

use crate::{program, server};

/// Runs all futures, released together by a barrier.
async fn run_together<T: Send + 'static>(futures: Vec<impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    let start = std::sync::Arc::new(tokio::sync::Barrier::new(futures.len()));
    let mut set = JoinSet::new();
    for future in futures {
        let start = start.clone();
        set.spawn(async move {
            start.wait().await;
            future.await
        });
    }
    set.join_all().await
}

async fn connected(mut client: Client) -> Client {
    client.connect().await.expect("the server accepts connections");
    client
}

/// Number of successful responses; all others must be this refusal.
#[track_caller]
fn winners(responses: &[Response], code: &str) -> usize {
    let (won, lost): (Vec<&Response>, Vec<&Response>) =
        responses.iter().partition(|response| response.status == 200);
    for response in lost {
        response.expect_problem(409, code);
    }
    won.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_fifty_concurrent_cancellations_succeeds() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(10)).await;
    for round in 0..5 {
        let booking = id_of(&admin.book_for("ada", &event, 3).await.expect(201));
        admin.confirm(&booking, &format!("pay-{round}")).await.expect(200);
        assert_eq!(admin.counts(&event).await, (0, 3, 7));
        let mut cancels = Vec::new();
        for number in 0..50 {
            let mut client = connected(if number % 2 == 0 { server.service() } else { server.admin() }).await;
            let booking = booking.clone();
            cancels.push(async move { client.cancel(&booking).await });
        }
        let responses = run_together(cancels).await;
        assert_eq!(winners(&responses, "invalid_state"), 1);
        assert_eq!(admin.refunds_of(&format!("pay-{round}")).await.len(), 1);
        assert_eq!(admin.counts(&event).await, (0, 0, 10), "freed once");
    }
    server.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_confirmations_are_recorded_once() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(10)).await;
    let booking = id_of(&admin.book_for("ada", &event, 1).await.expect(201));
    let mut confirms = Vec::new();
    for _ in 0..30 {
        let (mut client, booking) = (connected(server.service()).await, booking.clone());
        confirms.push(async move { client.confirm(&booking, "pay-1").await });
    }
    for response in run_together(confirms).await {
        assert_eq!(response.expect(200)["version"], 2);
    }
    assert_eq!(admin.counts(&event).await, (0, 1, 9));
    server.expect_clean().await;
}

/// Checks that an acknowledged payment bought the tickets or is refunded exactly once, and that repeating its
/// webhook gets the same response.
async fn check_payment(admin: &mut Client, booking: &str, transaction: &str, first: &Response) {
    let current = admin.booking(booking).await;
    let is_paid = current["paymentTransactionId"] == transaction && current["status"] == "confirmed";
    let refunds = admin.refunds_of(transaction).await;
    assert_eq!(refunds.len(), usize::from(!is_paid), "{transaction}: {current}, first response {first:?}");
    let again = admin.confirm(booking, transaction).await;
    if is_paid {
        again.expect(200);
        return;
    }
    let body = again.json();
    assert_eq!((again.status.as_u16(), &body["refund"]), (409, &refunds[0]), "{again:?}");
    if first.status == 409 {
        assert_eq!((first.code(), &first.json()["refund"]), (again.code(), &refunds[0]), "{first:?}");
    }
    assert_eq!(admin.refunds_of(transaction).await, refunds);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_confirm_and_cancel_have_one_outcome() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(1_000)).await;
    let (mut paid_first, mut cancelled_first) = (0, 0);
    for round in 0..40 {
        let booking = id_of(&admin.book_for("ada", &event, 1).await.expect(201));
        let transaction = format!("pay-{round}");
        let (mut service, mut cancel_client) =
            (connected(server.service()).await, connected(server.admin()).await);
        let payment = service.confirm(&booking, &transaction);
        let cancellation = cancel_client.cancel(&booking);
        // The order alternates, so that both orders are tested.
        let (paid, cancelled) = if round % 2 == 0 {
            tokio::join!(payment, cancellation)
        } else {
            let (cancelled, paid) = tokio::join!(cancellation, payment);
            (paid, cancelled)
        };
        assert_eq!(cancelled.expect(200)["status"], "cancelled", "a cancellation is possible at any time");
        if paid.status == 200 {
            paid_first += 1;
        } else {
            paid.expect_problem(409, "invalid_state");
            cancelled_first += 1;
        }
        assert_eq!(admin.booking(&booking).await["status"], "cancelled");
        check_payment(&mut admin, &booking, &transaction, &paid).await;
    }
    assert_eq!(admin.counts(&event).await, (0, 0, 1_000));
    assert_eq!(admin.all("/v1/refunds").await.len(), 40);
    println!("confirm first: {paid_first}, cancel first: {cancelled_first}");
    server.expect_clean().await;
}

/// Books the last ticket of an event as soon as its hold is overdue.
async fn take_over(client: &mut Client, user: &str, event: &str) -> String {
    eventually("an overdue hold is freed for the next buyer", async || {
        let response = client.book_for(user, event, 1).await;
        if response.status == 201 {
            return Some(id_of(&response.expect(201)));
        }
        response.expect_problem(409, "sold_out");
        None
    })
    .await
}

/// Creates an event of one ticket, which the user `ada` holds for one second. Returns both ids.
async fn short_hold(server: &Server, admin: &mut Client) -> (String, String) {
    let event = admin.create_event(&with_fields(event_body(1), &json!({"holdSeconds": 1}))).await;
    let held = id_of(&server.service().book_for("ada", &event, 1).await.expect(201));
    (event, held)
}

#[tokio::test]
async fn an_overdue_hold_is_freed_for_the_next_buyer() {
    let server = server().await;
    let mut admin = server.admin();
    let (event, held) = short_hold(&server, &mut admin).await;
    let next = take_over(&mut server.service(), "bob", &event).await;
    let expired = admin.booking(&held).await;
    assert_eq!((&expired["status"], &expired["paymentStatus"]), (&json!("expired"), &json!("failed")));
    assert!(expired["expiredAt"].is_string() && expired["expiresIn"] == 0, "{expired}");
    assert_eq!(admin.counts(&event).await, (1, 0, 0));

    // The payment is too late and is refunded, also if it is repeated once the tickets are available again.
    let late = admin.confirm(&held, "pay-late").await.expect_problem(409, "hold_expired");
    assert_eq!(late["bookingStatus"], "expired");
    admin.cancel(&next).await.expect(200);
    assert_eq!(admin.counts(&event).await, (0, 0, 1));
    let again = admin.confirm(&held, "pay-late").await.expect_problem(409, "hold_expired");
    assert_eq!(again["refund"], late["refund"]);
    assert_eq!(admin.all("/v1/refunds").await, [late["refund"].clone()]);
    assert_eq!(admin.counts(&event).await, (0, 0, 1), "a refunded payment buys nothing");
    admin.cancel(&held).await.expect_problem(409, "invalid_state");
    server.expect_clean().await;
}

#[tokio::test]
async fn a_late_payment_gets_the_tickets_if_still_available() {
    let server = server().await;
    let mut admin = server.admin();
    let (event, held) = short_hold(&server, &mut admin).await;
    let next = take_over(&mut server.service(), "bob", &event).await;
    admin.cancel(&next).await.expect(200);
    let paid = admin.confirm(&held, "pay-late").await.expect(200);
    assert_eq!((&paid["status"], &paid["paymentStatus"]), (&json!("confirmed"), &json!("paid")));
    assert_eq!(admin.counts(&event).await, (0, 1, 0));
    assert_eq!(admin.all("/v1/refunds").await, [] as [Value; 0]);
    server.expect_clean().await;
}

#[tokio::test]
async fn an_overdue_hold_can_still_be_paid_if_not_freed() {
    let server = server().await;
    let mut admin = server.admin();
    let (event, held) = short_hold(&server, &mut admin).await;
    eventually("the hold is overdue", async || (admin.booking(&held).await["expiresIn"] == 0).then_some(()))
        .await;
    assert_eq!(admin.confirm(&held, "pay-1").await.expect(200)["status"], "confirmed");
    server.service().book_for("bob", &event, 1).await.expect_problem(409, "sold_out");
    server.expect_clean().await;
}

/// Payment, cancellation and the next booking, one after the other in all six orders.
#[tokio::test]
async fn every_order_of_pay_cancel_and_book_has_one_outcome() {
    // The sweeper does not run: only the next booking frees an overdue hold.
    let server = Setup::new(program()).environment("BOXOFFICE_SWEEP_EVERY", "1h").start().await;
    let mut admin = server.admin();
    let mut orders = Vec::new();
    for order in [
        [("pay", 200, ""), ("cancel", 200, ""), ("book", 201, "")],
        [("pay", 200, ""), ("book", 409, "sold_out"), ("cancel", 200, "")],
        [("cancel", 200, ""), ("pay", 409, "invalid_state"), ("book", 201, "")],
        [("cancel", 200, ""), ("book", 201, ""), ("pay", 409, "invalid_state")],
        [("book", 201, ""), ("pay", 409, "hold_expired"), ("cancel", 409, "invalid_state")],
        [("book", 201, ""), ("cancel", 409, "invalid_state"), ("pay", 409, "hold_expired")],
    ] {
        orders.push((order, short_hold(&server, &mut admin).await));
    }
    for (order, (event, held)) in orders {
        eventually("the hold is overdue", async || {
            (admin.booking(&held).await["expiresIn"] == 0).then_some(())
        })
        .await;
        let transaction = format!("pay-{held}");
        for (what, status, code) in order {
            let response = match what {
                "pay" => admin.confirm(&held, &transaction).await,
                "cancel" => admin.cancel(&held).await,
                _ => admin.book_for("bob", &event, 1).await,
            };
            assert_eq!(
                (response.status.as_u16(), response.code().as_str()),
                (status, code),
                "{what} of {order:?}"
            );
        }
        // In every order the payment buys nothing in the end, and is refunded once.
        assert_eq!(admin.refunds_of(&transaction).await.len(), 1, "{order:?}");
        let booked = u64::from(!order.contains(&("book", 409, "sold_out")));
        assert_eq!(admin.counts(&event).await, (booked, 0, 1 - booked), "{order:?}");
    }
    server.expect_clean().await;
}

/// Payment, cancellation and the next booking are sent at the moment when the hold expires.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_confirm_cancel_and_expiry_have_one_outcome() {
    let server = server().await;
    let mut admin = server.admin();
    let mut short_holds = Vec::new();
    for _ in 0..24 {
        short_holds.push(short_hold(&server, &mut admin).await);
    }
    let mut races = JoinSet::new();
    for (event, held) in short_holds {
        let (service, cancel_client) = (connected(server.service()).await, connected(server.admin()).await);
        let rival = connected(server.service()).await;
        races.spawn(async move { (race(&event, &held, service, cancel_client, rival).await, event, held) });
    }
    let mut outcomes = std::collections::BTreeMap::new();
    for (paid, event, held) in races.join_all().await {
        let transaction = format!("pay-{held}");
        check_payment(&mut admin, &held, &transaction, &paid).await;
        let status = admin.booking(&held).await["status"].as_str().unwrap().to_owned();
        let rivals = admin.all(&format!("/v1/bookings?eventId={event}&userId=bob")).await;
        let live = u64::from(status == "confirmed") + rivals.len() as u64;
        let (holds, sold, available) = admin.counts(&event).await;
        assert_eq!((holds + sold, available), (live, 1 - live), "{status}, and {} rivals", rivals.len());
        *outcomes.entry((status, paid.status.as_u16(), rivals.len())).or_insert(0) += 1;
    }
    println!("status, response to the payment, rivals: {outcomes:?}");
    server.expect_clean().await;
}

async fn race(
    event: &str,
    held: &str,
    mut service: Client,
    mut cancel_client: Client,
    mut rival: Client,
) -> Response {
    let mut polls = tokio::time::interval(std::time::Duration::from_millis(5));
    within_deadline("the hold is overdue", async {
        while cancel_client.booking(held).await["expiresIn"] != 0 {
            polls.tick().await;
        }
    })
    .await;
    let transaction = format!("pay-{held}");
    let (payment, cancellation) = (service.confirm(held, &transaction), cancel_client.cancel(held));
    let purchase = rival.book_for("bob", event, 1);
    // Each request is the first to be sent in a third of the races.
    let (paid, cancelled, booked) = match held.bytes().last().map(|last| last % 3) {
        Some(0) => tokio::join!(payment, cancellation, purchase),
        Some(1) => {
            let (cancelled, booked, paid) = tokio::join!(cancellation, purchase, payment);
            (paid, cancelled, booked)
        }
        _ => {
            let (booked, paid, cancelled) = tokio::join!(purchase, payment, cancellation);
            (paid, cancelled, booked)
        }
    };
    assert!(matches!(cancelled.status.as_u16(), 200 | 409), "{cancelled:?}");
    assert!(matches!(paid.status.as_u16(), 200 | 409), "{paid:?}");
    if booked.status != 201 {
        booked.expect_problem(409, "sold_out");
    }
    paid
}
