//! Many readers delay neither sales nor payments nor readiness.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};
use testkit::{Client, Response, Server, event_body, id_of, number_from_environment, with_fields};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Events in the list; each has three ticket types.
const EVENTS: usize = 100;
/// Clients that fill the database beforehand.
const FILLERS: u32 = 32;
/// Concurrent buyers.
const BUYERS: u32 = 4;

/// Numbers of readers, and of the rows that they read.
#[derive(Clone, Copy)]
struct ReadLoad {
    /// Clients without a token that list all events.
    anonymous: u32,
    /// Connections of one user that lists its confirmed bookings.
    heavy: usize,
    /// Bookings of that user.
    bookings: u32,
    /// Tickets that each buyer buys before the reads, and again during them.
    purchases: u32,
}

impl ReadLoad {
    /// A small load in every run; the whole with `READERS=500`, or another number of clients without a token.
    fn new() -> Self {
        match number_from_environment("READERS") {
            Some(anonymous) => Self { anonymous, heavy: 64, bookings: 49_500, purchases: 250 },
            None => Self { anonymous: 60, heavy: 16, bookings: 1_500, purchases: 25 },
        }
    }
}

/// Latencies, by operation or by kind of response.
#[derive(Default)]
struct Latencies(BTreeMap<String, Vec<Duration>>);

impl Latencies {
    fn all(clients: Vec<Self>) -> Self {
        let mut all = Self::default();
        for (operation, times) in clients.into_iter().flat_map(|client| client.0) {
            all.0.entry(operation).or_default().extend(times);
        }
        all
    }

    async fn time(&mut self, operation: &str, response: impl Future<Output = Response>) -> Response {
        let begun = Instant::now();
        let response = response.await;
        self.0.entry(operation.to_owned()).or_default().push(begun.elapsed());
        response
    }
}

async fn fill(server: &Server, bookings: u32) -> String {
    let types = json!([
        {"name": "Seat", "price": {"amount": 4_500, "currency": "EUR"}},
        {"name": "Box", "price": {"amount": 9_500, "currency": "EUR"}, "capacity": 10},
        {"name": "Standing", "price": {"amount": 2_500, "currency": "EUR"}},
    ]);
    let body = with_fields(event_body(1_000), &json!({"price": null, "ticketTypes": types}));
    let mut admin = server.admin();
    for _ in 0..EVENTS {
        admin.create_event(&body).await;
    }
    let event = admin.create_event(&event_body(1_000_000)).await;
    let mut fillers = JoinSet::new();
    for _ in 0..FILLERS {
        let (mut client, event) = (server.service(), event.clone());
        fillers.spawn(async move {
            for _ in 0..bookings.div_ceil(FILLERS) {
                client.book_for("heavy", &event, 1).await.expect(201);
            }
        });
    }
    fillers.join_all().await;
    event
}

/// Repeats a request until `stop` is set.
fn read(set: &mut JoinSet<Latencies>, (mut client, path): (Client, &'static str), stop: &Arc<AtomicBool>) {
    let stop = stop.clone();
    set.spawn(async move {
        let mut reads = Latencies::default();
        while !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let response = client.get(path).await;
            let kind = if response.status == StatusCode::OK { "200".to_owned() } else { response.code() };
            if response.status != StatusCode::OK {
                assert_eq!(response.header("retry-after"), "1", "{response:?}");
            }
            reads.0.entry(kind).or_default().push(begun.elapsed());
        }
        reads
    });
}

/// Books and pays, and reads availability and readiness.
async fn buy(server: &Server, event: &str, purchases: u32) -> Latencies {
    let mut buyers = JoinSet::new();
    for buyer in 0..BUYERS {
        let (mut service, mut user) = (server.service(), server.user(&format!("buyer-{buyer}")));
        let (event, mut anonymous) = (event.to_owned(), server.anonymous());
        buyers.spawn(async move {
            let (mut latencies, availability) =
                (Latencies::default(), format!("/v1/events/{event}/availability"));
            for _ in 0..purchases {
                let booking: Value = latencies.time("book", user.book(&event, 1)).await.expect(201);
                let id = id_of(&booking);
                latencies.time("availability", user.get(&availability)).await.expect(200);
                let paid = latencies.time("confirm", service.confirm(&id, &format!("pay-{id}"))).await;
                assert_eq!(paid.expect(200)["status"], "confirmed");
                latencies.time("readiness", anonymous.get("/readyz")).await.expect(200);
            }
            latencies
        });
    }
    Latencies::all(buyers.join_all().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_many_readers_do_not_delay_sales_or_payments() {
    let load = ReadLoad::new();
    let server = crate::setup().await.environment("BOXOFFICE_BOOK_LIMIT", "512/1us").start().await;
    let event = fill(&server, load.bookings).await;
    let before = buy(&server, &event, load.purchases).await;
    let (mut readers, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
    for _ in 0..load.anonymous {
        read(&mut readers, (server.anonymous(), "/v1/events?limit=100"), &stop);
    }
    for _ in 0..load.heavy {
        read(&mut readers, (server.user("heavy"), "/v1/bookings?status=confirmed&limit=100"), &stop);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let beside = buy(&server, &event, load.purchases).await;
    stop.store(true, Ordering::Relaxed);
    let reads = Latencies::all(readers.join_all().await);
    // A read that waits too long is refused and may be repeated; every read gets a response.
    assert!(
        reads.0.keys().all(|kind| ["200", "overloaded"].contains(&kind.as_str())),
        "{:?}",
        reads.0.keys()
    );
    assert!(reads.0["200"].len() > load.anonymous as usize / 2);
    server.expect_clean().await;
    report("without readers", before);
    report("beside readers", beside);
    report("readers", reads);
}

#[expect(clippy::print_stdout, reason = "measurements to be recorded")]
fn report(when: &str, latencies: Latencies) {
    for (operation, mut times) in latencies.0 {
        times.sort_unstable();
        let percentile = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        let (median, slow, slowest) = (percentile(50), percentile(99), percentile(100));
        println!(
            "{when}: {operation}: {} in all, p50 {median:?}, p99 {slow:?}, slowest {slowest:?}",
            times.len()
        );
    }
}
