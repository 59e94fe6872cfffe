//! Live availability: server-sent events, read from a plain connection.

use std::net::SocketAddr;

use hyper::Method;
use serde_json::Value;
use testkit::{Exit, RawConnection, Setup, event_body, id_of, within_deadline};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::{program, server};

/// An open stream.
struct Subscriber {
    lines: BufReader<TcpStream>,
}

/// One message of a stream: its fields by name.
#[derive(Debug, Default)]
struct Message {
    event: String,
    id: String,
    retry: String,
    data: Value,
}

impl Subscriber {
    /// Opens a stream with these further header lines. Returns it, and the response's head in lower case.
    async fn open(address: SocketAddr, event: &str, lines: &str) -> (Self, String) {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let head = format!("GET /v1/events/{event}/availability/stream HTTP/1.1\r\nhost: x\r\n{lines}\r\n");
        stream.write_all(head.as_bytes()).await.expect("the request is sent");
        let mut subscriber = Self { lines: BufReader::new(stream) };
        let mut head = String::new();
        loop {
            let line = subscriber.line().await.expect("a head");
            if line.is_empty() {
                return (subscriber, head);
            }
            head = head + &line.to_lowercase() + "\n";
        }
    }

    /// Next line; `None` once the stream has ended.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = within_deadline("a line of a stream", self.lines.read_line(&mut line)).await;
        (read.ok()? > 0).then(|| line.trim_end().to_owned())
    }

    /// Next message; `None` once the stream has ended. Chunk sizes and comments are skipped.
    async fn next(&mut self) -> Option<Message> {
        let mut message = Message::default();
        loop {
            let line = self.line().await?;
            match line.split_once(':').map(|(name, value)| (name, value.trim())) {
                Some(("event", value)) => value.clone_into(&mut message.event),
                Some(("id", value)) => value.clone_into(&mut message.id),
                Some(("retry", value)) => value.clone_into(&mut message.retry),
                Some(("data", value)) => message.data = serde_json::from_str(value).expect("JSON"),
                _ if line.is_empty() && !message.data.is_null() => return Some(message),
                _ => {}
            }
        }
    }

    /// Next message with this number of held tickets; messages before it are skipped.
    async fn until_held(&mut self, held: u64) -> Message {
        loop {
            let message = self.next().await.expect("the stream has not ended");
            if message.data["held"] == held {
                return message;
            }
        }
    }
}

#[tokio::test]
async fn subscribers_get_the_state_at_once_and_after_changes() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(10)).await;
    let (mut subscriber, head) = Subscriber::open(server.address(), &event, "").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    for field in [
        "content-type: text/event-stream\n",
        "cache-control: no-cache\n",
        "x-accel-buffering: no\n",
        "x-request-id: req_",
    ] {
        assert!(head.contains(field), "{field} in {head}");
    }
    let first = subscriber.next().await.expect("a message at once");
    assert_eq!((first.event.as_str(), first.id.as_str()), ("availability", "1"));
    let retry: u64 = first.retry.parse().expect("a reconnection time");
    assert!((2_000..=5_100).contains(&retry), "{first:?}");
    // The same data as the route without `/stream` returns.
    let mut fetched = admin.get(&format!("/v1/events/{event}/availability")).await.expect(200);
    let mut streamed = first.data.clone();
    for one in [&mut fetched, &mut streamed] {
        assert!(one["asOf"].is_string());
        one["asOf"] = Value::Null;
    }
    assert_eq!(streamed, fetched);

    let booking = id_of(&admin.book_for("ada", &event, 3).await.expect(201));
    let booked = subscriber.until_held(3).await;
    assert_eq!((&booked.data["available"], &booked.data["eventSeq"]), (&7.into(), &2.into()));
    assert_eq!((booked.id.as_str(), booked.retry.as_str()), ("2", ""));
    admin.cancel(&booking).await.expect(200);
    assert_eq!(subscriber.until_held(0).await.data["available"], 10);
    // A slow client gets the latest state, not every state before it.
    for _ in 0..5 {
        admin.book_for("ada", &event, 1).await.expect(201);
    }
    let last = subscriber.until_held(5).await;
    assert_eq!(last.data["eventSeq"], 8);
    // A client that reconnects gets the whole state at once, whatever its `Last-Event-ID` is.
    for known in ["1", "8", "99", "nonsense"] {
        let (mut again, _) =
            Subscriber::open(server.address(), &event, &format!("last-event-id: {known}\r\n")).await;
        assert_eq!(again.next().await.expect("a message at once").data["held"], 5, "{known}");
    }
}

#[tokio::test]
async fn all_subscribers_of_an_event_get_the_same_state() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(10)).await;
    let mut subscribers = Vec::new();
    for _ in 0..50 {
        subscribers.push(Subscriber::open(server.address(), &event, "").await.0);
    }
    for subscriber in &mut subscribers {
        subscriber.next().await.expect("a message at once");
    }
    admin.book_for("ada", &event, 4).await.expect(201);
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.until_held(4).await.data["eventSeq"], 2);
    }
}

#[tokio::test]
async fn streams_of_unknown_events_return_404() {
    let server = server().await;
    let mut client = server.anonymous();
    for event in ["evt_01h455vb4pex5vsknk084sn02q", "nonsense", "%ff"] {
        let path = format!("/v1/events/{event}/availability/stream");
        client
            .try_request(Method::GET, &path, None)
            .await
            .expect("a response")
            .expect_problem(404, "not_found");
    }
}

/// Open streams end at shutdown, so that they do not delay it.
#[tokio::test]
async fn streams_end_at_shutdown() {
    let mut server = server().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let (mut subscriber, _) = Subscriber::open(server.address(), &event, "").await;
    subscriber.next().await.expect("a message at once");
    server.terminate();
    assert!(subscriber.next().await.is_none(), "the stream ends");
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
}

/// The streams of one address are limited. Behind a trusted proxy the address is the client's.
#[tokio::test]
async fn streams_per_address_are_limited() {
    let server =
        Setup::new(program()).argument("--trusted-proxies").argument("127.0.0.0/8,::1").start().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let from = |address: &str| format!("x-forwarded-for: 198.51.100.9, {address}\r\n");
    let mut open = Vec::new();
    for _ in 0..200 {
        let (mut subscriber, _) = Subscriber::open(server.address(), &event, &from("203.0.113.7")).await;
        subscriber.next().await.expect("a message at once");
        open.push(subscriber);
    }
    let try_open = async |address: &str| {
        let mut raw = RawConnection::open(server.address()).await;
        let lines = from(address);
        raw.write(format!("GET /v1/events/{event}/availability/stream HTTP/1.1\r\nhost: x\r\n{lines}\r\n"))
            .await;
        raw.read_response().await.expect("a response")
    };
    let refused = try_open("203.0.113.7").await;
    refused.expect_problem(503, "overloaded");
    assert_eq!(refused.header("retry-after"), "1");
    for other in ["203.0.113.8", "2001:db8::1", "127.0.0.1"] {
        assert_eq!(try_open(other).await.status, 200, "{other}");
    }
    // Other requests of the same address are served, and closing a stream frees its permit.
    server.anonymous().get("/v1/events").await.expect(200);
    open.pop();
    testkit::eventually("a permit is free", async || {
        (try_open("203.0.113.7").await.status == 200).then_some(())
    })
    .await;
}
