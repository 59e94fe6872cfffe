//! Clients that send or read slowly, endlessly or in great numbers do not affect well-behaved clients.

use std::time::Duration;

use testkit::{RawConnection, Server, Setup, event_body, eventually, id_of, within_deadline};
use tokio::time::sleep;

use crate::{program, server};

/// More than the rest of the time that the server waits for a client to read (`limit.rs`), after the slow
/// senders have timed out.
const READER_TIMEOUT: Duration = Duration::from_secs(10);

/// Expects that a well-behaved client can book, pay and read.
async fn expect_service(server: &Server) {
    let mut service = server.service();
    let event = server.admin().create_event(&event_body(10)).await;
    let booking = id_of(&service.book_for("ada", &event, 1).await.expect(201));
    service.confirm(&booking, "pay-1").await.expect(200);
    assert_eq!(service.counts(&event).await, (0, 1, 9));
}

/// The head of a `POST /v1/bookings` request with a service's token and these further header lines.
fn head(server: &Server, lines: &str) -> String {
    let token = server.tokens().service();
    format!(
        "POST /v1/bookings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\n{lines}\r\n"
    )
}

async fn connections(server: &Server, count: usize, bytes: &str) -> Vec<RawConnection> {
    let mut open = Vec::new();
    for _ in 0..count {
        let mut raw = RawConnection::open(server.address()).await;
        raw.write(bytes).await;
        open.push(raw);
    }
    open
}

/// Half a head, half a body, and clients that read nothing, all at the same time: each of them times out.
#[tokio::test]
async fn slow_clients_time_out_and_do_not_delay_others() {
    let server = server().await;
    let page = server.anonymous().get("/docs").await.body.len();
    // Far more than the buffers of two sockets hold.
    let requested = 400;
    let readers = connections(&server, 5, &"GET /docs HTTP/1.1\r\nhost: x\r\n\r\n".repeat(requested)).await;
    let half_body = format!("{}{{\"eventId\":", head(&server, "content-length: 200\r\n"));
    let mut bodies = connections(&server, 50, &half_body).await;
    let mut heads = Vec::new();
    for half in ["", "G", "GET /v1/events HTTP/1.1\r\nhost: ", "POST /v1/bookings HTTP/1.1\r\nhost: x\r\n"] {
        heads.extend(connections(&server, 20, half).await);
    }
    expect_service(&server).await;
    // A client that closes its connection in the middle changes nothing.
    drop(bodies.pop());
    for mut body in bodies {
        let response = body.read_response().await.expect("a response to the unfinished body");
        response.expect_problem(400, "malformed_request");
    }
    for mut head in heads {
        assert!(head.read_response().await.is_none_or(|response| response.status == 408), "timed out");
    }
    sleep(READER_TIMEOUT).await;
    for mut reader in readers {
        let mut read = 0;
        while let Some(response) = reader.read_response_if_complete().await {
            read += 1;
            assert_eq!(response.body.len(), page);
        }
        assert!(read < requested, "the connection was closed before all responses were written");
    }
    expect_service(&server).await;
    assert_eq!(server.admin().all("/v1/bookings").await.len(), 2, "no other booking was made");
}

#[tokio::test]
async fn oversized_request_heads_are_refused() {
    let server = server().await;
    let lines = |count: usize| "x-y: z\r\n".repeat(count);
    let long = format!("x-long: {}\r\n", "y".repeat(20_000));
    for (fields, status) in [(lines(90), 200), (lines(120), 431), (lines(5_000), 431), (long, 431)] {
        let mut raw = RawConnection::open(server.address()).await;
        raw.write(format!("GET /livez HTTP/1.1\r\nhost: x\r\n{fields}\r\n")).await;
        let response = raw.read_response().await.expect("a response");
        assert_eq!(response.status, status, "{response:?}");
    }
    let mut raw = RawConnection::open(server.address()).await;
    raw.write(format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100_000))).await;
    let response = raw.read_response().await.expect("a response");
    assert!([414, 431].contains(&response.status.as_u16()), "{response:?}");
    expect_service(&server).await;
}

/// Endless bodies are refused once they exceed the limit, however they are sent.
#[tokio::test]
async fn endless_bodies_are_refused() {
    let server = server().await;
    let chunked = head(&server, "transfer-encoding: chunked\r\n");
    for (what, head, part) in [
        ("large chunks", &chunked, format!("10000\r\n{}\r\n", " ".repeat(0x1_0000))),
        ("one byte a chunk", &chunked, "1\r\n \r\n".repeat(10_000)),
        ("an announced length", &head(&server, "content-length: 1000000000\r\n"), " ".repeat(100_000)),
    ] {
        let mut raw = RawConnection::open(server.address()).await;
        raw.write(head).await;
        for _ in 0..8 {
            raw.write(&part).await;
        }
        let response = raw.read_response().await.unwrap_or_else(|| panic!("no response to {what}"));
        response.expect_problem(413, "payload_too_large");
    }
    for wrong in
        ["content-length: -1", "content-length: 1x", "transfer-encoding: chunked\r\ncontent-length: 5"]
    {
        let mut raw = RawConnection::open(server.address()).await;
        raw.write(head(&server, &format!("{wrong}\r\n")) + "0\r\n\r\n").await;
        if let Some(response) = raw.read_response().await {
            assert!(response.status.is_client_error(), "{wrong}: {response:?}");
        }
    }
    expect_service(&server).await;
}

/// The connections of an address are limited, except those of this machine's own addresses.
#[tokio::test]
async fn idle_connections_do_not_delay_other_clients() {
    let server = Setup::new(program()).start().await;
    let mut idle = Vec::new();
    for _ in 0..600 {
        idle.push(RawConnection::open(server.address()).await);
    }
    within_deadline("a well-behaved client is served", expect_service(&server)).await;
    drop(idle);
    eventually("the connections are closed", async || {
        let (mut client, path) = (server.anonymous(), "/v1/events");
        (client.get(path).await.status == 200).then_some(())
    })
    .await;
}
