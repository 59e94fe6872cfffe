//! Several instances that share a database, and nothing else.
//!
//! `ABORTS=10000` runs a longer campaign of abandoned requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{
    Client, CommitFault, Database, PostgresProxy, PostgresServer, Server, Setup, event_body, eventually,
    id_of, number_from_environment, within_deadline,
};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::program;

pub(crate) const TICKETS: u32 = 400;
const CLIENTS: usize = 200;
/// Number of abandoned requests unless `ABORTS` is set.
const ABORTS: u32 = 1_000;
const IDLE: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
     AND state LIKE 'idle in transaction%'";

async fn start_three(database: &Database) -> Vec<Server> {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Setup::new(program()).on_postgres(database).start().await);
    }
    servers
}

/// Repeats a request with one key until its response is final. While the database is unavailable it is 503,
/// which may be retried.
async fn request_until_final(client: &mut Client, path: &str, key: &str, body: &Value) -> (u16, Value) {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    within_deadline("a final response", async {
        loop {
            let response = client.request_with(hyper::Method::POST, path, &headers, body.to_string()).await;
            if response.status != 503 {
                return (response.status.as_u16(), response.json());
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// Books one ticket for a user, whose id is also the key. Retries until the response is final.
pub(super) async fn book(client: &mut Client, user: &str, event: &str) -> (u16, Value) {
    let body = json!({"eventId": event, "ticketQuantity": 1, "userId": user});
    request_until_final(client, "/v1/bookings", user, &body).await
}

/// Buys one ticket after the other until none is left. Returns the bookings, each of them paid.
async fn buy(mut client: Client, number: usize, event: String, sold: Arc<AtomicUsize>) -> Vec<String> {
    let mut bought = Vec::new();
    for turn in 0.. {
        let key = format!("{number}-{turn}");
        let (status, booking) = book(&mut client, &format!("buyer-{key}"), &event).await;
        if status == 409 {
            assert_eq!(booking["code"], "sold_out", "{booking:#}");
            break;
        }
        assert_eq!(status, 201, "{booking:#}");
        let id = id_of(&booking);
        let paid = json!({"paymentTransactionId": format!("pay-{key}")});
        let (status, paid) =
            request_until_final(&mut client, &format!("/v1/bookings/{id}/confirm"), &key, &paid).await;
        assert_eq!((status, &paid["status"]), (200, &json!("confirmed")), "{paid:#}");
        sold.fetch_add(1, Ordering::SeqCst);
        bought.push(id);
    }
    bought
}

/// Two hundred clients buy all tickets from three instances, while `meanwhile` runs.
pub(crate) async fn sale(servers: &[Server], meanwhile: impl AsyncFnOnce(&AtomicUsize)) {
    let event = servers[0].admin().create_event(&event_body(TICKETS)).await;
    let sold = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client = servers[number % servers.len()].service();
        clients.spawn(buy(client, number, event.clone(), sold.clone()));
    }
    meanwhile(&sold).await;
    let mut acknowledged: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    assert_eq!(acknowledged.len(), TICKETS as usize, "every ticket is sold, and no more");
    for server in servers {
        let mut admin = server.admin();
        assert_eq!(admin.counts(&event).await, (0, u64::from(TICKETS), 0), "every instance reports it");
        assert_eq!(admin.get("/readyz").await.status, 200);
    }
    let all = servers[1].admin().all(&format!("/v1/bookings?eventId={event}&status=confirmed")).await;
    let mut stored: Vec<String> = all.iter().map(id_of).collect();
    stored.sort();
    acknowledged.sort();
    assert_eq!(stored, acknowledged, "every booking that was acknowledged, and no other");
    servers[2].expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_instances_sell_exactly_what_there_is() {
    let database = PostgresServer::shared().await.create_database().await;
    sale(&start_three(&database).await, async |_| ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_without_redis_log_a_warning() {
    let server = crate::server().await;
    let warned = server.log().find(|line| line.contains("no --redis").then_some(())).await;
    assert!(warned.is_some(), "{}", server.log().tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn three_instances_survive_a_killed_database() {
    let postgres = PostgresServer::durable().await;
    let servers = start_three(&postgres.create_database().await).await;
    let kill = async |sold: &AtomicUsize| {
        for kill in 1..=3 {
            let enough = || (sold.load(Ordering::SeqCst) >= kill * TICKETS as usize / 5).then_some(());
            eventually("some are sold", async || enough()).await;
            postgres.kill9().await;
            postgres.start().await;
        }
        assert!(
            postgres.log().iter().any(|line| line.contains("was not properly shut down")),
            "killed without a shutdown"
        );
    };
    sale(&servers, kill).await;
}

/// An instance that is paused inside its transaction blocks the event for others until the database server
/// ends the session, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_paused_inside_its_transaction_does_not_block_others() {
    let database = PostgresServer::durable().await.create_database().await;
    let proxy = PostgresProxy::start(database.server().port()).await;
    let paused =
        Setup::new(program()).on_postgres_at(&database, database.url_at_port(proxy.port())).start().await;
    let event = paused.admin().create_event(&event_body(100)).await;
    let backend = database
        .query_number(
            "SELECT max(pid)::bigint FROM pg_stat_activity
             WHERE application_name = 'boxoffice-writer' AND datname = current_database()",
        )
        .await;
    let other = Setup::new(program()).on_postgres(&database).start().await;
    proxy.set_commit_fault(CommitFault::HoldCommit, 1);
    let mut client = paused.service();
    let path = event.clone();
    let mut requests = JoinSet::new();
    requests.spawn(async move { client.book_for("paused", &path, 1).await });
    proxy.wait_for_fault_after(0).await;
    paused.pause();
    for number in 0..5 {
        let (status, booking) = book(&mut other.service(), &format!("other-{number}"), &event).await;
        assert_eq!(status, 201, "{booking:#}");
    }
    let ended = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {backend}");
    eventually("the server has ended the session", async || {
        (database.query_number(&ended).await == 0).then_some(())
    })
    .await;
    let log = database.server().log().join("\n");
    assert!(log.contains("idle-in-transaction timeout"), "{log}");
    paused.resume();
    // It finds that nothing was committed, reports that, and continues.
    let response = requests.join_next().await.expect("a task").expect("a response");
    response.expect_problem(503, "unavailable");
    paused.service().book_for("later", &event, 1).await.expect(201);
    assert_eq!(other.admin().counts(&event).await, (6, 0, 94));
    other.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn abandoned_requests_leave_nothing_behind() {
    let aborts = number_from_environment("ABORTS").unwrap_or(ABORTS);
    let database = PostgresServer::shared().await.create_database().await;
    let servers = start_three(&database).await;
    let mut events = Vec::new();
    for _ in 0..5 {
        events.push(servers[0].admin().create_event(&event_body(1_000_000)).await);
    }
    let mut clients = JoinSet::new();
    for worker in 0..16_u32 {
        let tokens = servers[worker as usize % 3].tokens();
        let address = servers[worker as usize % 3].address();
        let events = events.clone();
        clients.spawn(async move {
            let mut abandoned = 0_u32;
            for turn in 0..aborts.div_ceil(16) {
                // A connection for each request, closed at whatever point the request is by then.
                let mut client = Client::new(address, Some(tokens.service()));
                client.connect().await.expect("the server takes connections");
                let delay = Duration::from_micros(u64::from(turn * 7919 + worker * 104_729) % 4_000);
                let event = &events[turn as usize % events.len()];
                let user = format!("abandoned-{worker}-{turn}");
                let request = client.book_for(&user, event, 1);
                abandoned += u32::from(timeout(delay, request).await.is_err());
            }
            abandoned
        });
    }
    let abandoned: u32 = clients.join_all().await.into_iter().sum();
    assert!(abandoned > aborts / 10, "{abandoned} of {aborts} were abandoned");
    eventually("no transaction is left open", async || {
        (database.query_number(IDLE).await == 0).then_some(())
    })
    .await;
    for (event, server) in events.iter().zip(servers.iter().cycle()) {
        server.service().book_for("patient", event, 1).await.expect(201);
    }
    servers[1].expect_clean().await;
}

/// A database that does not respond causes errors for clients, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_database_causes_errors_and_is_used_again_afterwards() {
    let postgres = PostgresServer::durable().await;
    let server = Setup::new(program()).on_postgres(&postgres.create_database().await).start().await;
    let event = server.admin().create_event(&event_body(9)).await;
    postgres.pause();
    let response = server.service().book_for("a", &event, 1).await;
    assert_eq!(response.status, 503, "{response:?}");
    assert!(!response.header("retry-after").is_empty(), "{response:?}");
    postgres.resume();
    let mut service = server.service();
    eventually("bookings continue", async || {
        (service.book_for("b", &event, 1).await.status == 201).then_some(())
    })
    .await;
    assert_eq!(server.admin().counts(&event).await, (1, 0, 8));
    server.expect_clean().await;
}
