//! Senders and readers that are slow, endless or many: whoever is honest is served all the same.

use std::time::Duration;

use testkit::{RawConnection, Server, Setup, event_body, eventually, id_of, within_deadline};
use tokio::time::sleep;

use crate::{program, server};

/// How long the server waits for a reader (`limit.rs`), less what the senders before took of it, and more.
const READER_TIMEOUT: Duration = Duration::from_secs(10);

/// An honest client books, pays and reads.
async fn expect_service(server: &Server) {
    let mut service = server.service();
    let event = server.admin().create_event(&event_body(10)).await;
    let booking = id_of(&service.book_for("ada", &event, 1).await.expect(201));
    service.confirm(&booking, "pay-1").await.expect(200);
    assert_eq!(service.counts(&event).await, (0, 1, 9));
}

/// A request head for `POST /v1/bookings` of a service, with more header lines.
fn head(server: &Server, lines: &str) -> String {
    let token = server.tokens().service();
    format!(
        "POST /v1/bookings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n{lines}\r\n"
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

/// Half a head, half a body, and readers that read nothing: all at once, and each is given up in the end.
#[tokio::test]
async fn slow_clients_time_out_and_do_not_delay_others() {
    let server = server().await;
    let page = server.anonymous().get("/docs").await.body.len();
    // Far more than the buffers between two sockets take.
    let asked = 400;
    let readers = connections(&server, 5, &"GET /docs HTTP/1.1\r\nhost: x\r\n\r\n".repeat(asked)).await;
    let half_body = format!("{}{{\"eventId\":", head(&server, "content-length: 200\r\n"));
    let mut bodies = connections(&server, 50, &half_body).await;
    let mut heads = Vec::new();
    for half in ["", "G", "GET /v1/events HTTP/1.1\r\nhost: ", "POST /v1/bookings HTTP/1.1\r\nhost: x\r\n"] {
        heads.extend(connections(&server, 20, half).await);
    }
    expect_service(&server).await;
    // One that hangs up in the middle changes nothing.
    drop(bodies.pop());
    for mut body in bodies {
        let answer = body.read_response().await.expect("an answer to a body that never came");
        answer.expect_problem(400, "malformed_request");
    }
    for mut head in heads {
        assert!(head.read_response().await.is_none_or(|answer| answer.status == 408), "given up");
    }
    sleep(READER_TIMEOUT).await;
    for mut reader in readers {
        let mut read = 0;
        while let Some(answer) = reader.read_response_if_complete().await {
            read += 1;
            assert_eq!(answer.body.len(), page);
        }
        assert!(read < asked, "the connection was given up before all was written");
    }
    expect_service(&server).await;
    assert_eq!(server.admin().all("/v1/bookings").await.len(), 2, "nobody else has booked");
}

#[tokio::test]
async fn oversized_request_heads_are_refused() {
    let server = server().await;
    let lines = |count: usize| "x-y: z\r\n".repeat(count);
    let long = format!("x-long: {}\r\n", "y".repeat(20_000));
    for (fields, status) in [(lines(90), 200), (lines(120), 431), (lines(5_000), 431), (long, 431)] {
        let mut raw = RawConnection::open(server.address()).await;
        raw.write(format!("GET /livez HTTP/1.1\r\nhost: x\r\n{fields}\r\n")).await;
        let answer = raw.read_response().await.expect("an answer");
        assert_eq!(answer.status, status, "{answer:?}");
    }
    let mut raw = RawConnection::open(server.address()).await;
    raw.write(format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100_000))).await;
    let answer = raw.read_response().await.expect("an answer");
    assert!([414, 431].contains(&answer.status.as_u16()), "{answer:?}");
    expect_service(&server).await;
}

/// Bodies without end: each is cut off where it is larger than it may be, however it comes.
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
        let answer = raw.read_response().await.unwrap_or_else(|| panic!("no answer to {what}"));
        answer.expect_problem(413, "payload_too_large");
    }
    for wrong in
        ["content-length: -1", "content-length: 1x", "transfer-encoding: chunked\r\ncontent-length: 5"]
    {
        let mut raw = RawConnection::open(server.address()).await;
        raw.write(head(&server, &format!("{wrong}\r\n")) + "0\r\n\r\n").await;
        if let Some(answer) = raw.read_response().await {
            assert!(answer.status.is_client_error(), "{wrong}: {answer:?}");
        }
    }
    expect_service(&server).await;
}

/// One address may have so many connections; this machine's own are never counted, a stranger's are.
#[tokio::test]
async fn idle_connections_do_not_delay_other_clients() {
    let server = Setup::new(program()).start().await;
    let mut idle = Vec::new();
    for _ in 0..600 {
        idle.push(RawConnection::open(server.address()).await);
    }
    within_deadline("an honest client is served", expect_service(&server)).await;
    drop(idle);
    eventually("they are gone", async || {
        let (mut client, path) = (server.anonymous(), "/v1/events");
        (client.get(path).await.status == 200).then_some(())
    })
    .await;
}
