//! Permissions: every operation of the API, called by every kind of caller.
//!
//! The expected statuses are written down here. The operations come from the OpenAPI document, so that an
//! operation without a row here fails the test.

use std::collections::BTreeMap;

use hyper::Method;
use serde_json::{Value, json};
use testkit::{Client, RawConnection, Response, Server, event_body, id_of};

use crate::openapi::{document, operations};
use crate::server;

/// The callers, in the order of the statuses below. The last one has a token with another signature, which is
/// refused everywhere.
const CALLERS: [&str; 6] =
    ["anonymous", "another user", "the owner", "a service", "an admin", "a forged token"];

const OPEN: [u16; 6] = [200, 200, 200, 200, 200, 401];
const SIGNED_IN: [u16; 6] = [401, 200, 200, 200, 200, 401];
const OWN: [u16; 6] = [401, 404, 200, 200, 200, 401];
const SERVICES: [u16; 6] = [401, 403, 403, 200, 200, 401];
const ADMINS: [u16; 6] = [401, 403, 403, 403, 200, 401];

/// The statuses of each operation. A booking belongs to the owner; for another user it is not found.
const MATRIX: &[(&str, &str, [u16; 6])] = &[
    ("get", "/v1/events", OPEN),
    ("post", "/v1/events", [401, 403, 403, 403, 201, 401]),
    ("get", "/v1/events/{id}", OPEN),
    ("patch", "/v1/events/{id}", ADMINS),
    ("get", "/v1/events/{id}/availability", OPEN),
    ("get", "/v1/events/{id}/availability/stream", OPEN),
    ("get", "/v1/events/{id}/ledger", ADMINS),
    ("get", "/v1/bookings", SIGNED_IN),
    // The booking is for the owner: a user may not book for another user.
    ("post", "/v1/bookings", [401, 403, 201, 201, 201, 401]),
    ("get", "/v1/bookings/{id}", OWN),
    ("post", "/v1/bookings/{id}/confirm", SERVICES),
    ("post", "/v1/bookings/{id}/cancel", OWN),
    ("get", "/v1/bookings/{id}/validate", SERVICES),
    ("get", "/v1/refunds", SERVICES),
    ("post", "/v1/refunds/{id}/settle", SERVICES),
    ("get", "/v1/stats", ADMINS),
    ("get", "/livez", OPEN),
    ("get", "/readyz", OPEN),
    ("get", "/metrics", OPEN),
    ("get", "/openapi.json", OPEN),
    ("get", "/docs", OPEN),
    ("get", "/docs/style.css", OPEN),
    ("get", "/problems/{code}", OPEN),
];

/// One request of the matrix, on its own event, booking or refund.
struct Cell {
    method: Method,
    path: String,
    body: Option<Value>,
    /// Path at which an admin sees a change.
    observed_path: Option<String>,
}

impl Cell {
    fn new(
        method: &str,
        path: impl Into<String>,
        body: Option<Value>,
        observed_path: Option<String>,
    ) -> Self {
        let method = method.to_uppercase().parse().expect("a method");
        Self { method, path: path.into(), body, observed_path }
    }

    /// A valid request for the operation; where it concerns a booking, that is a new one of the user `ada`.
    async fn prepare(admin: &mut Client, method: &str, template: &str) -> Self {
        let event = admin.create_event(&event_body(10)).await;
        let path = |id: &str| template.replace("{id}", id).replace("{code}", "sold_out");
        let of_event = || Some(format!("/v1/events/{event}"));
        match (method, template) {
            ("post", "/v1/events") => Self::new(method, template, Some(event_body(1)), None),
            ("patch", _) => Self::new(method, path(&event), Some(json!({"venue": "Elsewhere"})), of_event()),
            ("post", "/v1/bookings") => {
                let order = json!({"eventId": event, "ticketQuantity": 1, "userId": "ada"});
                Self::new(method, template, Some(order), of_event())
            }
            (_, template) if template.starts_with("/v1/bookings/{id}") => {
                let booking = id_of(&admin.book_for("ada", &event, 1).await.expect(201));
                let body = template.ends_with("/confirm").then(|| json!({"paymentTransactionId": "pay-1"}));
                let query =
                    if template.ends_with("/validate") { format!("?eventId={event}") } else { String::new() };
                let observed_path = Some(format!("/v1/bookings/{booking}"));
                Self::new(method, path(&booking) + &query, body, observed_path)
            }
            (_, template) if template.starts_with("/v1/refunds/{id}") => {
                let booking = id_of(&admin.book_for("ada", &event, 1).await.expect(201));
                admin.confirm(&booking, &event).await.expect(200);
                admin.cancel(&booking).await.expect(200);
                let refund = id_of(&admin.refunds_of(&event).await[0]);
                let body = json!({"outcome": "succeeded", "providerReference": "out-1"});
                Self::new(method, path(&refund), Some(body), Some(format!("/v1/bookings/{booking}")))
            }
            _ => Self::new(method, path(&event), None, None),
        }
    }

