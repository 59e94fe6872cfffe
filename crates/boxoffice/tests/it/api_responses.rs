//! The precedence of errors, and properties that all responses share.

use hyper::Method;
use serde_json::{Value, json};
use testkit::{Client, Response, Server, event_body, id_of, with_fields};

use crate::server;

/// A request that may be invalid in several ways.
struct InvalidRequest {
    token: Option<String>,
    path: String,
    content_type: &'static str,
    body: String,
}

async fn post(server: &Server, request: &InvalidRequest) -> Response {
    let mut client = Client::new(server.address(), request.token.clone());
    let headers = [("content-type", request.content_type)];
    client.request_with(Method::POST, &request.path, &headers, request.body.clone()).await
}

#[tokio::test]
async fn errors_are_checked_in_documented_order() {
    let server = server().await;
    let tokens = server.tokens();
    let event = server.admin().create_event(&event_body(1)).await;
    let booking = id_of(&server.user("ada").book(&event, 1).await.expect(201));
    server.user("ada").cancel(&booking).await.expect(200);
    let valid = json!({"paymentTransactionId": "pay-1"}).to_string();
    // At first everything is invalid: token, size, media type, role, JSON, booking, and the booking's state.
    let mut request = InvalidRequest {
        token: Some("forged".to_owned()),
        path: "/v1/bookings/bkg_01h455vb4pex5vsknk084sn02q/confirmed".to_owned(),
        content_type: "text/plain",
        body: "{".repeat(70_000),
    };
    post(&server, &request).await.expect_problem(401, "unauthenticated");
    request.token = None;
    post(&server, &request).await.expect_problem(404, "not_found");
    request.path = "/v1/bookings/bkg_01h455vb4pex5vsknk084sn02q/confirm".to_owned();
    post(&server, &request).await.expect_problem(401, "unauthenticated");
    request.token = Some(tokens.user("ada"));
    post(&server, &request).await.expect_problem(413, "payload_too_large");
    request.body = "{".to_owned();
    post(&server, &request).await.expect_problem(415, "unsupported_media_type");
    request.content_type = "application/json; charset=utf-8";
    post(&server, &request).await.expect_problem(403, "forbidden");
    request.token = Some(tokens.service());
    post(&server, &request).await.expect_problem(400, "malformed_request");
    request.body = "{}".to_owned();
    post(&server, &request).await.expect_problem(422, "validation_failed");
    request.body = valid;
    post(&server, &request).await.expect_problem(404, "not_found");
    request.path = format!("/v1/bookings/{booking}/confirm");
    post(&server, &request).await.expect_problem(409, "invalid_state");
}

#[tokio::test]
async fn a_version_is_compared_after_the_body_is_read() {
    let server = server().await;
    let mut admin = server.admin();
    let path = format!("/v1/events/{}", admin.create_event(&event_body(1)).await);
    let headers = [("content-type", "application/json"), ("if-match", "\"7\"")];
    let mut edit =
        async |path: &str, body: &'static str| admin.request_with(Method::PATCH, path, &headers, body).await;
    edit(&path, "{").await.expect_problem(400, "malformed_request");
    edit(&path, r#"{"capacity":"x"}"#).await.expect_problem(422, "validation_failed");
    edit("/v1/events/evt_01h455vb4pex5vsknk084sn02q", "{}").await.expect_problem(404, "not_found");
    edit(&path, "{}").await.expect_problem(412, "version_mismatch");
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let server = server().await;
    let mut client = server.anonymous();
    let booking = "/v1/bookings/bkg_01h455vb4pex5vsknk084sn02q";
    let nowhere =
        ["/", "/v1", "/v1/", "/v1/nowhere", "/v2/events", "/v1/events/", "/v1/bookings/a/b/c", "/%00"];
    for path in nowhere {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS] {
            let response = client.try_request(method, path, None).await.unwrap();
            response.expect_problem(404, "not_found");
        }
    }
    let methods = [
        ("/v1/events", Method::PUT, "GET,HEAD,POST"),
        ("/v1/events/evt_x", Method::POST, "GET,HEAD,PATCH"),
        ("/v1/events/evt_x/availability", Method::POST, "GET,HEAD"),
        ("/v1/events/evt_x/ledger", Method::DELETE, "GET,HEAD"),
        ("/v1/bookings", Method::PATCH, "GET,HEAD,POST"),
        (booking, Method::DELETE, "GET,HEAD"),
        (&format!("{booking}/confirm"), Method::GET, "POST"),
        (&format!("{booking}/cancel"), Method::OPTIONS, "POST"),
        ("/v1/refunds", Method::POST, "GET,HEAD"),
    ];
    for (path, method, allowed) in methods {
        let response = client.try_request(method, path, None).await.unwrap();
        response.expect_problem(405, "method_not_allowed");
        let mut allow: Vec<&str> = response.header("allow").split(',').map(str::trim).collect();
        allow.sort_unstable();
        assert_eq!(allow.join(","), allowed, "{path}");
    }
}

