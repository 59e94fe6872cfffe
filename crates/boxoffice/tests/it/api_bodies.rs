//! Request bodies that are malformed, too large, endless, or of another media type.

use serde_json::json;
use testkit::{RawConnection, Server, event_body};

use crate::server;

const LIMIT: usize = 64 * 1024;

/// The head of a `POST /v1/bookings` request with a service's token and these further header lines.
fn head(server: &Server, lines: &str) -> String {
    let token = server.tokens().service();
    format!("POST /v1/bookings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{lines}\r\n")
}

/// A valid order, padded with spaces to `length` bytes.
fn padded_order(event: &str, length: usize) -> String {
    let order = json!({"eventId": event, "ticketQuantity": 1, "userId": "ada"}).to_string();
    format!("{order}{}", " ".repeat(length - order.len()))
}

#[tokio::test]
async fn malformed_json_is_refused() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(10)).await;
    let broken = [
        "",
        " ",
        "{",
        "}",
        "{}}",
        "{\"eventId\":}",
        "{'eventId':1}",
        "{\"a\":1,}",
        "nul",
        "[1",
        "\"abc",
        "{\"eventId\":\"\\x\"}",
        "{\"eventId\":\"a\nb\"}",
        "{\"ticketQuantity\":01}",
        "{\"ticketQuantity\":NaN}",
        "{\"ticketQuantity\":+1}",
        "\u{feff}{}",
        "{} {}",
        "{\"ticketQuantity\":1e999}",
    ];
    for body in broken {
        let response = admin.post_text("/v1/bookings", body).await;
        assert_eq!(response.status, 400, "{body:?}: {response:?}");
        response.expect_problem(400, "malformed_request");
    }
    for bytes in [&b"{\"eventId\":\"\xff\"}"[..], b"\xff\xfe{\x00}\x00", b"\x00", b"\x1f\x8b\x08\x00"] {
        let response = admin.post_text("/v1/bookings", bytes.to_vec()).await;
        response.expect_problem(400, "malformed_request");
    }
    admin.post_text("/v1/bookings", padded_order(&event, 200)).await.expect(201);
}

#[tokio::test]
async fn json_of_the_wrong_shape_is_refused_with_a_pointer() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(10)).await;
    let order = |rest: &str| format!("{{\"eventId\":\"{event}\",\"userId\":\"ada\",{rest}}}");
    let refused = [
        ("null".to_owned(), ""),
        ("1".to_owned(), ""),
        ("\"text\"".to_owned(), ""),
        ("true".to_owned(), ""),
        ("[]".to_owned(), ""),
        (" [1]".to_owned(), ""),
        (format!("[\"{event}\",1,null,null,null,\"ada\"]"), ""),
        (order("\"ticketQuantity\":1,\"ticketQuantity\":1"), ""),
        (order("\"ticketQuantity\":1,\"userId\":\"eve\""), ""),
        (
            order("\"ticketQuantity\":1,\"expectedTotal\":{\"amount\":1,\"amount\":1,\"currency\":\"EUR\"}"),
            "/expectedTotal",
        ),
        (order("\"ticketQuantity\":1e2"), "/ticketQuantity"),
        (order("\"ticketQuantity\":-0"), "/ticketQuantity"),
        (order("\"ticketQuantity\":18446744073709551616"), "/ticketQuantity"),
        (order("\"ticketQuantity\":1,\"event_id\":1"), "/event_id"),
        (order("\"ticketQuantity\":1,\"__proto__\":{}"), "/__proto__"),
        (order("\"ticketQuantity\":1,\"a/b~c\":1"), "/a~1b~0c"),
    ];
    for (body, pointer) in refused {
        let response = admin.post_text("/v1/bookings", body.clone()).await;
        assert_eq!(response.expect_invalid(), [pointer], "{body}: {response:?}");
    }
    assert_eq!(admin.counts(&event).await.0, 0, "no refused order holds a ticket");
}

#[tokio::test]
async fn deep_nesting_is_refused() {
    let server = server().await;
    let mut admin = server.admin();
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{\"eventId\":", "}"), ("{\"items\":[", "]}")] {
        let depth = 60_000 / (open.len() + close.len());
        let body = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        for (path, body) in [("/v1/bookings", body.clone()), ("/v1/events", body[..30_000].to_owned())] {
            let response = admin.post_text(path, body).await;
            assert!(response.status == 400 || response.status == 422, "{open}: {response:?}");
            assert_eq!(response.header("content-type"), "application/problem+json");
        }
    }
    admin.get("/v1/events").await.expect(200);
}

