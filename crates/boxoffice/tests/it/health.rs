//! Liveness, readiness, metrics and the log.

use std::collections::BTreeMap;

use hyper::Method;
use serde_json::json;
use testkit::{Client, RawConnection, Server, Setup, event_body, eventually};

use crate::{program, server};

#[tokio::test]
async fn a_healthy_server_is_alive_and_ready() {
    let server = server().await;
    let mut client = server.anonymous();
    assert_eq!(client.get("/livez").await.expect(200), json!({"status": "alive"}));
    assert_eq!(client.get("/readyz").await.expect(200), json!({"status": "ready"}));
    for verbose in ["/readyz?verbose", "/readyz?verbose=", "/readyz?verbose=1"] {
        let body = client.get(verbose).await.expect(200);
        assert_eq!((&body["status"], &body["database"]), (&json!("ready"), &json!("ok")), "{body}");
        let chores: Vec<&String> = body["chores"].as_object().expect("chores").keys().collect();
        assert_eq!(chores, ["event-cancellation", "key-expiry", "sweeper"]);
        let chores = body["chores"].as_object().into_iter().flat_map(serde_json::Map::values);
        assert!(chores.clone().all(|chore| chore["lastSuccess"].is_string()), "{body}");
    }
    assert_eq!(client.get("/readyz?loud").await.expect_invalid(), ["?loud"]);
}

/// While another process locks the database, readiness and bookings respond 503.
#[tokio::test]
async fn a_server_with_a_locked_database_is_alive_but_not_ready() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(10)).await;
    let mut other_process = rusqlite::Connection::open(server.database()).unwrap();
    let transaction =
        other_process.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let mut client = server.anonymous();
    for path in ["/readyz", "/readyz?verbose"] {
        let response = client.get(path).await;
        let body = response.expect_problem(503, "unavailable");
        assert!(!response.header("retry-after").is_empty(), "{response:?}");
        assert_eq!(body["database"].is_string(), path.ends_with("verbose"), "{body}");
    }
    client.get("/livez").await.expect(200);
    let refused = admin.book_for("ada", &event, 1).await;
    refused.expect_problem(503, "unavailable");
    assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
    assert_eq!(admin.counts(&event).await, (0, 0, 10), "reads continue");
    drop(transaction);
    client.get("/readyz").await.expect(200);
    admin.book_for("ada", &event, 1).await.expect(201);
    server.expect_clean().await;
}

async fn metrics(client: &mut Client) -> BTreeMap<String, String> {
    let response = client.get("/metrics").await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = String::from_utf8(response.body.to_vec()).expect("text");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.to_owned())
    };
    samples.map(sample).collect()
}

#[tokio::test]
async fn metrics_count_requests_and_have_no_labels_from_clients() {
    let server = server().await;
    let (mut admin, mut client) = (server.admin(), server.anonymous());
    let event = admin.create_event(&event_body(1)).await;
    admin.book_for("ada", &event, 1).await.expect(201);
    for _ in 0..3 {
        admin.book_for("ada", &event, 1).await.expect_problem(409, "sold_out");
    }
    for number in 0..20 {
        client.get(&format!("/v1/nowhere/{number}?q={number}")).await.expect_problem(404, "not_found");
        client.get(&format!("/v1/events/unknown-{number}")).await.expect_problem(404, "not_found");
        let method: Method = format!("M{number}").parse().unwrap();
        client
            .try_request(method, "/v1/events", None)
            .await
            .unwrap()
            .expect_problem(405, "method_not_allowed");
    }
    let samples = metrics(&mut client).await;
    let of = |name: &str| samples.get(name).unwrap_or_else(|| panic!("{name} in {samples:#?}")).as_str();
    let count = |name: &str| -> u64 { of(name).parse().expect("a count") };
    assert_eq!(count("boxoffice_problems_total{code=\"sold_out\"}"), 3);
    assert_eq!(count("boxoffice_problems_total{code=\"not_found\"}"), 40);
    let requests = "http_server_request_duration_seconds_count";
    let labels = "http_request_method=\"POST\",http_route=\"/v1/bookings\",http_response_status_code";
    assert_eq!(count(&format!("{requests}{{{labels}=\"409\"}}")), 3);
    assert_eq!(count(&format!("{requests}{{{labels}=\"201\"}}")), 1);
    for name in ["boxoffice_queue_length", "boxoffice_streams"] {
        assert_eq!(count(name), 0, "{name}");
    }
    assert!(count("boxoffice_batches_total") >= 5 && count("boxoffice_commands_total") >= 5);
    assert!(count("boxoffice_chore_last_success_timestamp_seconds{chore=\"sweeper\"}") > 1_600_000_000);
    assert_eq!(samples.keys().filter(|name| name.starts_with("boxoffice_build_info{version=")).count(), 1);
    for client_value in ["unknown", "nowhere", "M1", &event, "ada"] {
        assert!(!samples.keys().any(|name| name.contains(client_value)), "{client_value} in {samples:#?}");
    }
}