    async fn send(&self, server: &Server, token: Option<&str>) -> Response {
        if self.path.ends_with("/stream") {
            // The stream does not end, so only the head of the response is read.
            let mut raw = RawConnection::open(server.address()).await;
            let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
            raw.write(format!("GET {} HTTP/1.1\r\nhost: x\r\n{token}\r\n", self.path)).await;
            return raw.read_response().await.expect("a response");
        }
        let mut client = Client::new(server.address(), token.map(str::to_owned));
        client.try_request(self.method.clone(), &self.path, self.body.as_ref()).await.expect("a response")
    }
}

async fn observe(admin: &mut Client, observed_path: Option<&String>) -> Option<Value> {
    let mut observed = admin.get(observed_path?).await.expect(200);
    // The remaining time changes without a request.
    observed.as_object_mut()?.remove("expiresIn");
    Some(observed)
}

#[tokio::test]
async fn every_role_has_exactly_the_documented_permissions() {
    let document = document().await;
    let expected: BTreeMap<(&str, &str), [u16; 6]> =
        MATRIX.iter().map(|(method, path, statuses)| ((*method, *path), *statuses)).collect();
    let server = server().await;
    let mut admin = server.admin();
    let tokens = server.tokens();
    let forged = testkit::Tokens::new("another secret, of 32 bytes and more").admin();
    let tokens = [
        None,
        Some(tokens.user("eve")),
        Some(tokens.user("ada")),
        Some(tokens.service()),
        Some(tokens.admin()),
        Some(forged),
    ];
    let mut cells = 0;
    for (method, path, operation) in operations(&document) {
        let statuses = expected.get(&(method, path)).unwrap_or_else(|| panic!("{method} {path} has no row"));
        check_roles(operation, statuses);
        for ((caller, token), status) in CALLERS.iter().zip(&tokens).zip(statuses) {
            let what = format!("{method} {path} by {caller}");
            let cell = Cell::prepare(&mut admin, method, path).await;
            let before = observe(&mut admin, cell.observed_path.as_ref()).await;
            let response = cell.send(&server, token.as_deref()).await;
            assert_eq!(response.status.as_u16(), *status, "{what}: {response:?}");
            match status {
                401 => drop(response.expect_problem(401, "unauthenticated")),
                403 => drop(response.expect_problem(403, "forbidden")),
                404 => drop(response.expect_problem(404, "not_found")),
                _ => {}
            }
            let after = observe(&mut admin, cell.observed_path.as_ref()).await;
            assert!(*status < 400 || before == after, "{what} has changed {before:?} to {after:?}");
            cells += 1;
        }
    }
    assert_eq!(cells, MATRIX.len() * CALLERS.len(), "every row is an operation");
    server.expect_clean().await;
}

/// Expects the roles in the OpenAPI document to agree with the statuses.
#[track_caller]
fn check_roles(operation: &Value, statuses: &[u16; 6]) {
    let roles = operation["x-roles"].as_array().expect("a list");
    assert_eq!(roles.is_empty(), statuses[0] != 401, "{operation}");
    for (role, status) in [("user", statuses[2]), ("service", statuses[3]), ("admin", statuses[4])] {
        let may = roles.is_empty() || roles.iter().any(|one| one == role);
        assert_eq!(may, status < 400, "{role} of {operation}");
    }
}
