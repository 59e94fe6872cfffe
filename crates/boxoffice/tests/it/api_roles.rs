//! Roles and bookings: which bookings a caller may change, and for which users a caller may book.

use hyper::Method;
use serde_json::{Value, json};
use testkit::{Client, Server, event_body, id_of};

use crate::server;

/// Clients of an anonymous caller, another user, the owner, a service and an admin.
fn all_callers(server: &Server) -> [Client; 5] {
    [server.anonymous(), server.user("eve"), server.user("ada"), server.service(), server.admin()]
}

/// Sends the request as each of these callers, and expects these statuses in the same order.
async fn check(all: &mut [Client], method: Method, path: &str, body: Option<&Value>, statuses: &[u16]) {
    for (position, (client, status)) in all.iter_mut().zip(statuses).enumerate() {
        let response = client.try_request(method.clone(), path, body).await.expect("a response");
        assert_eq!(response.status.as_u16(), *status, "caller {position}: {response:?}");
        match status {
            401 => drop(response.expect_problem(401, "unauthenticated")),
            403 => drop(response.expect_problem(403, "forbidden")),
            404 => drop(response.expect_problem(404, "not_found")),
            _ => drop(response.expect(*status)),
        }
    }
}

#[tokio::test]
async fn a_booking_is_cancelled_by_its_owner_or_on_their_behalf() {
    let server = server().await;
    let mut all = all_callers(&server);
    let event = server.admin().create_event(&event_body(100)).await;
    // One booking for each caller, because a booking is cancelled once.
    for (position, status) in [401, 404, 200, 200, 200].into_iter().enumerate() {
        let booking = id_of(&server.service().book_for("ada", &event, 1).await.expect(201));
        let path = format!("/v1/bookings/{booking}/cancel");
        check(&mut all[position..=position], Method::POST, &path, None, &[status]).await;
        let after = server.admin().booking(&booking).await;
        assert_eq!(after["status"], if status == 200 { "cancelled" } else { "pending" });
    }
}

#[tokio::test]
async fn roles_decide_which_users_can_be_booked_for() {
    let server = server().await;
    let mut all = all_callers(&server);
    let event = server.admin().create_event(&event_body(100)).await;
    let own = json!({"eventId": event, "ticketQuantity": 1});
    let for_ada = testkit::with_fields(own.clone(), &json!({"userId": "ada"}));
    // Services and admins have no bookings of their own, so they must name the user.
    check(&mut all[..3], Method::POST, "/v1/bookings", Some(&own), &[401, 201, 201]).await;
    for client in &mut all[3..] {
        assert_eq!(client.post("/v1/bookings", &own).await.expect_invalid(), ["/userId"]);
    }
    check(&mut all, Method::POST, "/v1/bookings", Some(&for_ada), &[401, 403, 201, 201, 201]).await;
    let owners = server.admin().all("/v1/bookings").await;
    let count = |user: &str| owners.iter().filter(|booking| booking["userId"] == user).count();
    assert_eq!((count("ada"), count("eve")), (4, 1));
}
