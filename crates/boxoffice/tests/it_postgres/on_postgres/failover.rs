//! A failover to a synchronous standby loses nothing that was acknowledged, however the waits of commits end.
//!
//! `FAILOVERS=100 FAILOVER_RESULTS=FILE` runs a longer campaign, which resumes where the file ends.

use std::fs::{OpenOptions, read_to_string};
use std::io::Write as _;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use testkit::{
    Client, Database, Load, PostgresServer, Response, Setup, event_body, eventually, number_from_environment,
    text_from_environment,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::program;

/// Number of rounds unless `FAILOVERS` is set: one of each of the first two kinds.
const ROUNDS: u32 = 2;
const CLIENTS: usize = 8;
/// Longer than a transaction and the resolution of its outcome may take.
const BEYOND_COMMIT_FOLLOWUP: Duration = Duration::from_millis(5_500);
/// Backends that wait for a standby.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
/// Cancels these waits.
const CANCEL_WAITS: &str =
    "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

/// The end of the commits' waits for the standby, before the primary is killed.
#[derive(Clone, Copy, Debug)]
enum WaitEnd {
    /// The requests time out.
    Timeout,
    /// An admin cancels the waits.
    Cancel,
    /// The waits do not end.
    Kill,
}

impl WaitEnd {
    fn for_round(round: u32) -> Self {
        match round % 3 {
            0 => Self::Timeout,
            1 => Self::Cancel,
            _ => Self::Kill,
        }
    }

    async fn run(self, database: &Database, round: u32) {
        match self {
            Self::Timeout => sleep(BEYOND_COMMIT_FOLLOWUP).await,
            Self::Cancel => {
                for _ in 0..4 {
                    let waits = async || (database.query_number(WAITING).await > 0).then_some(());
                    eventually("a commit waits", waits).await;
                    database.query_number(CANCEL_WAITS).await;
                    sleep(Duration::from_millis(200)).await;
                }
            }
            Self::Kill => sleep(Duration::from_millis(u64::from(round) * 7919 % 900)).await,
        }
    }
}

/// Runs one failover under load. Returns the number of bookings that were acknowledged and found again.
async fn round(round: u32) -> usize {
    let wait_end = WaitEnd::for_round(round);
    let primary = PostgresServer::durable().await;
    let database = primary.create_database().await;
    let standby = primary.standby("one").await;
    primary.set("synchronous_standby_names", "one").await;
    let mut server = Setup::new(program()).on_postgres(&database).start().await;
    let events = [
        server.admin().create_event(&event_body(1_000_000)).await,
        server.admin().create_event(&event_body(1_000_000)).await,
    ];
    let mut load = Load::start(&server, &events, CLIENTS);
    load.wait_for_acknowledged(20 + u64::from(round) * 37 % 200).await;
    standby.pause();
    wait_end.run(&database, round).await;
    primary.kill9().await;
    server.kill9();
    let journal = load.wait_until_disconnected().await;
    // Data that was sent to the paused standby must not reach it; the kill discards what is buffered.
    standby.kill9().await;
    standby.start().await;
    standby.promote().await;
    let promoted = Setup::new(program()).on_postgres(&standby.database_of(&database)).start().await;
    // No booking is lost, and none exists that was reported as not made.
    journal.check(&mut promoted.admin()).await;
    promoted.expect_clean().await;
    journal.len()
}

#[expect(clippy::print_stdout, reason = "the result of a campaign")]
fn report(file: Option<&str>, line: &str) {
    println!("{line}");
    let Some(file) = file else { return };
    let file = OpenOptions::new().create(true).append(true).open(file);
    writeln!(file.expect("a file for results"), "{line}").expect("a line is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_a_failover_loses_no_acknowledged_booking() {
    let rounds = number_from_environment("FAILOVERS").unwrap_or(ROUNDS);
    let results = text_from_environment("FAILOVER_RESULTS");
    let done = results.as_deref().and_then(|file| read_to_string(file).ok());
    let done = done.map_or(0, |text| text.lines().filter(|line| line.starts_with("round ")).count());
    for number in u32::try_from(done).expect("a number of rounds")..rounds {
        let began = Instant::now();
        let bookings = round(number).await;
        let (wait_end, took) = (WaitEnd::for_round(number), began.elapsed().as_secs());
        report(
            results.as_deref(),
            &format!("round {number}: {wait_end:?}, {bookings} acknowledged bookings, none lost, {took} s"),
        );
    }
}

/// Books a ticket with an idempotency key, which is also the user's id.
async fn book(client: &mut Client, key: &str, event: &str) -> Response {
    let body = json!({"eventId": event, "ticketQuantity": 1, "userId": key});
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    client.request_with(Method::POST, "/v1/bookings", &headers, body.to_string()).await
}

/// A commit that only the primary has is not acknowledged: not to its client, not under its key, and not by
/// another instance.
#[tokio::test(flavor = "multi_thread")]
async fn r1_a_commit_whose_wait_was_cancelled_is_not_acknowledged() {
    let postgres = PostgresServer::durable().await;
    let database = postgres.create_database().await;
    let server = Setup::new(program()).on_postgres(&database).start().await;
    let other = Setup::new(program()).on_postgres(&database).start().await;
    let event = server.admin().create_event(&event_body(100)).await;
    book(&mut server.service(), "before", &event).await.expect(201);
    postgres.set("synchronous_standby_names", "absent").await;
    let mut requests = JoinSet::new();
    let (mut client, path) = (server.service(), event.clone());
    requests.spawn(async move { book(&mut client, "cancelled", &path).await });
    eventually("its commit waits", async || (database.query_number(WAITING).await > 0).then_some(())).await;
    let booked = "SELECT count(*) FROM bookings WHERE user_id = 'cancelled'";
    assert_eq!(database.query_number(booked).await, 0, "not visible yet");
    database.query_number(CANCEL_WAITS).await;
    let response = requests.join_next().await.expect("a task").expect("a response");
    response.expect_problem(503, "outcome_unknown");
    assert_eq!(database.query_number(booked).await, 1, "visible now");
    // The instance that committed it knows that, and begins no transaction; the other one finds a stored
    // response.
    for (server, key) in [(&server, "before"), (&server, "cancelled"), (&other, "cancelled")] {
        book(&mut server.service(), key, &event).await.expect_problem(503, "unavailable");
    }
    for server in [&server, &other] {
        let waits = async || {
            let response = server.anonymous().get("/readyz").await;
            (response.status == 503).then_some(response)
        };
        let body = eventually("readiness reports it", waits).await.expect_problem(503, "unavailable");
        assert!(!body.to_string().contains("standby"), "{body}");
        let body = server.anonymous().get("/readyz?verbose").await.expect_problem(503, "unavailable");
        assert!(body["database"].as_str().is_some_and(|text| text.contains("commits wait")), "{body}");
    }
    let doctor = program().run(["doctor", "--database", &database.url()]).await;
    assert!(doctor.stdout.contains("- commits wait for standbys that do not respond"), "{doctor:?}");
    assert!(database.query_number(WAITING).await <= 4, "blocked commits do not accumulate");
    postgres.set("synchronous_standby_names", "''").await;
    let mut bookings = Vec::new();
    for server in [&server, &other] {
        let mut client = server.service();
        let response = eventually("the key gets a final response", async || {
            let response = book(&mut client, "cancelled", &event).await;
            (response.status != 503).then_some(response)
        });
        bookings.push(testkit::id_of(&response.await.expect(201)));
        server.anonymous().get("/readyz").await.expect(200);
    }
    assert_eq!(bookings[0], bookings[1]);
    assert_eq!(server.admin().counts(&event).await, (2, 0, 98));
    server.expect_clean().await;
}

/// Readiness and `doctor` report a configured standby that is not connected, while commits continue.
#[tokio::test(flavor = "multi_thread")]
async fn r1_a_missing_standby_is_reported() {
    let postgres = PostgresServer::durable().await;
    let database = postgres.create_database().await;
    let server = Setup::new(program()).on_postgres(&database).start().await;
    let event = server.admin().create_event(&event_body(9)).await;
    let standby = postgres.standby("one").await;
    postgres.set("synchronous_standby_names", "'ANY 1 (one, \"two\")'").await;
    server.service().book_for("ada", &event, 1).await.expect(201);
    let mut client = server.anonymous();
    assert_eq!(client.get("/readyz").await.expect(200), json!({"status": "degraded"}));
    let body = client.get("/readyz?verbose").await.expect(200);
    assert!(body["database"].as_str().is_some_and(|text| text.ends_with("missing: two")), "{body}");
    database.execute("CREATE ROLE clerk LOGIN").await;
    database.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO clerk").await;
    let without_rights = database.url().replace("boxoffice@", "clerk@");
    for (url, may_see) in [(database.url(), true), (without_rights, false)] {
        let doctor = program().run(["doctor", "--database", &url]).await;
        assert!(doctor.stdout.contains("are not connected; missing: two"), "{doctor:?}");
        assert_eq!(doctor.stdout.contains("cannot see if they keep up"), !may_see, "{doctor:?}");
        let doctor = program().run(["doctor", "--json", "--database", &url]).await;
        let report: Value = serde_json::from_str(&doctor.stdout).expect("JSON");
        let found = &report["dependencies"][0];
        assert_eq!(found["missingStandbys"], json!(["two"]), "{found:#}");
        assert_eq!((&found["connectedStandbys"], &found["standbysVisible"]), (&json!(1), &json!(may_see)));
    }
    postgres.set("synchronous_standby_names", "one").await;
    assert_eq!(client.get("/readyz").await.expect(200), json!({"status": "ready"}));
    standby.kill9().await;
    let degraded = async || (client.get("/readyz").await.expect(200)["status"] == "degraded").then_some(());
    eventually("none is connected", degraded).await;
    let body = client.get("/readyz?verbose").await.expect(200);
    assert!(body["database"].as_str().is_some_and(|text| text.contains("1 of the standbys")), "{body}");
}