#[tokio::test]
async fn non_utf8_paths_return_404() {
    let server = server().await;
    let mut admin = server.admin();
    for path in ["/v1/events/%ff", "/v1/events/%ff/availability", "/v1/events/%ff/ledger", "/v1/bookings/%ff"]
    {
        let response = admin.get(path).await;
        response.expect_problem(404, "not_found");
    }
    for path in ["/v1/bookings/%ff/confirm", "/v1/bookings/%ff/cancel"] {
        let response = admin.post(path, &json!({"paymentTransactionId": "pay-1"})).await;
        assert!(response.status == 404 || response.status == 422, "{response:?}");
        assert_eq!(response.header("content-type"), "application/problem+json");
    }
    for id in [
        "bkg_%00",
        "bkg_ä",
        "BKG_01H455VB4PEX5VSKNK084SN02Q",
        "bkg_81h455vb4pex5vsknk084sn02q",
        "%2e%2e",
        "'",
    ] {
        let path = format!("/v1/bookings/{}", id.replace('ä', "%C3%A4"));
        admin.get(&path).await.expect_problem(404, "not_found");
    }
    let long = format!("/v1/events/{}", "x".repeat(8_000));
    admin.get(&long).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn head_returns_headers_without_a_body() {
    let server = server().await;
    let mut client = server.anonymous();
    let found = client.try_request(Method::HEAD, "/v1/events", None).await.unwrap();
    assert_eq!((found.status.as_u16(), found.body.len()), (200, 0));
    let missing = client.try_request(Method::HEAD, "/v1/nowhere", None).await.unwrap();
    assert_eq!((missing.status.as_u16(), missing.body.len()), (404, 0));
    client.get("/v1/events").await.expect(200);
}

async fn request_with_id(
    client: &mut Client,
    method: Method,
    path: &str,
    id: &str,
    body: &Value,
) -> Response {
    let headers = [("x-request-id", id), ("content-type", "application/json")];
    client.request_with(method, path, &headers, body.to_string()).await
}

#[tokio::test]
async fn a_request_id_is_carried_from_the_caller_to_the_ledger() {
    let server = server().await;
    let mut admin = server.admin();
    let created = request_with_id(&mut admin, Method::POST, "/v1/events", "req-create", &event_body(1)).await;
    assert_eq!(created.header("x-request-id"), "req-create");
    let event = id_of(&created.expect(201));
    let order = json!({"eventId": event, "ticketQuantity": 1});
    let mut ada = server.user("ada");
    let booked = request_with_id(
        &mut ada,
        Method::POST,
        "/v1/bookings",
        "~req/Book;1=%ä".trim_end_matches('ä'),
        &order,
    )
    .await;
    let booking = id_of(&booked.expect(201));
    assert_eq!(booked.header("x-request-id"), "~req/Book;1=%");
    let sold_out = request_with_id(&mut ada, Method::POST, "/v1/bookings", "req-late", &order).await;
    assert_eq!(sold_out.expect_problem(409, "sold_out")["requestId"], "req-late");
    // A request without an id gets one from the server.
    let cancelled = ada.cancel(&booking).await;
    let fresh = cancelled.header("x-request-id").to_owned();
    assert!(fresh.starts_with("req_"), "{cancelled:?}");
    let ledger = admin.all(&format!("/v1/events/{event}/ledger")).await;
    let request_ids: Vec<&str> = ledger.iter().filter_map(|entry| entry["requestId"].as_str()).collect();
    assert_eq!(request_ids, ["req-create", "~req/Book;1=%", &fresh]);
}

#[tokio::test]
async fn invalid_request_ids_are_replaced() {
    let server = server().await;
    let mut client = server.anonymous();
    let nothing = Value::Null;
    let longest = "x".repeat(128);
    let unchanged = request_with_id(&mut client, Method::GET, "/v1/nowhere", &longest, &nothing).await;
    assert_eq!(unchanged.expect_problem(404, "not_found")["requestId"], longest);
    for bad in ["", "a b", "\t", &"x".repeat(129)] {
        let response = request_with_id(&mut client, Method::GET, "/v1/nowhere", bad, &nothing).await;
        let id = response.expect_problem(404, "not_found")["requestId"].clone();
        assert!(id.as_str().is_some_and(|id| id.starts_with("req_")), "{bad:?}: {id}");
    }
    let [first, second] = [client.get("/v1/events").await, client.get("/v1/events").await];
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

#[tokio::test]
async fn errors_never_return_client_input_as_html() {
    let server = server().await;
    let body = with_fields(event_body(1), &json!({"<script>": 1}));
    let response = server.admin().post("/v1/events", &body).await;
    response.expect_problem(422, "validation_failed");
    assert_eq!(response.header("content-type"), "application/problem+json", "never text/html");
}