#[tokio::test]
async fn bodies_are_limited_to_64_kib() {
    let server = server().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let mut service = server.service();
    service.post_text("/v1/bookings", padded_order(&event, LIMIT)).await.expect(201);
    service
        .post_text("/v1/bookings", padded_order(&event, LIMIT + 1))
        .await
        .expect_problem(413, "payload_too_large");
    service.post_text("/v1/bookings", " ".repeat(LIMIT + 1)).await.expect_problem(413, "payload_too_large");

    // The announced length is enough for a refusal: the server does not wait for the body.
    let mut raw = RawConnection::open(server.address()).await;
    let lines = format!("content-type: application/json\r\ncontent-length: {}\r\n", LIMIT + 1);
    raw.write(head(&server, &lines)).await;
    raw.read_response().await.expect("a response before the body").expect_problem(413, "payload_too_large");

    // In chunks, without an announced length.
    for (length, accepted) in [(LIMIT, true), (LIMIT + 1, false)] {
        let mut raw = RawConnection::open(server.address()).await;
        raw.write(head(&server, "content-type: application/json\r\ntransfer-encoding: chunked\r\n")).await;
        for chunk in padded_order(&event, length).as_bytes().chunks(4_096) {
            raw.write(format!("{:x}\r\n", chunk.len())).await;
            raw.write(chunk).await;
            raw.write("\r\n").await;
        }
        raw.write("0\r\n\r\n").await;
        let response = raw.read_response().await.expect("a response");
        if accepted {
            response.expect(201);
        } else {
            response.expect_problem(413, "payload_too_large");
        }
    }
    assert_eq!(service.counts(&event).await.0, 2);
}

#[tokio::test]
async fn endless_chunked_bodies_are_refused() {
    let server = server().await;
    let mut raw = RawConnection::open(server.address()).await;
    raw.write(head(&server, "content-type: application/json\r\ntransfer-encoding: chunked\r\n")).await;
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    for _ in 0..17 {
        raw.write(&chunk).await;
    }
    raw.read_response()
        .await
        .expect("a response before the body ends")
        .expect_problem(413, "payload_too_large");
}

#[tokio::test]
async fn a_json_content_type_is_required() {
    let server = server().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let body = padded_order(&event, 200);
    let post = async |content_type: &str| {
        let mut raw = RawConnection::open(server.address()).await;
        raw.write(head(&server, &format!("{content_type}content-length: {}\r\n", body.len()))).await;
        raw.write(&body).await;
        raw.read_response().await.expect("a response")
    };
    for wrong in
        ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data"]
    {
        let line = if wrong.is_empty() { String::new() } else { format!("content-type: {wrong}\r\n") };
        post(&line).await.expect_problem(415, "unsupported_media_type");
    }
    for good in
        ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json ;x=y"]
    {
        post(&format!("content-type: {good}\r\n")).await.expect(201);
    }
}

#[tokio::test]
async fn a_cancellation_needs_no_body() {
    let server = server().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let mut service = server.service();
    for _ in 0..2 {
        let booking = testkit::id_of(&service.book_for("ada", &event, 1).await.expect(201));
        let mut raw = RawConnection::open(server.address()).await;
        let token = server.tokens().service();
        let head = format!(
            "POST /v1/bookings/{booking}/cancel HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        );
        raw.write(format!("{head}content-length: 0\r\n\r\n")).await;
        assert_eq!(raw.read_response().await.expect("a response").expect(200)["status"], "cancelled");
    }
}

#[tokio::test]
async fn invalid_http_closes_only_its_own_connection() {
    let server = server().await;
    let mut client = server.anonymous();
    client.get("/v1/events").await.expect(200);
    let long = format!("GET /v1/events HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(40_000));
    let both = "POST /v1/bookings HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}   ";
    for bytes in [
        "\u{0}\u{1}\u{2}\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\u{16}\u{3}\u{1}hello\r\n\r\n",
        &long,
        both,
    ] {
        let mut raw = RawConnection::open(server.address()).await;
        raw.write(bytes).await;
        if let Some(response) = raw.read_response().await {
            assert!(response.status.is_client_error(), "{response:?}");
        }
        assert!(raw.is_closed().await);
    }
    client.get("/v1/events").await.expect(200);
}
