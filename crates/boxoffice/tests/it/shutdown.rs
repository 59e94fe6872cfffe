//! SIGTERM: requests in flight are completed, acknowledged changes are stored, no new request is accepted.

use serde_json::json;
use testkit::{Exit, Load, RawConnection, Server, event_body, eventually, id_of};
use tokio::net::TcpStream;

use crate::server;

/// A booking request whose head the server has read and confirmed with 100 Continue.
async fn open_request(server: &Server, body: &str) -> RawConnection {
    let token = server.tokens().service();
    let mut raw = RawConnection::open(server.address()).await;
    raw.write(format!(
        "POST /v1/bookings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    ))
    .await;
    // Sent when a handler begins to read the body: from here on the request is in flight.
    assert_eq!(raw.read_response().await.expect("100 Continue").status, 100);
    raw
}

async fn wait_until_connections_are_refused(server: &Server) {
    eventually("new connections are refused", async || {
        TcpStream::connect(server.address()).await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn requests_in_flight_are_completed() {
    let mut server = server().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let body = json!({"eventId": event, "ticketQuantity": 2, "userId": "ada"}).to_string();
    let mut idle = server.anonymous();
    idle.get("/v1/events").await.expect(200);
    let mut raw = open_request(&server, &body).await;
    server.terminate();
    wait_until_connections_are_refused(&server).await;
    assert!(server.is_running(), "it waits for the request in flight");
    raw.write(&body).await;
    let booking = raw.read_response().await.expect("a response").expect(201);
    assert!(raw.is_closed().await);
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
    let server = server.restart().await;
    assert_eq!(server.admin().booking(&id_of(&booking)).await["status"], "pending");
    server.expect_clean().await;
}

#[tokio::test]
async fn shutdown_times_out_on_unfinished_requests() {
    let server = testkit::Setup::new(crate::program());
    let mut server = server.argument("--shutdown-timeout").argument("300ms").start().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let body = json!({"eventId": event, "ticketQuantity": 2, "userId": "ada"}).to_string();
    let raw = open_request(&server, &body).await;
    server.terminate();
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
    drop(raw);
}

#[tokio::test]
async fn a_second_signal_stops_the_server_immediately() {
    let mut server = server().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let body = json!({"eventId": event, "ticketQuantity": 2, "userId": "ada"}).to_string();
    let _raw = open_request(&server, &body).await;
    server.terminate();
    wait_until_connections_are_refused(&server).await;
    server.terminate();
    assert_eq!(server.wait_for_exit().await, Exit::Code(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_under_load_keeps_every_acknowledged_change() {
    let mut server = server().await;
    for round in 1..=5 {
        let event = server.admin().create_event(&event_body(1_000_000)).await;
        let mut load = Load::start(&server, std::slice::from_ref(&event), 8);
        load.wait_for_acknowledged(round * 30).await;
        server.terminate();
        let journal = load.wait_until_disconnected().await;
        assert!(journal.codes().is_empty(), "no client got an error: {:?}", journal.codes());
        assert_eq!(server.wait_for_exit().await, Exit::Code(0), "{}", server.log().tail());
        server.expect_clean().await;
        server = server.restart().await;
        journal.check(&mut server.admin()).await;
    }
}