#[tokio::test]
async fn metrics_can_have_their_own_listener() {
    // A port that was free a moment ago; another one is tried if it is taken meanwhile.
    let server = eventually("a free port", async || {
        let port = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?;
        let setup = Setup::new(program()).argument("--metrics-listen").argument(port.to_string());
        let mut process = setup.spawn();
        let ready = process
            .stderr
            .find(|line| line.split_once("ready address=")?.1.split(' ').next()?.parse().ok())
            .await;
        ready.map(|address: std::net::SocketAddr| (process.is_running(), process, address, port))
    })
    .await;
    let (_, _process, address, apart) = server;
    Client::new(address, None).get("/metrics").await.expect_problem(404, "not_found");
    let mut client = Client::new(apart, None);
    assert!(metrics(&mut client).await.contains_key("boxoffice_queue_length"));
    for path in ["/v1/events", "/readyz", "/"] {
        assert_eq!(client.get(path).await.status, 404, "{path}");
    }
}

/// Every log event is one line, and every line is one JSON object.
#[tokio::test]
async fn the_json_log_has_one_object_per_line() {
    let setup =
        Setup::new(program()).argument("--log-format").argument("json").argument("--log").argument("debug");
    let process = setup.spawn();
    let address = process.stderr.find(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["fields"]["address"].as_str()?.parse().ok()
    });
    let address = address.await.expect("the address it listens on");
    let mut client = Client::new(address, None);
    let forged = "req-1\u{1b}[31m".replace('\u{1b}', "");
    let headers = [("x-request-id", forged.as_str())];
    client
        .request_with(Method::GET, "/v1/nowhere%0aERROR%1b[31m", &headers, "")
        .await
        .expect_problem(404, "not_found");
    let entry = process.stderr.find(|line| {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        (line["fields"]["request"] == forged.as_str()).then_some(line)
    });
    let entry = entry.await.expect("a line about the request");
    assert_eq!((&entry["fields"]["status"], &entry["fields"]["method"]), (&json!(404), &json!("GET")));
    assert!(entry["timestamp"].is_string() && entry["level"] == "DEBUG", "{entry}");
}

/// A client cannot write its own lines into the log.
#[tokio::test]
async fn client_input_cannot_inject_log_lines() {
    let server: Server = Setup::new(program()).argument("--log").argument("trace").start().await;
    let mut raw = RawConnection::open(server.address()).await;
    let target = "/v1/x%0d%0a2026-01-01T00:00:00Z%20ERROR%20forged%1b%5b31m";
    raw.write(format!(
        "GET {target} HTTP/1.1\r\nhost: x\r\nx-request-id: a\u{9b}31m\r\nuser-agent: y\r\n\r\n"
    ))
    .await;
    assert_eq!(raw.read_response().await.expect("a response").status, 404);
    server.log().find(|line| line.contains("status=404").then_some(())).await.expect("it is in the log");
    let log = server.log().all();
    assert!(
        log.iter().all(|line| !line.contains('\u{1b}') && !line.starts_with("2026-01-01T00:00:00Z ERROR")),
        "{log:#?}"
    );
}
